// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net"
	"sync"
)

// outbox is messages on their way into a connection: whoever puts one in does not wait.
type outbox struct {
	mu     sync.Mutex
	some   sync.Cond
	limit  int // messages that may wait; 0: any number
	queue  [][]byte
	closed bool
}

func (o *outbox) init(limit int) {
	o.some.L = &o.mu
	o.limit = limit
}

// put adds a message. False: the other end does not read, and too many wait.
func (o *outbox) put(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return true
	}
	if o.limit > 0 && len(o.queue) >= o.limit {
		return false
	}
	o.queue = append(o.queue, b)
	o.some.Signal()
	return true
}

// drain writes what is put in until close. If the connection fails it closes it, so that who reads is told.
func (o *outbox) drain(conn *net.UnixConn) {
	for {
		o.mu.Lock()
		for len(o.queue) == 0 && !o.closed {
			o.some.Wait()
		}
		batch := o.queue
		o.queue = nil
		closed := o.closed
		o.mu.Unlock()
		if closed {
			return
		}
		for _, b := range batch {
			if _, err := conn.Write(b); err != nil {
				conn.Close()
				o.close()
				return
			}
		}
	}
}

// close ends drain, at the latest when the connection is closed.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.queue = true, nil
	o.some.Signal()
}

// reset makes the outbox ready for another connection.
func (o *outbox) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.queue = false, nil
}
