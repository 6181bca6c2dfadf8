// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/proxyproto"
)

// check is the question that is asked of b again and again: as its flows speak to it, but in the edge's own name.
func (b *Backend) check() Check {
	h := &b.pool.health
	t := probe.Target{Addr: b.Addr, TLS: b.secure, Start: b.pool.Spec.TLS.start(), HTTP: h.HTTP, Host: h.Host, Status: h.Status, Greeting: h.Greeting, SIP: h.SIP}
	if t.Start != probe.AtOnce && t.Greeting == probe.NoGreeting { // only a protocol can ask for TLS
		t.TLS, t.Start = nil, probe.AtOnce
	}
	if t.TLS != nil || t.HTTP != "" || t.Greeting != probe.NoGreeting || t.SIP == probe.SIPOverTCP {
		t.Preface = b.pool.Spec.Handover.preface()
	}
	return Check{Target: t, Every: h.Every, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall}
}

// preface returns what a server whose connections begin with a PROXY header waits for: one that names no client.
func (h Handover) preface() string {
	switch own := (proxyproto.Header{Local: true}); h {
	case HandoverProxyV1:
		return string(proxyproto.AppendV1(nil, own))
	case HandoverProxyV2:
		return string(proxyproto.AppendV2(nil, own))
	}
	return ""
}
