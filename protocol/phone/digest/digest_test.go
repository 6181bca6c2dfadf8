// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// TestResponse has the vectors of RFC 2617 §3.5 and RFC 7616 §3.9.1, and the first of them without qop.
func TestResponse(t *testing.T) {
	t.Parallel()
	const nonce7616, cnonce7616 = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
	for _, tt := range []struct {
		name                                  string
		algorithm                             Algorithm
		realm, password, nonce, count, cnonce string
		want                                  string
	}{
		{"RFC 2617", MD5, "testrealm@host.com", "Circle Of Life", "dcd98b7102dd2f0e8b11d0f600bfb0c093", "00000001", "0a4f113b",
			"6629fae49393a05397450978507c4ef1"},
		{"without qop", MD5, "testrealm@host.com", "Circle Of Life", "dcd98b7102dd2f0e8b11d0f600bfb0c093", "", "",
			"670fd8c2df070c60b045671b8b24ff02"},
		{"RFC 7616, MD5", MD5, "http-auth@example.org", "Circle of Life", nonce7616, "00000001", cnonce7616, "8ca523f5e9506fed4657c9700eebdbec"},
		{"RFC 7616, SHA-256", SHA256, "http-auth@example.org", "Circle of Life", nonce7616, "00000001", cnonce7616,
			"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"},
	} {
		p := proof{algorithm: tt.algorithm, method: []byte("GET"), uri: []byte("/dir/index.html"), nonce: []byte(tt.nonce), cnonce: []byte(tt.cnonce)}
		if tt.count != "" {
			p.count = []byte(tt.count)
		}
		secret := newSecret("Mufasa", tt.realm, tt.password)
		if got := string(p.response(nil, secret.of(tt.algorithm))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
		var again Secret
		if !again.Add(tt.algorithm, strings.ToUpper(string(secret.of(tt.algorithm)))) || string(again.of(tt.algorithm)) != string(secret.of(tt.algorithm)) {
			t.Errorf("%s: a digest that was stored is another", tt.name)
		}
	}
	var s Secret
	for _, bad := range []string{"", "xx", "939e7578ed9e3c518a452acee763bce", strings.Repeat("a", 64), strings.Repeat("g", 32)} {
		if s.Add(MD5, bad) {
			t.Errorf("%q is taken for a digest", bad)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	var f Fields
	const text = "Digest username=\"Mu\\\"fasa\", realm=\"a, b\",nonce = \"n\" ,\r\n uri=\"sip:b@example.jp;a=\\\\\", algorithm=SHA-256, " +
		"response=\"\", QOP=auth, nc=0000000A, cnonce=\"c\", opaque=\"o\", x-y=z"
	if err := f.Parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s|%s|%s|%s|%s|%v|%v|%s|%s|%v", f.Username, f.Realm, f.Nonce, f.URI, f.Opaque, f.Algorithm, f.Auth, f.Count, f.CNonce, f.Empty())
	if want := `Mu\"fasa|a, b|n|sip:b@example.jp;a=\\|o|SHA-256|true|0000000A|c|true`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for text, want := range map[string]error{
		"Digest a=b":                  nil,
		"digest\ta=b":                 nil,
		"Basic a=b":                   ErrScheme,
		"Digest":                      ErrScheme,
		"DigestA=b":                   ErrScheme,
		"Digest ":                     ErrSyntax,
		"Digest  a":                   ErrSyntax,
		"Digest a=":                   ErrSyntax,
		"Digest =b":                   ErrSyntax,
		"Digest a=b,":                 ErrSyntax,
		"Digest a=b c=d":              ErrSyntax,
		"Digest a=\"b":                ErrSyntax,
		"Digest a=\"b\\\"":            ErrSyntax,
		"Digest a=\"b\x00\"":          ErrSyntax,
		"Digest uri=sip:a@b":          ErrSyntax,
		"Digest nc=1":                 ErrCount,
		"Digest nc=0000000g":          ErrCount,
		"Digest realm=a, Realm=\"b\"": ErrTwice,
		"Digest " + strings.Repeat("a=b,", 24) + "a=b": ErrMany,
		"Digest a=" + strings.Repeat("b", 2048):        ErrLong,
	} {
		if err := f.Parse([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%.60q: got %v, want %v", text, err, want)
		}
	}
}

// start is when tests begin.
func start() time.Time { return time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC) }

const realm = "voip.example.jp"

// exchange is a client at a server.
type exchange struct {
	t      *testing.T
	server *Server
	client Client
	secret *Secret
	r      Request
}

func newExchange(t *testing.T) *exchange {
	return &exchange{
		t: t, server: NewServer(realm, []Key{{1, 2, 3}}, 16), client: Client{Username: "05010000001", Password: "secret"},
		secret: newSecret("05010000001", realm, "secret"),
		r:      Request{Method: []byte("REGISTER"), URI: []byte("sip:voip.example.jp"), Client: netip.MustParseAddr("2001:db8:1::1"), Now: start()},
	}
}

func (e *exchange) challenge(a Algorithm) {
	e.t.Helper()
	if err := e.client.Take(e.server.AppendChallenge(nil, a, &e.r, false)); err != nil {
		e.t.Fatal(err)
	}
}

// answer returns what the client sends next.
func (e *exchange) answer() string {
	return string(e.client.Append(nil, "REGISTER", "sip:voip.example.jp", [8]byte{7}))
}

func (e *exchange) check(credentials string) Verdict {
	e.t.Helper()
	var f Fields
	if err := f.Parse([]byte(credentials)); err != nil {
		e.t.Fatalf("%v in %s", err, credentials)
	}
	return e.server.Check(&f, &e.r, e.secret)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	swap := func(from, to string) func(*exchange, string) string {
		return func(e *exchange, c string) string {
			if !strings.Contains(c, from) {
				e.t.Errorf("no %q in %s", from, c)
			}
			return strings.Replace(c, from, to, 1)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(e *exchange, credentials string) string
		want   Verdict
	}{
		{"right", nil, Granted},
		{"later", func(e *exchange, c string) string { e.r.Now = start().Add(5 * time.Minute); return c }, Granted},
		{"too late", func(e *exchange, c string) string { e.r.Now = start().Add(5*time.Minute + time.Millisecond); return c }, Stale},
		{"from the future", func(e *exchange, c string) string { e.r.Now = start().Add(-time.Millisecond); return c }, Stale},
		{"another address of the network", func(e *exchange, c string) string { e.r.Client = netip.MustParseAddr("2001:db8:1::2"); return c }, Granted},
		{"another network", func(e *exchange, c string) string { e.r.Client = netip.MustParseAddr("2001:db8:1:1::1"); return c }, Stale},
		{"another family", func(e *exchange, c string) string { e.r.Client = netip.MustParseAddr("192.0.2.1"); return c }, Stale},
		{"key rotated", func(e *exchange, c string) string { e.server.Keys = []Key{{9}, {1, 2, 3}}; return c }, Granted},
		{"key lost", func(e *exchange, c string) string { e.server.Keys = []Key{{9}}; return c }, Stale},
		{"nobody", func(e *exchange, c string) string { e.secret = nil; return c }, Denied},
		{"no digest for this algorithm", func(e *exchange, c string) string { e.secret = new(Secret); return c }, Denied},
		{"wrong password", func(e *exchange, c string) string { e.secret = newSecret("05010000001", realm, "Secret"); return c }, Denied},
		{"wrong password, and late", func(e *exchange, c string) string {
			e.secret, e.r.Now = newSecret("05010000001", realm, "Secret"), start().Add(time.Hour)
			return c
		}, Denied},
		{"another method", func(e *exchange, c string) string { e.r.Method = []byte("INVITE"); return c }, Denied},
		{"another URI", func(e *exchange, c string) string { e.r.URI = []byte("sip:other.example.jp"); return c }, Denied},
		{"another URI, and nobody minds", func(e *exchange, c string) string { e.r.URI = nil; return c }, Granted},
		{"another realm", swap(realm, "other.example.jp"), Denied},
		{"another count", swap("nc=00000001", "nc=00000002"), Denied},
		{"no count", swap("nc=00000001, ", ""), Denied},
		{"no cnonce", swap(`, cnonce="0700000000000000"`, ""), Denied},
		{"qop we did not offer", swap("qop=auth", "qop=auth-int"), Denied},
		{"unknown algorithm", swap("algorithm=", "algorithm=X"), Denied},
		{"no user", swap(`username="05010000001", `, ""), Denied},
		{"empty response", func(_ *exchange, c string) string {
			before, after, _ := strings.Cut(c, `response="`)
			_, after, _ = strings.Cut(after, `"`)
			return before + `response=""` + after
		}, Denied},
		{"in capitals", func(_ *exchange, c string) string {
			before, after, _ := strings.Cut(c, `response="`)
			response, after, _ := strings.Cut(after, `"`)
			return before + `response="` + strings.ToUpper(response) + `"` + after
		}, Granted},
	} {
		for _, a := range [...]Algorithm{MD5, SHA256} {
			e := newExchange(t)
			e.challenge(a)
			c := e.answer()
			if tt.change != nil {
				c = tt.change(e, c)
			}
			if got := e.check(c); got != tt.want {
				t.Errorf("%s, %v: %v, want %v", tt.name, a, got, tt.want)
			}
		}
	}
}

// newSecret returns that of a password.
func newSecret(username, realm, password string) *Secret {
	s := new(Secret)
	for _, a := range [...]Algorithm{MD5, SHA256} {
		s.set(a, a.hash(nil, []byte(username+":"+realm+":"+password)))
	}
	return s
}

// TestReplay: credentials are good once, a nonce is good for many.
func TestReplay(t *testing.T) {
	t.Parallel()
	e := newExchange(t)
	e.challenge(SHA256)
	first := e.answer()
	second := e.answer()
	third := e.answer()
	for i, step := range []struct {
		credentials string
		want        Verdict
	}{{first, Granted}, {first, Stale}, {third, Granted}, {second, Granted}, {second, Stale}, {third, Stale}} {
		if got := e.check(step.credentials); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	e.challenge(SHA256)
	if got := e.check(e.answer()); got != Granted {
		t.Errorf("with a new nonce: %v", got)
	}
}

// TestWithoutQOP: an old telephone must ask for a nonce each time.
func TestWithoutQOP(t *testing.T) {
	t.Parallel()
	e := newExchange(t)
	challenge := strings.Replace(string(e.server.AppendChallenge(nil, MD5, &e.r, false)), `, qop="auth"`, "", 1)
	if err := e.client.Take([]byte(challenge)); err != nil {
		t.Fatal(err)
	}
	c := e.answer()
	if strings.Contains(c, "nc=") {
		t.Errorf("it counts: %s", c)
	}
	if first, again := e.check(c), e.check(c); first != Granted || again != Stale {
		t.Errorf("%v, then %v", first, again)
	}
}

// TestCheckForged: what is computed rightly from what is not allowed, or from a secret that is not there.
func TestCheckForged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, count, cnonce, qop string
		unknown                  bool
		want                     Verdict
	}{
		{"right", "00000001", "c", "auth", false, Granted},
		{"without qop", "", "", "", false, Granted},
		{"empty cnonce", "00000001", "", "auth", false, Denied},
		{"no count", "", "c", "auth", false, Denied},
		{"count without qop", "00000001", "c", "", false, Denied},
		{"auth-int as if there were none", "", "", "auth-int", false, Denied},
		{"nobody's secret is zeros", "00000001", "c", "auth", true, Denied},
	} {
		e := newExchange(t)
		e.challenge(MD5)
		p := proof{algorithm: MD5, method: e.r.Method, uri: e.r.URI, nonce: []byte(e.client.nonce), cnonce: []byte(tt.cnonce)}
		text := fmt.Sprintf("Digest username=a, realm=%q, nonce=%q, uri=%q", realm, e.client.nonce, e.r.URI)
		for name, value := range map[string]string{"nc": tt.count, "cnonce": tt.cnonce, "qop": tt.qop} {
			if value != "" {
				text += ", " + name + "=" + value
			}
		}
		if tt.count != "" {
			p.count = []byte(tt.count)
		}
		secret := e.secret
		if tt.unknown {
			e.secret, secret = nil, new(Secret)
		}
		if got := e.check(text + fmt.Sprintf(", response=%q", p.response(nil, secret.of(MD5)))); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestChallenge(t *testing.T) {
	t.Parallel()
	e := newExchange(t)
	var f Fields
	if err := f.Parse(e.server.AppendChallenge(nil, SHA256, &e.r, true)); err != nil {
		t.Fatal(err)
	}
	if !f.Stale || f.Algorithm != SHA256 || !f.Auth || string(f.Realm) != realm || len(f.Nonce) != nonceLen {
		t.Errorf("got %+v", f)
	}
	var g Fields
	if err := g.Parse(e.server.AppendChallenge(nil, SHA256, &e.r, false)); err != nil || g.Stale || string(g.Nonce) == string(f.Nonce) {
		t.Errorf("%v, stale %v, the same nonce twice: %s", err, g.Stale, g.Nonce)
	}
}

func TestTake(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		`Digest realm="a", nonce="b"`:                              nil,
		`Digest realm="a", nonce="b", qop="auth-int, auth"`:        nil,
		`Digest realm="a", nonce="b", qop="auth-int"`:              ErrOffer,
		`Digest realm="a", nonce="b", algorithm=SHA-512-256`:       ErrOffer,
		`Digest realm="a", nonce="b", algorithm=MD5-sess`:          ErrOffer,
		`Digest realm="a"`:                                         ErrMissing,
		`Digest nonce="a"`:                                         ErrMissing,
		`Basic realm="a"`:                                          ErrScheme,
		`Digest realm="a", nonce="b", algorithm=sha-256, qop=auth`: nil,
	} {
		c := Client{}
		if err := c.Take([]byte(text)); !errors.Is(err, want) || c.Ready() != (want == nil) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
	c := Client{Username: "Mufasa", Password: "Circle Of Life"}
	if err := c.Take([]byte(`Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc"`)); err != nil {
		t.Fatal(err)
	}
	want := `Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", uri="/dir/index.html", ` +
		`response="` + string((&proof{MD5, []byte("GET"), []byte("/dir/index.html"), []byte("dcd98b7102dd2f0e8b11d0f600bfb0c093"), []byte("00000001"),
		[]byte("0000000000000001")}).response(nil, newSecret("Mufasa", "testrealm@host.com", "Circle Of Life").of(MD5))) +
		`", qop=auth, nc=00000001, cnonce="0000000000000001", opaque="5ccc"`
	if got := string(c.Append(nil, "GET", "/dir/index.html", [8]byte{7: 1})); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestCode: the code is the HMAC of the standard library.
func TestCode(t *testing.T) {
	t.Parallel()
	k := Key{5, 6, 7}
	s := newStamp(start(), 9)
	for _, client := range []string{"192.0.2.1", "2001:db8:1:2::3"} {
		a := netip.MustParseAddr(client)
		bits, prefix := byte(32), a.As16()
		if !a.Is4() {
			bits = 64
			clear(prefix[8:])
		}
		mac := hmac.New(sha256.New, k[:])
		mac.Write(s[:])
		mac.Write([]byte{bits})
		mac.Write(prefix[:])
		mac.Write([]byte(realm))
		got := k.code(&s, realm, a)
		if want := mac.Sum(nil)[:codeLen]; string(got[:]) != string(want) {
			t.Errorf("%s: got %x, want %x", client, got, want)
		}
	}
	if s.milli() != start().UnixMilli() {
		t.Errorf("the time is %d, want %d", s.milli(), start().UnixMilli())
	}
}

// TestWindow: a small window forgets, and never takes anything twice.
func TestWindow(t *testing.T) {
	t.Parallel()
	w := NewWindow(1) // one place
	if n := unsafe.Sizeof(w.places[0]); n != 64 {
		t.Errorf("a place has %d bytes", n)
	}
	for i := range 8 {
		if !w.take(uint64(i), int64(100+i), 1) {
			t.Errorf("nonce %d is not taken", i)
		}
	}
	for i := range 8 {
		if w.take(uint64(i), int64(100+i), 1) {
			t.Errorf("nonce %d is taken twice", i)
		}
		if got := w.take(uint64(i), int64(100+i), 2); got != (i >= 8-ways) {
			t.Errorf("nonce %d goes on: %v", i, got)
		}
	}
	if w.take(50, 103, 1) {
		t.Error("a nonce as old as one that was forgotten is taken")
	}
	if !w.take(7, 107, 100) || !w.take(7, 107, 40) || w.take(7, 107, 36) || w.take(7, 107, 40) || !w.take(7, 107, 37) {
		t.Error("the window of counts is not 64 wide")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`Digest username="a", realm="b", nonce="c", uri="sip:d", response="e", algorithm=MD5, qop=auth, nc=00000001, cnonce="f"`))
	s := NewServer("b", []Key{{1}}, 4)
	secret := newSecret("a", "b", "p")
	f.Fuzz(func(t *testing.T, text []byte) {
		var c Fields
		if c.Parse(text) != nil {
			return
		}
		r := Request{Method: []byte("REGISTER"), Client: netip.MustParseAddr("::1"), Now: start()}
		if v := s.Check(&c, &r, secret); v != Denied {
			t.Errorf("%s: %v, without the password", text, v)
		}
		var k Client
		if k.Take(text) == nil {
			var again Fields
			if err := again.Parse(k.Append(nil, "REGISTER", "sip:d", [8]byte{})); err != nil || string(again.Nonce) != string(c.Nonce) {
				t.Errorf("%v: cannot answer %s", err, text)
			}
		}
	})
}

// FuzzWindow proves against a map that nothing is taken twice, whatever comes in whatever order.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{1, 1, 1, 2, 2, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, steps []byte) {
		w := NewWindow(8)
		type once struct {
			tag, made, count byte
		}
		taken := map[once]bool{}
		for ; len(steps) >= 2; steps = steps[2:] {
			made := steps[0]>>3 | 1
			o := once{steps[0], made, steps[1]} // a tag has one time, as a nonce has
			if !w.take(uint64(o.tag), int64(o.made), uint32(o.count)) {
				continue
			}
			if taken[o] {
				t.Fatalf("%v is taken twice", o)
			}
			taken[o] = true
		}
	})
}

func benchmark(b *testing.B, a Algorithm) {
	s := NewServer(realm, []Key{{1}}, 1<<16)
	s.Lifetime = time.Hour
	secret := newSecret("05010000001", realm, "secret")
	r := Request{Method: []byte("REGISTER"), URI: []byte("sip:voip.example.jp"), Client: netip.MustParseAddr("2001:db8:1::1"), Now: start()}
	c := Client{Username: "05010000001", Password: "secret"}
	if err := c.Take(s.AppendChallenge(nil, a, &r, false)); err != nil {
		b.Fatal(err)
	}
	credentials := c.Append(nil, "REGISTER", "sip:voip.example.jp", [8]byte{})
	b.ReportAllocs()
	var f Fields
	for b.Loop() {
		if err := f.Parse(credentials); err != nil {
			b.Fatal(err)
		}
		if s.Check(&f, &r, secret) == Denied { // granted once, then stale, after the same work
			b.Fatal("denied")
		}
	}
}

// To read and check credentials takes 1.6 µs of CPU with either algorithm, a challenge 310 ns, without an allocation, on a
// busy core of an AMD EPYC (Turin), Go 1.26.
func BenchmarkCheckMD5(b *testing.B)    { benchmark(b, MD5) }
func BenchmarkCheckSHA256(b *testing.B) { benchmark(b, SHA256) }

func BenchmarkChallenge(b *testing.B) {
	s := NewServer(realm, []Key{{1}}, 16)
	r := Request{Client: netip.MustParseAddr("2001:db8:1::1"), Now: start()}
	out := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		s.AppendChallenge(out, SHA256, &r, false)
	}
}

// A token ends at a byte that none may have. RFC 3261 §25.1.
func TestToken(t *testing.T) {
	t.Parallel()
	const all = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~"
	for c := range 256 {
		want := 0
		if strings.IndexByte(all, byte(c)) >= 0 {
			want = 1
		}
		if got := token([]byte{byte(c)}); got != want {
			t.Errorf("%q: got %d", rune(c), got)
		}
	}
}
