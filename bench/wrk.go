// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Wrk is a load of wrk: requests over Connections at once, the next one as soon as the last one is answered.
type Wrk struct {
	URL         string
	Headers     []string
	Connections int
	Time        time.Duration // in whole seconds, of which wrk takes one at least
}

// Args returns the command.
func (w Wrk) Args() []string {
	args := []string{"wrk", "-t", "2", "-c", strconv.Itoa(w.Connections),
		"-d", strconv.Itoa(max(1, int(w.Time.Seconds()))) + "s", "--timeout", "10s"}
	for _, h := range w.Headers {
		args = append(args, "-H", h)
	}
	return append(args, w.URL)
}

// Answers is what a load's client says about the answers that it had.
type Answers struct {
	Requests int
	Rate     float64 // a second
}

// The reasons why a load says nothing about a program.
var (
	ErrFailed   = errors.New("bench: requests failed")
	ErrShort    = errors.New("bench: answers are too short")
	errNoReport = errors.New("bench: the client has made no report")
)

var (
	wrkRequests = regexp.MustCompile(`(?m)^\s*(\d{1,15}) requests in \S+, (\d{1,9}(?:\.\d+)?)([KMGT]?)B read$`)
	wrkRate     = regexp.MustCompile(`(?m)^Requests/sec:\s*(\d{1,12}(?:\.\d+)?)$`)
	wrkErrors   = regexp.MustCompile(`(?m)^\s*(Socket errors: .*|Non-2xx or 3xx responses: .*)$`)
)

// ParseWrk reads what wrk wrote about answers that have a body of some bytes. Returns ErrFailed if a single request was
// not answered with success, and ErrShort if less came than the answers have: the rate of a program that refuses is no
// rate.
func ParseWrk(out []byte, body int) (Answers, error) {
	if m := wrkErrors.FindSubmatch(out); m != nil {
		return Answers{}, fmt.Errorf("%w: %s", ErrFailed, bytes.ToLower(m[1]))
	}
	n, rate := wrkRequests.FindSubmatch(out), wrkRate.FindSubmatch(out)
	if n == nil || rate == nil {
		return Answers{}, errNoReport
	}
	var a Answers
	var errs [3]error
	a.Requests, errs[0] = strconv.Atoi(string(n[1]))
	a.Rate, errs[1] = strconv.ParseFloat(string(rate[1]), 64)
	size, err := strconv.ParseFloat(string(n[2]), 64)
	errs[2] = err
	if err := errors.Join(errs[:]...); err != nil {
		return Answers{}, err
	}
	if len(n[3]) > 0 {
		size *= float64(int64(1) << (10 * (1 + bytes.IndexByte([]byte("KMGT"), n[3][0]))))
	}
	switch {
	case a.Requests == 0:
		return Answers{}, ErrFailed
	case size < rounding*float64(body)*float64(a.Requests):
		return Answers{}, fmt.Errorf("%w: %.0f bytes in %d answers", ErrShort, size, a.Requests)
	}
	return a, nil
}

// rounding is what a size is at least worth that a client has rounded.
const rounding = 0.99
