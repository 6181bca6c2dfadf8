// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
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
	if err := os.WriteFile(file, []byte(s.Scenario), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c := exec.CommandContext(ctx, program, s.Remote.String(), "-sf", file, "-i", s.Local.Addr().String(), "-p", strconv.Itoa(int(s.Local.Port())),
		"-t", map[string]string{"udp": "u1", "tcp": "t1"}[s.Transport], "-m", "1", "-nostdin", "-trace_err", "-error_file", "errors",
		"-trace_msg", "-message_file", "messages", "-timeout", "30s", "-timeout_error")
	if s.Target != "" {
		c.Args = append(c.Args, "-auth_uri", s.Target)
	}
	c.Dir = dir
	if err := c.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	end := sync.OnceValue(c.Wait)
	t.Cleanup(func() {
		cancel()
		_ = end() // reported, or killed
	})
	return func() {
		t.Helper()
		err := end()
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
