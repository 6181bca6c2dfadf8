// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"os"
)

// ports are some in a row.
type ports struct{ first, count uint16 }

const (
	localPortsFile = "/proc/sys/net/ipv4/ip_local_port_range"

	lowestPort = 1024 // that the program gives
	fewPorts   = 1000 // that must be left for it
)

// localPorts returns the ports that sockets of this host get by themselves, from those that the program could give. The
// plane's flows from the edge's own addresses keep away from them, so that neither the health checks nor the user plane
// need to ask for each port.
func localPorts() (ports, error) {
	text, err := os.ReadFile(localPortsFile)
	if err != nil {
		return ports{}, fmt.Errorf("read ports of the host: %w", err)
	}
	var low, high int
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		return ports{}, fmt.Errorf("read ports of the host: %s is %q: %w", localPortsFile, text, err)
	}
	low = max(low, lowestPort)
	if left := 65536 - lowestPort - (high - low + 1); low > high || high > 65535 || left < fewPorts {
		return ports{}, fmt.Errorf("%w: %s is %d to %d, which leaves fewer than %d ports for the plane", ErrUnsupported,
			localPortsFile, low, high, fewPorts)
	}
	return ports{uint16(low), uint16(high - low + 1)}, nil
}
