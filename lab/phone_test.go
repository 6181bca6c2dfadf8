// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// callRecord is what is looked at of a record of a call.
type callRecord struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Route    string `json:"route"`
	Status   int    `json:"status"`
	Cause    int    `json:"cause"`
	EndedBy  string `json:"ended-by"`
	Answered bool   `json:"-"`
	Path     string `json:"-"` // of media
}

// records waits for n records of calls and returns them.
func records(t *testing.T, l *Lab, n int) (all []callRecord) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		text, err := l.Host("edge").ReadFile("/var/log/kyozon/calls.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(text), "\n") < n && time.Now().Before(deadline) {
			continue
		}
		for line := range strings.Lines(string(text)) {
			var r struct {
				callRecord
				Answer string `json:"answer"`
				Media  struct {
					Path string `json:"path"`
				} `json:"media"`
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			r.Answered, r.Path = r.Answer != "", r.Media.Path
			all = append(all, r.callRecord)
		}
		return all
	}
}

// sameRecords fails unless the records are as they should be.
func sameRecords(t *testing.T, l *Lab, want []callRecord) {
	t.Helper()
	if diff := cmp.Diff(want, records(t, l, len(want))); diff != "" {
		t.Errorf("the records (-want +got):\n%s", diff)
	}
}

// telephones returns what each telephone of the lab has said and heard.
func (l *Lab) telephones() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]string)
	for _, p := range l.daemons {
		if p.Name == "baresip" {
			all[p.Host.name] = p.Log()
		}
	}
	return all
}

var (
	dotted = regexp.MustCompile(`\b\d{1,3}(\.\d{1,3}){3}\b`)
	colons = regexp.MustCompile(`\b[0-9a-f]{1,4}(:[0-9a-f]{0,4}){3,7}\b`)
)

// ownAlone fails if a telephone has seen an address of the other family, or a word that is foreign to it, or if fewer have spoken
// than should.
func ownAlone(t *testing.T, l *Lab, speak int, foreign map[string][]string) {
	t.Helper()
	spoke := 0
	for name, log := range l.telephones() {
		if strings.Contains(log, "SIP/2.0") {
			spoke++
		}
		four := l.Host(name).spec.families()[4]
		for line := range strings.Lines(log) {
			other := colons.FindString(line)
			if !four {
				other = dotted.FindString(strings.ReplaceAll(line, "127.0.0.1", "")) // its control port
			}
			if a, err := netip.ParseAddr(other); err == nil {
				t.Errorf("%s sees %v: %s", name, a, line)
			}
			for _, word := range foreign[name] {
				if strings.Contains(line, word) {
					t.Errorf("%s sees %s: %s", name, word, line)
				}
			}
		}
	}
	if spoke < speak {
		t.Errorf("%d telephones have spoken, want %d or more", spoke, speak)
	}
}

// joinGateways adds a gateway while a call is under way (S6: scale). The call must not notice.
func joinGateways(t *testing.T, l *Lab) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := openControl(ctx, l.Host("tokyo1"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err = c.do("dial", "0662345678"); err == nil {
		err = c.await("CALL_ESTABLISHED", "CALL_RTPESTAB")
	}
	if err != nil {
		t.Fatal(err)
	}
	const before, after = `{at: "10.0.6.12:5060", weight: 1}`, `{at: "10.0.6.12:5060", weight: 1}, {at: "10.0.6.13:5060", weight: 1}`
	site := readSite(t, "s6.yaml")
	if !strings.Contains(site, before) {
		t.Fatal("the site file has changed")
	}
	reload(ctx, t, l, strings.Replace(site, before, after, 1))
	if _, err = c.do("hold", ""); err == nil { // still answered from end to end
		err = c.await("CALL_REMOTE_SDP")
	}
	if err == nil {
		_, err = c.do("hangup", "")
	}
	if err != nil {
		t.Fatal(err)
	}
	carried := func(from, to, route string) callRecord {
		return callRecord{From: from, To: to, Route: route, Cause: 16, EndedBy: "caller", Answered: true, Path: "direct"}
	}
	const tokyo, osaka = "0312345678", "0662345678"
	sameRecords(t, l, []callRecord{carried(tokyo, osaka, "routes[1]"), carried(tokyo, osaka, "routes[1]"), carried(osaka, tokyo, "routes[0]"),
		carried(osaka, tokyo, "routes[0]"), carried(osaka, "110", "routes[2]"),
		{From: tokyo, To: tokyo, Route: "routes[0]", Status: 404, Cause: 1, EndedBy: "edge"},
		{From: tokyo, To: "09012345678", Route: "routes[3]", Status: 403, Cause: 21, EndedBy: "edge"},
		carried(tokyo, osaka, "routes[1]")})
	ownAlone(t, l, 4, nil)
}

// callAround looks at the calls of S7: whom they went to, by which route, and how media went.
func callAround(t *testing.T, l *Lab) {
	heard := func(from, to, route, path string) callRecord {
		return callRecord{From: from, To: to, Route: route, Cause: 16, EndedBy: "caller", Answered: true, Path: path}
	}
	const one, two, three, four = "05010000001", "05010000002", "05010000003", "05010000004"
	const fixed, mobile, other, neighbour, abroad = "0312345678", "09012345678", "05099990000", "05020000001", "01012025550123"
	const direct, family, network = "direct", "other family", "other network"
	const own, carrier, pstn, far = "routes[0]", "routes[1]", "routes[2]", "routes[3]"
	sameRecords(t, l, []callRecord{heard(one, two, own, direct), heard(three, four, own, direct), heard(three, one, own, family), heard(one, three, own, family),
		heard(three, fixed, pstn, network), heard(one, mobile, pstn, network), heard(three, "110", pstn, network), heard(three, other, pstn, network),
		heard(three, neighbour, carrier, network), heard(one, neighbour, carrier, network), heard(three, abroad, far, network),
		heard(fixed, three, own, network), heard(fixed, one, own, network), heard(neighbour, three, own, network), heard(neighbour, three, own, network),
		{From: three, To: "0990123456", Route: "routes[4]", Status: 403, Cause: 21, EndedBy: "edge"}})
	inside := []string{"10.0.5.", "198.51.100.", "2001:db8:900:", "2001:db8:100:51:"}
	outside := []string{"203.0.113.", "198.51.100.", "2001:db8:"}
	ownAlone(t, l, 9, map[string][]string{"ta4a": inside, "ta4b": inside, "ta6a": inside, "ta6b": inside, "mg1": outside, "mg2": outside, "abroad": outside,
		"neighbour4": {"10.0.5.", "203.0.113.11", "203.0.113.10"}, "neighbour6": {"10.0.5.", "2001:db8:100::50", "2001:db8:100::10", "2001:db8:100:50:"}})
}

// A lab file with telephones, wrong in each place.
func TestTelephoneMistakes(t *testing.T) {
	t.Parallel()
	good := Baresip{Listen: netip.MustParseAddrPort("10.0.0.1:5060"), Numbers: List[string]{"110"}, Domain: "example.jp",
		Server: netip.MustParseAddrPort("10.0.0.2:5060"), Password: "secret"}
	h := HostSpec{Links: map[string]List[netip.Prefix]{"a": {netip.MustParsePrefix("10.0.0.1/24")}}}
	if all := good.check(h); len(all) > 0 {
		t.Errorf("got %v", all)
	}
	for key, spoil := range map[string]func(*Baresip){
		"listen 0":  func(b *Baresip) { b.Listen = netip.MustParseAddrPort("10.0.0.3:5060") },
		"numbers":   func(b *Baresip) { b.Numbers = nil },
		"numbers 0": func(b *Baresip) { b.Numbers = List[string]{"a"} },
		"domain":    func(b *Baresip) { b.Domain = "x" },
		"server":    func(b *Baresip) { b.Server = netip.MustParseAddrPort("[fd00::1]:5060") },
		"password":  func(b *Baresip) { b.Password = "a;b" },
	} {
		b := good
		b.Numbers = slices.Clone(good.Numbers)
		spoil(&b)
		if all := b.check(h); len(all) != 1 || strings.Join(all[0].path, " ") != key {
			t.Errorf("%s: got %v", key, all)
		}
	}
}
