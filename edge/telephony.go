// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/kyozon/kyozon/service"
)

// maxCallsShown bounds how many calls, or registrations, one answer lists.
const maxCallsShown = 100_000

// telephonies returns what the protocols in service know of calls.
func (e *Edge) telephonies() (all []*service.Telephony) {
	for _, s := range e.generation.Load().servers {
		if s.Telephony != nil {
			all = append(all, s.Telephony)
		}
	}
	return all
}

// Calls returns the calls under way that are kept, the newest first, limit at most.
func (e *Edge) Calls(keep func(*service.Call) bool, limit int) []service.Call {
	all := []service.Call{} // never nil: in JSON none are [], not null
	for _, t := range e.telephonies() {
		all = append(all, t.Calls(keep, limit)...)
	}
	slices.SortFunc(all, func(a, b service.Call) int { return b.Start.Compare(a.Start) })
	return all[:min(limit, len(all))]
}

// DropCall ends a call. Returns service.ErrNoCall.
func (e *Edge) DropCall(id string) error {
	for _, t := range e.telephonies() {
		if err := t.Drop(id); !errors.Is(err, service.ErrNoCall) {
			return err
		}
	}
	return service.ErrNoCall
}

// ExplainCall says why a call under way goes as it does, by its ID or the Call-ID of one of its legs. Returns service.ErrNoCall.
func (e *Edge) ExplainCall(key string) (*service.Explanation, error) {
	for _, t := range e.telephonies() {
		if x, err := t.Explain(key); !errors.Is(err, service.ErrNoCall) {
			return x, err
		}
	}
	return nil, service.ErrNoCall
}

// Registrations returns those that are kept, by service and name, limit at most.
func (e *Edge) Registrations(keep func(*service.Registration) bool, limit int) []service.Registration {
	all := []service.Registration{}
	for _, t := range e.telephonies() {
		all = append(all, t.Registrations(keep, limit)...)
	}
	slices.SortFunc(all, func(a, b service.Registration) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Contact, b.Contact))
	})
	return all[:min(limit, len(all))]
}

// filter is what a question names; what it does not name is all the same.
type filter struct {
	*http.Request
}

func (f filter) is(key string, those ...string) bool {
	want := f.FormValue(key)
	return want == "" || slices.Contains(those, want)
}

func (f filter) limit() int {
	n, err := strconv.Atoi(f.FormValue("limit"))
	if err != nil || n <= 0 || n > maxCallsShown {
		return maxCallsShown
	}
	return n
}

// controlTelephony adds what the control socket can ask of calls and subscribers.
func (e *Edge) controlTelephony(mux *http.ServeMux) {
	mux.HandleFunc("GET /calls", func(w http.ResponseWriter, r *http.Request) {
		f := filter{r}
		answer(w, e.Calls(func(c *service.Call) bool {
			to := service.CallLeg{}
			if c.Called != nil {
				to = *c.Called
			}
			return f.is("service", c.Service) && f.is("state", c.State) && f.is("id", c.ID) && f.is("number", c.From, c.To) &&
				f.is("network", c.Caller.Network, to.Network) && f.is("family", c.Caller.Family, to.Family) && f.is("trunk", c.Caller.Peer, to.Peer)
		}, f.limit()), nil)
	})
	mux.HandleFunc("GET /calls/explain", func(w http.ResponseWriter, r *http.Request) {
		x, err := e.ExplainCall(r.FormValue("call"))
		answer(w, x, err)
	})
	mux.HandleFunc("POST /calls/drop", func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("id")
		answer(w, Done{Text: id + " is dropped"}, e.DropCall(id))
	})
	mux.HandleFunc("GET /subscribers", func(w http.ResponseWriter, r *http.Request) {
		f := filter{r}
		answer(w, e.Registrations(func(one *service.Registration) bool {
			return f.is("service", one.Service) && f.is("name", one.Name) && f.is("network", one.Network) && f.is("family", one.Family)
		}, f.limit()), nil)
	})
}
