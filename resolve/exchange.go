// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/kyozon/kyozon/ip"
)

const (
	datagramMax = 4096     // bytes of an answer over UDP; we ask for no more than 512
	messageMax  = 16 << 10 // bytes of one over TCP
	mostWrong   = 16       // datagrams that are not the answer, before we think that somebody guesses
)

// errTooLong means that an answer is longer than any that we want.
var errTooLong = errors.New("its answer is too long")

// exchange asks one server: over UDP, and over TCP if the answer is truncated, or if somebody sends answers to what was
// not asked. RFC 1035 §4.2.1, RFC 7766 §5.
//
// The socket is connected, so that only that server can answer, its port is one that the kernel chooses at random, and so
// is the ID: RFC 5452 §9.2. There is no EDNS: what we ask for is short.
func exchange(ctx context.Context, server netip.AddrPort, q dns.Question) (Answer, time.Duration, error) {
	id := uint16(rand.Uint32())
	m := dns.Msg{MsgHdr: dns.MsgHdr{Id: id, RecursionDesired: true}, Question: []dns.Question{q}}
	question, err := m.Pack()
	if err != nil {
		return Answer{Err: ErrNoName}, 0, nil // it cannot be a name
	}
	a, keep, again, err := overUDP(ctx, server, question, q)
	if !again || err != nil {
		return a, keep, err
	}
	return overTCP(ctx, server, question, q)
}

func overUDP(ctx context.Context, server netip.AddrPort, question []byte, q dns.Question) (a Answer, keep time.Duration, again bool, err error) {
	c, err := dial(ctx, "udp", server)
	if err != nil {
		return a, 0, false, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := c.Write(question); err != nil {
		return a, 0, false, err
	}
	p := make([]byte, datagramMax)
	for range mostWrong {
		n, err := c.Read(p)
		if err != nil {
			return a, 0, false, err
		}
		a, keep, again, err = read(p[:n], binary.BigEndian.Uint16(question), q)
		if !errors.Is(err, errOther) {
			return a, keep, again, err
		}
	}
	return a, 0, true, nil
}

// overTCP puts the length before each message. RFC 1035 §4.2.2.
func overTCP(ctx context.Context, server netip.AddrPort, question []byte, q dns.Question) (a Answer, keep time.Duration, err error) {
	c, err := dial(ctx, "tcp", server)
	if err != nil {
		return a, 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...)); err != nil {
		return a, 0, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return a, 0, err
	}
	n := binary.BigEndian.Uint16(length[:])
	if n > messageMax {
		return a, 0, errTooLong
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(c, p); err != nil {
		return a, 0, err
	}
	a, keep, truncated, err := read(p, binary.BigEndian.Uint16(question), q)
	if truncated {
		err = errTooLong
	}
	return a, keep, err
}

func dial(ctx context.Context, transport string, server netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, fmt.Sprintf("%s%d", transport, ip.FamilyOf(server.Addr())), server.String())
}
