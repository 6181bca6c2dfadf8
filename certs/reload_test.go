// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reloading is a store that runs in a bubble of its own time, and what it reports.
type reloading struct {
	*Store
	t       *testing.T
	reports chan string // has room for all that one test reports; emptied by ticks
}

// interval is how often the files are looked at; the time is synctest's.
const interval = 3 * time.Second

// run starts Run and stops it when the test ends.
func run(t *testing.T, pairs ...Pair) *reloading {
	t.Helper()
	s, err := Open(pairs)
	if err != nil {
		t.Fatal(err)
	}
	r := &reloading{Store: s, t: t, reports: make(chan string, 16)}
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("stop")
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, interval, func(p Pair, err error) {
			report := filepath.Base(p.Certificate) + " taken"
			if err != nil {
				report = err.Error()
			}
			r.reports <- report
		})
	}()
	t.Cleanup(func() {
		cancel(stop)
		if err := <-done; !errors.Is(err, stop) {
			t.Errorf("Run = %v, want %v", err, stop)
		}
	})
	return r
}

// ticks lets n looks happen and checks what they report: each want is a part of one report.
func (r *reloading) ticks(n int, want ...string) {
	r.t.Helper()
	time.Sleep(time.Duration(n) * interval)
	synctest.Wait()
	for _, part := range want {
		select {
		case report := <-r.reports:
			if !strings.Contains(report, part) {
				r.t.Errorf("report %q, want %q in it", report, part)
			}
		default:
			r.t.Errorf("no report, want one with %q", part)
		}
	}
	for len(r.reports) > 0 {
		r.t.Errorf("report %q, want none", <-r.reports)
	}
}

// serves checks which certificate is in use, by its issuer, and what is said about the files.
func (r *reloading) serves(issuer, fault string) {
	r.t.Helper()
	info := r.Infos()[0]
	if info.Issuer != "CN="+issuer || !strings.Contains(info.Fault, fault) || (fault == "") != (info.Fault == "") {
		r.t.Errorf("in use: %s, fault %q, want %s, %q", info.Issuer, info.Fault, issuer, fault)
	}
	cert, err := r.Config().GetCertificate(&tls.ClientHelloInfo{ServerName: "shop.example.jp"})
	if err != nil || cert.Leaf.Subject.CommonName != issuer {
		r.t.Errorf("GetCertificate = %s, %v, want %s", cert.Leaf.Subject, err, issuer)
	}
}

func shop(issuer string) issued { return issued{issuer: issuer, names: []string{"shop.example.jp"}} }

func TestReload(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(r *reloading, p Pair){
		"nothing changes": func(r *reloading, _ Pair) {
			r.ticks(5)
			r.serves("first", "")
		},
		"both files": func(r *reloading, p Pair) {
			saved(r.t, filepath.Dir(p.Key), "shop", shop("second"))
			r.ticks(1, "shop.pem taken")
			r.ticks(3)
			r.serves("second", "")
		},
		"the key comes one look later": func(r *reloading, p Pair) {
			certificate, key := issue(r.t, shop("second"))
			save(r.t, p.Certificate, certificate)
			r.ticks(1)
			r.serves("first", "")
			save(r.t, p.Key, key)
			r.ticks(1, "shop.pem taken")
			r.serves("second", "")
		},
		"the key does not come": func(r *reloading, p Pair) {
			certificate, key := issue(r.t, shop("second"))
			save(r.t, p.Certificate, certificate)
			r.ticks(9, "shop.pem with key "+p.Key+": private key does not match public key")
			r.serves("first", "does not match")
			save(r.t, p.Key, key)
			r.ticks(2, "shop.pem taken")
			r.serves("second", "")
		},
		"one fault after the other": func(r *reloading, p Pair) {
			save(r.t, p.Key, []byte("no PEM"))
			r.ticks(4, "any PEM data in key input")
			save(r.t, p.Certificate, nil)
			r.ticks(4, "any PEM data in certificate input")
			r.serves("first", "certificate input")
		},
		"the files vanish and come back": func(r *reloading, p Pair) {
			for _, path := range []string{p.Certificate, p.Key} {
				if err := os.Rename(path, path+".away"); err != nil {
					r.t.Fatal(err)
				}
			}
			r.ticks(1)
			r.ticks(3, "no such file")
			r.serves("first", "no such file")
			for _, path := range []string{p.Certificate, p.Key} {
				if err := os.Rename(path+".away", path); err != nil {
					r.t.Fatal(err)
				}
			}
			r.ticks(2, "shop.pem taken")
			r.serves("first", "")
		},
		"written in place": func(r *reloading, p Pair) {
			certificate, key := issue(r.t, shop("second"))
			for path, content := range map[string][]byte{p.Certificate: certificate, p.Key: key} {
				if err := os.WriteFile(path, content, 0o600); err != nil {
					r.t.Fatal(err)
				}
				later := time.Unix(2_000_000_000, 0) // whatever the clock's grain
				if err := os.Chtimes(path, later, later); err != nil {
					r.t.Fatal(err)
				}
			}
			r.ticks(1, "shop.pem taken")
			r.serves("second", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := saved(t, t.TempDir(), "shop", shop("first"))
				test(run(t, p), p)
			})
		})
	}
}

// TestReloadLink changes a link that both paths go through, as Kubernetes and certbot do.
func TestReloadLink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for _, version := range []string{"1", "2"} {
			if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
				t.Fatal(err)
			}
			saved(t, filepath.Join(dir, version), "shop", shop("version "+version))
		}
		current := filepath.Join(dir, "current")
		if err := os.Symlink("1", current); err != nil {
			t.Fatal(err)
		}
		r := run(t, Pair{filepath.Join(current, "shop.pem"), filepath.Join(current, "shop.key")})
		r.serves("version 1", "")
		if err := os.Symlink("2", current+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(current+".new", current); err != nil {
			t.Fatal(err)
		}
		r.ticks(1, "shop.pem taken")
		r.serves("version 2", "")
	})
}

// TestReloadOthers checks that a faulty pair does not keep another from being taken, nor its names from being served.
func TestReloadOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first, other := saved(t, dir, "shop", shop("first")), saved(t, dir, "other", issued{names: []string{"other.example"}})
		r := run(t, first, other)
		save(t, other.Key, []byte("no PEM"))
		saved(t, dir, "shop", shop("second"))
		r.ticks(1, "shop.pem taken")
		r.ticks(1, "other.pem with key")
		r.serves("second", "")
		if names := r.Names(); len(names) != 2 || r.Infos()[1].Fault == "" {
			t.Errorf("names %q, infos %+v", names, r.Infos())
		}
	})
}

// TestReloadWhileServing shakes hands while the pair changes under them: each client gets one certificate or the
// other, and its key.
func TestReloadWhileServing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open([]Pair{saved(t, dir, "shop", shop("0"))})
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := shaken(t, &tls.Config{InsecureSkipVerify: true}, s.Config()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 20 {
		saved(t, dir, "shop", shop(fmt.Sprint(1+i)))
		s.look(func(_ Pair, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	close(stop)
	wg.Wait()
	if got := s.Infos()[0].Issuer; got != "CN=20" {
		t.Errorf("in use: %s", got)
	}
}
