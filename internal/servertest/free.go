// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// firstFree is where the search for a free port begins: below it are the ports that services are known by.
const firstFree = 10_000

// reserved begins the names that keep ports for this process.
const reserved = "@kyozon-test-"

// FreeAddr returns a loopback address at which another process of the test can listen, again and again. Its port is not one
// that the kernel gives to clients, who would take it between two listeners, and no other test has it until this process
// ends.
func FreeAddr(f ip.Family) (netip.AddrPort, error) {
	var low, high int
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // for both families
	if err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		return netip.AddrPort{}, fmt.Errorf("ip_local_port_range: %w", err)
	}
	if low <= firstFree {
		return netip.AddrPort{}, fmt.Errorf("the ports from %d on are given to clients: no room for listeners", low)
	}
	for _, n := range rand.Perm(low - firstFree) {
		at := netip.AddrPortFrom(iptest.Loopback(f), uint16(firstFree+n))
		if reserve(at) && vacant(at) {
			return at, nil
		}
	}
	return netip.AddrPort{}, errors.New("no port is free")
}

// reserve takes a name that only one process can have, and gives it back when the process ends.
func reserve(at netip.AddrPort) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: reserved + strconv.Itoa(int(at.Port()))}); err != nil {
		syscall.Close(fd)
		return false
	}
	return true
}

// Reserves says whether a descriptor of this process keeps a port of FreeAddr.
func Reserves(fd string) bool {
	n, err := strconv.Atoi(fd)
	if err != nil {
		return false
	}
	name, err := syscall.Getsockname(n)
	u, ok := name.(*syscall.SockaddrUnix)
	return err == nil && ok && strings.HasPrefix(u.Name, reserved)
}

// vacant says whether nobody listens at the address, neither for TCP nor for UDP.
func vacant(at netip.AddrPort) bool {
	network := map[bool]string{true: "4", false: "6"}[at.Addr().Is4()]
	l, err := net.Listen("tcp"+network, at.String())
	if err != nil {
		return false
	}
	defer l.Close()
	p, err := net.ListenPacket("udp"+network, at.String())
	if err != nil {
		return false
	}
	p.Close()
	return true
}
