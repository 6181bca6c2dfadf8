// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/ledger"
	"github.com/kyozon/kyozon/proxyproto"
)

// world is a site with a web service for every crossing, and what runs it: this test's binary as kyozon, in processes
// of their own.
type world struct {
	t       *testing.T
	dir     string
	binary  string // a link, so that another program can be installed in its place
	file    string
	control string
	at      [4]netip.AddrPort // of the services, by crossing
	servers [2]netip.AddrPort // by family
	drain   time.Duration
	env     []string
	command func() *exec.Cmd // how it is started
}

func newWorld(t *testing.T) *world {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := memory(t)
	w := &world{t: t, dir: dir, binary: filepath.Join(dir, "bin"), file: filepath.Join(dir, "site.yaml"),
		control: filepath.Join(dir, "control.sock"), drain: 20 * time.Second}
	if err := os.Symlink(self, w.binary); err != nil {
		t.Fatal(err)
	}
	for i, f := range []ip.Family{ip.V4, ip.V6} {
		w.servers[i] = servertest.HTTP(t, f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Header.Get("X-Forwarded-For"))
		}))
	}
	for i, x := range ip.Crossings() {
		if w.at[i], err = servertest.FreeAddr(x.Client); err != nil {
			t.Fatal(err)
		}
	}
	w.env = append(os.Environ(), beKyozon+"=1")
	w.command = func() *exec.Cmd { return exec.Command(w.binary, "run", w.file, "--control", w.control, "--loops", "2") }
	w.write("")
	t.Cleanup(w.end)
	return w
}

// write writes the site file, with more services at its end.
func (w *world) write(more string) {
	w.t.Helper()
	var b strings.Builder
	b.WriteString("site: world\naddresses: {ledger: {pool: 240.0.0.0/16}}\nservices:\n")
	for i, x := range ip.Crossings() {
		carry := ""
		if x.Backend == ip.V4 {
			carry = ", carry: stand-in"
		}
		fmt.Fprintf(&b, "  s%d: {protocol: web, listen: [%q], pools: {existing: {servers: [%q], handover: header%s}}, clients: {%v: existing}, "+
			"proxy-from: [\"127.0.0.9\", \"::1\"]}\n", i, w.at[i], w.servers[i%2], carry, x.Client)
	}
	fmt.Fprintf(&b, "%sstate: {directory: state}\nadmin: {listen: off}\ndrain: %v\n", more, w.drain)
	if err := os.WriteFile(w.file, []byte(b.String()), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// start starts the program and waits until it serves.
func (w *world) start() *exec.Cmd {
	w.t.Helper()
	log, err := os.OpenFile(filepath.Join(w.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	c := w.command()
	c.Env, c.Stdout, c.Stderr = append(w.env, c.Env...), log, log
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	if err := awaitReady(w.control); err != nil {
		c.Process.Kill()
		c.Wait()
		w.t.Fatalf("%v\n%s", err, w.log())
	}
	return c
}

// end kills what still runs.
func (w *world) end() {
	var s edge.Status
	if ask(context.Background(), w.control, "GET", "/status", &s) == nil {
		syscall.Kill(s.PID, syscall.SIGKILL)
		exited(s.PID)
	}
	if w.t.Failed() {
		w.t.Logf("the log:\n%s", w.log())
	}
}

func (w *world) log() string {
	text, _ := os.ReadFile(filepath.Join(w.dir, "log"))
	return string(text)
}

// exited waits for a process that the test did not start itself and returns how it ended; -1 if only those who did
// know. One whose parent has ended is this process's child: TestMain has seen to that.
func exited(pid int) (code int) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return -1
	}
	if s, err := p.Wait(); err == nil {
		return s.ExitCode()
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); syscall.Kill(pid, 0) == nil && time.Now().Before(deadline); <-look.C {
	}
	return -1
}

func (w *world) status() (s edge.Status) {
	w.t.Helper()
	if err := ask(w.t.Context(), w.control, "GET", "/status", &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// do asks for something that changes what runs.
func (w *world) do(what string) (text string, err error) {
	var done edge.Done
	err = ask(w.t.Context(), w.control, "POST", "/"+what, &done)
	return done.Text, err
}

// ledger asks who somebody is.
func (w *world) ledger(a string) (records []ledger.Record) {
	w.t.Helper()
	if err := ask(w.t.Context(), w.control, "GET", "/ledger?address="+a, &records); err != nil {
		w.t.Fatal(err)
	}
	return records
}

// await waits until done says so.
func (w *world) await(what string, done func() bool) {
	w.t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); !done(); <-look.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// browser returns a web client whose connections begin with the PROXY header of who, an address of the family that he
// comes with.
func browser(who netip.Addr, keepAlive bool) *http.Client {
	hello := proxyproto.AppendV2(nil, proxyproto.Header{Client: netip.AddrPortFrom(who, 1000), Dest: netip.AddrPortFrom(who, 80)})
	from := iptest.Loopback(ip.FamilyOf(who))
	if from.Is4() {
		from = netip.AddrFrom4([4]byte{127, 0, 0, 9})
	}
	dialer := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: !keepAlive, DisableCompression: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err == nil {
				_, err = c.Write(hello)
			}
			return c, err
		}}}
}

// somebody returns the nth client of a family: each another /64.
func somebody(f ip.Family, n int) netip.Addr {
	if f == ip.V4 {
		return netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
	}
	a := netip.MustParseAddr("2001:db8::1").As16()
	a[5], a[6] = byte(n>>8), byte(n) // each in a /56 of his own: where many of one are, it has one stand-in
	return netip.AddrFrom16(a)
}

// fetch asks and returns who the server was told the client is.
func fetch(c *http.Client, at netip.AddrPort) (told string, err error) {
	r, err := c.Get("http://" + at.String() + "/")
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", r.StatusCode, body)
	}
	return string(body), err
}

// standIn asks as the nth IPv6 client and returns the stand-in that the IPv4-only server is told.
func (w *world) standIn(n int) (told string, err error) {
	c := browser(somebody(ip.V6, n), false)
	defer c.CloseIdleConnections()
	return fetch(c, w.at[ip.Crossing{Client: ip.V6, Backend: ip.V4}.Index()])
}

// TestSIGHUP: a reload on the signal, one that is refused, and one without a change.
func TestSIGHUP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	hup := func() {
		if err := p.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	free, err := servertest.FreeAddr(ip.V6)
	if err != nil {
		t.Fatal(err)
	}
	w.write(fmt.Sprintf("  more: {protocol: tcp, listen: [%q], pools: {existing: [%q]}, clients: {ipv6: existing}}\n", free, w.servers[0]))
	hup()
	w.await("the new generation serves", func() bool { return w.status().Generation == 2 })
	c, err := net.Dial("tcp", free.String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()

	w.write("  nonsense\n")
	hup()
	w.await("the mistake is noted", func() bool { return w.status().ReloadErr != "" })
	if s := w.status(); s.Generation != 2 || s.PID != p.Process.Pid || len(s.Services) != 5 {
		t.Errorf("got %+v", s)
	}
	for i, x := range ip.Crossings() {
		if _, err := fetch(browser(somebody(x.Client, 1), false), w.at[i]); err != nil {
			t.Errorf("%v: %v", x, err)
		}
	}
	if !strings.Contains(w.log(), "site.yaml:8:3: ") {
		t.Error("the mistake is not in the log")
	}
}

// TestSIGTERM: what is under way ends by itself, and then the process, with exit code 0.
func TestSIGTERM(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	slow := servertest.HTTP(t, ip.V4, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		fmt.Fprint(w, "well")
	}))
	at, err := servertest.FreeAddr(ip.V6)
	if err != nil {
		t.Fatal(err)
	}
	w.write(fmt.Sprintf("  slow: {protocol: web, listen: [%q], pools: {existing: [%q]}, clients: {ipv6: existing}, health: {every: never}}\n", at, slow))
	p := w.start()
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-begun
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.await("it drains", func() bool { return strings.Contains(w.log(), "draining") })
	close(finish)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(r.Body); string(body) != "well" || err != nil || !r.Close {
		t.Errorf("got %q, %v, Connection: close %v", body, err, r.Close)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// TestKill: however the process ends, a stand-in that a server has been told stays that client's.
func TestKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rounds := 3
	if os.Getenv("KYOZON_SOAK") != "" {
		rounds = 100
	}
	told := map[int]string{} // by client
	for round := range rounds {
		p := w.start()
		for n, before := range told {
			now, err := w.standIn(n)
			if err != nil || now != before {
				t.Fatalf("round %d: client %d was %s, is %s: %v", round, n, before, now, err)
			}
			if n%10 == 0 {
				if r := w.ledger(now); len(r) != 1 || !r[0].Prefix.Contains(somebody(ip.V6, n)) {
					t.Fatalf("round %d: the ledger says of %s %+v", round, now, r)
				}
			}
			if len(told) > 50 {
				delete(told, n) // enough of it
			}
		}
		kill := time.AfterFunc(time.Duration(round%5)*20*time.Millisecond, func() { p.Process.Kill() })
		for n := range 20 {
			n += 20 * round
			standIn, err := w.standIn(n)
			if err != nil {
				break // it is dead
			}
			told[n] = standIn
		}
		kill.Stop()
		p.Process.Kill()
		p.Wait()
	}
	whose := map[string]int{}
	for n, s := range told {
		if other, taken := whose[s]; taken {
			t.Errorf("clients %d and %d are both %s", n, other, s)
		}
		whose[s] = n
	}
}

// pidAfter waits until another process than p serves and returns its number.
func (w *world) pidAfter(p *exec.Cmd) (pid int) {
	w.t.Helper()
	w.await("the new process answers", func() bool {
		var s edge.Status
		if err := ask(w.t.Context(), w.control, "GET", "/status", &s); err != nil {
			return false
		}
		pid = s.PID
		return pid != p.Process.Pid
	})
	return pid
}

// adoptOrphans makes the processes whose parents have ended this process's children.
func adoptOrphans() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}
