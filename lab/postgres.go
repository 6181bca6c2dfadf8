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
	"strconv"
	"time"
)

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
func (p *Postgres) daemon(ctx context.Context, h *Host) (Daemon, error) {
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
	c := h.Command(ctx, bin+"/initdb", "--pgdata="+postgresData, "--username=postgres",
		"--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
	if c.SysProcAttr.Credential, err = credential("postgres"); err != nil {
		return Daemon{}, err
	}
	if out, err := c.CombinedOutput(); err != nil {
		return Daemon{}, fmt.Errorf("run initdb: %w\n%s", err, indent(string(out)))
	}
	hba := []byte("local all all trust\n")
	for _, a := range p.Allow {
		hba = fmt.Appendf(hba, "host all all %s trust\n", a)
	}
	hba = fmt.Appendf(hba, "host all all %s/%d trust\n", p.Listen.Addr(), p.Listen.Addr().BitLen())
	if err := h.WriteFile(postgresData+"/pg_hba.conf", hba); err != nil {
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
