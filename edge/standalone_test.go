// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// parrot is a protocol without servers: it says its word to who speaks to it, over UDP by the sockets of all its listens,
// so that it also says it where it was not asked.
func parrot() service.Protocol {
	return service.Protocol{Name: "parrot", Transports: []listen.Transport{listen.UDP, listen.TCP}, AnyListen: true, Standalone: true,
		Options: func() service.Options { return new(parrotOptions) }, Build: buildParrots}
}

type parrotOptions struct {
	Word string `yaml:"word"`
}

func (*parrotOptions) Check(*service.Service) []error { return nil }

func buildParrots(services []*service.Service, env service.Env) (service.Server, error) {
	doors := make(map[listen.Addr]service.Handler)
	for _, s := range services {
		word := []byte(s.Options.(*parrotOptions).Word)
		for _, l := range s.Listen {
			route := env.Route(s.Name, service.Door{Listen: l.Name, Family: l.Family()})
			if l.Transport == listen.TCP {
				doors[l.Addr] = service.Handler{Conn: func(c *relay.Conn) {
					c.Write(word)
					c.Close()
				}}
				continue
			}
			doors[l.Addr] = service.Handler{Datagrams: func(socket *relay.Datagrams) func(relay.Datagram) {
				return func(d relay.Datagram) {
					if route.Allows(d.From.Addr()) {
						socket.Send(socket.Loop(), relay.Datagram{From: d.To, To: d.From, Payload: word})
					}
				}
			}}
		}
	}
	return service.Server{Doors: doors}, nil
}

// say sends one packet and returns the answer.
func say(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte("?"))
	var b [64]byte
	n, err := c.Read(b[:])
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// A service without servers answers by itself at listens that have names of its own, over both transports; it outlives a
// reload with its sockets, and its address may become another service's and come back.
func TestStandalone(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b := newBench(t)
		at, err := servertest.FreeAddr(f)
		if err != nil {
			t.Fatal(err)
		}
		word := func(w string) string {
			return "  bird: {protocol: parrot, listen: {cage: [\"" + at.String() + "\"]}, deny: [192.0.2.0/24], parrot: {word: " + w + "}}\n"
		}
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, w := range []string{"ahoy", "again"} {
			b.serve(word(w))
			if got := say(t, c); got != w {
				t.Errorf("got %q over UDP, want %q", got, w)
			}
			if got := readAll(t, at); got != w {
				t.Errorf("got %q over TCP, want %q", got, w)
			}
		}
		if s := b.edge.Status().Services; len(s) != 1 || s[0].Service != "bird" || s[0].State != "open" {
			t.Errorf("status has %+v", s)
		}

		echo := servertest.UDPEcho(t, ip.V4)
		b.serve(line("echo", "udp", at, servers([]netip.AddrPort{echo})))
		await(t, "the echo answers", func() bool { return say(t, c) == "?" })
		b.serve(word("back"))
		if got := say(t, c); got != "back" {
			t.Errorf("got %q, want back", got)
		}
	})
}

// readAll returns what a connection says until it ends.
func readAll(t *testing.T, at netip.AddrPort) string {
	t.Helper()
	c := dial(t, at)
	var b [64]byte
	n, err := c.Read(b[:])
	if err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	return string(b[:n])
}
