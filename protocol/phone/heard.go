// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"time"

	"github.com/kyozon/kyozon/media/control"
)

// askTime is how long the relay may take to say how a call sounds.
const askTime = 2 * time.Second

// howHeard asks the relay what has come of a call so far, and says it of each side and stream.
func (c *core) howHeard(id control.ID) []string {
	r := c.relays.client.Load()
	if r == nil {
		return nil
	}
	type answer struct {
		stats control.Stats
		err   error
	}
	told := make(chan answer, 1)
	r.Stats(id, func(f func()) { f() }, func(s control.Stats, err error) { told <- answer{s, err} })
	late := time.NewTimer(askTime)
	defer late.Stop()
	select {
	case a := <-told:
		if a.err != nil {
			return []string{fmt.Sprintf("the relay does not say how it sounds: %v", a.err)}
		}
		return heardOf(&a.stats)
	case <-late.C:
		return []string{"the relay does not say how it sounds"}
	}
}

// heardOf says what has come from each side.
func heardOf(s *control.Stats) (all []string) {
	for side, streams := range s.Heard {
		for i := range streams {
			q := &streams[i]
			text := fmt.Sprintf("from the %s, in stream %d, the relay has had ", [2]string{"caller", "called"}[side], i+1)
			if q.Packets == 0 {
				text += "nothing"
			} else {
				text += fmt.Sprintf("%d packets, %d were lost, jitter %v, MOS %.1f", q.Packets, q.Lost, q.Jitter.Round(100*time.Microsecond), q.MOS)
			}
			if q.From.IsValid() {
				text += fmt.Sprintf(", from %v, %s", q.From, map[bool]string{false: "in the process", true: "in the kernel"}[q.Kernel])
			}
			if q.Strangers > 0 {
				text += fmt.Sprintf("; %d packets of strangers were dropped", q.Strangers)
			}
			all = append(all, text)
		}
	}
	return all
}
