// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/lab"
)

// TestUnit: systemd runs the units of packaging/, as in the README, with the rights that they have and no others: the
// program that is built, every crossing with the clients' addresses, reloads, an upgrade, a crash, and the end.
func TestUnit(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/usr/lib/systemd/systemd"); err != nil && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip("needs systemd (apt-get install systemd): ", err)
	}
	cgroup := newCgroup(t)
	l := upLab(t, oneServer)
	e, server := l.Host("edge"), l.Host("server")
	boot(t, e, cgroup)

	systemd(t, e, "ln -s kyozon/control.sock /run/control.sock") // where kyozonOn looks
	systemd(t, e, "systemd-analyze verify --man=no /etc/systemd/system/kyozon.service")
	site := oneSite + "log: {access: /var/log/kyozon/access.log}\nnetworks: {access: {media: [198.51.100.1, \"2001:db8:200:50::/64\"]}}\n"
	siteFile(t, e, site)
	systemd(t, e, "systemctl start kyozon") // without the right to come from clients' addresses, it says so
	awaitStates(t, e, 4, func(_ string, s edge.ServiceStatus) bool {
		return s.State == "shut" && strings.Contains(s.Reason, "CAP_NET_ADMIN")
	})
	systemd(t, e, "install -m 644 /run/boot/client-source.conf /etc/systemd/system/kyozon.service.d/ && systemctl daemon-reload && "+
		"systemd-analyze verify --man=no /etc/systemd/system/kyozon.service")

	serveTeller(t, server, "10.0.1.11:80")
	serveTeller(t, server, "[fd00:1::11]:80")
	for _, r := range [][2]string{{"0.0.0.0/0", "10.0.1.1"}, {"::/0", "fd00:1::1"}} {
		addRoute(t, server, r[0], r[1])
	}
	systemd(t, e, "systemctl restart kyozon")
	first := property(t, e, "MainPID")
	if got := property(t, e, "StatusText"); got != "generation 1, 4 services" {
		t.Errorf("the status is %q", got)
	}
	if got := strings.TrimSpace(systemd(t, e, "stat -c %U:%a /run/kyozon /var/lib/kyozon /var/log/kyozon /run/kyozon/control.sock /var/log/kyozon/access.log")); got !=
		strings.Repeat("kyozon:750\n", 3)+"kyozon:600\nkyozon:640" {
		t.Errorf("got\n%s", got)
	}
	crossings(t, l)
	systemd(t, e, "systemd-analyze verify --man=no /etc/systemd/system/kyozon-media.service && systemctl start kyozon-media")
	if got := strings.TrimSpace(systemd(t, e, "stat -c %U:%a /var/lib/kyozon/media.sock; ip -6 route show table local 2001:db8:200:50::/64 | wc -l")); got != "kyozon:600\n1" {
		t.Errorf("the relay's socket and route: got\n%s", got)
	}

	siteFile(t, e, site+"nonsense: 1\n")
	if out, err := shell(e, "systemctl reload kyozon"); err == nil {
		t.Errorf("a bad file is reloaded: %s", out)
	}
	siteFile(t, e, strings.Replace(site, "drain: 1s", "drain: 1m", 1))
	systemd(t, e, "systemctl reload kyozon")
	if got := property(t, e, "StatusText"); got != "generation 2, 4 services" || property(t, e, "MainPID") != first {
		t.Errorf("after a reload the status is %q", got)
	}

	kept, _, err := stay(t, l.Host("client"), "[2001:db8:200:6::1]:4004")
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	systemd(t, e, "kyozon upgrade")
	second := awaitProcess(t, e, first)
	crossings(t, l)
	systemd(t, e, "kill -KILL "+second) // while the old process drains, for the connection is open
	third := awaitProcess(t, e, second)
	if third == first {
		t.Errorf("the old process, %s, is taken for the service", first)
	}
	crossings(t, l)
	systemd(t, e, "kill -KILL "+third)
	awaitProcess(t, e, third)
	crossings(t, l)

	systemd(t, e, "install -m 644 /run/boot/kernel-plane.conf /etc/systemd/system/kyozon.service.d/ && systemctl daemon-reload && "+
		"systemd-analyze verify --man=no /etc/systemd/system/kyozon.service && systemctl restart kyozon")
	awaitStates(t, e, 4, func(_ string, s edge.ServiceStatus) bool { return s.Plane == "kernel" })
	crossings(t, l)
	systemd(t, e, "install -D -m 644 /run/boot/kernel-plane.conf /etc/systemd/system/kyozon-media.service.d/kernel-plane.conf && systemctl daemon-reload && "+
		"systemd-analyze verify --man=no /etc/systemd/system/kyozon-media.service && systemctl restart kyozon-media && ls /sys/fs/bpf/kyozon/media-*/lanes")
	systemd(t, e, "systemctl stop kyozon-media && ! ls /sys/fs/bpf/kyozon/media-*")
	systemd(t, e, "systemctl stop kyozon")
	if got := property(t, e, "ActiveState") + " " + property(t, e, "Result"); got != "inactive success" {
		t.Errorf("after the end it is %s", got)
	}
}

// newCgroup makes a group for the processes of a systemd, which wants one of its own.
func newCgroup(t *testing.T) string {
	t.Helper()
	all := filepath.Join(t.TempDir(), "cgroup")
	err := os.Mkdir(all, 0o755)
	if err == nil {
		err = unix.Mount("cgroup2", all, "cgroup2", 0, "")
	}
	own := filepath.Join(all, fmt.Sprintf("kyozon-test-%d", os.Getpid()))
	if err == nil {
		t.Cleanup(func() { unix.Unmount(all, unix.MNT_DETACH) })
		err = os.Mkdir(own, 0o755)
	}
	if errors.Is(err, syscall.EPERM) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip("needs root to run systemd: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // its processes have ended: the lab has
		var groups []string
		filepath.WalkDir(own, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		slices.Reverse(groups)
		for _, g := range groups {
			if err := os.Remove(g); err != nil {
				t.Error(err)
			}
		}
	})
	return own
}

// boot starts systemd on a host and waits until it answers.
func boot(t *testing.T, h *lab.Host, cgroup string) {
	t.Helper()
	for _, name := range []string{"testdata/boot.sh", "../../packaging/kyozon.service", "../../packaging/kyozon-media.service", "../../packaging/kyozon.sysusers",
		"../../packaging/client-source.conf", "../../packaging/kernel-plane.conf"} {
		data, err := os.ReadFile(name)
		if err == nil {
			err = h.WriteFile("/run/boot/"+filepath.Base(name), data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c := h.Command(t.Context(), "sh", "/run/boot/boot.sh", cgroup, servertest.Kyozon(t))
	c.Stdout, c.Stderr = t.Output(), t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := h.ReadFile("/run/kyozon.log")
			t.Logf("the unit's log:\n%s", log)
		}
	})
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); ; <-look.C {
		if out, err := shell(h, "systemctl is-system-running"); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("systemd does not run: %s", out)
		}
		select {
		case err := <-ended:
			t.Fatalf("systemd did not start: %v", err)
		default:
		}
	}
}

// systemd runs a command beside systemd, which must succeed and not complain.
func systemd(t *testing.T, h *lab.Host, command string) string {
	t.Helper()
	out, err := shell(h, command)
	if err != nil {
		status, _ := shell(h, "systemctl --no-pager status kyozon")
		t.Fatalf("%s: %v: %s\n%s", command, err, out, status)
	}
	return out
}

// shell runs a command where systemd is the first process: it listens to nobody else.
func shell(h *lab.Host, command string) (string, error) {
	out, err := h.Command(context.Background(), "sh", "-c", `exec nsenter -t "$(ps -C systemd -o pid= | head -1)" -p -m sh -c "$0"`,
		command).CombinedOutput()
	return string(out), err
}

func siteFile(t *testing.T, h *lab.Host, text string) {
	t.Helper()
	if err := h.WriteFile("/run/site.yaml", []byte(text)); err != nil {
		t.Fatal(err)
	}
	systemd(t, h, "install -m 644 /run/site.yaml /etc/kyozon/site.yaml")
}

// property returns what systemd knows of the unit.
func property(t *testing.T, h *lab.Host, name string) string {
	t.Helper()
	return strings.TrimSpace(systemd(t, h, "systemctl show --value -p "+name+" kyozon"))
}

// awaitProcess waits until the unit is active with another main process, which it returns.
func awaitProcess(t *testing.T, h *lab.Host, before string) string {
	t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-look.C {
		if pid := property(t, h, "MainPID"); pid != before && pid != "0" && property(t, h, "ActiveState") == "active" {
			return pid
		}
	}
	t.Fatal("waited in vain for another process\n" + systemd(t, h, "systemctl --no-pager status kyozon; true"))
	return ""
}

// crossings tries the services of oneSite.
func crossings(t *testing.T, l *lab.Lab) {
	t.Helper()
	awaitStates(t, l.Host("edge"), 4, func(_ string, s edge.ServiceStatus) bool { return s.State == "open" })
	for at, want := range map[string]string{"198.51.100.1:4004": "198.51.100.4/32", "198.51.100.1:4006": "2001:db8:64::c633:6404/128",
		"[2001:db8:200:6::1]:4004": "100.64.0.0/16", "[2001:db8:200:6::1]:4006": "2001:db8:200:6::4/128"} {
		if a, err := saw(t, l.Host("client"), at); err != nil || !netip.MustParsePrefix(want).Contains(a) {
			t.Errorf("%s: the server saw %v, want %s: %v", at, a, want, err)
		}
	}
}
