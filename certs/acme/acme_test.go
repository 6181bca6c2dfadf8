// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/internal/acmetest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// inTime is how long anything may take on a busy machine before a test gives up.
const inTime = time.Minute

// TestMain fails if a goroutine is left when all has ended.
func TestMain(m *testing.M) {
	acmetest.Quicken()
	code := m.Run()
	if left := leaked(); code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

func leaked() (left []string) {
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(inTime); time.Now().Before(deadline); runtime.Gosched() {
		all := strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")
		left = slices.DeleteFunc(all[1:], func(s string) bool { return acmetest.Remains(s) || strings.Contains(s, "os/signal.loop") })
		if len(left) == 0 {
			break
		}
	}
	return left
}

// bench is a client, with the doors at which it is challenged and the server that does so.
type bench struct {
	t      *testing.T
	client *Client
	server *acmetest.Server
	log    lines
}

// lines is a log. It may be written and read at once.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.all.String(), part)
}

func newBench(t *testing.T, f ip.Family) *bench {
	t.Helper()
	b := &bench{t: t}
	b.client = b.newClient(t.TempDir())
	web, door := b.listen(f), b.listen(f)
	b.server = acmetest.Start(t, f, acmetest.Options{HTTP: port(web), TLS: port(door)})
	b.serve(&http.Server{Handler: http.HandlerFunc(b.answer)}, web)
	b.serve(&http.Server{Handler: http.NotFoundHandler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)},
		tls.NewListener(door, &tls.Config{GetConfigForClient: b.configure}))
	return b
}

func (b *bench) newClient(dir string) *Client {
	c := NewClient(dir, slog.New(slog.NewTextHandler(&b.log, nil)))
	c.pace = pace{retry: 20 * time.Millisecond, retryMost: 100 * time.Millisecond, ask: 50 * time.Millisecond, lock: 5 * time.Millisecond}
	return c
}

func (b *bench) answer(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.Host)
	body, ok := b.client.Challenge([]byte(host), []byte(r.URL.Path))
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Write(body)
}

func (b *bench) configure(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if c := b.client.TLSConfig(hello); c != nil {
		return c, nil
	}
	return nil, errors.New("not a challenge")
}

func (b *bench) listen(f ip.Family) *net.TCPListener {
	b.t.Helper()
	network := map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[f]
	l, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

func port(l net.Listener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }

func (b *bench) serve(s *http.Server, l net.Listener) {
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(l) })
	b.t.Cleanup(func() {
		s.Close()
		wg.Wait()
	})
}

func (b *bench) settings(challenge string) Settings {
	return Settings{Directory: b.server.Directory, Email: "web@shop.example", Roots: b.server.Roots, Challenge: challenge,
		DNS: DNS{Server: b.server.DNS.Addr, Key: b.server.DNS.Key, Settle: time.Millisecond}}
}

// run runs the client until the test ends or stop is called, and returns the slots.
func (b *bench) run(c *Client, orders ...Order) (slots []*certs.Slot, stop func()) {
	b.t.Helper()
	slots, err := c.Slots(orders)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx, orders) })
	stop = func() {
		cancel()
		wg.Wait()
	}
	b.t.Cleanup(stop)
	return slots, stop
}

// await waits until done says so.
func (b *bench) await(what string, done func() bool) {
	b.t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(inTime); !done(); <-look.C {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain until %s; the log:\n%s", what, b.log.all.String())
		}
	}
}

func (b *bench) awaitAll(slots []*certs.Slot) {
	b.t.Helper()
	for _, s := range slots {
		b.await("there is a certificate for "+s.Name, func() bool { return s.Certificate() != nil })
	}
}

// TestObtain gets certificates by each challenge, and finds them again on disk.
func TestObtain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		challenge string
		names     []string
	}{
		{HTTP01, []string{"shop.example", "www.shop.example"}},
		{TLSALPN01, []string{"shop.example", "www.shop.example"}},
		{DNS01, []string{"shop.example", "*.shop.example", "alias.example"}},
	} {
		t.Run(test.challenge, func(t *testing.T) {
			t.Parallel()
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				t.Parallel()
				b := newBench(t, f)
				b.server.DNS.Delegate("_acme-challenge.alias.example.", "proof.example.")
				var orders []Order
				for _, name := range test.names {
					orders = append(orders, Order{name, b.settings(test.challenge)})
				}
				slots, stop := b.run(b.client, orders...)
				b.awaitAll(slots)
				stop()
				for i, s := range slots {
					info := s.Info()
					if info.Names[0] != test.names[i] || info.State(time.Now()) != "valid" || info.Fault != "" || info.Algorithm != "ECDSA" {
						t.Errorf("%+v", info)
					}
				}
				if names, left := b.server.DNS.Seen(); left > 0 || (test.challenge == DNS01) != slices.Contains(names, "proof.example.") {
					t.Errorf("records were put at %q, and %d are left", names, left)
				}

				again := b.newClient(b.client.dir)
				found, err := again.Slots(orders)
				if err != nil {
					t.Fatal(err)
				}
				for i, s := range found {
					if s.Certificate() == nil || !s.Certificate().Leaf.Equal(slots[i].Certificate().Leaf) {
						t.Errorf("%s: another certificate after a restart", s.Name)
					}
				}
			})
		})
	}
}

// TestServerDown checks that a server that is down harms nothing that is valid, that it is told, and that all goes on
// when it is back.
func TestServerDown(t *testing.T) {
	t.Parallel()
	b := newBench(t, ip.V6)
	b.server.SetDown(true)
	order := Order{"shop.example", b.settings(HTTP01)}
	slots, _ := b.run(b.client, order)
	slot := slots[0]
	b.await("it is told", func() bool { return b.log.has("certificate not obtained") && slot.Info().Fault != "" })
	if fault := slot.Info().Fault; !strings.Contains(fault, "register account") || !strings.Contains(fault, "503") {
		t.Errorf("fault: %s", fault)
	}
	store, err := certs.Open(nil, slot)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c, err := store.Config().GetCertificate(&tls.ClientHelloInfo{ServerName: "shop.example"}); c != nil || err != nil {
			t.Errorf("GetCertificate = %v, %v; there is none", c, err)
		}
	}
	if !b.log.has("a client was refused: there is no certificate yet") {
		t.Error("that a client was refused is not told")
	}

	b.server.SetDown(false)
	b.awaitAll(slots)
	first := slot.Certificate().Leaf
	b.server.SetDown(true)
	b.server.RenewBy(first, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
	b.server.SetDown(false)
	b.await("it is renewed", func() bool { return !slot.Certificate().Leaf.Equal(first) })
}

// TestRenewalFails checks that a certificate stays in use while its renewal fails.
func TestRenewalFails(t *testing.T) {
	t.Parallel()
	b := newBench(t, ip.V4)
	order := Order{"shop.example", b.settings(DNS01)}
	slots, stop := b.run(b.client, order)
	b.awaitAll(slots)
	first := slots[0].Certificate().Leaf
	stop()

	if err := os.WriteFile(b.server.DNS.Key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	renew := func() { b.server.RenewBy(first, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)) }
	renew()
	_, stop = b.run(b.client, order)
	b.await("the renewal has failed", func() bool {
		if leaf := slots[0].Certificate().Leaf; !leaf.Equal(first) { // pebble takes an earlier proof once in a hundred times
			first = leaf
			renew()
		}
		return strings.Contains(slots[0].Info().Fault, "no key")
	})
	if !slots[0].Certificate().Leaf.Equal(first) {
		t.Error("the certificate is gone")
	}
	stop()
}

// TestOneAtWork checks that of two that run, as during an upgrade, one orders, and the other takes what it got.
func TestOneAtWork(t *testing.T) {
	t.Parallel()
	b := newBench(t, ip.V6)
	order := Order{"shop.example", b.settings(HTTP01)}
	old, stop := b.run(b.client, order)
	b.awaitAll(old)
	file := b.client.file(order.key())
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil { // so that the other finds nothing when it starts
		t.Fatal(err)
	}
	young, _ := b.run(b.newClient(b.client.dir), order)
	if young[0].Certificate() != nil {
		t.Fatal("it has found one")
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	stop()
	b.awaitAll(young)
	if !young[0].Certificate().Leaf.Equal(old[0].Certificate().Leaf) {
		t.Error("it has ordered another one")
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	c := NewClient(t.TempDir(), slog.New(slog.DiscardHandler))
	one := Order{"shop.example", Settings{Directory: "https://ca.example/dir", Challenge: HTTP01}}
	other := Order{"shop.example", Settings{Directory: "https://other.example/dir", Challenge: HTTP01}}
	slots, err := c.Slots([]Order{one, other, one})
	if err != nil || slots[0] != slots[2] || slots[0] == slots[1] {
		t.Errorf("Slots = %v, %v", slots, err)
	}
	again, err := c.Slots([]Order{one})
	if err != nil || again[0] != slots[0] {
		t.Errorf("after a reload: %v, %v, want the same slot", again, err)
	}
	differs := one
	differs.Settings.Challenge = TLSALPN01
	if _, err := c.Slots([]Order{one, differs}); !errors.Is(err, ErrTwice) {
		t.Errorf("with two settings: %v, want %v", err, ErrTwice)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(file, slog.New(slog.DiscardHandler)).Slots([]Order{one}); err == nil {
		t.Error("no error where there can be no folder")
	}
}
