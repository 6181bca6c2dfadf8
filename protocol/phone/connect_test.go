// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// exchangeServer is a gateway that takes connections.
type exchangeServer struct {
	t *testing.T
	net.Listener
}

func newExchange(t *testing.T, f ip.Family, at string) *exchangeServer {
	t.Helper()
	l, err := net.Listen(map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[f], at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &exchangeServer{t, l}
}

func anyPort(f ip.Family) string { return netip.AddrPortFrom(iptest.Loopback(f), 0).String() }

// take waits for a connection.
func (s *exchangeServer) take(name string) *device {
	s.t.Helper()
	s.Listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := s.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &device{t: s.t, conn: c, name: name, callID: name + c.RemoteAddr().String(), buffer: make([]byte, 64<<10)}
}

// uri is where the gateway is.
func (s *exchangeServer) uri() string { return fmt.Sprintf("sip:%v;transport=tcp", s.Addr()) }

// byTrunk returns options with a trunk of gateways.
func byTrunk(gateways ...string) string {
	return fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%s], network: access}}, "+
		"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", `"`+strings.Join(gateways, `", "`)+`"`)
}

// isVia fails unless a request came over a transport, as its Via says, from the edge.
func isVia(t *testing.T, m *sip.Message, want sip.Transport, at netip.AddrPort) {
	t.Helper()
	if h, err := m.Top(); err != nil || !strings.HasPrefix(string(m.Get(sip.Via)), "SIP/2.0/"+want.String()+" ") ||
		netip.AddrPortFrom(h.SentBy.Addr, h.SentBy.Port) != at {
		t.Errorf("got Via %s, want %v of %v", m.Get(sip.Via), want, at)
	}
}

// A gateway over TCP has one connection, which is kept, and opened anew when it has gone.
func TestConnection(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		gateway := newExchange(t, x.Backend, anyPort(x.Backend))
		caller := b.registered("udp", x.Client, "05010000001")
		b.reload(byTrunk(gateway.uri()))
		if !b.carried(caller, x) {
			return
		}
		r := caller.invite("0312345678")
		one := gateway.take("one")
		invite := keep(one.want("INVITE"))
		isVia(t, invite, sip.TCP, b.at[x.Backend])
		if got, want := string(invite.Target()), "sip:+81312345678@"+one.local()+";user=phone;transport=tcp"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if from := one.conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); from != b.at[x.Backend].Addr() {
			t.Errorf("the connection comes from %v", from)
		}
		one.response(invite, 486, "")
		one.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))

		caller.invite("0312345678") // by the same connection
		invite = keep(one.want("INVITE"))
		one.response(invite, 200, one.offer())
		answer := keep(caller.want("200"))
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		one.want("ACK")
		one.conn.Close()
		caller.send(caller.within(answer, "BYE", seq.Number+1))
		caller.want("200")
		two := gateway.take("two")
		bye := keep(two.want("BYE"))
		if string(bye.Get(sip.CallID)) != string(invite.Get(sip.CallID)) {
			t.Errorf("got a BYE of another call")
		}
		two.response(bye, 200, "")
	})
}

// carried says whether media can go from end to end, so that a call by the trunk is carried. If not, it tries.
func (b *bench) carried(caller *device, x ip.Crossing) bool {
	b.t.Helper()
	if x.Client == x.Backend {
		return true
	}
	r := caller.invite("0312345678")
	caller.send(reply(r, caller.want("488"), "ACK"))
	return false
}

// A connection that ends under an INVITE is opened once more; then the next gateway is asked.
func TestConnectionBreaks(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		first, second := newExchange(t, f, anyPort(f)), b.newDevice("udp", f, "second")
		caller := b.registered("udp", f, "05010000001")
		b.reload(byTrunk(first.uri(), second.local()))
		r := caller.invite("0312345678")
		var branch []byte
		for range 2 {
			one := first.take("one")
			invite := one.want("INVITE")
			h, _ := invite.Top()
			if branch != nil && string(h.Branch) != string(branch) {
				t.Error("the INVITE that comes again is another")
			}
			branch = append([]byte(nil), h.Branch...)
			one.conn.Close()
		}
		second.response(keep(second.want("INVITE")), 486, "")
		second.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))

		first.Close() // from now on it is refused
		b.reload(byTrunk(first.uri()))
		r = caller.invite("0312345678")
		caller.send(reply(r, caller.want("503"), "ACK"))
	})
}

// A gateway that opens a connection, from any port, is known by its address; what it is asked goes where it listens.
func TestConnectionFromGateway(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		callee := b.registered("udp", f, "05010000002")
		defer callee.unregister()
		gateway := newExchange(t, f, anyPort(f))
		b.reload(byTrunk(gateway.uri()))
		from := b.newDevice("tcp", f, "gateway")
		from.from = "<sip:+81312345678@10.0.5.11;user=phone>"
		from.bring("+815010000002")
		invite := keep(callee.want("INVITE"))
		callee.response(invite, 200, callee.offer())
		answer := keep(from.want("200"))
		if got := string(answer.Get(sip.Contact)); !strings.HasSuffix(got, ";transport=tcp>") {
			t.Errorf("got Contact %s", got)
		}
		seq, _ := answer.Sequence()
		from.send(from.within(answer, "ACK", seq.Number))
		callee.want("ACK")
		from.conn.Close()
		callee.send(callee.within(invite, "BYE", 1))
		callee.want("200")
		home := gateway.take("home")
		home.response(keep(home.want("BYE")), 200, "")
	})
}

// What is too large for a datagram goes to a gateway over TCP; who has none gets it over UDP, and is not asked again.
func TestLarge(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		gateway := b.newDevice("udp", f, "gateway")
		caller := b.registered("udp", f, "05010000001")
		b.reload(byTrunk(gateway.local()))
		r := caller.invite("0312345678")
		invite := keep(gateway.want("INVITE"))
		size := map[ip.Family]int{ip.V4: 1400, ip.V6: 1200}[f] // one that IPv6 carries whole
		long := "Subject: " + strings.Repeat("x", size-len(invite.Head())-len(body(invite)))
		gateway.response(invite, 486, "")
		gateway.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
		for range 2 {
			r := caller.invite("0312345678", long)
			invite := keep(gateway.want("INVITE"))
			isVia(t, invite, sip.UDP, b.at[f])
			gateway.response(invite, 486, "")
			gateway.want("ACK")
			caller.send(reply(r, caller.want("486"), "ACK"))
		}
		other := b.newDevice("udp", f, "other")
		stream := newExchange(t, f, other.local())
		b.reload(byTrunk(other.local()))
		r = caller.invite("0312345678", long)
		conn := stream.take("stream")
		invite = keep(conn.want("INVITE"))
		isVia(t, invite, sip.TCP, b.at[f])
		conn.response(invite, 180, "")
		caller.want("180")
		caller.send(reply(r, nil, "CANCEL"))
		caller.want("200")
		conn.response(keep(conn.want("CANCEL")), 200, "")
		conn.response(invite, 487, "")
		conn.want("ACK")
		caller.send(reply(r, caller.want("487"), "ACK"))
		r = caller.invite("0312345678")
		invite = keep(other.want("INVITE")) // a small one
		isVia(t, invite, sip.UDP, b.at[f])
		other.response(invite, 486, "")
		other.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
	})
}
