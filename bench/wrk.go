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
	Time        time.Duration // in whole seconds
}

// Args returns the command.
func (w Wrk) Args() []string {
	args := []string{"wrk", "-t", "2", "-c", strconv.Itoa(w.Connections),
		"-d", strconv.Itoa(int(w.Time.Seconds())) + "s", "--timeout", "10s"}
	for _, h := range w.Headers {
		args = append(args, "-H", h)
	}
	return append(args, w.URL)
}

// Answers is what wrk says.
type Answers struct {
	Requests int
	Rate     float64 // a second
}

// The reasons why a load says nothing about a program.
var (
	ErrFailed   = errors.New("bench: requests failed")
	errNoReport = errors.New("bench: wrk has made no report")
)

var (
	wrkRequests = regexp.MustCompile(`(?m)^\s*(\d{1,15}) requests in `)
	wrkRate     = regexp.MustCompile(`(?m)^Requests/sec:\s*(\d{1,12}(?:\.\d+)?)$`)
	wrkErrors   = regexp.MustCompile(`(?m)^\s*(Socket errors: .*|Non-2xx or 3xx responses: .*)$`)
)

// ParseWrk reads what wrk wrote. Returns ErrFailed if a single request was not answered with success: the rate of a
// program that refuses is no rate.
func ParseWrk(out []byte) (Answers, error) {
	if m := wrkErrors.FindSubmatch(out); m != nil {
		return Answers{}, fmt.Errorf("%w: %s", ErrFailed, bytes.ToLower(m[1]))
	}
	n, rate := wrkRequests.FindSubmatch(out), wrkRate.FindSubmatch(out)
	if n == nil || rate == nil {
		return Answers{}, errNoReport
	}
	var a Answers
	var err, also error
	a.Requests, err = strconv.Atoi(string(n[1]))
	a.Rate, also = strconv.ParseFloat(string(rate[1]), 64)
	if err := errors.Join(err, also); err != nil {
		return Answers{}, err
	}
	if a.Requests == 0 {
		return Answers{}, ErrFailed
	}
	return a, nil
}
