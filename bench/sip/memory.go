// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/kyozon/kyozon/bench"
)

// The goals of an operator's memory, in KB.
const (
	goalRegistration = 0.8
	goalCall         = 6
)

// held is what a program holds, in bytes.
type held struct{ resident, heap int64 }

// memory measures what registrations and calls that stay take in each program, which is started afresh.
func (p *place) memory(ctx context.Context, o options) (lines []bench.Line, err error) {
	found := make(map[string][2]held) // of registrations and calls
	began := make(map[string]time.Duration)
	var again started
	for _, pr := range []program{{ours, kyozonDaemon}, {kamailio, kamailioDaemon(0)}} {
		start := time.Now()
		processes, stop, err := p.start(ctx, pr, o.registrations)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pr.name, err)
		}
		began[pr.name] = time.Since(start)
		found[pr.name], err = p.hold(ctx, pr.name == ours, processes, o)
		stop()
		if err == nil && pr.name == ours {
			again, err = p.restart(ctx, pr, o)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pr.name, err)
		}
		fmt.Fprintf(p.progress, "%-20s %-8s %v for %d registrations, %v for %d calls\n", "sip-memory", pr.name, found[pr.name][0], o.registrations,
			found[pr.name][1], o.calls)
	}
	for i, of := range []struct {
		what string
		n    int
		goal float64
	}{{"registration", o.registrations, goalRegistration}, {"call", o.calls, goalCall}} {
		each := func(bytes int64) float64 { return float64(bytes) / float64(of.n) / 1024 }
		our := found[ours][i]
		for _, l := range []bench.Line{
			{Metric: bench.Metric("kb_per_" + of.what), Ours: each(our.resident), Peer: kamailio, Theirs: each(found[kamailio][i].resident)},
			{Metric: bench.Metric("heap_kb_per_" + of.what), Ours: each(our.heap), Peer: "goal", Theirs: of.goal},
		} {
			l.Name, l.Ratio = "sip-memory", l.Ours/l.Theirs
			lines = append(lines, l)
		}
	}
	ms := func(d time.Duration) float64 { return float64(d.Milliseconds()) }
	return append(lines,
		bench.Line{Name: "sip-memory", Metric: "start_ms", Ours: ms(began[ours]), Peer: kamailio, Theirs: ms(began[kamailio]),
			Ratio: ms(began[ours]) / ms(began[kamailio])},
		bench.Line{Name: "sip-memory", Metric: "restart_ms", Ours: ms(again.took), Peer: "start", Theirs: ms(began[ours]),
			Ratio: ms(again.took) / ms(began[ours])},
		bench.Line{Name: "sip-memory", Metric: "restart_mb", Ours: float64(again.resident) / (1 << 20), Peer: "heap",
			Theirs: float64(again.heap) / (1 << 20), Ratio: float64(again.resident) / float64(again.heap)}), nil
}

// started is what a start took.
type started struct {
	held
	took time.Duration
}

// restart starts ours with the registrations that it has saved. All must be there.
func (p *place) restart(ctx context.Context, pr program, o options) (s started, err error) {
	began := time.Now()
	processes, stop, err := p.start(ctx, pr, o.registrations)
	if err != nil {
		return s, err
	}
	defer stop()
	s.took = time.Since(began)
	if s.held, err = p.look(ctx, true, processes); err != nil {
		return s, err
	}
	page, err := p.get(ctx, "metrics")
	if err != nil {
		return s, err
	}
	m := registered.FindSubmatch(page)
	if m == nil {
		return s, errNoCount
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err == nil && n < float64(o.registrations-o.registrations/20) {
		err = fmt.Errorf("%w: %v of %d are registered after a restart", errLost, n, o.registrations)
	}
	return s, err
}

// hold has a program hold registrations, and then calls.
func (p *place) hold(ctx context.Context, own bool, processes bench.Program, o options) (found [2]held, err error) {
	s, err := p.socket(netip.AddrPortFrom(load6(), portPhones))
	if err != nil {
		return found, err
	}
	r := openRegisters(s, netip.AddrPortFrom(edge6(), portSIP), o.registrations)
	defer r.close()
	c, err := p.openCalls(true)
	if err != nil {
		return found, err
	}
	defer c.close()
	for i, do := range []func() error{
		func() error { return r.each(ctx, 3*o.rate) }, // two requests for each: it is challenged first
		func() error {
			_, err := c.make(ctx, o.calls, o.rate/2)
			return err
		},
	} {
		before, err := p.look(ctx, own, processes)
		if err == nil {
			err = do()
		}
		if err == nil { // transactions end with their timers, of half a minute and more
			err = pause(ctx, o.settle)
		}
		if err != nil {
			return found, err
		}
		after, err := p.look(ctx, own, processes)
		if err != nil {
			return found, err
		}
		found[i] = held{resident: after.resident - before.resident, heap: after.heap - before.heap}
	}
	return found, nil
}

// look returns what a program holds: memory in proportion to who shares it, because Kamailio's processes share theirs, and of
// ours the heap. To ask for the heap makes ours collect its garbage.
func (p *place) look(ctx context.Context, own bool, processes bench.Program) (h held, err error) {
	if own {
		if h.heap, err = p.heap(ctx); err != nil {
			return h, err
		}
	}
	for _, pid := range processes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return h, fmt.Errorf("read memory: %w", err)
		}
		n, err := parsePSS(text)
		if err != nil {
			return h, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
		h.resident += n
	}
	return h, nil
}

var errNoPSS = errors.New("no Pss in smaps_rollup")

// parsePSS finds "Pss:   5678 kB" and returns it in bytes. proc(5).
func parsePSS(text []byte) (int64, error) {
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) == 3 && string(f[0]) == "Pss:" && string(f[2]) == "kB" {
			kb, err := strconv.ParseUint(string(f[1]), 10, 40)
			return int64(kb) << 10, err
		}
	}
	return 0, errNoPSS
}

// heap asks ours for its heap after a collection.
func (p *place) heap(ctx context.Context) (int64, error) {
	page, err := p.page(ctx, "heap?gc=1&debug=1")
	if err != nil {
		return 0, err
	}
	m := heapAlloc.FindSubmatch(page)
	if m == nil {
		return 0, errNoHeap
	}
	return strconv.ParseInt(string(m[1]), 10, 64)
}

// page asks ours for a profile.
func (p *place) page(ctx context.Context, of string) ([]byte, error) {
	return p.get(ctx, "debug/pprof/"+of)
}

// get asks ours for a page.
func (p *place) get(ctx context.Context, path string) ([]byte, error) {
	t := &http.Transport{DisableKeepAlives: true, DialContext: p.edge.DialContext}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := t.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", ours, err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", ours, err)
	}
	return page, nil
}

// profiles takes a profile of ours while a work is done, if there is a folder for it. The function that it returns waits.
func (p *place) profiles(ctx context.Context, pr program, w work, o options) (wait func() error) {
	if o.profile == "" || pr.name != ours {
		return func() error { return nil }
	}
	taken := make(chan error, 1)
	go func() {
		page, err := p.page(ctx, fmt.Sprintf("profile?seconds=%d", max(1, int(o.time.Seconds()))))
		if err == nil {
			err = os.WriteFile(filepath.Join(o.profile, w.name+".pprof"), page, 0o600)
		}
		taken <- err
	}()
	return func() error { return <-taken }
}

var (
	registered = regexp.MustCompile(`(?m)^kyozon_phone_registrations_active\{.*family="ipv6".*\} (\S+)$`)
	heapAlloc  = regexp.MustCompile(`(?m)^# HeapAlloc = (\d{1,18})$`)
	errNoCount = errors.New("no number of registrations among the metrics")
	errNoHeap  = errors.New("no HeapAlloc in the profile")
)
