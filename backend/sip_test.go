// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"testing"

	"github.com/kyozon/kyozon/probe"
)

// TestCheckSIP: servers of SIP are asked as the file says, behind a PROXY header where they wait for one.
func TestCheckSIP(t *testing.T) {
	t.Parallel()
	for asking, preface := range map[probe.Asking]bool{probe.NoSIP: false, probe.SIPOverUDP: false, probe.SIPOverTCP: true} {
		b := &Backend{pool: &Pool{Spec: Spec{Handover: HandoverProxyV1}, health: Health{SIP: asking}}}
		if c := b.check(); c.Target.SIP != asking || (c.Target.Preface != "") != preface {
			t.Errorf("%v: asked by %v, preface %q", asking, c.Target.SIP, c.Target.Preface)
		}
	}
}
