// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/ip"
)

func TestParse(t *testing.T) {
	t.Parallel()
	f, err := Parse("lab.yaml", []byte(`
lab: small
links: {wire: {mtu: 1280}}
hosts:
  a: {links: {wire: ["192.0.2.1/24", "2001:db8::1/64"]}}
  b:
    links: {wire: 192.0.2.2/24}
    gateway: 192.0.2.1
    sysctls: {net.ipv4.ip_forward: 1}
    servers:
      - nginx: {listen: 192.0.2.2:80, body: hello}
try:
  - {from: a, crossing: 4->4, get: "http://192.0.2.2/", timeout: 2s, want: {body: hello}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := HostSpec{
		Links:   map[string]List[netip.Prefix]{"wire": {netip.MustParsePrefix("192.0.2.2/24")}},
		Gateway: List[netip.Addr]{netip.MustParseAddr("192.0.2.1")},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1"},
		Servers: []Server{{Nginx: &Nginx{Listen: List[netip.AddrPort]{netip.MustParseAddrPort("192.0.2.2:80")}, Body: "hello"}}},
	}
	equal := cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}
	if d := cmp.Diff(want, f.Hosts["b"], equal); d != "" {
		t.Errorf("host (-want +got):\n%s", d)
	}
	if got := f.Try[0]; got.Crossing.Crossing != (ip.Crossing{Client: ip.V4, Backend: ip.V4}) || got.timeout().Seconds() != 2 {
		t.Errorf("attempt: %+v", got)
	}
}

// small is a right file; each bad one is small with a line replaced.
const small = `lab: small
links: {wire: {}}
names: {web: 192.0.2.2}
hosts:
  a: {links: {wire: ["192.0.2.1/24", "2001:db8::1/64"]}}
  b:
    links: {wire: 192.0.2.2/24}
    routes: [{to: 100.64.0.0/11, via: 192.0.2.1}]
    servers:
      - nginx: {listen: 192.0.2.2:80, body: hello}
try:
  - {from: b, crossing: 4→4, get: "http://192.0.2.2/"}
`

func TestParseBad(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, old, new, want string }{
		{"syntax", "lab: small", "lab: [small", "2:1: ',' or ']' must be specified"},
		{"unknown key", "    servers:", "    sevrers:", `9:5: unknown field "sevrers"`},
		{"twice the same key", "  b:\n", "  a: {}\n  b:\n", `6:3: mapping key "a" already defined at [5:3]`},
		{"lab without a name", "lab: small", "about: nothing", "1:1: name the lab with lower case letters, digits and dashes"},
		{"not an address", "192.0.2.2/24", "192.0.2/24", `7:19: netip.ParsePrefix("192.0.2/24"): ParseAddr("192.0.2"): IPv4 address too short`},
		{"somebody's address", "192.0.2.2/24", "9.9.9.9/24", "7:19: 9.9.9.9 belongs to somebody: use a private address or one for documentation"},
		{"somebody's address in a name", "web: 192.0.2.2", "web: 9.9.9.9", "3:14: 9.9.9.9 belongs to somebody: use a private address or one for documentation"},
		{"address twice", "192.0.2.2/24", "192.0.2.1/24", "7:19: 192.0.2.1 is the address of a"},
		{"no such link", "{wire: 192.0.2.2/24}", "{wier: 192.0.2.2/24}", "7:19: there is no link wier"},
		{"link without hosts", "{wire: {}}", "{wire: {}, spare: {}}", "2:19: no host is on link spare"},
		{"name of a link", "{wire: {}}", "{wire: {}, an-interface-has-15: {}}", `2:19: link "an-interface-has-15": at most 15 lower case letters, digits and dashes`},
		{"mtu", "{wire: {}}", "{wire: {mtu: 9}}", "2:21: mtu 9: must be 68 to 65535"},
		{"name of a host", "  a:", "  A:", `5:3: host "A": lower case letters, digits and dashes only`},
		{"way not on a link", "via: 192.0.2.1", "via: 10.0.0.1", "8:39: 10.0.0.1 is on none of the host's links"},
		{"way of the other family", "via: 192.0.2.1", `via: "2001:db8::1"`, "8:15: 100.64.0.0/11 and 2001:db8::1 are of two families"},
		{"route without a way", ", via: 192.0.2.1", "", "8:15: a route needs to and via"},
		{"gateway not on a link", "    routes: ", "    gateway: 10.0.0.1\n    routes: ", "8:14: gateway 10.0.0.1 is on none of the host's links"},
		{"two gateways", "    routes: ", "    gateway: [192.0.2.1, 192.0.2.3]\n    routes: ", "8:26: a second gateway for ipv4"},
		{"sysctl of the machine", "    routes: ", "    sysctls: {kernel.pid_max: 9}\n    routes: ", "8:31: sysctl kernel.pid_max: only net.… is the host's own"},
		{"two servers in one", "nginx: {", "udp: {listen: 192.0.2.2:9}\n        nginx: {", "10:9: a server is exactly one of postgres, app, udp, nginx, dovecot, postfix, haproxy, kyozon, baresip"},
		{"foreign listen", "listen: 192.0.2.2:80", "listen: 192.0.2.1:80", "10:25: the host has no address 192.0.2.1"},
		{"no listen", "listen: 192.0.2.2:80, ", "", "10:9: say where it listens"},
		{"body and upstream", "body: hello", "body: hello, upstream: 127.0.0.1:8080", "10:62: give either body or upstream"},
		{"quote in a body", "body: hello", `body: "it's"`, `10:45: a body has no ' and no \`},
		{"name of a file", "body: hello", "files: {../x: 1}", "10:53: must be a plain name and a size in bytes"},
		{"mode", "nginx: {listen: 192.0.2.2:80, body: hello", "haproxy: {listen: 192.0.2.2:80, servers: 192.0.2.1:80, mode: udp", "10:70: must be tcp or http"},
		{"no servers", "nginx: {listen: 192.0.2.2:80, body: hello", "haproxy: {listen: 192.0.2.2:80", "10:9: name at least one server"},
		{"no database", "nginx: {listen: 192.0.2.2:80, body: hello", "app: {listen: 192.0.2.2:80", "10:9: say which database it writes to"},
		{"nameless database", "nginx: {listen: 192.0.2.2:80, body: hello", "postgres: {listen: 192.0.2.2:80", "10:9: name a database and a user, in lower case letters"},
		{"no site", "nginx: {listen: 192.0.2.2:80, body: hello", "kyozon: {", "10:9: give either site or inline"},
		{"too little of a certificate", "nginx: {listen: 192.0.2.2:80, body: hello", "kyozon: {inline: x, certificates: {mx: mx}", "10:48: must be a plain name, and the host name of a certificate"},
		{"mail for nobody", "nginx: {listen: 192.0.2.2:80, body: hello", "postfix: {listen: 192.0.2.2:25, spools: 192.0.2.2:24", "10:9: say which domain it takes mail for"},
		{"nowhere to put mail", "nginx: {listen: 192.0.2.2:80, body: hello", "postfix: {listen: 192.0.2.2:25, domain: example.jp", "10:9: name at least one spool server"},
		{"no LMTP", "nginx: {listen: 192.0.2.2:80, body: hello", "dovecot: {imap: 192.0.2.2:143", "10:9: say where it listens"},
		{"nobody tries", "from: b", "from: c", `12:12: there is no host "c"`},
		{"family that is not there", "4→4", "6→4", "12:25: b has no ipv6 address"},
		{"no crossing", "4→4", "4→5", `12:25: crossing "4→5": must be 4→4, 4→6, 6→4 or 6→6`},
		{"nothing to try", `, get: "http://192.0.2.2/"`, "", "12:6: an attempt has exactly one of get, ask, dial, command"},
		{"not a URL", "http://192.0.2.2/", "192.0.2.2", `12:35: "192.0.2.2" is not a URL`},
		{"not a port", `get: "http://192.0.2.2/"`, "ask: 192.0.2.2", `12:35: ask "192.0.2.2": must be an address and a port`},
		{"pattern", `2.2/"`, `2.2/", want: {body: "("}`, "12:69: error parsing regexp: missing closing ): `(`"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(small, tt.old) {
				t.Fatalf("the good file has no %q", tt.old)
			}
			_, err := Parse("lab.yaml", []byte(strings.Replace(small, tt.old, tt.new, 1)))
			var e *config.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if got := e.Error(); got != "lab.yaml:"+tt.want {
				t.Errorf("got  %s\nwant lab.yaml:%s", got, tt.want)
			}
		})
	}
}

func TestParseAllMistakes(t *testing.T) {
	t.Parallel()
	_, err := Parse("lab.yaml", []byte(strings.NewReplacer("from: b", "from: c", "wire: {}", "wire: {}, spare: {}").Replace(small)))
	want := `lab.yaml:2:19: no host is on link spare
lab.yaml:12:12: there is no host "c"`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// FuzzParse holds that no file makes Parse panic, and that every mistake says where it is.
func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(shop))
	f.Add([]byte(routed))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("lab.yaml", data)
		var e *config.Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("a mistake without a place: %v", err)
		}
		if err == nil && file.Lab == "" {
			t.Error("a lab without a name")
		}
	})
}
