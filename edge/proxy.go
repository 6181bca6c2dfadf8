// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"time"

	"github.com/kyozon/kyozon/proxyproto"
	"github.com/kyozon/kyozon/relay"
)

// proxyDeadline is how long a trusted peer may take to send its PROXY header.
const proxyDeadline = 5 * time.Second

// proxyReader reads the PROXY header of a connection from a listed network, and then gives the connection, with the
// addresses that the header names, to who is next. Without a header the connection is closed: a peer that is trusted
// to name clients and does not would have all of them counted as itself.
type proxyReader struct{ next func(*relay.Conn) }

func readProxy(c *relay.Conn, next func(*relay.Conn)) {
	c.SetHandler(proxyReader{next})
	c.SetTimeout(proxyDeadline)
}

func (r proxyReader) Data(c *relay.Conn, p []byte) int {
	h, n, err := proxyproto.Parse(p)
	if n == 0 && err == nil {
		return 0
	}
	// A header that leaves a client unnamed would give him the address of the peer that is trusted.
	if err != nil || h.Unnamed || !h.Local && h.Transport != proxyproto.Stream {
		c.Abort()
		return len(p)
	}
	if !h.Local {
		c.SetAddrs(h.Client, h.Dest)
	}
	c.SetTimeout(0)
	c.Resume() // what follows the header is shown to next's handler, unless next pauses
	r.next(c)
	return n
}

func (r proxyReader) Event(c *relay.Conn, e relay.Event) { c.Abort() }
func (r proxyReader) Closed(*relay.Conn, error)          {}
