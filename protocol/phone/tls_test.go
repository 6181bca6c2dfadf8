// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// secure gives the bench listens for TLS, and returns the options for them.
func (b *bench) secure() (options string) {
	b.t.Helper()
	server, client := servertest.TLS(b.t, domain)
	certificate, key := servertest.Files(b.t, b.dir, server)
	b.trusts = client
	at, err := servertest.FreeAddr(ip.V4)
	if err != nil {
		b.t.Fatal(err)
	}
	b.listens = fmt.Sprintf(`, "127.0.0.1:%d", "[::1]:%[1]d"`, at.Port())
	b.port = at.Port()
	return fmt.Sprintf(", tls: {certificate: %s, key: %s, port: %d}", certificate, key, at.Port())
}

// newSecure connects a telephone by TLS.
func (b *bench) newSecure(f ip.Family, name string, certificates ...tls.Certificate) *device {
	b.t.Helper()
	config := b.trusts.Clone()
	config.Certificates = certificates
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", netip.AddrPortFrom(iptest.Loopback(f), b.port).String(), config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	d := &device{t: b.t, conn: c, name: name, callID: name + c.LocalAddr().String(), buffer: make([]byte, 64<<10)}
	d.digest.Username, d.digest.Password = name, "secret"
	return d
}

// Telephones register over TLS and are called over their connections; one that is called by a SIPS URI must have given one.
func TestTLS(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.reload(b.secure())
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		callee := b.newSecure(x.Backend, "05010000002")
		if status := callee.register("Contact: " + callee.contact()); status != 200 {
			t.Fatalf("got %d", status)
		}
		defer callee.unregister()
		caller := b.newSecure(x.Client, "05010000001")
		r := caller.invite("05010000002")
		if x.Client != x.Backend {
			caller.send(reply(r, caller.want("488"), "ACK"))
			return
		}
		invite := keep(callee.want("INVITE"))
		isVia(t, invite, sip.TLS, netip.AddrPortFrom(iptest.Loopback(x.Backend), b.port))
		callee.response(invite, 200, callee.offer())
		answer := keep(caller.want("200"))
		if got := string(answer.Get(sip.Contact)); !strings.HasPrefix(got, "<sip:") || !strings.HasSuffix(got, ";transport=tls>") {
			t.Errorf("got Contact %s", got)
		}
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		callee.want("ACK")
		caller.send(caller.within(answer, "BYE", seq.Number+1))
		caller.want("200")
		callee.response(keep(callee.want("BYE")), 200, "")

		caller.scheme = "sips:"
		r = caller.invite("05010000002")
		caller.send(reply(r, caller.want("480"), "ACK"))
		callee.scheme = "sips:"
		if status := callee.register("Contact: " + callee.contact()); status != 200 {
			t.Fatalf("got %d", status)
		}
		caller.invite("05010000002")
		invite = keep(callee.want("INVITE"))
		if got := string(invite.Target()) + string(invite.Get(sip.Contact)); !strings.HasPrefix(got, "sips:") || !strings.Contains(got, "<sips:") {
			t.Errorf("got %s", got)
		}
		callee.response(invite, 200, callee.offer())
		answer = keep(caller.want("200"))
		if got := string(answer.Get(sip.Contact)); !strings.HasPrefix(got, "<sips:") || strings.Contains(got, "transport") {
			t.Errorf("got Contact %s", got)
		}
	})
}

// Nothing is answered over UDP at the port of TLS, and nothing in clear over TCP.
func TestNotTLS(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.reload(b.secure())
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		at := netip.AddrPortFrom(iptest.Loopback(f), b.port)
		old := b.at[f]
		b.at[f] = at
		udp, tcp := b.newDevice("udp", f, "05010000001"), b.newDevice("tcp", f, "05010000001")
		b.at[f] = old
		udp.send(udp.request("OPTIONS", "sip:"+domain))
		tcp.send(tcp.request("OPTIONS", "sip:"+domain))
		if n, err := tcp.conn.Read(tcp.buffer); err == nil {
			t.Errorf("got %q in clear", tcp.buffer[:n])
		}
		udp.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := udp.conn.Read(udp.buffer); err == nil {
			t.Errorf("got %q over UDP", udp.buffer[:n])
		}
	})
}

// A gateway is spoken to in TLS, with our certificate, if its own is signed by whom the trunk names.
func TestTLSGateway(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	options := b.secure()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		authority := servertest.NewAuthority(t, "carrier")
		b.write("ca.pem", string(authority.PEM()))
		server := &tls.Config{Certificates: []tls.Certificate{authority.IssueFor("west.example.jp", "sip:gw.example.jp")}, ClientAuth: tls.RequireAnyClientCert}
		other := &tls.Config{Certificates: []tls.Certificate{authority.IssueFor("gw.example.jp", "sip:other.example.jp")}}
		stranger, gateway := newExchange(t, f, anyPort(f)), newExchange(t, f, anyPort(f))
		stranger.Listener, gateway.Listener = tls.NewListener(stranger.Listener, other), tls.NewListener(gateway.Listener, server)
		caller := b.registered("udp", f, "05010000001")
		b.reload(options + fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q, %q], network: access, "+
			"tls: {ca: %s, name: gw.example.jp}}}, routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]",
			fmt.Sprintf("sip:%v;transport=tls", stranger.Addr()), fmt.Sprintf("sips:%v", gateway.Addr()), "ca.pem"))
		r := caller.invite("0312345678")
		c, err := stranger.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.(*tls.Conn).Handshake() == nil { // it hears afterwards what we think of its certificate
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("whoever shows another certificate is told of the call")
			}
		}
		d := &device{t: t, name: "gateway", buffer: make([]byte, 64<<10)}
		if d.conn, err = gateway.Accept(); err != nil {
			t.Fatal(err)
		}
		defer d.conn.Close()
		d.conn.SetDeadline(time.Now().Add(patience))
		invite := keep(d.want("INVITE"))
		isVia(t, invite, sip.TLS, netip.AddrPortFrom(iptest.Loopback(f), b.port))
		shown := d.conn.(*tls.Conn).ConnectionState().PeerCertificates
		if len(shown) == 0 || shown[0].DNSNames[0] != domain {
			t.Error("the edge does not show its certificate")
		}
		if got := string(invite.Target()) + string(invite.Get(sip.Contact)); !strings.HasPrefix(got, "sips:+81312345678@") || !strings.Contains(got, "<sips:") {
			t.Errorf("got %s", got)
		}
		d.response(invite, 486, "")
		d.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
	})
}

// A trunk that requires certificates is nobody's who shows none.
func TestTLSFromGateway(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	options := b.secure()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		authority := servertest.NewAuthority(t, "carrier")
		b.write("ca.pem", string(authority.PEM()))
		callee := b.registered("udp", f, "05010000002")
		defer callee.unregister()
		b.reload(options + fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q], network: access, "+
			"tls: {ca: ca.pem, name: gw.example.jp, require: true}}}, routes: [{to: own, via: subscribers}, {to: emergency, via: pstn}]",
			fmt.Sprintf("sips:%v", netip.AddrPortFrom(iptest.Loopback(f), 9))))
		for name, certificates := range map[string][]tls.Certificate{
			"none": nil, "of another": {servertest.NewAuthority(t, "other").IssueFor("gw.example.jp")}, "for another": {authority.IssueFor("other.example.jp")},
			"for another by URI": {authority.IssueFor("gw.example.jp", "sip:other.example.jp")},
		} {
			d := b.newSecure(f, "05010000001", certificates...)
			d.conn.Write([]byte(d.request("OPTIONS", "sip:"+domain)))
			if n, err := d.conn.Read(d.buffer); err == nil {
				t.Errorf("%s: got %q", name, d.buffer[:n])
			}
		}
		open := b.newDevice("tcp", f, "05010000001")
		r := open.bring("+815010000002")
		open.send(reply(r, open.want("401"), "ACK"))

		for _, shown := range []tls.Certificate{authority.IssueFor("gw.example.jp"), authority.IssueFor("west.example.jp", "sip:gw.example.jp")} {
			gateway := b.newSecure(f, "gateway", shown)
			gateway.from = "<sip:+81312345678@10.0.5.11;user=phone>"
			r = gateway.bring("+815010000002")
			callee.response(keep(callee.want("INVITE")), 486, "")
			callee.want("ACK")
			gateway.send(reply(r, gateway.want("486"), "ACK"))
		}
	})
}
