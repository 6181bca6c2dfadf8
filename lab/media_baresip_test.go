// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/phonetest"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
)

// speech is how real telephones speak.
type speech struct{ codec, encrypt string }

// baresip starts a real telephone on the host of a kind, which must be one of a single family.
func (l *Lab) baresip(t *testing.T, k families, n int, s speech, tone int) *servertest.Baresip {
	t.Helper()
	server := edges()[0]
	if k[0] == ip.V6 {
		server = edges()[1]
	}
	name := map[int]string{1: callerNumber, 2: calledNumber}[n]
	l.unregistered(t, k, n).Clear() // one that was ended has not said so
	return servertest.NewBaresip(t, servertest.Telephone{Name: name, Domain: "voip.example.jp", Password: "secret", Server: server, Transport: "udp",
		Codec: s.codec, Encrypt: s.encrypt, Tone: tone, Addr: k.addrs(n)[0], Do: l.Host(k.host(n)).Do})
}

// TestMediaBaresip has real telephones, one with IPv6 alone and one with IPv4 alone, hear each other's tones over the relay and lose nothing, in
// G.711 and in Opus, in clear and encrypted, and go on hearing when each has held and resumed; and has a real telephone that says what it
// hears repeat the tone of one that changes its family in the middle of the call, to where the media are direct, and back. With
// KYOZON_SOAK=1 either calls, in each way, by DTLS-SRTP too.
func TestMediaBaresip(t *testing.T) {
	l := upMedia(t)
	soak := os.Getenv("KYOZON_SOAK") != ""
	for i, s := range []speech{{"g711", ""}, {"opus", ""}, {"g711", "srtp-mand"}, {"g711", "dtls_srtp"}} {
		for j, caller := range kinds()[:2] {
			if !soak && (i%2 != j || s.encrypt == "dtls_srtp") {
				continue
			}
			t.Run(strings.TrimSuffix(s.codec+"/"+s.encrypt, "/")+"/"+caller.String(), func(t *testing.T) { speakReally(t, l, s, caller) })
		}
	}
	for i, called := range kinds()[:2] {
		if i > 0 && !soak {
			continue
		}
		t.Run("moves/"+called.String(), func(t *testing.T) { moveReally(t, l, called) })
	}
}

// across is the other kind of those with one family.
func across(k families) families { return families{ip.V4 + ip.V6 - k[0]} }

// speakReally is a call between real telephones of two families.
func speakReally(t *testing.T, l *Lab, s speech, caller families) {
	one, two := l.baresip(t, caller, 1, s, callerTone), l.baresip(t, across(caller), 2, s, calledTone)
	one.Do("dial", calledNumber)
	two.Event("CALL_INCOMING")
	two.Do("accept", "")
	one.Event("CALL_ESTABLISHED")
	two.Event("CALL_ESTABLISHED")
	for _, of := range []struct {
		phone       *servertest.Baresip
		other, mine int
	}{{one, calledTone, callerTone}, {two, callerTone, calledTone}} {
		if tone, own := of.phone.Hears(of.other), of.phone.Hears(of.mine); tone < 0.9 || own > 0.02 {
			t.Errorf("%v hears %.3f of the other's tone, and %.3f of its own", of.phone.Addr, tone, own)
		} else {
			t.Logf("%v hears %.3f of the other's tone, and %.3f of its own", of.phone.Addr, tone, own)
		}
	}
	for _, of := range [][2]*servertest.Baresip{{one, two}, {two, one}} {
		of[0].Do("hold", "")
		of[1].Event("CALL_REMOTE_SDP")
		of[0].Event("CALL_REMOTE_SDP")
		of[0].Do("resume", "")
		of[1].Event("CALL_REMOTE_SDP")
		of[0].Event("CALL_REMOTE_SDP")
		for _, b := range of {
			b.Receives(25)
			n, lost := b.Received()
			t.Logf("%v has heard %d packets, and lost %d", b.Addr, n, lost)
			if lost != 0 {
				t.Errorf("%v has heard %d packets, and lost %d", b.Addr, n, lost)
			}
		}
	}
	one.Do("hangup", "")
	two.Event("CALL_CLOSED")
	idle(t, l)
	if s.encrypt != "" {
		encryptedAlike(t, one.Trace(), two.Trace())
	}
}

// keys are what telephones say of encryption in their descriptions.
var keys = regexp.MustCompile(`(?m)^(m=audio [0-9]+ ([A-Z/]+) |a=(?:crypto|fingerprint|setup):[^\r\n]+)`)

// encryptedAlike says whether both ends of a call have seen the same of encryption, line by line, and that they want it.
func encryptedAlike(t *testing.T, one, two string) {
	t.Helper()
	said := func(trace string) (all []string) {
		for _, m := range keys.FindAllStringSubmatch(trace, -1) {
			if m[2] != "" { // the port is another
				m[1] = "m=audio " + m[2]
			}
			all = append(all, m[1])
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	first, second := said(one), said(two)
	if !slices.Equal(first, second) {
		t.Errorf("the caller has seen\n%s\nand the called\n%s", strings.Join(first, "\n"), strings.Join(second, "\n"))
	}
	for _, line := range first {
		if strings.HasPrefix(line, "m=") && !strings.Contains(line, "RTP/SAVP") {
			t.Errorf("media are %q", line)
		}
	}
	if len(first) < 3 {
		t.Errorf("all that is said of encryption is %q", first)
	}
	t.Logf("both have seen\n%s", strings.Join(first, "\n"))
}

// moveReally is a call of a telephone with both families to a real one with one of them.
func moveReally(t *testing.T, l *Lab, called families) {
	both := kinds()[2]
	two := l.baresip(t, called, 2, speech{codec: "g711"}, 0)
	one := l.telephone(t, both, 1)
	e := &end{tone: callerTone}
	e.Call = &phonetest.Call{Telephone: one}
	e.listen(both[0])
	e.Call = one.Dial(both[0], calledNumber, e.describe())
	two.Event("CALL_INCOMING")
	two.Do("accept", "")
	e.Want("180")
	e.learn(t, e.Taken(""))
	two.Event("CALL_ESTABLISHED")
	for _, f := range []ip.Family{0, ip.V4, ip.V6, ip.V4} {
		if f != 0 {
			e.listen(f)
			e.Invites(e.describe())
			e.learn(t, e.Taken(""))
			two.Event("CALL_REMOTE_SDP")
		}
		if direct := e.family() == called[0]; direct != (e.told.RTP.Addr() == two.Addr) || direct == relayed(e.told.RTP.Addr()) {
			t.Errorf("at %v it is told of %v", e.ear.Addr, e.told.RTP)
		}
		stop := e.talks()
		heard, ok := e.ear.Await(e.ear.Patience(), func(all []phonetest.Packet) bool { return len(phonetest.Samples(all)) >= 8000 })
		stop()
		samples := phonetest.Samples(heard)
		tone := servertest.EnergyAt(samples[len(samples)/2:], float64(callerTone)/8000) // silence is first
		t.Logf("at %v, told of %v, it hears %.3f of its tone again", e.ear.Addr, e.told.RTP, tone)
		if !ok || tone < 0.8 { // what says it again may stumble
			t.Errorf("at %v, told of %v, it hears %.3f of its tone again", e.ear.Addr, e.told.RTP, tone)
		}
		if slices.ContainsFunc(heard, func(p phonetest.Packet) bool { return p.From != e.told.RTP && p.At == phonetest.RTP }) {
			t.Errorf("%v hears others than %v", e.ear.Addr, e.told.RTP)
		}
	}
	e.Asks("BYE", "", "")
	e.Want("200")
	two.Event("CALL_CLOSED")
	idle(t, l)
	one.Register(0)
}

// talks has an end say its tone as telephones do, fifty packets a second, until it is told to stop.
func (e *end) talks() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	ear, to := e.ear, e.told.RTP
	wg.Go(func() {
		beat := time.NewTicker(20 * time.Millisecond)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
				ear.Say(phonetest.RTP, to, ear.Voice.Tone(e.tone))
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}
