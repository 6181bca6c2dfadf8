// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/controltest"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// relayAt is where the relay in memory has media come in.
var relayAt = map[ip.Family]netip.Addr{ip.V4: netip.MustParseAddr("192.0.2.5"), ip.V6: netip.MustParseAddr("2001:db8:5::5")}

// relayed gives a bench a relay.
func (b *bench) relayed(options string) *controltest.Relay {
	b.t.Helper()
	r := controltest.Open(b.t, map[string]netip.Addr{"access/ipv4": relayAt[ip.V4], "access/ipv6": relayAt[ip.V6]})
	if err := os.MkdirAll(filepath.Join(b.dir, "state"), 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(r.Path, filepath.Join(b.dir, "state", "media.sock")); err != nil {
		b.t.Fatal(err)
	}
	b.networks = `networks: {access: {media: [192.0.2.5, "2001:db8:5::/64"]}}` + "\n"
	b.reload(options)
	b.up()
	return r
}

// up waits until the edge has connected to the relay.
func (b *bench) up() {
	for !b.core.relays.client.Load().Up() { // the socket is there: the connection is as good as made
		runtime.Gosched()
	}
}

// TestRelayed: ends of different families are each given an address of the relay in their own; the relay learns where they
// are, and what it carried is in the record. Nothing of one leg's addresses is shown to the other.
func TestRelayed(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed(", cdr: calls.jsonl")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		caller.invite("05010000002")
		invite := keep(callee.want("INVITE"))
		wantMedia(t, "the offer", invite, x.Backend)
		callee.response(invite, 180, "")
		caller.want("180")
		callee.response(invite, 200, callee.offer())
		answer := keep(caller.want("200"))
		wantMedia(t, "the answer", answer, x.Client)
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		callee.want("ACK")
		var id control.ID
		r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool {
			for i, remotes := range calls {
				id = i
				return hasRemote(remotes, control.Caller, caller) && hasRemote(remotes, control.Callee, callee)
			}
			return false
		})
		if n := b.gauge("kyozon_phone_media_calls_active", "service=phone", "media=relayed"); n != 1 {
			t.Errorf("%d calls are relayed", n)
		}

		hold := strings.Replace(callee.offer(), "m=audio 4000 RTP/AVP 0\r\n", "m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n", 1)
		callee.send(withBody(callee.within(invite, "INVITE", 100), hold))
		again := keep(caller.want("INVITE"))
		wantMedia(t, "the offer to hold", again, x.Client)
		caller.response(again, 488, "") // he does not want to: what was before holds
		caller.want("ACK")
		callee.want("488")
		callee.send(callee.within(invite, "ACK", 100))

		callee.send(callee.within(invite, "BYE", 101))
		callee.want("200")
		caller.response(keep(caller.want("BYE")), 200, "")
		r.Await(func(_ map[control.ID][]control.Remote, closed []control.ID) bool { return slices.Contains(closed, id) })
	})
	b.t = t
	var text []byte
	b.until(func() bool { // the relay has said what it carried
		text, _ = os.ReadFile(filepath.Join(b.dir, "calls.jsonl"))
		return bytes.Count(text, []byte("\n")) == 4
	})
	b.wantQuality()
	records := 0
	for line := range bytes.Lines(text) {
		record, err := cdr.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		want := "other family"
		if record.Caller.Family == record.Called.Family {
			want = "no address" // that others could send to: they are on loopback
		}
		if m := record.Media; m == nil || m.Path != want || m.ToCaller.Packets != 99 || m.ToCalled.MOS < 4 || m.ToCaller.Strangers != 2 ||
			record.Caller.Media != record.Caller.Family || record.Called.Media != record.Called.Family {
			t.Errorf("got %s", line)
		}
		records++
	}
	if records != 4 {
		t.Errorf("there are %d records, want 4", records)
	}
}

// wantQuality looks at the figures after a relayed call over each crossing. The relay says of each end what controltest does.
func (b *bench) wantQuality() {
	b.t.Helper()
	b.until(func() bool {
		return b.gauge("kyozon_phone_media_mos", "service=phone", "client_family=ipv6", "backend_family=ipv6", "to=caller") == 1
	})
	for _, x := range ip.Crossings() {
		of := []string{"service=phone", "client_family=" + x.Client.String(), "backend_family=" + x.Backend.String()}
		for _, to := range []string{"to=caller", "to=called"} {
			for metric, want := range map[string]int64{"packets_total": 99, "lost_total": 1, "strangers_total": 2, "mos": 1, "jitter_seconds": 1, "loss_ratio": 1} {
				if got := b.gauge("kyozon_phone_media_"+metric, append(of, to)...); got != want {
					b.t.Errorf("%v, %s: %s is %d, want %d", x, to, metric, got, want)
				}
			}
		}
		path := "path=no address"
		if x.Client != x.Backend {
			path = "path=other family"
		}
		if got := b.gauge("kyozon_phone_media_calls_total", append(of, path)...); got != 1 {
			b.t.Errorf("%v: %d calls, want 1", x, got)
		}
	}
	for _, c := range b.edge.Status().Counts {
		if h := c.Histogram; c.Metric == "kyozon_phone_media_loss_ratio" && (h.Sum != 0.01 || h.Counts[3] != 1) {
			b.t.Errorf("%v: %+v", c.Labels, h)
		}
	}
	for _, by := range []string{"direct", "relayed"} {
		if n := b.gauge("kyozon_phone_media_calls_active", "service=phone", "media="+by); n != 0 {
			b.t.Errorf("%d calls are %s", n, by)
		}
	}
}

// wantMedia looks at the description in a message for the end of a family.
func wantMedia(t *testing.T, what string, m *sip.Message, f ip.Family) {
	t.Helper()
	text := bodyOf(m)
	word := map[ip.Family]string{ip.V4: "IP4", ip.V6: "IP6"}[f]
	if !strings.Contains(text, "c=IN "+word+" "+relayAt[f].String()+"\r\n") || strings.Contains(text, "127.0.0.1") || strings.Contains(text, " ::1") {
		t.Errorf("%s for %v is\n%s", what, f, text)
	}
}

// hasRemote says whether the relay was told where an end hears.
func hasRemote(remotes []control.Remote, side control.Side, d *device) bool {
	return slices.ContainsFunc(remotes, func(r control.Remote) bool {
		return r.Side == side && r.Signal == addrOf(d).Addr()
	})
}

// TestRelayLate: an end that was called without an offer makes one in its answer, and it is carried all the same.
func TestRelayLate(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		caller.silent = true
		caller.invite("05010000002")
		invite := keep(callee.want("INVITE"))
		callee.response(invite, 200, callee.offer())
		answer := keep(caller.want("200"))
		wantMedia(t, "the offer", answer, x.Client)
		seq, _ := answer.Sequence()
		caller.send(withBody(caller.within(answer, "ACK", seq.Number), caller.offer()))
		wantMedia(t, "the answer", callee.want("ACK"), x.Backend)
		caller.send(caller.within(answer, "BYE", seq.Number+1))
		caller.want("200")
		callee.response(keep(callee.want("BYE")), 200, "")
	})
}

// TestRelayRefuses: calls that no media could go with fail, and say why; what was taken for them is given back.
func TestRelayRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()

		caller.body = strings.ReplaceAll(caller.offer(), addrOf(caller).Addr().String(), relayAt[x.Client].String()) // round and round
		invite := caller.invite("05010000002")
		caller.send(reply(invite, caller.want("488"), "ACK"))
		caller.body = "v=0\r\nwhat\r\n"
		invite = caller.invite("05010000002")
		caller.send(reply(invite, caller.want("488"), "ACK"))
		caller.body = ""

		invite = caller.invite("05010000002")
		callee.response(keep(callee.want("INVITE")), 486, "")
		callee.want("ACK")
		caller.send(reply(invite, caller.want("486"), "ACK"))
		r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool { return len(calls) == 0 })
	})
	r.Stop()
	for b.core.relays.client.Load().Up() {
		runtime.Gosched()
	}
	caller, callee := b.registered("udp", ip.V6, "05010000001"), b.registered("udp", ip.V4, "05010000002")
	defer callee.unregister()
	invite := caller.invite("05010000002")
	caller.send(reply(invite, caller.want("503"), "ACK"))
}

// TestRelayEnds: a call of which nobody has heard anything for long is ended, at both ends. What it carried until then is in its
// record.
func TestRelayEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed(", cdr: calls.jsonl")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		caller.invite("05010000002")
		callee.response(keep(callee.want("INVITE")), 200, callee.offer())
		answer := keep(caller.want("200"))
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		callee.want("ACK")
		var id control.ID
		r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool {
			for id = range calls {
				return true
			}
			return false
		})
		r.End(id)
		for _, d := range []*device{caller, callee} {
			d.response(keep(d.want("BYE")), 200, "")
		}
	})
	b.t = t
	b.end()
	all := b.records()
	for _, one := range all {
		if one.Reason != "no media were heard" || one.Media == nil || one.Media.ToCaller != flowOf(1) || one.Media.ToCalled != flowOf(1) {
			t.Errorf("got %+v, media %+v", one, one.Media)
		}
	}
	if len(all) != 4 {
		t.Errorf("%d records, want 4", len(all))
	}
}

// TestRelayRestart: a relayed call outlives the edge: the relay hears of it again, and what is asked within it goes on with the
// same addresses.
func TestRelayRestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		heard, came := b.call(caller, callee, nil, nil)
		b.end()
		b.start("")
		again := strings.Replace(callee.offer(), "4000", "4002", 1)
		callee.send(withBody(callee.within(came, "INVITE", 7), again))
		change := keep(caller.want("INVITE"))
		wantMedia(t, "the offer after it", change, x.Client)
		if port := regexp.MustCompile(`m=audio (\d+) `); port.FindString(bodyOf(change)) != port.FindString(bodyOf(heard)) {
			t.Errorf("it was\n%s\nand now is\n%s", bodyOf(heard), bodyOf(change))
		}
		caller.response(change, 200, caller.offer())
		acknowledge(callee, caller, callee.want("200"), 7)
		r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool {
			for _, remotes := range calls {
				return slices.ContainsFunc(remotes, func(r control.Remote) bool { return r.Side == control.Callee && r.Learn })
			}
			return false
		})
		hangUp(caller, callee, heard, sequence(heard)+1)
		r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool { return len(calls) == 0 })
		callee.unregister()
	})
}

// TestRelayKilled: the edge is killed when a call is over and the relay has not said yet what it carried. The call does not come
// back, and its record says what is known.
func TestRelayKilled(t *testing.T) {
	t.Parallel()
	const options = ", cdr: calls.jsonl"
	b := newBench(t, "")
	r := b.relayed(options)
	b.end()
	b.write("site.yaml", b.site(options))
	kill := b.process()
	defer func() { kill() }()
	clients := 1
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		clients++
		r.AwaitClients(clients)
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		heard, _ := b.call(caller, callee, nil, nil)
		resume := r.Pause()
		hangUp(caller, callee, heard, sequence(heard)+1)
		kill()
		resume()
		kill = b.process()
		callee.unregister()
	})
	kill()
	b.t = t
	b.start(options)
	b.legs(func(l *leg) { t.Errorf("there is still a leg of %s", l.session.Remote) })
	all := b.records()
	for _, one := range all {
		if one.EndedBy != byCaller || one.Cause != 16 || one.Media == nil || one.Media.Path == sdp.Direct.String() || one.Media.ToCalled.Packets != 0 {
			t.Errorf("got %+v, media %+v", one, one.Media)
		}
	}
	if len(all) != 4 {
		t.Errorf("%d records, want 4", len(all))
	}
}

// TestDirectRestart: a call whose media are direct outlives the edge too, and how they go is decided anew: when an end moves to the
// other family they are relayed, and when it comes back they are not. It is the same session for the other end.
func TestDirectRestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed(", cdr: calls.jsonl")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		at := func(f ip.Family) string { // reachable addresses: those of loopback would be relayed
			return map[ip.Family]string{ip.V4: "IP4 192.0.2.77", ip.V6: "IP6 2001:db8:77::77"}[f]
		}
		offer := func(f ip.Family, version int) string {
			return fmt.Sprintf("v=0\r\no=- 77 %d IN %s\r\ns=-\r\nc=IN %[2]s\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n", version, at(f))
		}
		caller.body, callee.body = offer(f, 1), offer(f, 1)
		heard, came := b.call(caller, callee, nil, nil)
		for round, move := range []ip.Family{ip.V4 + ip.V6 - f, f} {
			b.end()
			b.start(", cdr: calls.jsonl")
			b.up()
			seq := uint32(7 + round)
			callee.send(withBody(callee.within(came, "INVITE", seq), offer(move, 2+round)))
			change := keep(caller.want("INVITE"))
			place := map[bool]string{true: at(f), false: strings.Fields(at(f))[0] + " " + relayAt[f].String()}[move == f]
			if got := bodyOf(change); !strings.Contains(got, "\r\nc=IN "+place+"\r\n") || !strings.Contains(got, "\r\no=- 77 ") {
				t.Errorf("after a move to %v the caller is shown\n%s", move, got)
			}
			caller.response(change, 200, offer(f, 1))
			acknowledge(callee, caller, callee.want("200"), seq)
		}
		hangUp(caller, callee, heard, sequence(heard)+1)
		r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool { return len(calls) == 0 })
		callee.unregister()
	})
	b.t = t
	for _, r := range b.records() {
		if r.Media == nil || r.Media.Path != "direct" {
			t.Errorf("the media of %s are %+v", r.ID, r.Media)
		}
	}
}

// TestRemotes: what the relay is told of an end. A telephone whose address nobody can reach is heard by where its signalling
// comes from; a gateway may have its media where it says.
func TestRemotes(t *testing.T) {
	t.Parallel()
	signal := netip.MustParseAddr("198.51.100.7")
	for _, tt := range []struct {
		name, addr  string
		subscribers bool
		rtp         string // "" for none
		signal      netip.Addr
	}{
		{"a telephone", "198.51.100.7", true, "198.51.100.7:4000", signal},
		{"a telephone behind a NAT", "10.0.0.5", true, "10.0.0.5:4000", signal},
		{"a telephone that has IPv4 by 464XLAT", "192.0.0.4", true, "192.0.0.4:4000", signal},
		{"a telephone on hold", "0.0.0.0", true, "0.0.0.0:4000", signal},
		{"a gateway", "10.0.5.99", false, "10.0.5.99:4000", netip.Addr{}},
		{"a gateway that says nonsense", "127.0.0.1", false, "", netip.Addr{}},
	} {
		text := "v=0\r\no=- 1 1 IN IP4 " + tt.addr + "\r\ns=-\r\nc=IN IP4 " + tt.addr + "\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
		s := new(sdp.Session)
		if err := s.Parse([]byte(text), &sdp.Limits{}); err != nil {
			t.Fatal(err)
		}
		m := &media{call: control.Call{Spec: control.Spec{Streams: 1}}}
		m.ends[control.Callee] = end{network: &network{subscribers: tt.subscribers}, signal: signal}
		var want netip.AddrPort
		if tt.rtp != "" {
			want = netip.MustParseAddrPort(tt.rtp)
		}
		if got := m.remotes(control.Callee, s, nil); len(got) != 1 || got[0].RTP != want || got[0].Signal != tt.signal {
			t.Errorf("%s: %+v, want RTP %v and signalling %v", tt.name, got, want, tt.signal)
		}
	}
}

// TestRelayGivenUp: who gives up while there are no addresses yet is heard, and the telephone does not ring after that.
func TestRelayGivenUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		resume := r.Pause()
		invite := caller.invite("05010000002", "Subject: never mind")
		caller.want("100")
		caller.send(reply(invite, nil, "CANCEL"))
		caller.want("200")
		caller.send(reply(invite, caller.want("487"), "ACK"))
		resume()
		r.Await(func(calls map[control.ID][]control.Remote, closed []control.ID) bool {
			return len(calls) == 0 && len(closed) > 0
		})
		invite = caller.invite("05010000002", "Subject: lunch")
		m := keep(callee.want("INVITE"))
		if !strings.Contains(string(m.Head()), "Subject: lunch") {
			t.Errorf("the telephone rings for\n%s", m.Head())
		}
		callee.response(m, 486, "")
		callee.want("ACK")
		caller.send(reply(invite, caller.want("486"), "ACK"))
	})
}
