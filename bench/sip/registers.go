// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/digest"
)

// registers are telephones that register through one socket.
type registers struct {
	to     netip.AddrPort // the program
	socket *net.UDPConn
	all    sync.WaitGroup

	mu     sync.Mutex
	phones []phone

	done, failed atomic.Int64
	wrong        atomic.Pointer[string]
}

// phone is one of them.
type phone struct {
	proof      *digest.Client // nil if it was never challenged
	seq        int
	registered bool
}

func openRegisters(socket *net.UDPConn, to netip.AddrPort, n int) *registers {
	r := &registers{to: to, socket: socket, phones: make([]phone, n)}
	for i := range r.phones {
		r.phones[i].seq = int(time.Now().Unix() & 0xfffffff) // ours knows the bindings of the time before it was started afresh
	}
	r.all.Go(func() {
		buffer := make([]byte, 64<<10)
		for {
			n, _, err := socket.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			r.hear(buffer[:n])
		}
	})
	return r
}

func (r *registers) close() {
	r.socket.Close()
	r.all.Wait()
}

// name is that of the i-th subscriber.
func name(i int) string { return fmt.Sprintf("050%08d", i) }

// ask sends a REGISTER of the i-th telephone, with what proves it if it was challenged.
func (r *registers) ask(i int) {
	r.mu.Lock()
	p := &r.phones[i]
	p.seq++
	at, who := local(r.socket), name(i)
	m := fmt.Appendf(nil, "REGISTER sip:%[1]s SIP/2.0\r\nVia: SIP/2.0/UDP %[2]v;branch=z9hG4bK%[3]dr%[4]d\r\nMax-Forwards: 70\r\n"+
		"From: <sip:%[5]s@%[1]s>;tag=%[3]d\r\nTo: <sip:%[5]s@%[1]s>\r\nCall-ID: %[3]d@bench\r\nCSeq: %[4]d REGISTER\r\n"+
		"Contact: <sip:%[5]s@%[2]v>;expires=3600\r\n", domain, at, i, p.seq, who)
	if p.proof != nil {
		m = append(append(append(m, "Authorization: "...), p.proof.Append(nil, "REGISTER", "sip:"+domain, [8]byte{byte(i)})...), "\r\n"...)
	}
	r.mu.Unlock()
	send(r.socket, appendBody(m, ""), r.to)
}

// hear takes an answer.
func (r *registers) hear(m []byte) {
	id, _, _ := bytes.Cut(fieldOf(m, "Call-ID"), []byte{'@'})
	i, err := strconv.Atoi(string(id))
	if err != nil || i >= len(r.phones) {
		return
	}
	switch status := statusOf(m); status {
	case 200:
		r.done.Add(1)
		r.mu.Lock()
		r.phones[i].registered = true
		r.mu.Unlock()
	case 401:
		r.mu.Lock()
		p := &r.phones[i]
		if p.proof == nil {
			p.proof = &digest.Client{Username: name(i), Password: password}
		}
		for line := range bytes.Lines(m) {
			if value, ok := cutName(line, "WWW-Authenticate"); ok && err == nil {
				err = p.proof.Take(value)
			}
		}
		r.mu.Unlock()
		r.ask(i)
	default:
		r.failed.Add(1)
		line, _, _ := bytes.Cut(m, []byte("\r\n"))
		text := string(line)
		r.wrong.CompareAndSwap(nil, &text)
	}
}

// make sends n times a REGISTER, of the telephones in turn, so many a second, and waits until all are answered.
func (r *registers) make(ctx context.Context, n int, rate float64) error {
	lost, err := r.send(ctx, n, rate, func(i int) int { return i % len(r.phones) })
	if err == nil && lost > n/20 {
		err = fmt.Errorf("%w: %d of %d", errLost, lost, n)
	}
	return err
}

// each has each telephone register once, so many a second. Who is not answered asks again, as each telephone would.
func (r *registers) each(ctx context.Context, rate float64) error {
	for range 10 {
		left := r.left()
		if len(left) == 0 {
			return nil
		}
		if _, err := r.send(ctx, len(left), rate, func(i int) int { return left[i] }); err != nil {
			return err
		}
	}
	if n := len(r.left()); n > len(r.phones)/20 {
		return fmt.Errorf("%w: %d of %d, ten times", errLost, n, len(r.phones))
	}
	return nil
}

// left returns who has not registered.
func (r *registers) left() (all []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.phones {
		if !r.phones[i].registered {
			all = append(all, i)
		}
	}
	return all
}

// send sends n REGISTERs of the telephones that which says, and waits for their answers as long as some come. It returns how many
// do not.
func (r *registers) send(ctx context.Context, n int, rate float64, which func(i int) int) (lost int, err error) {
	before := r.done.Load()
	err = paced(ctx, n, rate, func(i int) { r.ask(which(i)) })
	for quiet := time.Now(); err == nil && r.done.Load()-before < int64(n) && time.Since(quiet) < 2*time.Second; {
		last := r.done.Load()
		if err = pause(ctx, 20*time.Millisecond); r.done.Load() != last {
			quiet = time.Now()
		}
	}
	if why := r.wrong.Load(); why != nil && err == nil {
		err = fmt.Errorf("%w: %d failed, one with %q", errWrong, r.failed.Load(), *why)
	}
	return n - int(r.done.Load()-before), err
}
