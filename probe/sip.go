// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
)

// Asking is how a server of SIP is asked.
type Asking uint8

// The ways. A server that speaks TLS is asked over TCP.
const (
	NoSIP Asking = iota
	SIPOverUDP
	SIPOverTCP
)

// String returns the word of the site file.
func (a Asking) String() string { return [...]string{"none", "udp", "tcp"}[a] }

// maxAnswer bounds the head of a response.
const maxAnswer = 64 << 10

var errNotSIP = errors.New("answered something that is not SIP")

// SIP asks a server by OPTIONS whether it is there. Whatever it answers, it is, unless it says that it takes nothing.
// RFC 3261 §11, §21.5.4.
func SIP(ctx context.Context, t Target) Result {
	if t.SIP == SIPOverUDP {
		return t.sipOverUDP(ctx)
	}
	r := begin(t)
	c := r.connect(ctx)
	if c == nil {
		return r.Result
	}
	defer c.Close()
	s := r.greet(ctx, c)
	if s == nil {
		return r.Result
	}
	transport := "TCP"
	if t.TLS != nil {
		transport = "TLS"
	}
	question, branch := options(transport, c.LocalAddr(), t.Addr)
	_, err := s.Write(question)
	if err == nil {
		err = answered(s, branch)
	}
	r.end(ctx, "answer", plain(err))
	return r.Result
}

// sipOverUDP sends the question again and again, as timer E has it: RFC 3261 §17.1.2.2.
func (t *Target) sipOverUDP(ctx context.Context) Result {
	r := begin(*t)
	d := net.Dialer{Control: t.control}
	network := "udp6"
	if t.Addr.Addr().Is4() {
		network = "udp4"
	}
	c, err := d.DialUDP(ctx, network, netip.AddrPortFrom(t.Local, 0), t.Addr)
	if err != nil {
		r.end(ctx, "answer", err)
		return r.Result
	}
	defer c.Close()
	question, branch := options("UDP", c.LocalAddr(), t.Addr)
	status := 0
	err = exchange(ctx, c, question, func(p []byte) bool {
		n, ok := readAnswer(p, branch)
		status = n
		return ok && n >= 200
	})
	if err == nil {
		err = verdict(status)
	}
	r.end(ctx, "answer", err)
	return r.Result
}

// options writes the question, and returns what its answer must have.
func options(transport string, local net.Addr, to netip.AddrPort) (question, branch []byte) {
	token := rand.Text()
	branch = []byte("z9hG4bK" + token)
	question = fmt.Appendf(nil, "OPTIONS sip:%v SIP/2.0\r\nVia: SIP/2.0/%s %v;rport;branch=%s\r\nMax-Forwards: 70\r\n"+
		"From: <sip:probe@%v>;tag=%s\r\nTo: <sip:%v>\r\nCall-ID: %s\r\nCSeq: 1 OPTIONS\r\nContact: <sip:probe@%v>\r\n"+
		"Accept: application/sdp\r\nContent-Length: 0\r\n\r\n", to, transport, local, branch, local, token[:8], to, token, local)
	return question, branch
}

// answered reads from a connection until the answer to the question with a branch has come.
func answered(c io.Reader, branch []byte) error {
	lines := bufio.NewReader(io.LimitReader(c, maxAnswer))
	var head []byte
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return err
		}
		if head = append(head, line...); len(bytes.TrimRight(line, "\r\n")) > 0 {
			continue
		}
		n, ok := readAnswer(head, branch)
		switch {
		case len(bytes.TrimSpace(head)) == 0, ok && n < 200: // line ends before it, or it is still to come
			head = head[:0]
		case !ok:
			return errNotSIP
		default:
			return verdict(n)
		}
	}
}

// verdict says whether a status is of a server that takes something: 503 is not, nor 408, which is of a proxy before it.
func verdict(status int) error {
	if status == 503 || status == 408 {
		return fmt.Errorf("answered with %d", status)
	}
	return nil
}

// readAnswer returns the status of a response to the question with a branch.
func readAnswer(p, branch []byte) (status int, ok bool) {
	p = bytes.TrimLeft(p, "\r\n")
	rest, ok := bytes.CutPrefix(p, []byte("SIP/2.0 "))
	if !ok || len(rest) < 4 || rest[3] != ' ' || !bytes.Contains(rest, branch) {
		return 0, false
	}
	n, err := strconv.Atoi(string(rest[:3]))
	return n, err == nil && n >= 100 && n < 700
}
