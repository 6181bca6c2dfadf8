// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// TestCurl lets a client that is none of ours answer our challenges: what HTTP and SIP have in common is all there is to it.
func TestCurl(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		for _, a := range [...]Algorithm{MD5, SHA256} {
			asked := &asked{server: NewServer(realm, []Key{{1}}, 16), algorithm: a, secret: newSecret("user", realm, "pa ss")}
			at := servertest.HTTP(t, f, asked)
			for password, want := range map[string]Verdict{"pa ss": Granted, "pass": Denied} {
				ask := exec.CommandContext(t.Context(), curl, "--silent", "--digest", "--user", "user:"+password, "http://"+at.String()+"/a?b=1")
				if out, err := ask.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if got := asked.last(); got != want {
					t.Errorf("%v, password %q: %v, want %v", a, password, got, want)
				}
			}
		}
	})
}

// asked is a server that challenges.
type asked struct {
	server    *Server
	algorithm Algorithm
	secret    *Secret

	mu      sync.Mutex
	verdict Verdict
}

func (s *asked) last() Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdict
}

func (s *asked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := Request{Method: []byte(r.Method), URI: []byte(r.RequestURI), Client: netip.MustParseAddrPort(r.RemoteAddr).Addr(), Now: time.Now()}
	var f Fields
	if f.Parse([]byte(r.Header.Get("Authorization"))) == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.verdict = s.server.Check(&f, &q, s.secret)
		if s.verdict == Granted {
			return
		}
	}
	w.Header().Set("WWW-Authenticate", string(s.server.AppendChallenge(nil, s.algorithm, &q, false)))
	w.WriteHeader(http.StatusUnauthorized)
}
