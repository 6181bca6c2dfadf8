// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// subscribersQuery is what is asked where nothing else is written.
	subscribersQuery = "select name, digest from subscribers"

	// subscribersEvery is how often, where nothing is written.
	subscribersEvery = 5 * time.Minute

	// notifications is the channel on which a database says that something has changed.
	notifications = "kyozon_subscribers"

	// rosterPatience is how long a database may take to begin with an answer.
	rosterPatience = 10 * time.Second

	// readPatience is how long it may take to say who they all are.
	readPatience = 2 * time.Minute
)

// roster is the subscribers as a database last had them. It outlives the generations: while the database is down, they are
// those who are known.
type roster struct {
	from Database
	all  atomic.Pointer[map[string]*subscriber]
}

// complete returns d with what applies where nothing is written.
func (d *Database) complete() Database {
	from := *d
	from.Query = cmp.Or(from.Query, subscribersQuery)
	from.Every = cmp.Or(from.Every, subscribersEvery)
	return from
}

// key is the one that says where it is.
func (d *Database) key() string {
	if d.File != "" {
		return "file"
	}
	return "url"
}

// rosterOf returns the roster of a service, which has been read at least once.
func (c *core) rosterOf(o *Options) (*roster, error) {
	from := o.Subscribers.Database.complete()
	d := c.roster
	if d == nil || d.from.URL != from.URL || d.from.File != from.File || d.from.Query != from.Query {
		d = &roster{}
	}
	next := &roster{from: from}
	next.all.Store(d.all.Load())
	ctx, cancel := context.WithTimeout(context.Background(), rosterPatience)
	defer cancel()
	err := next.first(ctx, o.Domain, c)
	switch {
	case err != nil && next.all.Load() == nil:
		return nil, fmt.Errorf("read subscribers: %w", err)
	case err != nil:
		c.log.Error("subscribers are those who were known", "err", err)
	}
	c.roster = next
	return next, nil
}

// first asks the database once.
func (d *roster) first(ctx context.Context, domain string, c *core) error {
	if d.from.File != "" {
		return d.openedSQLite(ctx, func(conn *sql.Conn) error { return d.read(ctx, sqliteRows(conn), domain, c) })
	}
	conn, err := pgx.Connect(ctx, d.from.URL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return d.read(ctx, postgresRows(conn), domain, c)
}

// ask asks a database, and calls row for each row of the answer.
type ask func(ctx context.Context, query string, row func(name, digest string)) error

// postgresRows is what a PostgreSQL database answers.
func postgresRows(conn *pgx.Conn) ask {
	return func(ctx context.Context, query string, row func(name, digest string)) error {
		rows, err := conn.Query(ctx, query)
		if err != nil {
			return err
		}
		var name, digest string
		_, err = pgx.ForEachRow(rows, []any{&name, &digest}, func() error {
			row(name, digest)
			return nil
		})
		return err
	}
}

// read asks the database, and puts what it says in the place of what it said before. Who is as he was stays the same.
func (d *roster) read(ctx context.Context, from ask, domain string, c *core) error {
	all, lines, left, err := readRows(ctx, from, d.from.Query, domain)
	if err != nil {
		return err
	}
	if left.rows > 0 {
		c.log.Error("subscribers of a database are left out", "rows", left.rows, "err", left.why)
	}
	before := d.all.Load()
	for name, s := range all {
		digests := strings.Fields(lines[name])
		slices.Sort(digests)
		s.written = strings.Join(digests, " ")
		if before != nil && (*before)[name] != nil && (*before)[name].written == s.written && (*before)[name].address == s.address {
			all[name] = (*before)[name]
		}
	}
	d.all.Store(&all)
	return nil
}

// leftOut is how many rows name nobody, and what is wrong with the last of them.
type leftOut struct {
	rows int
	why  error
}

// readRows asks a database who the subscribers are, and what their digests are.
func readRows(ctx context.Context, from ask, query, domain string) (all map[string]*subscriber, lines map[string]string, left leftOut, _ error) {
	all, lines = make(map[string]*subscriber), make(map[string]string)
	err := from(ctx, query, func(name, hash string) {
		if strings.ContainsAny(name, ":\r\n") || name != strings.TrimSpace(name) || strings.HasPrefix(name, "#") {
			left = leftOut{left.rows + 1, errColon}
		} else if err := addSubscriber(all, name+":"+domain+":"+hash, domain); err != nil {
			left = leftOut{left.rows + 1, err}
		} else {
			lines[name] += hash + " "
		}
	})
	return all, lines, left, err
}

// watch asks the database now and then, and when it says that something has changed, until ctx is done. Nobody waits for it.
func (d *roster) watch(ctx context.Context, domain string, c *core) {
	wait := time.Second
	for ctx.Err() == nil {
		follow := d.listen
		if d.from.File != "" {
			follow = d.followSQLite
		}
		err := follow(ctx, domain, c, func() { wait = time.Second })
		switch {
		case ctx.Err() != nil:
			return
		case err == nil: // a file has taken the place of the one that was open
			continue
		}
		c.log.Error("subscribers are those who were known", "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(wait*2, time.Minute)
	}
}

// listen does so over one connection. well is called when it has been read.
func (d *roster) listen(ctx context.Context, domain string, c *core, well func()) error {
	connecting, cancel := context.WithTimeout(ctx, rosterPatience)
	defer cancel()
	conn, err := pgx.Connect(connecting, d.from.URL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(connecting))
	if _, err := conn.Exec(ctx, "listen "+notifications); err != nil {
		return err
	}
	for {
		reading, cancel := context.WithTimeout(ctx, readPatience)
		err := d.read(reading, postgresRows(conn), domain, c)
		cancel()
		if err != nil {
			return err
		}
		well()
		waiting, cancel := context.WithTimeout(ctx, d.from.Every)
		_, err = conn.WaitForNotification(waiting)
		late := waiting.Err() != nil
		cancel()
		if ctx.Err() != nil || err != nil && !late {
			return err
		}
	}
}
