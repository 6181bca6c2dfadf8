// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// killable makes the test binary a program that brings up a lab and then waits to be killed.
const killable = "KYOZON_LAB_KILLABLE"

func TestMain(m *testing.M) {
	Main()
	if os.Getenv(killable) != "" {
		fmt.Println(waitForKill())
		os.Exit(1)
	}
	code := m.Run()
	if left := leaked(); code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

// leaked returns the stacks of the goroutines beside this one, once those that are ending have had time to. The one
// that the standard library keeps for signals does not count.
func leaked() []string {
	stacks := make([]byte, 1<<20)
	var left []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); runtime.Gosched() {
		all := strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")
		left = slices.DeleteFunc(all[1:], func(s string) bool { return strings.Contains(s, "os/signal.loop") })
		if len(left) == 0 {
			break
		}
	}
	return left
}

// needRoot skips a test that needs namespaces where there can be none, unless the environment says that it must run.
func needRoot(t *testing.T) {
	t.Helper()
	b, err := openBox()
	if err == nil {
		err = b.close()
	}
	if err == nil {
		return
	}
	if os.Getenv("KYOZON_LAB") == "require" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// up brings up a lab that ends with the test.
func up(t *testing.T, text string) *Lab {
	t.Helper()
	needRoot(t)
	f, err := Parse("lab.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Up(t.Context(), f, Options{Out: t.Output()})
	if errors.Is(err, ErrMissing) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// routed is two hosts with a router between them, and a third on the router's second link, so that both kinds of
// link are there.
const routed = `
lab: routed
names: {server: [10.0.2.2, "fd00:2::2"]}
links: {one: {}, two: {mtu: 1280}}
hosts:
  client: {links: {one: [10.0.1.2/24, "fd00:1::2/64"]}, gateway: [10.0.1.1, "fd00:1::1"]}
  router: {forward: true, links: {one: [10.0.1.1/24, "fd00:1::1/64"], two: [10.0.2.1/24, "fd00:2::1/64"]}}
  server: {links: {two: [10.0.2.2/24, "fd00:2::2/64"]}, gateway: [10.0.2.1, "fd00:2::1"], local: [100.64.0.0/11]}
  other:  {links: {two: [10.0.2.3/24]}, routes: [{to: 100.64.0.0/11, via: 10.0.2.2}]}
`

func TestNetwork(t *testing.T) {
	t.Parallel()
	l := up(t, routed)
	addresses := map[ip.Family]string{ip.V4: "10.0.2.2:0", ip.V6: "[fd00:2::2]:0"}
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		talk(t, l.Host("client"), l.Host("server"), addresses[f])
	})
	t.Run("local prefix", func(t *testing.T) {
		talk(t, l.Host("other"), l.Host("server"), "100.65.7.9:0")
	})
	t.Run("ipv4 only", func(t *testing.T) {
		got, err := l.Host("other").Command(t.Context(), "cat", "/proc/net/if_inet6").Output()
		if err != nil || len(got) > 0 {
			t.Errorf("IPv6 addresses of a host that has none: %q, %v", got, err)
		}
	})
	t.Run("mtu", func(t *testing.T) {
		err := l.Host("other").Do(func() error {
			i, err := net.InterfaceByName("two")
			if err == nil && i.MTU != 1280 {
				err = fmt.Errorf("MTU is %d", i.MTU)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// talk listens on one host, connects from the other, and sends a word.
func talk(t *testing.T, from, to *Host, address string) {
	t.Helper()
	listener, err := to.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := from.DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	io.WriteString(c, "word\n")
	if got, err := bufio.NewReader(s).ReadString('\n'); got != "word\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	l := up(t, routed)
	h := l.Host("client")
	for _, tt := range []struct{ name, command, want string }{
		{"host name", "hostname", "client\n"},
		{"names", "getent ahostsv6 server | head -1 | cut -d' ' -f1", "fd00:2::2\n"},
		{"own directory", "echo x > /run/x; ls /run", "tmp\nx\n"},
		{"own processes", `tr '\0' ' ' < /proc/1/cmdline`, "(kyozon lab) init "},
		{"environment", "echo $TMPDIR", "/run/tmp\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := h.Command(t.Context(), "sh", "-c", tt.command).CombinedOutput()
			if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	if _, err := os.Stat("/run/x"); err == nil {
		t.Error("a file of the lab is outside")
	}
	if got, err := h.ReadFile("/run/x"); string(got) != "x\n" {
		t.Errorf("ReadFile: %q, %v", got, err)
	}
	if _, err := l.Host("server").ReadFile("/run/x"); err == nil {
		t.Error("a file of one host is on another")
	}
	if err := h.WriteFile("/etc/kyozon-lab-test", nil); err == nil {
		t.Error("WriteFile writes what would remain")
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	l := up(t, routed)
	h := l.Host("client")
	t.Run("ends before it is ready", func(t *testing.T) {
		_, err := h.Start(t.Context(), Daemon{Name: "short", Argv: []string{"sh", "-c", "echo last words; exit 3"},
			Ready: func(context.Context) error { return io.EOF }})
		if !errors.Is(err, ErrEnded) || !strings.Contains(fmt.Sprint(err), "last words") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("stop", func(t *testing.T) {
		p, err := h.Start(t.Context(), Daemon{Name: "sleep", Argv: []string{"sleep", "1000"}})
		if err != nil {
			t.Fatal(err)
		}
		p.Stop(t.Context())
		<-p.Done()
	})
	t.Run("user", func(t *testing.T) {
		p, err := h.Start(t.Context(), Daemon{Name: "id", Argv: []string{"id", "-un"}, User: "nobody"})
		if err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		if p.Log() != "nobody\n" {
			t.Errorf("ran as %q", p.Log())
		}
	})
}

// TestKill kills a lab's process and finds nothing of the lab left.
func TestKill(t *testing.T) {
	needRoot(t)
	before := outside(t)
	c := exec.CommandContext(t.Context(), "/proc/self/exe")
	c.Env = append(os.Environ(), killable+"=1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var namespaces []string
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "up" {
		if ns, ok := strings.CutPrefix(lines.Text(), "namespace "); ok {
			namespaces = append(namespaces, ns)
		} else {
			t.Log(lines.Text())
		}
	}
	if lines.Text() != "up" {
		t.Fatal("the lab did not come up")
	}
	if len(users(t, namespaces)) == 0 {
		t.Fatal("no process is in the lab: this test would find nothing")
	}
	for _, ns := range namespaces { // kept open, so that the kernel gives its number to no other meanwhile
		f, err := os.Open(strings.Fields(ns)[1])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.Wait() // it was killed

	deadline := time.Now().Add(time.Minute)
	for left := users(t, namespaces); len(left) > 0; left = users(t, namespaces) {
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v", left)
		}
		runtime.Gosched()
	}
	if after := outside(t); after != before {
		t.Errorf("outside the lab:\nbefore %s\nafter  %s", before, after)
	}
}

// waitForKill brings up a lab with servers, tells which namespaces it has, and waits.
func waitForKill() error {
	f, err := Parse("lab.yaml", []byte(shop))
	if err != nil {
		return err
	}
	l, err := Up(context.Background(), f, Options{Out: os.Stdout})
	if err != nil {
		return err
	}
	for _, h := range append(l.sorted(), l.bridges) {
		for _, f := range []*os.File{h.net, h.mnt, h.uts} {
			tell(f)
		}
	}
	for _, f := range []*os.File{l.box.pid, l.box.mnt, l.box.ipc} {
		tell(f)
	}
	fmt.Println("up")
	select {}
}

func tell(f *os.File) {
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	name, err := os.Readlink(path)
	fmt.Println("namespace", name, path, errors.Join(err))
}

// users returns what else than this process holds one of the namespaces: a process that is in it or has it open.
func users(t *testing.T, namespaces []string) []string {
	t.Helper()
	of := make(map[string]bool)
	for _, ns := range namespaces {
		of[strings.Fields(ns)[0]] = true
	}
	var found []string
	ours := fmt.Sprintf("/proc/%d/fd/", os.Getpid())
	for _, pattern := range []string{"/proc/[0-9]*/ns/*", "/proc/[0-9]*/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			if to, err := os.Readlink(p); err == nil && of[to] && !strings.HasPrefix(p, ours) {
				found = append(found, p+" "+to)
			}
		}
	}
	return found
}

// outside describes what a lab must not change: interfaces, mounts, named namespaces, shared memory, directories for
// temporary files.
func outside(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		fmt.Fprintf(&b, "interface %s ", i.Name)
	}
	for _, pattern := range []string{"/run/*", "/run/netns/*", "/dev/shm/PostgreSQL*", "/tmp/kyozon*", "/var/lib/kyozon*",
		"/var/lib/nginx/*", "/var/lib/postgresql/*", "/var/log/nginx/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %v ", pattern, found)
	}
	for _, path := range []string{"/proc/self/mountinfo", "/proc/sysvipc/shm"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d lines ", path, bytes.Count(data, []byte("\n")))
	}
	return b.String()
}
