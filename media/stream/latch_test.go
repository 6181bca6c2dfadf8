// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func at(text string) netip.AddrPort {
	if text == "" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(text)
}

func addr(text string) netip.Addr {
	if text == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(text)
}

const (
	sdp4  = "192.0.2.1:4000"
	port4 = "192.0.2.1:5555"
	nat4  = "198.51.100.7:6000"
	evil4 = "203.0.113.66:4000"
	sdp6  = "[2001:db8:1::1]:4000"
	near6 = "[2001:db8:1::2]:4000" // of the same /64
	evil6 = "[2001:db8:2::1]:4000"
)

// TestLatch plays what happens at one port. A step is a time in seconds, then what happens: "set ADDRESS [SIGNAL] [learn]",
// "open", "ADDRESS +" (heard), "ADDRESS -" (not), or "to ADDRESS".
func TestLatch(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string][]string{
		"nobody is described":           {"0 " + sdp4 + " -", "0 to"},
		"as described":                  {"0 set " + sdp4, "0 to " + sdp4, "1 " + sdp4 + " +", "2 " + sdp4 + " +", "2 to " + sdp4},
		"late, but as described":        {"0 set " + sdp4, "99 " + sdp4 + " +"},
		"another port":                  {"0 set " + sdp4, "1 " + port4 + " +", "1 to " + port4, "2 " + port4 + " +"},
		"another port, too late":        {"0 set " + sdp4, "11 " + port4 + " -", "11 to " + sdp4},
		"another port, after an answer": {"0 set " + sdp4, "60 open", "61 " + port4 + " +", "99 " + port4 + " +", "99 open", "99 192.0.2.1:7 -"},
		"the better one counts":         {"0 set " + sdp4, "1 " + port4 + " +", "2 " + sdp4 + " +", "3 " + port4 + " -", "3 to " + sdp4},
		"the better one, too late":      {"0 set " + sdp4, "1 " + port4 + " +", "11 " + sdp4 + " -", "11 " + port4 + " +"},
		"the first of equals":           {"0 set " + sdp4, "1 " + port4 + " +", "1 192.0.2.1:5556 -"},
		"strangers":                     {"0 set " + sdp4, "0 " + evil4 + " -", "1 " + sdp4 + " +", "2 " + evil4 + " -", "2 to " + sdp4},
		"strangers in IPv6":             {"0 set " + sdp6, "0 " + evil6 + " -", "0 " + near6 + " -", "1 " + sdp6 + " +", "2 " + evil6 + " -", "2 to " + sdp6},
		"strangers and signalling":      {"0 set 10.0.0.5:4000 198.51.100.7", "0 " + evil4 + " -", "0 to", "1 " + nat4 + " +", "1 to " + nat4, "2 " + evil4 + " -"},
		"signalling in IPv6":            {"0 set [fd00::5]:4000 2001:db8:1::9", "0 to", "0 " + evil6 + " -", "0 " + near6 + " +", "0 to " + near6},
		"signalling is the described":   {"0 set " + sdp4 + " 192.0.2.1", "0 to " + sdp4},
		"signalling, too late":          {"0 set 10.0.0.5:4000 198.51.100.7", "11 " + nat4 + " -", "11 to"},
		"the description before the signalling": {"0 set " + sdp4 + " 198.51.100.7", "0 " + nat4 + " +", "1 " + port4 + " +", "2 " + nat4 + " -",
			"3 " + sdp4 + " +", "4 " + port4 + " -"},
		"moved by signalling":     {"0 set " + sdp4, "1 " + sdp4 + " +", "5 set " + nat4, "5 " + sdp4 + " -", "5 to " + nat4, "6 " + nat4 + " +"},
		"said again":              {"0 set " + sdp4, "1 " + port4 + " +", "50 set " + sdp4, "50 to " + port4, "51 192.0.2.1:7 -", "51 " + port4 + " +"},
		"said again, and learned": {"0 set " + sdp4, "1 " + port4 + " +", "50 set " + sdp4 + " learn", "51 " + port4 + " +", "52 192.0.2.1:7 +", "53 " + port4 + " -"},
		"learned, but exact":      {"0 set " + sdp4, "1 " + sdp4 + " +", "50 set " + sdp4 + " learn", "51 " + port4 + " -"},
		"learned by nobody else":  {"0 set " + sdp4, "1 " + port4 + " +", "50 set " + sdp4 + " learn", "51 " + evil4 + " -", "51 to " + port4},
		"signalling moved": {"0 set 10.0.0.5:4000 198.51.100.7", "1 " + nat4 + " +", "50 set 10.0.0.5:4000 198.51.100.8", "51 198.51.100.8:6 +",
			"52 " + nat4 + " -"},
		"held as RFC 2543 has it": {"0 set " + sdp4, "1 " + port4 + " +", "50 set 0.0.0.0:4000", "50 to", "51 " + port4 + " +", "52 " + evil4 + " -",
			"60 set " + sdp4, "60 to " + port4, "61 " + port4 + " +"},
		"held in IPv6": {"0 set " + sdp6, "1 " + sdp6 + " +", "50 set [::]:4000", "50 to", "60 set " + sdp6, "60 to " + sdp6},
		"rejected":     {"0 set 192.0.2.1:0", "0 to", "0 " + port4 + " -"},
		"multicast":    {"0 set 224.0.0.1:4000", "0 to", "0 224.0.0.1:4000 -"},
		"0.0.0.0":      {"0 set 0.0.0.0:4000", "0 to", "0 0.0.0.0:4000 -"},
		"no signal":    {"0 set " + sdp4, "0 " + sdp6 + " -"},
		"from nowhere": {"0 [::]:0 -", "1 set " + sdp6, "1 [::]:0 -", "1 0.0.0.0:0 -", "1 to " + sdp6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var l Latch
			var signal netip.Addr
			for _, step := range steps {
				play(t, &l, &signal, step)
			}
		})
	}
}

func play(t *testing.T, l *Latch, from *netip.Addr, step string) {
	t.Helper()
	f := strings.Fields(step)
	seconds, err := time.ParseDuration(f[0] + "s")
	if err != nil {
		t.Fatal(err)
	}
	now := int64(time.Hour + seconds)
	switch f[1] {
	case "set":
		learn, signal := f[len(f)-1] == "learn", ""
		if len(f) > 3 && f[3] != "learn" {
			signal = f[3]
		}
		moved := *from != addr(signal)
		*from = addr(signal)
		l.Set(at(f[2]), moved, learn, now)
	case "open":
		l.Reopen(now)
	case "to":
		want := ""
		if len(f) > 2 {
			want = f[2]
		}
		if got := l.To(*from); got != at(want) {
			t.Errorf("%s: sends to %v", step, got)
		}
	default:
		if got := l.Hear(at(f[1]), *from, now); got != (f[2] == "+") {
			t.Errorf("%s: heard: %v", step, got)
		}
	}
}
