// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/smtp"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/lab"
)

// beKyozon makes the test binary the program, as its name kyozon does.
const beKyozon = "KYOZON_TEST_BE_KYOZON"

// patience is how long anything may take on a busy machine before a test gives up.
const patience = time.Minute

func TestMain(m *testing.M) {
	lab.Main()
	if when := os.Getenv(failsUpgrade); when != "" {
		fmt.Fprintln(os.Stderr, failUpgrade(when))
		os.Exit(1)
	}
	if os.Getenv(beKyozon) != "" || filepath.Base(os.Args[0]) == "kyozon" {
		main()
	}
	if err := errors.Join(leaveNetwork(), adoptOrphans()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testscript.Main(m, map[string]func(){"kyozon": main})
}

// leaveNetwork takes the tests into a network, and among mounts, of their own if they run as root: an edge with that right
// adds routes to the machine, and what is mounted here is gone when the tests are. The thread that has left becomes the
// process: execve(2) ends the others.
func leaveNetwork() error {
	const inside = "KYOZON_TEST_INSIDE"
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return nil // a root without rights adds no routes either
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), inside+"=1"))
	}
	return fmt.Errorf("leave the network: %w", err)
}

// TestScript runs the scenarios of testdata/script. Beside what testscript knows, they have
//
//	$SERVER4 $SERVER6     web servers of one family, which answer "from PEER told X-Forwarded-For"
//	$LISTEN4 $LISTEN6     addresses at which nobody listens; $ADMIN another one
//	expand FILE…          replaces such variables in a file
//	ready SOCKET          waits until a kyozon answers at the control socket
//	send ADDRESS FROM TO…  sends a short message
//	get ADDRESS[/PATH]    asks a web server, again while that is unavailable, and prints what it answers
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "../../testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		WorkdirRoot:         memory(t),
		Setup:               setUp,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"expand": expand, "ready": ready, "get": get, "send": send,
		},
	})
}

// memory returns a directory in memory, if the machine has one: the ledger's deadline is 250 ms, and how long the disk of
// a busy machine takes is not what is tested here.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kyozon-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func setUp(e *testscript.Env) error {
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		server, err := listenLoopback(f, 0)
		if err != nil {
			return err
		}
		ctx, end := context.WithCancel(context.Background())
		go serveDemo(ctx, server)
		e.Defer(end)
		free, err := servertest.FreeAddr(f)
		if err != nil {
			return err
		}
		e.Setenv(fmt.Sprintf("SERVER%d", f), server.Addr().String())
		e.Setenv(fmt.Sprintf("LISTEN%d", f), free.String())
	}
	admin, err := servertest.FreeAddr(ip.V4)
	e.Setenv("ADMIN", admin.String())
	return err
}

func expand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
	}
}

func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready SOCKET")
	}
	ts.Check(awaitReady(filepath.Join(ts.Getenv("WORK"), args[0])))
}

// awaitReady waits until a kyozon answers at the control socket.
func awaitReady(control string) error {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-look.C {
		var s struct{ Generation int }
		if err = ask(context.Background(), control, "GET", "/status", &s); err == nil && s.Generation > 0 {
			return nil
		}
	}
	return fmt.Errorf("no kyozon answers at %s: %w", control, err)
}

func get(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: get ADDRESS[/PATH]")
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	r, err := c.Get("http://" + args[0])
	for deadline := time.Now().Add(patience); !neg && err == nil && r.StatusCode == 503 && time.Now().Before(deadline); {
		r.Body.Close() // the ledger has no more than 250 ms, which a busy machine takes
		r, err = c.Get("http://" + args[0])
	}
	if err != nil {
		if !neg {
			ts.Fatalf("%v", err)
		}
		return
	}
	defer r.Body.Close()
	if neg == (r.StatusCode == http.StatusOK) {
		ts.Fatalf("status %d", r.StatusCode)
	}
	body := make([]byte, 1000)
	n, _ := r.Body.Read(body)
	fmt.Fprintf(ts.Stdout(), "%s", body[:n])
}

func send(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: send ADDRESS FROM TO…")
	}
	ts.Check(smtp.SendMail(args[0], nil, args[1], args[2:], []byte("Subject: x\r\n\r\nhello\r\n")))
}
