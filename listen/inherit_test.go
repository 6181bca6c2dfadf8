// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

const childEnv = "KYOZON_TEST_CHILD"

// TestMain makes the test binary its own successor: with childEnv it takes over sockets, answers one client or packet
// on each with its address, and ends.
func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "systemd": // what the service manager does between fork and exec
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	if err := child(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func child() error {
	s := NewSet(Options{})
	addrs, err := s.Inherit(os.Getenv)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		l, err := s.lend(a, a.Transport)
		if err != nil {
			return err
		}
		if flags, _ := unix.FcntlInt(uintptr(l.FD()), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
			return fmt.Errorf("%v blocks", a)
		}
		if err := answerOne(l); err != nil {
			return fmt.Errorf("answer %v: %w", a, err)
		}
	}
	return nil
}

func answerOne(l *Lease) error {
	if l.Addr().Transport == UDP {
		var b [1]byte
		_, from, err := unix.Recvfrom(l.FD(), b[:], 0)
		if err != nil {
			return err
		}
		return unix.Sendto(l.FD(), []byte(l.Addr().String()), 0, from)
	}
	fd, _, err := unix.Accept(l.FD())
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(l.Addr().String()))
	return err
}

// TestInherit hands sockets with waiting clients to another process, and closes its own: nobody is lost.
func TestInherit(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"upgrade", "systemd"} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			s := newSet(t)
			clients := make(map[Addr]net.Conn)
			for _, transport := range []Transport{TCP, UDP} {
				for _, f := range []ip.Family{ip.V4, ip.V6} {
					a := lend(t, s, any0(transport, f)).Addr()
					clients[a] = dial(t, a)
					io.WriteString(clients[a], "?")
				}
			}
			handOver(t, s, from)
			for a, c := range clients {
				c.SetDeadline(time.Now().Add(patience))
				b := make([]byte, 100)
				if n, err := c.Read(b); string(b[:n]) != a.String() {
					t.Errorf("%v: got %q, %v", a, b[:n], err)
				}
			}
		})
	}
}

// handOver runs the test binary as the successor of s, until it ends.
func handOver(t *testing.T, s *Set, from string) {
	t.Helper()
	files, env, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), childEnv+"="+from)
	if from == "systemd" {
		cmd.Env = append(cmd.Env, "LISTEN_FDS="+strconv.Itoa(len(files)))
	} else {
		cmd.Env = append(cmd.Env, env, "LISTEN_FDS=1", "LISTEN_PID=1") // what was left of the parent's own start
	}
	for a := range s.kept {
		if flags, _ := unix.FcntlInt(uintptr(s.kept[a].fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
			t.Errorf("%v blocks after Files", a)
		}
	}
	out, err := cmd.CombinedOutput()
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestInheritNothing(t *testing.T) {
	t.Parallel()
	for _, env := range []map[string]string{
		{},
		{"LISTEN_FDS": "2"},
		{"LISTEN_FDS": "2", "LISTEN_PID": "1"},
		{"LISTEN_FDS": "0", "LISTEN_PID": strconv.Itoa(os.Getpid())},
	} {
		if addrs, err := newSet(t).Inherit(getenv(env)); len(addrs) != 0 || err != nil {
			t.Errorf("%v: got %v, %v", env, addrs, err)
		}
	}
	for _, bad := range []string{"x", "-1", "1000000"} {
		_, err := newSet(t).Inherit(getenv(map[string]string{UpgradeEnv: bad}))
		want := "inherit sockets: KYOZON_LISTEN_FDS is " + strconv.Quote(bad) + ", want a number"
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func getenv(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

// TestAdoptBad: what the edge cannot use is named, the rest is taken.
func TestAdoptBad(t *testing.T) {
	t.Parallel()
	socket := func(domain, kind int) int {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	both := socket(unix.AF_INET6, unix.SOCK_STREAM)
	unix.SetsockoptInt(both, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	if err := unix.Listen(both, 1); err != nil {
		t.Fatal(err)
	}
	mapped := socket(unix.AF_INET6, unix.SOCK_DGRAM)
	if err := unix.Bind(mapped, sockaddr(netip.MustParseAddrPort("[::ffff:127.0.0.1]:0"))); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, want string
		fd         int
	}{
		{"not listening", "not a listening IP socket", socket(unix.AF_INET, unix.SOCK_STREAM)},
		{"unix", "not a listening IP socket", socket(unix.AF_UNIX, unix.SOCK_STREAM)},
		{"both families", "takes IPv4 too: set BindIPv6Only=ipv6-only", both},
		{"mapped", "is an IPv4 address written as IPv6", mapped},
	}
	for _, test := range tests {
		s := newSet(t)
		addrs, err := s.adopt(test.fd, 1, []string{"web"})
		if len(addrs) != 0 || err == nil || !strings.Contains(err.Error(), test.want) ||
			!strings.HasPrefix(err.Error(), "inherit descriptor "+strconv.Itoa(test.fd)+" (web): ") {
			t.Errorf("%s: got %v, %v", test.name, addrs, err)
		}
	}
}

func TestNotifier(t *testing.T) {
	t.Parallel()
	silent := NewNotifier(getenv(nil))
	if err := silent.Ready("x"); err != nil || silent.WatchdogEvery() != 0 {
		t.Errorf("without a manager: %v", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	for _, socket := range []string{path, "@kyozon-test-" + strconv.Itoa(os.Getpid())} {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		n := NewNotifier(getenv(map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": "3000000"}))
		if got := n.WatchdogEvery(); got != 1500*time.Millisecond {
			t.Errorf("watchdog: got %v", got)
		}
		for _, test := range []struct {
			send func() error
			want string
		}{
			{func() error { return n.Ready("serves\n2 services") }, "READY=1\nSTATUS=serves 2 services"},
			{n.Reloading, "RELOADING=1\nMONOTONIC_USEC="},
			{n.Stopping, "STOPPING=1"},
			{func() error { return n.Status("a") }, "STATUS=a"},
			{func() error { return n.MainPID(7) }, "MAINPID=7"},
			{n.Watchdog, "WATCHDOG=1"},
		} {
			if err := test.send(); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 200)
			k, err := c.Read(b)
			if got := string(b[:k]); !strings.HasPrefix(got, test.want) {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		}
		passed := make(chan error)
		go func() { passed <- n.Barrier(time.Minute) }()
		b := make([]byte, 200)
		if k, err := c.Read(b); string(b[:k]) != "BARRIER=1" {
			t.Errorf("got %q, %v", b[:k], err)
		}
		if err := <-passed; err != nil {
			t.Errorf("a barrier that was read: %v", err)
		}
	}
	n := NewNotifier(getenv(map[string]string{"NOTIFY_SOCKET": path}))
	if err := n.Barrier(time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a barrier that nobody reads: got %v", err)
	}
	n = NewNotifier(getenv(map[string]string{"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}))
	if err := n.Stopping(); err == nil || n.WatchdogEvery() != 0 {
		t.Errorf("got %v and %v", err, n.WatchdogEvery())
	}
}

// TestCapable compares with what the kernel writes for people.
func TestCapable(t *testing.T) {
	t.Parallel()
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:\t")
	word, _, _ := strings.Cut(rest, "\n")
	all, err := strconv.ParseUint(word, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Capability{NetBindService, NetAdmin} {
		if got, want := Capable(c), all&(1<<c) != 0; got != want {
			t.Errorf("%v: got %v, want %v", c, got, want)
		}
	}
}
