// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/service"
)

// Options is the section `phone` of a service.
type Options struct {
	// The domain of the subscribers: what stands behind the @ in their addresses.
	Domain string `yaml:"domain,required"`

	// Who may register.
	Subscribers Subscribers `yaml:"subscribers,required"`

	// How long a registration lasts.
	Registration Registration `yaml:"registration"`

	// The numbers there are. A subscriber's name is then his number, as it is dialled within the country. Without it, who
	// is called is called by the name of a subscriber.
	Numbers plan.Numbers `yaml:"numbers"`

	// Where calls go, by the number that is called. The order means nothing: of the routes for a number the narrowest counts.
	Routes []plan.Route `yaml:"routes"`
}

// Subscribers says who may register, and where.
type Subscribers struct {
	// The file of their names and passwords; docs/phone.md has its form. It is read at the start and at each reload, also if
	// only it has changed.
	From service.Path `yaml:"from,required"`

	// The networks that they are in, by the names of listens. Where nothing is written, all.
	Networks []string `yaml:"networks"`
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
	errDomain  = errors.New("not a domain; write, for example, voip.example.jp")
	errNetwork = errors.New("no listen has this name")
	errMinMax  = errors.New("more than max")

	errRoutes   = errors.New("routes are for numbers: write, for example, numbers: {own: [0501000xxxx], plan: japan}")
	errVia      = errors.New("want subscribers")
	errAnnounce = errors.New("no announcements can be played yet; write deny, with what the caller is told")
	errDeny     = errors.New("want one line of text, at most 100 bytes")
)

// viaSubscribers is the word for them in a route.
const viaSubscribers = "subscribers"

// Check implements service.Options.
func (o *Options) Check(s *service.Service) (errs []error) {
	at := func(err error, path ...string) {
		errs = append(errs, &service.Error{Path: append([]string{"phone"}, path...), Err: err})
	}
	if !isDomain(o.Domain) {
		at(errDomain, "domain")
	}
	for i, name := range o.Subscribers.Networks {
		if !hasListen(s, name) {
			at(errNetwork, "subscribers", "networks", index(i))
		}
	}
	if o.Registration.Min > o.Registration.Max {
		at(errMinMax, "registration", "min")
	}
	return append(errs, o.checkNumbers()...)
}

// checkNumbers says what is wrong with the numbers and routes.
func (o *Options) checkNumbers() (errs []error) {
	if o.Numbers.Plan == "" {
		if len(o.Routes) > 0 {
			return []error{&service.Error{Path: []string{"phone", "routes"}, Err: errRoutes}}
		}
		return nil
	}
	country, err := plan.OpenCountry(o.Numbers.Plan)
	if err != nil {
		return []error{&service.Error{Path: []string{"phone", "numbers", "plan"}, Err: err}}
	}
	_, findings := plan.Compile(country, o.Numbers.Own, o.Routes)
	for _, f := range findings {
		errs = append(errs, &service.Error{Path: append([]string{"phone"}, f.Path...), Err: errors.New(f.Text), Warning: f.Warning})
	}
	for i := range o.Routes {
		r := &o.Routes[i]
		at := func(err error, key string) {
			errs = append(errs, &service.Error{Path: []string{"phone", "routes", index(i), key}, Err: err})
		}
		if r.Via != "" && r.Via != viaSubscribers {
			at(errVia, "via")
		}
		if r.Announce != "" {
			at(errAnnounce, "announce")
		}
		if !isPhrase(r.Deny) {
			at(errDeny, "deny")
		}
	}
	return errs
}

// isPhrase says whether a text can be what an answer says of itself. RFC 3261 §25.1: Reason-Phrase.
func isPhrase(s string) bool {
	return len(s) <= 100 && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
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
