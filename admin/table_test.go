// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/edge"
)

// golden compares got with testdata/name. The flag -update writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", path, d)
	}
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the golden files")
	os.Exit(m.Run())
}

func TestTables(t *testing.T) {
	t.Parallel()
	style, colour := Style{Now: now()}, Style{Now: now(), Colour: true}
	full := fixedStatus()
	full.Ledger.Err = "all stand-ins are leased"
	tests := []struct {
		golden string
		write  func(w io.Writer) error
	}{
		{"status.txt", func(w io.Writer) error { return WriteStatus(w, fixedStatus(), style) }},
		{"status-well.txt", func(w io.Writer) error { return WriteStatus(w, wellStatus(), style) }},
		{"status-colour.txt", func(w io.Writer) error { return WriteStatus(w, full, colour) }},
		{"services.txt", func(w io.Writer) error { return WriteServices(w, fixedStatus().Services, style) }},
		{"services-colour.txt", func(w io.Writer) error { return WriteServices(w, fixedStatus().Services, colour) }},
		{"backends.txt", func(w io.Writer) error { return WriteBackends(w, fixedStatus().Backends, style) }},
		{"flows.txt", func(w io.Writer) error { return WriteFlows(w, fixedFlows(), style) }},
		{"nothing.txt", func(w io.Writer) error {
			return errors.Join(WriteServices(w, nil, style), WriteBackends(w, nil, style), WriteFlows(w, nil, style))
		}},
	}
	for _, test := range tests {
		t.Run(test.golden, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := test.write(&out); err != nil {
				t.Fatal(err)
			}
			golden(t, test.golden, out.Bytes())
			for line := range strings.Lines(out.String()) {
				if strings.TrimRight(line, " \n") != strings.TrimRight(line, "\n") {
					t.Errorf("blanks at the end of %q", line)
				}
			}
		})
	}
}

// TestNotCarrying: the line of the kernel plane says in whole words what it does.
func TestNotCarrying(t *testing.T) {
	t.Parallel()
	for want, k := range map[string]edge.KernelStatus{
		"":                                    {Open: true, Interfaces: []string{"eth0"}},
		"carries nothing: no BPF file system": {Err: "no BPF file system"},
		"carries nothing: interface eth0 does not forward":                 {Open: true, Err: "interface eth0 does not forward"},
		"takes no new flows, 1,200 go on: interface eth0 does not forward": {Open: true, Interfaces: []string{"eth1"}, Flows: 1200, Err: "interface eth0 does not forward"},
		"takes no new flows, 7 go on: no service uses it":                  {Open: true, Flows: 7},
		"carries nothing: no service uses it":                              {Open: true},
	} {
		if got := notCarrying(&k); got != want {
			t.Errorf("%+v: %q, want %q", k, got, want)
		}
		st := wellStatus()
		st.Kernel = &k
		var out bytes.Buffer
		if err := WriteStatus(&out, st, Style{Now: now()}); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{out.String(), string(render(t, st, nil))} {
			if !strings.Contains(text, want) || strings.Contains(text, "on , ") {
				t.Errorf("%q is not in %s", want, text)
			}
		}
	}
}

// The zero Style counts ages from the present and has no colour, whatever a backend says.
func TestTablesAreSafe(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := WriteBackends(&out, []edge.BackendStatus{{State: "down", Reason: "220 \x1b[31mhello\r\n"}}, Style{}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\r") {
		t.Errorf("escapes came through: %q", out.String())
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestTablesReturnTheError(t *testing.T) {
	t.Parallel()
	for _, err := range []error{WriteStatus(broken{}, fixedStatus(), Style{}), WriteServices(broken{}, nil, Style{}), WriteFlows(broken{}, fixedFlows(), Style{})} {
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v, want %v", err, io.ErrClosedPipe)
		}
	}
}
