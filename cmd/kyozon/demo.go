// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
)

// demoSite is the site of the demonstration: two services, one of IPv4-only servers and one of IPv6-only servers, each
// for clients of both families.
const demoSite = `site: demo
addresses:
  ledger: {pool: 127.64.0.0/10, prefix: 64}
services:
  ipv4-only:
    protocol: web
    listen: ["%[1]s", "%[2]s"]
    pools:
      existing: {servers: ["%[3]s"], source: client, handover: header}
    clients: {ipv4: existing, ipv6: existing}
    health: {every: 1s}
  ipv6-only:
    protocol: web
    listen: ["%[4]s", "%[5]s"]
    pools:
      new: {servers: ["%[6]s"], handover: header}
    clients: {ipv4: new, ipv6: new}
    health: {every: 1s}
state: {directory: "%[7]s"}
admin: {listen: "%[8]s"}
drain: 1s
`

func (e *env) demoCommand() *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use: "demo", Short: "Show every crossing on this machine: no root, no file, nothing installed", Args: cobra.NoArgs,
		Long: "Start an IPv4-only and an IPv6-only web server on loopback, and the edge in front of both. Ask each through\n" +
			"the edge over IPv4 and IPv6, and show what the servers saw. Then the status page stays up until Ctrl-C.",
		RunE: func(c *cobra.Command, _ []string) error { return e.demo(c.Context(), once) },
	}
	c.Flags().BoolVar(&once, "once", false, "end after the table; exit code 0 only if every crossing works")
	return c
}

// demonstration is a running demo.
type demonstration struct {
	edge    *edge.Edge
	control string
	admin   netip.AddrPort
	server4 netip.AddrPort
	server6 netip.AddrPort
	at      map[ip.Crossing]netip.AddrPort // where a client of the crossing asks
}

func (e *env) demo(ctx context.Context, once bool) error {
	directory, err := demoDirectory()
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d := &demonstration{control: filepath.Join(directory, "control.sock")}
	var servers sync.WaitGroup
	defer servers.Wait()
	for _, s := range []struct {
		family ip.Family
		at     *netip.AddrPort
	}{{ip.V4, &d.server4}, {ip.V6, &d.server6}} {
		l, err := listenLoopback(s.family, 0)
		if err != nil {
			return fmt.Errorf("this machine has no %v loopback: %w", s.family, err)
		}
		*s.at = ip.CanonicalPort(l.Addr().(*net.TCPAddr).AddrPort())
		servers.Go(func() { serveDemo(ctx, l) })
	}
	cfg, sockets, err := d.configure(directory)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	d.edge, err = edge.New(edge.Options{Log: log, Version: version, Protocols: protocols(), Sockets: sockets})
	if err != nil {
		return err
	}
	p := &process{env: e, site: site{control: d.control}, edge: d.edge, notify: listen.NewNotifier(func(string) string { return "" }),
		ctx: ctx, stop: stop}
	var result error
	p.then = func() {
		result = d.show(ctx, e, once)
		if once || result != nil {
			stop()
		}
	}
	if err := p.run(cfg, sockets); err != nil {
		return err
	}
	return result
}

// demoDirectory makes the directory of the demo's state, in memory if there is such a place: a ledger that is thrown away
// need not wait for a disk.
func demoDirectory() (string, error) {
	if directory, err := os.MkdirTemp("/dev/shm", "kyozon-demo-"); err == nil {
		return directory, nil
	}
	return os.MkdirTemp("", "kyozon-demo-")
}

// listenLoopback listens at the loopback address of a family; port 0 means any.
func listenLoopback(f ip.Family, port uint16) (net.Listener, error) {
	a := netip.AddrPortFrom(netip.IPv6Loopback(), port)
	if f == ip.V4 {
		a = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	}
	return net.ListenTCP("tcp"+string(rune('0'+f)), net.TCPAddrFromAddrPort(a))
}

// serveDemo is a server that knows one family: it answers with the peer that it sees.
func serveDemo(ctx context.Context, l net.Listener) {
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s %s\n", peer, r.Header.Get("X-Forwarded-For"))
	})}
	stopped := context.AfterFunc(ctx, func() { s.Close() })
	defer stopped()
	s.Serve(l) // ends with the demo
}

// configure chooses free ports and writes the site.
func (d *demonstration) configure(directory string) (*config.Config, *listen.Set, error) {
	sockets := listen.NewSet(listen.Options{})
	free := func(f ip.Family, port uint16) (netip.AddrPort, error) {
		a := netip.AddrPortFrom(netip.IPv6Loopback(), port)
		if f == ip.V4 {
			a = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
		}
		lease, err := sockets.Stream(listen.Addr{Transport: listen.TCP, AddrPort: a})
		if err != nil {
			return a, err
		}
		defer lease.Close()
		return lease.Addr().AddrPort, nil
	}
	d.at = make(map[ip.Crossing]netip.AddrPort)
	for _, c := range ip.Crossings() {
		a, err := free(c.Client, 0)
		if err != nil {
			return nil, nil, err
		}
		d.at[c] = a
	}
	var err error
	if d.admin, err = free(ip.V4, 8464); err != nil { // taken: perhaps by a kyozon that runs here
		if d.admin, err = free(ip.V4, 0); err != nil {
			return nil, nil, err
		}
	}
	text := fmt.Sprintf(demoSite, d.at[ip.Crossing{Client: ip.V4, Backend: ip.V4}], d.at[ip.Crossing{Client: ip.V6, Backend: ip.V4}], d.server4,
		d.at[ip.Crossing{Client: ip.V4, Backend: ip.V6}], d.at[ip.Crossing{Client: ip.V6, Backend: ip.V6}], d.server6, directory, d.admin)
	cfg, err := config.Parse("demo.yaml", []byte(text), protocols(), config.Options{Demo: true})
	return cfg, sockets, err
}

// show tries every crossing and prints the table.
func (d *demonstration) show(ctx context.Context, e *env, once bool) error {
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CROSSING\tCLIENT\tSERVER\tSERVER SAW\tWHO THAT IS\tRESULT")
	failed := 0
	for _, c := range ip.Crossings() {
		server := d.server6
		if c.Backend == ip.V4 {
			server = d.server4
		}
		client, saw, forwarded, err := d.try(ctx, d.at[c])
		result, who := "ok", d.who(c, saw, forwarded)
		if err != nil {
			failed++
			result = err.Error()
		}
		fmt.Fprintf(w, "%v\t%v\t%v\t%v\t%s\t%s\n", c, client, server, saw, who, result)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of 4 crossings do not work", failed)
	}
	if !once {
		fmt.Fprintf(e.stdout, "\nstatus page   http://%v/\ntry           curl -6 http://%v/\n              kyozon status --control %s\nend           Ctrl-C\n",
			d.admin, d.at[ip.Crossing{Client: ip.V6, Backend: ip.V4}], d.control)
	}
	return nil
}

// try asks once through the edge and returns who asked and whom the server saw.
func (d *demonstration) try(ctx context.Context, at netip.AddrPort) (client, saw netip.Addr, forwarded string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		var dialer net.Dialer
		c, err := dialer.DialContext(ctx, network, addr)
		if err == nil {
			client = ip.Canonical(c.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
		}
		return c, err
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+"/", nil)
	if err != nil {
		return client, saw, "", err
	}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return client, saw, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", answer.StatusCode)
	}
	if err != nil {
		return client, saw, "", err
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return client, saw, "", fmt.Errorf("unexpected answer %q", text)
	}
	saw, err = netip.ParseAddr(fields[0])
	return client, saw, fields[1], err
}

// who explains the address that a server saw.
func (d *demonstration) who(c ip.Crossing, saw netip.Addr, forwarded string) string {
	if c == (ip.Crossing{Client: ip.V6, Backend: ip.V4}) {
		records, err := d.edge.Who(saw, time.Time{})
		if err != nil || len(records) == 0 {
			return "the ledger does not know"
		}
		return "the ledger: it stands in for " + records[0].Prefix.String()
	}
	if c.Backend == ip.V6 {
		return "the edge; its X-Forwarded-For: " + forwarded
	}
	return "the client itself"
}
