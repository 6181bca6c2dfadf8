// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"crypto/md5"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/service"
)

const (
	domain   = "voip.example.jp"
	patience = 20 * time.Second
)

func TestMain(m *testing.M) { servertest.Main(m) }

// bench is an edge with one phone service, at one address of each family.
type bench struct {
	t    *testing.T
	edge *edge.Edge
	dir  string
	at   map[ip.Family]netip.AddrPort
	more string // keys of the service
	end  func()
}

// newBench starts one; subscribers 0501000000x have the password "secret".
func newBench(t *testing.T, options string) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), at: make(map[ip.Family]netip.AddrPort)}
	var subscribers strings.Builder
	for i := range 10 {
		name := fmt.Sprintf("0501000000%d", i)
		fmt.Fprintf(&subscribers, "%s:%s:%x\n", name, domain, md5.Sum([]byte(name+":"+domain+":secret")))
	}
	b.write("subscribers", subscribers.String())
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		var err error
		if b.at[f], err = servertest.FreeAddr(f); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if b.edge, err = edge.New(edge.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test",
		Protocols: []service.Protocol{Protocol()}, Loops: 2, Sockets: listen.NewSet(listen.Options{})}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan bool), make(chan error, 1)
	cfg := b.parse(options)
	go func() { ended <- b.edge.Run(ctx, cfg, func() { close(started) }) }()
	b.end = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { b.end() })
	select {
	case <-started:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return b
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) parse(options string) *config.Config {
	b.t.Helper()
	text := fmt.Sprintf("site: test\nservices:\n  phone:\n    protocol: phone\n    listen: {access: [%q, %q]}\n%s"+
		"    phone: {domain: %s, subscribers: {from: subscribers}%s}\nstate: {directory: state}\nadmin: {listen: off}\ndrain: 1s\n",
		b.at[ip.V4], b.at[ip.V6], b.more, domain, options)
	cfg, err := config.Parse(filepath.Join(b.dir, "site.yaml"), []byte(text), []service.Protocol{Protocol()}, config.Options{})
	if err != nil {
		b.t.Fatalf("%v\nin\n%s", err, text)
	}
	return cfg
}

// reload puts other options in place.
func (b *bench) reload(options string) {
	b.t.Helper()
	if err := b.edge.Reload(b.parse(options)); err != nil {
		b.t.Fatal(err)
	}
}

// device is a telephone.
type device struct {
	t       *testing.T
	conn    net.Conn
	name    string
	callID  string
	seq     int
	digest  digest.Client
	buffer  []byte
	unread  []byte // over a connection
	message sip.Message
}

// newDevice connects a telephone to the bench, over "udp" or "tcp".
func (b *bench) newDevice(transport string, f ip.Family, name string) *device {
	b.t.Helper()
	d := net.Dialer{LocalAddr: nil, Timeout: patience}
	c, err := d.Dial(transport, b.at[f].String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &device{t: b.t, conn: c, name: name, callID: fmt.Sprintf("%s-%s-%v", name, transport, c.LocalAddr()),
		digest: digest.Client{Username: name, Password: "secret"}, buffer: make([]byte, 64<<10)}
}

// local is the address that the telephone writes into its messages.
func (d *device) local() string { return d.conn.LocalAddr().String() }

// contact is its Contact.
func (d *device) contact() string { return "<sip:" + d.name + "@" + d.local() + ">" }

// request returns a request with the lines, which end without CRLF.
func (d *device) request(method, target string, lines ...string) string {
	d.seq++
	head := []string{method + " " + target + " SIP/2.0",
		fmt.Sprintf("Via: SIP/2.0/%s %s;rport;branch=z9hG4bK%s%d", strings.ToUpper(d.conn.LocalAddr().Network()), d.local(), d.callID[len(d.name):len(d.name)+4], d.seq+int(time.Now().UnixNano()%1e9)),
		"Max-Forwards: 70", "From: <sip:" + d.name + "@" + domain + ">;tag=t" + d.name, "To: <sip:" + d.name + "@" + domain + ">",
		"Call-ID: " + d.callID, fmt.Sprintf("CSeq: %d %s", d.seq, method)}
	return strings.Join(append(append(head, lines...), "Content-Length: 0", "", ""), "\r\n")
}

func (d *device) send(message string) {
	d.t.Helper()
	if _, err := d.conn.Write([]byte(message)); err != nil {
		d.t.Fatal(err)
	}
}

// hear returns the next message, valid until the next call.
func (d *device) hear() *sip.Message {
	d.t.Helper()
	var stream sip.Stream
	for {
		if d.conn.LocalAddr().Network() == "tcp" && len(d.unread) > 0 {
			n, what, err := stream.Next(d.unread, &d.message, nil)
			if err != nil {
				d.t.Fatal(err)
			}
			if what == sip.Whole {
				d.unread = d.unread[n:]
				return &d.message
			}
		}
		n, err := d.conn.Read(d.buffer)
		if err != nil {
			d.t.Fatalf("%s hears nothing: %v", d.name, err)
		}
		if d.conn.LocalAddr().Network() == "tcp" {
			d.unread = append(d.unread, d.buffer[:n]...)
			continue
		}
		if err := d.message.Parse(append([]byte(nil), d.buffer[:n]...), nil); err != nil {
			d.t.Fatal(err)
		}
		return &d.message
	}
}

// ask sends a request and returns the status of the answer.
func (d *device) ask(method, target string, lines ...string) int {
	d.t.Helper()
	d.send(d.request(method, target, lines...))
	for {
		if m := d.hear(); m.Status() != 100 {
			return m.Status()
		}
	}
}

// register registers the telephone, with its password, and returns the status.
func (d *device) register(lines ...string) int {
	d.t.Helper()
	target := "sip:" + domain
	status := d.ask("REGISTER", target, lines...)
	if status != 401 {
		return status
	}
	for value, i := d.message.Field(sip.WWWAuthenticate, 0); value != nil; value, i = d.message.Field(sip.WWWAuthenticate, i) {
		if strings.Contains(string(value), "MD5") {
			if err := d.digest.Take(value); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	return d.ask("REGISTER", target, append(lines, "Authorization: "+string(d.digest.Append(nil, "REGISTER", target, [8]byte{byte(d.seq)})))...)
}

// each runs a test for each transport and family.
func each(t *testing.T, test func(t *testing.T, transport string, f ip.Family)) {
	t.Helper()
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) { test(t, transport, f) })
		})
	}
}

func addrOf(d *device) netip.AddrPort { return netip.MustParseAddrPort(d.local()) }
