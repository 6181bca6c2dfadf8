// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/service"
)

// Options is the section `phone` of a service.
type Options struct {
	// The domain of the subscribers: what stands behind the @ in their addresses.
	Domain string `yaml:"domain,required"`

	// TLS, at the listens of one port.
	TLS *TLS `yaml:"tls"`

	// Who may register. Where nothing is written, nobody: calls go from trunk to trunk.
	Subscribers Subscribers `yaml:"subscribers"`

	// How long a registration lasts.
	Registration Registration `yaml:"registration"`

	// The numbers there are. A subscriber's name is then his number, as it is dialled within the country. Without it, who
	// is called is called by the name of a subscriber.
	Numbers plan.Numbers `yaml:"numbers"`

	// Where calls go, by the number that is called. The order means nothing: of the routes for a number the narrowest counts.
	Routes []plan.Route `yaml:"routes"`

	// What callers hear whose calls go nowhere, by names that routes give. The relay of media plays it.
	Announcements map[string]Announcement `yaml:"announcements"`

	// The ways to other telephone networks, by names that routes give.
	Trunks map[string]Trunk `yaml:"trunks"`

	// The DNS servers that are asked for the names of gateways. Where nothing is written, those of /etc/resolv.conf.
	Resolvers []netip.AddrPort `yaml:"resolvers"`

	// The file that each call adds a line of JSON to when it has ended or failed. Where nothing is written, none.
	CDR service.Path `yaml:"cdr"`

	// The database that each of them goes to too, after the file.
	CDRDatabase *RecordTable `yaml:"cdr-database"`
}

// Announcement is what a caller hears before he is refused.
type Announcement struct {
	// Its file: WAV, or samples by G.711 in a file named .ulaw or .alaw; one channel of 8000 samples a second. It is read at the
	// start and at each reload.
	File service.Path `yaml:"file,required"`

	// How often it is played, once where nothing is written. It may take two minutes in all.
	Times int `yaml:"times" range:"1..10"`

	// Why the call fails, by a number of ITU-T Q.850, which the status follows from. Where nothing is written 21, call rejected:
	// status 403.
	Cause int `yaml:"cause" range:"1..127"`
}

// Trunk is a way to another telephone network.
type Trunk struct {
	// Its gateways: a call goes to the first that takes it. Calls that come from one need no password, and what it says of
	// who calls is believed.
	Gateways []Gateway `yaml:"gateways,required"`

	// The network that they are in, by the name of a listen.
	Network string `yaml:"network,required"`

	// How numbers are written on it: global, like +81312345678, which is the default, or national, like 0312345678.
	Numbers string `yaml:"numbers"`

	// URIs of numbers are written without user=phone.
	Plain bool `yaml:"plain"`

	// It is no part of our network: it learns no number that is withheld, and of what it says of who calls From counts alone.
	Foreign bool `yaml:"foreign"`

	// The extensions that it is not told of, though callers have them: 100rel, for example. That of session timers is ours.
	Without []string `yaml:"without"`

	// How often each gateway is asked by OPTIONS whether it is there; one that is not comes after the others. Where nothing is
	// written, calls alone tell.
	Health time.Duration `yaml:"health" range:"1s..10m"`

	// How many calls there may be at once, either way. Emergency calls are never refused.
	Channels int `yaml:"channels" range:"1..1000000"`

	// How many calls may go out by it in a time, for example 20/s.
	Rate limit.Rate `yaml:"rate"`

	// Who we are to gateways that ask for a password.
	Login *Login `yaml:"login"`

	// The file of names and passwords, like that of subscribers, by which callers at other addresses of the network prove that
	// they call for this trunk.
	Callers service.Path `yaml:"callers"`

	// How gateways are spoken to in TLS.
	TLS *TrunkTLS `yaml:"tls"`

	// The trunks that calls which come by this one may go on to. Where nothing is written, none: they reach subscribers alone.
	Onward []string `yaml:"onward"`
}

// Login is who we are to others.
type Login struct {
	// The name.
	Name string `yaml:"name,required"`

	// The file whose first line is the password.
	Password service.Path `yaml:"password,required"`
}

// TLS says with which certificates TLS is spoken, and where.
type TLS struct {
	// The certificate chain, a PEM file. A changed file is taken without a reload. It is shown to gateways too.
	Certificate service.Path `yaml:"certificate,required"`

	// Its private key, a PEM file.
	Key service.Path `yaml:"key,required"`

	// More certificates, for other names or another kind of key.
	Also []Pair `yaml:"also"`

	// The port of the listens at which TLS is spoken, 5061 where nothing is written. Nothing is heard there over UDP.
	Port uint16 `yaml:"port" range:"1..65535"`
}

// Pair names the files of a certificate.
type Pair struct {
	// The certificate chain, a PEM file. A changed file is taken without a reload.
	Certificate service.Path `yaml:"certificate,required"`

	// Its private key, a PEM file.
	Key service.Path `yaml:"key,required"`
}

// TrunkTLS says who gateways prove to be.
type TrunkTLS struct {
	// Who may sign their certificates, a PEM file. Where nothing is written, those whom the system trusts.
	CA service.Path `yaml:"ca"`

	// The name that their certificates must be for. Where nothing is written, the host that the gateway is written with.
	Name string `yaml:"name"`

	// They must show such a certificate also when they open a connection, and nobody is taken for them in clear.
	Require bool `yaml:"require"`
}

// Gateway is one of a trunk.
type Gateway struct {
	// Where it is: an address with its port, which is reached over UDP, or a URI, whose name is looked up as RFC 3263 has it.
	At Place `yaml:"at,required"`

	// Its part of the calls, as against the others. Where no gateway of a trunk has one, each call goes to the first.
	Weight int `yaml:"weight" range:"1..1000"`
}

// national is a word for how numbers are written.
const national = "national"

// Subscribers says who may register, and where.
type Subscribers struct {
	// The file of their names and passwords; docs/phone.md has its form. It is read at the start and at each reload, also if
	// only it has changed.
	From service.Path `yaml:"from"`

	// A database that has them instead. It is read at the start, which fails if it does not answer, and then as often as it
	// says; while it is down, subscribers are those who are known.
	Database *Database `yaml:"database"`

	// The networks that they are in, by the names of listens. Where nothing is written, all.
	Networks []string `yaml:"networks"`

	// How many calls one may have at once, either way. Where nothing is written, any number. Emergency calls are never refused.
	Calls int `yaml:"calls" range:"1..1000"`
}

// Database is a database that has the subscribers.
type Database struct {
	// Where a PostgreSQL database is: postgres://user:password@host/database, or a list of words like host=/run/postgresql
	// dbname=voip.
	URL string `yaml:"url"`

	// The file of a SQLite database, instead. It is only read, and a change is seen within a second.
	File service.Path `yaml:"file"`

	// What is asked: rows of a name and a digest in hexadecimal, by MD5 or SHA-256, of NAME:DOMAIN:PASSWORD. A name has a row
	// for each algorithm.
	Query string `yaml:"query"`

	// How often it is asked. A NOTIFY on the channel kyozon_subscribers has PostgreSQL asked at once.
	Every time.Duration `yaml:"every" range:"1s..24h"`
}

// RecordTable is a table of a PostgreSQL database that takes the records of calls. While it is down, they are kept.
type RecordTable struct {
	// Where it is: postgres://user:password@host/database, or a list of words like host=/run/postgresql dbname=voip.
	URL string `yaml:"url,required"`

	// Its name, perhaps after that of a schema. It has the columns `id text primary key` and `record jsonb`. Where nothing is
	// written it is calls.
	Table string `yaml:"table"`
}

// Registration is how long a registration lasts, in whole seconds.
type Registration struct {
	// Whoever asks for less is told to ask for this.
	Min time.Duration `yaml:"min" range:"10s..1h"`

	// Whoever asks for more, or for nothing, gets this. Clients are told up to a tenth less, each another part of it, so that
	// they do not all come back at once after they have all lost their power.
	Max time.Duration `yaml:"max" range:"1m..24h"`
}

// defaults are what applies where the file says nothing.
func defaults() *Options {
	return &Options{Registration: Registration{Min: time.Minute, Max: time.Hour}}
}

// The mistakes that Check finds.
var (
	errEither  = errors.New("there is a file of subscribers too; write either")
	errNeither = errors.New("say where subscribers are: from: FILE, or database: {url: …}")
	errSource  = errors.New("write either url, of PostgreSQL, or file, of SQLite")
	errDomain  = errors.New("not a domain; write, for example, voip.example.jp")
	errNetwork = errors.New("no listen has this name")
	errMinMax  = errors.New("more than max")
	errTable   = errors.New("not the name of a table; write, for example, calls or billing.calls")
)

// Check implements service.Options.
func (o *Options) Check(s *service.Service) (errs []error) {
	at := func(err error, path ...string) {
		errs = append(errs, &service.Error{Path: append([]string{"phone"}, path...), Err: err})
	}
	if !isDomain(o.Domain) {
		at(errDomain, "domain")
	}
	switch from := o.Subscribers.From != ""; {
	case from && o.Subscribers.Database != nil:
		at(errEither, "subscribers", "database")
	case !from && o.Subscribers.Database == nil && (len(o.Subscribers.Networks) > 0 || o.Subscribers.Calls > 0):
		at(errNeither, "subscribers")
	}
	if d := o.Subscribers.Database; d != nil && (d.URL == "") == (d.File == "") {
		at(errSource, "subscribers", "database")
	}
	for i, name := range o.Subscribers.Networks {
		if !hasListen(s, name) {
			at(among(errNetwork, name, listens(s)), "subscribers", "networks", index(i))
		}
	}
	if o.TLS != nil && !slices.ContainsFunc(s.Listen, func(l service.Listen) bool { return o.isSecure(l.AddrPort) }) {
		at(errPort, "tls")
	}
	if o.Registration.Min > o.Registration.Max {
		at(errMinMax, "registration", "min")
	}
	if d := o.CDRDatabase; d != nil && d.Table != "" && !tableName().MatchString(d.Table) {
		at(errTable, "cdr-database", "table")
	}
	return append(append(errs, o.checkNumbers(s)...), o.checkTrunks(s)...)
}

func hasListen(s *service.Service, name string) bool {
	for _, l := range s.Listen {
		if l.Name == name {
			return true
		}
	}
	return false
}

// isDomain says whether a name can be the host of an address. RFC 3261 §25.1: hostname.
func isDomain(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}
