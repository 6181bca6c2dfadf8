// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"strings"

	"github.com/kyozon/kyozon/ip"
)

// Reason says why a packet went where it went. Its word is made of the name in the program: "passed no stand in".
type Reason forwardReason

// reasons are the names, in the order of kernel/bpf/verdict.h, which says what they mean.
var reasons = [...]string{
	forwardReasonFORWARDED: "forwarded", forwardReasonFORWARDED_NEW: "forwarded new",
	forwardReasonFORWARDED_ERROR: "forwarded error", forwardReasonANSWERED_TOO_BIG: "answered too big",
	forwardReasonANSWERED_EXPIRED: "answered expired", forwardReasonANSWERED_SOURCE_ROUTE: "answered source route",
	forwardReasonANSWERED_ROUTING: "answered routing", forwardReasonFRAGMENTED: "fragmented",
	forwardReasonPASSED_UNKNOWN: "passed unknown", forwardReasonPASSED_TRUNCATED: "passed truncated",
	forwardReasonPASSED_MALFORMED: "passed malformed", forwardReasonPASSED_EXTENSION: "passed extension",
	forwardReasonPASSED_USER: "passed user", forwardReasonPASSED_MIDDLE: "passed middle",
	forwardReasonPASSED_HEARTBEAT: "passed heartbeat", forwardReasonPASSED_ACCESS: "passed access",
	forwardReasonPASSED_NO_BACKEND: "passed no backend", forwardReasonPASSED_NO_STAND_IN: "passed no stand in",
	forwardReasonPASSED_NO_PORT: "passed no port", forwardReasonPASSED_FRAGMENT: "passed fragment",
	forwardReasonPASSED_ECHO: "passed echo", forwardReasonPASSED_ERROR: "passed error",
	forwardReasonDROPPED_NO_ROUTE: "dropped no route", forwardReasonDROPPED_FAILED: "dropped failed",
	forwardReasonDROPPED_CHECKSUM: "dropped checksum", forwardReasonDROPPED_ERROR_TYPE: "dropped error type",
	forwardReasonDROPPED_ERROR_SMALL: "dropped error small", forwardReasonDROPPED_UNANSWERED: "dropped unanswered",
}

// String returns the words, for example "dropped no route".
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return "unknown"
}

// Dropped says whether the packet went nowhere.
func (r Reason) Dropped() bool { return strings.HasPrefix(r.String(), "dropped") }

// Counts calls yield for every counter that is not 0. A packet that is of no service, or of none that is known, is
// counted for the service "". Counters outlive the process if they are pinned.
func (p *Plane) Counts(yield func(service string, c ip.Crossing, r Reason, t Traffic)) error {
	names := p.serviceNames()
	names[0] = ""
	for id, name := range names {
		for i, c := range ip.Crossings() {
			for r := range reasons {
				var perProcessor []forwardCount
				if err := p.objects.Counts.Lookup((id*4+uint32(i))*uint32(forwardReasonREASONS)+uint32(r), &perProcessor); err != nil {
					return fmt.Errorf("read counts: %w", err)
				}
				var t Traffic
				for _, n := range perProcessor {
					t.Packets += n.Packets
					t.Bytes += n.Bytes
				}
				if t.Packets > 0 {
					yield(name, c, Reason(r), t)
				}
			}
		}
	}
	return nil
}
