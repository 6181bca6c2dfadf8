// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// TestRelayedKill: relayed calls in all crossings go on while signalling and the relay are killed, one of them or both, also right
// after a call has ended. Without signalling the ends go on hearing each other; with the next process each can change its call and
// end it. In the end every call has one record, and the relay has nothing left.
func TestRelayedKill(t *testing.T) {
	t.Parallel()
	secluded(t, func() { killUnderRelayedCalls(t) })
}

func killUnderRelayedCalls(t *testing.T) {
	t.Helper()
	rounds := 3 // signalling, the relay, both
	if os.Getenv("KYOZON_SOAK") != "" {
		rounds = 150
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))

	p := newBench(t, "").run(", cdr: calls.jsonl", true)
	calls, over := make([]*conversation, 4), []*conversation(nil)
	begin := func(i int) { calls[i] = p.converse(ip.Crossings()[i], 2*i) }
	end := func(i int) {
		c := calls[i]
		if dice.IntN(2) == 0 {
			hangUp(c.caller, c.callee, c.heard, c.next())
		} else {
			hangUp(c.callee, c.caller, c.came, c.next())
		}
		over = append(over, c)
	}
	for i := range calls {
		begin(i)
	}
	for round := range rounds {
		ended := dice.IntN(len(calls))
		end(ended)
		kill(t, p, round)
		calls[ended].leave()
		begin(ended)
		for _, c := range calls {
			c.speak(t)
			c.ask(t, dice.IntN(2) == 0, c.next())
			c.speak(t)
		}
	}
	for i := range calls {
		end(i)
	}
	if got := p.calling(); len(got) > 0 {
		t.Errorf("all have ended, and under way are %q", got)
	}
	for _, metric := range []string{"kyozon_media_calls_active", "kyozon_media_streams_active", "kyozon_media_addresses_used"} {
		p.await(metric+" is zero", func() bool { return p.sum(metric) == 0 })
	}
	records := p.records()
	if len(records) != len(over) {
		t.Errorf("%d calls have a record, want %d", len(records), len(over))
	}
	for _, c := range over {
		r := records[string(c.heard.Get(sip.CallID))]
		if r == nil || r.Answer == nil || r.EndedBy == byEdge || r.Cause != 16 || r.Media == nil || r.Media.Path == "direct" {
			t.Errorf("%s: the record is %+v", c.name, r)
		}
	}
}

// kill kills signalling, the relay or both, in turn, and starts them again.
func kill(t *testing.T, p *program, round int) {
	t.Helper()
	dies := func(c *exec.Cmd) {
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		c.Wait() // killed
	}
	signalling, relay := round%3 != 1, round%3 != 0
	if signalling {
		dies(p.edge)
	}
	if relay {
		dies(p.media)
		p.relay()
	}
	if signalling {
		p.serve()
	}
	p.linked()
}
