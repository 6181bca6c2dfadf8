// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/backend"
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

	// The deadlines of a client, beside those of every service.
	Timeouts Timeouts `yaml:"timeouts"`

	// What a client may send.
	Limits Limits `yaml:"limits"`
}

// TLS says who ends TLS.
type TLS struct {
	// The certificate chain and its key, PEM files. Changed files are taken without a reload.
	Certificate service.Path `yaml:"certificate"`
	Key         service.Path `yaml:"key"`

	// More certificates, for other names or another kind of key.
	Also []Pair `yaml:"also"`

	// The servers end TLS: the connection is passed through by its server name, unread.
	PassThrough bool `yaml:"pass-through"`

	// Ports at which the service speaks HTTP without TLS, beside 80.
	PlainPorts []int `yaml:"plain-ports" range:"1..65535"`
}

// Pair is a certificate chain and its key.
type Pair struct {
	Certificate service.Path `yaml:"certificate,required"`
	Key         service.Path `yaml:"key,required"`
}

// Timeouts are the deadlines of a client.
type Timeouts struct {
	// From the first byte of a request to the end of its head, and for a TLS handshake.
	Request time.Duration `yaml:"request" range:"1ms.."`

	// Between two requests of a connection.
	KeepAlive time.Duration `yaml:"keep-alive" range:"1ms.."`

	// Until a server begins to answer.
	Response time.Duration `yaml:"response" range:"1ms.."`
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
		Timeouts: Timeouts{Request: 10 * time.Second, KeepAlive: time.Minute, Response: time.Minute},
		Limits:   Limits{Head: 16 << 10, Fields: 100},
	}
}

// The mistakes that Check finds.
var (
	errHeader   = errors.New("handover: header cannot be with TLS passed through: the edge does not see the requests; use proxy-v1 or proxy-v2")
	errPassBoth = errors.New("pass-through: the servers have the certificates; leave certificate and key out")
	errPair     = errors.New("certificate and key belong together: give both")
	errNoCert   = errors.New("tls needs certificate and key, or pass-through: true")
	errPassHost = errors.New("pass-through needs hosts: the server name is all there is to tell services apart")
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
	if o.TLS == nil {
		return errs
	}
	t := o.TLS
	switch {
	case t.PassThrough && (t.Certificate != "" || t.Key != "" || len(t.Also) > 0):
		at(errPassBoth, "tls", "pass-through")
	case !t.PassThrough && t.Certificate == "" && t.Key == "":
		at(errNoCert, "tls")
	case (t.Certificate == "") != (t.Key == ""):
		at(errPair, "tls")
	}
	if !t.PassThrough {
		return errs
	}
	if len(o.Hosts) == 0 {
		at(errPassHost, "tls", "pass-through")
	}
	for name, p := range s.Pools {
		if p.Handover == backend.HandoverHeader {
			errs = append(errs, &service.Error{Path: []string{"pools", name, "handover"}, Err: errHeader})
		}
	}
	return errs
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
