// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/service"
)

// program is the edge as it is run, in a process of its own, which others take the place of.
type program struct {
	*bench
	path, control string
	text          string    // of the site file
	media, edge   *exec.Cmd // `kyozon media` if media are relayed, and `kyozon run`
}

// run puts `kyozon run` in the place of the edge of a bench, beside `kyozon media` if relayed. Somebody else has a stream through
// it, which keeps each process that is replaced for as long as it is open.
func (b *bench) run(options string, relayed bool) *program {
	b.t.Helper()
	b.end()
	p := &program{bench: b, path: servertest.Kyozon(b.t), control: filepath.Join(b.dir, "control.sock")}
	if relayed {
		b.networks = fmt.Sprintf("networks: {access: {media: [127.0.0.5, %q], ports: 20000-20099, plane: user}}\n", relayAt[ip.V6])
	}
	at, err := servertest.FreeAddr(ip.V4)
	if err != nil {
		b.t.Fatal(err)
	}
	other := fmt.Sprintf("services:\n  other: {protocol: tcp, plane: user, listen: [%q], pools: {all: [%q]}, clients: {ipv4: all}}\n", at, servertest.Echo(b.t, ip.V4))
	p.text = strings.NewReplacer("services:\n", other, "drain: 1s", "drain: 1h").Replace(b.site(options))
	p.write("site.yaml", p.text)
	if relayed {
		p.relay()
	}
	p.serve()
	if relayed {
		p.linked()
	}
	stream, err := net.Dial("tcp4", at.String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { stream.Close() })
	if _, err = io.WriteString(stream, "x"); err == nil {
		_, err = stream.Read(make([]byte, 1))
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// relay starts `kyozon media`.
func (p *program) relay() {
	p.t.Helper()
	p.media = exec.Command(p.path, "media", filepath.Join(p.dir, "site.yaml"))
	servertest.Run(p.t, p.media, "media are relayed")
}

// serve starts `kyozon run`.
func (p *program) serve() {
	p.t.Helper()
	p.edge = exec.Command(p.path, "run", filepath.Join(p.dir, "site.yaml"), "--control", p.control)
	servertest.Run(p.t, p.edge, "generation in service")
}

// linked waits until the two have found each other.
func (p *program) linked() {
	p.t.Helper()
	p.await("the relay is there", func() bool { return p.sum("kyozon_media_up") == 1 })
}

// sum returns what the series of a metric come to.
func (p *program) sum(metric string) (n int64) {
	p.t.Helper()
	for _, c := range p.status().Counts {
		if c.Metric == metric {
			n += c.Value
		}
	}
	return n
}

// tell runs a command.
func (p *program) tell(args ...string) string {
	p.t.Helper()
	out, err := exec.CommandContext(p.t.Context(), p.path, append(args, "--control", p.control)...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("kyozon %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// upgrade has another process take the place of the one that runs.
func (p *program) upgrade() {
	p.t.Helper()
	before := p.status().PID
	p.tell("upgrade")
	if now := p.status().PID; now == before {
		p.t.Fatalf("process %d is still there", now)
	}
}

// change has the program read another file.
func (p *program) change(was, is string) {
	p.t.Helper()
	p.text = strings.Replace(p.text, was, is, 1)
	p.write("site.yaml", p.text)
	p.tell("reload")
}

// status asks the one that runs.
func (p *program) status() (s edge.Status) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.tell("status", "--json")), &s); err != nil || s.PID == 0 {
		p.t.Fatalf("process %d: %v", s.PID, err)
	}
	return s
}

// calling returns who is calling whom, sorted.
func (p *program) calling() (all []string) {
	p.t.Helper()
	var calls []service.Call
	text := []byte(p.tell("calls", "--json"))
	if err := json.Unmarshal(text, &calls); err != nil {
		p.t.Fatalf("%v: %s", err, text)
	}
	for _, c := range calls {
		all = append(all, fmt.Sprintf("%s %s %s", c.State, c.From, c.To))
	}
	slices.Sort(all)
	return all
}

// conversation is a call that was answered, and where its ends speak and hear.
type conversation struct {
	name           string
	caller, callee *device
	heard, came    *sip.Message
	sockets        [2]*net.UDPConn
	to             [2]netip.AddrPort
	said           uint16
	asked          uint32
}

// next returns a number for a request of either end.
func (c *conversation) next() uint32 {
	c.asked++
	return 100 + c.asked
}

// leave has both ends leave.
func (c *conversation) leave() {
	c.caller.unregister()
	c.callee.unregister()
}

// converse has the subscriber with number n call the next one.
func (p *program) converse(x ip.Crossing, n int) *conversation {
	p.t.Helper()
	c := &conversation{name: x.String()}
	c.caller = p.registered("udp", x.Client, "0501000000"+index(n))
	c.callee = p.registered("udp", x.Backend, "0501000000"+index(n+1))
	for i, d := range []*device{c.caller, c.callee} {
		s, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addrOf(d).Addr(), 0)))
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { s.Close() })
		c.sockets[i] = s
		d.body = strings.Replace(d.offer(), "m=audio 4000 ", fmt.Sprintf("m=audio %d ", s.LocalAddr().(*net.UDPAddr).Port), 1)
	}
	c.heard, c.came = p.call(c.caller, c.callee, nil, nil)
	c.to = [2]netip.AddrPort{mediaAt(p.t, c.heard), mediaAt(p.t, c.came)}
	return c
}

// mediaAt returns where a message says that media are heard.
func mediaAt(t *testing.T, m *sip.Message) netip.AddrPort {
	t.Helper()
	found := regexp.MustCompile(`(?s)c=IN IP[46] (\S+).*m=audio (\d+) `).FindStringSubmatch(bodyOf(m))
	if found == nil {
		t.Fatalf("no place for media in\n%s", bodyOf(m))
	}
	return netip.MustParseAddrPort(net.JoinHostPort(found[1], found[2]))
}

// speak has each end say something, again each second, until the other has heard it: packets may be lost.
func (c *conversation) speak(t *testing.T) {
	t.Helper()
	for side, s := range c.sockets {
		var err error
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			c.said++
			packet := make([]byte, 172)
			packet[0], packet[2], packet[3], packet[8] = 0x80, byte(c.said>>8), byte(c.said), byte(side)
			if _, err = s.WriteToUDPAddrPort(packet, c.to[side]); err != nil {
				break
			}
			heard := make([]byte, 2000)
			c.sockets[1-side].SetReadDeadline(time.Now().Add(time.Second))
			var n int
			if n, _, err = c.sockets[1-side].ReadFromUDPAddrPort(heard); err == nil && n == len(packet) && heard[8] == byte(side) {
				break
			}
		}
		if err != nil {
			t.Fatalf("%s: side %d is not heard at %v: %v", c.name, side, c.to[side], err)
		}
	}
}

// ask has an end ask the other whether it goes on, with an offer; the other sees the place that it knows.
func (c *conversation) ask(t *testing.T, fromCaller bool, seq uint32) {
	t.Helper()
	from, to, known, place := c.callee, c.caller, c.came, c.to[0]
	if fromCaller {
		from, to, known, place = c.caller, c.callee, c.heard, c.to[1]
	}
	from.send(withBody(from.within(known, "INVITE", seq), from.offer()))
	invite := keep(to.want("INVITE"))
	if at := mediaAt(t, invite); at != place {
		t.Errorf("%s: media are at %v, were at %v", c.name, at, place)
	}
	to.response(invite, 200, to.offer())
	acknowledge(from, to, keep(from.want("200")), seq)
}

// secluded runs a test in a process that has a network of its own, in which the relay has an address of each family.
func secluded(t *testing.T, test func()) {
	t.Helper()
	const inside = "KYOZON_TEST_PHONE_ALONE"
	if os.Getenv(inside) != "" {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err == nil {
			err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(relayAt[ip.V6].AsSlice()), Flags: unix.IFA_F_NODAD})
		}
		if err != nil {
			t.Fatal(err)
		}
		test()
		return
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	c.Env, c.Stdout, c.Stderr = append(os.Environ(), inside+"=1"), t.Output(), t.Output()
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err := c.Run()
	if errors.Is(err, syscall.EPERM) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip("needs root for a network of its own: ", err)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestUpgrade: calls, direct and relayed, and who is registered, outlive reloads, and the program: others take its place, twice.
// Each end can change its call and end it, everybody is heard, and each call is counted once and has one record.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	secluded(t, func() { upgradeUnderCalls(t) })
}

func upgradeUnderCalls(t *testing.T) {
	t.Helper()
	for _, relayed := range []bool{false, true} {
		t.Run(map[bool]string{false: "direct", true: "relayed"}[relayed], func(t *testing.T) {
			t.Parallel()
			p := newBench(t, "").run(", cdr: calls.jsonl", relayed)
			var all []*conversation
			var calling []string
			for i, x := range ip.Crossings() {
				if !relayed && x.Client != x.Backend {
					continue // such a call is relayed or refused
				}
				all = append(all, p.converse(x, 2*i))
				calling = append(calling, "answered "+all[len(all)-1].caller.name+" "+all[len(all)-1].callee.name)
			}
			for round := range 2 {
				for i, c := range all {
					c.speak(t)
					c.ask(t, (i+round)%2 == 0, uint32(100+100*round))
				}
				p.change("drain: 1h", "drain: 11h")
				for i, c := range all {
					c.speak(t)
					c.ask(t, (i+round)%2 == 0, uint32(150+100*round))
				}
				p.upgrade()
				if got := p.calling(); !slices.Equal(got, calling) {
					t.Errorf("upgrade %d: under way are %q, want %q", round, got, calling)
				}
			}
			for i, c := range all {
				c.speak(t)
				c.ask(t, i%2 == 0, 300)
				c.speak(t)
				if i%2 == 0 {
					hangUp(c.caller, c.callee, c.heard, 301)
				} else {
					hangUp(c.callee, c.caller, c.came, 301)
				}
			}
			if got := p.calling(); len(got) > 0 {
				t.Errorf("all have ended, and under way are %q", got)
			}
			c := all[0] // and they can call again, as they are registered
			c.caller.callID += "-again"
			heard, _ := p.call(c.caller, c.callee, nil, nil)
			hangUp(c.caller, c.callee, heard, sequence(heard)+1)
			p.recorded(append(all, &conversation{name: "again", caller: c.caller, heard: heard}), relayed)
		})
	}
}

// records stops the program and returns the records by the Call-ID of the caller.
func (p *program) records() map[string]*cdr.Record {
	p.t.Helper()
	path := filepath.Join(p.dir, "calls.jsonl")
	last := p.status().PID
	p.tell("stop")
	p.await("the program has ended", func() bool { return over(last) })
	text, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	got := make(map[string]*cdr.Record)
	for line := range bytes.Lines(text) {
		r, err := cdr.Parse(line)
		if err != nil {
			p.t.Fatal(err)
		}
		if got[r.Caller.CallID] != nil {
			p.t.Errorf("a call has two records, the second %s", line)
		}
		got[r.Caller.CallID] = r
	}
	return got
}

// recorded stops the program and compares the records with the calls that there were.
func (p *program) recorded(want []*conversation, relayed bool) {
	p.t.Helper()
	got := p.records()
	if len(got) != len(want) {
		p.t.Errorf("%d calls have a record, want %d", len(got), len(want))
	}
	for i, c := range want {
		r := got[string(c.heard.Get(sip.CallID))]
		if r == nil || r.Answer == nil || r.EndedBy == byEdge || r.Cause != 16 || r.Media == nil || (r.Media.Path == "direct") == relayed {
			p.t.Errorf("%s: the record is %+v", c.name, r)
			continue
		}
		if relayed && i < 4 && (r.Media.ToCaller.Packets < 4 || r.Media.ToCalled.Packets < 4) {
			p.t.Errorf("%s: the media are %+v", c.name, r.Media)
		}
	}
}

// over says whether a process has, though nobody may have asked how.
func over(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// await waits for what no message says.
func (p *program) await(what string, done func() bool) {
	p.t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); !done(); <-look.C {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestUpgradeConnections: who has registered over a connection sees it end at an upgrade, also while the old process goes on with
// other flows, registers over another, and is called by it.
func TestUpgradeConnections(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	p := b.run(b.secure(), false)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		for _, kind := range []string{"tcp", "tls"} {
			connect := func() *device {
				if kind == "tls" {
					return b.newSecure(f, "05010000002")
				}
				return b.newDevice("tcp", f, "05010000002")
			}
			was := connect()
			if status := was.register("Contact: " + was.contact()); status != 200 {
				t.Fatalf("%s: cannot register: %d", kind, status)
			}
			p.upgrade()
			was.conn.SetReadDeadline(time.Now().Add(patience))
			if n, err := was.conn.Read(was.buffer); !errors.Is(err, io.EOF) {
				t.Fatalf("%s: after the upgrade got %q, %v, want the end", kind, was.buffer[:n], err)
			}
			callee := connect()
			if status := callee.register("Contact: " + callee.contact()); status != 200 {
				t.Fatalf("%s: cannot register again: %d", kind, status)
			}
			caller := b.registered("udp", f, "05010000001")
			heard, _ := b.call(caller, callee, nil, nil)
			hangUp(caller, callee, heard, sequence(heard)+1)
			callee.unregister()
		}
	})
	b.t = t
}
