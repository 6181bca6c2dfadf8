// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// mostProofs is how often the INVITE of a branch is proved: once more than once, if the nonce has become old meanwhile.
const mostProofs = 2

var (
	errPassword = errors.New("its first line is no password")
	errBoth     = errors.New("a trunk and a subscriber, or two trunks, have the name")
)

// readPassword reads the password of a login: the first line of its file.
func readPassword(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan()
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if lines.Text() == "" {
		return "", fmt.Errorf("%s: %w", name, errPassword)
	}
	return lines.Text(), nil
}

// readLogins reads who we are to a trunk, and who its callers prove to be.
func (s *settings) readLogins(t *trunk, o *Trunk) (err error) {
	if o.Login != nil {
		t.login = &digest.Client{Username: o.Login.Name}
		if t.login.Password, err = readPassword(string(o.Login.Password)); err != nil {
			return err
		}
	}
	if o.Callers == "" {
		return nil
	}
	all, err := readSubscribers(string(o.Callers), s.options.Domain)
	if err != nil {
		return err
	}
	for name, one := range all {
		if s.known([]byte(name)) != nil {
			return fmt.Errorf("%s: %s: %w", o.Callers, name, errBoth)
		}
		s.partners[name] = partner{one, t}
	}
	return nil
}

// partner is who calls for a trunk from anywhere in its network, and proves it.
type partner struct {
	*subscriber
	trunk *trunk
}

// known returns the subscriber or the partner of a name, or nil.
func (s *settings) known(name []byte) *subscriber {
	all := s.subscribers
	if s.roster != nil {
		all = *s.roster.all.Load() // never nil once it is in the settings
	}
	if one := all[string(name)]; one != nil {
		return one
	}
	return s.partners[string(name)].subscriber
}

// prove sends the INVITE of a branch once more, with the answer to the challenge of a gateway. RFC 3261 §22.2, §22.3,
// §8.1.3.5.
func (b *branch) prove(m *sip.Message) bool {
	t := b.call.trunk
	if m.Status() != 401 && m.Status() != 407 || t == nil || t.login == nil || b.cancel || b.proofs == mostProofs {
		return false
	}
	challenge, field := sip.WWWAuthenticate, sip.Authorization
	if m.Status() == 407 {
		challenge, field = sip.ProxyAuthenticate, sip.ProxyAuthorization
	}
	client := *t.login // of this call: others have their own counts
	for value, i := m.Field(challenge, 0); value != nil && !client.Ready(); value, i = m.Field(challenge, i) {
		_ = client.Take(value) // RFC 8760 §2.4: the first that can be answered
	}
	sent := &b.call.agent.other
	if !client.Ready() || sent.Parse(b.invite, nil) != nil {
		return false
	}
	b.proofs++
	var nonce [8]byte
	rand.Read(nonce[:])
	seq, _ := sent.Sequence() // ours
	var e sip.Editor
	e.Edit(sent)
	a := b.call.agent
	e.Replace(sip.Via, a.via(b.way))
	e.Replace(sip.CSeq, []byte(index(int(seq.Number)+1)+" INVITE"))
	e.Replace(field, client.Append(nil, "INVITE", string(sent.Target()), nonce))
	text, ok := e.Append(nil)
	if !ok {
		return false
	}
	var err error
	b.invite, b.heard = text, false
	b.x, err = a.ask(text, b.way, user{branch: b})
	return err == nil
}

// partnerOf returns the trunk that somebody who has proved who he is calls for, if the request comes from its network.
func (e *exchange) partnerOf(s *subscriber) *trunk {
	p := e.settings.partners[s.name]
	if p.subscriber != s || p.trunk.network != e.network {
		return nil
	}
	return p.trunk
}

// isName says whether a text can be the name of a login.
func isName(s string) bool { return s != "" && len(s) <= 100 && !strings.ContainsAny(s, "\"\\\r\n") }
