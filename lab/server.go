// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// Serve starts a server on the host and returns when it answers. Returns ErrMissing, ErrEnded.
func (h *Host) Serve(ctx context.Context, s Server) (*Process, error) {
	kinds := s.kinds()
	if len(kinds) != 1 {
		return nil, errors.New("lab: a server is exactly one of its kinds")
	}
	began := time.Now()
	d, err := kinds[0].daemon(h)
	if err != nil {
		return nil, fmt.Errorf("prepare %s on %s: %w", kinds[0].name(), h.name, err)
	}
	p, err := h.Start(ctx, d)
	if err != nil {
		return nil, err
	}
	if s.Postgres != nil {
		if err := s.Postgres.fill(ctx, h); err != nil {
			return nil, fmt.Errorf("fill %s: %w", p, err)
		}
	}
	h.lab.say("up  %-28s %4d ms", p, time.Since(began).Milliseconds())
	return p, nil
}

// Kyozon is the edge.
type Kyozon struct {
	Site   string `yaml:"site"`   // path of the site file, from the lab file; or
	Inline string `yaml:"inline"` // the site file itself
}

const sitePath = "/run/kyozon/site.yaml"

func (k *Kyozon) name() string { return "kyozon" }

func (k *Kyozon) check(HostSpec) []problem {
	if (k.Site == "") == (k.Inline == "") {
		return []problem{{nil, errors.New("give either site or inline")}}
	}
	return nil
}

// daemon copies the site file to the host, so that a test can change it there and reload.
func (k *Kyozon) daemon(h *Host) (Daemon, error) {
	text := []byte(k.Inline)
	if k.Site != "" {
		var err error
		if text, err = os.ReadFile(h.lab.path(k.Site)); err != nil {
			return Daemon{}, err
		}
	}
	if err := h.WriteFile(sitePath, text); err != nil {
		return Daemon{}, err
	}
	if err := h.WriteFile("/var/lib/kyozon/.lab", nil); err != nil { // makes the usual state directory
		return Daemon{}, err
	}
	binary, err := h.lab.kyozon()
	if err != nil {
		return Daemon{}, err
	}
	admin, err := adminOf(text)
	if err != nil {
		return Daemon{}, err
	}
	return Daemon{Name: "kyozon", Argv: []string{binary, "run", sitePath}, Ready: AnswersHTTP(admin, "/readyz")}, nil
}

// kyozon returns the path of the binary under test.
func (l *Lab) kyozon() (string, error) {
	binary := l.options.Kyozon
	if binary == "" {
		var err error
		if binary, err = os.Executable(); err != nil {
			return "", fmt.Errorf("find own binary: %w", err)
		}
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return "", err
	}
	if dir := hiddenAt(binary); dir != "" {
		return "", fmt.Errorf("run %s: hosts have their own %s: copy it elsewhere", binary, dir)
	}
	return binary, nil
}

// path returns where a file is that the lab file names.
func (l *Lab) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(l.file.dir, name)
}

// UDP is a game server: it answers each datagram with its name, the player's address, and how many it has had from
// there.
type UDP struct {
	Listen List[netip.AddrPort] `yaml:"listen"`
	Name   string               `yaml:"name"`
}

func (u *UDP) name() string { return "udp" }

func (u *UDP) check(h HostSpec) []problem { return checkListen(h, "listen", u.Listen) }

func (u *UDP) daemon(h *Host) (Daemon, error) {
	args := []string{u.Name}
	if u.Name == "" {
		args[0] = h.name
	}
	for _, a := range u.Listen {
		args = append(args, a.String())
	}
	return Daemon{Name: "udp", own: self(context.Background(), "udp", args...),
		Ready: AnswersUDP([]byte("ready?"), u.Listen...)}, nil
}

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

func (a *App) daemon(h *Host) (Daemon, error) {
	name := a.Name
	if name == "" {
		name = h.name
	}
	args := []string{name, a.Listen.String(), a.Database}
	for _, p := range a.Trust {
		args = append(args, p.String())
	}
	return Daemon{Name: "app", own: self(context.Background(), "app", args...),
		Ready: AnswersHTTP(a.Listen, "/healthz")}, nil
}

// Postgres is a real cluster, in memory. Everyone in Allow is trusted.
type Postgres struct {
	Listen   netip.AddrPort     `yaml:"listen"`
	Database string             `yaml:"database"`
	User     string             `yaml:"user"`
	Allow    List[netip.Prefix] `yaml:"allow"`
	SQL      string             `yaml:"sql"` // run in the database as the user when it is new
}

const postgresData = "/var/lib/postgresql/data"

func (p *Postgres) name() string { return "postgres" }

func (p *Postgres) check(h HostSpec) []problem {
	all := checkListen(h, "listen", List[netip.AddrPort]{p.Listen})
	if !hostName.MatchString(p.Database) || !hostName.MatchString(p.User) {
		all = append(all, problem{nil, errors.New("name a database and a user, in lower case letters")})
	}
	return all
}

// daemon makes the cluster. It runs as postgres, which the server insists upon.
func (p *Postgres) daemon(h *Host) (Daemon, error) {
	bin, err := postgresDirectory()
	if err != nil {
		return Daemon{}, err
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return Daemon{}, missing("user postgres", "postgresql")
	}
	err = h.inside(func() error {
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		for _, dir := range []string{"/var/lib/postgresql", "/run/postgresql"} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			if err := os.Chown(dir, uid, gid); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Daemon{}, err
	}
	c := h.Command(context.Background(), bin+"/initdb", "--pgdata="+postgresData, "--username=postgres",
		"--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
	if c.SysProcAttr.Credential, err = credential("postgres"); err != nil {
		return Daemon{}, err
	}
	if out, err := c.CombinedOutput(); err != nil {
		return Daemon{}, fmt.Errorf("run initdb: %w\n%s", err, indent(string(out)))
	}
	hba := "local all all trust\n"
	for _, a := range p.Allow {
		hba += fmt.Sprintf("host all all %s trust\n", a)
	}
	hba += fmt.Sprintf("host all all %s/%d trust\n", p.Listen.Addr(), p.Listen.Addr().BitLen())
	if err := h.WriteFile(postgresData+"/pg_hba.conf", []byte(hba)); err != nil {
		return Daemon{}, err
	}
	return Daemon{Name: "postgres", User: "postgres", Ready: AnswersTCP(p.Listen), Argv: []string{bin + "/postgres",
		"-D", postgresData, "-h", p.Listen.Addr().String(), "-p", port(p.Listen), "-k", "/run/postgresql",
		"-c", "shared_buffers=16MB", "-c", "log_timezone=UTC"}}, nil
}

// fill makes the user and the database. A server that accepts connections may still be starting up, so the first
// command is tried until it works.
func (p *Postgres) fill(ctx context.Context, h *Host) error {
	psql, err := need("psql", "postgresql-client")
	if err != nil {
		return err
	}
	run := func(who, database, sql string) error {
		_, err := h.Command(ctx, psql, "--host=/run/postgresql", "--port="+port(p.Listen), "--username="+who,
			"--dbname="+database, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--command="+sql).Output()
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for run("postgres", "postgres", "select 1") != nil {
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := run("postgres", "postgres", fmt.Sprintf("create role %q login", p.User)); err != nil {
		return err
	}
	if err := run("postgres", "postgres", fmt.Sprintf("create database %q owner %q", p.Database, p.User)); err != nil {
		return err
	}
	if p.SQL == "" {
		return nil
	}
	return run(p.User, p.Database, p.SQL)
}
