// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// patience is how long a handshake may take on a busy machine.
const patience = time.Minute

// secure answers in TLS with the Host that it was asked for, in a header.
func secure(t *testing.T, f ip.Family, config *tls.Config) netip.AddrPort {
	return servertest.HTTPS(t, f, config, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "shop.example.jp" {
			w.WriteHeader(http.StatusMisdirectedRequest)
		}
	}))
}

// pool is whom a server trusts.
func pool(a *servertest.Authority) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Certificate)
	return p
}

// TestTLS shakes hands, and says in plain words what is wrong with whom.
func TestTLS(t *testing.T) {
	t.Parallel()
	shop, trusting := servertest.TLS(t, "shop.example.jp")
	_, strange := servertest.TLS(t, "shop.example.jp")
	late, trustingLate := servertest.Expired(t, "shop.example.jp")
	partners := servertest.NewAuthority(t, "partners")
	us, others := partners.Issue("edge"), servertest.NewAuthority(t, "others").Issue("edge")
	strict := shop.Clone()
	strict.ClientAuth, strict.ClientCAs = tls.RequireAndVerifyClientCert, pool(partners)
	strict12 := strict.Clone()
	strict12.MaxVersion = tls.VersionTLS12
	as := func(config *tls.Config, name string, shown ...tls.Certificate) *tls.Config {
		config = config.Clone()
		config.ServerName = name
		if len(shown) > 0 { // the library itself shows none that the server has not asked for
			config.Certificates = shown
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown[0], nil }
		}
		return config
	}
	const name = "shop.example.jp"
	for _, test := range []struct {
		name   string
		server *tls.Config
		speak  *tls.Config
		want   string // "" if the server is well
	}{
		{"well", shop, as(trusting, name), ""},
		{"wrong name", shop, as(trusting, "www.example.jp"), "tls: certificate is for shop.example.jp, not www.example.jp"},
		{"wrong address", shop, as(trusting, "192.0.2.1"), "tls: certificate is for shop.example.jp, not 192.0.2.1"},
		{"strange authority", shop, as(strange, name), `tls: certificate was issued by "shop.example.jp", who is not trusted`},
		{"expired", late, as(trustingLate, name), "tls: certificate expired on "},
		{"our certificate, TLS 1.3", strict, as(trusting, name, us), ""},
		{"our certificate, TLS 1.2", strict12, as(trusting, name, us), ""},
		{"no certificate of ours, TLS 1.2", strict12, as(trusting, name), "tls: the server refuses us: "},
		{"one that is not taken, TLS 1.2", strict12, as(trusting, name, others), "tls: the server refuses us: "},
		{"one that is not taken, TLS 1.3", strict, as(trusting, name, others), ": the server refuses us: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				at := secure(t, f, test.server)
				for path, phases := range map[string]string{"": "[connect tls]", "/healthz": "[connect tls answer]"} {
					r := Ask(ctx, Target{Addr: at, TLS: test.speak, HTTP: path})
					var got []string
					for _, p := range r.Phases {
						got = append(got, p.Name)
					}
					switch {
					case test.want == "" && (r.Err != nil || fmt.Sprint(got) != phases):
						t.Errorf("%q: got %v after %v, want %s", path, r.Err, got, phases)
					case test.want != "" && (r.Err == nil || !strings.Contains(r.Err.Error(), test.want)):
						t.Errorf("%q: got %v, want %s", path, r.Err, test.want)
					}
				}
			})
		})
	}
}

// TestNotTLS is about servers that do not speak it, or not to the end.
func TestNotTLS(t *testing.T) {
	t.Parallel()
	_, trusting := servertest.TLS(t, "shop.example.jp")
	for name, test := range map[string]struct{ says, want string }{
		"HTTP":    {"HTTP/1.1 400 Bad Request\r\n\r\n", "tls: the server answers, but not in TLS"},
		"nothing": {"", "tls: the server has ended the connection in the handshake"},
		"half":    {"\x16\x03\x03\x00\x7a\x02", "tls: the server has ended the connection in the handshake"},
		"alert":   {"\x15\x03\x03\x00\x02\x02\x70", "tls: the server refuses us: unrecognized name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				at := servertest.TCP(t, f, func(c *net.TCPConn) {
					bufio.NewReader(c).Peek(5 + 1) // more than that is in the socket, and unread bytes reset it
					io.WriteString(c, test.says)
					c.CloseWrite()
					io.Copy(io.Discard, c)
				})
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if r := TCP(ctx, Target{Addr: at, TLS: trusting}); r.Err == nil || r.Err.Error() != test.want {
					t.Errorf("got %v, want %s", r.Err, test.want)
				}
			})
		})
	}
}

// TestTLSDeadline: a server that takes the connection and says no word holds nobody up.
func TestTLSDeadline(t *testing.T) {
	t.Parallel()
	_, trusting := servertest.TLS(t, "shop.example.jp")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		_, at := listen(t, f)
		r := overdue(t, TCP, Target{Addr: at, TLS: trusting})
		if !errors.Is(r.Err, ErrTimeout) || !strings.HasPrefix(r.Err.Error(), "tls: ") || len(r.Phases) != 1 {
			t.Errorf("got %v after %d phases, want ErrTimeout of tls after one", r.Err, len(r.Phases))
		}
	})
}

// TestPreface goes before TLS, in clear.
func TestPreface(t *testing.T) {
	t.Parallel()
	shop, trusting := servertest.TLS(t, "shop.example.jp")
	const preface = "PROXY UNKNOWN\r\n"
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		at := servertest.TCP(t, f, func(c *net.TCPConn) {
			said := make([]byte, len(preface))
			if _, err := io.ReadFull(c, said); err != nil || string(said) != preface {
				return
			}
			s := tls.Server(c, shop)
			defer s.Close()
			if r, err := http.ReadRequest(bufio.NewReader(s)); err == nil && r.Host == "shop.example.jp" {
				io.WriteString(s, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		target := Target{Addr: at, TLS: trusting, Preface: preface, HTTP: "/", Status: [2]int{204, 204}}
		if r := Ask(ctx, target); r.Err != nil {
			t.Error(r.Err)
		}
		target.Preface = ""
		if r := Ask(ctx, target); r.Err == nil {
			t.Error("the server did not wait for the preface")
		}
	})
}
