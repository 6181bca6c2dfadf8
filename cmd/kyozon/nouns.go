// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kyozon/kyozon/admin"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ledger"
)

// noun makes a command that shows something, as a table or as JSON.
func (e *env) noun(use, short string, show func(c *cobra.Command, args []string, control string) (any, func() error, error)) *cobra.Command {
	var control string
	var asJSON bool
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			v, table, err := show(c, args, control)
			if err != nil {
				return err
			}
			if asJSON {
				return e.writeJSON(v)
			}
			return table()
		},
	}
	e.controlFlag(c, &control)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (e *env) writeJSON(v any) error {
	w := json.NewEncoder(e.stdout)
	w.SetIndent("", "  ")
	return w.Encode(v)
}

func (e *env) style() admin.Style { return admin.Style{Colour: e.colour} }

func (e *env) statusCommand() *cobra.Command {
	return e.noun("status", "How the running kyozon is", func(c *cobra.Command, _ []string, control string) (any, func() error, error) {
		var s edge.Status
		err := ask(c.Context(), control, "GET", "/status", &s)
		return s, func() error { return admin.WriteStatus(e.stdout, s, e.style()) }, err
	})
}

func (e *env) servicesCommand() *cobra.Command {
	return e.noun("services", "Services by client family", func(c *cobra.Command, _ []string, control string) (any, func() error, error) {
		var s edge.Status
		err := ask(c.Context(), control, "GET", "/status", &s)
		return s.Services, func() error { return admin.WriteServices(e.stdout, s.Services, e.style()) }, err
	})
}

func (e *env) backendsCommand() *cobra.Command {
	return e.noun("backends", "Backends and their health", func(c *cobra.Command, _ []string, control string) (any, func() error, error) {
		var s edge.Status
		err := ask(c.Context(), control, "GET", "/status", &s)
		return s.Backends, func() error { return admin.WriteBackends(e.stdout, s.Backends, e.style()) }, err
	})
}

func (e *env) flowsCommand() *cobra.Command {
	var limit int
	c := e.noun("flows", "Flows under way", func(c *cobra.Command, _ []string, control string) (any, func() error, error) {
		var flows []edge.FlowStatus
		err := ask(c.Context(), control, "GET", "/flows?limit="+strconv.Itoa(limit), &flows)
		return flows, func() error { return admin.WriteFlows(e.stdout, flows, e.style()) }, err
	})
	c.Flags().IntVar(&limit, "limit", 100, "how many, the newest first")
	return c
}

func (e *env) ledgerCommand() *cobra.Command {
	var at string
	c := e.noun("ledger [ADDRESS]", "The stand-in of an IPv6 prefix, or the prefix behind a stand-in",
		func(c *cobra.Command, args []string, control string) (any, func() error, error) {
			if len(args) == 0 {
				var s edge.Status
				err := ask(c.Context(), control, "GET", "/status", &s)
				return s.Ledger, func() error { return e.writeLedger(s.Ledger) }, err
			}
			records, err := e.lookUp(c, control, args[0], at)
			return records, func() error { return e.writeRecords(records) }, err
		})
	c.Args = cobra.MaximumNArgs(1)
	c.Long = "Without ADDRESS: how full the ledger is. With a stand-in: whose it is. With an IPv6 address: its stand-in.\n" +
		"--at asks for another time: an RFC 3339 time, 2026-11-25 14:00, or how long ago, 3h."
	c.Flags().StringVar(&at, "at", "", "the time to ask for; now if empty")
	return c
}

// lookUp asks for an address. Nothing found is a finding: exit code 2.
func (e *env) lookUp(c *cobra.Command, control, address, at string) ([]ledger.Record, error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return nil, fmt.Errorf("not an address: %q", address)
	}
	q := url.Values{"address": {a.String()}}
	if at != "" {
		t, err := parseTime(at, time.Now())
		if err != nil {
			return nil, err
		}
		q.Set("at", t.Format(time.RFC3339))
	}
	var records []ledger.Record
	if err := ask(c.Context(), control, "GET", "/ledger?"+q.Encode(), &records); err != nil {
		return nil, err
	}
	if len(records) == 0 {
		fmt.Fprintf(e.stderr, "the ledger has nothing about %v\n", a)
		return nil, errFindings
	}
	return records, nil
}

// parseTime reads a time as an operator types it.
func parseTime(s string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(s); err == nil {
		return now.Add(-ago.Abs()), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("not a time: %q; write 2026-11-25T14:00:00+09:00, \"2026-11-25 14:00\" or 3h", s)
}

func (e *env) writeLedger(s *edge.LedgerStatus) error {
	if s == nil {
		_, err := fmt.Fprintln(e.stdout, "this site has no ledger")
		return err
	}
	_, err := fmt.Fprintf(e.stdout, "pool %v: %d of %d stand-ins leased, %d of them shared\n", s.Pool, s.Leased, s.Size, s.Shared)
	if err == nil && s.Err != "" {
		_, err = fmt.Fprintln(e.stdout, "new prefixes get none: "+s.Err)
	}
	return err
}

func (e *env) writeRecords(records []ledger.Record) error {
	for _, r := range records {
		note := ""
		if r.Shared {
			note = "  shared by several clients"
		}
		if r.Unproven {
			note += "  unproven"
		}
		until := "now"
		if !r.Until.IsZero() {
			until = r.Until.Format(time.RFC3339)
		}
		from := "always"
		if !r.From.IsZero() {
			from = r.From.Format(time.RFC3339)
		}
		if _, err := fmt.Fprintf(e.stdout, "%v  %v  from %s until %s%s\n", r.StandIn, r.Prefix, from, until, note); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) protocolsCommand() *cobra.Command {
	type row struct{ Name, Doc string }
	return e.noun("protocols", "What this kyozon speaks", func(*cobra.Command, []string, string) (any, func() error, error) {
		var rows []row
		for _, p := range protocols() {
			rows = append(rows, row{p.Name, p.Doc})
		}
		return rows, func() error {
			for _, r := range rows {
				fmt.Fprintf(e.stdout, "%-6s %s\n", r.Name, r.Doc)
			}
			return nil
		}, nil
	})
}

func (e *env) schemaCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "schema", Short: "The JSON Schema of the site file, for editors", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := config.Schema(protocols())
			if err != nil {
				return err
			}
			_, err = e.stdout.Write(append(b, '\n'))
			return err
		},
	}
	c.Flags().Bool("json", true, "print JSON, as it does in any case")
	return c
}
