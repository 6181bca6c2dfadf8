// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// upgrades is how often TestUpgrade does it, and under how many requests.
func upgrades() (times int, requests int64) {
	if os.Getenv("KYOZON_SOAK") != "" {
		return 10, 20_000
	}
	return 3, 2000
}

// carried is a service on TCP and one on UDP for each client family, beside those of the world.
type carried struct {
	tcp, udp [2]netip.AddrPort
	lines    string
}

func newCarried(t *testing.T) *carried {
	t.Helper()
	c := new(carried)
	var b strings.Builder
	for i, f := range []ip.Family{ip.V4, ip.V6} {
		var err error
		if c.tcp[i], err = servertest.FreeAddr(f); err != nil {
			t.Fatal(err)
		}
		c.udp[i] = c.tcp[i]
		other := ip.V4 + ip.V6 - f // the crossing that is harder
		fmt.Fprintf(&b, "  tcp%d: {protocol: tcp, listen: [%q], pools: {existing: [%q]}, clients: {%v: existing}}\n", i, c.tcp[i], servertest.Echo(t, other), f)
		fmt.Fprintf(&b, "  udp%d: {protocol: udp, listen: [%q], pools: {existing: [%q]}, clients: {%v: existing}}\n", i, c.udp[i], mirror(t, other), f)
	}
	c.lines = b.String()
	return c
}

// mirror is a server on UDP that answers each packet with whom it sees.
func mirror(t *testing.T, f ip.Family) netip.AddrPort {
	t.Helper()
	network := map[ip.Family]string{ip.V4: "udp4", ip.V6: "udp6"}[f]
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := make([]byte, 2048); ; {
			_, from, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort([]byte(from.String()), from)
		}
	})
	t.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	return ip.CanonicalPort(c.LocalAddr().(*net.UDPAddr).AddrPort())
}

// look returns whom the mirror sees. Packets may be lost: it asks again each second.
func look(c net.Conn) (saw string, err error) {
	p := make([]byte, 2048)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err = c.Write([]byte("?")); err != nil {
			return "", err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		var n int
		if n, err = c.Read(p); err == nil {
			return string(p[:n]), nil
		}
	}
	return "", err
}

func echo(c net.Conn, text string) error {
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text+"\n"); err != nil {
		return err
	}
	got, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && got != text+"\n" {
		err = fmt.Errorf("sent %q, got back %q", text, got)
	}
	return err
}

// TestUpgrade: under requests over kept and new connections the program is replaced again and again. No request fails,
// no stream is cut, no UDP flow gets another source, and the ledger goes from hand to hand.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newCarried(t)
	w.write(c.lines)
	p := w.start()
	times, requests := upgrades()

	var streams, packets [2]net.Conn
	var seen [2]string
	for i := range streams {
		streams[i], packets[i] = open(t, "tcp", c.tcp[i]), open(t, "udp", c.udp[i])
		if err := echo(streams[i], "before"); err != nil {
			t.Fatal(err)
		}
		var err error
		if seen[i], err = look(packets[i]); err != nil {
			t.Fatal(err)
		}
	}

	var sent atomic.Int64
	end := w.load(&sent)
	pids := []int{p.Process.Pid}
	whose := make(map[string]int) // stand-ins told, each to one client
	for n := range times {
		w.await("there is load", func() bool { return sent.Load() >= requests*int64(n+1)/int64(times+1) })
		text, err := w.do("upgrade")
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, w.status().PID)
		if want := fmt.Sprintf("process %d serves; this one, %d, drains", pids[n+1], pids[n]); text != want {
			t.Errorf("got %q, want %q", text, want)
		}
		for k := range 5 { // whoever answers can write the ledger, and has read what the one before has written
			who := 100 + 5*n + k
			told, err := w.standIn(who)
			if err != nil {
				t.Fatalf("upgrade %d: a new client gets no stand-in: %v", n, err)
			}
			if other, taken := whose[told]; taken {
				t.Errorf("upgrade %d: clients %d and %d are both %s", n, other, who, told)
			}
			whose[told] = who
		}
		for i := range streams {
			if err := echo(streams[i], "still here"); err != nil {
				t.Errorf("upgrade %d: a stream was lost: %v", n, err)
			}
			if saw, err := look(packets[i]); err != nil || saw != seen[i] {
				t.Errorf("upgrade %d: the server sees the UDP flow come from %s, then %s: %v", n, seen[i], saw, err)
			}
		}
	}
	w.await("there is load", func() bool { return sent.Load() >= requests })
	failed := end()
	t.Logf("%d upgrades, %d requests, %d of them failed", times, sent.Load(), failed)

	for told, who := range whose {
		if again, err := w.standIn(who); err != nil || again != told {
			t.Errorf("client %d was %s, is %s: %v", who, told, again, err)
		}
	}
	for _, s := range streams {
		s.Close()
	}
	for _, pid := range pids[:times] { // with their last flow gone, the old ones end by themselves
		if code := exited(pid); code > 0 {
			t.Errorf("process %d ended with exit code %d", pid, code)
		}
	}
	w.drain = time.Second // nobody can see that the UDP flows have ended
	w.write(c.lines)
	for _, verb := range []string{"reload", "stop"} {
		if _, err := w.do(verb); err != nil {
			t.Error(err)
		}
	}
	if code := exited(pids[times]); code != 0 {
		t.Errorf("the last process ended with exit code %d", code)
	}
}

func open(t *testing.T, network string, at netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial(network, at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// load sends web requests over every crossing, and counts them, until the function it returns is called, which returns
// how many have failed: half of them over connections that are kept, half over new ones.
func (w *world) load(sent *atomic.Int64) (end func() (failed int64)) {
	var failed atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		x, at := ip.Crossings()[i%4], w.at[i%4]
		c := browser(somebody(x.Client, i), i < 4)
		wg.Go(func() {
			defer c.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := fetch(c, at); err != nil {
					if failed.Add(1) < 10 {
						w.t.Errorf("request over %v, kept %v: %v", x, i < 4, err)
					}
				}
				sent.Add(1)
			}
		})
	}
	return func() int64 {
		close(stop)
		wg.Wait()
		return failed.Load()
	}
}

// TestUpgradeFails: whatever the new program does wrong, the old one serves on, with the ledger and its flows.
func TestUpgradeFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newCarried(t)
	w.write(c.lines)
	p := w.start()
	streams := [2]net.Conn{open(t, "tcp", c.tcp[0]), open(t, "tcp", c.tcp[1])}
	packets := [2]net.Conn{open(t, "udp", c.udp[0]), open(t, "udp", c.udp[1])}
	var seen [2]string
	for i := range packets {
		var err error
		if seen[i], err = look(packets[i]); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Readlink(w.binary)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, script, site, want string
	}{
		{"ends at once", "exit 3", "", `waited for "built"`},
		{"not a program", "#", "", "exec format error"},
		{"not there", "", "", "no such file or directory"},
		{"a broken site file", "", "  nonsense\n", "site.yaml:12:3: "},
		{"an address that is taken", "", fmt.Sprintf("  more: {protocol: tcp, listen: [%q], pools: {existing: [%q]}, clients: {ipv4: existing}}\n",
			taken(t), w.servers[0]), "address in use"},
		{"says why not", failing("before"), "", "not today"},
		{"ends when the old one has stood back", failing("after"), "", `waited for "serving"`},
	}
	for n, test := range tests {
		w.install(test.name, test.script, self)
		w.write(c.lines + test.site)
		var sent atomic.Int64
		end := w.load(&sent)
		text, err := w.do("upgrade")
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %q, %v, want %s", test.name, text, err, test.want)
		}
		w.await("there is load", func() bool { return sent.Load() > 50 })
		if failed := end(); failed > 0 {
			t.Errorf("%s: %d requests failed", test.name, failed)
		}
		if s := w.status(); s.PID != p.Process.Pid || !s.Ready || s.Ledger.Err != "" {
			t.Fatalf("%s: got %+v, ledger %+v", test.name, s, s.Ledger)
		}
		if _, err := w.standIn(200 + n); err != nil {
			t.Errorf("%s: a new client gets no stand-in: %v", test.name, err)
		}
		for i := range streams {
			if err := echo(streams[i], "still here"); err != nil {
				t.Errorf("%s: a stream was lost: %v", test.name, err)
			}
			if saw, err := look(packets[i]); err != nil || saw != seen[i] {
				t.Errorf("%s: the server sees the UDP flow come from %s, then %s: %v", test.name, seen[i], saw, err)
			}
			if _, err := look(open(t, "udp", c.udp[i])); err != nil {
				t.Errorf("%s: a new UDP client is not served: %v", test.name, err)
			}
		}
	}
	w.install("", "", self)
	w.write(c.lines)
	if _, err := w.do("upgrade"); err != nil {
		t.Errorf("and then a good one: %v", err)
	}
	if pid := w.status().PID; pid == p.Process.Pid {
		t.Error("and then a good one: the old process answers")
	}
	for _, s := range streams {
		s.Close()
	}
	if err := p.Wait(); err != nil {
		t.Errorf("the old process ended with %v", err)
	}
}

// failsUpgrade makes the test binary a program that cannot replace another: it says so, or ends without a word when the
// other has stood back.
const failsUpgrade = "KYOZON_TEST_FAILS_UPGRADE"

// failing is a script that runs the test binary as such a program.
func failing(when string) string { return failsUpgrade + "=" + when + ` exec "$GOOD" "$@"` }

func failUpgrade(when string) error {
	s, err := edge.OpenSuccessor(os.Getenv)
	if err != nil || s == nil {
		return errors.Join(err, errors.New("nobody is being replaced"))
	}
	if when == "before" {
		err = errors.New("not today")
		s.Fail(err)
		return err
	}
	_, _, err = s.Built()
	return errors.Join(err, errors.New("a crash"))
}

// install puts another program in place of the one that runs: a shell script, nothing at all, or the good one.
func (w *world) install(name, script, good string) {
	w.t.Helper()
	if err := os.Remove(w.binary); err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	var err error
	switch {
	case script == "#":
		err = os.WriteFile(w.binary, []byte("\x7fELF"), 0o755)
	case script != "":
		err = os.WriteFile(w.binary, []byte("#!/bin/sh\nGOOD="+good+"\n"+script+"\n"), 0o755)
	case name != "not there":
		err = os.Symlink(good, w.binary)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// taken returns an address at which somebody else listens.
func taken(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(iptest.Loopback(ip.V4), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestOneProcess: a second kyozon cannot be started beside one that runs with the same ledger.
func TestOneProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	c := exec.Command(w.binary, "run", w.file, "--control", w.control+".2")
	c.Env = w.env
	out, err := c.CombinedOutput()
	if err == nil || c.ProcessState.ExitCode() != exitError || !strings.Contains(string(out), "locked by another process") &&
		!strings.Contains(string(out), "address in use") {
		t.Errorf("got %v: %s", err, out)
	}
	if _, err := w.standIn(1); err != nil {
		t.Error(err)
	}
}
