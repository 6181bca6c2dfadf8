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
