// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/ip"
)

// idleWork is what is measured in memory: connections that have carried one request, and then nothing.
type idleWork struct {
	name string
	at   endpoint
}

func idleWorks() []idleWork {
	return []idleWork{{"tcp-idle", endpoint{portTCP, "http", 1}}, {"web-idle", endpoint{portWeb, "http", 1}}}
}

// idleGoal is how many KB (1,024 bytes) an idle connection may take in the edge.
const idleGoal = 4

// held is what a connection takes in a program while it is idle, in KB.
type held struct {
	resident float64 // of memory
	heap     float64 // of that, Go's heap after a collection; 0 if the program is not ours
}

// idle measures what n connections take in each program, which it starts afresh: memory that another work has left
// behind would serve them, too.
func (p *place) idle(ctx context.Context, w idleWork, all []program, n int) (lines []bench.Line, err error) {
	found := make(map[string]held)
	for _, pr := range all {
		r, err := p.start(ctx, pr)
		if err != nil {
			return nil, err
		}
		found[pr.name], err = p.holds(ctx, r, w.at, n)
		r.stop()
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", w.name, pr.name, err)
		}
	}
	line := func(metric bench.Metric, our float64, peer string, their float64) {
		lines = append(lines, bench.Line{Name: w.name, Metric: metric, Ours: our, Peer: peer, Theirs: their,
			Ratio: our / their})
	}
	for _, pr := range all[1:] {
		line("kb_per_conn", found[ours].resident, pr.name, found[pr.name].resident)
	}
	line("kb_per_conn", found[ours].resident, "goal", idleGoal)
	line("heap_kb_per_conn", found[ours].heap, "goal", idleGoal)
	return lines, nil
}

// holds measures one program.
func (p *place) holds(ctx context.Context, r *running, at endpoint, n int) (held, error) {
	if err := p.check(ctx, r, at); err != nil {
		return held{}, err
	}
	memory, heap, err := p.look(ctx, r)
	if err != nil {
		return held{}, err
	}
	conns, err := p.openIdle(ctx, r.at(ip.V6, at.port), n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	if err != nil {
		return held{}, err
	}
	after, heapAfter, err := p.look(ctx, r)
	if err != nil {
		return held{}, err
	}
	each := float64(n) * 1024
	return held{resident: float64(after-memory) / each, heap: float64(heapAfter-heap) / each}, nil
}

// openIdle opens connections, asks one question over each, and leaves them. What it returns is open also on an error.
func (p *place) openIdle(ctx context.Context, at netip.AddrPort, n int) (conns []net.Conn, err error) {
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
			if err := question(c); err != nil {
				return fmt.Errorf("ask over connection %d: %w", len(conns), err)
			}
		}
		return nil
	})
	return conns, err
}

// question proves that a connection reaches a server, and has the edge use whatever it uses to carry bytes.
func question(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if answer.StatusCode != http.StatusOK || string(got) != body() {
		err = fmt.Errorf("%w: status %d, %d bytes: %w", errWrong, answer.StatusCode, len(got), err)
	}
	return errors.Join(err, answer.Body.Close(), c.SetDeadline(time.Time{}))
}

// look returns the resident memory of a program, and of ours the heap. Asking for the heap makes ours collect its
// garbage, so ask first for the memory, which then is what an operator sees.
func (p *place) look(ctx context.Context, r *running) (memory, heap int64, err error) {
	processes, err := r.open()
	if err != nil {
		return 0, 0, err
	}
	if memory, err = processes.Memory(); err != nil || r.name != ours {
		return memory, 0, err
	}
	page, err := p.ask(ctx, "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return 0, 0, err
	}
	heap, err = parseHeap(page)
	return memory, heap, err
}

// ask asks ours about itself.
func (p *place) ask(ctx context.Context, path string) ([]byte, error) {
	t := &http.Transport{DisableKeepAlives: true, DialContext: p.edge.DialContext}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+adminAddr+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := t.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", ours, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s: %s: status %d", ours, path, answer.StatusCode)
	}
	return io.ReadAll(io.LimitReader(answer.Body, 64<<20))
}

var (
	heapAlloc = regexp.MustCompile(`(?m)^# HeapAlloc = (\d{1,18})$`)
	errNoHeap = errors.New("idle: no HeapAlloc in the profile")
)

// parseHeap finds the bytes in use in the text form of a heap profile.
func parseHeap(page []byte) (int64, error) {
	m := heapAlloc.FindSubmatch(page)
	if m == nil {
		return 0, errNoHeap
	}
	return strconv.ParseInt(string(m[1]), 10, 64)
}
