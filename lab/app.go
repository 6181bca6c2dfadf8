// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kyozon/kyozon/ip"
)

// App is a small web application: it writes each request's client into PostgreSQL and answers with what it wrote.
type App struct {
	Listen   netip.AddrPort     `yaml:"listen"`
	Name     string             `yaml:"name"`
	Database string             `yaml:"database"` // postgres://user@address/name
	Trust    List[netip.Prefix] `yaml:"trust"`    // whose X-Forwarded-For is believed
}

func (a *App) name() string { return "app" }

func (a *App) check(h HostSpec) []problem {
	all := checkListen(h, "listen", List[netip.AddrPort]{a.Listen})
	if a.Database == "" {
		all = append(all, problem{[]string{"database"}, errors.New("say which database it writes to")})
	}
	return all
}

func (a *App) daemon(_ context.Context, h *Host) (Daemon, error) {
	name := a.Name
	if name == "" {
		name = h.name
	}
	args := []string{name, a.Listen.String(), a.Database}
	for _, p := range a.Trust {
		args = append(args, p.String())
	}
	return Daemon{Name: "app", own: self("app", args...),
		Ready: AnswersHTTP(a.Listen, "/healthz")}, nil
}

// visits is the application's table. The advisory lock is for applications that start together. A client's address
// has a type that holds both families whole; that it does is what continuity asks for.
const visits = `select pg_advisory_lock(1);
create table if not exists visits (id bigserial primary key, at timestamptz not null default now(),
	server text not null, peer inet not null, client inet not null);
select pg_advisory_unlock(1);`

// app is a web application as operators have them: it knows its clients by address, in its database.
type app struct {
	server string
	trust  ip.Prefixes
	db     *pgxpool.Pool
}

// visit is the application's answer to a request.
type visit struct {
	Server string `json:"server"`
	Peer   string `json:"peer"`   // who connected
	Client string `json:"client"` // who is meant
	Stored string `json:"stored"` // what the database holds, read back
	Family int    `json:"family"` // of it, says the database
	Visits int    `json:"visits"` // of this client, at all servers
}

// runApp is the application's process: NAME LISTEN DATABASE TRUSTED…
func runApp(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("run app: %d arguments", len(args))
	}
	listen, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return fmt.Errorf("run app: %w", err)
	}
	var trust []netip.Prefix
	for _, s := range args[3:] {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("run app: %w", err)
		}
		trust = append(trust, p)
	}
	ctx := context.Background()
	db, err := pgxpool.New(ctx, args[2])
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer db.Close()
	a := &app{server: args[0], trust: ip.NewPrefixes(trust...), db: db}
	if _, err := db.Exec(ctx, visits); err != nil {
		return fmt.Errorf("make table: %w", err)
	}
	l, err := net.Listen(network("tcp", listen), listen.String())
	if err != nil {
		return fmt.Errorf("open %s: %w", listen, err)
	}
	s := &http.Server{Handler: a, ReadHeaderTimeout: 10 * time.Second}
	return s.Serve(l)
}

// ServeHTTP notes the visit, or says whether the database answers.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		if err := a.db.Ping(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		return
	}
	v, err := a.note(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // an error means that the client is gone
}

func (a *app) note(r *http.Request) (visit, error) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return visit{}, err
	}
	v := visit{Server: a.server, Peer: ip.Canonical(peer.Addr()).String()}
	v.Client = v.Peer
	if a.trust.Contains(ip.Canonical(peer.Addr())) {
		all := strings.Split(r.Header.Get("X-Forwarded-For"), ",")
		v.Client = cmp.Or(strings.TrimSpace(all[len(all)-1]), v.Peer) // the last one is who came to whom we trust
	}
	err = a.db.QueryRow(r.Context(), `insert into visits (server, peer, client) values ($1, $2::inet, $3::inet)
		returning host(client), family(client), (select count(*)+1 from visits where client = $3::inet)`,
		v.Server, v.Peer, v.Client).Scan(&v.Stored, &v.Family, &v.Visits)
	return v, err
}
