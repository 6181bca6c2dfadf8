// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// subscriber is one who may register and call.
type subscriber struct {
	name    string // a number in national form, if there are numbers
	address string // of record
	secret  *digest.Secret

	algorithms []digest.Algorithm // that the secret has
	written    string             // his digests in a database

	home location.Memory // where his bindings are
}

// subscriber returns the one of a name, or nil.
func (s *settings) subscriber(name string) *subscriber {
	if s.roster == nil {
		return s.subscribers[name]
	}
	return (*s.roster.all.Load())[name]
}

var (
	errLine  = errors.New("not NAME:REALM:DIGEST")
	errRealm = errors.New("the realm is not the domain, written as in the site file")
	errColon = errors.New("the name has a colon or blanks")
	errHash  = errors.New("the digest is neither MD5 nor SHA-256 in hexadecimal")
	errAgain = errors.New("the name has a digest of this kind already; remove the older line")
)

// readSubscribers reads a file as htdigest writes it: a line NAME:REALM:DIGEST for each subscriber and algorithm, where the
// digest is that of "NAME:REALM:PASSWORD" (RFC 7616 §3.4.2) and its length says by which algorithm. Lines that begin with #
// say nothing.
//
// The faults have the name of the file and the line; of many only the first are told.
func readSubscribers(name, domain string) (map[string]*subscriber, []error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, []error{err}
	}
	defer file.Close()
	all := make(map[string]*subscriber)
	lines := bufio.NewScanner(file)
	var errs []error
	n := 0
	for lines.Scan() {
		n++
		if err := addSubscriber(all, lines.Text(), domain); err != nil && len(errs) < mostFaults {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, n, err))
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s:%d: %w", name, n+1, err))
	}
	return all, errs
}

func addSubscriber(all map[string]*subscriber, line, domain string) error {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return nil
	}
	name, rest, _ := strings.Cut(line, ":")
	realm, hash, ok := strings.Cut(rest, ":")
	if !ok || name == "" {
		return errLine
	}
	if realm != domain {
		return errRealm
	}
	s := all[name]
	if s == nil {
		const scheme = "sip:"
		address := scheme + name + "@" + domain
		name = address[len(scheme):][:len(name)] // so that the line, which is longer, is not kept
		s = &subscriber{name: name, address: address, secret: new(digest.Secret)}
		all[name] = s
	}
	algorithm := digest.MD5
	if len(hash) == 64 {
		algorithm = digest.SHA256
	}
	if slices.Contains(s.algorithms, algorithm) {
		return errAgain
	}
	if !s.secret.Add(algorithm, hash) {
		return errHash
	}
	s.algorithms = append(s.algorithms, algorithm)
	return nil
}

// authenticate returns who sends a request, or challenges and returns nil. RFC 3261 §22.4, RFC 8760.
func (e *exchange) authenticate() *subscriber {
	r := &digest.Request{Method: e.message.Method(), URI: e.message.Target(), Client: e.back.Remote.Addr(), Now: time.Now()}
	f := &e.agent.fields
	if !e.credentials(f) {
		e.challenge(r, false)
		return nil
	}
	who := e.settings.known(f.Username)
	var secret *digest.Secret
	if who != nil {
		secret = who.secret
	}
	switch verdict := e.settings.guard.Check(f, r, secret); {
	case verdict == digest.Granted:
		return who
	case verdict == digest.Stale && e.again(who):
	case verdict == digest.Stale, f.Empty():
		e.challenge(r, verdict == digest.Stale)
	default:
		e.answer(&sip.Answer{Status: 403}) // a new challenge would let a telephone with a wrong password ask for ever
	}
	return nil
}

// user returns the user of an address, without escapes, or "".
func (e *exchange) user(k sip.Kind) string {
	_, u, err := e.message.Address(k)
	if err != nil {
		return ""
	}
	return string(sip.Unescape(nil, u.User))
}

// credentials reads those that are for us: there may be others, and what cannot be read is for somebody else.
func (e *exchange) credentials(f *digest.Fields) bool {
	for value, i := e.message.Field(sip.Authorization, 0); value != nil; value, i = e.message.Field(sip.Authorization, i) {
		if f.Parse(value) == nil && string(f.Realm) == e.settings.guard.Realm {
			return true
		}
	}
	return false
}

// challenge asks who sends a request, by the better algorithm first (RFC 8760 §2.3), but only by those for which the
// subscriber who is named has a digest: telephones that know MD5 alone, as those of libre up to 1.0 do, give up when they see
// another.
func (e *exchange) challenge(r *digest.Request, stale bool) {
	named := e.settings.known([]byte(e.user(sip.From)))
	lines := e.agent.out[:0]
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.MD5} {
		if named != nil && !slices.Contains(named.algorithms, algorithm) {
			continue
		}
		lines = append(lines, "WWW-Authenticate: "...)
		lines = e.settings.guard.AppendChallenge(lines, algorithm, r, stale)
		lines = append(lines, "\r\n"...)
	}
	e.agent.out = lines
	e.answer(&sip.Answer{Status: 401, Lines: lines})
}
