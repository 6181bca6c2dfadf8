// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// SIPp says what a SIPp is to do, once.
type SIPp struct {
	Scenario  string         // XML
	Local     netip.AddrPort // its address
	Remote    netip.AddrPort // whom it talks to
	Transport string         // "udp" or "tcp"
	Target    string         // the URI that it proves itself for, without its scheme
}

// Start begins. The function that it returns waits until all is done, and fails the test if something else was heard than
// the scenario has.
func (s SIPp) Start(t testing.TB) (wait func()) {
	t.Helper()
	program := Find(t, "sipp")
	dir := t.TempDir()
	file := filepath.Join(dir, "scenario.xml")
	err := os.WriteFile(file, []byte(s.Scenario), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	c := exec.CommandContext(ctx, program, s.Remote.String(), "-sf", file, "-i", s.Local.Addr().String(), "-p", strconv.Itoa(int(s.Local.Port())),
		"-t", map[string]string{"udp": "u1", "tcp": "t1"}[s.Transport], "-m", "1", "-nostdin", "-trace_err", "-error_file", "errors",
		"-trace_msg", "-message_file", "messages", "-timeout", fmt.Sprintf("%.0fs", patience.Seconds()), "-timeout_error")
	if s.Target != "" {
		c.Args = append(c.Args, "-auth_uri", s.Target)
	}
	c.Dir = dir
	if err = c.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan bool)
	go func() {
		err = c.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended // by itself, or killed
	})
	s.awaitSocket(t, ended)
	return func() {
		t.Helper()
		<-ended
		if err == nil {
			return
		}
		for _, name := range []string{"errors", "messages"} {
			text, _ := os.ReadFile(filepath.Join(dir, name))
			err = errors.Join(err, errors.New(strings.ToValidUTF8(string(text), "?")))
		}
		t.Errorf("sipp: %v\n%s", err, s.Scenario)
	}
}

// awaitSocket waits until it can hear, or has ended: who sends it something before that must send it again.
func (s SIPp) awaitSocket(t testing.TB, ended <-chan bool) {
	t.Helper()
	local := fmt.Sprintf(":%04X ", s.Local.Port())
	for deadline := time.Now().Add(patience); s.Transport == "udp"; {
		var sockets []byte
		for _, table := range []string{"/proc/net/udp", "/proc/net/udp6"} {
			text, err := os.ReadFile(table)
			if err != nil {
				t.Fatal(err)
			}
			sockets = append(sockets, text...)
		}
		if strings.Contains(string(sockets), local) { // no socket of ours is connected to it yet
			return
		}
		select {
		case <-ended:
			return
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("SIPp has no socket")
		}
	}
}
