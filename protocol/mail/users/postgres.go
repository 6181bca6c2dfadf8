// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package users

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// closeTime is how long a database may take for a goodbye.
const closeTime = time.Second

// Postgres asks a database for a user, by a query with one parameter and one column.
type Postgres struct {
	config *pgx.ConnConfig
	query  string
	idle   chan *pgx.Conn
}

// NewPostgres returns a source that asks a database. It does not connect yet. Queries are sent without being prepared, so that a
// pooler may stand before the database, and answers come as text, whatever their type.
func NewPostgres(database, query string) (*Postgres, error) {
	config, err := pgx.ParseConfig(database)
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	return &Postgres{config: config, query: query, idle: make(chan *pgx.Conn, atOnce)}, nil
}

// Ask implements Source. A connection that is kept may be of before the database was restarted: then the next one is tried.
func (p *Postgres) Ask(ctx context.Context, user string) (string, error) {
	if !utf8.ValidString(user) { // no text for the database, and so none of its users
		return "", nil
	}
	for {
		c, old, err := p.connect(ctx)
		if err != nil {
			return "", err
		}
		answer, err := p.ask(ctx, c, user)
		if !c.IsClosed() {
			p.keep(c)
		} else if old && ctx.Err() == nil {
			continue
		}
		return answer, err
	}
}

// connect returns a connection; old says that it was kept.
func (p *Postgres) connect(ctx context.Context) (c *pgx.Conn, old bool, err error) {
	select {
	case c := <-p.idle:
		return c, true, nil
	default:
		c, err := pgx.ConnectConfig(ctx, p.config)
		return c, false, err
	}
}

func (p *Postgres) ask(ctx context.Context, c *pgx.Conn, user string) (string, error) {
	var answer *string // NULL is that nothing is known
	err := c.QueryRow(ctx, p.query, user).Scan(&answer)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && answer == nil {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return *answer, nil
}

func (p *Postgres) keep(c *pgx.Conn) {
	select {
	case p.idle <- c:
	default:
		leave(c)
	}
}

func leave(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	c.Close(ctx) // an error changes nothing: it is closed
}

// Close implements Source.
func (p *Postgres) Close() {
	for {
		select {
		case c := <-p.idle:
			leave(c)
		default:
			return
		}
	}
}
