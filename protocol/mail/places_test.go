// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/service"
)

// answers is what the directories of a test say of users.
type answers map[string]string

// in writes it into a file.
func (s answers) in(t *testing.T) *Users {
	t.Helper()
	var text strings.Builder
	for user, answer := range s {
		fmt.Fprintln(&text, user, answer)
	}
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Users{File: service.Path(path)}
}

// over answers so over HTTP, until it is told to stop.
func (s answers) over(t *testing.T) (u *Users, stop func()) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := s[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
		}
		fmt.Fprintln(w, answer)
	}))
	t.Cleanup(server.Close)
	return &Users{HTTP: server.URL + "/{user}"}, server.Close
}

// at puts it into a real database.
func (s answers) at(t *testing.T, db *servertest.Postgres) *Users {
	t.Helper()
	sql := "drop table if exists mailboxes; create table mailboxes (name text primary key, server text);"
	for user, answer := range s {
		sql += fmt.Sprintf("insert into mailboxes values ('%s', '%s');", user, answer)
	}
	db.Do(sql)
	return &Users{SQL: &SQL{Database: db.URL(), Query: "select server from mailboxes where name = $1"}}
}

// counted is what has been counted of look-ups.
func (b *bench) counted() (all []int64) {
	m := b.kept["fronts"].(*fronts).memory("x")
	for l := range lookups {
		all = append(all, m.lookups[l].Load())
	}
	return all
}

// TestPlaces: users go where the directory says, and nowhere else, also if nobody is there; those that it does not know go where
// they would; and while it cannot be asked, or says what there is not, logins are refused for now.
func TestPlaces(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		var db *servertest.Postgres
		kinds := []string{"file", "http"}
		if x.Client != x.Backend { // a database takes time to start; its families are tested in package users
			db, kinds = servertest.NewPostgres(t, x.Backend), append(kinds, "sql")
		}
		for _, listen := range []string{"imap", "pop3"} {
			for _, kind := range kinds {
				var servers []*postbox
				for range 4 {
					if listen == "imap" {
						servers = append(servers, newIMAP(t, x.Backend, imapGreeting))
					} else {
						servers = append(servers, newPOP3(t, x.Backend, popGreeting))
					}
				}
				gone, err := servertest.FreeAddr(x.Backend)
				if err != nil {
					t.Fatal(err)
				}
				b := newBench(t)
				other := to(servers[3].at)
				other.Name = "other"
				b.fallback = &other
				directory := answers{"tim": servers[1].at.String(), "tom": "pool-of-another other", "ann": servers[3].at.Addr().String() + ",x", "bad": "192.0.2.77",
					"away": gone.String()}
				u, stop := directory.in(t), func() {}
				switch kind {
				case "http":
					u, stop = directory.over(t)
				case "sql":
					u, stop = directory.at(t, db), db.Stop
				}
				u.Keep, u.Timeout = time.Nanosecond, patience
				e := b.serve(t, listen, x.Client, to(servers[0].at, servers[1].at, servers[2].at, gone), func(o *Options) { o.AuthInClear, o.Users = true, u })
				for user, want := range map[string]int{"tim": 1, "TIM": 1, "tom": 3, "ann": 0, "nobody": -1, "bad": -2, "away": -2} {
					b.login(t, e.at, listen, user, want != -2)
					for i, s := range servers {
						has := strings.Contains(s.heard(), `"`+user+`"`) || strings.Contains(s.heard(), "USER "+user+"\n")
						if has != (i == want) && want != -1 {
							t.Errorf("%s, %s: %s at server %d: %v, want server %d", listen, kind, user, i, has, want)
						}
					}
				}
				if got, want := b.counted(), []int64{5, 1, 1, 0}; !slices.Equal(got, want) {
					t.Errorf("%s, %s: counted %v, want %v", listen, kind, got, want)
				}
				if stop(); kind != "file" {
					b.login(t, e.at, listen, "tim", false)
					if got := b.counted()[unlearned]; got != 1 {
						t.Errorf("%s, %s: %d failed look-ups, want 1", listen, kind, got)
					}
				}
				if kind == "sql" && listen == "imap" {
					db.Start()
					b.login(t, e.at, listen, "tim", true)
				}
			}
		}
	})
}

// login logs a user in, or wants him to be refused for now; he may try again.
func (b *bench) login(t *testing.T, at netip.AddrPort, listen, user string, in bool) {
	t.Helper()
	r := connect(t, at)
	r.until("")
	want := map[bool]string{true: "a OK [CAPABILITY IMAP4rev1 IDLE MOVE] in", false: "a NO [UNAVAILABLE] Mailboxes cannot be reached now."}[in]
	if listen == "imap" {
		r.do("a LOGIN "+user+" secret", want)
	} else {
		r.do("USER "+user, "+OK Send your password.")
		r.do("PASS secret", map[bool]string{true: "+OK in", false: "-ERR [SYS/TEMP] Mailboxes cannot be reached now."}[in])
	}
	if !in && listen == "imap" {
		r.do("b NOOP", "b OK NOOP completed.")
	}
}

// TestPlacesClientGone: a client that goes while the directory is asked is forgotten.
func TestPlacesClientGone(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b := newBench(t)
		asked, answer := make(chan bool, 1), make(chan bool)
		directory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked <- true
			<-answer
			fmt.Fprintln(w, "existing")
		}))
		t.Cleanup(directory.Close)
		server := newIMAP(t, ip.V4, imapGreeting)
		e := b.serve(t, "imap", f, to(server.at), func(o *Options) {
			o.AuthInClear, o.Users = true, &Users{HTTP: directory.URL + "/{user}", Timeout: patience}
		})
		r := connect(t, e.at)
		r.until("* OK")
		r.say("a LOGIN tim secret")
		<-asked
		r.conn.Close()
		visitors := b.kept["fronts"].(*fronts).memory("x").tally.at(entrance{"imap", f})
		b.waitFor("the client to be gone", func() bool { return visitors.here.Load() == 0 })
		close(answer)
		b.login(t, e.at, "imap", "tim", true) // the answer is there
		if n := strings.Count(server.heard(), "tim"); n != 1 {
			t.Errorf("the server heard of the user %d times", n)
		}
	})
}
