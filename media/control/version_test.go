// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// talkID is the call of the conversation below.
const talkID = 0x0102030405060708

func talkCall() (Call, []Remote) {
	four, six := netip.MustParseAddrPort("192.0.2.1:4000"), netip.MustParseAddrPort("[2001:db8::1]:5004")
	return Call{ID: talkID, Spec: Spec{Networks: [2]string{"access/ipv6", "core/ipv4"}, Streams: 1},
			Local: [2][]Local{{{RTP: six, RTCP: netip.AddrPortFrom(six.Addr(), 5005)}}, {{RTP: four, RTCP: netip.AddrPortFrom(four.Addr(), 4001)}}}},
		[]Remote{{Side: Callee, RTP: four, Clock: 8000, DSCP: 46, Learn: true}, {RTP: six, Signal: six.Addr(), Mux: true, Held: true}}
}

func talkStats() Stats {
	return Stats{Heard: [2][]Quality{{{Packets: 1, Bytes: 160, RTCP: 2, Lost: 3, Jitter: time.Millisecond, MOS: 4.25, Strangers: 4,
		From: netip.MustParseAddrPort("[2001:db8::9]:4000")}}, {{Kernel: true}}}}
}

// talk says to a relay all that there is to say, and waits for each answer. Nothing in it is left to chance.
func talk(ctx context.Context, path string) error {
	answers := make(chan error, 1)
	up, over := make(chan struct{}, 2), make(chan Stats, 1)
	c := NewClient(Options{Path: path, Link: func(err error) {
		if err == nil {
			up <- struct{}{}
		}
	}})
	call, remotes := talkCall()
	now := func(f func()) { f() }
	c.Restore(call, remotes, now, func(s Stats) { over <- s })
	c.Keep([][]byte{[]byte("an announcement")})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	<-up
	opened := func(_ Call, err error) { answers <- err }
	told := func(s Stats, err error) {
		if err == nil && (len(s.Heard[0]) != 1 || s.Heard[0][0].MOS != 4.25) {
			err = fmt.Errorf("told %+v", s)
		}
		answers <- err
	}
	for _, step := range []func(){
		func() { c.Survey(func(_ *Figures, err error) { answers <- err }) },
		func() { c.Stats(talkID, now, told) },
		func() {
			c.Update(talkID, remotes...)
			c.Play(talkID, Play{Side: Callee, Clip: ClipOf([]byte("an announcement")), Type: 8, Times: 2})
			c.Reshape(talkID, Spec{Networks: [2]string{"access/ipv6", "core/ipv4"}, Streams: 2}, now, opened)
		},
		func() { c.Renew(func(err error) { answers <- err }) },
		func() { c.Close(talkID, now, told) },
	} {
		step()
		select {
		case err := <-answers:
			if err != nil && !errors.Is(err, ErrInvalid) {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// talker is a relay that answers always the same.
type talker struct{}

func (talker) Do(_ *Session, r Request) {
	call, _ := talkCall()
	switch r.What {
	case Restore, Reshape:
		r.Done(call, nil)
	case Renew:
		r.Done(Call{}, ErrInvalid)
	case Ask, Close:
		r.Told(talkStats(), nil)
	case Survey:
		f := &Figures{Calls: 1, Networks: []Occupancy{{Name: "core/ipv4", Media: netip.MustParsePrefix("192.0.2.1/32"), Used: 1, Size: 2}}}
		r.Figured(f)
	}
}

// frozen is what version 2 said: a line a message, > of the client and < of the relay. It is never made anew.
func frozen(t *testing.T) (lines []line) {
	t.Helper()
	text, err := os.ReadFile("testdata/version-2")
	if err != nil {
		t.Fatal(err)
	}
	for one := range strings.Lines(string(text)) {
		mark, digits, _ := strings.Cut(strings.TrimSpace(one), " ")
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line{mark == ">", b})
	}
	return lines
}

// line is a message of a conversation.
type line struct {
	client bool
	b      []byte
}

// replay says what one side said, and reads what the other must say now.
func replay(conn *net.UnixConn, lines []line, client bool) error {
	buffer := make([]byte, maxMessage)
	for i, l := range lines {
		if l.client == client {
			if _, err := conn.Write(l.b); err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
			continue
		}
		n, err := conn.Read(buffer)
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		got := buffer[:n]
		if kind(got[0]) == hello { // version 2 passes over what follows
			got = got[:min(n, len(l.b))]
		}
		if !bytes.Equal(got, l.b) {
			return fmt.Errorf("message %d\ngot  %x\nwant %x", i, got, l.b)
		}
	}
	return nil
}

// TestVersion2 has each side of this build talk with the other side of one that knew version 2 alone.
func TestVersion2(t *testing.T) {
	t.Parallel()
	t.Run("relay", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "media.sock")
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- Serve(ctx, l, talker{}) }()
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		if err := replay(conn, frozen(t), true); err != nil {
			t.Error(err)
		}
		conn.Close()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Run("signalling", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "media.sock")
		l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		played, lines := make(chan error, 1), frozen(t)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer cancel() // who waits for an answer need not any more
			conn, err := l.AcceptUnix()
			if err == nil {
				err = replay(conn, lines, false)
			}
			l.Close()
			played <- err
			if err == nil {
				_, _ = conn.Read(make([]byte, 1)) // it reads the last answer, and ends
			}
			if conn != nil {
				conn.Close()
			}
		}()
		talked := talk(ctx, path)
		if err := <-played; err != nil {
			t.Fatal(err)
		}
		if talked != nil {
			t.Error(talked)
		}
	})
}

// TestAgree: two processes talk in the newest version that both know, if there is one.
func TestAgree(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		ours, theirs span
		want         uint16 // 0: they do not talk
	}{
		{span{2, 3}, span{2, 3}, 3},
		{span{2, 3}, span{2, 2}, 2},
		{span{2, 2}, span{2, 3}, 2},
		{span{2, 4}, span{3, 7}, 4},
		{span{2, 3}, span{4, 5}, 0},
		{span{4, 5}, span{2, 3}, 0},
		{span{2, 3}, span{3, 2}, 0},
		{span{2, 3}, span{0, 0}, 0},
	} {
		b := (&message{kind: hello, spoken: test.theirs}).append(nil)
		var m message
		if err := m.parse(b); err != nil || m.spoken != test.theirs {
			t.Errorf("%v is read as %v: %v", test.theirs, m.spoken, err)
		}
		got, err := test.ours.agree(m.spoken)
		if got != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%v and %v: got %d, %v, want %d", test.ours, test.theirs, got, err, test.want)
		}
	}
}

// TestKernelToldSince3: what version 3 has more is said in it, and not in version 2.
func TestKernelToldSince3(t *testing.T) {
	t.Parallel()
	for version, want := range map[uint16]bool{2: false, 3: true} {
		m := &message{kind: told, version: version, stats: talkStats()}
		got := message{version: version}
		if err := got.parse(m.append(nil)); err != nil || got.stats.Heard[1][0].Kernel != want || got.stats.Heard[0][0].Kernel {
			t.Errorf("version %d: got %+v, %v", version, got.stats, err)
		}
	}
}

// TestPassedToldSince4: what version 4 has more is said in it, and not before.
func TestPassedToldSince4(t *testing.T) {
	t.Parallel()
	for version, want := range map[uint16]uint64{3: 0, 4: 5} {
		f := &Figures{Calls: 1}
		f.Passed[Long][1] = 5
		m := &message{kind: figures, version: version, figures: f}
		got := message{version: version}
		if err := got.parse(m.append(nil)); err != nil || got.figures.Calls != 1 || got.figures.Passed[Long][1] != want {
			t.Errorf("version %d: got %+v, %v", version, got.figures, err)
		}
	}
}
