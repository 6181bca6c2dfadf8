// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package probe asks one address once and says what happened, phase by phase. It asks the address that it is given:
// it looks up no name, follows no redirect, uses no proxy and never tries another family, so that a family that is
// dead shows.
//
//	Target ─▶ connect (from Local, if given) ─▶ tls (if given) ─▶ answer ─▶ Result{Phases, Err}
//	          echo, or a datagram, again and again until something comes back ─▶ Result
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// ErrTimeout means that a phase had not ended when the context's deadline passed.
var ErrTimeout = errors.New("probe: no answer in time")

// Target is what to ask. It is comparable: equal targets are the same question.
type Target struct {
	Addr netip.AddrPort

	// Local is the address to come from; the zero value leaves it to the kernel. It need not be on an interface,
	// but the answer must find its way back here.
	Local       netip.Addr
	Transparent bool // Local is not an address of this machine: IP_TRANSPARENT, ip(7)

	// Preface is sent first, in clear: a PROXY header that names no client, where the server waits for one.
	Preface string

	TLS   *tls.Config // how to speak TLS; nil means in clear. The same value is the same question.
	Start Start       // when TLS begins; but for AtOnce it needs Greeting

	HTTP   string // path to ask for; "" means that a connection is enough, with TLS a handshake
	Host   string // Host header; "" means the name that TLS asks for, or else the address
	Status [2]int // lowest and highest status that is well; zero means 200 to 399

	Greeting Greeting // what a server that speaks first must speak
	SIP      Asking   // how a server of SIP is asked by OPTIONS
}

// Func asks one address once. It never tries another family, and returns at the latest when ctx is done.
type Func func(ctx context.Context, t Target) Result

// Result is what happened. Err is nil if the target is well.
type Result struct {
	Target Target
	Start  time.Time
	Phases []Phase // those that ended well, in order
	Err    error   // begins with the phase that did not: "connect: connection refused"
}

// Phase is a step of a probe and how long it took.
type Phase struct {
	Name string // connect, tls, greeting, answer, echo
	Took time.Duration
}

// Ask asks as much as t says: HTTP if it names a path, a greeting or OPTIONS if it names one, else TCP.
func Ask(ctx context.Context, t Target) Result {
	switch {
	case t.HTTP != "":
		return HTTP(ctx, t)
	case t.Greeting != NoGreeting:
		return Greet(ctx, t)
	case t.SIP != NoSIP:
		return SIP(ctx, t)
	}
	return TCP(ctx, t)
}

// TCP connects, shakes hands if the target speaks TLS, and is content.
func TCP(ctx context.Context, t Target) Result {
	r := begin(t)
	c := r.connect(ctx)
	if c == nil {
		return r.Result
	}
	defer c.Close()
	if s := r.greet(ctx, c); s != nil {
		r.accepted(ctx, s)
	}
	return r.Result
}

// run is a probe under way.
type run struct {
	Result
	phase time.Time // when the present one began
}

func begin(t Target) *run {
	now := time.Now()
	return &run{Result: Result{Target: t, Start: now}, phase: now}
}

// end ends a phase. It says whether the next one may begin.
func (r *run) end(ctx context.Context, name string, err error) bool {
	now := time.Now()
	if err != nil {
		r.Err = &phaseError{name, cause(ctx, err)}
		return false
	}
	r.Phases = append(r.Phases, Phase{name, now.Sub(r.phase)})
	r.phase = now
	return true
}

// conn is a connection that obeys a context.
type conn struct {
	net.Conn
	stop func() bool
}

// Close implements net.Conn.
func (c conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// greet says what comes before a question, and returns the connection to ask it on; nil if that fails.
func (r *run) greet(ctx context.Context, c net.Conn) net.Conn {
	if !r.preface(ctx, c) {
		return nil
	}
	return r.shake(ctx, c)
}

// preface says whether what comes first could be said.
func (r *run) preface(ctx context.Context, c net.Conn) bool {
	if p := r.Target.Preface; p != "" {
		if _, err := io.WriteString(c, p); err != nil {
			r.end(ctx, "preface", err)
			return false
		}
	}
	return true
}

// connect returns nil if there is no connection. A connection obeys ctx; the caller closes it.
func (r *run) connect(ctx context.Context) net.Conn {
	d := net.Dialer{KeepAlive: -1, Control: r.Target.control}
	network := "tcp6"
	if r.Target.Addr.Addr().Is4() {
		network = "tcp4"
	}
	c, err := d.DialTCP(ctx, network, netip.AddrPortFrom(r.Target.Local, 0), r.Target.Addr)
	if !r.end(ctx, "connect", err) {
		return nil
	}
	return conn{c, context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })} // wakes what waits for c
}

// control prepares the socket to come from Local. The port is chosen when it connects, so that one address can
// have as many connections to each backend as there are ports: IP_BIND_ADDRESS_NO_PORT, ip(7).
func (t *Target) control(network, _ string, raw syscall.RawConn) error {
	if !t.Local.IsValid() {
		return nil
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		if !strings.HasPrefix(network, "ip") { // raw sockets have no ports
			failed = set(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT")
		}
		if failed == nil {
			failed = t.comeFrom(int(fd))
		}
	})
	return errors.Join(err, failed)
}

// comeFrom lets a socket be bound to Local, which need not be on an interface.
func (t *Target) comeFrom(fd int) error {
	level, freebind, transparent := unix.IPPROTO_IP, unix.IP_FREEBIND, unix.IP_TRANSPARENT
	if ip.FamilyOf(t.Local) == ip.V6 {
		level, freebind, transparent = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, unix.IPV6_TRANSPARENT
	}
	if err := set(fd, level, freebind, "IP_FREEBIND"); err != nil || !t.Transparent {
		return err
	}
	return set(fd, level, transparent, "IP_TRANSPARENT")
}

func set(fd, level, option int, name string) error {
	return os.NewSyscallError("setsockopt "+name, unix.SetsockoptInt(fd, level, option, 1))
}

// phaseError says which phase failed.
type phaseError struct {
	phase string
	err   error
}

func (e *phaseError) Error() string { return e.phase + ": " + e.err.Error() }

func (e *phaseError) Unwrap() error { return e.err }

// cause strips what the reader of a status page knows already: the operation and the two addresses.
func cause(ctx context.Context, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return ErrTimeout
	case errors.As(err, &errno):
		return errno
	}
	return err
}
