// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package listen

import "golang.org/x/sys/unix"

// Capability is a privilege of the process. capabilities(7).
type Capability uint

// The capabilities that the edge has a use for.
const (
	NetBindService Capability = unix.CAP_NET_BIND_SERVICE // ports below 1024
	NetAdmin       Capability = unix.CAP_NET_ADMIN        // a client's own address as source, routes of stand-ins
)

// String returns the name as in a systemd unit.
func (c Capability) String() string {
	switch c {
	case NetBindService:
		return "CAP_NET_BIND_SERVICE"
	case NetAdmin:
		return "CAP_NET_ADMIN"
	}
	return "unknown capability"
}

// Capable says whether c is in force for this process.
func Capable(c Capability) bool {
	var words [2]unix.CapUserData // 64 capabilities in two words. capget(2)
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if unix.Capget(&h, &words[0]) != nil {
		return false
	}
	return words[c/32].Effective&(1<<(c%32)) != 0
}
