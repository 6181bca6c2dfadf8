// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/bench"
)

// work is what is measured in memory: mailboxes that are open, and whose clients wait for mail.
type work struct {
	name string
	port uint16
	goal float64 // KB (1,024 bytes) that a session may take in the edge
}

func works() []work {
	return []work{{"mail-imap-idle", portIMAP, 6}, {"mail-imap-idle-tls", portIMAPS, 25}}
}

func names() (all []string) {
	for _, w := range works() {
		all = append(all, w.name)
	}
	for _, s := range sends() {
		all = append(all, s.name)
	}
	return all
}

// held is what a session takes in a program, in KB.
type held struct {
	resident float64 // of memory
	heap     float64 // of that, Go's heap after a collection; 0 if the program is not ours
}

// idle measures what n sessions take in each program, which it starts afresh.
func (p *place) idle(ctx context.Context, w work, n int) (lines []bench.Line, err error) {
	found := make(map[string]held)
	for _, pr := range programs() {
		processes, stop, err := p.start(ctx, pr)
		if err != nil {
			return nil, err
		}
		found[pr.name], err = p.holds(ctx, pr.name == ours, processes, w, n)
		stop()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pr.name, err)
		}
		fmt.Fprintf(p.progress, "%-20s %-8s %8.2f KB each\n", w.name, pr.name, found[pr.name].resident)
	}
	line := func(metric bench.Metric, our float64, peer string, their float64) {
		lines = append(lines, bench.Line{Name: w.name, Metric: metric, Ours: our, Peer: peer, Theirs: their, Ratio: our / their})
	}
	for _, pr := range programs()[1:] {
		line("kb_per_session", found[ours].resident, pr.name, found[pr.name].resident)
	}
	line("kb_per_session", found[ours].resident, "goal", w.goal)
	line("heap_kb_per_session", found[ours].heap, "goal", w.goal)
	return lines, nil
}

// holds measures one program. One session goes before, so that what it needs but once is not counted.
func (p *place) holds(ctx context.Context, own bool, processes bench.Program, w work, n int) (held, error) {
	at := netip.AddrPortFrom(edge6(), w.port)
	conns, err := p.open(ctx, at, 1)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	if err != nil {
		return held{}, err
	}
	memory, heap, err := p.look(ctx, own, processes)
	if err != nil {
		return held{}, err
	}
	more, err := p.open(ctx, at, n)
	conns = append(conns, more...)
	if err != nil {
		return held{}, err
	}
	after, heapAfter, err := p.look(ctx, own, processes)
	each := float64(n) * 1024
	return held{resident: float64(after-memory) / each, heap: float64(heapAfter-heap) / each}, err
}

// together is how many log in at once: in TLS nginx has each client wait for an acknowledgement that is delayed.
const together = 50

// open logs in n times and waits for mail. What it returns is open also on an error.
func (p *place) open(ctx context.Context, at netip.AddrPort, n int) (conns []net.Conn, err error) {
	for len(conns) < n && err == nil {
		var some []net.Conn
		some, err = p.dial(ctx, at, min(together, n-len(conns)))
		conns = append(conns, some...)
		if err != nil {
			break
		}
		errs := make(chan error, len(some))
		for _, c := range some {
			go func() { errs <- wait(c, at.Port() == portIMAPS) }()
		}
		for range some {
			err = errors.Join(err, <-errs)
		}
	}
	return conns, err
}

// dial connects. What it returns is open also on an error.
func (p *place) dial(ctx context.Context, at netip.AddrPort, n int) (conns []net.Conn, err error) {
	err = p.client.Do(func() error { // once: it starts a thread
		for range n {
			if err := ctx.Err(); err != nil {
				return err
			}
			c, err := net.DialTimeout(bench.Network(at), at.String(), 5*time.Second)
			if err != nil {
				return err
			}
			conns = append(conns, c)
		}
		return nil
	})
	return conns, err
}

var errAnswer = errors.New("another answer was wanted")

// wait logs in on a connection and says IDLE.
func wait(c net.Conn, secure bool) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	var s io.ReadWriter = c
	if secure {
		s = tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: host}) // it is our own lab
	}
	r := bufio.NewReader(s)
	for _, step := range [][2]string{{"", "* OK "}, {"a LOGIN tim secret\r\n", "a OK "}, {"b IDLE\r\n", "+ "}} {
		if _, err := io.WriteString(s, step[0]); err != nil {
			return err
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, step[1]) {
			return fmt.Errorf("%w: %q, got %q", errAnswer, step[1], line)
		}
	}
	return c.SetDeadline(time.Time{})
}

// look returns the resident memory of a program, and of ours the heap. Asking for the heap makes ours collect its
// garbage, so ask first for the memory, which then is what an operator sees.
func (p *place) look(ctx context.Context, own bool, processes bench.Program) (memory, heap int64, err error) {
	if memory, err = processes.Memory(); err != nil || !own {
		return memory, 0, err
	}
	t := &http.Transport{DisableKeepAlives: true, DialContext: p.edge.DialContext}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/debug/pprof/heap?gc=1&debug=1", nil)
	if err != nil {
		return 0, 0, err
	}
	answer, err := t.RoundTrip(request)
	if err != nil {
		return 0, 0, fmt.Errorf("ask %s: %w", ours, err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	if err != nil {
		return 0, 0, fmt.Errorf("ask %s: %w", ours, err)
	}
	m := heapAlloc.FindSubmatch(page)
	if m == nil {
		return 0, 0, errNoHeap
	}
	heap, err = strconv.ParseInt(string(m[1]), 10, 64)
	return memory, heap, err
}

var (
	heapAlloc = regexp.MustCompile(`(?m)^# HeapAlloc = (\d{1,18})$`)
	errNoHeap = errors.New("idle: no HeapAlloc in the profile")
)
