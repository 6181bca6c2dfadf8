// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package users

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// TestPostgres: a real database is asked, also after it was down.
func TestPostgres(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		db := servertest.NewPostgres(t, f)
		db.Do(`create table mailboxes (name text primary key, server inet, pool text);
			insert into mailboxes values ('tim', '10.0.2.21', null), ('tom''s', '2001:db8::21', 'imap-new'), ('none', null, null);`)
		p, err := NewPostgres(db.URL(), "select server from mailboxes where name = $1")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		ask := func(user, want string) {
			t.Helper()
			if got, err := p.Ask(t.Context(), user); got != want || err != nil {
				t.Errorf("%q: got %q, %v, want %q", user, got, err, want)
			}
		}
		ask("tim", "10.0.2.21")
		ask("tom's", "2001:db8::21")
		ask("none", "")
		ask("nobody", "")
		ask("\xff", "")
		ask("' or 'a' = 'a", "")
		var wg sync.WaitGroup
		for range 2 * atOnce { // those that find none idle connect, and some are too many to be kept
			wg.Go(func() { ask("tim", "10.0.2.21") })
		}
		wg.Wait()
		db.Stop()
		if _, err := p.Ask(t.Context(), "tim"); err == nil {
			t.Error("a database that is down has answered")
		}
		db.Start()
		ask("tim", "10.0.2.21")

		slow, err := NewPostgres(db.URL(), "select pg_sleep(60)::text || $1")
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := slow.Ask(ctx, "tim"); err == nil || ctx.Err() == nil {
			t.Errorf("a slow database was waited for: %v", err)
		}
		wrong, err := NewPostgres(db.URL(), "select nothing from nowhere where name = $1")
		if err != nil {
			t.Fatal(err)
		}
		defer wrong.Close()
		for range 2 { // the connection is kept
			if _, err := wrong.Ask(t.Context(), "tim"); err == nil || !strings.Contains(err.Error(), `relation "nowhere" does not exist`) {
				t.Errorf("got %v", err)
			}
		}
	})
}
