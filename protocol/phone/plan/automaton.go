// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import "errors"

// Hot path: no allocation per packet.

// errLarge says that patterns multiply: many that overlap, with sets in many places.
var errLarge = errors.New("plan: more than 60000 states: write fewer patterns that overlap")

const maxStates = 60000

// automaton asks all patterns about a number at once. A state is how far digits have come; state 0 is where no number
// goes on. Chain 0 belongs to no pattern.
type automaton struct {
	start  uint16
	states []state
	chains [][]uint16 // rules that have a number, the narrowest first
}

type state struct {
	next  [10]uint16
	chain uint16
	live  bool // more digits may follow
}

// kind says what a number is that ends in s.
func (s *state) kind() Kind {
	switch {
	case s.chain != 0:
		return Complete
	case s.live:
		return Incomplete
	}
	return None
}

func (a *automaton) walk(n *Number) *state {
	at := a.start
	for _, c := range n.digits[:n.n] {
		at = a.states[at].next[c-'0']
	}
	return &a.states[at]
}

// builder makes an automaton of patterns.
type builder struct {
	patterns []*Pattern
	inner    func(a, b uint16) bool // a lies in b
	a        automaton
	same     map[state]uint16  // states that behave alike are one
	seen     map[string]uint16 // by depth and the patterns that are still possible
	chains   map[string]uint16
}

// build returns the automaton of patterns; inner orders those that share a number.
func build(patterns []*Pattern, inner func(a, b uint16) bool) (automaton, error) {
	b := &builder{
		patterns: patterns, inner: inner,
		same: map[state]uint16{}, seen: map[string]uint16{}, chains: map[string]uint16{},
	}
	b.a.states = []state{{}}
	b.a.chains = [][]uint16{nil}
	b.same[state{}] = 0
	all := make([]uint16, len(patterns))
	for i := range all {
		all[i] = uint16(i)
	}
	b.a.start = b.at(0, all)
	if len(b.seen) > maxStates {
		return automaton{}, errLarge
	}
	return b.a, nil
}

// at returns the state after depth digits in which the patterns of possible are left.
func (b *builder) at(depth int, possible []uint16) uint16 {
	if len(possible) == 0 || len(b.seen) > maxStates {
		return 0
	}
	key := name(depth, possible)
	if s, ok := b.seen[key]; ok {
		return s
	}
	b.seen[key] = 0 // counts; no state comes back to itself, since each digit goes deeper
	var s state
	var ended []uint16
	for _, p := range possible {
		if depth >= b.patterns[p].min {
			ended = append(ended, p)
		}
	}
	s.chain = b.chain(ended)
	for d := range s.next {
		s.next[d] = b.at(depth+1, b.left(depth, d, possible))
		s.live = s.live || s.next[d] != 0
	}
	id, ok := b.same[s]
	if !ok {
		id = uint16(len(b.a.states))
		b.a.states = append(b.a.states, s)
		b.same[s] = id
	}
	b.seen[key] = id
	return id
}

// left returns the patterns that are possible after one more digit.
func (b *builder) left(depth, digit int, possible []uint16) (left []uint16) {
	for _, p := range possible {
		if q := b.patterns[p]; depth < q.max && q.sets[depth].has('0'+byte(digit)) {
			left = append(left, p)
		}
	}
	return left
}

// chain orders rules by taking, again and again, one in which no other lies.
func (b *builder) chain(rules []uint16) uint16 {
	if len(rules) == 0 {
		return 0
	}
	var chain []uint16
	for len(rules) > 0 {
		least := 0
		for i := range rules {
			if b.inner(rules[i], rules[least]) {
				least = i
			}
		}
		chain = append(chain, rules[least])
		rules = append(rules[:least:least], rules[least+1:]...)
	}
	key := name(0, chain)
	id, ok := b.chains[key]
	if !ok {
		id = uint16(len(b.a.chains))
		b.a.chains = append(b.a.chains, chain)
		b.chains[key] = id
	}
	return id
}

func name(depth int, rules []uint16) string {
	key := make([]byte, 0, 1+2*len(rules))
	key = append(key, byte(depth))
	for _, r := range rules {
		key = append(key, byte(r), byte(r>>8))
	}
	return string(key)
}

// examples returns the least number, by length and then by digits, of each chain.
func (a *automaton) examples() []Number {
	found := make([]Number, len(a.chains))
	have := make([]bool, len(a.chains))
	type step struct {
		at uint16
		n  Number
	}
	seen := make([]bool, len(a.states))
	seen[0], seen[a.start] = true, true
	for queue := []step{{at: a.start}}; len(queue) > 0; queue = queue[1:] {
		at, n := queue[0].at, queue[0].n
		if c := a.states[at].chain; !have[c] {
			found[c], have[c] = n, true
		}
		for d, next := range a.states[at].next {
			if !seen[next] {
				seen[next] = true
				m := n
				m.digits[m.n] = '0' + byte(d)
				m.n++
				queue = append(queue, step{next, m})
			}
		}
	}
	return found
}
