// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"time"

	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/service"
)

// The structs of this file are the site file as it is written. Their comments are the reference: go generate makes
// docs/config.md of them and Schema the descriptions that an editor shows. A field without a comment has that of its
// type.

// A site file describes everything that kyozon runs on one machine. It is YAML, read strictly: a key that is not
// listed here is a mistake. Durations have a unit (500ms, 5s, 2m, 36d), percentages the sign (20%), sizes a unit
// (16KiB). An IPv6 address with a port must be quoted: "[2001:db8::10]:443". File names are relative to the site
// file. Anchors, aliases and tags of YAML are not used.
type siteFile struct {
	// What the site is called, on the status page and in reports.
	Site located[string] `yaml:"site,required"`

	Addresses addressesFile `yaml:"addresses"`

	// The parts of the world that cannot all reach each other, by name: listens of telephony bear these names. They are
	// written here where media of calls are relayed from one to the other.
	Networks dict[networkFile] `yaml:"networks"`

	// What clients reach, by name. The name is the `service` label of metrics and log lines.
	Services dict[serviceFile] `yaml:"services,required"`

	State stateFile `yaml:"state"`

	Admin adminFile `yaml:"admin"`

	Log logFile `yaml:"log"`

	Kernel kernelFile `yaml:"kernel"`

	// How long running flows may go on after a reload or a stop before they are cut.
	Drain located[time.Duration] `yaml:"drain" range:"1s.."`
}

func (f *siteFile) setDefaults() { f.Drain.value = time.Minute }

// The addresses that belong to the whole site.
type addressesFile struct {
	// The global IPv4 addresses of the site: all there will ever be. The status page and the plan count them.
	GlobalIPv4 []address `yaml:"global-ipv4"`

	Ledger *ledgerFile `yaml:"ledger"`
}

// The addresses by which servers know clients of the other family: each IPv6 prefix has one stable IPv4 address
// that stands in for it, and each IPv4 client an IPv6 address that it is embedded in. Pools with `source: client` need
// it.
type ledgerFile struct {
	// The IPv4 network that stand-ins come from, from /8 to /30. The servers' gateway must route it to this machine.
	// It must overlap nothing else: no server, no listen, no network that is trusted by its address.
	Pool network `yaml:"pool,required"`

	// The length of the IPv6 prefix that has one stand-in: 64, 56 or 48.
	Prefix located[int] `yaml:"prefix"`

	// How long an unused stand-in stays reserved for its prefix. Keep it longer than the servers' logs and bans.
	Keep located[time.Duration] `yaml:"keep" range:"1h.."`

	// The IPv6 /96 in which an IPv6-only server sees an IPv4 client (RFC 6052). The servers' gateway must route it to
	// this machine.
	Embed network `yaml:"embed"`
}

func (f *ledgerFile) setDefaults() {
	f.Prefix.value = 64
	f.Keep.value = 36 * 24 * time.Hour
}

// Where kyozon keeps what must outlive it.
type stateFile struct {
	// The directory of the ledger and of all other state. One process at a time can use it.
	Directory located[service.Path] `yaml:"directory"`
}

func (f *stateFile) setDefaults() { f.Directory.value = "/var/lib/kyozon" }

// Where the status page, its JSON twins, the metrics and the health pages are. The page needs no password: leave it
// on loopback, or keep strangers away from it.
type adminFile struct {
	// An address with a port, or `off`.
	Listen adminListen `yaml:"listen"`
}

// What kyozon writes down for others to read.
type logFile struct {
	// The access log: where a line of JSON for each request goes, and for each flow of a protocol that has no requests; it
	// is off where nothing is written. `kyozon reload` and SIGHUP open the file anew, so that it can be moved away. docs/log.md
	// says what a line holds.
	Access accessLog `yaml:"access"`
}

// The kernel plane, which carries services of tcp and udp, and TLS of web and mail that is passed through whole,
// unless they say `plane: user`. It needs Linux 5.15, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, a BPF file system at
// /sys/fs/bpf, and forwarding of both families switched on at its interfaces.
type kernelFile struct {
	// The interfaces by which clients and servers are reached. Where nothing is written: those of the default routes, of
	// the listens, and of the ways to the servers.
	Interfaces []located[string] `yaml:"interfaces"`

	// How many established flows there may be at once. When there are as many, the others are carried in the process.
	Flows located[int] `yaml:"flows" range:"1000..10000000"`

	// How many flows there may be of which only one side has spoken. The oldest of them give way to new ones.
	Pending located[int] `yaml:"pending" range:"1000..10000000"`
}

func (f *kernelFile) setDefaults() { f.Flows.value, f.Pending.value = 262_144, 65_536 }

// Where `kyozon media`, the relay of calls, is reached within a network.
type networkFile struct {
	// An IPv4 or IPv6 address of this machine, or an IPv6 prefix of /64 or shorter that is routed to it, of which each end of a
	// call has an address of its own. A network with both families has one of each.
	Media mediaFile `yaml:"media,required"`

	// The ports at a single address, the first even and the last odd: two for each medium of a call. At a prefix all media
	// are at 5004 and 5005.
	Ports portRange `yaml:"ports"`

	// Where streams are carried once both ends were heard. `kernel`: in the kernel, between the interfaces, without a copy.
	// `user`: in the process. `auto`: in the kernel if that can be; with `kernel` it is logged as an error if it cannot. A call
	// with an end in a network of `user` goes through the process.
	Plane located[plane] `yaml:"plane"`
}

func (f *networkFile) setDefaults() { f.Ports.low, f.Ports.high = 20000, 39999 }

// One thing clients reach, and the servers behind it. Beside the keys below it has a section that bears the name of
// its protocol and holds what only that protocol understands.
type serviceFile struct {
	// The protocol that clients speak: a name that `kyozon protocols` lists.
	Protocol located[string] `yaml:"protocol,required"`

	// Who owns which layer, for the plan: nothing is run differently.
	Hosting *hosting `yaml:"hosting"`

	Listen listenFile `yaml:"listen,required"`

	// The sets of servers, by name. `pools` and `clients` are required, unless the protocol has no servers.
	Pools dict[poolFile] `yaml:"pools"`

	Clients clientsFile `yaml:"clients"`

	// The networks whose clients may come in: `any`, or networks and addresses.
	Allow networks `yaml:"allow"`

	// The networks whose clients may not come in, even if they are allowed.
	Deny networks `yaml:"deny"`

	// The networks whose connections begin with a PROXY protocol header, which is believed: the load balancers in
	// front. Connections from elsewhere are taken as they are. Services that share a listen must have the same.
	ProxyFrom networks `yaml:"proxy-from"`

	Limits *limitsFile `yaml:"limits"`

	Health healthFile `yaml:"health"`

	Timeouts timeoutsFile `yaml:"timeouts"`

	// Where the packets of a service that need not be read are carried: of tcp and udp, of web where TLS is passed through
	// without `hosts`, and of mail where it is passed through. `kernel`: in the kernel, between the interfaces, without a
	// copy; what cannot be done there is then a mistake. `user`: in this process. `auto`: in the kernel if that can be;
	// `kyozon services` says why not. The kernel plane goes before the packet filter of this machine.
	Plane located[plane] `yaml:"plane"`

	node    *node
	kind    *service.Protocol // nil if unknown
	section *node             // of the protocol
	service *service.Service  // as completed
}

// What the clients of one prefix may have: of the /64 of an IPv6 client, of an IPv4 address. Who wants more is refused.
// Wider prefixes have budgets too, which their clients share. What is not written is not limited. Services that share a
// listen must have the same `connections`, `open`, `wider` and `mode`.
type limitsFile struct {
	// Requests, where the protocol has several in a connection.
	Requests *rateFile `yaml:"requests"`

	// New connections.
	Connections *rateFile `yaml:"connections"`

	// TLS handshakes that end here.
	Handshakes *rateFile `yaml:"handshakes"`

	// Logins that fail. Who has none left is not let to try another.
	FailedLogins *rateFile `yaml:"failed-logins"`

	// Connections at once.
	Open located[int] `yaml:"open" range:"1..1000000"`

	Wider widerFile `yaml:"wider"`

	// Whether who wants more is refused: `enforce`, which is the default, or `observe`: he gets it, and is counted and shown
	// as one who would have been refused.
	Mode located[mode] `yaml:"mode"`
}

// So many in a second (100/s), a minute (30/m) or an hour (500/h). In short: the rate alone.
type rateFile struct {
	// The rate.
	Rate located[limit.Rate] `yaml:"rate,required"`

	// How many may come at once after it was quiet. Where nothing is written, the number of the rate.
	Burst located[int] `yaml:"burst" range:"1..1000000"`
}

// The wider prefixes that have budgets: up to three lengths for each family, and how many times the budget of one client
// they have. They keep those who own many prefixes from having as many budgets. Only a prefix that has something left in
// all its lengths gets something.
type widerFile struct {
	// Lengths from 16 to 63, or `none`. Where nothing is written, {56: 4, 48: 16}: a home and a site.
	IPv6 tiersFile `yaml:"ipv6"`

	// Lengths from 8 to 31, or `none`. Where nothing is written, {24: 16}.
	IPv4 tiersFile `yaml:"ipv4"`
}

// Where clients come: an address with a port, a list of them, or, for a protocol with several kinds of listens, a
// mapping from the kind to one or several. An address has one family: `[::]:80` means all IPv6 addresses of the
// machine and no IPv4.
type listenFile struct {
	node   *node
	places []listenPlace
}

// A set of servers. In short: the list of servers alone.
type poolFile struct {
	// The servers.
	Servers []serverFile `yaml:"servers,required"`

	// The address that a server sees as its peer. `edge`: one of this machine. `client`: the client's own where the
	// families are the same, else its stand-in or its embedding from the ledger; the servers then need a route back
	// to this machine for it. A client's own address means that this machine stands in front: whatever the server sends from
	// its port is taken for the edge's.
	Source located[source] `yaml:"source"`

	// How the protocol tells the server who the client is. Which of them a protocol can do is in its own documentation.
	Handover located[handover] `yaml:"handover"`

	// The address that a handover carries: the client's own, or, for a server that refuses IPv6 addresses, its stand-in.
	Carry located[carry] `yaml:"carry"`

	// How a server is chosen. `hash` sends each client prefix to the same server while the servers are the same.
	Pick located[pick] `yaml:"pick"`

	TLS clientTLSFile `yaml:"tls"`
}

// How the servers are spoken to in TLS, 1.2 or later. In short: `true`, with the default of every key, or `false`. A
// server whose handshake fails is down. Files are read at the start and at each reload, also if only they have changed.
type clientTLSFile struct {
	// Whether the server is asked for TLS by the protocol, on a connection that begins in clear: `off`, which is the default, for
	// TLS from the first byte; `required`; or `opportunistic`, which goes on in clear with a server that does not offer it.
	StartTLS located[starttls] `yaml:"starttls"`

	// `full`: a server must show a certificate for the name, from a CA that is trusted. `none`: whatever it shows is
	// taken, so that whoever gets in between can read and change everything.
	Verify located[verify] `yaml:"verify"`

	// The name or address that each server's certificate must be for; a name is also what the server is asked for (SNI).
	// Where nothing is written, the server's address.
	Name located[string] `yaml:"name"`

	// The PEM file of the CAs that are trusted. Where nothing is written, those that the system trusts.
	CA located[service.Path] `yaml:"ca"`

	// The PEM file of the certificate chain that is shown to servers that ask for one.
	Certificate located[service.Path] `yaml:"certificate"`

	// The PEM file of its key.
	Key located[service.Path] `yaml:"key"`

	node *node
	on   bool
}

// A server. In short: its address alone.
type serverFile struct {
	// The address and the port.
	Address located[addrPort] `yaml:"address,required"`

	// Its part of the flows, relative to the other servers of the pool.
	Weight located[int] `yaml:"weight" range:"1..256"`

	// How many flows it may have at once; when they are reached it is passed over. No limit where nothing is written.
	MaxFlows located[int] `yaml:"max-flows" range:"1..1000000"`

	// Whether it takes no new flows, so that it can be removed when the last one has ended.
	Drain located[bool] `yaml:"drain"`
}

func (f *serverFile) setDefaults() { f.Weight.value = 1 }

// Which clients are served by which pools. Each family that comes to a listen needs its route.
type clientsFile struct {
	// The route of IPv4 clients.
	IPv4 familyFile `yaml:"ipv4"`

	// The route of IPv6 clients.
	IPv6 familyFile `yaml:"ipv6"`
}

// The route of one family: a route for all listens, or, where the listens have names, a mapping from the name to the
// route of that listen.
type familyFile struct {
	node  *node
	all   *routeFile
	named []entry[routeFile]
}

// Where clients go. In short: the name of the pool that serves all of them.
type routeFile struct {
	// The part of the clients that each pool serves, together 100%. A client prefix stays with its pool, and raising a
	// share moves only the clients that are newly part of it.
	Share dict[located[service.Percent]] `yaml:"share,required"`

	// The pools to try, in order, when the client's pool has no server that can take it.
	Fallback []located[string] `yaml:"fallback"`

	node *node
}

// How servers are asked whether they are well, and when they are passed over without being asked.
type healthFile struct {
	// The time between two questions, or `never`. A server of a UDP service is asked only where this is written: over
	// TCP, on its port.
	Every located[interval] `yaml:"every"`

	// How long to wait for an answer.
	Timeout located[time.Duration] `yaml:"timeout" range:"1ms.."`

	// How many good answers in a row make a server up again.
	Rise located[int] `yaml:"rise" range:"1..100"`

	// How many bad answers in a row make it down.
	Fall located[int] `yaml:"fall" range:"1..100"`

	// The path to ask for over HTTP. Where nothing is written, a connection is enough, with `tls` a handshake.
	HTTP located[string] `yaml:"http"`

	// The Host header of the question over HTTP. Where nothing is written, the name of the pool's `tls`, or else the
	// server's address.
	Host located[string] `yaml:"host"`

	// The HTTP status codes that are well: one, or the lowest and the highest.
	Status located[statusRange] `yaml:"status"`

	// What a server must greet with, and understand when it is left: `smtp`, `imap`, `pop3`, or `mail`, which is any of them,
	// for a service whose pools speak several.
	Greeting located[greeting] `yaml:"greeting"`

	// How a server of SIP is asked by OPTIONS, over `udp` or `tcp`, with `tls` in TLS. Whoever answers is well, but with 503 and 408.
	SIP located[asking] `yaml:"sip"`

	// How many connects of clients may fail in a row until a server is passed over without being asked; 0 for never.
	Eject located[int] `yaml:"eject" range:"0..1000"`

	// How long it is then passed over.
	EjectFor located[time.Duration] `yaml:"eject-for" range:"1ms.."`

	// The time over which a recovered server's part of the flows grows to its whole.
	SlowStart located[time.Duration] `yaml:"slow-start"`
}

func (f *healthFile) setDefaults() {
	f.Every.value = interval(2 * time.Second)
	f.Timeout.value = time.Second
	f.Rise.value, f.Fall.value = 2, 3
	f.Status.value = statusRange{200, 399}
	f.Eject.value, f.EjectFor.value = 3, 10*time.Second
}

// The deadlines of a flow.
type timeoutsFile struct {
	// How long a server may take to accept a connection before the next one is tried.
	Connect located[time.Duration] `yaml:"connect" range:"1ms.."`

	// How long a flow may be silent in both directions before it is ended.
	Idle located[time.Duration] `yaml:"idle" range:"1s.."`
}

func (f *timeoutsFile) setDefaults() {
	f.Connect.value = 5 * time.Second
	f.Idle.value = 5 * time.Minute
}
