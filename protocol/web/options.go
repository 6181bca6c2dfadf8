// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/service"
)

// Options is the section `web` of a service.
type Options struct {
	// The names of the service: what clients put into Host and into the TLS server name. `*.example.jp` stands for one
	// label. Without names the service takes every request that no other service at its address takes.
	Hosts []string `yaml:"hosts"`

	// TLS at this service's addresses, all but port 80 and `plain-ports`.
	TLS *TLS `yaml:"tls"`

	// The pools whose servers speak HTTP/2: over `tls` if they choose it in ALPN, in clear from the first byte (h2c).
	HTTP2 []string `yaml:"http2"`

	// The deadlines of a client, beside those of every service. Services at one address must have the same `request` and
	// `keep-alive`.
	Timeouts Timeouts `yaml:"timeouts"`

	// What a client may send. Services at one address must have the same.
	Limits Limits `yaml:"limits"`
}

// TLS says who ends TLS.
type TLS struct {
	// The certificate chain and its key, PEM files. Changed files are taken without a reload.
	Certificate service.Path `yaml:"certificate"`

	// The private key of the certificate, a PEM file.
	Key service.Path `yaml:"key"`

	// More certificates, for other names or another kind of key.
	Also []Pair `yaml:"also"`

	// Certificates from an ACME server for all `hosts`. With `certificate` and `key` these are shown until then.
	ACME *service.ACME `yaml:"acme"`

	// Certificates that clients come with. With `handover: header` the servers are told in `Client-Cert` (RFC 9440).
	ClientCertificates *ClientCertificates `yaml:"client-certificates"`

	// The lowest version of TLS: `1.2`, which is the default, or `1.3`.
	Minimum Version `yaml:"minimum"`

	// The servers end TLS: the connection is passed through by its server name, unread. Without `hosts`, and if no other
	// service has the address, not even the name is read.
	PassThrough bool `yaml:"pass-through"`

	// Ports at which the service speaks HTTP without TLS, beside 80.
	PlainPorts []int `yaml:"plain-ports" range:"1..65535"`
}

// ClientCertificates says which certificates of clients are taken.
type ClientCertificates struct {
	// The CAs that sign them, PEM. A changed file is taken without a reload.
	CA service.Path `yaml:"ca,required"`

	// What the CAs have revoked: their lists, PEM. A changed file is taken without a reload.
	CRL service.Path `yaml:"crl"`

	// `required`, which is the default: who has none is refused. `optional`: who has none comes without. One that is
	// not good is refused in any case.
	Verify Verify `yaml:"verify"`

	// Tell the servers also of the certificates between the client's and the CA's, in `Client-Cert-Chain`.
	Chain bool `yaml:"chain"`
}

// Verify says whether clients must have a certificate. The zero value is that they must.
type Verify bool

// The words for it.
const (
	VerifyRequired Verify = false
	VerifyOptional Verify = true
)

// UnmarshalText reads "required" or "optional".
func (v *Verify) UnmarshalText(text []byte) error {
	switch string(text) {
	case "required":
		*v = VerifyRequired
	case "optional":
		*v = VerifyOptional
	default:
		return errVerify
	}
	return nil
}

// Version is a version of TLS, as crypto/tls has it. The zero value is TLS 1.2.
type Version uint16

// UnmarshalText reads "1.2" or "1.3".
func (v *Version) UnmarshalText(text []byte) error {
	switch string(text) {
	case "1.2":
		*v = tls.VersionTLS12
	case "1.3":
		*v = tls.VersionTLS13
	default:
		return errVersion
	}
	return nil
}

// Pair is a certificate chain and its key.
type Pair struct {
	// The certificate chain, a PEM file. A changed file is taken without a reload.
	Certificate service.Path `yaml:"certificate,required"`

	// Its private key, a PEM file.
	Key service.Path `yaml:"key,required"`
}

// Timeouts are the deadlines of a client.
type Timeouts struct {
	// From the first byte of a request to the end of its head, and for a TLS handshake.
	Request time.Duration `yaml:"request" range:"1ms.."`

	// Between two requests of a connection.
	KeepAlive time.Duration `yaml:"keep-alive" range:"1ms.."`

	// Until a server begins to answer.
	Response time.Duration `yaml:"response" range:"1ms.."`

	// How many bytes a second a client must at least send of a request before the answer begins, or take of an answer,
	// over the time `idle`: a byte now and then does not hold a server. `0B` means none.
	MinimumRate service.Bytes `yaml:"minimum-rate" range:"0B..1MiB"`
}

// Limits bound what a client may send.
type Limits struct {
	// Bytes of a request's head.
	Head service.Bytes `yaml:"head" range:"1KiB..32KiB"`

	// Fields of a request's head.
	Fields int `yaml:"fields" range:"1..128"`

	// Let field names contain "_", which some servers cannot tell from "-".
	Underscores bool `yaml:"underscores"`
}

func defaults() *Options {
	return &Options{
		Timeouts: Timeouts{Request: 10 * time.Second, KeepAlive: time.Minute, Response: time.Minute, MinimumRate: 100},
		Limits:   Limits{Head: 16 << 10, Fields: 100},
	}
}

// The mistakes that Check finds.
var (
	errHeader    = errors.New("handover: header cannot be with TLS passed through: the edge does not see the requests; use proxy-v1 or proxy-v2")
	errPassTLS   = errors.New("tls of a pool cannot be with TLS passed through: it would be TLS in TLS; the servers end the client's own")
	errPassBoth  = errors.New("pass-through: the servers have the certificates; leave certificate, key, acme and client-certificates out")
	errPair      = errors.New("certificate and key belong together: give both")
	errNoCert    = errors.New("tls needs certificate and key, acme, or pass-through: true")
	errVersion   = errors.New(`not a version of TLS; write "1.2" or "1.3"`)
	errVerify    = errors.New("not a way to verify clients; write required or optional")
	errUntold    = errors.New("the servers of this pool are not told of certificates of clients; only handover: header can")
	errClear     = errors.New("clients that come in clear have no certificate: with verify: required they are answered 421")
	errACMEHosts = errors.New("acme needs hosts: the certificates are for them")
	errNoPool    = errors.New("no pool")
	errPassHTTP2 = errors.New("pass-through: clients speak with the servers whatever both choose; leave http2 out")
	errRequests  = errors.New("pass-through: the edge does not see the requests; limit connections")
	errNoShake   = errors.New("the edge ends no TLS here; limit connections")
	errNames     = errors.New("the name that a client asks for is read in the user plane; without hosts all are passed through")
)

// Check implements service.Options.
func (o *Options) Check(s *service.Service) (errs []error) {
	at := func(err error, path ...string) {
		errs = append(errs, &service.Error{Path: append([]string{"web"}, path...), Err: err})
	}
	for i, h := range o.Hosts {
		if err := checkHost(h); err != nil {
			at(err, "hosts", strconv.Itoa(i))
		}
	}
	for i, name := range o.HTTP2 {
		if _, ok := s.Pools[name]; !ok {
			at(fmt.Errorf("%w %q", errNoPool, name), "http2", strconv.Itoa(i))
		}
	}
	errs = append(errs, o.checkLimits(s)...)
	if o.TLS == nil {
		return errs
	}
	t := o.TLS
	switch {
	case t.PassThrough && len(o.HTTP2) > 0:
		at(errPassHTTP2, "http2")
	case t.PassThrough && (t.Certificate != "" || t.Key != "" || len(t.Also) > 0 || t.ACME != nil || t.ClientCertificates != nil):
		at(errPassBoth, "tls", "pass-through")
	case !t.PassThrough && t.Certificate == "" && t.Key == "" && t.ACME == nil:
		at(errNoCert, "tls")
	case (t.Certificate == "") != (t.Key == ""):
		at(errPair, "tls")
	}
	if t.ACME != nil {
		errs = append(errs, o.checkACME(s)...)
	}
	if c := t.ClientCertificates; c != nil && c.Verify == VerifyRequired {
		for i, l := range s.Listen {
			if o.plain(l.AddrPort.Port()) {
				errs = append(errs, &service.Error{Path: []string{"listen", strconv.Itoa(i)}, Err: errClear, Warning: true})
			}
		}
	}
	return append(errs, t.checkPools(s)...)
}

// unread says whether what comes to a listen is passed through whole.
func unread(s *service.Service, at service.Listen) error {
	o := s.Options.(*Options) // made by our own Protocol
	switch {
	case o.plain(at.AddrPort.Port()) || !o.TLS.PassThrough:
		return service.ErrRead
	case len(o.Hosts) > 0:
		return errNames
	}
	return nil
}

// checkPools says which pools cannot be with the section tls, or are told less than it may seem.
func (t *TLS) checkPools(s *service.Service) (errs []error) {
	for name, p := range s.Pools {
		at := func(err error, key string, warning bool) {
			errs = append(errs, &service.Error{Path: []string{"pools", name, key}, Err: err, Warning: warning})
		}
		header := p.Handover == backend.HandoverHeader
		if t.PassThrough && header {
			at(errHeader, "handover", false)
		}
		if t.PassThrough && p.TLS != nil {
			at(errPassTLS, "tls", false)
		}
		if !t.PassThrough && t.ClientCertificates != nil && !header {
			at(errUntold, "handover", true)
		}
	}
	return errs
}

// checkLimits says which limits come to nothing.
func (o *Options) checkLimits(s *service.Service) (errs []error) {
	at := func(k limit.Kind, err error) {
		if s.Limits.Limits(k) {
			errs = append(errs, &service.Error{Path: []string{"limits", k.String()}, Err: err})
		}
	}
	passed := o.TLS != nil && o.TLS.PassThrough
	if passed {
		at(limit.Requests, errRequests)
	}
	if passed || o.TLS == nil {
		at(limit.Handshakes, errNoShake)
	}
	return errs
}

// checkACME says what is wrong with the section acme, and warns if the ACME server may ask another machine.
func (o *Options) checkACME(s *service.Service) (errs []error) {
	at := func(err error, key string, warning bool) {
		errs = append(errs, &service.Error{Path: []string{"web", "tls", "acme", key}, Err: err, Warning: warning})
	}
	if len(o.Hosts) == 0 {
		at(errACMEHosts, "", false)
	}
	o.TLS.ACME.Check(o.Hosts, s.Listen, at)
	return errs
}

// orders returns the certificates that a service orders.
func (o *Options) orders() []acme.Order {
	if o.TLS == nil {
		return nil
	}
	return o.TLS.ACME.Orders(o.Hosts)
}

// checkHost says what is wrong with a name of a service. RFC 1123 §2.1; wildcards as in RFC 9525 §6.3.
func checkHost(h string) error {
	name := strings.TrimPrefix(h, "*.")
	if h != strings.ToLower(h) {
		return errors.New("write the host in lower case: " + strings.ToLower(h))
	}
	if len(name) == 0 || len(name) > 253 {
		return errors.New("a host has 1 to 253 characters")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" ||
			label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("not a host name: " + strconv.Quote(h) + "; write, for example, shop.example.jp or *.example.jp, without a port")
		}
	}
	return nil
}

// plain says whether a port speaks HTTP without TLS.
func (o *Options) plain(port uint16) bool {
	if o.TLS == nil || port == 80 {
		return true
	}
	return slices.Contains(o.TLS.PlainPorts, int(port))
}

func (l Limits) machine() http1.Limits {
	return http1.Limits{Head: int(l.Head), Fields: l.Fields, Underscores: l.Underscores}
}
