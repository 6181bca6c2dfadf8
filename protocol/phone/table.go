// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kyozon/kyozon/protocol/phone/cdr"
)

const (
	// recordTable is where records go if no table is named.
	recordTable = "calls"

	// tablePatience is how long a database may take to take records.
	tablePatience = 10 * time.Second

	// tableTogether bounds the records that go to a database at once.
	tableTogether = 1000

	// partingPatience is how long it may take when the edge ends.
	partingPatience = 3 * time.Second

	// maxTableWait bounds how long a database that fails is let be.
	maxTableWait = time.Minute
)

// tableName is the name of a table, perhaps with that of its schema.
func tableName() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?$`)
}

// tabulate takes records that are in the file to the database until ctx is done. Those that it has no time for stay in the
// journal of calls, and the next process takes them there: a record is in the table once, whoever has brought it.
func (c *core) tabulate(ctx context.Context) {
	wait := recordTogether
	var next <-chan time.Time
	for {
		select {
		case <-c.table.wake:
			if next == nil {
				next = time.After(wait)
			}
			continue
		case <-next:
		case <-ctx.Done():
			return
		}
		next = nil
		if err := c.insert(ctx); err != nil {
			wait = min(max(2*wait, recordAgain), maxTableWait)
			next = time.After(wait)
		} else {
			wait = recordTogether
		}
	}
}

// insert puts the next records into the table.
func (c *core) insert(ctx context.Context) error {
	all, lost := c.table.take()
	to := c.settings.Load().options.CDRDatabase
	if lost > 0 {
		c.log.Error("records of calls do not come to the database", "lost", lost)
	}
	if len(all) == 0 {
		return nil
	}
	var err error
	for len(all) > 0 && err == nil {
		part := all[:min(tableTogether, len(all))]
		if to != nil {
			err = to.insert(ctx, part, c.log)
		}
		if err == nil {
			for _, r := range part {
				c.calls.settle(r.id)
			}
			all = all[len(part):]
		}
	}
	if err != nil {
		c.log.Error("records of calls do not come to the database, and are kept", "kept", len(all), "err", err)
		c.table.putBack(all)
	}
	return err
}

// insert puts records into the table, all or none. One that is there is not put twice; one that nobody could read back is left
// out, so that it does not keep the others from coming.
func (t *RecordTable) insert(ctx context.Context, all []record, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, tablePatience)
	defer cancel()
	conn, err := pgx.Connect(ctx, t.URL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	table := t.Table
	if table == "" {
		table = recordTable
	}
	var batch pgx.Batch
	for _, one := range all {
		r, err := cdr.Parse(one.line)
		if err != nil {
			log.Error("a record of a call does not come to the database", "err", err)
			continue
		}
		batch.Queue(fmt.Sprintf("insert into %s (id, record) values ($1, $2) on conflict (id) do nothing", table), r.ID, storable(one.line))
	}
	return conn.SendBatch(ctx, &batch).Close()
}

// storable is a line as a column of type jsonb takes it: without U+0000, which a caller can put into what he dials.
func storable(line []byte) string { return strings.ReplaceAll(string(line), `\u0000`, `\ufffd`) }
