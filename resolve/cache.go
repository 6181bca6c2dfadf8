// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package resolve

import "time"

const looks = 8 // entries that are looked at for one to forget

// cache remembers answers. It is bounded; where it is full, of a few that are there the one is forgotten that has the
// least time left.
type cache struct {
	size    int
	entries map[Question]entry
}

type entry struct {
	answer Answer
	until  time.Time
}

// get returns an answer whose time is not over.
func (c *cache) get(q Question, now time.Time) (Answer, bool) {
	e, ok := c.entries[q]
	if !ok || !now.Before(e.until) {
		return Answer{}, false
	}
	return e.answer, true
}

// put remembers an answer until a time.
func (c *cache) put(q Question, a Answer, until time.Time) {
	if _, there := c.entries[q]; !there && len(c.entries) >= c.size {
		c.forget()
	}
	c.entries[q] = entry{a, until}
}

// forget makes room for one. A map begins its walks anywhere.
func (c *cache) forget() {
	var least Question
	var until time.Time
	seen := 0
	for q, e := range c.entries {
		if seen == 0 || e.until.Before(until) {
			least, until = q, e.until
		}
		if seen++; seen == looks {
			break
		}
	}
	delete(c.entries, least)
}
