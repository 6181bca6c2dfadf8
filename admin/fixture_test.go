// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/service"
)

// fake is a Source that shows one fixed picture, which may be replaced.
type fake struct {
	status atomic.Pointer[edge.Status]
	flows  []edge.FlowStatus
}

func newFake(st edge.Status, flows []edge.FlowStatus) *fake {
	f := &fake{flows: flows}
	f.status.Store(&st)
	return f
}

func (f *fake) Status() edge.Status { return *f.status.Load() }

func (f *fake) Flows(limit int) []edge.FlowStatus { return f.flows[:min(limit, len(f.flows))] }

// now is when the fixed picture was taken.
func now() time.Time { return time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC) }

func fixedStatus() edge.Status      { return statusAt(now()) }
func fixedFlows() []edge.FlowStatus { return flowsAt(now()) }
func wellStatus() edge.Status       { return wellAt(now()) }

// statusAt has every state there is, long addresses, long reasons, and text that must be escaped.
func statusAt(now time.Time) edge.Status {
	before := func(d time.Duration) time.Time { return now.Add(-d) }
	return edge.Status{
		Site: "example-idc", Version: "0.1.0", PID: 4711, Loops: 2, Ready: false,
		Started: before(4*24*time.Hour + 3*time.Hour), Generation: 7, Loaded: before(12 * time.Minute), Draining: 1,
		ReloadErr: "example.yaml:31:7: unknown key \"lisen\"\n   31 |       lisen: [\"203.0.113.10:80\"]\n      |       ^ did you mean \"listen\"?",
		Ledger:    &edge.LedgerStatus{Pool: netip.MustParsePrefix("100.64.0.0/11"), Size: 2097152, Leased: 48231, Shared: 3},
		Kernel: &edge.KernelStatus{Open: true, Interfaces: []string{"eth0", "eth1"}, Flows: 12345, Packets: []edge.PacketStatus{
			{Service: "", Crossing: "4→4", Reason: "passed unknown", Packets: 9, Bytes: 900},
			{Service: "game", Crossing: "6→4", Reason: "dropped no route", Dropped: true, Packets: 2, Bytes: 128},
		}},
		Services: []edge.ServiceStatus{
			{
				Service: "shop", Protocol: "web", ClientFamily: "ipv4", Listen: []string{"203.0.113.10:80", "203.0.113.10:443"},
				State: "open", Pools: []string{"existing"}, Up: 2, Backends: 2,
				Source: "client", Handover: "header", Plane: "user",
				Crossings: []edge.CrossingStatus{
					{Crossing: "4→4", Active: 1893, Opened: 5830112, Requests: 91288123, Rate: 412.4, ToServer: 88123456789, ToClient: 1988123456789,
						Errors: map[string]int64{"client-reset": 212, "connect-timeout": 3}},
					{Crossing: "4→6"},
				},
			},
			{
				Service: "shop", Protocol: "web", ClientFamily: "ipv6", Listen: []string{"[2001:db8:100::10]:80", "[2001:db8:100::10]:443"},
				State: "degraded", Reason: "backend [fd00:1::22]:80 is down: connect: no route to host. The others carry its share.",
				Pools: []string{"new 20 %", "existing 80 %", "existing (fallback)"}, Up: 3, Backends: 4,
				Source: "client", Handover: "header", Plane: "user",
				Crossings: []edge.CrossingStatus{
					{Crossing: "6→4", Active: 903, Opened: 1830112, Requests: 11288123, Rate: 96.2, ToServer: 18123456789, ToClient: 388123456789,
						Errors: map[string]int64{"connect-failed": 17, "client-reset": 44}},
					{Crossing: "6→6", Active: 231, Opened: 410002, Requests: 2288123, Rate: 24.8, ToServer: 4123456789, ToClient: 98123456789},
				},
			},
			{
				Service: "mail", Protocol: "mail", ClientFamily: "ipv6", Sessions: new(int64(1234)), SessionNoun: "sessions",
				Listen: []string{"smtp [2001:db8:100::25]:25", "submission [2001:db8:100::25]:587", "imaps [2001:db8:100::25]:993"},
				State:  "open", Pools: []string{"smtp: mta", "submission: msa", "imaps: imap"}, Up: 4, Backends: 4,
				Source: "client", Handover: "auto", Plane: "user",
				Crossings: []edge.CrossingStatus{{Crossing: "6→4", Active: 58, Opened: 20112, Rate: 0.02, ToServer: 8123456789, ToClient: 123456789,
					Errors: map[string]int64{"denied": 9120}}, {Crossing: "6→6"}},
			},
			{
				Service: "game", Protocol: "udp", ClientFamily: "ipv6", Listen: []string{"[2001:db8:100::60]:27015"},
				State:  "shut",
				Reason: "10.0.6.11:27015 does not answer to 100.64.0.1: give it a route to 100.64.0.0/11 through this machine, or loosen its rp_filter",
				Pools:  []string{"existing"}, Up: 0, Backends: 1, Source: "client", Handover: "none",
				Plane: "user", PlaneReason: "not in the kernel on eth0: needs Linux 5.15, have 5.4",
				Crossings: []edge.CrossingStatus{{Crossing: "6→4", Errors: map[string]int64{"none-up": 31}}, {Crossing: "6→6"}},
			},
			{
				Service: "phone", Protocol: "phone", ClientFamily: "ipv6", Sessions: new(int64(1)), SessionNoun: "calls",
				Listen: []string{"access [2001:db8:100::50]:5060", "access [2001:db8:100::50]:5061"}, State: "open", Plane: "user",
				Crossings: []edge.CrossingStatus{{Crossing: "6→4", Sessions: 1, SessionsEnded: 4321}, {Crossing: "6→6"}},
			},
		},
		AccessLog: edge.AccessLogStatus{To: "/var/log/kyozon/access.log", Lines: 103_576_246, Dropped: 12, Err: "no space left on device"},
		Certificates: []edge.CertificateStatus{
			{Source: "/etc/kyozon/shop.pem", Names: []string{"shop.example.jp", "www.shop.example.jp"}, Algorithm: "ECDSA", Issuer: "CN=Example CA,O=Example",
				Begin: before(20 * 24 * time.Hour), End: before(-70*24*time.Hour - 5*time.Hour), State: "valid"},
			{Source: "/etc/kyozon/shop-rsa.pem", Names: []string{"shop.example.jp"}, Algorithm: "RSA", Issuer: "CN=Example CA,O=Example",
				Begin: before(85 * 24 * time.Hour), End: before(-5 * 24 * time.Hour), State: "ending", Reason: "key does not match the certificate"},
			{Source: "/etc/kyozon/mail.pem", Names: []string{"mx6.example.jp"}, Algorithm: "Ed25519", Issuer: "CN=Example CA,O=Example",
				Begin: before(92 * 24 * time.Hour), End: before(2 * 24 * time.Hour), State: "expired", Reason: "expired on 2026-03-12T15:09:26Z"},
			{Source: "https://acme-v02.api.letsencrypt.org/directory", Names: []string{"*.shop.example.jp"}, State: "missing",
				Reason: "HTTP 429 urn:ietf:params:acme:error:rateLimited - <too many> failed authorizations"},
			{Source: "https://acme-v02.api.letsencrypt.org/directory", Names: []string{"new.example.jp"}, Algorithm: "ECDSA", Issuer: "CN=E7,O=Let's Encrypt,C=US",
				Begin: before(61 * 24 * time.Hour), End: before(-29 * 24 * time.Hour), State: "valid", Reason: "order: no route to host"},
		},
		Findings: []edge.FindingStatus{
			{Service: "shop", Pool: "existing", Field: "Location", Address: "10.0.1.11", Backend: true, Count: 1203, Example: "http://10.0.1.11/login"},
			{Service: "shop", Pool: "existing", Field: "Location", Address: "203.0.113.80", Count: 7, Example: "http://203.0.113.80/<old>"},
			{Service: "shop", Pool: "existing", Field: "Set-Cookie", Address: "10.0.1.12", Backend: true, Count: 1, Example: "Domain=10.0.1.12"},
		},
		Refusals: []edge.RefusalStatus{
			{Service: "mail", ClientFamily: "ipv6", Rule: "reverse-name", Outcome: "refused", Count: 1203},
			{Service: "mail", ClientFamily: "ipv6", Rule: "dnsbl", Outcome: "observed", Count: 7},
		},
		Queues: []edge.QueueStatus{
			{Service: "mail", Pool: "spool", Messages: 12, Bytes: 48_000},
			{Service: "mail", Pool: "archive", Messages: 3, Bytes: 9_000, Stuck: `the site file keeps no messages for the pool "archive" of "mail" any more`},
		},
		Counts: []edge.CountStatus{
			{Metric: "kyozon_mail_sessions_active", Help: "Clients that are connected.", Noun: "sessions now", Value: 1234,
				Labels: map[string]string{"service": "mail", "client_family": "ipv6", "listen": "smtp"}},
			{Metric: "kyozon_mail_messages_total", Help: "Messages that servers have answered to.", Noun: "messages", Value: 56789,
				Labels: map[string]string{"service": "mail", "client_family": "ipv6", "backend_family": "ipv4", "outcome": "taken"}},
			{Metric: "kyozon_mail_messages_total", Help: "Messages that servers have answered to.", Noun: "messages",
				Labels: map[string]string{"service": "mail", "client_family": "ipv6", "backend_family": "ipv4", "outcome": "later"}},
			{Metric: "kyozon_phone_registrations_active", Help: "Addresses at which subscribers are reached.", Noun: "registrations now", Value: 11_917,
				Labels: map[string]string{"service": "phone", "client_family": "ipv4"}},
			{Metric: "kyozon_phone_registrations_active", Help: "Addresses at which subscribers are reached.", Noun: "registrations now", Value: 48_231,
				Labels: map[string]string{"service": "phone", "client_family": "ipv6"}},
			{Metric: "kyozon_media_packets_total", Help: "Packets relayed.", Noun: "packets relayed", Value: 2_401_889,
				Labels: map[string]string{"from_family": "ipv4", "to_family": "ipv6", "plane": "kernel"}},
			{Metric: "kyozon_media_packets_total", Help: "Packets relayed.", Noun: "packets relayed", Value: 2_401_890,
				Labels: map[string]string{"from_family": "ipv6", "to_family": "ipv4", "plane": "kernel"}},
			{Metric: "kyozon_phone_channels_active", Help: "Calls under way on trunks.", Noun: "channels now", Value: 118,
				Labels: map[string]string{"service": "phone", "trunk": "international"}},
			{Metric: "kyozon_mail_doubtful_total", Help: "Messages that may be delivered twice.", Noun: "doubtful messages", Value: 1,
				Labels: map[string]string{"lost": "edge"}},
			{Metric: "kyozon_phone_media_mos", Help: "Estimated MOS.", Noun: "directions of calls judged by MOS", Value: 3,
				Labels: map[string]string{"service": "phone", "client_family": "ipv6", "backend_family": "ipv4", "to": "caller"}, Histogram: mosAt()},
			{Metric: "kyozon_phone_media_packets_total", Help: "Packets that were relayed.", Value: 99, // no noun: not in tables
				Labels: map[string]string{"service": "phone", "client_family": "ipv6", "backend_family": "ipv4", "to": "caller"}},
		},
		Backends: []edge.BackendStatus{
			{Service: "shop", Pool: "existing", Address: "10.0.1.11:80", Family: "ipv4", State: "up", Since: before(99 * time.Hour), Checked: before(time.Second), Weight: 100, Flows: 1411},
			{Service: "shop", Pool: "existing", Address: "10.0.1.12:80", Family: "ipv4", State: "slow-start", Since: before(20 * time.Second), Checked: before(time.Second), Weight: 100, Flows: 1385, Cap: 20000},
			{Service: "shop", Pool: "new", Address: "[fd00:1::21]:80", Family: "ipv6", State: "draining", Since: before(90 * time.Second), Checked: before(time.Second), Weight: 100, Flows: 231, Reason: "drained in the site file"},
			{Service: "shop", Pool: "new", Address: "[fd00:1::22]:80", Family: "ipv6", State: "down", Since: before(200 * time.Minute), Checked: before(2 * time.Second), Weight: 100, Reason: "GET /healthz: connect: no route to host"},
			{Service: "mail", Pool: "mta", Address: "10.0.2.11:25", Family: "ipv4", State: "up", Since: before(99 * time.Hour), Checked: before(time.Second), Weight: 1, Flows: 40},
			{Service: "mail", Pool: "mta", Address: "10.0.2.12:25", Family: "ipv4", State: "ejected", Since: before(8 * time.Second), Checked: before(time.Second), Weight: 1, Flows: 18, Reason: "3 connects in a row failed: <refused> & \"gone\""},
			{Service: "game", Pool: "existing", Address: "10.0.6.11:27015", Family: "ipv4", State: "down", Since: before(12 * time.Minute), Weight: 1, Reason: "no answer to a stand-in"},
		},
	}
}

func flowsAt(now time.Time) []edge.FlowStatus {
	flow := func(service, client, source, backend, crossing string, up, down int64, age time.Duration) edge.FlowStatus {
		return edge.FlowStatus{Service: service, Client: netip.MustParseAddrPort(client), Source: netip.MustParseAddrPort(source),
			Backend: netip.MustParseAddrPort(backend), Crossing: crossing, Plane: "user", Started: now.Add(-age), ToServer: up, ToClient: down}
	}
	return []edge.FlowStatus{
		flow("shop", "[2001:db8:fee1:900d:2c4f:91ff:fe00:1234]:51234", "100.64.1.17:51234", "10.0.1.11:80", "6→4", 812, 48213, 4*time.Second),
		flow("shop", "198.51.100.77:40000", "198.51.100.77:40000", "10.0.1.12:80", "4→4", 12801, 999999999, 3*time.Minute),
		flow("shop", "[2001:db8:7::1]:50001", "[2001:db8:7::1]:50001", "[fd00:1::21]:80", "6→6", 0, 0, 0),
		flow("mail", "[2001:db8:25::2]:33333", "100.64.0.9:33333", "10.0.2.11:25", "6→4", 123456, 345, 27*time.Hour),
	}
}

// wellAt is the same edge on a good day.
func wellAt(now time.Time) edge.Status {
	st := statusAt(now)
	st.Ready, st.ReloadErr, st.Draining = true, "", 0
	st.AccessLog.Err, st.Findings, st.Refusals, st.Counts, st.Queues = "", nil, nil, nil, nil
	st.Certificates = st.Certificates[:1]
	for i := range st.Services {
		st.Services[i].State, st.Services[i].Reason, st.Services[i].Up = "open", "", st.Services[i].Backends
	}
	for i := range st.Backends {
		st.Backends[i].State, st.Backends[i].Reason = "up", ""
	}
	return st
}

// mosAt is how three calls were heard.
func mosAt() *service.Histogram {
	h := service.NewHistogram([]float64{3.1, 4.03})
	for _, mos := range []float64{2.5, 3.1, 4.4} {
		h.Add(mos)
	}
	return &h
}

// longAt has the longest words and numbers there may be.
func longAt(now time.Time) edge.Status {
	st := statusAt(now)
	st.Site = "a-site-with-a-name-that-is-as-long-as-a-label-in-dns-may-be-63"
	for i := range st.Services {
		s := &st.Services[i]
		s.Service = "webmail-of-the-northern-branch-" + s.Service
		s.Listen = append(s.Listen, "submission [2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
		s.Pools = append(s.Pools, "servers-of-the-northern-branch-2026 12.5 %")
		for j := range s.Crossings {
			s.Crossings[j].Active += 10_000_000
			s.Crossings[j].Opened += 1_000_000_000_000
			s.Crossings[j].Rate += 1_000_000
		}
	}
	for i := range st.Certificates {
		c := &st.Certificates[i]
		c.Names = append(c.Names, "a-name-that-is-as-long-as-a-label-may-be-in-dns-which-is-63-long.example.jp")
		c.Issuer = "CN=A Certification Authority With A Long Name,OU=" + strings.Repeat("Department Of Names ", 3) + ",O=Example"
		c.Source = "/etc/kyozon/" + strings.Repeat("a-folder-without-a-blank/", 8) + "shop.pem"
	}
	for i := range st.Backends {
		b := &st.Backends[i]
		b.Address, b.Family, b.Service = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "ipv6", "webmail-of-the-northern-branch"
		b.Reason = "GET /" + strings.Repeat("a-path-without-a-blank/", 12) + ": connect: no route to host"
	}
	return st
}
