// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
)

// Baresip is a telephone, or a media gateway with the telephones behind it: baresip, which answers each call at once, says a
// tone, and calls with Dial of an attempt. What it sends and hears as SIP is in its log, line by line.
type Baresip struct {
	Listen  netip.AddrPort `yaml:"listen"`
	Numbers List[string]   `yaml:"numbers"` // what it is called by
	Domain  string         `yaml:"domain"`
	Server  netip.AddrPort `yaml:"server"` // the edge, whom it asks

	// Password registers it by its numbers. A gateway has none.
	Password string `yaml:"password"`
}

// baresipControl is where it is told what to do, on its own host.
func baresipControl() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:4444") }

const baresipFolder = "/run/baresip"

var telephoneNumber = regexp.MustCompile(`^\+?[0-9]{3,15}$`)

func (b *Baresip) name() string { return "baresip" }

func (b *Baresip) check(h HostSpec) []problem {
	all := checkListen(h, "listen", List[netip.AddrPort]{b.Listen})
	for i, n := range b.Numbers {
		if !telephoneNumber.MatchString(n) {
			all = append(all, problem{[]string{"numbers", fmt.Sprint(i)}, errors.New("must be digits, perhaps with + before them")})
		}
	}
	switch {
	case len(b.Numbers) == 0:
		all = append(all, problem{[]string{"numbers"}, errors.New("say what it is called by")})
	case !domainName.MatchString(b.Domain):
		all = append(all, problem{[]string{"domain"}, errors.New("must be a domain")})
	case b.Server.Addr().Is4() != b.Listen.Addr().Is4():
		all = append(all, problem{[]string{"server"}, errors.New("must be of the family of listen")})
	case strings.ContainsAny(b.Password, ";\"<>\n"):
		all = append(all, problem{[]string{"password"}, errors.New(`must not have any of ; " < >`)})
	}
	return all
}

func (b *Baresip) daemon(_ context.Context, h *Host) (Daemon, error) {
	binary, err := need("baresip", "baresip-core")
	if err != nil {
		return Daemon{}, err
	}
	var accounts strings.Builder
	for _, n := range b.Numbers {
		interval := 0
		if b.Password != "" {
			interval = 600
		}
		fmt.Fprintf(&accounts, "<sip:%s@%s>;auth_pass=%s;outbound=\"sip:%v\";regint=%d;answermode=auto\n", n, b.Domain, b.Password, b.Server, interval)
	}
	config := fmt.Sprintf(`sip_listen %v
net_interface %v
rtp_ports 30000-39999
module_path /usr/lib/baresip/modules
module g711.so
module ausine.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen %v
audio_source ausine,440
ausrc_srate 48000
ausrc_channels 2
`, b.Listen, b.Listen.Addr(), baresipControl())
	for name, text := range map[string]string{"config": config, "accounts": accounts.String(), "contacts": ""} {
		if err := h.WriteFile(filepath.Join(baresipFolder, name), []byte(text)); err != nil {
			return Daemon{}, err
		}
	}
	family := map[bool]string{true: "-4", false: "-6"}[b.Listen.Addr().Is4()]
	return Daemon{Name: "baresip", Argv: []string{"stdbuf", "-oL", binary, family, "-s", "-f", baresipFolder},
		Ready: func(ctx context.Context) error { return b.registered(ctx, h) }}, nil
}

var errNotRegistered = errors.New("not registered yet")

// registered asks it whether it is.
func (b *Baresip) registered(ctx context.Context, h *Host) error {
	c, err := openControl(ctx, h)
	if err != nil {
		return err
	}
	defer c.Close()
	info, err := c.do("reginfo", "")
	if err == nil && b.Password != "" && strings.Count(info, "OK") < len(b.Numbers) {
		err = errNotRegistered
	}
	return err
}
