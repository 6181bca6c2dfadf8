// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package scan

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/mail/policy"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// message is one with a text, from a client of a family.
func message(f ip.Family, text string) *Message {
	client := netip.MustParseAddr("2001:db8:1:2::25")
	if f == ip.V4 {
		client = netip.MustParseAddr("192.0.2.25")
	}
	return &Message{Client: client, Hello: "mx.example.com", Name: "host.example.com", From: "a@example.com",
		Recipients: []string{"b@example.jp", "ü@example.jp"}, Size: int64(len(text)), Text: strings.NewReader(text)}
}

// fakeClamd takes a message and says something to it.
func fakeClamd(t *testing.T, f ip.Family, say func(text string) string) netip.AddrPort {
	t.Helper()
	return servertest.TCP(t, f, func(c *net.TCPConn) {
		var command [10]byte
		if io.ReadFull(c, command[:]); string(command[:]) != "zINSTREAM\x00" {
			t.Errorf("command %q", command)
		}
		var text bytes.Buffer
		for {
			var n uint32
			if binary.Read(c, binary.BigEndian, &n) != nil || n == 0 {
				break
			}
			io.CopyN(&text, c, int64(n))
		}
		io.WriteString(c, say(text.String()))
	})
}

// TestClamd: what a server says, and what becomes of the message.
func TestClamd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, says, reply string }{
		{"clean", "stream: OK\x00", ""},
		{"virus", "stream: Eicar-Test FOUND\x00", "554 5.7.1 The message has a virus: Eicar-Test\r\n"},
		{"strange name", "stream: Eicar\r\n250 FOUND\x00", "554 5.7.1 The message has a virus: Eicar250\r\n"},
		{"error", "INSTREAM size limit exceeded. ERROR\x00", "451 4.3.0 "},
		{"half an answer", "stream: O", "451 4.3.0 "},
		{"no end", "stream: OK", "451 4.3.0 "},
		{"no end of a virus", "stream: V FOUND", "451 4.3.0 "},
		{"nothing", "", "451 4.3.0 "},
		{"without a name", "stream:  FOUND\x00", "451 4.3.0 "},
		{"too much", "stream: " + strings.Repeat("x", 2*replyLimit) + " FOUND\x00", "451 4.3.0 "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
				text := strings.Repeat("line\r\n", 50_000) // five pieces
				at := fakeClamd(t, c.Backend, func(got string) string {
					if got != text {
						t.Errorf("%d bytes have come, want %d", len(got), len(text))
					}
					return test.says
				})
				var counts Counts
				e := New(Options{Clamd: []netip.AddrPort{at}, Counts: &counts})
				defer e.Close()
				v := e.Check(t.Context(), message(c.Client, text))
				if !strings.HasPrefix(v.Reply, test.reply) || (test.reply == "") != (v.Reply == "") {
					t.Errorf("reply %q, want %q", v.Reply, test.reply)
				}
				if (v.Unasked != nil) != strings.HasPrefix(test.reply, "451") || counts.Judged(c.Client, v.Reason) != 1 {
					t.Errorf("%v, %v", v.Unasked, v.Reason)
				}
			})
		})
	}
}

// TestRspamd: what a server answers, and what becomes of the message.
func TestRspamd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, answer  string
		reply, fields string
		auth          policy.Mode
		silent4       bool // the same to a client over IPv4
	}{
		{"no action", `{"action":"no action","score":1.5,"symbols":{"R_SPF_ALLOW":{"score":-0.2}}}`, "", "", policy.Enforce, false},
		{"greylist", `{"action":"greylist"}`, "", "", 0, false},
		{"reject", `{"action":"reject"}`, "554 5.7.1 The message is not wanted\r\n", "", 0, false},
		{"reject with words", `{"action":"reject","messages":{"smtp_message":"Gtube\r\n250 pattern"}}`, "554 5.7.1 Gtube250 pattern\r\n", "", 0, false},
		{"soft reject", `{"action":"soft reject","messages":{"smtp_message":"Try again later"}}`, "451 4.7.1 Try again later\r\n", "", 0, false},
		{"add header", `{"action":"add header"}`, "", "X-Spam: Yes\r\n", 0, false},
		{"rewrite subject", `{"action":"rewrite subject"}`, "", "X-Spam: Yes\r\n", 0, false},
		{"fields", `{"action":"no action","milter":{"add_headers":{"X-B":"one","X-A":{"value":"a;\n\tb","order":0},"X-C":[{"value":"1","order":1},"2"],"X D":"no","X:D":"no","X-E":7,"X-F":""}}}`,
			"", "X-A: a;\r\n\tb\r\nX-B: one\r\nX-C: 1\r\nX-C: 2\r\n", 0, false},
		{"field that ends the head", `{"action":"no action","milter":{"add_headers":{"X-A":"a\r\n\r\nbody","X-B\r\n":"x","X-C":"é` + "\\u0000" + `"}}}`, "", "X-A: a\r\n\tbody\r\n", 0, false},
		{"nobody speaks for it", `{"action":"no action","symbols":{"R_SPF_NA":{},"R_DKIM_NA":{}}}`, "450 4.7.26 ", "", policy.Enforce, true},
		{"nobody speaks, observed", `{"action":"no action","symbols":{"R_SPF_SOFTFAIL":{},"R_DKIM_REJECT":{}}}`, "", "", policy.Observe, true},
		{"SPF speaks for it", `{"action":"no action","symbols":{"R_SPF_ALLOW":{},"R_DKIM_NA":{}}}`, "", "", policy.Enforce, false},
		{"DKIM speaks for it", `{"action":"no action","symbols":{"R_SPF_FAIL":{},"R_DKIM_ALLOW":{}}}`, "", "", policy.Enforce, false},
		{"DNS fails for SPF", `{"action":"no action","symbols":{"R_SPF_DNSFAIL":{},"R_DKIM_NA":{}}}`, "", "", policy.Enforce, false},
		{"DNS fails for DKIM", `{"action":"no action","symbols":{"R_SPF_NA":{},"R_DKIM_TEMPFAIL":{}}}`, "", "", policy.Enforce, false},
		{"DNS fails for one signature", `{"action":"no action","symbols":{"R_SPF_NA":{},"R_DKIM_REJECT":{},"R_DKIM_TEMPFAIL":{}}}`, "", "", policy.Enforce, false},
		{"SPF is not looked at", `{"action":"no action","symbols":{"R_DKIM_NA":{}}}`, "", "", policy.Enforce, false},
		{"no JSON", `<html>`, "451 4.3.0 ", "", 0, false},
		{"no action named", `{}`, "451 4.3.0 ", "", 0, false},
		{"another type", `{"action":["reject"]}`, "451 4.3.0 ", "", 0, false},
		{"too much", `{"action":"reject","x":"` + strings.Repeat("x", opinionLimit) + `"}`, "451 4.3.0 ", "", 0, false},
		{"an error", "500", "451 4.3.0 ", "", 0, false},
		{"elsewhere", "302", "451 4.3.0 ", "", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
				at := servertest.HTTP(t, c.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					got, err := io.ReadAll(r.Body)
					if err != nil || string(got) != "text\r\n" || r.URL.Path != "/checkv2" {
						t.Errorf("%s: %q, %v", r.URL, got, err)
					}
					m := message(c.Client, "")
					want := []string{m.Client.String(), m.Hello, m.Name, m.From, m.Recipients[0], m.Recipients[1]}
					if diff := cmp.Diff(want, []string{r.Header.Get("IP"), r.Header.Get("Helo"), r.Header.Get("Hostname"), r.Header.Get("From"), r.Header.Values("Rcpt")[0], r.Header.Values("Rcpt")[1]}); diff != "" {
						t.Errorf("told (-want +got):\n%s", diff)
					}
					switch test.answer {
					case "500":
						w.WriteHeader(http.StatusInternalServerError)
					case "302":
						http.Redirect(w, r, "/", http.StatusFound)
					}
					io.WriteString(w, test.answer)
				}))
				var counts Counts
				e := New(Options{Rspamd: []netip.AddrPort{at}, Auth: test.auth, Counts: &counts})
				defer e.Close()
				v := e.Check(t.Context(), message(c.Client, "text\r\n"))
				want := test.reply
				if test.silent4 && c.Client == ip.V4 {
					want = ""
				}
				if !strings.HasPrefix(v.Reply, want) || (want == "") != (v.Reply == "") || string(v.Fields) != test.fields {
					t.Errorf("reply %q, want %q; fields %q, want %q", v.Reply, want, v.Fields, test.fields)
				}
				if silent := counts.Silent(c.Client); silent > 1 || (silent == 1) != (v.Auth && test.auth == policy.Observe) {
					t.Errorf("%d silent, found %t", silent, v.Auth)
				}
				if v.Auth != (test.silent4 && c.Client == ip.V6) || (v.Unasked != nil) != strings.HasPrefix(want, "451 4.3.0") {
					t.Errorf("%t, %v", v.Auth, v.Unasked)
				}
			})
		})
	}
}

// TestDown: an engine that is not there, or says nothing, refuses for now or lets pass, as the file says; what the other has
// found counts. A second server does what the first cannot.
func TestDown(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		release := make(chan struct{})
		defer close(release)
		gone := netip.AddrPortFrom(iptest.Loopback(c.Backend), 1)
		silent := servertest.TCP(t, c.Backend, func(*net.TCPConn) { <-release })
		clean := fakeClamd(t, c.Backend, func(string) string { return "stream: OK\x00" })
		virus := fakeClamd(t, c.Backend, func(string) string { return "stream: V FOUND\x00" })
		for _, test := range []struct {
			name          string
			clamd, rspamd []netip.AddrPort
			down          Down
			reason        Reason
			passed        int64
		}{
			{"clamd gone", []netip.AddrPort{gone}, nil, Refuse, Broken, 0},
			{"clamd gone, pass", []netip.AddrPort{gone}, nil, Pass, Fine, 1},
			{"clamd silent", []netip.AddrPort{silent}, nil, Refuse, Broken, 0},
			{"clamd silent, pass", []netip.AddrPort{silent}, nil, Pass, Fine, 1},
			{"rspamd silent", nil, []netip.AddrPort{silent}, Refuse, Broken, 0},
			{"second clamd", []netip.AddrPort{gone, clean}, nil, Refuse, Fine, 0},
			{"virus, rspamd gone", []netip.AddrPort{virus}, []netip.AddrPort{gone}, Pass, Virus, 0},
			{"clean, rspamd gone", []netip.AddrPort{clean}, []netip.AddrPort{gone}, Refuse, Broken, 0},
			{"no engine", nil, nil, Refuse, Fine, 0},
		} {
			var counts Counts
			e := New(Options{Counts: &counts, Clamd: test.clamd, Rspamd: test.rspamd, Down: test.down, Time: 200 * time.Millisecond})
			v := e.Check(t.Context(), message(c.Client, "text"))
			if v.Reason != test.reason || (v.Reply == "") != (test.reason == Fine) || counts.Unseen(c.Client) != test.passed {
				t.Errorf("%s: %v %q, %d passed unseen", test.name, v.Reason, v.Reply, counts.Unseen(c.Client))
			}
			e.Close()
		}
	})
}

// TestSize: what is too large for the engines passes, and is not counted as unseen by mistake.
func TestSize(t *testing.T) {
	t.Parallel()
	e := New(Options{Clamd: []netip.AddrPort{netip.AddrPortFrom(iptest.Loopback(ip.V6), 1)}, Size: 10})
	defer e.Close()
	if v := e.Check(t.Context(), message(ip.V6, "eleven byte")); v.Reason != Fine || v.Unasked != nil {
		t.Errorf("%+v", v)
	}
	if v := e.Check(t.Context(), message(ip.V6, "ten bytes.")); v.Reason != Broken {
		t.Errorf("%+v", v)
	}
}

// TestBound: so many are looked at at once; the others wait, but not too many, and not longer than the deadline.
func TestBound(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now, most := 0, 0
	release := make(chan struct{})
	at := fakeClamd(t, ip.V6, func(string) string {
		mu.Lock()
		now++
		most = max(most, now)
		if now == atOnce {
			close(release)
		}
		mu.Unlock()
		<-release
		mu.Lock()
		now--
		mu.Unlock()
		return "stream: OK\x00"
	})
	e := New(Options{Clamd: []netip.AddrPort{at}})
	defer e.Close()
	var wg sync.WaitGroup
	for range 3 * atOnce {
		wg.Go(func() {
			if v := e.Check(t.Context(), message(ip.V6, "x")); v.Reason != Fine {
				t.Errorf("%+v", v)
			}
		})
	}
	wg.Wait()
	if most > atOnce {
		t.Errorf("%d at once, want %d at most", most, atOnce)
	}
	e.waits.Store(waiting)
	if v := e.Check(t.Context(), message(ip.V6, "x")); !errors.Is(v.Unasked, errBusy) {
		t.Errorf("one more than may wait: %+v", v)
	}
	e.waits.Store(0)
	for range atOnce {
		e.gate <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v := e.Check(ctx, message(ip.V6, "x")); v.Reason != Broken {
		t.Errorf("who waits too long: %+v", v)
	}
	for range atOnce {
		<-e.gate
	}
}

// FuzzVerdict: whatever clamd says, there is a virus with a name, none, or an error.
func FuzzVerdict(f *testing.F) {
	for _, s := range []string{"stream: OK\x00", "stream: V FOUND\x00", "x ERROR\x00", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		virus, err := verdict(said)
		if err != nil && virus != "" || virus != "" && !bytes.HasSuffix(said, []byte(" FOUND\x00")) {
			t.Errorf("%q: %q, %v", said, virus, err)
		}
		if err == nil && virus == "" && string(said) != "stream: OK\x00" {
			t.Errorf("%q is clean", said)
		}
	})
}

// FuzzRead: whatever rspamd answers, what is put before the message are whole fields, and what the client is told is a line.
func FuzzRead(f *testing.F) {
	for _, s := range []string{`{"action":"add header"}`, `{"action":"x","milter":{"add_headers":{"A":"b","C":{"value":"d\ne"},"F":["g",{"value":"h"}]}}}`,
		`{"action":"reject","messages":{"smtp_message":"x"}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		o, err := read(p)
		if err != nil {
			return
		}
		fields := string(o.fields())
		lines := strings.SplitAfter(fields, "\r\n")
		if last := lines[len(lines)-1]; last != "" || len(fields) > fieldsLimit {
			t.Errorf("%d bytes of fields end in %q", len(fields), last)
		}
		for i, line := range lines[:len(lines)-1] {
			text, folded := strings.TrimSuffix(line, "\r\n"), strings.HasPrefix(line, "\t")
			if len(line) > 1000 || strings.ContainsAny(text, "\r\n\x00") || text == "" || folded && i == 0 || !folded && !strings.Contains(text, ": ") {
				t.Errorf("line %d is %q", i, line)
			}
		}
		if text := o.text("usual"); strings.ContainsAny(text, "\r\n") || len(text) > mostSaid || text == "" {
			t.Errorf("told %q", text)
		}
	})
}
