// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
)

const (
	headMax = 64 << 10 // bytes of an answer's head
	bodyMax = 64 << 10 // bytes of a body that are read, so that the server sees no reset
	interim = 5        // 1xx answers before the final one. RFC 9110 §15.2
)

// HTTP asks for a path with GET over HTTP/1.1 and closes the connection. It is content with a status in the range;
// of the body it only reads a little and forgets it.
func HTTP(ctx context.Context, t Target) Result {
	r := begin(t)
	question, err := question(t)
	if err != nil {
		r.end(ctx, "question", err)
		return r.Result
	}
	c := r.connect(ctx)
	if c == nil {
		return r.Result
	}
	defer c.Close()
	s := r.greet(ctx, c)
	if s == nil {
		return r.Result
	}
	if _, err := io.WriteString(s, question); err != nil {
		r.end(ctx, "answer", err)
		return r.Result
	}
	head := &io.LimitedReader{R: s, N: headMax}
	status, body, err := answer(bufio.NewReader(head))
	switch {
	case err == nil:
		err = t.judge(status)
	case isAlert(err):
		err = Explain(err)
	}
	r.end(ctx, "answer", err)
	if body != nil {
		head.N = bodyMax
		io.Copy(io.Discard, body) // courtesy: what was sent in vain would be answered with a reset
	}
	return r.Result
}

// question returns the bytes to send. They hold nothing that ends a line early.
func question(t Target) (string, error) {
	host := t.host()
	if !strings.HasPrefix(t.HTTP, "/") || strings.ContainsFunc(t.HTTP+host, notToken) {
		return "", fmt.Errorf("ask %q for %q: not a path and a host", host, t.HTTP)
	}
	return "GET " + t.HTTP + " HTTP/1.1\r\nHost: " + host +
		"\r\nUser-Agent: kyozon-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n", nil
}

// host returns what the Host header says.
func (t *Target) host() string {
	if t.Host != "" {
		return t.Host
	}
	if t.TLS != nil && t.TLS.ServerName != "" {
		if _, err := netip.ParseAddr(t.TLS.ServerName); err != nil { // a name
			return t.TLS.ServerName
		}
	}
	return t.Addr.String()
}

func notToken(r rune) bool { return r <= ' ' || r == 0x7f }

// answer reads the head of the final answer. The body, which is not nil if err is, ends with the answer.
func answer(r *bufio.Reader) (status int, body io.Reader, err error) {
	for range interim + 1 {
		a, err := http.ReadResponse(r, nil)
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return 0, nil, errors.New("ended in the middle")
		}
		if err != nil {
			return 0, nil, err
		}
		if a.StatusCode >= 200 || a.StatusCode == http.StatusSwitchingProtocols {
			return a.StatusCode, a.Body, nil
		}
	}
	return 0, nil, errors.New("only interim answers")
}

func (t *Target) judge(status int) error {
	low, high := t.Status[0], t.Status[1]
	if t.Status == [2]int{} {
		low, high = 200, 399
	}
	switch {
	case status >= low && status <= high:
		return nil
	case low == high:
		return fmt.Errorf("status %d, want %d", status, low)
	}
	return fmt.Errorf("status %d, want %d to %d", status, low, high)
}
