// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/protocol/mail/policy"
	"github.com/kyozon/kyozon/service"
)

// Options is the section `mail` of a service.
type Options struct {
	// The name that the edge has in greetings: that of the clients' MX record, or of their mail settings. Needed unless all is
	// passed through.
	Name string `yaml:"name"`

	// TLS at this service's listens: from the first byte at those that are named so, by STARTTLS at the others.
	TLS *TLS `yaml:"tls"`

	// Let clients log in without TLS: what they say can be read on the way.
	AuthInClear bool `yaml:"auth-in-clear"`

	// What becomes of a CR or LF that stands alone in a message, where some servers see the end of a line and others do
	// not: `refuse`, which is the default, or `repair`, which makes LF a line end and CR a space.
	LineEnds LineEnds `yaml:"line-ends"`

	// How large a message may be. Where the servers take less, that is what clients are told.
	MessageSize service.Bytes `yaml:"message-size" range:"64KiB..1GiB"`

	// Whether a server of SMTP or submission must refuse, before it gets mail, to relay for a stranger: `require`, which is
	// the default, or `off`, for one that takes mail for everybody and is told by other means whom to trust.
	RelayProof RelayProof `yaml:"relay-proof"`

	// The deadlines of a client, beside those of every service.
	Timeouts Timeouts `yaml:"timeouts"`

	// Who may bring mail to the listen `smtp`: looked at before a server is troubled.
	Policy *Policy `yaml:"policy"`

	// Where the mailboxes of users are. Without it each user has a server by a hash of his name.
	Users *Users `yaml:"users"`

	// Engines that look at each message that comes to the listen `smtp`, before a server gets it.
	Scan *Scan `yaml:"scan"`

	// Pools whose messages are kept on disk first: for servers of LMTP, and for senders that cannot come again.
	Queue *Queue `yaml:"queue"`
}

// Policy has a rule on each line: `off`, which is the default, `observe`, which counts and logs whom it would refuse, or
// `enforce`. What the DNS cannot say refuses nobody.
type Policy struct {
	// The client's address has a name, which leads back to the address. Who has none is told 450 4.7.25: a sender that has
	// IPv4 too then comes over that.
	ReverseName policy.Mode `yaml:"reverse-name"`

	// No list of `dnsbl-zones` has the client. All addresses of a /64 are one client.
	DNSBL policy.Mode `yaml:"dnsbl"`

	// Lists of addresses in the DNS.
	Zones []string `yaml:"dnsbl-zones"`

	// The name that the client gives in EHLO can be its own: it is complete, and not ours.
	Hello policy.Mode `yaml:"hello"`

	// The client waits for the greeting, for `greeting-delay`. Who has waited need not wait again that day.
	Early policy.Mode `yaml:"early"`

	// How long; 3s if left out.
	Delay time.Duration `yaml:"greeting-delay" range:"100ms..30s"`

	// Whose clients are looked at: `ipv6`, which is the default, or `all`.
	Clients Clients `yaml:"clients"`

	// Clients that are not looked at.
	Exempt []netip.Prefix `yaml:"exempt"`

	// DNS servers to ask; those of /etc/resolv.conf if left out.
	Resolvers []netip.AddrPort `yaml:"resolvers"`
}

// Clients says whether a policy is for clients of both families. The zero value is that it is for IPv6.
type Clients bool

// The words for it.
const (
	ClientsIPv6 Clients = false
	ClientsAll  Clients = true
)

// UnmarshalText reads "ipv6" or "all".
func (c *Clients) UnmarshalText(text []byte) error {
	switch string(text) {
	case "ipv6":
		*c = ClientsIPv6
	case "all":
		*c = ClientsAll
	default:
		return errClients
	}
	return nil
}

// Scan names engines.
type Scan struct {
	// Servers of ClamAV's clamd, by address and port. One is asked; another if it cannot be.
	Clamd []netip.AddrPort `yaml:"clamd"`

	// Servers of rspamd, likewise: their normal workers. They are told the client's true address, and do SPF, DKIM, DMARC and
	// the like.
	Rspamd []netip.AddrPort `yaml:"rspamd"`

	// What becomes of a message that an engine cannot look at: `refuse` it for now, which is the default, or let it `pass`.
	Down Down `yaml:"down"`

	// A message that comes over IPv6 has SPF or DKIM speak for it, says rspamd. Which has neither is told 450 4.7.26, so that a
	// sender that has IPv4 too comes over that. `off`, which is the default, `observe` or `enforce`.
	Authentication policy.Mode `yaml:"authentication"`

	// For a message; 1m if left out.
	Timeout time.Duration `yaml:"timeout" range:"1s..5m"`

	// Larger messages are not looked at; 25MiB if left out.
	Largest service.Bytes `yaml:"largest" range:"64KiB..1GiB"`
}

// Users names what knows where mailboxes are: one of `file`, `http` and `sql`. What it says of a user is the address of a server,
// with or without its port, or the name of a pool; of several words the first counts that the listen's clients can be sent to.
// Users that it does not know go where they would without it; while it cannot be asked, logins are refused for now.
type Users struct {
	// A file with a line for each user: his name, and behind it what is said of him. `@example.jp` stands for all others of a
	// domain, `*` for all others. A changed file is taken without a reload.
	File service.Path `yaml:"file"`

	// A URL that is asked by GET, with `{user}` in the place of the user. 200 has the answer as a line of text, or in JSON as
	// `server`; 404 is that the user is not known.
	HTTP string `yaml:"http"`

	// A database that is asked.
	SQL *SQL `yaml:"sql"`

	// How long an answer is remembered; 1m if left out.
	Keep time.Duration `yaml:"keep" range:"1s..1h"`

	// How long the answer may take; 3s if left out.
	Timeout time.Duration `yaml:"timeout" range:"100ms..30s"`
}

// SQL is a database.
type SQL struct {
	// Where PostgreSQL is: `postgres://edge:secret@10.0.2.9/mail`.
	Database string `yaml:"database,required"`

	// A query with one column, and with `$1` in the place of the user, in lower case.
	Query string `yaml:"query,required"`
}

// Down says what becomes of a message when an engine is down. The zero value is that it is refused for now.
type Down bool

// The words for it.
const (
	DownRefuse Down = false
	DownPass   Down = true
)

// UnmarshalText reads "refuse" or "pass".
func (d *Down) UnmarshalText(text []byte) error {
	switch string(text) {
	case "refuse":
		*d = DownRefuse
	case "pass":
		*d = DownPass
	default:
		return errDown
	}
	return nil
}

// TLS says which certificates are shown, or that the servers have them.
type TLS struct {
	// The certificate chain, a PEM file. A changed file is taken without a reload.
	Certificate service.Path `yaml:"certificate"`

	// Its private key, a PEM file.
	Key service.Path `yaml:"key"`

	// More certificates, for other names or another kind of key.
	Also []Pair `yaml:"also"`

	// Certificates from an ACME server for `names`. With `certificate` and `key` these are shown until then. A web service of
	// this site, at the same addresses, answers `http-01` and `tls-alpn-01`, at the ports 80 and 443.
	ACME *service.ACME `yaml:"acme"`

	// The names that certificates come for; the `name` of the edge if left out.
	Names []string `yaml:"names"`

	// The servers end TLS, also behind STARTTLS: all connections of this service are passed through unread, in the kernel
	// plane where that can be.
	PassThrough bool `yaml:"pass-through"`
}

// Pair is a certificate chain and its key.
type Pair struct {
	// The certificate chain, a PEM file. A changed file is taken without a reload.
	Certificate service.Path `yaml:"certificate,required"`

	// Its private key, a PEM file.
	Key service.Path `yaml:"key,required"`
}

// LineEnds says whether a CR or LF that stands alone is repaired. The zero value is that it is refused.
type LineEnds bool

// The words for it.
const (
	LineEndsRefuse LineEnds = false
	LineEndsRepair LineEnds = true
)

// UnmarshalText reads "refuse" or "repair".
func (l *LineEnds) UnmarshalText(text []byte) error {
	switch string(text) {
	case "refuse":
		*l = LineEndsRefuse
	case "repair":
		*l = LineEndsRepair
	default:
		return errLineEnds
	}
	return nil
}

// RelayProof says whether servers must prove that they relay for no stranger.
type RelayProof bool

// UnmarshalText reads "require" or "off".
func (r *RelayProof) UnmarshalText(text []byte) error {
	switch string(text) {
	case "require":
		*r = true
	case "off":
		*r = false
	default:
		return errProof
	}
	return nil
}

// Timeouts are the deadlines of a client. RFC 5321 §4.5.3.2 has clients wait for us twice as long and longer.
type Timeouts struct {
	// For the next command, and for a TLS handshake.
	Command time.Duration `yaml:"command" range:"1s.."`

	// For more of a message.
	Data time.Duration `yaml:"data" range:"1s.."`

	// For a whole message, from the first of it on: who sends a byte now and then is not listened to for ever.
	Message time.Duration `yaml:"message" range:"1m.."`

	// For anything in an open mailbox, from either side; `idle` of the service is not for mailboxes.
	Mailbox time.Duration `yaml:"mailbox" range:"30m.."`
}

// defaults are those of RFC 5321 §4.5.3.2.5 and §4.5.3.2.7. A client that waits for mail says so every 29 minutes, and is
// not logged out before 30: RFC 2177, RFC 9051 §5.4.
func defaults() *Options {
	return &Options{RelayProof: true, MessageSize: 100 << 20, Timeouts: Timeouts{Command: 5 * time.Minute, Data: 3 * time.Minute, Message: 2 * time.Hour,
		Mailbox: 35 * time.Minute}}
}

// The mistakes that Check finds.
var (
	errLineEnds = errors.New("not a rule for line ends; write refuse or repair")
	errProof    = errors.New("not a way to prove; write require or off")
	errName     = errors.New("not a host name; write, for example, mx6.example.jp")
	errNoName   = errors.New("name is missing: the name of the edge in greetings; write, for example, mx6.example.jp")
	errNoTLS    = errors.New("TLS comes first at this listen: write mail.tls with a certificate")
	errNoCert   = errors.New("tls needs certificate and key, acme, or pass-through: true")
	errPair     = errors.New("certificate and key belong together: give both")
	errLower    = errors.New("write names in lower case")
	errNames    = errors.New("only certificates that come by acme need names; remove this")
	errNoLogin  = errors.New("without tls nobody can log in at submission; add tls, or auth-in-clear: true")
	errNoOpen   = errors.New("without tls nobody can log in here; add tls, or auth-in-clear: true")
	errID       = errors.New("IMAP tells servers by id who the client is; write id, proxy-v1, proxy-v2, auto or none")
	errXclient  = errors.New("only IMAP has id; write xclient, proxy-v1, proxy-v2, auto or none")
	errFewest   = errors.New("sessions of one user go to one server: mailboxes are picked by hash of the user; remove pick")
	errClients  = errors.New("not clients; write ipv6 or all")
	errDown     = errors.New("not a choice; write refuse or pass")
	errNoSMTP   = errors.New("this is for the listen smtp, and there is none")
	errNoZones  = errors.New("no lists to ask; write dnsbl-zones")
	errNoDNSBL  = errors.New("nobody asks these lists; write dnsbl: observe or enforce")
	errZone     = errors.New("not the name of a zone; write, for example, zen.example")
	errNoDelay  = errors.New("nobody has to wait; write early: observe or enforce")
	errNoEngine = errors.New("no engine is named; write clamd or rspamd")
	errNoAuth   = errors.New("rspamd says whether SPF or DKIM speaks for a message; write rspamd")
	errNoMail   = errors.New("requests are messages, and mailboxes get none here; limit failed-logins")
	errNoShake  = errors.New("the edge ends no TLS here; limit connections")
)

// Check implements service.Options.
func (o *Options) Check(s *service.Service) (errs []error) {
	at := func(err error, warning bool, path ...string) {
		errs = append(errs, &service.Error{Path: path, Err: err, Warning: warning})
	}
	if o.passes() {
		o.checkPassed(s, at)
		return errs
	}
	if o.Name == "" {
		at(errNoName, false, "mail")
	} else if !isHostName(o.Name) {
		at(errName, false, "mail", "name")
	}
	o.checkTLS(s, at)
	for i, l := range s.Listen {
		d := dialects[l.Name]
		if d.secure && o.TLS == nil {
			at(errNoTLS, false, "listen", strconv.Itoa(i))
		} else if d.mailbox && o.TLS == nil && !o.AuthInClear {
			at(errNoOpen, false, "listen", strconv.Itoa(i))
		}
	}
	o.checkQueue(s, checkPools(s, at), at)
	o.Users.check(s, at)
	o.checkDoor(s, at)
	if o.TLS == nil && s.Limits.Limits(limit.Handshakes) {
		at(errNoShake, false, "limits", limit.Handshakes.String())
	}
	submits := slices.ContainsFunc(s.Listen, func(l service.Listen) bool { return dialects[l.Name].login })
	if submits && o.TLS == nil && !o.AuthInClear {
		at(errNoLogin, true, "mail", "tls")
	}
	return errs
}

// checkTLS says what is wrong with the section tls where TLS is ended here.
func (o *Options) checkTLS(s *service.Service, at func(err error, warning bool, path ...string)) {
	t := o.TLS
	switch {
	case t == nil:
		return
	case t.ACME == nil && (t.Certificate == "" || t.Key == ""):
		at(errNoCert, false, "mail", "tls")
	case (t.Certificate == "") != (t.Key == ""):
		at(errPair, false, "mail", "tls")
	}
	if t.ACME == nil {
		if len(t.Names) > 0 {
			at(errNames, false, "mail", "tls", "names")
		}
		return
	}
	for i, n := range t.Names {
		switch {
		case !isHostName(strings.TrimPrefix(n, "*.")):
			at(errName, false, "mail", "tls", "names", strconv.Itoa(i))
		case n != strings.ToLower(n):
			at(errLower, false, "mail", "tls", "names", strconv.Itoa(i))
		}
	}
	t.ACME.Check(o.names(), s.Listen, func(err error, key string, warning bool) { at(err, warning, "mail", "tls", "acme", key) })
}

// names are those that certificates come for.
func (o *Options) names() []string {
	if len(o.TLS.Names) > 0 {
		return o.TLS.Names
	}
	return []string{strings.ToLower(o.Name)}
}

// orders returns the certificates that a service orders.
func (o *Options) orders() []acme.Order {
	if o.TLS == nil {
		return nil
	}
	return o.TLS.ACME.Orders(o.names())
}

// isHostName says whether name can stand in a greeting. RFC 5321 §2.3.5, §4.1.2.
func isHostName(name string) bool {
	if len(name) == 0 || len(name) > 255 {
		return false
	}
	label := 0
	for i, c := range []byte(name) {
		switch {
		case c == '.' && (label == 0 || name[i-1] == '-'), c == '-' && label == 0, label == 63:
			return false
		case c == '.':
			label = 0
			continue
		case c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z'):
			return false
		}
		label++
	}
	return label > 0 && name[len(name)-1] != '-'
}
