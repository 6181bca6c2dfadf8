// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

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

// BulkSize is how much is written or read with one call.
const BulkSize = 256 << 10

// BulkData returns what is sent, again and again. A part that is lost or comes twice shows.
func BulkData() []byte {
	data := make([]byte, BulkSize)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	return data
}

// Source is a server that writes to each client as much as it takes.
type Source struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// OpenSource opens the server on a host. The caller must close it.
func OpenSource(ctx context.Context, h *lab.Host, at netip.AddrPort) (*Source, error) {
	l, err := h.Listen(ctx, Network(at), at.String())
	if err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	s := &Source{listener: l, conns: make(map[net.Conn]struct{})}
	s.wg.Go(s.serve)
	return s, nil
}

func (s *Source) serve() {
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

// add notes a connection, so that Close ends it. It returns false if Close was first.
func (s *Source) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

// fill writes until the client, or Close, ends the connection.
func (s *Source) fill(c net.Conn) {
	data := BulkData()
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

// Close ends all downloads.
func (s *Source) Close() {
	s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Sink is clients that read as much as comes.
type Sink struct {
	conns []net.Conn
	bytes atomic.Int64
	wg    sync.WaitGroup
}

// OpenSink opens n connections from a host. The caller must close it.
func OpenSink(ctx context.Context, h *lab.Host, at netip.AddrPort, n int) (*Sink, error) {
	s := new(Sink)
	for range n {
		c, err := h.DialContext(ctx, Network(at), at.String())
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("open sink: %w", err)
		}
		s.conns = append(s.conns, c)
		s.wg.Go(func() { s.drain(c) })
	}
	return s, nil
}

func (s *Sink) drain(c net.Conn) {
	data := make([]byte, BulkSize)
	for {
		n, err := c.Read(data)
		s.bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// Close ends all downloads.
func (s *Sink) Close() {
	for _, c := range s.conns {
		c.Close()
	}
	s.wg.Wait()
}

// Settle is how long connections have to reach their pace before it is measured.
const Settle = 300 * time.Millisecond

var errStill = errors.New("bulk: no byte came")

// Moved returns how many bytes came within d, and the time that it really was.
func (s *Sink) Moved(ctx context.Context, d time.Duration) (n int64, took time.Duration, err error) {
	return moved(ctx, &s.bytes, d)
}

func moved(ctx context.Context, bytes *atomic.Int64, d time.Duration) (n int64, took time.Duration, err error) {
	began, before := time.Now(), bytes.Load()
	if err := Wait(ctx, d); err != nil {
		return 0, 0, err
	}
	n, took = bytes.Load()-before, time.Since(began)
	if n == 0 {
		return 0, 0, errStill
	}
	return n, took, nil
}

// Wait returns after d, or with an error when ctx is done.
func Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Drain is a server that reads what each client sends.
type Drain struct {
	listener net.Listener
	wg       sync.WaitGroup
	bytes    atomic.Int64
}

// OpenDrain opens the server on a host. The caller must close it, after its clients.
func OpenDrain(ctx context.Context, h *lab.Host, at netip.AddrPort) (*Drain, error) {
	l, err := h.Listen(ctx, Network(at), at.String())
	if err != nil {
		return nil, fmt.Errorf("open drain: %w", err)
	}
	d := &Drain{listener: l}
	d.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.wg.Go(func() { d.read(c) })
		}
	})
	return d, nil
}

func (d *Drain) read(c net.Conn) {
	defer c.Close()
	data := make([]byte, BulkSize)
	for {
		n, err := c.Read(data)
		d.bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// Close ends the server when its clients have gone.
func (d *Drain) Close() {
	d.listener.Close()
	d.wg.Wait()
}

// Moved returns how many bytes came within t, and the time that it really was.
func (d *Drain) Moved(ctx context.Context, t time.Duration) (n int64, took time.Duration, err error) {
	return moved(ctx, &d.bytes, t)
}
