// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// policy lets the page load its own style, script, icon and data, and nothing else; nothing is written in line.
const policy = "style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " + policyRest

// policyProfiles lets the index of the profiles have its style in line. It shows nothing that a stranger wrote.
const policyProfiles = "style-src 'unsafe-inline'; " + policyRest

const policyRest = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// guard stands before every endpoint.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if onLoopback(r) && !localHost(r.Host) {
			http.Error(w, "this address answers only to localhost and to loopback addresses: "+
				"a proxy in front must send one of them as Host", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// onlyHere refuses requests that came over a network.
func onlyHere(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !onLoopback(r) && !onUnix(r) {
			http.Error(w, "profiles are served on loopback only", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Security-Policy", policyProfiles)
		next(w, r)
	})
}

// onLoopback says whether the request came to a loopback address. It trusts only the socket, no header.
func onLoopback(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && ip.Canonical(local.AddrPort().Addr()).IsLoopback()
}

func onUnix(r *http.Request) bool {
	_, ok := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr)
	return ok
}

// localHost says whether a Host header names this machine. A browser that was led here by a name which a stranger
// has pointed at 127.0.0.1 (DNS rebinding) sends that name. The port may differ: it may be forwarded by ssh. A
// client without the header, as load balancers' checks in HTTP/1.0 are, is no browser.
func localHost(host string) bool {
	if host == "" {
		return true
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return false
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return a.Zone() == "" && ip.Canonical(a).IsLoopback()
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost") // RFC 6761 §6.3
}

// serveAsset serves an embedded file. A browser keeps it and asks with its ETag whether it is still the same.
func serveAsset(name, kind string) http.HandlerFunc {
	body, err := assets.ReadFile(path.Join("assets", name))
	if err != nil {
		panic(err) // it is embedded: a test fails before a user sees this
	}
	sum := sha256.Sum256(body)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(body))
	}
}
