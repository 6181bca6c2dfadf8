// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phonetest

import (
	"bytes"
	"math"
	"net/netip"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// What one ear says, the other hears as it is, over each family: a tone, keys, reports.
func TestEar(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		p := New(t, Options{Name: "05010000001", Addrs: []netip.Addr{iptest.Loopback(f)}})
		one, two := p.Listen(f), p.Listen(f)
		var said [][]byte
		for range 25 {
			said = append(said, one.Voice.Tone(440))
		}
		for _, key := range []byte("190*#AD1") {
			said = append(said, one.Voice.Digit(key)...)
		}
		for _, b := range said {
			one.Say(RTP, two.At(RTP), b)
		}
		one.Say(RTCP, two.At(RTCP), one.Voice.Report())
		heard, ok := two.Await(patience, func(all []Packet) bool { return len(all) == len(said)+1 })
		if !ok {
			t.Fatalf("%d packets of %d", len(heard), len(said)+1)
		}
		reports := 0
		for _, h := range heard {
			if h.At == RTCP && h.From == one.At(RTCP) && bytes.Equal(h.Data, one.Voice.Report()) {
				reports++
			}
		}
		if got := Digits(heard); got != "190*#AD1" || reports != 1 {
			t.Errorf("heard %s, and %d reports", got, reports)
		}
		samples := Samples(heard)
		if tone, other := servertest.EnergyAt(samples, 440.0/8000), servertest.EnergyAt(samples, 1000.0/8000); tone < 0.99 || other > 0.01 || len(samples) != 25*frame {
			t.Errorf("%d samples, %.3f of 440 Hz, %.3f of 1000 Hz", len(samples), tone, other)
		}
	})
}

// A description is read as it was written.
func TestDescription(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		p := New(t, Options{Name: "05010000001", Addrs: []netip.Addr{iptest.Loopback(f)}})
		d := Description{Ear: p.Listen(f), Version: 3, Direction: "sendonly", Lines: []string{"rtcp-mux"}, Secure: true}
		told := p.Tells(d.String())
		if told.RTP != d.Ear.At(RTP) || told.RTCP != d.Ear.At(RTCP) || !told.Mux || told.Direction != "sendonly" {
			t.Errorf("%+v", told)
		}
		if user, id, version := told.Origin(); user != p.Name || id != "7" || version != "3" {
			t.Errorf("o=%s %s %s", user, id, version)
		}
	})
}

// G.711 keeps what it is given to one part in thirty.
func TestCompress(t *testing.T) {
	t.Parallel()
	for v := -32000.0; v <= 32000; v += 7 {
		if got := expand(compress(v)); math.Abs(got-v) > math.Abs(v)/30+4 {
			t.Errorf("%v becomes %v", v, got)
		}
	}
}
