// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"net"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var captured = regexp.MustCompile(`(\d+) packets captured, (\d+) packets received by filter`)

// watch is a tcpdump that writes what passes an interface into a file.
type watch struct {
	host *Host
	file string
	p    *Process
}

// mac returns the edge's address on a link.
func (u *tools) mac(link string) (mac string) {
	u.t.Helper()
	if err := u.Host("edge").Do(func() error {
		i, err := net.InterfaceByName(link)
		if err == nil {
			mac = i.HardwareAddr.String()
		}
		return err
	}); err != nil {
		u.t.Fatal(err)
	}
	return mac
}

// watch begins to capture what a filter chooses.
func (u *tools) watch(h *Host, link, filter string) *watch {
	u.t.Helper()
	w := &watch{host: h, file: "/run/" + link + ".pcap"}
	var err error
	w.p, err = h.Start(u.t.Context(), Daemon{Name: "tcpdump", Argv: []string{"tcpdump", "-Z", "root", "-n", "-i", link, "-B", "65536",
		"-s", "2000", "--immediate-mode", "-w", w.file, filter}})
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		w.p.Signal(syscall.SIGKILL) // it has ended, unless the test was cut short
		<-w.p.Done()
	})
	await(u.t, "tcpdump listens", func() bool { return strings.Contains(w.p.Log(), "listening on") })
	return w
}

// verify ends the capture and has tcpdump look at each packet.
func (w *watch) verify(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	await(t, "tcpdump has read all", func() bool {
		w.p.Signal(syscall.SIGUSR1) // it says how many it has
		all := captured.FindAllStringSubmatch(w.p.Log(), -1)
		return len(all) > 0 && all[len(all)-1][1] == all[len(all)-1][2]
	})
	if err := w.p.Stop(ctx); err != nil {
		t.Fatalf("%s: %v\n%s", w.p, err, w.p.Log())
	}
	if !strings.HasSuffix(w.p.Log(), "\n0 packets dropped by kernel\n") {
		t.Errorf("%s has not seen all packets: %s", w.p, w.p.Log())
	}
	out, err := w.host.Command(ctx, "tcpdump", "-n", "-vv", "-r", w.file).Output()
	if err != nil {
		t.Fatalf("read %s: %v", w.file, err)
	}
	good, bad := verdicts(string(out))
	t.Logf("%s: %v are right", w.p, good)
	for i, line := range bad {
		if i < 10 {
			t.Errorf("%s: %s", w.p, line)
		}
	}
	if good["tcp"] < 500 || good["udp"] < 500 {
		t.Errorf("%s has verified %v, want many; %d are wrong", w.p, good, len(bad))
	}
}

// verdicts counts what tcpdump found right, and returns the lines about what it found wrong.
func verdicts(text string) (good map[string]int, bad []string) {
	good = make(map[string]int)
	rights := map[string]string{"tcp": "(correct)", "udp": "[udp sum ok]", "icmp6": "[icmp6 sum ok]"}
	wrongs := []string{"(incorrect", "bad udp cksum", "bad icmp6 cksum", "wrong icmp cksum", "bad cksum", "[no cksum]"}
	for line := range strings.Lines(text) {
		for _, wrong := range wrongs {
			if strings.Contains(line, wrong) {
				bad = append(bad, strings.TrimSpace(line))
			}
		}
		for kind, right := range rights {
			if strings.Contains(line, right) {
				good[kind]++
			}
		}
	}
	return good, bad
}
