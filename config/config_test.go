// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestLoad holds that file names in the file are found beside it.
func TestLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "site.yaml")
	data := string(section(t, "testdata/good/smallest.txtar", "site.yaml")) + "state: {directory: data}\n"
	write(t, path, []byte(data))
	c, err := Load(path, protocols())
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(path), "data"); c.State.Directory != want {
		t.Errorf("directory %s, want %s", c.State.Directory, want)
	}
	if _, err := Load(path+".gone", protocols()); !errors.Is(err, fs.ErrNotExist) || len(Errors(err)) != 0 {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := Load(filepath.Dir(path), protocols()); err == nil {
		t.Error("a directory was read")
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, bytes.Repeat([]byte("#"), MaxSize+1))
	_, err := Load(path, protocols())
	if err == nil || !strings.HasSuffix(err.Error(), ":1:1: the file is larger than 1048576 bytes") {
		t.Error(err)
	}
}

// TestFormat holds that the mark stands under the place, whatever is before it.
func TestFormat(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		err   Error
		color bool
		want  string
	}{
		{
			name: "plain",
			err:  Error{File: "site.yaml", Line: 7, Column: 5, Text: "    lisen: x", Err: errors.New("unknown key")},
			want: "site.yaml:7:5: unknown key\n        lisen: x\n        ^\n",
		},
		{
			name: "tab and kanji",
			err:  Error{File: "f", Line: 1, Column: 5, Text: "\t共存 x", Err: errors.New("wrong")},
			want: "f:1:5: wrong\n    \t共存 x\n    \t\u3000\u3000 ^\n",
		},
		{
			name: "end of line",
			err:  Error{File: "f", Line: 1, Column: 3, Text: "ab", Err: errors.New("wrong")},
			want: "f:1:3: wrong\n    ab\n      ^\n",
		},
		{
			name:  "colour",
			err:   Error{File: "f", Line: 1, Column: 1, Text: "a", Err: errors.New("wrong")},
			color: true,
			want:  "\x1b[1mf:1:1:\x1b[0m \x1b[31mwrong\x1b[0m\n    a\n    \x1b[31m^\x1b[0m\n",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			test.err.Format(&b, test.color)
			if diff := cmp.Diff(test.want, b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestErrorJSON holds that mistakes look the same in the process that is told of them.
func TestErrorJSON(t *testing.T) {
	t.Parallel()
	_, err := Parse("site.yaml", []byte("site: 共存\nlisen: x\nservices: {a: {}}\n"), protocols(), Options{})
	sent := Errors(err)
	data, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	var got []*Error
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) < 2 || len(Errors(fmt.Errorf("refused: %w", Join(got)))) != len(sent) {
		t.Errorf("sent %d mistakes, got %v", len(sent), Join(got))
	}
	show := func(all []*Error) string {
		var b strings.Builder
		for _, e := range all {
			e.Format(&b, true)
		}
		return b.String()
	}
	if diff := cmp.Diff(show(sent), show(got)); diff != "" {
		t.Error(diff)
	}
}

// TestErrors holds that an error can be asked for its cause.
func TestErrors(t *testing.T) {
	t.Parallel()
	e := &Error{Err: os.ErrNotExist}
	if !errors.Is(e, os.ErrNotExist) || len(Errors(errors.Join(e, errors.Join(e)))) != 2 || Errors(nil) != nil {
		t.Error("the cause was lost")
	}
}

// FuzzParse holds that no file makes the program fail, and that each mistake is at a place in the file.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.txtar"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("site.yaml", data, protocols(), Options{})
		if (c == nil) == (err == nil) {
			t.Fatalf("both or neither: %v, %v", c, err)
		}
		lines := strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n")
		all := Errors(err)
		if err != nil && len(all) == 0 {
			t.Fatalf("an error without a place: %v", err)
		}
		for _, e := range all {
			if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > len([]rune(e.Text))+1 {
				t.Errorf("outside the file: %v", e)
			}
			if e.Err == nil || e.Err.Error() == "" || strings.Contains(e.Error(), "%!") {
				t.Errorf("not a message: %v", e)
			}
		}
	})
}
