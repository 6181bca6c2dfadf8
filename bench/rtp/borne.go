// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
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
	turn  int
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

// wanted is a search that wants to know about a number of streams.
type wanted struct {
	search *search
	lost   func(result) float64
	n      int
}

// wants returns the searches of a program that are not over, beginning with the one whose turn it is.
func (b *borne) wants() (all []wanted) {
	for _, w := range []wanted{{search: b.loss, lost: result.loss}, {search: b.late, lost: result.lossInTime}} {
		if n, ok := w.search.next(); ok {
			w.n = n
			all = append(all, w)
		}
	}
	if b.turn++; b.turn%2 == 0 {
		slices.Reverse(all)
	}
	return all
}

// try tries one number of streams; false: all is known.
func (c *comparison) try(ctx context.Context, b *borne) (more bool, err error) {
	all := b.wants()
	if len(all) == 0 {
		return false, nil
	}
	for _, w := range all {
		if i := w.search.tried(); i < len(b.tries[w.n]) {
			w.search.told(w.lost(b.tries[w.n][i]))
			return true, nil
		}
	}
	w := all[0]
	r, err := c.carry(ctx, b.name, w.n, 2*settle/3, min(c.time, 2*time.Second))
	if err != nil {
		return false, err
	}
	b.tries[w.n] = append(b.tries[w.n], r)
	w.search.told(w.lost(r))
	return true, nil
}

func (c *comparison) printBorne(row string, a, b *search) {
	sample := func(s *search) []bench.Sample { return []bench.Sample{{Rate: max(float64(s.borne()), 1)}} }
	s := bench.Series{ours: sample(a), engine: sample(b)}
	for _, l := range s.Compare(row, ours, []bench.Metric{bench.Rate}, engine) {
		fmt.Fprintln(c.out, l)
	}
}
