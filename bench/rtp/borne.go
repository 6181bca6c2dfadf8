// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/bench"
)

// searchTime bounds how long it is looked for how many streams are borne. What was found by then counts.
const searchTime = 4 * time.Minute

// borne is what is looked for of a program: how many streams it bears, with loss alone, and with what is late lost too.
type borne struct {
	name  string
	loss  *search
	late  *search
	tries map[int][]result // by streams: those of one search are used by the other
}

// streamsBorne compares how many streams are carried with almost no loss. The programs are tried in turn, so that what disturbs the machine
// disturbs all.
func (c *comparison) streamsBorne(ctx context.Context) error {
	var all []*borne
	for _, name := range []string{ours, lanes, engine} {
		most := float64(mostStreams(name))
		start := func() *search { return newSearch(min(float64(c.streams), most), most) }
		all = append(all, &borne{name: name, loss: start(), late: start(), tries: make(map[int][]result)})
	}
	for end, going := time.Now().Add(searchTime), true; going && time.Now().Before(end); {
		going = false
		for _, b := range all {
			more, err := c.try(ctx, b)
			if err != nil {
				return err
			}
			going = going || more
		}
	}
	found := make(map[string]*borne)
	for _, b := range all {
		found[b.name] = b
		c.most[b.name] = float64(b.loss.borne())
	}
	for row, name := range map[string]string{"rtp-streams": ours, "rtp-streams-kernel": lanes} {
		c.printBorne(row, found[name].loss, found[engine].loss)
		c.printBorne(row+"-in-time", found[name].late, found[engine].late)
	}
	return nil
}

// mostStreams returns how many streams a program can have, as each takes some files.
func mostStreams(name string) int {
	var limit unix.Rlimit
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}) == nil { // as place.start does
		return maxStreams
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return maxStreams
	}
	each := uint64(2)
	if name == engine {
		each = 4
	}
	const others = 100
	return int(min((limit.Max-others)/each, maxStreams))
}

// try tries one number of streams; false: all is known.
func (c *comparison) try(ctx context.Context, b *borne) (more bool, err error) {
	s, lost := b.loss, result.loss
	n, more := s.next()
	if !more {
		s, lost = b.late, result.lossInTime
		n, more = s.next()
	}
	if !more {
		return false, nil
	}
	i := s.passed + s.failed
	if i == len(b.tries[n]) {
		r, err := c.once(ctx, b.name, n)
		if err != nil {
			return false, err
		}
		b.tries[n] = append(b.tries[n], r)
	}
	s.told(lost(b.tries[n][i]))
	return true, nil
}

func (c *comparison) printBorne(row string, a, b *search) {
	sample := func(s *search) []bench.Sample { return []bench.Sample{{Rate: max(float64(s.borne()), 1)}} }
	s := bench.Series{ours: sample(a), engine: sample(b)}
	for _, l := range s.Compare(row, ours, []bench.Metric{bench.Rate}, engine) {
		fmt.Fprintln(c.out, l)
	}
}
