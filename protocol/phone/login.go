// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/service"
)

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

// takeLogins takes who we are to a trunk, and who its callers prove to be.
func (s *settings) takeLogins(t *trunk, o *Trunk, from trunkFiles) error {
	if o.Login != nil {
		t.login = &digest.Client{Username: o.Login.Name, Password: from.password}
	}
	for name, one := range from.callers {
		if s.known([]byte(name)) != nil { // in a database: in a file it was seen before
			return &service.Error{Path: []string{"phone", "trunks", t.name, "callers"}, Err: fmt.Errorf("%s: %s: %w", o.Callers, name, errBoth)}
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
