// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/kyozon/kyozon/ip"
)

// explain says what to do about an error of open.
func explain(a Addr, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("open %v: address in use by %s: %w", a, holder(a), err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("open %v: this machine does not have the address: add it to an interface, or correct it: %w", a, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("open %v: this port needs CAP_NET_BIND_SERVICE, "+
			"or a lower net.ipv4.ip_unprivileged_port_start: %w", a, err)
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return fmt.Errorf("open %v: this machine has no %v: enable it in the kernel: %w", a, a.Family(), err)
	}
	return fmt.Errorf("open %v: %w", a, err)
}

// holder names the process that has a's socket, as far as /proc lets us see.
func holder(a Addr) string {
	const unknown = "a process that cannot be seen from here"
	file := a.Transport.String()
	if a.Family() == ip.V6 {
		file += "6"
	}
	f, err := os.Open("/proc/thread-self/net/" + file) // self is the first thread, which may be in another namespace
	if err != nil {
		return unknown
	}
	defer f.Close()
	inode, ok := findInode(f, a)
	if !ok {
		return unknown
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return unknown
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == "socket:["+inode+"]" {
			return process(strings.Split(l, "/")[2])
		}
	}
	return unknown
}

// process returns, for example, "nginx (pid 123)".
func process(pid string) string {
	if pid == strconv.Itoa(os.Getpid()) {
		return "this process"
	}
	name, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return "pid " + pid
	}
	return strings.TrimSpace(string(name)) + " (pid " + pid + ")"
}

// findInode finds the socket that keeps a from being bound in a table like /proc/net/tcp: one on the same port and
// either the same address or all. proc_pid_net(5).
func findInode(table io.Reader, a Addr) (inode string, ok bool) {
	const listening = "0A"
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		field := strings.Fields(lines.Text())
		if len(field) < 10 || a.Transport == TCP && field[3] != listening {
			continue
		}
		local, ok := parseHex(field[1])
		if !ok || local.Port() != a.AddrPort.Port() {
			continue
		}
		if l := local.Addr(); l == a.AddrPort.Addr() || l.IsUnspecified() || a.AddrPort.Addr().IsUnspecified() {
			return field[9], true
		}
	}
	return "", false
}

// parseHex reads an address as these tables write it: "0100007F:1F90", each 32-bit word in the order of the machine.
func parseHex(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	b, errHost := hex.DecodeString(host)
	if !ok || err != nil || errHost != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(n)), true
}
