// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
)

// tally counts what happens at a service, whatever the generation.
type tally struct {
	messages   [4][ends]atomic.Int64 // by crossing
	recipients [4][ends]atomic.Int64
	repeats    [2]atomic.Int64 // by the clients' family, as what follows
	own        [2][reasons]atomic.Int64
	faults     [2][smtp.Refusals]atomic.Int64

	mu       sync.Mutex
	visitors map[entrance]*visitors
}

// entrance is where clients come from and to.
type entrance struct {
	listen string
	family ip.Family
}

// visitors counts the clients of an entrance, and their logins.
type visitors struct {
	come, here atomic.Int64
	logins     [trials]atomic.Int64
}

// begin counts a client that has come, and end that it has gone.
func (v *visitors) begin() {
	v.come.Add(1)
	v.here.Add(1)
}

func (v *visitors) end() { v.here.Add(-1) }

// at returns the visitors of an entrance.
func (c *tally) at(e entrance) *visitors {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.visitors == nil {
		c.visitors = make(map[entrance]*visitors)
	}
	if c.visitors[e] == nil {
		c.visitors[e] = new(visitors)
	}
	return c.visitors[e]
}

// entrances returns all that there have been, in order.
func (c *tally) entrances() []entrance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Keys(c.visitors), func(a, b entrance) int {
		return cmp.Or(cmp.Compare(a.listen, b.listen), cmp.Compare(a.family, b.family))
	})
}

// end is what has become of a message, or of a recipient, at a server.
type end uint8

const (
	taken end = iota
	refused
	later   // refused for now
	unknown // the server has gone without a word
	ends
)

func (e end) String() string { return [ends]string{"taken", "refused", "later", "unknown"}[e] }

// endOf reads a server's answer. RFC 5321 §4.2.1.
func endOf(code int) end {
	switch code / 100 {
	case 2:
		return taken
	case 4:
		return later
	}
	return refused
}

// trial is what has become of a login.
type trial uint8

const (
	accepted    trial = iota
	denied            // by a server
	limited           // the client's network has guessed too often
	unavailable       // no server could be asked
	trials
)

func (t trial) String() string {
	return [trials]string{"accepted", "denied", "limited", "unavailable"}[t]
}

// trialOf reads a server's answer to AUTH; ok is false if it is not the last one. RFC 4954 §6.
func trialOf(code int) (t trial, ok bool) {
	switch code / 100 {
	case 2:
		return accepted, true
	case 3:
		return 0, false
	case 4:
		return unavailable, true
	}
	return denied, true
}

// reason is why the edge itself refuses a message.
type reason uint8

const (
	tooLarge reason = iota
	noRoom          // for it, under the state directory
	noServer
	noStandIn
	untold  // no server can be told who the client is
	changed // a server has answered otherwise than before
	slow    // the message takes too long to come
	late    // no server has taken it in time
	reasons
)

func (r reason) String() string {
	return [reasons]string{"too-large", "no-room", "no-server", "no-stand-in", "handover-refused", "changed-mind", "slow", "late"}[r]
}

// index numbers the families.
func index(f ip.Family) int { return int(f-ip.V4) / 2 }

// tally returns the counts of the session's service.
func (s *session) tally() *tally { return &s.table.memory.tally }

// refused counts what the edge itself has against what the client brings.
func (s *session) refused(r reason) { s.tally().own[index(s.table.route.Family)][r].Add(1) }
