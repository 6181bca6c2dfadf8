// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/proxyproto"
)

// manager is a service manager's notification socket. It reads what comes as it comes: who notifies waits while ten messages are
// unread (unix(7), max_dgram_qlen).
type manager struct {
	t    *testing.T
	said chan string // as many as a test can take
}

func newManager(t *testing.T, path string) *manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t, make(chan string, 100_000)}
	var reading sync.WaitGroup
	reading.Go(func() {
		for b := make([]byte, 4096); ; {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			m.said <- string(b[:n])
		}
	})
	t.Cleanup(func() {
		c.Close()
		reading.Wait()
	})
	return m
}

// expect waits for a message with the words, and fails if one of the others comes before.
func (m *manager) expect(words string, others ...string) string {
	m.t.Helper()
	late := time.After(patience)
	for {
		var text string
		select {
		case text = <-m.said:
		case <-late:
			m.t.Fatalf("waited in vain for %q", words)
		}
		for _, other := range others {
			if strings.Contains(text, other) {
				m.t.Fatalf("waited for %q, got %q", words, text)
			}
		}
		if strings.Contains(text, words) {
			return text
		}
	}
}

// TestSystemd: the sockets of a socket unit are served, also to who has waited in them, and the manager is told what
// happens.
func TestSystemd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newManager(t, filepath.Join(w.dir, "notify"))
	w.env = append(w.env, "NOTIFY_SOCKET="+filepath.Join(w.dir, "notify"), "WATCHDOG_USEC=200000")
	var files []*os.File
	var waiting []net.Conn
	for _, at := range w.at {
		l, err := net.Listen("tcp"+map[bool]string{true: "4", false: "6"}[at.Addr().Is4()], at.String())
		if err != nil {
			t.Fatal(err)
		}
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		files = append(files, file)
		c, err := net.Dial("tcp", at.String()) // before anything runs
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		waiting = append(waiting, c)
	}
	direct := w.command
	w.command = func() *exec.Cmd { // what the manager does between fork and exec
		c := direct()
		c.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=4 WATCHDOG_PID=$$ exec "$0" "$@"`, w.binary}, c.Args[1:]...)
		c.Path = "/bin/sh"
		c.ExtraFiles = files
		return c
	}
	p := w.start()
	for _, f := range files {
		f.Close()
	}
	m.expect("READY=1\nSTATUS=generation 1, 4 services", "STOPPING")
	m.expect("WATCHDOG=1")
	for i, c := range waiting {
		who := netip.AddrPortFrom(somebody(ip.Crossings()[i].Client, 1), 1)
		if c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Is6() { // only [::1] is trusted to name clients
			c.Write(proxyproto.AppendV1(nil, proxyproto.Header{Client: who, Dest: who}))
		}
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.SetDeadline(time.Now().Add(patience))
		if r, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || r.StatusCode != 200 {
			t.Errorf("who waited at %v: %v", w.at[i], err)
		}
	}

	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if text := m.expect("RELOADING=1", "STOPPING"); !strings.Contains(text, "\nMONOTONIC_USEC=") {
		t.Errorf("a reload without a time: %q", text)
	}
	m.expect("READY=1", "STOPPING")

	if _, err := w.do("upgrade"); err != nil {
		t.Fatal(err)
	}
	// STOPPING=1 of the old process would be taken for the service's own where the manager listens to all of its
	// processes.
	m.expect(fmt.Sprintf("MAINPID=%d", w.pidAfter(p)), "STOPPING")
	if err := p.Wait(); err != nil {
		t.Errorf("the old process ended with %v", err)
	}
	pid := w.status().PID
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	m.expect("RELOADING=1", "STOPPING")
	m.expect("READY=1", "STOPPING")
	m.expect("WATCHDOG=1", "STOPPING") // of the new process: the old one has ended
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.expect("STOPPING=1")
	if code := exited(pid); code != 0 {
		t.Errorf("the new process ended with exit code %d", code)
	}
}

// TestSuccessorFails: a new process that fails while the old one drains is nobody's child that the manager would see. The
// old one tells of it by its own end.
func TestSuccessorFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newManager(t, filepath.Join(w.dir, "notify"))
	w.env = append(w.env, "NOTIFY_SOCKET="+filepath.Join(w.dir, "notify"))
	c := newCarried(t)
	w.write(c.lines)
	p := w.start()
	stream := open(t, "tcp", c.tcp[0])
	if err := echo(stream, "before"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.do("upgrade"); err != nil {
		t.Fatal(err)
	}
	m.expect(fmt.Sprintf("MAINPID=%d", w.pidAfter(p)))
	w.await("the old process drains", func() bool { return strings.Contains(w.log(), "draining") })
	if err := echo(stream, "still here"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(w.status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.expect(fmt.Sprintf("MAINPID=%d", p.Process.Pid), "STOPPING")
	m.expect("BARRIER=1", "STOPPING") // it ends when this is read
	if err := p.Wait(); p.ProcessState.ExitCode() != exitError || !strings.Contains(w.log(), "which had taken over: signal: killed") {
		t.Errorf("the old process ended with %v", err)
	}
}
