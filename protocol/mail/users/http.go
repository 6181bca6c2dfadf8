// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package users

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/kyozon/kyozon/ip"
)

// here is where the user stands in a URL.
const here = "{user}"

// maxBody bounds the bytes of an answer over HTTP.
const maxBody = 4 << 10

// errURL means that a URL cannot be asked.
var errURL = errors.New("not a URL with an address and {user}; write, for example, http://10.0.2.9:8080/where?user={user}")

// HTTP asks a server for a user by GET. 200 has the answer as the first line of a text, or in JSON as "server"; 404 and 204
// say that the user is not known.
type HTTP struct {
	before, after string // the URL around the user
	query         bool   // he stands in the query
	client        *http.Client
}

// CheckURL says what is wrong with a URL for HTTP. A name in place of the address would make logins wait for the DNS, and has
// two families.
func CheckURL(text string) error {
	u, err := url.Parse(strings.Replace(text, here, "user", 1))
	if err != nil || strings.Count(text, here) != 1 || u.Scheme != "http" && u.Scheme != "https" || u.Fragment != "" {
		return errURL
	}
	_, rest, _ := strings.Cut(text, "://")
	if i := strings.IndexAny(rest, "/?"); i < 0 || i > strings.Index(rest, here) {
		return errURL
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil {
		return errURL
	}
	return nil
}

// NewHTTP returns a source that asks a URL, which CheckURL must have found to be right.
func NewHTTP(text string) *HTTP {
	h := &HTTP{client: &http.Client{
		Transport:     &http.Transport{DialContext: dial, MaxIdleConnsPerHost: atOnce, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	h.before, h.after, _ = strings.Cut(text, here)
	h.query = strings.Contains(h.before, "?")
	return h
}

// dial connects over the family of the address.
func dial(ctx context.Context, _, at string) (net.Conn, error) {
	addr, err := netip.ParseAddrPort(at)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, fmt.Sprintf("tcp%d", ip.FamilyOf(addr.Addr())), at)
}

// Ask implements Source.
func (h *HTTP) Ask(ctx context.Context, user string) (string, error) {
	escaped := url.PathEscape(user)
	switch {
	case h.query:
		escaped = url.QueryEscape(user)
	case user == "." || user == "..": // would lead elsewhere: RFC 3986 §5.2.4
		return "", nil
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, h.before+escaped+h.after, nil)
	if err != nil {
		return "", err
	}
	q.Header.Set("User-Agent", "kyozon")
	q.Header.Set("Accept", "application/json, text/plain")
	r, err := h.client.Do(q)
	if err != nil {
		return "", without(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case r.StatusCode == http.StatusNotFound, r.StatusCode == http.StatusNoContent:
		return "", nil
	case r.StatusCode != http.StatusOK:
		return "", fmt.Errorf("users: the directory answers %d", r.StatusCode)
	case err != nil:
		return "", err
	case len(body) > maxBody:
		return "", ErrAnswer
	}
	return read(r.Header.Get("Content-Type"), body)
}

// without takes the URL, in which there are a user and perhaps a password, out of an error.
func without(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// read reads the body of an answer.
func read(kind string, body []byte) (string, error) {
	if kind, _, _ = strings.Cut(kind, ";"); strings.TrimSpace(kind) == "application/json" {
		var answer struct {
			Server string `json:"server"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return "", fmt.Errorf("users: the directory answers no JSON with a server: %v", err)
		}
		return answer.Server, nil
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return strings.TrimSpace(line), nil
}

// Close implements Source.
func (h *HTTP) Close() { h.client.CloseIdleConnections() }
