// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// Result is what became of an attempt.
type Result struct {
	Attempt Attempt
	OK      bool
	Detail  string // what came, or what is wrong with it
	Took    time.Duration
}

// answer is what came back.
type answer struct {
	status int // of HTTP; 0 for others
	body   string
	err    error // no answer
}

// TryAll tries every attempt of the file, in order.
func (l *Lab) TryAll(ctx context.Context) []Result {
	var all []Result
	for _, a := range l.file.Try {
		if ctx.Err() != nil {
			break
		}
		all = append(all, l.Try(ctx, a))
	}
	return all
}

// Try makes one attempt.
func (l *Lab) Try(ctx context.Context, a Attempt) Result {
	r := Result{Attempt: a}
	h := l.Host(a.From)
	if h == nil {
		r.Detail = "there is no host " + a.From
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout())
	defer cancel()
	began := time.Now()
	var got answer
	switch {
	case a.Get != "":
		got = h.get(ctx, a)
	case a.Ask != "":
		got = h.ask(ctx, a)
	case a.Dial != "":
		got = h.dial(ctx, a.Dial)
	default:
		got = h.run(ctx, a)
	}
	r.Took = time.Since(began)
	r.OK, r.Detail = a.Want.judge(got, a.Get != "")
	return r
}

// get asks with curl, which is what an operator would use.
func (h *Host) get(ctx context.Context, a Attempt) answer {
	curl, err := need("curl", "curl")
	if err != nil {
		return answer{err: err}
	}
	argv := []string{curl, "--disable", "--silent", "--show-error", "--globoff", "--write-out", "\n%{http_code}",
		"--max-time", strconv.FormatFloat(a.timeout().Seconds(), 'f', 3, 64)}
	switch a.family() {
	case ip.V4:
		argv = append(argv, "--ipv4")
	case ip.V6:
		argv = append(argv, "--ipv6")
	}
	for _, header := range a.Headers {
		argv = append(argv, "--header", header)
	}
	out, err := h.Command(ctx, append(argv, a.Get)...).Output()
	if err != nil {
		return answer{err: err}
	}
	i := bytes.LastIndexByte(out, '\n')
	status, err := strconv.Atoi(string(out[i+1:]))
	return answer{status: status, body: string(out[:max(i, 0)]), err: err}
}

func (h *Host) ask(ctx context.Context, a Attempt) answer {
	to, err := netip.ParseAddrPort(a.Ask)
	if err != nil {
		return answer{err: err}
	}
	var got []byte
	err = h.Do(func() (err error) {
		got, err = askUDP(ctx, to, []byte(a.Send))
		return err
	})
	return answer{body: string(got), err: err}
}

func (h *Host) run(ctx context.Context, a Attempt) answer {
	if len(a.Command) == 0 {
		return answer{err: fmt.Errorf("nothing to try")}
	}
	argv := slices.Clone(a.Command)
	if argv[0] == "kyozon" {
		var err error
		if argv[0], err = h.lab.kyozon(); err != nil {
			return answer{err: err}
		}
	}
	out, err := h.Command(ctx, argv...).Output()
	return answer{body: string(out), err: err}
}

// judge says whether an answer is what was wanted, and in a few words why, or why not.
func (w Want) judge(got answer, http bool) (ok bool, detail string) {
	said := brief(got.body)
	status := w.Status
	if status == 0 {
		status = 200
	}
	switch {
	case got.err != nil:
		return w.Fail, brief(got.err.Error())
	case w.Fail:
		return false, "an answer came, none was wanted: " + said
	case http && got.status != status:
		return false, fmt.Sprintf("status %d, wanted %d: %s", got.status, status, said)
	case w.Body != "" && !match(w.Body, got.body):
		return false, fmt.Sprintf("does not match %s: %s", w.Body, said)
	case w.Not != "" && match(w.Not, got.body):
		return false, fmt.Sprintf("matches %s: %s", w.Not, said)
	}
	return true, said
}

func match(pattern, s string) bool {
	m, err := regexp.MatchString(pattern, s)
	return err == nil && m
}

// brief returns the beginning of s on one line.
func brief(s string) string {
	const most = 100
	r := []rune(strings.Join(strings.Fields(s), " "))
	if len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return string(r)
}
