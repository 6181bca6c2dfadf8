// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/acmetest"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/l4"
	"github.com/kyozon/kyozon/protocol/mail"
	"github.com/kyozon/kyozon/protocol/web"
	"github.com/kyozon/kyozon/service"
)

// patience is how long anything may take on a busy machine before a test gives up.
const patience = time.Minute

// ample is a drain in which something must be done: the machine may be busy.
const ample = 2 * time.Second

// TestMain fails if a goroutine is left when all edges have ended.
func TestMain(m *testing.M) {
	acmetest.Quicken()
	code := m.Run()
	if left := leaked(); code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

// leaked returns the stacks of the goroutines beside this one, once those that are ending have had time to.
func leaked() (left []string) {
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		all := strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")
		left = slices.DeleteFunc(all[1:], func(s string) bool { return acmetest.Remains(s) || strings.Contains(s, "os/signal.loop") })
		if len(left) == 0 {
			break
		}
	}
	return left
}

func protocols() []service.Protocol {
	return []service.Protocol{l4.TCP(), l4.UDP(), web.Protocol(), mail.Protocol(), parrot()}
}

// bench is an edge on loopback, with stand-ins from 127.64.0.0/10: there every address can be bound without a
// privilege.
//
//	b := newBench(t)
//	at := b.free(listen.TCP, ip.V6)
//	b.serve(line("echo", "tcp", at, pool))    the first generation; the edge ends with the test
//	b.serve(...)                              each further call is a reload
type bench struct {
	t       *testing.T
	edge    *edge.Edge
	sockets *listen.Set
	dir     string
	drain   time.Duration
	log     string // the access log, as in the site file

	leases []*listen.Lease // of addresses that no generation has yet
	cancel context.CancelFunc
	ended  chan error // closed after Run's result
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, sockets: listen.NewSet(listen.Options{}), dir: stateDir(t), drain: time.Second}
	var err error
	b.edge, err = edge.New(edge.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test",
		Protocols: protocols(), Loops: 2, Sockets: b.sockets})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// stateDir returns a directory in memory, if the machine has one: the ledger's deadline is 250 ms, and how long the disk
// of a busy machine takes is not what is tested here.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kyozon-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// free returns an address at which the next generation can listen. Until then its socket is kept.
func (b *bench) free(transport listen.Transport, f ip.Family) netip.AddrPort {
	b.t.Helper()
	lend := b.sockets.Stream
	if transport == listen.UDP {
		lend = b.sockets.Packet
	}
	l, err := lend(listen.Addr{Transport: transport, AddrPort: netip.AddrPortFrom(iptest.Loopback(f), 0)})
	if err != nil {
		b.t.Fatal(err)
	}
	b.leases = append(b.leases, l)
	return l.Addr().AddrPort
}

// line writes one service of the site file. Its route is the pool "existing", for the family of its address, unless
// more says otherwise.
func line(name, protocol string, at netip.AddrPort, pools string, more ...string) string {
	clients := fmt.Sprintf("clients: {%v: existing}", ip.FamilyOf(at.Addr()))
	for _, m := range more {
		if strings.HasPrefix(m, "clients:") {
			clients = ""
		}
	}
	parts := slices.DeleteFunc(append([]string{"protocol: " + protocol, fmt.Sprintf("listen: [%q]", at.String()),
		"pools: {" + pools + "}", clients}, more...), func(s string) bool { return s == "" })
	return fmt.Sprintf("  %s: {%s}\n", name, strings.Join(parts, ", "))
}

// servers writes the pool "existing" of the servers, with more of its keys.
func servers(addrs []netip.AddrPort, more ...string) string {
	var quoted []string
	for _, a := range addrs {
		quoted = append(quoted, fmt.Sprintf("%q", a.String()))
	}
	return fmt.Sprintf("existing: {%s}", strings.Join(append([]string{"servers: [" + strings.Join(quoted, ", ") + "]"}, more...), ", "))
}

// parse reads a site of the given services.
func (b *bench) parse(services ...string) *config.Config {
	b.t.Helper()
	text := fmt.Sprintf("site: test\naddresses: {ledger: {pool: 127.64.0.0/10}}\nservices:\n%sstate: {directory: %q}\n"+
		"admin: {listen: off}\ndrain: %v\nlog: {access: %q}\n", strings.Join(services, ""), b.dir, b.drain, cmp.Or(b.log, "off"))
	cfg, err := config.Parse("site.yaml", []byte(text), protocols(), config.Options{Demo: true})
	if err != nil {
		b.t.Fatalf("%v\nin\n%s", err, text)
	}
	return cfg
}

// serve puts the services in place of those that run.
func (b *bench) serve(services ...string) {
	b.t.Helper()
	cfg := b.parse(services...)
	var err error
	if b.ended == nil {
		err = b.start(cfg)
	} else {
		err = b.edge.Reload(cfg)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range b.leases {
		l.Close()
	}
	b.leases = nil
}

func (b *bench) start(cfg *config.Config) error {
	b.ended = make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	started := make(chan struct{})
	go func() {
		defer close(b.ended)
		b.ended <- b.edge.Run(ctx, cfg, func() { close(started) })
	}()
	b.t.Cleanup(func() { b.stop() })
	select {
	case err := <-b.ended:
		return fmt.Errorf("the edge ended: %w", err)
	case <-started:
		return nil
	}
}

// stop drains the edge and waits until it has ended. It may be called more than once.
func (b *bench) stop() {
	b.t.Helper()
	b.cancel()
	select {
	case err := <-b.ended:
		if err != nil {
			b.t.Errorf("the edge ended: %v", err)
		}
	case <-time.After(patience):
		b.t.Errorf("the edge did not end")
	}
}

// errors returns how often a service has counted a reason.
func (b *bench) errors(name, reason string) (n int64) {
	for _, s := range b.edge.Status().Services {
		if s.Service != name {
			continue
		}
		for _, c := range s.Crossings {
			n += c.Errors[reason]
		}
	}
	return n
}

// await waits until done says so.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); !done(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// client returns an address of this machine, other than servers and edge have where the family has several on
// loopback.
func client(f ip.Family) netip.Addr {
	if f == ip.V4 {
		return netip.AddrFrom4([4]byte{127, 0, 0, 5})
	}
	return iptest.Loopback(f)
}

// dial connects from the test's client to an address of the edge.
func dial(t *testing.T, at netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := dialFrom(client(ip.FamilyOf(at.Addr())), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func dialFrom(from netip.Addr, at netip.AddrPort) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: patience}
	c, err := d.Dial("tcp", at.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// teller is a server on TCP that says in its first line whom it sees, and then sends back what it gets.
func teller(t *testing.T, f ip.Family) netip.AddrPort {
	t.Helper()
	return servertest.TCP(t, f, func(c *net.TCPConn) {
		fmt.Fprintln(c, ip.CanonicalPort(c.RemoteAddr().(*net.TCPAddr).AddrPort()))
		p := make([]byte, 512) // io.Copy would take two descriptors more for a pipe
		for {
			n, err := c.Read(p)
			if err != nil {
				return
			}
			c.Write(p[:n])
		}
	})
}

// stream is a connection to a teller.
type stream struct {
	*net.TCPConn
	in  *bufio.Reader
	saw netip.AddrPort // whom the server saw
}

// open connects to a teller behind the edge, after saying hello.
func open(t *testing.T, at netip.AddrPort, hello ...byte) *stream {
	t.Helper()
	s, err := hear(dial(t, at), hello)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hear(c *net.TCPConn, hello []byte) (*stream, error) {
	s := &stream{TCPConn: c, in: bufio.NewReader(c)}
	if _, err := c.Write(hello); err != nil {
		return nil, err
	}
	said, err := s.in.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("hear whom the server saw: %w", err)
	}
	s.saw, err = netip.ParseAddrPort(strings.TrimSpace(said))
	return s, err
}

// echo sends a line and returns an error if it does not come back.
func (s *stream) echo(text string) error {
	if _, err := io.WriteString(s, text+"\n"); err != nil {
		return err
	}
	got, err := s.in.ReadString('\n')
	if err == nil && got != text+"\n" {
		err = fmt.Errorf("sent %q, got back %q", text, got)
	}
	return err
}

// cut waits until the connection ends.
func (s *stream) cut() bool {
	_, err := s.in.ReadByte()
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// refused says whether a client who connects and says hello gets nothing from a teller behind the edge.
func refused(at netip.AddrPort, hello ...byte) bool {
	c, err := dialFrom(client(ip.FamilyOf(at.Addr())), at)
	if err != nil {
		return true // the edge has reset the connection before we looked
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	_, err = hear(c, hello)
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// packetTeller is a server on UDP that answers each packet with whom it sees.
func packetTeller(t *testing.T, f ip.Family) netip.AddrPort {
	t.Helper()
	network := map[ip.Family]string{ip.V4: "udp4", ip.V6: "udp6"}[f]
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		p := make([]byte, 2048)
		for {
			_, from, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort([]byte(ip.CanonicalPort(from).String()), from)
		}
	})
	t.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	return ip.CanonicalPort(c.LocalAddr().(*net.UDPAddr).AddrPort())
}

// dialPackets returns a socket of the test's client, connected to an address of the edge.
func dialPackets(t *testing.T, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	from := netip.AddrPortFrom(client(ip.FamilyOf(at.Addr())), 0)
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// askPackets asks a packetTeller whom it sees. Packets may be lost: it asks again each second.
func askPackets(c *net.UDPConn) (saw netip.AddrPort, err error) {
	answer := make([]byte, 2048)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err = c.Write([]byte("?")); err != nil {
			return saw, err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		var n int
		if n, err = c.Read(answer); err == nil {
			return netip.ParseAddrPort(string(answer[:n]))
		}
	}
	return saw, err
}

// webTeller is a web server that answers whom it sees and who it is told the client is.
func webTeller(t *testing.T, f ip.Family) netip.AddrPort {
	t.Helper()
	return servertest.HTTP(t, f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told := fmt.Sprintf("%s %q", netip.MustParseAddrPort(r.RemoteAddr).Addr(), r.Header.Get("X-Forwarded-For"))
		w.Header().Set("Told", told)
		io.WriteString(w, told)
	}))
}

// browser returns a web client at the test's client address.
func browser(t *testing.T, f ip.Family, keepAlive bool) *http.Client {
	tr := &http.Transport{DisableCompression: true, DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: 100,
		DialContext: (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client(f), 0))}).DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// get asks a web server and returns the status and the body.
func get(c *http.Client, at netip.AddrPort) (int, string, error) {
	r, err := c.Get("http://" + at.String() + "/")
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r.StatusCode, string(body), err
}
