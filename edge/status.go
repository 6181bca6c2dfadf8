// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/service"
)

// Status is a picture of the edge at one moment. It is what the status page, its JSON twin and the nouns of the
// command line show.
type Status struct {
	Site       string          `json:"site"`
	Version    string          `json:"version"`
	PID        int             `json:"pid"`
	Started    time.Time       `json:"started"`
	Generation int             `json:"generation"` // counts from 1
	Loaded     time.Time       `json:"loaded"`     // when the generation went into service
	ReloadErr  string          `json:"reload-error,omitempty"`
	Draining   int             `json:"draining"` // older generations that still have flows
	Ready      bool            `json:"ready"`    // every service is open
	Loops      int             `json:"loops"`
	Ledger     *LedgerStatus   `json:"ledger,omitempty"`
	Kernel     *KernelStatus   `json:"kernel,omitempty"` // nil if no service could use it
	AccessLog  AccessLogStatus `json:"access-log"`
	Limited    []LimitedStatus `json:"limited,omitempty"` // the prefixes refused most in the last second, by service
	Services   []ServiceStatus `json:"services"`
	Backends   []BackendStatus `json:"backends"`

	Certificates []CertificateStatus `json:"certificates"`
	Findings     []FindingStatus     `json:"findings"` // the most frequent first
	Refusals     []RefusalStatus     `json:"refusals"`
	Counts       []CountStatus       `json:"counts"`
	Queues       []QueueStatus       `json:"queues"`
}

// LedgerStatus is how full the ledger is.
type LedgerStatus struct {
	Pool   netip.Prefix `json:"pool"`
	Size   int          `json:"size"`            // stand-ins there are
	Leased int          `json:"leased"`          // of them given to a prefix
	Shared int          `json:"shared"`          // of the leased, those that several prefixes share
	Err    string       `json:"error,omitempty"` // why new prefixes get none
}

// KernelStatus is how the kernel plane is. Its packets go before the packet filter of the machine.
type KernelStatus struct {
	Open       bool           `json:"open"`
	Interfaces []string       `json:"interfaces,omitempty"`
	Flows      int            `json:"flows"`           // under way, when they were last counted
	Err        string         `json:"error,omitempty"` // why it takes no new flows
	Packets    []PacketStatus `json:"packets"`
}

// PacketStatus is packets that the kernel plane has looked at, since it was first opened.
type PacketStatus struct {
	Service  string `json:"service"` // "" if they were of none
	Crossing string `json:"crossing"`
	Reason   string `json:"reason"` // what has become of them, and why
	Dropped  bool   `json:"dropped"`
	Packets  int64  `json:"packets"`
	Bytes    int64  `json:"bytes"`
}

// AccessLogStatus is how the access log is.
type AccessLogStatus struct {
	To      string `json:"to"`              // a file, or stderr; empty if it is off
	Lines   int64  `json:"lines"`           // written since the process started
	Dropped int64  `json:"dropped"`         // not written
	Err     string `json:"error,omitempty"` // why it cannot be written now
}

// LimitedStatus is a prefix that wants more than it may have.
type LimitedStatus struct {
	Service string       `json:"service"`
	Prefix  netip.Prefix `json:"prefix"`
	Kind    string       `json:"kind"`    // of what: requests, connections, handshakes, failed-logins, open
	Refused int64        `json:"refused"` // in the last second, about
	Outcome string       `json:"outcome"` // refused, or observed: it has got it
}

// LimitStatus is one budget: of a kind, for prefixes of a length.
type LimitStatus struct {
	Kind    string `json:"kind"`
	Bits    int    `json:"prefix-bits"`
	Refused int64  `json:"refused"` // since the service has limits
	Outcome string `json:"outcome"` // refused, or observed: they have got it
}

// ServiceStatus is one service for one client family.
type ServiceStatus struct {
	Service      string           `json:"service"`
	Protocol     string           `json:"protocol"`
	ClientFamily string           `json:"client-family"`
	Listen       []string         `json:"listen"`
	State        string           `json:"state"`            // open, degraded, shut
	Reason       string           `json:"reason,omitempty"` // why it is not open, and what to do
	Pools        []string         `json:"pools"`            // "new 20%", then fallbacks "existing (fallback)"
	Up           int              `json:"up"`               // backends that are up
	Backends     int              `json:"backends"`
	Source       string           `json:"source"`
	Handover     string           `json:"handover"`
	Plane        string           `json:"plane"`
	PlaneReason  string           `json:"plane-reason,omitempty"`
	Limits       []LimitStatus    `json:"limits,omitempty"`
	Forgotten    int64            `json:"limits-forgotten,omitempty"` // prefixes that came too many at once to be limited
	Sessions     *int64           `json:"sessions,omitempty"`         // clients that are connected, or calls; nil if its protocol has none but flows
	SessionNoun  string           `json:"sessions-are,omitempty"`     // "sessions" or "calls"
	Crossings    []CrossingStatus `json:"crossings"`                  // to IPv4 and to IPv6 backends
}

// CrossingStatus counts since the process started.
type CrossingStatus struct {
	Crossing string           `json:"crossing"` // "6→4"
	Active   int64            `json:"active"`
	Opened   int64            `json:"opened"`
	Requests int64            `json:"requests"`
	Rate     float64          `json:"rate"` // flows or requests a second, over the last seconds
	ToServer int64            `json:"to-server-bytes"`
	ToClient int64            `json:"to-client-bytes"`
	Errors   map[string]int64 `json:"errors,omitempty"` // by reason

	// Sessions that are under way, and that have ended, as far as they are known to be of this crossing: calls.
	Sessions      int64 `json:"sessions,omitempty"`
	SessionsEnded int64 `json:"sessions-ended,omitempty"`
}

// BackendStatus is one backend of one pool.
type BackendStatus struct {
	Service string    `json:"service"`
	Pool    string    `json:"pool"`
	Address string    `json:"address"`
	Family  string    `json:"family"`
	State   string    `json:"state"` // up, down, ejected, draining, slow-start
	Reason  string    `json:"reason,omitempty"`
	Since   time.Time `json:"since"`
	Checked time.Time `json:"checked"` // when it was last asked; zero if never
	Weight  int       `json:"weight"`
	Flows   int64     `json:"flows"`
	Cap     int       `json:"cap"`
}

// CertificateStatus is one certificate that clients are shown, or one that should be there.
type CertificateStatus struct {
	Source    string    `json:"source"` // its file, or the directory of the ACME server
	Names     []string  `json:"names"`
	Algorithm string    `json:"algorithm,omitempty"`
	Issuer    string    `json:"issuer,omitempty"`
	Begin     time.Time `json:"begin"` // zero, as End, if there is none yet
	End       time.Time `json:"end"`
	State     string    `json:"state"`            // valid, ending, early, expired, missing
	Reason    string    `json:"reason,omitempty"` // what is wrong with it, or why there is no newer one
}

// FindingStatus is an IPv4 address that servers write into what they say to clients, where IPv6 clients cannot use it.
type FindingStatus struct {
	Service string `json:"service"`
	Pool    string `json:"pool"`
	Field   string `json:"field"` // where it stands: the name of a header field
	Address string `json:"address"`
	Backend bool   `json:"backend"` // it is the address of a server of the pool
	Count   int64  `json:"count"`   // since the process started
	Example string `json:"example"`
}

// RefusalStatus is how often a rule of a protocol has refused the clients of a family, or what they brought; or would have.
type RefusalStatus struct {
	Service      string `json:"service"`
	ClientFamily string `json:"client-family"`
	Rule         string `json:"rule"`
	Outcome      string `json:"outcome"` // refused or observed
	Count        int64  `json:"count"`   // since the process started
}

// CountStatus is something that a protocol counts by itself: one series of a metric.
type CountStatus struct {
	Metric string            `json:"metric"` // its name on the page of metrics
	Help   string            `json:"help"`
	Noun   string            `json:"noun"` // what tables call it
	Labels map[string]string `json:"labels"`
	Value  int64             `json:"value"`

	Histogram *service.Histogram `json:"histogram,omitempty"` // of as many values
}

// QueueStatus is messages that a protocol has answered for and that wait for servers.
type QueueStatus struct {
	Service  string `json:"service,omitempty"`
	Pool     string `json:"pool,omitempty"`
	Messages int64  `json:"messages"`
	Bytes    int64  `json:"bytes"`
	Stuck    string `json:"stuck,omitempty"` // why they cannot go, whatever the servers are
}

// QueuedStatus is one of them.
type QueuedStatus struct {
	ID         string    `json:"id"`
	Service    string    `json:"service"`
	Pool       string    `json:"pool"`
	Sender     string    `json:"sender"`     // "" is nobody
	Recipients []string  `json:"recipients"` // those that wait
	Size       int64     `json:"size"`
	Arrived    time.Time `json:"arrived"`
	Next       time.Time `json:"next"` // when it is tried, if a server is there
	Attempts   int       `json:"attempts"`
	Busy       bool      `json:"busy"` // it is being delivered
	Last       string    `json:"last,omitempty"`
}

// FlowStatus is one flow under way.
type FlowStatus struct {
	Service  string         `json:"service"`
	Client   netip.AddrPort `json:"client"`
	Source   netip.AddrPort `json:"source"` // what the backend sees
	Backend  netip.AddrPort `json:"backend"`
	Crossing string         `json:"crossing"`
	Plane    string         `json:"plane"`
	Started  time.Time      `json:"started"`
	ToServer int64          `json:"to-server-bytes"`
	ToClient int64          `json:"to-client-bytes"`
}
