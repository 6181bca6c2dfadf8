// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
)

const examples = "../examples/"

// TestExamples brings up the lab of each example and tries every crossing; then the systems do under load what the
// mission asks of them.
func TestExamples(t *testing.T) {
	needRoot(t)
	binary := servertest.Kyozon(t)
	t.Run("s1", func(t *testing.T) { grow(t, upExample(t, binary, "s1-lab.yaml")) })
	t.Run("s2", func(t *testing.T) { move(t, upExample(t, binary, "s2-lab.yaml")) })
	t.Run("s3", func(t *testing.T) { scaleMail(t, upExample(t, binary, "s3-lab.yaml")) })
	t.Run("s4", func(t *testing.T) { moveMail(t, upExample(t, binary, "s4-lab.yaml")) })
	t.Run("s6", func(t *testing.T) { joinGateways(t, upExample(t, binary, "s6-lab.yaml")) })
	t.Run("s7", func(t *testing.T) { callAround(t, upExample(t, binary, "s7-lab.yaml")) })
	t.Run("s16", func(t *testing.T) { upExample(t, binary, "s16-lab.yaml") })
	t.Run("front", func(t *testing.T) { leave(t, upExample(t, binary, "front-lab.yaml")) })
}

// upExample brings up a lab that ends with the test, and makes its attempts.
func upExample(t *testing.T, binary, name string) *Lab {
	t.Helper()
	f, err := Load(examples + name)
	if err != nil {
		t.Fatal(err)
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
	results := l.TryAll(t.Context())
	if err := WriteTable(t.Output(), results); err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.OK {
			t.Errorf("%s from %s to %s: %s", r.Attempt.Crossing, r.Attempt.From, r.Attempt.to(), r.Detail)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	return l
}

// grow adds a web server under load, then takes one away (S1: scale). No request may fail.
func grow(t *testing.T, l *Lab) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	load := startLoad(ctx, t, "http://shop.example.jp/", l.Host("subscriber6"), l.Host("subscriber46"))
	site := readSite(t, "s1.yaml")

	load.until("web[12]", 50)
	reload(ctx, t, l, strings.ReplaceAll(site, `"10.0.1.12:80"]`, `"10.0.1.12:80", "10.0.1.13:80"]`))
	load.until("web3", 50)
	reload(ctx, t, l, strings.ReplaceAll(site, `"10.0.1.11:80", "10.0.1.12:80"]`, `"10.0.1.12:80", "10.0.1.13:80"]`))
	load.untilOnly("web[23]", 200)
	load.stop()
}

// move takes two servers from global to private addresses while one client downloads from one of them and others keep
// requesting (S2: scale). Nothing may be lost.
func move(t *testing.T, l *Lab) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	load := startLoad(ctx, t, "http://shop.example.jp/", l.Host("subscriber4"), l.Host("subscriber6"))
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

	reload(ctx, t, l, readSite(t, "s2-moved.yaml"))
	load.untilOnly(`10\.0\.1\.1[123]`, 200)
	rest, err := io.ReadAll(download.Body)
	if err != nil {
		t.Errorf("download: %v", err)
	}
	if got = append(got, rest...); !bytes.Equal(got, Numbered(50000000)) {
		t.Errorf("download: %d bytes of 50000000, or others", len(got))
	}
	load.stop()
}

func readSite(t *testing.T, name string) string {
	t.Helper()
	site, err := os.ReadFile(examples + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(site)
}

// reload gives the edge a new site file.
func reload(ctx context.Context, t *testing.T, l *Lab, site string) {
	t.Helper()
	edge := l.Host("edge")
	if err := edge.WriteFile(sitePath, []byte(site)); err != nil {
		t.Fatal(err)
	}
	if out, err := edge.Command(ctx, l.options.Kyozon, "reload").CombinedOutput(); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
}

// client returns an HTTP client that asks from inside a host.
func client(h *Host) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: h.DialContext}}
}

func request(ctx context.Context, t *testing.T, url string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Error(err)
	}
	return r
}

// load is clients that keep requesting and never see an error.
type load struct {
	t       *testing.T
	cancel  context.CancelFunc
	answers chan string // no buffer: until reads what is sent from then on
	workers sync.WaitGroup
}

// startLoad has two clients on each host ask for url: one keeps its connection, the other makes a new one each time.
func startLoad(ctx context.Context, t *testing.T, url string, hosts ...*Host) *load {
	return startClients(ctx, t, url, []bool{true, false}, hosts)
}

// startConnections has two clients on each host ask for url, which both make a new connection each time.
func startConnections(ctx context.Context, t *testing.T, url string, hosts ...*Host) *load {
	return startClients(ctx, t, url, []bool{false, false}, hosts)
}

// startClients has clients on each host ask for url, one for each item of keep, which says whether it keeps its connection.
func startClients(ctx context.Context, t *testing.T, url string, keep []bool, hosts []*Host) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{t: t, cancel: cancel, answers: make(chan string)}
	for _, h := range hosts {
		for _, keep := range keep {
			l.workers.Go(func() { l.work(ctx, h, url, keep) })
		}
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) work(ctx context.Context, h *Host, url string, keep bool) {
	c := client(h)
	defer c.CloseIdleConnections()
	for ctx.Err() == nil {
		r := request(ctx, l.t, url)
		r.Close = !keep
		body, err := get(c, r)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.t.Errorf("%s: %v", h.Name(), err)
			body = err.Error()
		}
		select {
		case l.answers <- body:
		case <-ctx.Done():
		}
	}
}

func get(c *http.Client, r *http.Request) (string, error) {
	response, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	return string(body), err
}

// until waits for n answers that match.
func (l *load) until(pattern string, n int) { l.wait(pattern, n, false) }

// untilOnly waits for n matching answers in a row.
func (l *load) untilOnly(pattern string, n int) { l.wait(pattern, n, true) }

func (l *load) wait(pattern string, n int, row bool) {
	l.t.Helper()
	match := regexp.MustCompile(pattern)
	have := 0
	for seen := 0; have < n; seen++ {
		select {
		case a := <-l.answers:
			switch {
			case match.MatchString(a):
				have++
			case row:
				have = 0
			}
		case <-l.t.Context().Done():
			l.t.Fatal("no answers")
		case <-time.After(time.Minute):
			l.t.Fatalf("%d answers match %s, of %d", have, pattern, seen)
		}
	}
}

func (l *load) stop() {
	l.cancel()
	l.workers.Wait()
}
