// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// H2load is a load of h2load: HTTP/2 requests in Streams of each of Connections at once. Without TLS it begins with
// HTTP/2, which the program must expect (RFC 9113 §3.3).
type H2load struct {
	URL         string
	Connections int
	Streams     int // of a connection
	Time        time.Duration
}

// Args returns the command.
func (h H2load) Args() []string {
	return []string{"h2load", "-t", "2", "-c", strconv.Itoa(h.Connections), "-m", strconv.Itoa(h.Streams),
		"-D", strconv.FormatInt(h.Time.Milliseconds(), 10) + "ms", "--tls13-ciphers=TLS_AES_128_GCM_SHA256",
		"--groups=X25519", h.URL}
}

var (
	h2loadRate     = regexp.MustCompile(`(?m)^finished in \S+, (\d{1,12}(?:\.\d+)?) req/s, `)
	h2loadRequests = regexp.MustCompile(`(?m)^requests: .* (\d{1,15}) done, (\d{1,15}) succeeded, (.*)$`)
	h2loadStatus   = regexp.MustCompile(`(?m)^status codes: (\d{1,15}) 2xx, `)
	h2loadBytes    = regexp.MustCompile(`(?m)^traffic: .* \((\d{1,18})\) data$`)
)

// ParseH2load reads what h2load wrote about answers that have a body of some bytes. Returns ErrFailed if a single
// request was not answered with success, and ErrShort if less came than the answers have.
func ParseH2load(out []byte, body int) (Answers, error) {
	rate, requests := h2loadRate.FindSubmatch(out), h2loadRequests.FindSubmatch(out)
	status, data := h2loadStatus.FindSubmatch(out), h2loadBytes.FindSubmatch(out)
	if rate == nil || requests == nil || status == nil || data == nil {
		return Answers{}, errNoReport
	}
	var errs [5]error
	var a Answers
	a.Rate, errs[0] = strconv.ParseFloat(string(rate[1]), 64)
	a.Requests, errs[1] = strconv.Atoi(string(requests[1]))
	succeeded, err := strconv.Atoi(string(requests[2]))
	errs[2] = err
	good, err := strconv.Atoi(string(status[1]))
	errs[3] = err
	size, err := strconv.Atoi(string(data[1]))
	errs[4] = err
	if err := errors.Join(errs[:]...); err != nil {
		return Answers{}, err
	}
	switch {
	// A status counts when it comes, a request when its answer is whole: the end may fall between the two.
	case a.Requests == 0 || succeeded != a.Requests || good < succeeded:
		return Answers{}, fmt.Errorf("%w: %d done, %d of them with success, %d with status 2xx, %s", ErrFailed,
			a.Requests, succeeded, good, requests[3])
	case size/a.Requests < body:
		return Answers{}, fmt.Errorf("%w: %d bytes in %d answers", ErrShort, size, a.Requests)
	}
	return a, nil
}
