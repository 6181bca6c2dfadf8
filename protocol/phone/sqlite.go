// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// sqliteLook is how often a SQLite database is asked whether it has changed, which reads a few bytes of its file.
const sqliteLook = time.Second

// openSQLite opens a database that nobody is to write to. It is closed by the caller.
func openSQLite(ctx context.Context, file string) (*sql.DB, *sql.Conn, error) {
	name := url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(),
		RawQuery: "mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(1)"}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		db.Close()
		return nil, nil, err
	}
	return db, conn, nil
}

// sqliteRows is what a SQLite database answers to a query.
func sqliteRows(conn *sql.Conn) ask {
	return func(ctx context.Context, query string, row func(name, digest string)) error {
		rows, err := conn.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		defer rows.Close()
		var name, digest string
		for rows.Next() {
			if err := rows.Scan(&name, &digest); err != nil {
				return err
			}
			row(name, digest)
		}
		return rows.Err()
	}
}

// openedSQLite calls f with the database, while it is open.
func (d *roster) openedSQLite(ctx context.Context, f func(conn *sql.Conn) error) error {
	db, conn, err := openSQLite(ctx, string(d.from.File))
	if err != nil {
		return err
	}
	defer db.Close()
	defer conn.Close()
	return f(conn)
}

// followSQLite asks the database as often as the file says, and when another process has written to it, until ctx is done. It
// returns nil when there is another file in its place.
func (d *roster) followSQLite(ctx context.Context, domain string, c *core, well func()) error {
	return d.openedSQLite(ctx, func(conn *sql.Conn) error {
		opened, err := os.Stat(string(d.from.File))
		if err != nil {
			return err
		}
		look := time.NewTicker(min(sqliteLook, d.from.Every))
		defer look.Stop()
		seen, next := int64(-1), time.Time{}
		for {
			var version int64 // of what other connections have written: it changes when they do
			if err := conn.QueryRowContext(ctx, "pragma data_version").Scan(&version); err != nil {
				return err
			}
			if version != seen || !time.Now().Before(next) {
				reading, cancel := context.WithTimeout(ctx, readPatience)
				err := d.read(reading, sqliteRows(conn), domain, c)
				cancel()
				if err != nil {
					return err
				}
				seen, next = version, time.Now().Add(d.from.Every)
				well()
			}
			select {
			case <-look.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			if at, err := os.Stat(string(d.from.File)); err != nil || !os.SameFile(opened, at) {
				return err
			}
		}
	})
}
