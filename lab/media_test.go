// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/phonetest"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/service"
)

// mediaLab has an edge and telephones of each families, twice: IPv4 alone, IPv6 alone, both.
const mediaLab = `
lab: media
links: {access: {}}
hosts:
  edge:
    links: {access: [203.0.113.11/24, "2001:db8:100::50/64"]}
    servers:
      - kyozon:
          inline: |
            site: media
            networks:
              access: {media: [203.0.113.11, "2001:db8:100:50::/64"], ports: 20000-20999}
            services:
              phone:
                protocol: phone
                listen: {access: ["203.0.113.11:5060", "[2001:db8:100::50]:5060"]}
                limits: {requests: 6000/s}
                phone:
                  domain: voip.example.jp
                  subscribers: {from: subscribers, networks: [access]}
                  cdr: /var/log/kyozon/calls.jsonl
            state: {directory: /var/lib/kyozon}
            admin: {listen: "127.0.0.1:8464"}
          files:
            subscribers: |
              05010000001:voip.example.jp:c4ce9faeca23ac6c045e78362992c706
              05010000002:voip.example.jp:74458205b483b8f2dc7607bd8a8cf7a9
`

// The numbers of the telephones, and the tones that they say.
const (
	callerNumber, calledNumber = "05010000001", "05010000002"
	callerTone, calledTone     = 400, 1000
)

// families is of which families a telephone is, the one first that it signals over.
type families []ip.Family

func kinds() []families { return []families{{ip.V4}, {ip.V6}, {ip.V6, ip.V4}} }

func (k families) String() string {
	return map[int]string{4: "IPv4", 6: "IPv6"}[int(k[0])] + map[bool]string{true: "+IPv4"}[len(k) == 2]
}

// host is the host of a telephone of a kind: n says which of the two, 1 or 2.
func (k families) host(n int) string {
	name := fmt.Sprintf("ta%d-", n)
	for _, f := range k {
		name += fmt.Sprint(int(f))
	}
	return name
}

func (k families) addrs(n int) (all []netip.Addr) {
	for _, f := range k {
		all = append(all, map[ip.Family]netip.Addr{
			ip.V4: netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + 10*n + len(k))}),
			ip.V6: netip.MustParseAddr(fmt.Sprintf("2001:db8:100::%d:%d", n, len(k)+6)),
		}[f])
	}
	return all
}

// edges is where the edge is.
func edges() []netip.AddrPort {
	return []netip.AddrPort{netip.MustParseAddrPort("203.0.113.11:5060"), netip.MustParseAddrPort("[2001:db8:100::50]:5060")}
}

// relayed says whether an address is one that the relay gives.
func relayed(a netip.Addr) bool {
	return a == edges()[0].Addr() || netip.MustParsePrefix("2001:db8:100:50::/64").Contains(a)
}

// upMedia brings the lab up.
func upMedia(t *testing.T) *Lab {
	t.Helper()
	needRoot(t)
	binary := servertest.Kyozon(t)
	f, err := Parse("media.yaml", []byte(mediaLab))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds() {
		for n := 1; n <= 2; n++ {
			spec := HostSpec{Links: make(map[string]List[netip.Prefix])}
			for _, a := range k.addrs(n) {
				spec.Links["access"] = append(spec.Links["access"], netip.PrefixFrom(a, map[bool]int{true: 24, false: 64}[a.Is4()]))
				if a.Is6() { // the relay's prefix is behind the edge
					spec.Gateway = List[netip.Addr]{edges()[1].Addr()}
				}
			}
			f.Hosts[k.host(n)] = spec
		}
	}
	l, err := Up(t.Context(), f, Options{Out: t.Output(), Kyozon: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// telephone starts a telephone of a kind on its host, and registers it over each of its families.
func (l *Lab) telephone(t *testing.T, k families, n int) *phonetest.Telephone {
	t.Helper()
	p := l.unregistered(t, k, n)
	p.Register(600)
	return p
}

func (l *Lab) unregistered(t *testing.T, k families, n int) *phonetest.Telephone {
	t.Helper()
	name := map[int]string{1: callerNumber, 2: calledNumber}[n]
	return phonetest.New(t, phonetest.Options{Name: name, Domain: "voip.example.jp", Password: "secret", Addrs: k.addrs(n), Servers: edges(),
		Instance: fmt.Sprintf("00000000-0000-1000-8000-00000000%02d%02d", n, k[0]) + fmt.Sprint(len(k)), Do: l.Host(k.host(n)).Do})
}

// end is one end of a call that is answered, or about to be.
type end struct {
	*phonetest.Call
	ear     *phonetest.Ear
	say     phonetest.Description // what it says of itself
	said    string
	told    phonetest.Told // what it was told of the other end
	origin  string         // of the first that it was told
	others  bool           // the other end is somebody else's, and does with o= as it likes
	version string         // of the last
	tone    int
}

// listen has an end hear at a family from now on.
func (e *end) listen(f ip.Family) {
	e.ear = e.Listen(f)
	e.say.Ear = e.ear
}

// describe returns what an end says of itself: the same as before, or a new version. RFC 3264 §8.
func (e *end) describe() string {
	if text := e.say.String(); text != e.said {
		e.say.Version++
	}
	e.said = e.say.String()
	return e.said
}

func (e *end) family() ip.Family { return ip.FamilyOf(e.ear.Addr) }

// learn reads what an end is told of the other. The description has its family; it is that of the relay, or of the other end; and its o= is
// that of the first, but for the version, which is another when anything is. RFC 3264 §8.
func (e *end) learn(t *testing.T, m *phonetest.Message) {
	t.Helper()
	was := e.told
	e.told = e.Tells(m.Body())
	if e.told.RTP.Addr().Is4() != e.ear.Addr.Is4() {
		t.Errorf("%v is told of %v", e.ear.Addr, e.told.RTP)
	}
	if e.others {
		return
	}
	user, id, version := e.told.Origin()
	if origin := user + " " + id; e.origin == "" {
		e.origin = origin
	} else if origin != e.origin {
		t.Errorf("%v is told of another session, %q after %q:\n%s", e.ear.Addr, origin, e.origin, e.told.Text)
	}
	if was.Text != "" && (version == e.version) != (was.Text == e.told.Text) {
		t.Errorf("%v is told of version %s after %s:\n%safter\n%s", e.ear.Addr, version, e.version, e.told.Text, was.Text)
	}
	e.version = version
}

// pair is a call.
type pair struct {
	t      *testing.T
	lab    *Lab
	caller *end
	called *end
	words  []string // for the report
}

// direct fails unless both ends were told of each other, or, if want is false, of the relay, and the edge says so.
func (p *pair) direct(want bool) {
	p.t.Helper()
	for _, e := range []*end{p.caller, p.called} {
		other := p.caller
		if e == p.caller {
			other = p.called
		}
		if got := e.told.RTP; want && got != other.ear.At(phonetest.RTP) || !want && !relayed(got.Addr()) {
			p.t.Errorf("direct is %v, and %v is told of %v, where the other is at %v", want, e.ear.Addr, got, other.ear.At(phonetest.RTP))
		}
	}
}

// path fails unless the edge says that the media of the one call that there is go directly, or why not.
func (p *pair) path(direct bool) {
	p.t.Helper()
	want := map[bool]string{true: "direct", false: "other family"}[direct]
	await(p.t, "the edge says "+want, func() bool {
		var calls []service.Call
		text := ask(p.t.Context(), p.t, p.lab, "calls", "--json")
		if err := json.Unmarshal([]byte(text), &calls); err != nil {
			p.t.Fatalf("%v: %s", err, text)
		}
		return len(calls) == 1 && calls[0].Media == want
	})
}

// idle waits until the relay has given back what it had.
func idle(t *testing.T, l *Lab) {
	t.Helper()
	await(t, "the relay has nothing any more", func() bool { return len(relaySockets(t, l)) == 0 })
}

// relaySockets returns the ports of the edge that are open in the range of the relay, as /proc/net has them.
func relaySockets(t *testing.T, l *Lab) []string {
	t.Helper()
	var text []byte
	if err := l.Host("edge").Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/udp")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, m := range regexp.MustCompile(`(?m)^ *\d+: 0B7100CB:([0-9A-F]{4}) `).FindAllSubmatch(text, -1) {
		if port := string(m[1]); port >= "4E20" && port <= "5207" { // 20000 to 20999
			ports = append(ports, port)
		}
	}
	return ports
}

// voices has both ends say their tone in so many packets, and fails unless the other hears each of them, as it was said, from where it
// sends to.
func (p *pair) voices(n int) {
	p.t.Helper()
	p.speaks(p.caller, p.called, n)
	p.speaks(p.called, p.caller, n)
}

// speaks has one end speak.
func (p *pair) speaks(from, to *end, n int) {
	p.t.Helper()
	p.opens(from, to)
	var said [][]byte
	for range n {
		said = append(said, from.ear.Voice.Tone(from.tone))
	}
	heard := p.carried(from, to, phonetest.RTP, said)
	samples := phonetest.Samples(heard)
	own := servertest.EnergyAt(samples, float64(from.tone)/8000)
	other := servertest.EnergyAt(samples, float64(callerTone+calledTone-from.tone)/8000)
	if own < 0.98 || other > 0.01 {
		p.t.Errorf("%v hears %.3f of the other's tone and %.3f of its own", to.ear.Addr, own, other)
	}
	p.words = append(p.words, fmt.Sprintf("%d of %d packets, tone %.3f", len(heard), n, own))
}

// opens has an end speak until the other hears it: the relay may not know of both yet. The other speaks too, unless it is on hold: one that
// signals from elsewhere than it hears must be heard before it hears.
func (p *pair) opens(from, to *end) {
	p.t.Helper()
	first := from.ear.Voice.Tone(from.tone)
	for range 1000 {
		if to.say.Direction == "" {
			to.ear.Say(phonetest.RTP, to.told.RTP, to.ear.Voice.Tone(to.tone))
		}
		from.ear.Say(phonetest.RTP, from.told.RTP, first)
		if _, ok := to.ear.Await(20*time.Millisecond, func(all []phonetest.Packet) bool {
			return slices.ContainsFunc(all, func(p phonetest.Packet) bool { return bytes.Equal(p.Data, first) })
		}); ok {
			return
		}
	}
	p.t.Fatalf("%v sends to %v, and %v does not hear it", from.ear.Addr, from.told.RTP, to.ear.Addr)
}

// carried has an end say packets, and returns what the other hears of them: all, each as it was, from where that end sends to.
func (p *pair) carried(from, to *end, port int, said [][]byte) (heard []phonetest.Packet) {
	p.t.Helper()
	for part := range slices.Chunk(said, 10) { // few enough for any buffer on the way
		to.ear.Forget()
		at, back := from.told.RTP, to.told.RTP
		if port == phonetest.RTCP {
			at, back = from.told.RTCP, to.told.RTCP
		}
		for _, b := range part {
			from.ear.Say(port, at, b)
		}
		all, ok := to.ear.Await(to.ear.Patience(), func(all []phonetest.Packet) bool {
			return count(all, part) == len(part)
		})
		if !ok {
			p.t.Fatalf("%v hears %d of %d packets", to.ear.Addr, count(all, part), len(part))
		}
		for _, one := range all {
			if one.From != back {
				p.t.Errorf("%v hears %v, and sends to %v", to.ear.Addr, one.From, back)
			}
			if slices.ContainsFunc(part, func(b []byte) bool { return bytes.Equal(b, one.Data) }) {
				heard = append(heard, one)
			}
		}
	}
	return heard
}

// count returns how many of the packets have come.
func count(all []phonetest.Packet, part [][]byte) (n int) {
	for _, b := range part {
		if slices.ContainsFunc(all, func(p phonetest.Packet) bool { return bytes.Equal(p.Data, b) }) {
			n++
		}
	}
	return n
}

// unmixed fails if an end was told of an address that is none of its business: of a family that it has not, or, but in a description of a
// call that is direct, of the other end.
func unmixed(t *testing.T, phones map[*phonetest.Telephone]families) {
	t.Helper()
	for p, k := range phones {
		foreign := make(map[string]bool)
		for o := range maps.Keys(phones) {
			for _, a := range o.Addrs {
				if o != p {
					foreign[a.String()] = true
				}
			}
		}
		for _, text := range p.Heard() {
			if strings.Contains(text, " REGISTER\r\n") { // RFC 3261 §10.3: it lists all the bindings of a number
				continue
			}
			head, body, _ := strings.Cut(text, "\r\n\r\n")
			for a := range foreign {
				if strings.Contains(head, a) {
					t.Errorf("%v sees %s:\n%s", k, a, text)
				}
			}
			if four, six := dotted.FindString(text), colons.FindString(text); len(k) == 1 && (k[0] == ip.V6 && four != "" || k[0] == ip.V4 && six != "") {
				t.Errorf("%v sees %s%s:\n%s", k, four, six, text)
			}
			if strings.Contains(body, "a=candidate") {
				t.Errorf("%v sees candidates:\n%s", k, text)
			}
		}
	}
}
