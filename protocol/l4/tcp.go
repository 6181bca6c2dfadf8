// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// accept reaches a backend for a client and hands the two connections to each other.
func (d *door) accept(c *relay.Conn) {
	c.SetHandler(waiting{})
	c.Pause() // what the client says first waits in the socket
	client := backend.Client{Addr: c.Remote(), Dialled: c.Local()}
	d.route.Dial(c.Loop(), client, false, func(f *backend.Flow, err error) {
		switch {
		case err != nil:
			d.route.Refused(c.Loop(), client, err)
			c.Abort() // the client sees what it would see at the backend itself: no connection
		case c.IsClosed():
			f.Conn.Abort()
			f.End(metrics.Counts{}, metrics.ClientReset)
		default:
			p := relay.Splice(c, f.Conn, d.idle, f.End)
			f.Counts, f.Cut = p.Counts, p.Cut
		}
	})
}

// waiting handles a client whose backend is being reached.
type waiting struct{}

func (waiting) Data(*relay.Conn, []byte) int       { return 0 }
func (waiting) Event(c *relay.Conn, _ relay.Event) { c.Abort() }
func (waiting) Closed(*relay.Conn, error)          {}
