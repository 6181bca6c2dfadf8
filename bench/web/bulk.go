// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/lab"
)

// bulkSize is how much is written or read with one call.
const bulkSize = 256 << 10

// bulkData returns what is sent, again and again. A part that is lost or comes twice shows.
func bulkData() []byte {
	data := make([]byte, bulkSize)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	return data
}

// source is a server that writes to each client as much as it takes.
type source struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// openSource opens the server on a host. The caller must close it.
func openSource(ctx context.Context, h *lab.Host, at netip.AddrPort) (*source, error) {
	l, err := h.Listen(ctx, "tcp4", at.String())
	if err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	s := &source{listener: l, conns: make(map[net.Conn]struct{})}
	s.wg.Go(s.serve)
	return s, nil
}

func (s *source) serve() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		if s.add(c) {
			s.wg.Go(func() { s.fill(c) })
		}
	}
}

// add notes a connection, so that close ends it. It returns false if close was first.
func (s *source) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

// fill writes until the client, or close, ends the connection.
func (s *source) fill(c net.Conn) {
	data := bulkData()
	for {
		if _, err := c.Write(data); err != nil {
			break
		}
	}
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *source) close() {
	s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// sink is clients that read as much as comes.
type sink struct {
	conns []net.Conn
	bytes atomic.Int64
	wg    sync.WaitGroup
}

// openSink opens n connections from a host. The caller must close it.
func openSink(ctx context.Context, h *lab.Host, at netip.AddrPort, n int) (*sink, error) {
	s := new(sink)
	for range n {
		c, err := h.DialContext(ctx, family(at), at.String())
		if err != nil {
			s.close()
			return nil, fmt.Errorf("open sink: %w", err)
		}
		s.conns = append(s.conns, c)
		s.wg.Go(func() { s.drain(c) })
	}
	return s, nil
}

func (s *sink) drain(c net.Conn) {
	data := make([]byte, bulkSize)
	for {
		n, err := c.Read(data)
		s.bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func (s *sink) close() {
	for _, c := range s.conns {
		c.Close()
	}
	s.wg.Wait()
}

// settle is how long connections have to reach their pace before it is measured.
const settle = 300 * time.Millisecond

var errStill = errors.New("bulk: no byte came")

// moved returns how many bytes came within d, and the time that it really was.
func (s *sink) moved(ctx context.Context, d time.Duration) (n int64, took time.Duration, err error) {
	began, before := time.Now(), s.bytes.Load()
	if err := wait(ctx, d); err != nil {
		return 0, 0, err
	}
	n, took = s.bytes.Load()-before, time.Since(began)
	if n == 0 {
		return 0, 0, errStill
	}
	return n, took, nil
}

// wait returns after d, or with an error when ctx is done.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
