// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// ids returns what the table has, in order.
func (p *postgres) ids(table string) (all []string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "select id || ' ' || (record ->> 'to') from "+table+" order by id")
	if err == nil {
		all, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return all
}

// Records of calls come to the database once, whatever happens to it or to the edge in between.
func TestTable(t *testing.T) {
	t.Parallel()
	p := newPostgres(t)
	p.exec("create schema billing")
	p.exec("create table billing.cdrs (id text primary key, record jsonb not null)")
	b := newBench(t, "")
	options := fmt.Sprintf(", cdr: calls.jsonl, cdr-database: {url: %q, table: billing.cdrs}", p.url)
	b.reload(options)
	call := func(x ip.Family) {
		t.Helper()
		caller, callee := b.registered("udp", x, "05010000001"), b.registered("udp", x, "05010000002")
		heard, _ := b.call(caller, callee, nil, nil)
		hangUp(caller, callee, heard, sequence(heard)+1)
		callee.unregister()
	}
	spoil := func(x ip.Family) { // what a database does not take as it is
		t.Helper()
		caller := b.registered("udp", x, "05010000001")
		r := caller.invite("0501%00")
		caller.send(reply(r, caller.want("404"), "ACK"))
	}
	calls := 0
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t, p.t = t, t
		spoil(f)
		call(f)
		calls += 2
		b.until(func() bool { return len(p.ids("billing.cdrs")) == calls })
		p.stop()
		call(f)
		b.until(func() bool { return len(b.records()) == calls+1 })
		b.end()
		b.start(options)
		call(f)
		calls += 2
		p.start()
		b.until(func() bool { return len(p.ids("billing.cdrs")) == calls })
	})
	b.t, p.t = t, t
	var want []string
	for _, r := range b.records() {
		want = append(want, r.ID+" "+strings.ReplaceAll(r.To, "\x00", "\ufffd"))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, p.ids("billing.cdrs")); diff != "" {
		t.Errorf("file and table (-file +table):\n%s", diff)
	}
	if err := b.edge.Reload(b.parse(", cdr: calls.jsonl")); err != nil {
		t.Fatal(err)
	}
}
