// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
)

func TestRun(t *testing.T) {
	t.Parallel()
	needRoot(t)
	good := `{from: a, crossing: 4→4, command: [cat, /etc/hosts], want: {body: "192.0.2.2 b\n"}}`
	bad := `{from: b, crossing: 6→6, ask: "[2001:db8::1]:9", timeout: 1s}`
	const hosts = `
lab: run
names: {b: 192.0.2.2}
links: {wire: {}}
hosts:
  a: {links: {wire: [192.0.2.1/24, "2001:db8::1/64"]}}
  b: {links: {wire: [192.0.2.2/24, "2001:db8::2/64"]}}
try:
`
	for _, tt := range []struct {
		name, try, want string
		err             error
	}{
		{"good", "  - " + good, `^run: 2 hosts, 1 links

CROSSING  FROM  TO   RESULT
4→4       a     cat  ok  127.0.0.1 localhost ::1 localhost 192.0.2.2 b
$`, nil},
		{"bad", "  - " + good + "\n  - " + bad, `
4→4       a     cat                  ok  .*
6→6       b     udp \[2001:db8::1\]:9  FAILED  .*connection refused
$`, ErrFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := Parse("lab.yaml", []byte(hosts+tt.try))
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := Run(t.Context(), f, Options{Out: &out}); !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if !regexp.MustCompile(tt.want).MatchString(out.String()) {
				t.Errorf("got\n%s\nwant\n%s", out.String(), tt.want)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		want   Want
		got    answer
		http   bool
		ok     bool
		detail string
	}{
		{"any answer", Want{}, answer{body: "x"}, false, true, "x"},
		{"status", Want{}, answer{status: 200, body: "x"}, true, true, "x"},
		{"other status", Want{}, answer{status: 503, body: "x"}, true, false, "status 503, wanted 200: x"},
		{"wanted status", Want{Status: 503}, answer{status: 503, body: "x"}, true, true, "x"},
		{"match", Want{Body: "^a"}, answer{body: "ab"}, false, true, "ab"},
		{"no match", Want{Body: "^b"}, answer{body: "ab"}, false, false, "does not match ^b: ab"},
		{"must not match", Want{Not: "a"}, answer{body: "ab"}, false, false, "matches a: ab"},
		{"no answer", Want{}, answer{err: errors.New("refused")}, false, false, "refused"},
		{"no answer wanted", Want{Fail: true}, answer{err: errors.New("refused")}, true, true, "refused"},
		{"answer not wanted", Want{Fail: true}, answer{body: "x"}, false, false, "an answer came, none was wanted: x"},
		{"long", Want{}, answer{body: strings.Repeat("あ\n", 100)}, false, true, strings.Repeat("あ ", 49) + "あ…"},
	} {
		ok, detail := tt.want.judge(tt.got, tt.http)
		if ok != tt.ok || detail != tt.detail {
			t.Errorf("%s: got %t, %q; want %t, %q", tt.name, ok, detail, tt.ok, tt.detail)
		}
	}
}

func TestWriteTable(t *testing.T) {
	t.Parallel()
	a := Attempt{From: "subscriber6", Crossing: Crossing{ip.Crossing{Client: ip.V6, Backend: ip.V4}}, Get: "http://x/"}
	var out bytes.Buffer
	err := WriteTable(&out, []Result{{a, true, "hello", time.Second}, {Attempt{From: "b", Command: []string{"ls"}}, false, "no", 0}})
	if want := `CROSSING  FROM         TO         RESULT
6→4       subscriber6  http://x/  ok  hello
-         b            ls         FAILED  no
`; err != nil || out.String() != want {
		t.Errorf("got\n%s%v\nwant\n%s", out.String(), err, want)
	}
}
