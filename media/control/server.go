// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// maxWaiting bounds the messages that wait for a client to read them. One that reads nothing is cut.
const maxWaiting = 100_000

// Session is the connection of one client, for its plane.
type Session struct {
	conn    *net.UnixConn
	version uint16 // of the messages
	out     outbox

	clip []byte // what has come of an announcement
}

// Plane does what clients ask for. Its methods must not block; done may be called from anywhere, once. Of what is asked
// for one call, the order must be kept.
type Plane interface {
	// Do does one thing.
	Do(s *Session, r Request)
}

// What says what a request asks for.
type What uint8

// What a client can ask for.
const (
	Open    What = iota // Done is called with the call, or with why not
	Reshape             // the same
	Restore             // the same; Call has the addresses that it had, Remotes what is known. If it is there, only its owner changes
	Update              // nothing is answered
	Ask                 // Told is called
	Close               // the same
	Listed              // the client has named all calls that it has
	Left                // the client is gone; its calls go on
	Survey              // Figured is called
	Renew               // Done is called: with ErrInvalid if the networks are as before, because what is to be now cannot be
	Keep                // an announcement: Clip and Samples; nothing is answered
	Begin               // Play is played in the call; nothing is answered
)

// Request is what a client asks for.
type Request struct {
	What    What
	Call    Call
	Remotes []Remote
	Clip    Clip
	Samples []byte
	Play    Play
	Done    func(Call, error)
	Told    func(Stats, error)
	Figured func(*Figures)
}

// Ended tells the client that a call was ended without its asking.
func (s *Session) Ended(id ID, stats Stats) { s.send(&message{kind: ended, id: id, stats: stats}) }

func (s *Session) send(m *message) {
	m.version = s.version
	if !s.out.put(m.append(nil)) {
		s.conn.Close()
	}
}

// Listen opens the socket at path, beside its place, and moves it there, so that no moment is without one.
func Listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("open media socket: %w", err)
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	os.Remove(fresh) // left by a process that had our number
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: fresh, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("open media socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		l.Close()
		return nil, fmt.Errorf("open media socket: %w", err)
	}
	return l, nil
}

// ErrRuns means that another relay has the place of a socket.
var ErrRuns = errors.New("another kyozon media runs with this state directory")

// Lock makes sure that there is one relay for the socket at path, until the file is closed or the process ends: two would have it
// in turn, and share the packets of a prefix. Returns ErrRuns.
func Lock(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("lock media socket: %w", err)
	}
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock media socket: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrRuns
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
}

// Serve serves clients until ctx is done, and closes l.
func Serve(ctx context.Context, l *net.UnixListener, p Plane) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve media socket: %w", err)
		}
		wg.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			serve(conn, p)
		})
	}
}

// serve talks with one client. What a client says that is no message ends its connection.
func serve(conn *net.UnixConn, p Plane) {
	if !trusted(conn) {
		return
	}
	version, err := greet(conn)
	if err != nil {
		return
	}
	s := &Session{conn: conn, version: version}
	s.out.init(maxWaiting)
	var wg sync.WaitGroup
	wg.Go(func() { s.out.drain(conn) })
	defer wg.Wait()
	defer conn.Close() // the outbox may wait for room in it
	defer s.out.close()
	defer p.Do(s, Request{What: Left})
	buffer, m := make([]byte, maxMessage), &message{version: version}
	for receive(conn, buffer, m) == nil {
		if m.kind == piece && !s.whole(m) {
			continue
		}
		r, ok := s.request(m)
		if !ok {
			return
		}
		p.Do(s, r)
	}
}

// request returns what a message asks for.
func (s *Session) request(m *message) (r Request, ok bool) {
	seq, id := m.seq, m.id
	r = Request{Call: Call{ID: id, Spec: m.spec, Local: m.local}, Remotes: slices.Clone(m.remotes)}
	switch m.kind {
	case open, reshape, restore:
		r.What = map[kind]What{open: Open, reshape: Reshape, restore: Restore}[m.kind]
		r.Done = func(c Call, err error) {
			if err != nil {
				s.fail(seq, err)
				return
			}
			s.send(&message{kind: opened, seq: seq, id: id, spec: c.Spec, local: c.Local})
		}
	case ask, shut:
		r.What = map[kind]What{ask: Ask, shut: Close}[m.kind]
		r.Told = func(stats Stats, err error) {
			if err != nil {
				s.fail(seq, err)
				return
			}
			s.send(&message{kind: told, seq: seq, id: id, stats: stats})
		}
	case survey:
		r.What = Survey
		r.Figured = func(f *Figures) { s.send(&message{kind: figures, seq: seq, figures: f}) }
	case renew:
		r.What = Renew
		r.Done = func(_ Call, err error) {
			if err != nil {
				s.fail(seq, err)
				return
			}
			s.send(&message{kind: renewed, seq: seq})
		}
	case update:
		r.What = Update
	case listed:
		r.What = Listed
	case piece:
		r.What, r.Clip, r.Samples = Keep, m.clip, s.clip
		s.clip = nil
	case play:
		r.What, r.Play = Begin, m.play
	default:
		return r, false
	}
	return r, true
}

// whole takes a piece of an announcement, and says whether it was the last. Pieces come in order; one that does not follow the
// one before ends what has come.
func (s *Session) whole(m *message) bool {
	if m.at == 0 {
		s.clip = nil
	}
	if int(m.at) != len(s.clip) {
		s.clip = nil
		return false
	}
	s.clip = append(s.clip, m.piece...)
	if len(s.clip) < int(m.of) {
		return false
	}
	if ClipOf(s.clip) != m.clip {
		s.clip = nil
		return false
	}
	return true
}

func (s *Session) fail(seq uint32, err error) {
	at := slices.IndexFunc(failures[:], func(f error) bool { return errors.Is(err, f) })
	if at < 0 {
		at = slices.Index(failures[:], ErrInvalid)
	}
	s.send(&message{kind: failed, seq: seq, failure: uint8(at + 1)})
}

// trusted says whether the other end is a process of our user, or of root. The file's mode says so too, where the
// directory is not shared.
func trusted(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var who *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) {
		who, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || got != nil {
		return false
	}
	return who.Uid == 0 || who.Uid == uint32(os.Geteuid())
}

// receive reads one message.
func receive(conn *net.UnixConn, buffer []byte, m *message) error {
	n, err := conn.Read(buffer)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil && n == len(buffer) {
		err = errMessage // or the beginning of a longer one
	}
	if err != nil {
		return err
	}
	return m.parse(buffer[:n])
}
