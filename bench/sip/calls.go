// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errLost  = errors.New("calls were lost")
	errWrong = errors.New("another answer was wanted")
)

// calls are two ends between which calls go through a program: a client who calls, and a server that answers at once.
//
//	client ── INVITE ─▶ program ── INVITE ─▶ server
//	       ◀─ 180, 200 ─        ◀─ 180, 200 ─
//	       ── ACK, BYE ─▶       ── ACK, BYE ─▶
//	       ◀──── 200 ───        ◀──── 200 ───
type calls struct {
	to             netip.AddrPort // the program
	client, server *net.UDPConn
	hold           bool // answered calls stay
	first          int  // number of the first call, so that no two have the same Call-ID

	answered, ended, failed atomic.Int64
	wrong                   atomic.Pointer[string]
	all                     sync.WaitGroup
}

// serve answers until the sockets are closed.
func (c *calls) serve() {
	c.all.Go(func() { c.read(c.client, c.hear) })
	c.all.Go(func() { c.read(c.server, c.reply) })
}

// close closes the sockets and waits.
func (c *calls) close() {
	c.client.Close()
	c.server.Close()
	c.all.Wait()
}

func (c *calls) read(from *net.UDPConn, take func(m []byte, from netip.AddrPort)) {
	buffer := make([]byte, 64<<10)
	for {
		n, at, err := from.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		take(buffer[:n], at)
	}
}

// send sends a message; one that has no room in the socket is as lost as on the way.
func send(by *net.UDPConn, m []byte, to netip.AddrPort) { _, _ = by.WriteToUDPAddrPort(m, to) }

// local returns where a socket is, as it stands in a message.
func local(c *net.UDPConn) netip.AddrPort {
	at := c.LocalAddr().(*net.UDPAddr).AddrPort() // it is one
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// description is what is said of media at an address.
func description(at netip.Addr) string {
	family := map[bool]string{true: "IP4", false: "IP6"}[at.Is4()]
	return fmt.Sprintf("v=0\r\no=- 1 1 IN %s %v\r\ns=-\r\nc=IN %s %v\r\nt=0 0\r\nm=audio 20000 RTP/AVP 0 101\r\n"+
		"a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=sendrecv\r\n", family, at, family, at)
}

// request writes the head of a request of the i-th call, without its end.
func (c *calls) request(method, uri, to string, i, seq int) []byte {
	at := local(c.client)
	return fmt.Appendf(nil, "%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %v;branch=z9hG4bK%d%s\r\nMax-Forwards: 70\r\nFrom: <sip:0312345678@%s>;tag=client%d\r\n"+
		"To: %s\r\nCall-ID: %d@bench\r\nCSeq: %d %s\r\n", method, uri, at, i, method, domain, i, to, i, seq, method)
}

// invite begins a call.
func (c *calls) invite(i int) {
	uri := "sip:" + called + "@" + domain
	m := c.request("INVITE", uri, "<"+uri+">", i, 1)
	m = fmt.Appendf(m, "Contact: <sip:client@%v>\r\n", local(c.client))
	send(c.client, appendBody(m, description(local(c.client).Addr())), c.to)
}

// hear takes what comes to the client.
func (c *calls) hear(m []byte, _ netip.AddrPort) {
	status, method := statusOf(m), methodOf(m)
	switch {
	case status == 200 && method == "INVITE":
		id, _, _ := bytes.Cut(fieldOf(m, "Call-ID"), []byte{'@'})
		i, err := strconv.Atoi(string(id))
		if err != nil {
			return
		}
		c.within("ACK", m, i, 1)
		c.answered.Add(1)
		if !c.hold {
			c.within("BYE", m, i, 2)
		}
	case status == 200 && method == "BYE":
		c.ended.Add(1)
	case status >= 300:
		c.failed.Add(1)
		line, _, _ := bytes.Cut(m, []byte("\r\n"))
		text := method + ": " + string(line)
		c.wrong.CompareAndSwap(nil, &text)
	}
}

// within sends a request in the dialog that an answer has made, by the routes that it has. RFC 3261 §12.2.1.1.
func (c *calls) within(method string, answer []byte, i, seq int) {
	m := c.request(method, string(uriOf(fieldOf(answer, "Contact"))), string(fieldOf(answer, "To")), i, seq)
	var routes [][]byte
	for line := range bytes.Lines(answer) {
		if value, ok := cutName(line, "Record-Route"); ok {
			routes = append(routes, value)
		}
	}
	for _, route := range slices.Backward(routes) {
		m = append(append(append(m, "Route: "...), route...), "\r\n"...)
	}
	send(c.client, appendBody(m, ""), c.to)
}

// reply answers what comes to the server.
func (c *calls) reply(m []byte, from netip.AddrPort) {
	contact := fmt.Sprintf("Contact: <sip:server@%v>\r\n", local(c.server))
	switch {
	case bytes.HasPrefix(m, []byte("INVITE ")):
		send(c.server, appendAnswer(nil, m, "180 Ringing", contact, ""), from)
		send(c.server, appendAnswer(nil, m, "200 OK", contact, description(local(c.server).Addr())), from)
	case bytes.HasPrefix(m, []byte("BYE ")):
		send(c.server, appendAnswer(nil, m, "200 OK", "", ""), from)
	}
}

// make makes n calls, so many a second, and waits for those that are still under way. It returns how many came to their end.
func (c *calls) make(ctx context.Context, n int, rate float64) (done int, err error) {
	count := &c.ended
	if c.hold {
		count = &c.answered
	}
	before := count.Load()
	err = paced(ctx, n, rate, func(i int) { c.invite(c.first + i) })
	c.first += n
	for quiet := time.Now(); err == nil && count.Load()-before < int64(n) && time.Since(quiet) < 2*time.Second; {
		last := count.Load() + c.failed.Load()
		if err = pause(ctx, 20*time.Millisecond); count.Load()+c.failed.Load() != last {
			quiet = time.Now()
		}
	}
	done = int(count.Load() - before)
	if why := c.wrong.Load(); why != nil && err == nil {
		err = fmt.Errorf("%w: %d failed, one with %q", errWrong, c.failed.Load(), *why)
	}
	if err == nil && done < n-n/20 {
		err = fmt.Errorf("%w: %d of %d", errLost, n-done, n)
	}
	return done, err
}

// paced calls do n times, so many times a second. What is due has its turn at each tick.
func paced(ctx context.Context, n int, rate float64, do func(i int)) error {
	began := time.Now()
	for i := 0; i < n; {
		for due := int(time.Since(began).Seconds() * rate); i < min(n, due+1); i++ {
			do(i)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
