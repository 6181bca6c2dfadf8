// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// ErrEnded means that a daemon ended before it was ready.
var ErrEnded = errors.New("lab: ended")

const (
	startTime = 30 * time.Second      // a daemon must be ready within this
	askEvery  = 10 * time.Millisecond // whether it is
	askTime   = time.Second           // one answer may take this
	logKept   = 64 << 10              // bytes of a daemon's output
	pipeDelay = 2 * time.Second       // after a daemon's end, for a child that still holds its output
)

// Daemon is a program to be kept running on a host.
type Daemon struct {
	Name  string   // for messages
	Argv  []string // must stay in the foreground
	User  string   // runs as this user; "" means root
	Env   []string // in addition to that of every command
	Ready Ready    // nil means: ready when it has started

	own *exec.Cmd // instead of Argv: this program itself
}

// Ready asks a daemon once whether it is ready. It runs in the host's network and must open sockets only in its own
// goroutine.
type Ready func(ctx context.Context) error

// Process is a daemon that runs.
type Process struct {
	Name string
	Host *Host

	cmd  *Cmd
	log  tail
	done chan struct{}
	err  error // how it ended; read after done
}

// Start starts a daemon and returns when it is ready. On an error it does not run. Returns ErrEnded.
func (h *Host) Start(ctx context.Context, d Daemon) (*Process, error) {
	p := &Process{Name: d.Name, Host: h, done: make(chan struct{})}
	if d.own != nil {
		p.cmd = h.command(d.own)
	} else {
		p.cmd = h.Command(context.WithoutCancel(ctx), d.Argv...)
	}
	p.cmd.Env = append(p.cmd.Env, d.Env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.WaitDelay = pipeDelay
	if d.User != "" {
		var err error
		if p.cmd.SysProcAttr.Credential, err = credential(d.User); err != nil {
			return nil, fmt.Errorf("start %s: %w", p, err)
		}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p, err)
	}
	h.lab.waiters.Go(func() {
		p.err = p.cmd.Wait()
		close(p.done)
	})
	if err := p.await(ctx, d.Ready); err != nil {
		p.Signal(syscall.SIGKILL)
		<-p.done
		return nil, fmt.Errorf("start %s: %w\n%s", p, err, indent(p.Log()))
	}
	h.lab.mu.Lock()
	h.lab.daemons = append(h.lab.daemons, p)
	h.lab.mu.Unlock()
	return p, nil
}

// await asks until the daemon is ready, has ended, or has had its time.
func (p *Process) await(ctx context.Context, ready Ready) error {
	if ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for {
		err := p.Host.Do(func() error {
			ctx, cancel := context.WithTimeout(ctx, askTime)
			defer cancel()
			return ready(ctx)
		})
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%w: %w", ErrEnded, p.err)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-again.C:
		}
	}
}

// String returns, for example, "nginx on web1".
func (p *Process) String() string { return p.Name + " on " + p.Host.name }

// PID returns its number outside the lab.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns the end of what the daemon wrote.
func (p *Process) Log() string { return p.log.String() }

// Done is closed when the daemon has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the daemon ended: nil for exit code 0. Call it when Done is closed.
func (p *Process) Err() error { return p.err }

// Signal sends a signal to the daemon.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop asks the daemon to end and waits until it has; when ctx is done first, the daemon is killed.
func (p *Process) Stop(ctx context.Context) error {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Signal(syscall.SIGKILL)
		<-p.done
	}
	return p.err
}

// AnswersTCP is ready when every address accepts a connection.
func AnswersTCP(addresses ...netip.AddrPort) Ready {
	return func(ctx context.Context) error {
		for _, a := range addresses {
			c, err := new(net.Dialer).DialContext(ctx, network("tcp", a), reachable(a).String())
			if err != nil {
				return err
			}
			c.Close()
		}
		return nil
	}
}

// AnswersUDP is ready when every address answers a datagram.
func AnswersUDP(ask []byte, addresses ...netip.AddrPort) Ready {
	return func(ctx context.Context) error {
		for _, a := range addresses {
			if _, err := askUDP(ctx, reachable(a), ask); err != nil {
				return err
			}
		}
		return nil
	}
}

// AnswersHTTP is ready when the server at a answers 200 to a question for path.
func AnswersHTTP(a netip.AddrPort, path string) Ready {
	return func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, network("tcp", a), reachable(a).String())
		if err != nil {
			return err
		}
		// net/http dials in a goroutine of its own, which is not in the host's network: lend it this connection.
		t := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
		defer t.CloseIdleConnections()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.String()+path, nil)
		if err != nil {
			return errors.Join(err, c.Close())
		}
		response, err := t.RoundTrip(request)
		if err != nil {
			return errors.Join(err, c.Close())
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", response.StatusCode)
		}
		return nil
	}
}

// askUDP sends one datagram and returns the first answer.
func askUDP(ctx context.Context, a netip.AddrPort, ask []byte) ([]byte, error) {
	c, err := new(net.Dialer).DialContext(ctx, network("udp", a), a.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(at); err != nil {
			return nil, err
		}
	}
	if _, err := c.Write(ask); err != nil {
		return nil, err
	}
	answer := make([]byte, 64<<10)
	n, err := c.Read(answer)
	return answer[:n], err
}

// network returns, for example, "tcp6".
func network(transport string, a netip.AddrPort) string {
	return transport + strconv.Itoa(int(ip.FamilyOf(a.Addr())))
}

// reachable returns where to reach a server on the same host that listens at a, which may be unspecified.
func reachable(a netip.AddrPort) netip.AddrPort {
	switch {
	case !a.Addr().IsUnspecified():
		return a
	case a.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func indent(s string) string {
	return "\t" + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n\t")
}

// tail is a writer that keeps the last logKept bytes.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if over := len(t.data) - logKept; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}
