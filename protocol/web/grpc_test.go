// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// grpcServer serves gRPC with two services that the module has: health, of which Watch streams to the client, and
// reflection, which streams both ways. who is told the metadata of each call.
func grpcServer(t *testing.T, f ip.Family, config *tls.Config, who func(metadata.MD)) (netip.AddrPort, *health.Server) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	options := []grpc.ServerOption{grpc.UnaryInterceptor(
		func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			who(md)
			grpc.SetTrailer(ctx, metadata.Pairs("x-last", "word", "x-data-bin", "\x00\xff"))
			return h(ctx, request)
		})}
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	s, h := grpc.NewServer(options...), health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	reflection.Register(s)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return ip.CanonicalPort(l.Addr().(*net.TCPAddr).AddrPort()), h
}

// gRPC goes through: single calls with their trailers and errors, streams to the client and both ways, in clear and in
// TLS on both sides.
func TestGRPC(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		server, _ := servertest.TLS(t, "origin.example.jp")
		for way, config := range map[string]*tls.Config{"clear": nil, "tls": server} {
			t.Run("to-"+way, func(t *testing.T) {
				want := iptest.Loopback(x.Client).String()
				backendAddr, h := grpcServer(t, x.Backend, config, func(md metadata.MD) {
					if got := md.Get("x-forwarded-for"); len(got) != 1 || got[0] != want {
						t.Errorf("the backend was told of %q, want %q", got, want)
					}
				})
				spec := shared(backendAddr)
				if config != nil {
					spec.TLS = &backend.ClientTLS{}
				}
				serve := func(at listen.Addr, o *Options) { b.serve(b.service("shop", at, spec, speaks2(o))) }
				b.over2(t, b.freeAddr(x.Client), serve, func(t *testing.T, url string, c *http.Client) { tryGRPC(t, url, c, h) })
			})
		}
	})
}

func tryGRPC(t *testing.T, base string, c *http.Client, h *health.Server) {
	u := parsed(t, base)
	creds := insecure.NewCredentials()
	if u.Scheme == "https" {
		creds = credentials.NewTLS(c.Transport.(*http.Transport).TLSClientConfig)
	}
	conn, err := grpc.NewClient("passthrough:///"+u.Host, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	client := healthpb.NewHealthClient(conn)
	h.SetServingStatus("a", healthpb.HealthCheckResponse_SERVING)
	var trailer metadata.MD
	r, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "a"}, grpc.Trailer(&trailer))
	if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("got %v, %v", r, err)
	}
	if got := trailer.Get("x-data-bin"); len(got) != 1 || got[0] != "\x00\xff" || len(trailer.Get("x-last")) != 1 {
		t.Errorf("got the trailers %v", trailer)
	}
	if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("got %v, want NotFound", err) // an answer of trailers alone
	}

	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING,
		healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING} {
		h.SetServingStatus("a", want)
		if r, err := watch.Recv(); err != nil || r.Status != want {
			t.Fatalf("watch: got %v, %v; want %v", r, err, want)
		}
	}

	both, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := both.Send(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{ListServices: "*"}}); err != nil {
			t.Fatal(err)
		}
		if r, err := both.Recv(); err != nil || len(r.GetListServicesResponse().GetService()) < 2 {
			t.Fatalf("reflection: got %v, %v", r, err)
		}
	}
	if err := both.CloseSend(); err != nil {
		t.Error(err)
	}
}
