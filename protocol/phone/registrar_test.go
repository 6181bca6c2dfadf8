// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// contacts returns the Contacts of an answer.
func contacts(m *sip.Message) (all []string) {
	for value, i := m.Field(sip.Contact, 0); value != nil; value, i = m.Field(sip.Contact, i) {
		all = append(all, string(value))
	}
	return all
}

// A telephone registers with its password, sees its bindings, and removes them; over each transport and family.
func TestRegister(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		d := b.newDevice(transport, f, "05010000001")
		if status := d.register("Contact: "+d.contact(), "Expires: 600"); status != 200 {
			t.Fatalf("got %d", status)
		}
		mine := regexp.MustCompile(`^` + regexp.QuoteMeta(d.contact()) + `;expires=(5[4-9]\d|600)$`)
		if all := contacts(&d.message); len(all) != 1 || !mine.MatchString(all[0]) {
			t.Errorf("got %q", all)
		}
		if status := d.register("Contact: *", "Expires: 0"); status != 200 || len(contacts(&d.message)) != 0 {
			t.Errorf("got %d, %q", status, contacts(&d.message))
		}
		if status := d.register(); status != 200 || len(contacts(&d.message)) != 0 { // only asks
			t.Errorf("got %d, %q", status, contacts(&d.message))
		}
	})
}

// Whoever may not register is told so, each with the status that telephones understand.
func TestRegisterRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, ", registration: {min: 2m, max: 1h}")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		contact := func(d *device) string { return "Contact: " + d.contact() }
		for _, test := range []struct {
			what   string
			want   int
			change func(d *device)
			lines  []string
		}{
			{"a wrong password", 403, func(d *device) { d.digest.Password = "guess" }, nil},
			{"nobody's name", 403, func(d *device) { d.digest.Username = "nobody" }, nil},
			{"a subscriber for another", 403, func(d *device) { d.digest.Username = "05010000002" }, nil},
			{"too short", 423, nil, []string{"Expires: 60"}},
			{"too short in Contact", 423, nil, []string{"Contact: <sip:x@192.0.2.1>;expires=1"}},
			{"a star with others", 400, nil, []string{"Contact: *", "Expires: 0"}},
			{"a path that the client does not know of", 421, nil, []string{"Path: <sip:p.example;lr>"}},
			{"an extension that we lack", 420, nil, []string{"Require: teleport, path"}},
		} {
			d := b.newDevice(transport, f, "05010000001")
			if test.change != nil {
				test.change(d)
			}
			if got := d.register(append([]string{contact(d)}, test.lines...)...); got != test.want {
				t.Errorf("%s: got %d, want %d", test.what, got, test.want)
			}
			switch test.want {
			case 423:
				if v := string(d.message.Get(sip.MinExpires)); v != "120" {
					t.Errorf("%s: Min-Expires %q", test.what, v)
				}
			case 420:
				if v := string(d.message.Get(sip.Unsupported)); v != "teleport" {
					t.Errorf("%s: Unsupported %q", test.what, v)
				}
			}
		}
		d := b.newDevice(transport, f, "05010000001")
		if got := d.ask("REGISTER", "sip:elsewhere.example", contact(d)); got != 404 {
			t.Errorf("another domain: got %d", got)
		}
		if got := d.ask("PUBLISH", "sip:"+domain); got != 501 || string(d.message.Get(sip.Allow)) == "" {
			t.Errorf("another method: got %d, Allow %q", got, d.message.Get(sip.Allow))
		}
		if got := d.ask("OPTIONS", "sip:"+domain); got != 200 || !d.message.Lists(sip.Supported, "path") {
			t.Errorf("OPTIONS: got %d, Supported %q", got, d.message.Get(sip.Supported))
		}
	})
}

// A registration that comes again is answered again and changes nothing; one that is older than what is there fails.
func TestRegisterOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		d := b.newDevice(transport, f, "05010000003")
		d.copies = true
		if got := d.register("Contact: " + d.contact()); got != 200 {
			t.Fatalf("got %d", got)
		}
		d.seq -= 3
		if got := d.register("Contact: " + d.contact()); got != 500 {
			t.Errorf("an old one: got %d", got)
		}
		d.seq += 10
		first := d.request("OPTIONS", "sip:"+domain)
		for range 3 {
			d.send(first)
			if m := d.hear(); m.Status() != 200 {
				t.Errorf("again: got %d", m.Status())
			}
		}
		d.register("Contact: *", "Expires: 0")
	})
}

// A device that is bound over both families and with a path, by connections that outlive a reload, as do its bindings.
func TestRegisterFlows(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	var devices []*device
	for i, f := range []ip.Family{ip.V4, ip.V6} {
		d := b.newDevice("tcp", f, "05010000004")
		devices = append(devices, d)
		if got := d.register("Contact: "+d.contact()+`;+sip.instance="<urn:uuid:00000000-0000-1000-8000-000a95a0e128>";reg-id=`+index(i+1)+";q=0.5",
			"Supported: path, outbound", "Path: <sip:p1.example;lr>", "Path: <sip:p2.example;lr>"); got != 200 {
			t.Fatalf("%v: got %d", f, got)
		}
		if !d.message.Lists(sip.Require, "outbound") || string(d.message.Get(sip.Path)) != "<sip:p1.example;lr>, <sip:p2.example;lr>" {
			t.Errorf("%v: Require %q, Path %q", f, d.message.Get(sip.Require), d.message.Get(sip.Path))
		}
	}
	b.reload(", registration: {max: 30m}")
	for _, d := range devices {
		if got := d.register(); got != 200 || len(contacts(&d.message)) != 2 {
			t.Errorf("got %d, %q", got, contacts(&d.message))
		}
	}
	want := regexp.MustCompile(`^<sip:05010000004@127\.0\.0\.1:\d+>;expires=\d+;q=0\.5;\+sip\.instance="<urn:uuid:00000000-0000-1000-8000-000a95a0e128>";reg-id=1$`)
	if all := contacts(&devices[0].message); !want.MatchString(all[0]) {
		t.Errorf("got %q", all)
	}
}

// A subscriber is asked for what his telephone knows, the better first; a stranger for anything.
func TestChallenge(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	digests := func(name string) string {
		return fmt.Sprintf("%s:%s:%x\n", name, domain, md5.Sum([]byte(name+":"+domain+":secret")))
	}
	both := "05010000002"
	b.write("subscribers", digests("05010000001")+digests(both)+
		fmt.Sprintf("%s:%s:%x\n", both, domain, sha256.Sum256([]byte(both+":"+domain+":secret"))))
	b.reload(", registration: {max: 30m}")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		for name, want := range map[string]string{"05010000001": "MD5", both: "SHA-256 MD5", "nobody": "SHA-256 MD5"} {
			d := b.newDevice(transport, f, name)
			if got := d.ask("REGISTER", "sip:"+domain, "Contact: "+d.contact()); got != 401 {
				t.Fatalf("%s: got %d", name, got)
			}
			var got []string
			for value, i := d.message.Field(sip.WWWAuthenticate, 0); value != nil; value, i = d.message.Field(sip.WWWAuthenticate, i) {
				_, rest, _ := strings.Cut(string(value), "algorithm=")
				word, _, _ := strings.Cut(rest, ",")
				got = append(got, word)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s is asked for %q, want %s", name, got, want)
			}
		}
	})
}
