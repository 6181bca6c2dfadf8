// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package users

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       map[string]string
		err        string
	}{
		{"all there is", "# mailboxes\n\nTim@Example.jp\t10.0.2.21  # old\r\n@example.jp imap-new  pop3-new\n* [2001:db8::1]:143", map[string]string{
			"tim@example.jp": "10.0.2.21", "@example.jp": "imap-new pop3-new", "*": "[2001:db8::1]:143"}, ""},
		{"nothing", "", map[string]string{}, ""},
		{"no server", "tim 10.0.2.21\ntom\n", nil, `2: no server behind "tom"`},
		{"twice", "tim a\nTIM b\n", nil, `2: "TIM" for the second time`},
		{"no text", "tim \x01\n", nil, "1: users: the answer is too long, or no text"},
		{"long answer", "tim " + strings.Repeat("x", MaxAnswer+1), nil, "1: users: the answer is too long, or no text"},
		{"long line", "tim a\n" + strings.Repeat("x", maxLine+1), nil, "2: bufio.Scanner: token too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parse(strings.NewReader(tt.text))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != tt.err) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}

// FuzzParse holds that what is kept of a file is bounded, and that each user of it is found.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"tim a\n@b c # d\n* e", "\x00 x\n", "a\n", "A b\na b\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parse(strings.NewReader(text))
		if err != nil {
			return
		}
		file := new(File)
		file.all.Store(&all)
		for user, answer := range all {
			got, ok := file.Known(user)
			if !ok || got != answer || answer == "" || len(answer) > MaxAnswer || user != Name([]byte(user)) {
				t.Errorf("%q: got %q, want %q", user, got, answer)
			}
		}
	})
}

// TestFile: the user counts before the domain, and that before all; a change is taken, and one that is none is not.
func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users")
	write := func(text string, at time.Time) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	first := time.Unix(1_000_000_000, 0)
	write("tim@a.example one\n@a.example two\n", first)
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	is := func(user, want string) {
		t.Helper()
		if got, ok := f.Known(user); got != want || !ok {
			t.Errorf("%s: got %q, want %q", user, got, want)
		}
		f.Find(user, func(got string, err error) {
			if got != want || err != nil {
				t.Errorf("%s: found %q, %v, want %q", user, got, err, want)
			}
		})
	}
	is("tim@a.example", "one")
	is("tom@a.example", "two")
	is("tom", "")
	var reports []string
	report := func(_ string, err error) {
		if err == nil {
			reports = append(reports, "taken")
			return
		}
		reports = append(reports, err.Error())
	}
	f.look(report)
	write("* half\n", first.Add(time.Second))
	f.look(report)
	write("* three\n", first.Add(2*time.Second))
	f.look(report)
	is("tim@a.example", "one")
	f.look(report)
	is("tim@a.example", "three")
	write("broken\n", first.Add(3*time.Second))
	for range 4 {
		f.look(report)
	}
	is("tim@a.example", "three")
	os.Remove(path)
	f.look(report)
	if diff := cmp.Diff([]string{"taken", path + `:1: no server behind "broken"`}, reports); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := OpenFile(path); err == nil {
		t.Error("opened what is not there")
	}
}
