// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/phonetest"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// TestMediaDiago: a telephone made with diago and sipgo, which others have written, calls through the edge and is called, in every crossing. It
// says what it hears: the other end hears its own tone again, and hears it still when either has asked for other media. Either hangs up.
func TestMediaDiago(t *testing.T) {
	l := upMedia(t)
	program := servertest.Build(t, "diago", "tools", "./diago")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		k := families{x.Client}
		phone := l.telephone(t, k, 1)
		two := l.diago(t, program, families{x.Backend}, 2)
		e := &end{tone: callerTone, others: true}
		e.Call = &phonetest.Call{Telephone: phone}
		e.listen(x.Client)
		e.Call = phone.Dial(x.Client, calledNumber, e.describe())
		e.Want("180")
		e.learn(t, e.Taken(""))
		two.says("established")
		e.echoed(t)
		e.change(t, two)
		e.Asks("BYE", "", "")
		e.Want("200")
		two.says("ended")
		idle(t, l)

		two.do("call " + callerNumber)
		e = &end{tone: callerTone, others: true, Call: phone.Called()}
		e.listen(x.Client)
		e.learn(t, e.Invite)
		e.Answer(e.Invite, 180, "")
		e.Answer(e.Invite, 200, e.describe())
		e.Want("ACK")
		two.says("established")
		e.echoed(t)
		e.change(t, two)
		two.do("hangup")
		e.Answer(e.Want("BYE"), 200, "")
		two.says("ended")
		idle(t, l)
		unmixed(t, map[*phonetest.Telephone]families{phone: k})
		phone.Register(0)
		two.do("quit")
	})
}

// change has both ends ask for other media, one after the other.
func (e *end) change(t *testing.T, two *diago) {
	t.Helper()
	e.listen(e.family())
	e.Invites(e.describe())
	e.learn(t, e.Taken(""))
	e.echoed(t)
	two.do("reinvite")
	m := e.Asked("INVITE")
	e.learn(t, m)
	e.Answer(m, 200, e.describe())
	e.Want("ACK")
	two.says("reinvited")
	e.echoed(t)
}

// echoed has an end speak until it has heard 0.4 s of its own tone.
func (e *end) echoed(t *testing.T) {
	t.Helper()
	e.ear.Forget()
	stop := e.talks()
	defer stop()
	heard, ok := e.ear.Await(e.ear.Patience(), func(all []phonetest.Packet) bool { return len(phonetest.Samples(all)) >= 3200 })
	samples := phonetest.Samples(heard)
	tone := servertest.EnergyAt(samples[len(samples)/2:], float64(e.tone)/8000)
	if !ok || tone < 0.8 { // what says it again may stumble
		t.Errorf("%v, told of %v, hears %.3f of its tone again", e.ear.Addr, e.told.RTP, tone)
	}
	for _, p := range heard {
		if p.At == phonetest.RTP && p.From != e.told.RTP {
			t.Errorf("%v hears %v, and not %v", e.ear.Addr, p.From, e.told.RTP)
			return
		}
	}
}

// diago is the program of that name.
type diago struct {
	t     *testing.T
	in    io.Writer
	lines chan string
}

// diago starts one on the host of a kind.
func (l *Lab) diago(t *testing.T, program string, k families, n int) *diago {
	t.Helper()
	server := edges()[0]
	if k[0] == ip.V6 {
		server = edges()[1]
	}
	l.unregistered(t, k, n).Clear()
	c := exec.Command(program, k.addrs(n)[0].String(), server.String(), calledNumber, "voip.example.jp", "secret")
	var log strings.Builder
	c.Stderr = &log
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Host(k.host(n)).Do(c.Start); err != nil {
		t.Fatal(err)
	}
	d := &diago{t: t, in: in, lines: make(chan string)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			d.lines <- s.Text()
		}
		close(d.lines)
	}()
	t.Cleanup(func() {
		c.Process.Kill()
		for range d.lines { // what nobody has read
		}
		<-read
		c.Wait()
		if t.Failed() {
			t.Logf("diago: %s", log.String())
		}
	})
	d.says("registered")
	return d
}

func (d *diago) do(line string) {
	d.t.Helper()
	if _, err := fmt.Fprintln(d.in, line); err != nil {
		d.t.Fatal(err)
	}
}

// says waits for a line.
func (d *diago) says(what string) {
	d.t.Helper()
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for {
		select {
		case line, ok := <-d.lines:
			if line == what {
				return
			}
			if !ok || strings.HasPrefix(line, "failed") {
				d.t.Fatalf("diago says %q, want %s", line, what)
			}
		case <-late.C:
			d.t.Fatalf("diago says nothing of %s", what)
		}
	}
}
