// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
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

// rosterOf returns the roster of a service, which has been read at least once.
func (c *core) rosterOf(o *Options) (*roster, error) {
	from := *o.Subscribers.Database
	if from.Query == "" {
		from.Query = subscribersQuery
	}
	if from.Every == 0 {
		from.Every = subscribersEvery
	}
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
	all, lines := make(map[string]*subscriber), make(map[string]string)
	bad, why := 0, error(nil)
	err := from(ctx, d.from.Query, func(name, hash string) {
		if strings.ContainsAny(name, ":\r\n") || name != strings.TrimSpace(name) || strings.HasPrefix(name, "#") {
			bad, why = bad+1, errColon
		} else if err := addSubscriber(all, name+":"+domain+":"+hash, domain); err != nil {
			bad, why = bad+1, err
		} else {
			lines[name] += hash + " "
		}
	})
	if err != nil {
		return err
	}
	if bad > 0 {
		c.log.Error("subscribers of a database are left out", "rows", bad, "err", why)
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
