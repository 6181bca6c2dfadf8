// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// leave stops the edge in front in every way there is. Afterwards nothing of its routes and rules is left.
func leave(t *testing.T, l *Lab) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	edge := l.Host("edge")
	text := readSite(t, "front.yaml") + "drain: 1s\n" // UDP flows never end by themselves
	site := Server{Kyozon: &Kyozon{Inline: text}}
	reload(ctx, t, l, text)
	running := edgeRoutes(t, edge)
	if len(running) == 0 {
		t.Fatal("the edge in front has neither rules nor routes")
	}
	largePackets(ctx, t, l)

	ask(ctx, t, l, "stop")
	await(t, "nothing is left after a stop", func() bool { return len(edgeRoutes(t, edge)) == 0 })

	p, err := edge.Serve(ctx, site)
	if err != nil {
		t.Fatal(err)
	}
	ask(ctx, t, l, "upgrade")
	<-p.Done()
	if got := edgeRoutes(t, edge); len(got) != len(running) {
		t.Errorf("after an upgrade: %d rules and routes, want %d\n%s", len(got), len(running), strings.Join(got, "\n"))
	}
	largePackets(ctx, t, l)
	for _, a := range l.file.Try {
		if a.Get != "" {
			if r := l.Try(ctx, a); !r.OK {
				t.Errorf("after an upgrade: %s from %s to %s: %s", a.Crossing, a.From, a.to(), r.Detail)
			}
		}
	}
	ask(ctx, t, l, "stop")
	await(t, "nothing is left after an upgrade and a stop", func() bool { return len(edgeRoutes(t, edge)) == 0 })

	if p, err = edge.Serve(ctx, site); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGKILL)
	<-p.Done()
	if _, err := edge.Serve(ctx, site); err != nil {
		t.Fatal(err)
	}
	reload(ctx, t, l, withoutService(text, "shop"))
	await(t, "the rule of a server that the site has no more is gone", func() bool {
		return len(edgeRoutes(t, edge)) == len(running)-1
	})
	ask(ctx, t, l, "stop")
	await(t, "nothing is left after a kill and a stop", func() bool { return len(edgeRoutes(t, edge)) == 0 })
}

// largePackets: answers that come in fragments, of which only the first has ports, find the edge too.
func largePackets(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	for _, a := range l.file.Try {
		if a.Ask == "" {
			continue
		}
		a.Send = strings.Repeat("large ", 500)
		a.Want.Body = a.Send + "$"
		if r := l.Try(ctx, a); !r.OK {
			t.Errorf("%s from %s to %s, in fragments: %s", a.Crossing, a.From, a.to(), r.Detail)
		}
	}
}

// edgeRoutes lists what an edge has added to a host: rules to its table, the table, and local routes for prefixes.
func edgeRoutes(t *testing.T, h *Host) (all []string) {
	t.Helper()
	err := h.Do(func() error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			rules, err := netlink.RuleList(family)
			if err != nil {
				return err
			}
			for _, r := range rules {
				if r.Table == 5264 {
					all = append(all, r.String())
				}
			}
			routes, err := netlink.RouteListFiltered(family, new(netlink.Route), netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Table == 5264 || r.Dst != nil && slices.Contains([]string{"100.64.0.0/11", "2001:db8:100:64::/96"}, r.Dst.String()) {
					all = append(all, r.String())
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// withoutService returns a site file without one of its services.
func withoutService(site, name string) string {
	_, rest, _ := strings.Cut(site, "\n  "+name+":")
	part, _, _ := strings.Cut(rest, "\n\n")
	return strings.Replace(site, "\n  "+name+":"+part+"\n", "", 1)
}

// ask has the edge of a lab say or do something.
func ask(ctx context.Context, t *testing.T, l *Lab, words ...string) string {
	t.Helper()
	out, err := l.Host("edge").Command(ctx, append([]string{l.options.Kyozon}, words...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("kyozon %v: %v\n%s", words, err, out)
	}
	return string(out)
}

// await waits until done says so, which must be within ten seconds on an idle machine.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	began := time.Now()
	for ; !done(); <-look.C {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("waited in vain until %s", what)
		}
	}
	t.Logf("%s after %v", what, time.Since(began).Round(time.Millisecond))
}
