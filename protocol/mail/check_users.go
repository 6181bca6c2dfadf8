// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"errors"
	"slices"
	"strings"

	"github.com/kyozon/kyozon/protocol/mail/users"
	"github.com/kyozon/kyozon/service"
)

// The mistakes in where mailboxes are.
var (
	errOneOf     = errors.New("write one of file, http and sql")
	errKeeps     = errors.New("a file is in memory, and nobody is asked; remove this")
	errNoMailbox = errors.New("users are looked up when they open a mailbox, and there is no listen for that")
	errDatabase  = errors.New("not a database of PostgreSQL; write, for example, postgres://edge:secret@10.0.2.9/mail")
	errParameter = errors.New("without $1 the answer is the same for every user")
)

// check says what is wrong with a directory of users; there may be none.
func (u *Users) check(s *service.Service, at func(err error, warning bool, path ...string)) {
	if u == nil {
		return
	}
	if !slices.ContainsFunc(s.Listen, func(l service.Listen) bool { return dialects[l.Name].mailbox }) {
		at(errNoMailbox, false, "mail", "users")
	}
	n := 0
	for _, written := range []bool{u.File != "", u.HTTP != "", u.SQL != nil} {
		if written {
			n++
		}
	}
	if n != 1 {
		at(errOneOf, false, "mail", "users")
	}
	if u.File != "" && u.Keep != 0 {
		at(errKeeps, false, "mail", "users", "keep")
	}
	if u.File != "" && u.Timeout != 0 {
		at(errKeeps, false, "mail", "users", "timeout")
	}
	if u.HTTP != "" {
		if err := users.CheckURL(u.HTTP); err != nil {
			at(err, false, "mail", "users", "http")
		}
	}
	if q := u.SQL; q != nil {
		if !strings.HasPrefix(q.Database, "postgres://") && !strings.HasPrefix(q.Database, "postgresql://") {
			at(errDatabase, false, "mail", "users", "sql", "database")
		}
		if !strings.Contains(q.Query, "$1") {
			at(errParameter, false, "mail", "users", "sql", "query")
		}
	}
}
