// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// pass reaches a backend for a client and hands the two connections to each other, from the first byte on: nobody reads what
// they say.
func (t *table) pass(c *relay.Conn) {
	c.SetHandler(passing{})
	c.Pause() // what the client says first waits in the socket
	client := backend.Client{Addr: c.Remote(), Dialled: c.Local()}
	t.route.Dial(c.Loop(), client, false, func(f *backend.Flow, err error) {
		switch {
		case err != nil:
			t.route.Refused(c.Loop(), client, err)
			c.Abort() // the client sees what it would see at the backend itself: no connection
		case c.IsClosed():
			f.Conn.Abort()
			f.End(metrics.Counts{}, metrics.ClientReset)
		default:
			t.visitors.begin()
			p := relay.Splice(c, f.Conn, t.idle, func(n metrics.Counts, why metrics.Reason) {
				f.End(n, why)
				t.visitors.end()
			})
			f.Counts, f.Cut = p.Counts, p.Cut
		}
	})
}

// passing handles a client whose backend is being reached.
type passing struct{}

// Data implements relay.Handler.
func (passing) Data(*relay.Conn, []byte) int { return 0 }

// Event implements relay.Handler.
func (passing) Event(c *relay.Conn, _ relay.Event) { c.Abort() }

// Closed implements relay.Handler.
func (passing) Closed(*relay.Conn, error) {}
