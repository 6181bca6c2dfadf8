// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// protocols are small stand-ins for the real ones, which this package must not know.
func protocols() []service.Protocol {
	proxy := []backend.Handover{backend.HandoverProxyV1, backend.HandoverProxyV2}
	return []service.Protocol{
		{Name: "tcp", Transports: []listen.Transport{listen.TCP}, Kernel: service.Whole, Handovers: proxy, Counts: []limit.Kind{limit.Connections, limit.Open}, Options: func() service.Options { return new(plainOptions) }},
		{Name: "udp", Transports: []listen.Transport{listen.UDP}, Kernel: service.Whole, Options: func() service.Options { return new(plainOptions) }},
		{Name: "web", Transports: []listen.Transport{listen.TCP}, Share: share, Handovers: append(proxy, backend.HandoverHeader),
			Counts: []limit.Kind{limit.Requests, limit.Connections, limit.Handshakes, limit.Open}, Options: func() service.Options { return &webOptions{Header: 16 << 10, Retries: 1} }},
		{Name: "mail", Transports: []listen.Transport{listen.TCP}, Listens: []string{"smtp", "submission", "imaps"},
			Handovers: []backend.Handover{backend.HandoverXclient, backend.HandoverID, backend.HandoverAuto}, StartTLS: true,
			Options: func() service.Options { return new(mailOptions) }},
		{Name: "phone", Transports: []listen.Transport{listen.UDP, listen.TCP}, AnyListen: true, Standalone: true,
			Options: func() service.Options { return new(plainOptions) }},
	}
}

// plainOptions have no keys.
type plainOptions struct{}

func (*plainOptions) Check(*service.Service) []error { return nil }

// webOptions have one field of each type that options may have.
type webOptions struct {
	Hosts    []string              `yaml:"hosts,required"`
	TLS      *tlsOptions           `yaml:"tls"`
	Header   service.Bytes         `yaml:"header" range:"1KiB..1MiB"`
	Retries  uint8                 `yaml:"retries" range:"0..5"`
	Ratio    float64               `yaml:"ratio"`
	HTTP2    bool                  `yaml:"http2"`
	Wait     time.Duration         `yaml:"wait" range:"1s..1m"`
	Canary   service.Percent       `yaml:"canary"`
	Resolver netip.Addr            `yaml:"resolver"`
	Headers  map[string]string     `yaml:"headers"`
	Limits   map[string][]cost     `yaml:"limits"`
	Trusted  []netip.Prefix        `yaml:"trusted"`
	Level    level                 `yaml:"level"`
	Hook     func()                `yaml:"hook" json:"-"`
	Peers    map[string]tlsOptions `yaml:"peers"`
	embedded
}

type embedded struct {
	Root service.Path `yaml:"root"`
}

type cost struct {
	Rate int `yaml:"rate,required" range:"1.."`
}

// level reads itself.
type level int

func (l *level) UnmarshalText(text []byte) error {
	if string(text) != "high" {
		return errors.New("no such level")
	}
	*l = 1
	return nil
}

// tlsOptions may be written in one word or as a mapping.
type tlsOptions struct {
	Certificate service.Path `yaml:"certificate,required"`
	Key         service.Path `yaml:"key,required"`
	PassThrough bool         `yaml:"-"`
}

func (o *tlsOptions) UnmarshalText(text []byte) error {
	o.PassThrough = string(text) == "pass-through"
	if !o.PassThrough {
		return errors.New("write pass-through, or the certificate and the key")
	}
	return nil
}

func (o *webOptions) Check(s *service.Service) []error {
	var errs []error
	if i := slices.Index(o.Hosts, "localhost"); i >= 0 {
		errs = append(errs, &service.Error{Path: []string{"web", "hosts", fmt.Sprint(i)}, Err: errors.New("no host name")})
	}
	if o.TLS != nil && o.TLS.PassThrough {
		for name, p := range s.Pools {
			if p.Handover == backend.HandoverHeader {
				errs = append(errs, &service.Error{Path: []string{"pools", name, "handover"},
					Err: errors.New("header cannot be added to TLS that is passed through; use proxy-v2")})
			}
		}
	}
	if o.Canary > 50 {
		errs = append(errs, &service.Error{Path: []string{"web", "gone", "deeper"}, Err: errors.New("nothing is here")})
	}
	if o.HTTP2 {
		errs = append(errs, errors.New("no place is known"))
	}
	return errs
}

// share wants services at one address to have headers of one size.
func share(first, second *service.Service, at service.Listen) []error {
	if first.Options.(*webOptions).Header == second.Options.(*webOptions).Header {
		return nil
	}
	return []error{&service.Error{Path: []string{"web", "header"}, Err: fmt.Errorf("not that of %q at %v", first.Name, at.AddrPort)}}
}

type mailOptions struct {
	Name string `yaml:"name"`
}

func (*mailOptions) Check(*service.Service) []error { return nil }
