// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"cmp"
	"context"
	"crypto/md5"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/saved"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
	"github.com/kyozon/kyozon/service"
)

const (
	domain   = "voip.example.jp"
	patience = time.Minute // for whatever a busy machine is slow to do
)

// unhurried has nothing sent again only because the machine is busy: SIPp takes a copy for the message that comes next.
func unhurried() transaction.Timers {
	return transaction.Timers{T1: 10 * time.Second, T2: 10 * time.Second}
}

func TestMain(m *testing.M) { servertest.Main(m) }

// bench is an edge with one phone service, at one address of each family.
type bench struct {
	t           *testing.T
	edge        *edge.Edge
	dir         string
	at          map[ip.Family]netip.AddrPort
	more        string      // keys of the service
	subscribers string      // keys of the subscribers
	networks    string      // the section of that name
	port        uint16      // of TLS
	listens     string      // more of them, each after a comma
	trusts      *tls.Config // how its certificate is verified
	core        *core
	end         func()

	loops  int
	source string // of the subscribers; a file if empty
	state  string // its directory; "state" if empty
}

// newBench starts one; subscribers 0501000000x have the password "secret".
func newBench(t *testing.T, options string) *bench {
	t.Helper()
	return newBenchOf(t, 2, options)
}

// newBenchOf starts one with so many loops.
func newBenchOf(t *testing.T, loops int, options string) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), loops: loops, at: make(map[ip.Family]netip.AddrPort)}
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
	b.start(options)
	t.Cleanup(func() { b.end() })
	return b
}

// start starts the edge, again after end: at the same addresses, with the state that there is.
func (b *bench) start(options string) {
	b.t.Helper()
	if err := b.tryStart(options); err != nil {
		b.t.Fatal(err)
	}
}

// awaitForks waits for processes that other tests are just starting, and that may still have what was closed here.
func awaitForks() {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
}

// tryStart returns why it does not start.
func (b *bench) tryStart(options string) error {
	b.t.Helper()
	awaitForks()
	p := Protocol()
	p.Build = func(services []*service.Service, env service.Env) (service.Server, error) {
		server, err := build(services, env)
		b.core = service.Keep(env, "phone", func() *core { return nil })
		return server, err
	}
	var err error
	if b.edge, err = edge.New(edge.Options{Log: slog.New(slog.NewTextHandler(b.t.Output(), nil)), Version: "test",
		Protocols: []service.Protocol{p}, Loops: b.loops, Sockets: listen.NewSet(listen.Options{})}); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan bool), make(chan error, 1)
	cfg := b.parse(options)
	go func() { ended <- b.edge.Run(ctx, cfg, func() { close(started) }) }()
	b.end = func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
		b.end = func() {}
	}
	select {
	case <-started:
		b.each(func(a *agent) { a.table.Timers, a.opening = unhurried(), patience })
		return nil
	case err := <-ended:
		ended <- nil
		return err
	}
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// site returns the site file.
func (b *bench) site(options string) string {
	state, source := cmp.Or(b.state, "state"), cmp.Or(b.source, "from: subscribers")
	return fmt.Sprintf("site: test\nservices:\n  phone:\n    protocol: phone\n    listen: {access: [%q, %q%s]}\n%s"+
		"    phone: {domain: %s, subscribers: {%s%s}%s}\nstate: {directory: %s}\nadmin: {listen: off}\ndrain: 1s\n%s",
		b.at[ip.V4], b.at[ip.V6], b.listens, b.more, domain, source, b.subscribers, options, state, b.networks)
}

func (b *bench) parse(options string) *config.Config {
	b.t.Helper()
	text := b.site(options)
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
	from    string // its address in From; empty is that of its name
	well    bool   // it answers when it is asked whether it is
	scheme  string // of its Contact and of whom it calls; empty is sip:
	callID  string
	seq     int
	digest  digest.Client
	buffer  []byte
	unread  []byte // over a connection
	copies  bool   // it hears those too of what it has heard over UDP: on a busy machine they come by themselves
	heard   map[string]bool
	silent  bool   // it calls without an offer
	body    string // its offer; empty is an ordinary one
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

// transport is the name that Via has for what it speaks over.
func (d *device) transport() string {
	if _, ok := d.conn.(*tls.Conn); ok {
		return "TLS"
	}
	return strings.ToUpper(d.conn.LocalAddr().Network())
}

// local is the address that the telephone writes into its messages.
func (d *device) local() string { return d.conn.LocalAddr().String() }

// contact is its Contact.
func (d *device) contact() string {
	return "<" + cmp.Or(d.scheme, "sip:") + d.name + "@" + d.local() + ">"
}

// request returns a request with the lines, which end without CRLF.
func (d *device) request(method, target string, lines ...string) string {
	d.seq++
	from := d.from
	if from == "" {
		from = "<sip:" + d.name + "@" + domain + ">"
	}
	head := []string{method + " " + target + " SIP/2.0",
		fmt.Sprintf("Via: SIP/2.0/%s %s;rport;branch=z9hG4bK%x", d.transport(), d.local(), rand.Uint64()),
		"Max-Forwards: 70", "From: " + from + ";tag=t" + d.name, "To: <sip:" + d.name + "@" + domain + ">",
		"Call-ID: " + d.callID, fmt.Sprintf("CSeq: %d %s", d.seq, method)}
	return strings.Join(append(append(head, lines...), "Content-Length: 0", "", ""), "\r\n")
}

func (d *device) send(message string) {
	d.t.Helper()
	d.conn.SetWriteDeadline(time.Now().Add(patience))
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
				if err := d.message.Parse(d.unread[:n:n], nil); err != nil { // the stream has looked at the head alone
					d.t.Fatal(err)
				}
				d.unread = d.unread[n:]
				return &d.message
			}
		}
		d.conn.SetReadDeadline(time.Now().Add(patience))
		n, err := d.conn.Read(d.buffer)
		if err != nil {
			d.t.Fatalf("%s hears nothing: %v", d.name, err)
		}
		if d.conn.LocalAddr().Network() == "tcp" {
			d.unread = append(d.unread, d.buffer[:n]...)
			continue
		}
		if d.knows(d.buffer[:n]) {
			continue
		}
		if err := d.message.Parse(append([]byte(nil), d.buffer[:n]...), nil); err != nil {
			d.t.Fatal(err)
		}
		return &d.message
	}
}

// knows says whether a datagram is a copy of one that has come, and nothing new.
func (d *device) knows(datagram []byte) bool {
	if d.heard == nil {
		d.heard = make(map[string]bool)
	}
	known := d.heard[string(datagram)]
	d.heard[string(datagram)] = true
	return known && !d.copies
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
	return d.registerBy(digest.MD5, lines...)
}

// registerBy registers with a digest of one algorithm.
func (d *device) registerBy(by digest.Algorithm, lines ...string) int {
	d.t.Helper()
	target := "sip:" + domain
	status := d.ask("REGISTER", target, lines...)
	if status != 401 {
		return status
	}
	for value, i := d.message.Field(sip.WWWAuthenticate, 0); value != nil; value, i = d.message.Field(sip.WWWAuthenticate, i) {
		if strings.Contains(string(value), "algorithm="+by.String()+",") {
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

// registered returns a telephone that has registered.
func (b *bench) registered(transport string, f ip.Family, name string) *device {
	b.t.Helper()
	d := b.newDevice(transport, f, name)
	if status := d.register("Contact: " + d.contact()); status != 200 {
		b.t.Fatalf("%s cannot register: %d", name, status)
	}
	return d
}

// offer is a description of media at an address of the family that the telephone has.
func (d *device) offer() string {
	a := addrOf(d).Addr()
	if d.body != "" {
		return d.body
	}
	word := map[bool]string{true: "IP4", false: "IP6"}[a.Is4()]
	return fmt.Sprintf("v=0\r\no=- 1 1 IN %s %s\r\ns=-\r\nc=IN %s %s\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n", word, a, word, a)
}

// withBody puts a description into a message.
func withBody(message, body string) string {
	return strings.Replace(message, "Content-Length: 0\r\n", fmt.Sprintf("Content-Type: application/sdp\r\nContent-Length: %d\r\n", len(body)), 1) + body
}

// invite calls somebody, with the password, and returns the INVITE that was sent last. More lines may be given.
func (d *device) invite(called string, lines ...string) string {
	d.t.Helper()
	target := cmp.Or(d.scheme, "sip:") + called + "@" + domain
	lines = append([]string{"Contact: " + d.contact()}, lines...)
	to := func(s string) string { return strings.Replace(s, "To: <sip:"+d.name+"@", "To: <sip:"+called+"@", 1) }
	offering := func(s string) string {
		if d.silent {
			return s
		}
		return withBody(s, d.offer())
	}
	first := to(offering(d.request("INVITE", target, lines...)))
	d.send(first)
	m := d.hear()
	if m.Status() != 401 {
		d.t.Fatalf("got %d, want a challenge", m.Status())
	}
	d.send(reply(first, m, "ACK"))
	for value, i := m.Field(sip.WWWAuthenticate, 0); value != nil; value, i = m.Field(sip.WWWAuthenticate, i) {
		if strings.Contains(string(value), "MD5") {
			if err := d.digest.Take(value); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	second := to(offering(d.request("INVITE", target, append(lines,
		"Authorization: "+string(d.digest.Append(nil, "INVITE", target, [8]byte{1, byte(d.seq)})))...)))
	d.send(second)
	return second
}

// reply writes the ACK of a failure, or CANCEL: a request with the Via and the CSeq of another, whose answer is m.
func reply(request string, m *sip.Message, method string) string {
	var r sip.Message
	if err := r.Parse([]byte(request), nil); err != nil {
		panic(err)
	}
	seq, _ := r.Sequence()
	to := string(r.Get(sip.To))
	if m != nil {
		to = string(m.Get(sip.To))
	}
	return fmt.Sprintf("%s %s SIP/2.0\r\nVia: %s\r\nMax-Forwards: 70\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\nContent-Length: 0\r\n\r\n",
		method, r.Target(), r.Get(sip.Via), r.Get(sip.From), to, r.Get(sip.CallID), seq.Number, method)
}

// within writes a request of d in the dialog that a message has shown: a response that came, or a request.
func (d *device) within(m *sip.Message, method string, seq uint32) string {
	from, to := m.Get(sip.From), m.Get(sip.To)
	if m.Request() {
		from, to = to, from
		if a, _, _ := sip.ParseAddress(from); a.Tag() == nil {
			from = append(slices.Clip(from), ";tag=tag"+d.name...)
		}
	}
	var target string
	m.Values(sip.Contact, func(a *sip.Address) bool {
		target = string(a.URI)
		return false
	})
	return fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/%s %s;rport;branch=z9hG4bK%x\r\nMax-Forwards: 70\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\n"+
		"Contact: %s\r\nContent-Length: 0\r\n\r\n", method, target, d.transport(), d.local(), rand.Uint64(), from, to,
		m.Get(sip.CallID), seq, method, d.contact())
}

// response writes an answer of d to a request that it has heard.
func (d *device) response(m *sip.Message, status int, body string, lines ...string) {
	d.t.Helper()
	a := sip.Answer{Status: status, Tag: []byte("tag" + d.name), Dialog: true, Body: []byte(body), Type: "application/sdp",
		Lines: []byte("Contact: " + d.contact() + "\r\n")}
	for _, l := range lines {
		a.Lines = append(a.Lines, l+"\r\n"...)
	}
	d.send(string(a.Append(nil, m, addrOf(d))))
}

// want fails unless the next message is what is said: a method or a status.
func (d *device) want(what string) *sip.Message {
	d.t.Helper()
	for {
		m := d.hear()
		got := string(m.Method())
		if !m.Request() {
			got = index(m.Status())
		}
		if got == "100" && what != "100" {
			continue
		}
		if got == "OPTIONS" && what != "OPTIONS" && d.well {
			d.response(keep(m), 200, "")
			continue
		}
		if got != what {
			d.t.Fatalf("%s got %s, want %s:\n%s", d.name, got, what, m.Head())
		}
		return m
	}
}

// keep returns a copy of a message that outlives the next one.
func keep(m *sip.Message) *sip.Message {
	c := new(sip.Message)
	b, _ := m.Body()
	if err := c.Parse(append(append([]byte(nil), m.Head()...), b...), nil); err != nil {
		panic(err)
	}
	return c
}

// unregister takes all bindings away.
func (d *device) unregister() {
	d.t.Helper()
	if status := d.register("Contact: *", "Expires: 0"); status != 200 {
		d.t.Errorf("%s cannot unregister: %d", d.name, status)
	}
}

// legs calls fn on the loop of each leg that there is, and winds its clock.
func (b *bench) legs(fn func(l *leg)) {
	for _, a := range b.core.agents {
		done := make(chan bool)
		a.loop.Post(func() {
			for _, l := range a.legs {
				fn(l)
				l.wind()
			}
			close(done)
		})
		<-done
	}
}

// call has caller call callee, who answers; more lines may be given for the INVITE and the answer. It returns what each has
// heard: the answer, and the INVITE.
func (b *bench) call(caller, callee *device, invite, answer []string) (heard, came *sip.Message) {
	b.t.Helper()
	caller.invite(callee.name, invite...)
	came = keep(callee.want("INVITE"))
	callee.response(came, 200, callee.offer(), answer...)
	heard = keep(caller.want("200"))
	seq, _ := heard.Sequence()
	caller.send(caller.within(heard, "ACK", seq.Number))
	callee.want("ACK")
	return heard, came
}

// until waits for what no message says.
func (b *bench) until(done func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			b.t.Fatal("it does not happen")
		}
	}
}

// hangUp has caller end a call, with a number of its own.
func hangUp(caller, callee *device, heard *sip.Message, seq uint32) {
	caller.t.Helper()
	caller.send(caller.within(heard, "BYE", seq))
	caller.want("200")
	callee.response(keep(callee.want("BYE")), 200, "")
}

// savedCall is a call that was saved, with no timer.
func savedCall() *saved.Call {
	leg := func(local, remote string) saved.Leg {
		s := &dialog.Session{Dialog: dialog.Dialog{CallID: "one", Local: "<sip:05010000001@voip.example.jp>",
			Remote: "<sip:05010000002@voip.example.jp>", LocalTag: "3jhz2svohycgr556kn3lwsymt", RemoteTag: "3jhz2svohycgr556kn3lwsymt",
			LocalSeq: 7, RemoteSeq: 9, Target: "sip:05010000001@" + remote, Confirmed: true}}
		return saved.Leg{Session: s, Way: sip.Way{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}}
	}
	at := time.Now()
	r := &cdr.Record{ID: "x", Start: at, Answer: &at, From: "05010000001", To: "05010000002", Dialled: "05010000002", Class: "own"}
	r.Caller = cdr.Leg{Network: "access", Family: "ipv4", Peer: "05010000001", Address: netip.MustParseAddrPort("192.0.2.9:5060")}
	r.Called = &r.Caller
	return &saved.Call{Caller: leg("192.0.2.1:5060", "192.0.2.9:5060"), Called: leg("[2001:db8::5]:5060", "[2001:db8::9]:5060"), Record: r}
}
