// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	player "github.com/kyozon/kyozon/media"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/clip"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/relay"
)

// tone is a WAV file of 400 Hz, so long.
func tone(d time.Duration) []byte {
	n := int(d.Seconds() * clip.Rate)
	b := append([]byte("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00data"), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(b[len(b)-4:], uint32(2*n))
	for i := range n {
		b = binary.LittleEndian.AppendUint16(b, uint16(int16(8000*math.Sin(2*math.Pi*400*float64(i)/clip.Rate))))
	}
	return b
}

// played gives a bench a real relay, on loopback addresses.
func (b *bench) played(options string) {
	b.t.Helper()
	ls, err := relay.Open(2)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { ls.Run(ctx) })
	var networks []player.Network
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		a := iptest.Loopback(f)
		networks = append(networks, player.Network{Name: "access/" + f.String(), Media: netip.PrefixFrom(a, a.BitLen()), Low: 29000, High: 29999})
	}
	plane, err := player.Open(player.Options{Networks: networks, Loops: ls})
	if err != nil {
		b.t.Fatal(err)
	}
	l, err := control.Listen(filepath.Join(b.t.TempDir(), "media.sock"))
	if err != nil {
		b.t.Fatal(err)
	}
	wg.Go(func() { plane.Run(ctx) })
	wg.Go(func() { control.Serve(ctx, l, plane) })
	b.t.Cleanup(func() {
		if n := plane.Calls(); n != 0 {
			b.t.Errorf("%d calls are left in the relay", n)
		}
		cancel()
		wg.Wait()
		plane.Close()
		ls.Close()
	})
	if err := os.MkdirAll(filepath.Join(b.dir, "state"), 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(strings.TrimSuffix(l.Addr().String(), fmt.Sprintf(".%d", os.Getpid())), filepath.Join(b.dir, "state", "media.sock")); err != nil {
		b.t.Fatal(err)
	}
	b.networks = `networks: {access: {media: [192.0.2.5, "2001:db8:5::/64"]}}` + "\n"
	b.reload(options)
	for !b.core.relays.client.Load().Up() {
		runtime.Gosched()
	}
}

// ear is where a telephone hears media.
type ear struct {
	t    *testing.T
	conn *net.UDPConn
}

func newEar(t *testing.T, f ip.Family) *ear {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &ear{t, c}
}

func (e *ear) at() netip.AddrPort { return e.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// offer describes it, with formats.
func (e *ear) offer(formats string) string {
	word := map[bool]string{true: "IP4", false: "IP6"}[e.at().Addr().Is4()]
	return fmt.Sprintf("v=0\r\no=- 1 1 IN %s %s\r\ns=-\r\nc=IN %[1]s %[2]s\r\nt=0 0\r\nm=video 0 RTP/AVP 99\r\nm=audio %d RTP/AVP %s\r\n", word, e.at().Addr(), e.at().Port(), formats)
}

// hears wants a number of packets of a payload type, and returns what they carry.
func (e *ear) hears(n int, kind byte, from netip.AddrPort) (samples []byte) {
	e.t.Helper()
	b := make([]byte, 2048)
	e.conn.SetReadDeadline(time.Now().Add(patience))
	for range n {
		got, at, err := e.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			e.t.Fatal(err)
		}
		if got != 172 || b[1]&0x7f != kind || ip.CanonicalPort(at) != from {
			e.t.Fatalf("got %x from %v, want it from %v", b[:got], at, from)
		}
		samples = append(samples, b[12:got]...)
	}
	return samples
}

// speak says something until it is answered.
func (e *ear) speak(to netip.AddrPort) {
	e.t.Helper()
	e.conn.SetWriteDeadline(time.Now().Add(patience))
	raw, err := e.conn.SyscallConn()
	if err != nil {
		e.t.Fatal(err)
	}
	for heard := false; !heard; {
		if _, err := e.conn.WriteToUDPAddrPort(append([]byte{0x80, 13}, make([]byte, 11)...), to); err != nil {
			e.t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, _ := unix.Poll(poll, 20)
			heard = n > 0
		})
	}
}

// announced is where an announcement comes from: as 183 says, which must be in the family of the offer.
func announced(t *testing.T, m *sip.Message, kind string, f ip.Family) netip.AddrPort {
	t.Helper()
	var s sdp.Session
	if err := s.Parse([]byte(bodyOf(m)), &sdp.Limits{}); err != nil {
		t.Fatal(err)
	}
	d := s.Media(1)
	if s.Len() != 2 || s.Media(0).Port != 0 || d.Family != f || !strings.Contains(bodyOf(m), " RTP/AVP "+kind+"\r\n") || !m.Has(sip.Contact) {
		t.Errorf("got %s%s", m.Head(), bodyOf(m))
	}
	return netip.AddrPortFrom(d.Addr, d.Port)
}

const withAnnouncement = ", numbers: {own: 0501000xxxx, plan: japan}, announcements: {sorry: {file: sorry.wav, times: 2, cause: 31}}, cdr: calls.jsonl, " +
	"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], announce: sorry}]"

// TestAnnouncement: a caller hears the tone, as often as it is to be played, in the law that he would rather hear and in the
// family of his media, whatever that of his signalling; then he is told why.
func TestAnnouncement(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.write("sorry.wav", string(tone(300*time.Millisecond)))
	b.played(withAnnouncement)
	want, err := clip.Parse("sorry.wav", tone(300*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	b.each(func(a *agent) { a.afterwards = patience }) // a relay that has no time says it all, but later
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		for kind, samples := range map[string][]byte{"0": want.PCMU, "8": want.PCMA} {
			e := newEar(t, x.Backend)
			caller := b.registered("udp", x.Client, "05010000001")
			caller.body = e.offer(kind + " 101")
			r := caller.invite("110")
			early := keep(caller.want("183"))
			from := announced(t, early, kind, x.Backend)
			if x.Client != x.Backend { // nobody has proved that he wants it there before something comes from there
				e.speak(from)
			}
			if got := e.hears(2*len(samples)/clip.Frame, kind[0]-'0', from); !bytes.Equal(got, append(bytes.Clone(samples), samples...)) {
				t.Error("he hears something else")
			}
			b.each(func(a *agent) {
				for c := range a.calls {
					c.announcing.over()
				}
			})
			m := keep(caller.want("480"))
			if got := string(m.Get(sip.Reason)); got != `Q.850;cause=31;text="normal, unspecified"` {
				t.Errorf("got Reason %q", got)
			}
			if string(m.Get(sip.To)) != string(early.Get(sip.To)) {
				t.Errorf("got To %s after %s", m.Get(sip.To), early.Get(sip.To))
			}
			caller.send(reply(r, m, "ACK"))
		}
	})
	b.each(func(a *agent) { a.afterwards = afterwards }) // it is over by itself
	b.t = t
	caller := b.registered("udp", ip.V4, "05010000001")
	caller.body = newEar(t, ip.V4).offer("0")
	r := caller.invite("110")
	caller.want("183")
	caller.send(reply(r, caller.want("480"), "ACK"))
	b.end()
	text, err := os.ReadFile(filepath.Join(b.dir, "calls.jsonl"))
	if err != nil || bytes.Count(text, []byte(`"reason":"announcement sorry"`)) != 9 || !bytes.Contains(text, []byte(`"emergency":true`)) {
		t.Errorf("%v, %s", err, text)
	}
}

// TestAnnouncementNotHeard: who cannot hear it is refused at once, and who gives up hears no more.
func TestAnnouncementNotHeard(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.write("sorry.wav", string(tone(20*time.Second)))
	b.played(withAnnouncement)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		e := newEar(t, f)
		caller := b.registered("udp", f, "05010000001")
		for name, change := range map[string]func() []string{
			"no offer":      func() []string { caller.silent = true; return nil },
			"another codec": func() []string { caller.body = e.offer("18"); return nil },
			"on hold":       func() []string { caller.body = e.offer("0") + "a=sendonly\r\n"; return nil },
			"encrypted": func() []string {
				caller.body = strings.Replace(e.offer("0"), "RTP/AVP 0", "RTP/SAVP 0", 1)
				return nil
			},
			"acknowledged": func() []string { caller.body = e.offer("0"); return []string{"Require: 100rel"} },
			"at the relay itself": func() []string {
				caller.body = strings.ReplaceAll(e.offer("0"), e.at().Addr().String(), relayAt[f].String())
				return nil
			},
			"nowhere that is proved": func() []string {
				caller.body = strings.ReplaceAll(e.offer("0"), e.at().Addr().String(), "host.example")
				return nil
			},
		} {
			caller.silent = false
			lines := change()
			r := caller.invite("110", lines...)
			m := caller.hear()
			for m.Status() == 100 {
				m = caller.hear()
			}
			if m.Status() != 480 {
				t.Errorf("%s: got %d", name, m.Status())
			}
			caller.send(reply(r, m, "ACK"))
		}
		caller.silent, caller.body = false, e.offer("0")
		r := caller.invite("110")
		from := announced(t, caller.want("183"), "0", f)
		e.hears(2, 0, from)
		caller.send(reply(r, nil, "CANCEL"))
		caller.want("200")
		caller.send(reply(r, caller.want("487"), "ACK"))
		b.until(func() bool { return b.core.announced.Load() == 0 })
	})
	b.t = t
	for _, bad := range []string{"nothing.wav", "calls.jsonl"} {
		cfg := b.parse(strings.Replace(withAnnouncement, "sorry.wav", bad, 1))
		if err := b.edge.Reload(cfg); err == nil || !strings.Contains(err.Error(), "site.yaml:6:144: ") || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	b.write("sorry.wav", string(tone(70*time.Second)))
	if err := b.edge.Reload(b.parse(withAnnouncement + " ")); err == nil || !strings.Contains(err.Error(), "longer than 2m") {
		t.Errorf("got %v", err)
	}
}
