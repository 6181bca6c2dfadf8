// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
)

var update = flag.Bool("update", false, "write docs/translator-scorecard.md")

const scorecard = "../docs/translator-scorecard.md"

// rule is a line of the scorecard: what a translator must do, who says so, and the packets that show it.
type rule struct {
	number int
	name   string
	rfc    string
	test   func(t *testing.T)
}

func rules() []rule {
	return []rule{
		{1, "4→6, may not be cut, too long: ICMPv4 3/4 with the MTU less 20", "RFC 7915 §4.1, §4.4", ruleTooBig},
		{2, "4→6, may be cut, too long: cut for the smallest IPv6 MTU, with fragment headers", "RFC 7915 §4.1", ruleCut},
		{3, "ICMPv4 3/4 becomes Packet Too Big: plus 20, at least 1280, the plateau if there is no MTU", "RFC 7915 §4.2", ruleNeeded},
		{4, "Packet Too Big becomes ICMPv4 3/4: less 20, at most what the links have", "RFC 7915 §5.2", rulePacketTooBig},
		{5, "6→4 up to 1260 bytes may be cut and has an identification of its own; longer may not", "RFC 7915 §5.1", ruleIdentification},
		{6, "fragments, first and later, both ways; a later one without its first passes", "RFC 7915 §5.1.1, RFC 6146 §3.4", ruleFragments},
		{7, "UDP without a checksum gets one; a first fragment without one is dropped and counted", "RFC 7915 §4.5", ruleNoChecksum},
		{8, "the packet that an ICMP error quotes is translated too, with its checksum", "RFC 7915 §4.3, §5.3", ruleQuoted},
		{9, "hop limit less one, once; expired packets are answered; routers have an address in the other family", "RFC 7915 §5.1, RFC 6791", ruleHops},
		{10, "MSS is lowered to what fits both ways on SYN and SYN-ACK, and never raised", "RFC 9293 §3.7.1", ruleMSS},
		{11, "an ICMP error about a flow of another edge reaches the server", "RFC 7690", ruleSpread},
		{12, "an MTU that no link has is dropped; an error about no flow passes", "RFC 8201 §4", ruleLies},
		{13, "a super-packet is measured by its segments", "RFC 7915 §4.1", ruleSuperPacket},
		{14, "traffic class is copied, or cleared if told so; a flow has one flow label", "RFC 7915 §4.1, RFC 6437", ruleClass},
		{15, "64:ff9b::/96 is refused, since clients may have private IPv4", "RFC 6052 §3.1", rulePrefix},
	}
}

// TestRules: each rule of the scorecard holds.
func TestRules(t *testing.T) {
	for _, r := range rules() {
		t.Run(fmt.Sprintf("%02d", r.number), r.test)
	}
}

// TestScorecard: the published table is the one of the tests.
func TestScorecard(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Scorecard of the translator\n\nWritten by `go test ./kernel -run TestScorecard -update` out of kernel/rules_test.go; do not edit.\n")
	b.WriteString("Each line is a test with packets, under BPF_PROG_TEST_RUN: `go test ./kernel -run TestRules/01`.\n\n| | rule | from |\n|---|---|---|\n")
	for _, r := range rules() {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", r.number, r.name, r.rfc)
	}
	if *update {
		if err := os.WriteFile(scorecard, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(scorecard); err != nil || string(got) != b.String() {
		t.Errorf("%s is stale (%v): go test ./kernel -run TestScorecard -update", scorecard, err)
	}
}

func crossing46() ip.Crossing { return ip.Crossing{Client: ip.V4, Backend: ip.V6} }
func crossing64() ip.Crossing { return ip.Crossing{Client: ip.V6, Backend: ip.V4} }

// opened returns a rig with a UDP flow.
func opened(t testing.TB, c ip.Crossing) *rig {
	t.Helper()
	r := newRig(t, Options{Flows: 100, Pending: 100, StandIns: 10})
	r.serve(c)
	r.forwards(question(c, []byte("hello")))
	r.forwardsBack(reply(c, []byte("hi")))
	return r
}

func question(c ip.Crossing, payload []byte) packet {
	return packet{from: clientAt(c.Client), to: frontOf(c.Client), protocol: protocolUDP, ttl: 64, payload: payload, df: true}
}

func reply(c ip.Crossing, payload []byte) packet {
	return packet{from: serverOf(c.Backend), to: sourceOf(c), protocol: protocolUDP, ttl: 64, payload: payload, df: true}
}

// sent is what the server must see of a question, answered what the client must see of a reply.
func sent(c ip.Crossing, p packet) packet {
	p.from, p.to, p.ttl = sourceOf(c), serverOf(c.Backend), p.ttl-1
	p.df = df(c, 28+len(p.payload))
	return p
}

func answered(c ip.Crossing, p packet) packet {
	p.from, p.to, p.ttl = frontOf(c.Client), clientAt(c.Client), p.ttl-1
	p.df = df(c, 28+len(p.payload))
	return p
}

func (r *rig) forwards(p packet) []byte { return r.redirected(true, p.bytes()) }

func (r *rig) forwardsBack(p packet) []byte { return r.redirected(false, p.bytes()) }

// redirected lets a frame come in from the clients, or from the servers, and wants it to go on.
func (r *rig) redirected(client bool, frame []byte) []byte {
	r.t.Helper()
	verdict, out := r.from(client, frame)
	if verdict != actRedirect {
		r.t.Fatalf("verdict %d, want redirect; %s", int32(verdict), r.reasons())
	}
	return out
}

func (r *rig) from(client bool, frame []byte) (uint32, []byte) {
	r.t.Helper()
	if client {
		return r.in(r.clients, frame)
	}
	return r.in(r.servers, frame)
}

// counted wants a reason to have been counted.
func (r *rig) counted(want Reason) {
	r.t.Helper()
	n := uint64(0)
	r.must(r.Counts(func(_ string, _ ip.Crossing, reason Reason, c Traffic) {
		if reason == want {
			n += c.Packets
		}
	}))
	if n == 0 {
		r.t.Errorf("%s is not counted; %s", want, r.reasons())
	}
}

// icmpOf checks an ICMP error's headers and checksums, and returns it from its type on.
func icmpOf(t *testing.T, frame []byte, from, to netip.Addr) []byte {
	t.Helper()
	base, protocol, sum := 14+40, byte(58), uint32(0)
	if from.Is4() {
		base, protocol = 14+20, 1
		if checksum(frame[14:34], 0) != 0 {
			t.Errorf("IPv4 checksum is wrong: %x", frame[14:34])
		}
	}
	addresses := frame[base-2*from.BitLen()/8 : base]
	if string(addresses) != string(from.AsSlice())+string(to.AsSlice()) {
		t.Errorf("goes %x, want from %s to %s", addresses, from, to)
	}
	var length int
	if from.Is4() {
		length = int(binary.BigEndian.Uint16(frame[16:])) - 20
		if frame[23] != protocol {
			t.Errorf("protocol %d", frame[23])
		}
	} else {
		length = int(binary.BigEndian.Uint16(frame[18:]))
		if frame[20] != protocol {
			t.Errorf("next header %d", frame[20])
		}
		sum = pseudo(from, to, protocol, length)
	}
	if length != len(frame)-base {
		t.Errorf("length %d, of %d bytes", length, len(frame)-base)
	}
	if checksum(frame[base:], sum) != 0 {
		t.Errorf("ICMP checksum is wrong")
	}
	return frame[base:]
}

// icmp makes a frame with an ICMP error that quotes what a frame carries.
func icmp(from, to netip.Addr, kind, code byte, rest uint32, quoted []byte) []byte {
	p := packet{from: netip.AddrPortFrom(from, 0), to: netip.AddrPortFrom(to, 0), protocol: 58, ttl: 64}
	sum := uint32(0)
	message := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, quoted[14:]...)
	binary.BigEndian.PutUint32(message[4:], rest)
	if from.Is4() {
		p.protocol = 1
	} else {
		sum = pseudo(from, to, 58, len(message))
	}
	binary.BigEndian.PutUint16(message[2:], checksum(message, sum))
	return append(p.headers(len(message)), message...)
}

// isMessage compares the first 8 bytes of an ICMP error, but for the checksum.
func isMessage(t *testing.T, got []byte, kind, code byte, rest uint32) {
	t.Helper()
	if got[0] != kind || got[1] != code || binary.BigEndian.Uint32(got[4:]) != rest {
		t.Errorf("ICMP %d/%d with %d, want %d/%d with %d", got[0], got[1], binary.BigEndian.Uint32(got[4:]), kind, code, rest)
	}
}

func ruleTooBig(t *testing.T) {
	r := opened(t, crossing46())
	frame := question(crossing46(), make([]byte, 1472)).bytes()
	got := icmpOf(t, r.redirected(true, frame), frontOf(ip.V4).Addr(), clientAt(ip.V4).Addr())
	isMessage(t, got, 3, 4, 1480)
	if len(got)+20 != 576 {
		t.Errorf("the answer has %d bytes, want 576", len(got)+20)
	}
	r.counted(Reason(forwardReasonANSWERED_TOO_BIG))
	r.forwards(question(crossing46(), make([]byte, 1452)))
}

// The first piece goes to the real ingress of the interface, so here only the rest is seen, and then the pieces as they come in again.
func ruleCut(t *testing.T) {
	c := crossing46()
	r := opened(t, c)
	p := question(c, make([]byte, 1400))
	p.df, p.id = false, 77
	rest := r.redirected(true, p.bytes())
	r.counted(Reason(forwardReasonFRAGMENTED))
	const first = 1232
	if size := binary.BigEndian.Uint16(rest[16:]); size != 20+1408-first {
		t.Errorf("the rest has %d bytes", size)
	}
	if at := binary.BigEndian.Uint16(rest[20:]); at != first/8 {
		t.Errorf("the rest is at %d, want %d", at, first/8)
	}
	head := p.bytes()[:34+first]
	binary.BigEndian.PutUint16(head[16:], 20+first)
	head[20], head[24], head[25] = 0x20, 0, 0
	binary.BigEndian.PutUint16(head[24:], checksum(head[14:34], 0))
	got := r.redirected(true, head)
	if len(got) != 14+1280 || got[20] != 44 || binary.BigEndian.Uint16(got[56:]) != 1 || binary.BigEndian.Uint32(got[58:]) != 77 {
		t.Errorf("first piece: %d bytes, %x", len(got), got[14:62])
	}
	whole := append([]byte{}, got[62:]...)
	got = r.redirected(true, rest)
	if got[20] != 44 || binary.BigEndian.Uint16(got[56:]) != first {
		t.Errorf("second piece: %x", got[14:62])
	}
	whole = append(whole, got[62:]...)
	if checksum(whole, pseudo(sourceOf(c).Addr(), serverOf(ip.V6).Addr(), protocolUDP, len(whole))) != 0 {
		t.Error("the pieces do not make a datagram with a good checksum")
	}
}

func ruleNeeded(t *testing.T) {
	c := crossing64()
	r := opened(t, c)
	quoted := sent(c, question(c, make([]byte, 1400))).bytes()
	router := netip.MustParseAddr("10.1.0.9")
	for _, tt := range []struct{ mtu, want uint32 }{{1400, 1420}, {1300, 1320}, {600, 1280}, {0, 1280}, {9000, 1500}} {
		got := icmpOf(t, r.redirected(false, icmp(router, sourceOf(c).Addr(), 3, 4, tt.mtu, quoted)), frontOf(ip.V6).Addr(), clientAt(ip.V6).Addr())
		isMessage(t, got, 2, 0, tt.want)
	}
}

func rulePacketTooBig(t *testing.T) {
	c := crossing46()
	r := opened(t, c)
	quoted := sent(c, question(c, make([]byte, 1400))).bytes()
	router := netip.MustParseAddr("fd00:1::9")
	for _, tt := range []struct{ mtu, want uint32 }{{1400, 1380}, {1280, 1260}, {9000, 1480}} {
		got := icmpOf(t, r.redirected(false, icmp(router, sourceOf(c).Addr(), 2, 0, tt.mtu, quoted)), frontOf(ip.V4).Addr(), clientAt(ip.V4).Addr())
		isMessage(t, got, 3, 4, tt.want)
	}
}

func ruleIdentification(t *testing.T) {
	c := crossing64()
	r := opened(t, c)
	seen := map[uint16]bool{}
	for range 100 {
		got := r.forwards(question(c, make([]byte, 1260-28)))
		if got[20] != 0 {
			t.Fatalf("1260 bytes: flags %x", got[20])
		}
		seen[binary.BigEndian.Uint16(got[18:])] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d identifications of 100 packets", len(seen))
	}
	if got := r.forwards(question(c, make([]byte, 1261-28))); got[20] != 0x40 {
		t.Errorf("1261 bytes: flags %x", got[20])
	}
}

// fragment makes an IPv6 fragment of what a frame carries.
func fragment6(frame []byte, from, to int, id uint32) []byte {
	data := frame[54:]
	more := uint16(1)
	if to == len(data) {
		more = 0
	}
	out := append([]byte{}, frame[:54]...)
	binary.BigEndian.PutUint16(out[18:], uint16(8+to-from))
	header := []byte{out[20], 0, 0, 0, 0, 0, 0, 0}
	out[20] = 44
	binary.BigEndian.PutUint16(header[2:], uint16(from)|more)
	binary.BigEndian.PutUint32(header[4:], id)
	return append(append(out, header...), data[from:to]...)
}

func ruleFragments(t *testing.T) {
	c := crossing64()
	r := opened(t, c)
	frame := question(c, []byte(strings.Repeat("fragment", 20))).bytes()
	if verdict, _ := r.from(true, fragment6(frame, 80, 168, 0x12345)); verdict != actUnspec {
		t.Errorf("a later fragment without its first: verdict %d", int32(verdict))
	}
	r.counted(Reason(forwardReasonPASSED_FRAGMENT))
	first := r.redirected(true, fragment6(frame, 0, 80, 0x12345))
	later := r.redirected(true, fragment6(frame, 80, 168, 0x12345))
	for _, tt := range []struct {
		got  []byte
		size int
		at   uint16
	}{{first, 80, 0x2000}, {later, 88, 10}} {
		if len(tt.got) != 34+tt.size || checksum(tt.got[14:34], 0) != 0 || binary.BigEndian.Uint16(tt.got[20:]) != tt.at ||
			binary.BigEndian.Uint16(tt.got[18:]) != 0x2345 {
			t.Errorf("fragment: %x", tt.got[14:34])
		}
	}
	whole := append(append([]byte{}, first[34:]...), later[34:]...)
	if checksum(whole, pseudo(sourceOf(c).Addr(), serverOf(ip.V4).Addr(), protocolUDP, len(whole))) != 0 {
		t.Error("the fragments do not make a datagram with a good checksum")
	}
}

func ruleNoChecksum(t *testing.T) {
	c := crossing46()
	r := opened(t, c)
	for _, n := range []int{0, 1, 2, 503, 504, 505, 1400} {
		p := question(c, []byte(strings.Repeat("x", n)))
		p.noSum = true
		want := sent(c, p)
		want.noSum = false
		expect(t, fmt.Sprint(n, " bytes"), r.forwards(p), want)
	}
	p := question(c, make([]byte, 200))
	p.noSum, p.df = true, false
	frame := p.bytes()
	frame[20], frame[24], frame[25] = 0x20, 0, 0
	binary.BigEndian.PutUint16(frame[24:], checksum(frame[14:34], 0))
	if verdict, _ := r.from(true, frame); verdict != actShot {
		t.Errorf("first fragment: verdict %d", int32(verdict))
	}
	r.counted(Reason(forwardReasonDROPPED_CHECKSUM))
}

func ruleQuoted(t *testing.T) {
	for _, c := range ip.Crossings() {
		r := opened(t, c)
		p := question(c, []byte("question"))
		p.ttl = 64
		kind, code, want := byte(3), byte(3), byte(3)
		if c.Backend == ip.V6 {
			kind, code = 1, 4
		}
		wantCode := byte(3)
		if c.Client == ip.V6 {
			want, wantCode = 1, 4
		}
		got := icmpOf(t, r.redirected(false, icmp(serverOf(c.Backend).Addr(), sourceOf(c).Addr(), kind, code, 0, sent(c, p).bytes())),
			frontOf(c.Client).Addr(), clientAt(c.Client).Addr())
		isMessage(t, got, want, wantCode, 0)
		inner := p
		inner.ttl, inner.df = 63, df(c, 28+len(p.payload))
		expect(t, c.String(), append(inner.bytes()[:14:14], got[8:]...), inner)
	}
}

func ruleHops(t *testing.T) {
	c := crossing64()
	r := opened(t, c)
	p := question(c, []byte("hello"))
	p.ttl = 1
	isMessage(t, icmpOf(t, r.forwards(p), frontOf(ip.V6).Addr(), clientAt(ip.V6).Addr()), 3, 0, 0)
	r.counted(Reason(forwardReasonANSWERED_EXPIRED))
	p.ttl = 2
	expect(t, "two hops", r.forwards(p), sent(c, p))
	// A router on the way to the client has no IPv4 address: the stand-in speaks for it, or what RFC 6791 asks for.
	for _, want := range []string{"100.64.0.17", "192.0.0.8"} {
		quoted := answered(c, reply(c, []byte("hi"))).bytes()
		got := r.redirected(true, icmp(netip.MustParseAddr("2001:db8:6::9"), frontOf(ip.V6).Addr(), 3, 0, 0, quoted))
		isMessage(t, icmpOf(t, got, netip.MustParseAddr(want), serverOf(ip.V4).Addr()), 11, 0, 0)
		r.options.Errors4 = netip.MustParseAddr("192.0.0.8")
		r.must(r.beat())
	}
}

func ruleMSS(t *testing.T) {
	for _, c := range ip.Crossings() {
		for _, tt := range []struct{ mss, want uint16 }{{1460, 1440}, {1000, 1000}, {8960, 1440}} {
			for _, before := range [][]byte{nil, {1}} { // at an even and at an odd place
				r := newRig(t, Options{Flows: 100, Pending: 100, StandIns: 10})
				r.serve(c)
				want := tt.want
				if c.Client == ip.V4 && c.Backend == ip.V4 && tt.mss > 1460 {
					want = 1460
				} else if c.Client == ip.V4 && c.Backend == ip.V4 {
					want = tt.mss
				}
				options := func(mss uint16) []byte {
					o := append(append([]byte{}, before...), 2, 4, byte(mss>>8), byte(mss))
					return append(o, make([]byte, 8-len(o))...)
				}
				p := question(c, nil)
				p.protocol, p.flags, p.options = protocolTCP, syn, options(tt.mss)
				q := sent(c, p)
				q.options = options(want)
				expect(t, c.String()+" SYN", r.forwards(p), q)
				p = reply(c, nil)
				p.protocol, p.flags, p.options = protocolTCP, syn|ack, options(tt.mss)
				q = answered(c, p)
				q.options = options(want)
				expect(t, c.String()+" SYN-ACK", r.forwardsBack(p), q)
			}
		}
	}
}

func ruleSpread(t *testing.T) {
	for _, c := range ip.Crossings() {
		r := newRig(t, Options{Flows: 100, Pending: 100, StandIns: 10})
		r.serve(c)
		quoted := answered(c, reply(c, []byte("hi"))).bytes()
		kind, want := byte(11), byte(11)
		if c.Client == ip.V6 {
			kind = 3
		}
		if c.Backend == ip.V6 {
			want = 3
		}
		frame := icmp(clientAt(c.Client).Addr(), frontOf(c.Client).Addr(), kind, 0, 0, quoted)
		if verdict, _ := r.from(true, frame); verdict != actUnspec {
			t.Errorf("%s: one edge alone: verdict %d", c, int32(verdict))
		}
		r.spread(c)
		isMessage(t, icmpOf(t, r.redirected(true, frame), sourceOf(c).Addr(), serverOf(c.Backend).Addr()), want, 0, 0)
	}
}

func ruleLies(t *testing.T) {
	c := crossing46()
	r := opened(t, c)
	router := netip.MustParseAddr("fd00:1::9")
	quoted := sent(c, question(c, make([]byte, 1000)))
	if verdict, _ := r.from(false, icmp(router, sourceOf(c).Addr(), 2, 0, 1279, quoted.bytes())); verdict != actShot {
		t.Errorf("an MTU of 1279: verdict %d", int32(verdict))
	}
	r.counted(Reason(forwardReasonDROPPED_ERROR_SMALL))
	quoted.from = netip.AddrPortFrom(quoted.from.Addr(), 999)
	if verdict, _ := r.from(false, icmp(router, sourceOf(c).Addr(), 2, 0, 1400, quoted.bytes())); verdict != actUnspec {
		t.Errorf("no flow: verdict %d", int32(verdict))
	}
	r.counted(Reason(forwardReasonPASSED_ERROR))
}

func ruleSuperPacket(t *testing.T) {
	c := crossing46()
	r := newRig(t, Options{Flows: 100, Pending: 100, StandIns: 10})
	r.serve(c)
	p := question(c, nil)
	p.protocol, p.flags = protocolTCP, syn
	r.forwards(p)
	p.flags, p.payload = ack, make([]byte, 3000)
	for size, want := range map[uint32]Reason{
		1440: Reason(forwardReasonFORWARDED), 1460: Reason(forwardReasonANSWERED_TOO_BIG),
	} {
		if verdict, _ := r.run(r.clients, p.bytes(), size); verdict != actRedirect {
			t.Errorf("segments of %d: verdict %d; %s", size, int32(verdict), r.reasons())
		}
		r.counted(want)
	}
}

func ruleClass(t *testing.T) {
	c := crossing46()
	r := opened(t, c)
	p := question(c, []byte("class"))
	p.class = 0xb9
	got := r.forwards(p)
	expect(t, "copied", got, sent(c, p))
	label := binary.BigEndian.Uint32(got[14:]) & 0xfffff
	if again := binary.BigEndian.Uint32(r.forwards(p)[14:]) & 0xfffff; label == 0 || again != label {
		t.Errorf("flow labels %x and %x, want two alike", label, again)
	}
	r.clear(c)
	p.from = netip.AddrPortFrom(p.from.Addr(), 50000)
	want := sent(c, p)
	want.class, want.from = 0, netip.AddrPortFrom(sourceOf(c).Addr(), 50000)
	expect(t, "cleared", r.forwards(p), want)
}

func rulePrefix(t *testing.T) {
	b := Backend{Addr: serverOf(ip.V6), Weight: 1, Source: SourceClient, Prefix: netip.MustParsePrefix("64:ff9b::/96")}
	if err := b.check(ip.V4); err == nil {
		t.Error("64:ff9b::/96 is accepted")
	}
	b.Prefix = netip.MustParsePrefix("64:ff9b:1::/96")
	if err := b.check(ip.V4); err != nil {
		t.Error(err)
	}
}
