// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// h2spec, the public conformance suite, is content with us, where it is strict too, but for what it takes from RFC 7540
// that RFC 9113 no longer has.
func TestH2spec(t *testing.T) {
	t.Parallel()
	priority := []string{ // RFC 9113 §5.3.2: ignored
		"http2/5.3.1: Sends HEADERS frame that depend on itself",
		"http2/5.3.1: Sends PRIORITY frame that depend on itself",
	}
	h2spec := servertest.Build(t, "h2spec", "tools", "-trimpath", "github.com/summerwind/h2spec/cmd/h2spec")
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, "enough bytes for flow control to hold some back")
		}))
		serve := func(at listen.Addr, o *Options) { b.serve(b.service("shop", at, shared(backendAddr), o)) }
		b.over2(t, b.freeAddr(x.Client), serve, func(t *testing.T, base string, _ *http.Client) {
			u := parsed(t, base)
			want, args := priority, []string{}
			if u.Scheme == "https" {
				args = append(args, "--tls", "--insecure")
			} else { // who does not begin with the preface speaks HTTP/1.1, and is answered so
				want = append([]string{"http2/3.5: Sends invalid connection preface"}, want...)
			}
			if got := failures(t, h2spec, netip.MustParseAddrPort(u.Host), args...); !slices.Equal(got, want) {
				t.Errorf("fails:\n%q\nwant\n%q", got, want)
			}
		})
	})
}

func parsed(t *testing.T, base string) *url.URL {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// failures runs all of h2spec and returns what fails.
func failures(t *testing.T, h2spec string, to netip.AddrPort, args ...string) (failed []string) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.xml")
	host := to.Addr().String()
	if to.Addr().Is6() {
		host = "[" + host + "]"
	}
	args = append(args, "--strict", "--host", host, "--port", strconv.Itoa(int(to.Port())), "--junit-report", report)
	out, runErr := exec.CommandContext(t.Context(), h2spec, args...).CombinedOutput()
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("h2spec: %v, %v\n%s", runErr, err, out)
	}
	var all struct {
		Cases []struct {
			Package string `xml:"package,attr"`
			Class   string `xml:"classname,attr"`
			Failure *struct {
				Text string `xml:",innerxml"`
			} `xml:"failure"`
			Error *struct{} `xml:"error"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Cases) < 140 {
		t.Fatalf("h2spec ran only %d tests\n%s", len(all.Cases), out)
	}
	for _, c := range all.Cases {
		if c.Failure != nil || c.Error != nil {
			failed = append(failed, c.Package+": "+c.Class)
		}
	}
	return failed
}
