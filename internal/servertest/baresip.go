// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// Telephone says what a baresip is to be. It registers if it has a password.
type Telephone struct {
	Name, Domain, Password string
	Server                 netip.AddrPort // where it registers, and all that it asks goes
	Transport              string         // "udp" or "tcp"
	Codec                  string         // a module: g711 or opus
	Tone                   int            // in Hz: all that it says; 0: it says what it hears
	Encrypt                string         // how it wants media encrypted: srtp-mand or dtls_srtp; "" means not at all

	Addr netip.Addr               // its own; zero: that of Server, on loopback
	Port uint16                   // where it takes calls; 0: any, since it registers
	Do   func(func() error) error // runs a function in its network; nil: it is this one
}

// do runs a function in the telephone's network.
func (p *Telephone) do(fn func() error) error {
	if p.Do == nil {
		return fn()
	}
	return p.Do(fn)
}

// Baresip is a telephone that runs until the test ends. It writes down what it hears.
type Baresip struct {
	Telephone
	t      testing.TB
	folder string
	conn   net.Conn
	reader *bufio.Reader
	events []Event // that nobody has asked for yet

	process *os.Process
	waited  chan bool // closed when it has ended
}

// Event is something that has happened to a telephone, or the response to a command.
type Event struct {
	Type  string `json:"type"` // CALL_INCOMING, CALL_ESTABLISHED, …
	Peer  string `json:"peeruri"`
	Param string `json:"param"`

	Response bool   `json:"response"`
	OK       bool   `json:"ok"`
	Data     string `json:"data"`
}

// baresipConf has a place for the address to bind, the control port, the codec and what it says. The recorder is a filter, which
// works without anything that plays, until the first re-INVITE.
const baresipConf = `sip_listen %[1]s
net_interface %[2]s
rtp_ports 40000-59999
module_path /usr/lib/baresip/modules
module %[4]s.so
module sndfile.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen %[3]s
%[5]s
snd_path %[6]s
`

// says is what a telephone has as its microphone. The tone knows 48 kHz stereo alone.
func (p *Telephone) says() string {
	if p.Tone == 0 {
		return "module aubridge.so\naudio_source aubridge,echo\naudio_player aubridge,echo"
	}
	return fmt.Sprintf("module ausine.so\naudio_source ausine,%d\nausrc_srate 48000\nausrc_channels 2", p.Tone)
}

// encrypts are its module for that, and the parameter of its account.
func (p *Telephone) encrypts() (module, param string) {
	if p.Encrypt == "" {
		return "", ""
	}
	return "module " + strings.TrimSuffix(p.Encrypt, "-mand") + ".so", ";mediaenc=" + p.Encrypt
}

// NewBaresip starts a telephone and has it register.
func NewBaresip(t testing.TB, p Telephone) *Baresip {
	t.Helper()
	program := Find(t, "baresip")
	control, err := FreeAddr(ip.V4)
	if err != nil {
		t.Fatal(err)
	}
	b := &Baresip{Telephone: p, t: t, folder: t.TempDir()}
	here := p.Server.Addr() // on loopback both ends have it
	if p.Addr.IsValid() {
		here = p.Addr
	}
	encryption, wanted := p.encrypts()
	conf := fmt.Sprintf(baresipConf, netip.AddrPortFrom(here, p.Port), here, control, p.Codec, p.says()+"\n"+encryption, b.folder)
	for name, text := range map[string]string{"config": conf, "accounts": "", "contacts": ""} {
		if err := os.WriteFile(filepath.Join(b.folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(program, map[bool]string{true: "-4", false: "-6"}[here.Is4()], "-s", "-f", b.folder)
	b.run(c, control)
	interval := 600
	if p.Password == "" {
		interval = 0
	}
	b.Do("uanew", fmt.Sprintf(`<sip:%s@%s>;auth_pass=%s;outbound="sip:%v;transport=%s";regint=%d;answermode=manual%s`,
		p.Name, p.Domain, p.Password, p.Server, p.Transport, interval, wanted))
	if interval > 0 {
		b.Event("REGISTER_OK")
	}
	return b
}

// run starts the program and connects to its control port. What it writes is kept back until it ends, so that nothing in it
// says that it is ready.
func (b *Baresip) run(c *exec.Cmd, control netip.AddrPort) {
	b.t.Helper()
	log, err := os.Create(filepath.Join(b.folder, "log"))
	if err != nil {
		b.t.Fatal(err)
	}
	c.Stdout, c.Stderr = log, log
	err = b.do(c.Start)
	log.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	ended, waited := make(chan error, 1), make(chan bool)
	b.process, b.waited = c.Process, waited
	go func() {
		ended <- c.Wait()
		close(waited)
	}()
	b.t.Cleanup(func() {
		if b.t.Failed() { // it writes its log as it ends
			c.Process.Signal(syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(patience):
			}
			text, _ := os.ReadFile(filepath.Join(b.folder, "log"))
			b.t.Logf("%s: %s", c.Path, text)
		}
		c.Process.Kill() // else it would wait until it is not registered any more
		<-waited
	})
	for deadline := time.Now().Add(patience); ; {
		if err = b.do(func() (err error) {
			b.conn, err = net.Dial("tcp4", control.String())
			return err
		}); err == nil {
			break
		}
		select {
		case err := <-ended:
			b.t.Fatalf("%s has ended: %v", c.Path, err)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s does not listen: %v", c.Path, err)
		}
	}
	b.t.Cleanup(func() { b.conn.Close() })
	b.reader = bufio.NewReader(b.conn)
}

// Trace ends the telephone and returns all that it has sent and heard as SIP.
func (b *Baresip) Trace() string {
	b.t.Helper()
	b.process.Signal(syscall.SIGTERM)
	select {
	case <-b.waited:
	case <-time.After(patience):
		b.t.Fatal("a telephone does not end")
	}
	text, err := os.ReadFile(filepath.Join(b.folder, "log"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// Do has the telephone do a command of its menu, such as dial, accept, hold, sndcode or hangup, and returns what it says to that.
func (b *Baresip) Do(command, params string) string {
	b.t.Helper()
	text, err := json.Marshal(map[string]string{"command": command, "params": params})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(b.conn, "%d:%s,", len(text), text); err != nil {
		b.t.Fatal(err)
	}
	for {
		e := b.next()
		if e.Response && !e.OK {
			b.t.Fatalf("%s %s: %s", command, params, e.Data)
		}
		if e.Response {
			return e.Data
		}
		b.events = append(b.events, e)
	}
}

// Event waits for an event and returns it. What was before it is forgotten.
func (b *Baresip) Event(kind string) Event {
	b.t.Helper()
	for {
		if len(b.events) == 0 {
			b.events = append(b.events, b.next())
		}
		e := b.events[0]
		b.events = b.events[1:]
		if e.Type == kind {
			return e
		}
		if strings.HasSuffix(e.Type, "_FAIL") {
			b.t.Fatalf("got %+v, want %s", e, kind)
		}
	}
}

// next reads an event: its length, a colon, JSON, a comma.
func (b *Baresip) next() (e Event) {
	b.t.Helper()
	b.conn.SetDeadline(time.Now().Add(patience))
	head, err := b.reader.ReadString(':')
	if err != nil {
		b.t.Fatalf("a telephone says nothing: %v", err)
	}
	n, err := strconv.Atoi(strings.TrimSuffix(head, ":"))
	if err != nil || n > 1<<16 {
		b.t.Fatalf("a telephone says %q", head)
	}
	text := make([]byte, n+1)
	if _, err = io.ReadFull(b.reader, text); err == nil {
		err = json.Unmarshal(text[:n], &e)
	}
	if err != nil {
		b.t.Fatalf("a telephone says %q: %v", text, err)
	}
	return e
}

// Hears waits until the telephone has heard something for a second in the call that it has, and returns how much of its
// energy is a tone of so many Hz: 1 is all of it.
func (b *Baresip) Hears(hz int) float64 {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		names, _ := filepath.Glob(filepath.Join(b.folder, "dump-*-dec.wav"))
		if len(names) > 0 { // the last by time, which is in the name
			text, err := os.ReadFile(names[len(names)-1])
			if err != nil {
				b.t.Fatal(err)
			}
			if samples, rate := readWave(text); rate > 0 && len(samples) >= rate {
				return EnergyAt(samples[len(samples)-rate*3/4:], float64(hz)/float64(rate)) // the first packets may be silence
			}
		}
		if time.Now().After(deadline) {
			b.t.Fatal("a telephone hears nothing")
		}
	}
}

var counted = regexp.MustCompile(`member 0x[0-9a-f]+: lost=(-?[0-9]+) (?s:.*?) rcvd=([0-9]+)`)

// Received returns how many packets have come of what the telephone hears, and how many have not, by its own account.
func (b *Baresip) Received() (packets, lost int) {
	b.t.Helper()
	if m := counted.FindStringSubmatch(b.Do("audio_debug", "")); m != nil { // nobody was heard yet
		lost, _ = strconv.Atoi(m[1])
		packets, _ = strconv.Atoi(m[2])
	}
	return packets, lost
}

// Receives waits until the telephone has heard so many more packets.
func (b *Baresip) Receives(more int) {
	b.t.Helper()
	first, _ := b.Received()
	for deadline := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		if n, _ := b.Received(); n >= first+more {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatal("a telephone hears no more")
		}
	}
}

// Forget lets what was heard be.
func (b *Baresip) Forget() {
	b.t.Helper()
	names, _ := filepath.Glob(filepath.Join(b.folder, "dump-*.wav"))
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			b.t.Fatal(err)
		}
	}
}
