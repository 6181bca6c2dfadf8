// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
)

// TestExamplesInKernel builds the systems of S1, S2 and S16 with the edge's services in the kernel plane. Web services are
// carried as streams there: blog, which shares its address with shop by its name, has another port.
func TestExamplesInKernel(t *testing.T) {
	needRoot(t)
	binary := servertest.Kyozon(t)
	t.Run("s1", func(t *testing.T) { growInKernel(t, binary) })
	t.Run("s2", func(t *testing.T) { moveInKernel(t, binary) })
	t.Run("s16", func(t *testing.T) { playInKernel(t, binary) })
}

// streams makes the web services of a site streams in the kernel.
func streams(site string) string {
	site = strings.ReplaceAll(site, "protocol: web", "protocol: tcp\n    plane: kernel")
	site = strings.ReplaceAll(site, ", handover: header", "")
	site = regexp.MustCompile(`\n    web: .*`).ReplaceAllString(site, "")
	before, blog, _ := strings.Cut(site, "  blog:")
	blog = regexp.MustCompile(`listen: \[.*\]`).ReplaceAllStringFunc(blog, func(s string) string { return strings.ReplaceAll(s, `:80"`, `:81"`) })
	return before + "  blog:" + blog
}

// upInKernel brings up a lab with an edge that forwards, and makes attempts.
func upInKernel(t *testing.T, binary, name, site string, try ...Attempt) *Lab {
	t.Helper()
	f, err := Load(examples + name)
	if err != nil {
		t.Fatal(err)
	}
	edge := f.Hosts["edge"]
	edge.Forward = true
	for _, s := range edge.Servers {
		if s.Kyozon != nil && site != "" {
			*s.Kyozon = Kyozon{Inline: site}
		}
	}
	f.Hosts["edge"] = edge
	if try != nil {
		f.Try = try
	}
	l, err := Up(t.Context(), f, Options{Out: t.Output(), Kyozon: binary})
	if errors.Is(err, ErrMissing) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, a := range f.Try {
		if r := l.Try(t.Context(), a); !r.OK {
			t.Errorf("%s from %s to %s: %s\n%s", r.Attempt.Crossing, r.Attempt.From, r.Attempt.to(), r.Detail, ask(t.Context(), t, l, "services"))
		}
	}
	return l
}

func attempt(from string, c ip.Crossing, url, body string) Attempt {
	return Attempt{From: from, Crossing: Crossing{c}, Get: url, Want: Want{Body: body}}
}

func crossing(client, backend ip.Family) ip.Crossing {
	return ip.Crossing{Client: client, Backend: backend}
}

// forwarded returns how many packets of flows the kernel plane has carried for a service over a crossing.
func forwarded(t *testing.T, l *Lab, service string, c ip.Crossing) (n int64) {
	t.Helper()
	var s struct {
		Kernel struct {
			Open    bool
			Packets []struct {
				Service, Crossing, Reason string
				Packets                   int64
			}
		}
	}
	if err := json.Unmarshal([]byte(ask(t.Context(), t, l, "status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Kernel.Packets {
		if p.Service == service && p.Crossing == c.String() && p.Reason == "forwarded" {
			n += p.Packets
		}
	}
	return n
}

// allForwarded fails if a crossing of a service has not been carried in the kernel.
func allForwarded(t *testing.T, l *Lab, service string, all ...ip.Crossing) {
	t.Helper()
	for _, c := range all {
		if forwarded(t, l, service, c) == 0 {
			t.Errorf("no packet of %s, %v, was carried in the kernel\n%s", service, c, ask(t.Context(), t, l, "status", "--json"))
		}
	}
}

// growInKernel adds a server under load, and takes one away. No request may fail (S1).
func growInKernel(t *testing.T, binary string) {
	site := streams(readSite(t, "s1.yaml"))
	const standIn = `"server":"web[12]",.*"stored":"100\.(6[4-9]|[78]\d|9[0-5])\.\d+\.\d+"`
	shop := attempt("subscriber6", crossing(ip.V6, ip.V4), "http://shop.example.jp/", standIn)
	l := upInKernel(t, binary, "s1-lab.yaml", site, shop, shop, shop,
		attempt("subscriber46", crossing(ip.V6, ip.V4), "http://shop.example.jp/", standIn),
		attempt("subscriber46", crossing(ip.V4, ip.V4), "http://shop.example.jp/", `"stored":"198\.51\.100\.46"`),
		attempt("subscriber6", crossing(ip.V6, ip.V6), "http://blog.example.jp:81/", `"server":"new1"`))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	load := startConnections(ctx, t, "http://shop.example.jp/", l.Host("subscriber6"), l.Host("subscriber46"))
	load.until("web[12]", 50)
	reload(ctx, t, l, strings.ReplaceAll(site, `"10.0.1.12:80"]`, `"10.0.1.12:80", "10.0.1.13:80"]`))
	load.until("web3", 50)
	reload(ctx, t, l, strings.ReplaceAll(site, `"10.0.1.11:80", "10.0.1.12:80"]`, `"10.0.1.12:80", "10.0.1.13:80"]`))
	load.untilOnly("web[23]", 200)
	load.stop()
	allForwarded(t, l, "shop", crossing(ip.V6, ip.V4))
	allForwarded(t, l, "blog", crossing(ip.V6, ip.V6))
}

// moveInKernel takes servers from global to private addresses while a client downloads from one of them (S2).
func moveInKernel(t *testing.T, binary string) {
	site := streams(readSite(t, "s2.yaml"))
	const web, new1 = `^web\d \S+ to (203\.0\.113\.10|10\.0\.1\.5)\n$`, `^new1 fd00:1::21 to fd00:1::5\n$`
	l := upInKernel(t, binary, "s2-lab.yaml", site,
		attempt("subscriber4", crossing(ip.V4, ip.V4), "http://shop.example.jp/", web),
		attempt("subscriber6", crossing(ip.V6, ip.V4), "http://shop.example.jp/", web),
		attempt("subscriber4", crossing(ip.V4, ip.V6), "http://blog.example.jp:81/", new1),
		attempt("subscriber6", crossing(ip.V6, ip.V6), "http://blog.example.jp:81/", new1))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	load := startConnections(ctx, t, "http://shop.example.jp/", l.Host("subscriber4"), l.Host("subscriber6"))
	load.until(`203\.0\.113\.1[12]`, 50)
	download, err := client(l.Host("subscriber6")).Do(request(ctx, t, "http://shop.example.jp/big"))
	if err != nil {
		t.Fatal(err)
	}
	defer download.Body.Close()
	got := make([]byte, 1<<20)
	if _, err := io.ReadFull(download.Body, got); err != nil {
		t.Fatal(err)
	}
	reload(ctx, t, l, streams(readSite(t, "s2-moved.yaml")))
	load.untilOnly(`10\.0\.1\.1[123]`, 200)
	rest, err := io.ReadAll(download.Body)
	if err != nil {
		t.Errorf("download: %v", err)
	}
	if got = append(got, rest...); !bytes.Equal(got, Numbered(50000000)) {
		t.Errorf("download: %d bytes of 50000000, or others", len(got))
	}
	load.stop()
	allForwarded(t, l, "shop", crossing(ip.V4, ip.V4), crossing(ip.V6, ip.V4))
	allForwarded(t, l, "blog", crossing(ip.V4, ip.V6), crossing(ip.V6, ip.V6))
}

// playInKernel plays the game: who goes on after an answer is known, and his next game is in the kernel (S16).
func playInKernel(t *testing.T, binary string) {
	l := upInKernel(t, binary, "s16-lab.yaml", "")
	allForwarded(t, l, "game-new", crossing(ip.V4, ip.V6), crossing(ip.V6, ip.V6))
	stand := regexp.MustCompile(` saw 100\.\S+ `)
	seen := make(map[string]bool)
	await(t, "a game is in the kernel", func() bool {
		c, err := l.Host("player6").DialContext(t.Context(), "udp6", "[2001:db8:100::60]:27015")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		answer := make([]byte, 2048)
		for _, word := range []string{"join", "move", "leave"} {
			if _, err := io.WriteString(c, word); err != nil {
				t.Fatal(err)
			}
			n, err := c.Read(answer)
			if err != nil || !strings.HasSuffix(string(answer[:n]), word) {
				t.Fatalf("%q: %q, %v", word, answer[:n], err)
			}
			seen[stand.FindString(string(answer[:n]))] = true
		}
		return forwarded(t, l, "game", crossing(ip.V6, ip.V4)) > 0
	})
	if len(seen) != 1 || seen[""] {
		t.Errorf("the game has seen the player as %v, want one stand-in", seen)
	}
}
