// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/users"
)

// How a directory is asked where nothing else is said.
const (
	defaultKeep   = time.Minute
	defaultLookUp = 3 * time.Second
)

// usersEvery is how often a file of users is looked at.
const usersEvery = 5 * time.Second

var errNowhere = errors.New("names no pool and no server of this listen")

// lookup is what a directory has said of a user who logs in.
type lookup uint8

const (
	placed    lookup = iota
	unplaced         // it does not know him
	nowhere          // it names what the site does not have
	unlearned        // it could not be asked
	lookups
)

func (l lookup) String() string { return [lookups]string{"found", "unknown", "nowhere", "failed"}[l] }

// places is where mailboxes are, as the servers of one listen see it. It is immutable.
type places struct {
	directory users.Directory
	counts    *[lookups]atomic.Int64
	pools     map[string]*backend.Pool
	servers   map[netip.AddrPort]*backend.Backend
	hosts     map[netip.Addr]*backend.Backend
}

// directory opens that of a service; nil if it has none.
func (b *builder) directory(o *Users) (users.Directory, error) {
	switch {
	case o == nil:
		return nil, nil
	case o.File != "":
		f, err := users.OpenFile(string(o.File))
		if err != nil {
			return nil, fmt.Errorf("read users: %w", err)
		}
		b.files = append(b.files, f)
		return f, nil
	}
	var source users.Source
	if o.HTTP != "" {
		source = users.NewHTTP(o.HTTP)
	} else {
		p, err := users.NewPostgres(o.SQL.Database, o.SQL.Query)
		if err != nil {
			return nil, fmt.Errorf("users: %w", err)
		}
		source = p
	}
	r := users.NewRemote(source, users.Options{Keep: cmp.Or(o.Keep, defaultKeep), Timeout: cmp.Or(o.Timeout, defaultLookUp)})
	b.remotes = append(b.remotes, r)
	return r, nil
}

// watchUsers takes changed files of users until ctx is done.
func (b *builder) watchUsers(ctx context.Context, f *users.File) {
	f.Run(ctx, usersEvery, func(path string, err error) {
		if err == nil {
			b.env.Log.Info("changed users taken", "file", path)
			return
		}
		b.env.Log.Error("changed users not taken", "file", path, "err", err)
	})
}

// newPlaces says what the words of a directory mean at a listen whose clients take a route.
func newPlaces(d users.Directory, route *backend.Route, counts *[lookups]atomic.Int64) *places {
	p := &places{directory: d, counts: counts, pools: make(map[string]*backend.Pool), servers: make(map[netip.AddrPort]*backend.Backend),
		hosts: make(map[netip.Addr]*backend.Backend)}
	for _, pool := range route.Pools() {
		p.pools[pool.Spec.Name] = pool
		for _, one := range pool.Backends() {
			if p.servers[one.Addr] == nil {
				p.servers[one.Addr] = one
			}
			if p.hosts[one.Addr.Addr()] == nil {
				p.hosts[one.Addr.Addr()] = one
			}
		}
	}
	return p
}

// place writes down where a client goes by what a directory has said: by the first word that means something at this listen, for
// IMAP and POP3 may have pools of their own.
func (p *places) place(c *backend.Client, answer string) error {
	for word := range strings.FieldsFuncSeq(answer, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		if c.Pool = p.pools[word]; c.Pool != nil {
			return nil
		}
		if at, err := netip.ParseAddrPort(word); err == nil {
			c.Server = p.servers[ip.CanonicalPort(at)]
		} else if host, err := netip.ParseAddr(word); err == nil {
			c.Server = p.hosts[ip.Canonical(host)]
		}
		if c.Server != nil {
			return nil
		}
	}
	return fmt.Errorf("%q %w", answer, errNowhere)
}

// seek finds out where the user of a login has his mailboxes, and brings it there.
func (m *mailbox) seek(l *login.Login) {
	p := m.table.places
	if p == nil {
		m.call(backend.Client{User: userKey(l.User)}, l)
		return
	}
	user := users.Name(l.User)
	if answer, ok := p.directory.Known(user); ok {
		m.sought(l, answer, nil)
		return
	}
	m.wait()
	loop := m.conn.Loop()
	p.directory.Find(user, func(answer string, err error) {
		loop.Post(func() { m.sought(l, answer, err) })
	})
}

// sought goes on with what the directory has said. A user of whom it knows nothing goes where he would without it.
func (m *mailbox) sought(l *login.Login, answer string, err error) {
	if m.over {
		return
	}
	p, client, found := m.table.places, backend.Client{User: userKey(l.User)}, placed
	switch {
	case err != nil:
		found = unlearned
	case answer == "":
		found = unplaced
	default:
		if err = p.place(&client, answer); err != nil {
			found = nowhere
		}
	}
	p.counts[found].Add(1)
	if err == nil {
		m.call(client, l)
		return
	}
	if all := m.front.all; all.notes.allow(time.Now().Unix()) {
		all.log.Error("user not looked up", "service", m.table.service, "client", m.conn.Remote().Addr().String(), "err", err)
	}
	m.wait()
	m.table.route.Limits.GiveBack(limit.FailedLogins, m.conn.Remote().Addr())
	m.visitors.logins[unavailable].Add(1)
	m.told(login.Unavailable, nil)
}
