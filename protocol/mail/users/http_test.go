// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package users

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for text, good := range map[string]bool{
		"http://10.0.2.9/{user}": true, "http://10.0.2.9:8080/where?user={user}&x=1": true, "https://[2001:db8::9]:443/a/{user}/b": true,
		"http://edge:secret@10.0.2.9?u={user}": true,
		"":                                     false, "http://10.0.2.9/": false, "http://10.0.2.9/{user}/{user}": false, "ftp://10.0.2.9/{user}": false, "http://directory.example/{user}": false,
		"http://{user}@10.0.2.9/": false, "http://{user}/": false, "http://10.0.2.9/#{user}": false, "http://10.0.2.9:x/{user}": false, "10.0.2.9/{user}": false,
	} {
		if err := CheckURL(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// serve answers over HTTP at loopback of family f.
func serve(t *testing.T, f ip.Family, h http.HandlerFunc) string {
	t.Helper()
	network := map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[f]
	l, err := net.Listen(network, netip.AddrPortFrom(iptest.Loopback(f), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return "http://" + l.Addr().String()
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		seen := make(chan string, 1)
		base := serve(t, f, func(w http.ResponseWriter, r *http.Request) {
			user := r.URL.Query().Get("user") + strings.TrimPrefix(strings.TrimSuffix(r.URL.Path, "/at"), "/")
			seen <- user
			switch user {
			case "json":
				w.Header().Set("Content-Type", "application/json; charset=utf-8")
				w.Write([]byte(`{"server": "10.0.2.21", "more": [1]}`))
			case "empty":
				w.Header().Set("Content-Type", "application/json")
				w.Write([]byte(`{}`))
			case "no json":
				w.Header().Set("Content-Type", "application/json")
				w.Write([]byte(`10.0.2.21`))
			case "nobody":
				http.NotFound(w, r)
			case "none":
				w.WriteHeader(http.StatusNoContent)
			case "broken":
				http.Error(w, "10.0.2.21", http.StatusInternalServerError)
			case "moved":
				http.Redirect(w, r, "/text", http.StatusFound)
			case "long":
				w.Write([]byte(strings.Repeat("x", maxBody+1)))
			default:
				w.Write([]byte("10.0.2.21\r\nmore\n"))
			}
		})
		for _, form := range []string{"/?user={user}", "/{user}/at"} {
			h := NewHTTP(base + form)
			defer h.Close()
			for user, want := range map[string]string{
				"text": "10.0.2.21", "json": "10.0.2.21", "empty": "", "nobody": "", "none": "", "no json": "error: users: the directory answers no JSON",
				"broken": "error: users: the directory answers 500", "moved": "error: users: the directory answers 302", "long": "error: " + ErrAnswer.Error(),
				"a/b&c=d?e#f %+@\xff": "10.0.2.21",
			} {
				got, err := h.Ask(t.Context(), user)
				if err != nil {
					got = "error: " + err.Error()
				}
				if got, _ = clip(got, len(want)); got != want {
					t.Errorf("%s: %q: got %q, want %q", form, user, got, want)
				}
				if s := <-seen; s != user {
					t.Errorf("%s: asked for %q, want %q", form, s, user)
				}
			}
		}
		h := NewHTTP(base + "/{user}/at")
		defer h.Close()
		if got, err := h.Ask(t.Context(), ".."); got != "" || err != nil {
			t.Errorf("a user whose name leads elsewhere: %q, %v", got, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := h.Ask(ctx, "text"); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "http") {
			t.Errorf("got %v", err)
		}
	})
}

func clip(text string, n int) (string, bool) {
	if n > 0 && strings.HasPrefix(text, "error: ") && len(text) > n {
		return text[:n], true
	}
	return text, false
}

// FuzzRead holds that no answer over HTTP is more than it may be.
func FuzzRead(f *testing.F) {
	for _, s := range []string{`{"server": "a"}`, `{"server": 1}`, "a\nb", "\n\n", `{"server":"\u0000"}`} {
		f.Add("application/json", s)
		f.Add("text/plain", s)
	}
	f.Fuzz(func(t *testing.T, kind, body string) {
		answer, err := read(kind, []byte(body))
		if err != nil {
			return
		}
		if kept, err := clean([]byte(answer)); err == nil && (len(kept) > MaxAnswer || strings.ContainsAny(kept, "\r\n\x00")) {
			t.Errorf("%q is kept", kept)
		}
	})
}
