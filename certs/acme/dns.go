// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	rfc8555 "github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"

	"github.com/kyozon/kyozon/ip"
)

const (
	recordTTL  = 60              // seconds, of the records that prove a name
	dnsTimeout = 5 * time.Second // of one question
	mostCNAMEs = 8               // that are followed
)

// errLoop means that the record's name is delegated round and round.
var errLoop = errors.New("too many CNAMEs")

// dnsSolver answers dns-01 with a TXT record below _acme-challenge, which it adds by dynamic update and removes
// afterwards. RFC 8555 §8.4, RFC 2136.
//
// A CNAME there, known to the same server, is followed: that is how a zone that takes no updates delegates the proof to
// one that does.
type dnsSolver struct{ DNS }

// Present implements acmez.Solver.
func (s dnsSolver) Present(ctx context.Context, c rfc8555.Challenge) error {
	return s.update(ctx, c, (*dns.Msg).Insert)
}

// Wait implements acmez.Waiter: until secondary servers have the record, too.
func (s dnsSolver) Wait(ctx context.Context, _ rfc8555.Challenge) error {
	if !sleep(ctx, s.Settle) {
		return context.Cause(ctx)
	}
	return nil
}

// CleanUp implements acmez.Solver. It is for the next one, not for this order: it must work when ctx is done.
func (s dnsSolver) CleanUp(ctx context.Context, c rfc8555.Challenge) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*dnsTimeout)
	defer cancel()
	return s.update(ctx, c, (*dns.Msg).Remove)
}

// update adds or removes the record of a challenge, and no other: two orders, for a name and for the wildcard below it,
// have records of the same name.
func (s dnsSolver) update(ctx context.Context, c rfc8555.Challenge, change func(*dns.Msg, []dns.RR)) error {
	name, zone, err := s.find(ctx, dns.Fqdn(c.DNS01TXTRecordName()))
	if err != nil {
		return err
	}
	m := new(dns.Msg).SetUpdate(zone)
	change(m, []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: recordTTL},
		Txt: []string{c.DNS01KeyAuthorization()}}})
	if _, err := s.exchange(ctx, m); err != nil {
		return fmt.Errorf("update %s in zone %s at %v: %w", name, zone, s.Server, err)
	}
	return nil
}

// find returns the name at which the record is to be put, and the zone that has it.
func (s dnsSolver) find(ctx context.Context, name string) (found, zone string, err error) {
	for range mostCNAMEs {
		answer, err := s.exchange(ctx, new(dns.Msg).SetQuestion(name, dns.TypeSOA))
		if err != nil {
			return "", "", fmt.Errorf("ask %v for the zone of %s: %w", s.Server, name, err)
		}
		if alias := aliasOf(name, answer); alias != "" {
			name = alias
			continue
		}
		for _, rr := range append(answer.Answer, answer.Ns...) {
			if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) {
				return name, soa.Hdr.Name, nil
			}
		}
		return "", "", fmt.Errorf("ask %v for the zone of %s: it has none", s.Server, name)
	}
	return "", "", fmt.Errorf("ask %v for the zone of %s: %w", s.Server, name, errLoop)
}

// aliasOf returns what name is an alias of, or "". What else is in the answer is about that then.
func aliasOf(name string, answer *dns.Msg) string {
	for _, rr := range answer.Answer {
		if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, name) {
			return c.Target
		}
	}
	return ""
}

// exchange asks the server one thing and returns its answer, if that is no error. Over TCP: it tells soon if nobody is
// there, and every server that takes updates has it. RFC 7766 §5.
func (s dnsSolver) exchange(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	c := &dns.Client{Net: fmt.Sprintf("tcp%d", ip.FamilyOf(s.Server.Addr())), Timeout: dnsTimeout}
	if s.Key != "" {
		key, err := readTSIGKey(s.Key) // each time: keys are changed
		if err != nil {
			return nil, err
		}
		c.TsigSecret = map[string]string{key.name: key.secret}
		m.SetTsig(key.name, key.algorithm, 300, time.Now().Unix()) // RFC 8945 §10: the usual fudge
	}
	answer, _, err := c.ExchangeContext(ctx, m, s.Server.String())
	if err != nil {
		return nil, err
	}
	// A name that does not exist yet is no mistake: who has the zone says so with its SOA. RFC 2308 §3.
	if answer.Rcode != dns.RcodeSuccess && (m.Opcode == dns.OpcodeUpdate || answer.Rcode != dns.RcodeNameError) {
		return nil, fmt.Errorf("the server answers %s", dns.RcodeToString[answer.Rcode])
	}
	return answer, nil
}
