// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package load is the client of the measurements for which there is no tool: HTTP/1.1 requests from many sources, or at
// a given rate with the latency that users would have; and full TLS handshakes, each on a connection of its own.
//
// It is a process of its own, so that its host in the lab, its threads and its garbage are its own. Whoever measures
// reads the clocks of the program under test between the lines:
//
//	Drive ── Plan ────▶ Main: connect, ask once over each connection
//	      ◀─ "ready" ──
//	      ── "go" ────▶ ask until the time is over, wait for what is still to come
//	      ◀─ Report ───
package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// Plan says what to ask, of whom, and how often.
type Plan struct {
	To          netip.AddrPort
	From        netip.Prefix // of the sources; the zero value leaves the choice to the kernel
	Sources     int          // how many /64 of From take turns; 0 if From is not set
	Connections int          // at once
	Host        string       // whom to ask for
	Body        string       // what each answer must have
	Rate        float64      // requests a second; 0 means: the next one as soon as the last one is answered
	Handshakes  bool         // a TLS 1.3 connection, with a full handshake, for each request
	Time        time.Duration
}

// Report is what came of it.
type Report struct {
	Requests int
	Time     time.Duration // from "go" to the last answer
	P50, P99 time.Duration // see Ask
}

// Rate returns the requests a second.
func (r Report) Rate() float64 { return float64(r.Requests) / r.Time.Seconds() }

// The reasons why a load says nothing about a program.
var (
	ErrWrong = errors.New("load: a wrong answer")
	ErrEnded = errors.New("load: a connection was closed instead of an answer")
	ErrLate  = errors.New("load: answers did not come in time")
	ErrSuite = errors.New("load: not the handshake that all are measured by")

	errLater = fmt.Errorf("%w: come again", ErrWrong) // 503
)

// argument is the first one of a process that is such a client. It calls Main.
const argument = "bench-load"

// Args returns the command that does the plan.
func (p Plan) Args() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own binary: %w", err)
	}
	text, err := json.Marshal(p)
	return []string{self, argument, string(text)}, err
}

// Main does not return if this process was started by the command of a Plan.
func Main() {
	if len(os.Args) != 3 || os.Args[1] != argument {
		return
	}
	if err := serve(os.Args[2], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(text string, in io.Reader, out io.Writer) error {
	var p Plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	ask := Ask
	if p.Handshakes {
		ask = Shake
	}
	r, err := ask(p, func() error {
		if _, err := fmt.Fprintln(out, "ready"); err != nil {
			return err
		}
		_, err := bufio.NewReader(in).ReadString('\n')
		return err
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// Process is a process that can be started, as exec.Cmd is and its like of the lab.
type Process interface {
	StdinPipe() (io.WriteCloser, error)
	StdoutPipe() (io.ReadCloser, error)
	Start() error
	Wait() error
}

// Drive runs the command of a plan. It calls begin when the client is ready, and end when it has reported.
func Drive(ctx context.Context, c Process, begin, end func() error) (r Report, err error) {
	in, errIn := c.StdinPipe()
	out, errOut := c.StdoutPipe()
	if err := errors.Join(errIn, errOut); err != nil {
		return r, err
	}
	if err := c.Start(); err != nil {
		return r, fmt.Errorf("start client: %w", err)
	}
	err = func() error {
		defer in.Close() // a client that waits for "go" ends
		lines := bufio.NewReader(out)
		if l, err := lines.ReadString('\n'); err != nil || strings.TrimSpace(l) != "ready" {
			return fmt.Errorf("await client: %w", errors.Join(err, ctx.Err()))
		}
		if err := begin(); err != nil {
			return err
		}
		if _, err := io.WriteString(in, "go\n"); err != nil {
			return err
		}
		l, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("await report: %w", errors.Join(err, ctx.Err()))
		}
		if err := end(); err != nil {
			return err
		}
		return json.Unmarshal(l, &r)
	}()
	return r, errors.Join(c.Wait(), err)
}

// source returns the address that the nth connection comes from: the first one of a /64.
func (p Plan) source(n int) netip.Addr {
	if !p.From.IsValid() {
		return netip.Addr{}
	}
	n %= p.Sources
	a := p.From.Addr().As16()
	a[6], a[7], a[15] = byte(n>>8), byte(n), 1
	return netip.AddrFrom16(a)
}

// report makes a Report of the latencies, which it sorts.
func report(took time.Duration, latencies []time.Duration) Report {
	slices.Sort(latencies)
	at := func(part int) time.Duration {
		if len(latencies) == 0 {
			return 0
		}
		return latencies[min(len(latencies)*part/100, len(latencies)-1)]
	}
	return Report{Requests: len(latencies), Time: took, P50: at(50), P99: at(99)}
}
