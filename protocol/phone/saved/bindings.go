// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package saved

import (
	"slices"

	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// bindingsVersion is the first byte of the bindings of an address of record. It follows its own count.
const bindingsVersion = 3

// Lasts says whether of some bindings one outlives the process: those that need a connection end with it.
func Lasts(all []location.Binding) bool {
	return slices.ContainsFunc(all, func(b location.Binding) bool { return b.Way.Flow == 0 })
}

// AppendHome adds an address of record and its bindings.
func AppendHome(dst []byte, aor string, all []location.Binding, now int64) []byte {
	w := coder{b: dst, writes: true}
	w.text(&aor)
	return AppendBindings(w.b, all, now)
}

// ParseHome reads them as ParseBindings does. aor is what the record says that it is of, also after an error, unless it is "". The error is ErrForm or ErrNewer.
func ParseHome(text []byte, last, now int64) (aor string, all []location.Binding, err error) {
	r := coder{b: text}
	if r.text(&aor); r.bad || aor == "" {
		return "", nil, ErrForm
	}
	all, err = ParseBindings(r.b, last, now)
	return aor, all, err
}

// AppendBindings adds the bindings of an address of record, but for those that need a connection: it ends with the process.
// Of each it says until when it lasts, and how long it was given at now, since those that are refreshed are not saved again.
func AppendBindings(dst []byte, all []location.Binding, now int64) []byte {
	w := coder{b: append(dst, bindingsVersion), writes: true}
	for _, b := range all {
		if b.Way.Flow == 0 {
			w.binding(&b, max(b.Expires-now, 0))
		}
	}
	return w.b
}

// ParseBindings reads bindings. Those last until they were given to, or as long as those can that were refreshed until the
// process ended, which was at last; those that are over at now are left out. The error is ErrForm or ErrNewer.
func ParseBindings(text []byte, last, now int64) (all []location.Binding, err error) {
	if err := known(text, bindingsVersion, bindingsVersion); err != nil {
		return nil, err
	}
	r := coder{b: text[1:]}
	for len(r.b) > 0 && !r.bad && len(all) < location.MaxBindings {
		var b location.Binding
		lifetime := r.binding(&b, 0)
		if b.Expires = max(b.Expires, last+lifetime); b.Expires > now {
			all = append(all, b)
		}
	}
	if r.bad || len(r.b) > 0 {
		return nil, ErrForm
	}
	return all, nil
}

func (c *coder) binding(b *location.Binding, lifetime int64) int64 {
	for _, t := range [...]*string{&b.Contact, &b.Instance, &b.Path, &b.CallID, &b.Agent} {
		c.text(t)
	}
	quality, transport := uint32(b.Quality), uint32(b.Way.Transport)
	for _, v := range [...]*uint32{&b.Sequence, &b.Flow, &quality, &transport} {
		c.number(v)
	}
	c.bad = c.bad || transport > uint32(sip.TLS) || quality > 1000
	b.Quality, b.Way.Transport = uint16(quality), sip.Transport(transport)
	c.address(&b.Way.Local)
	c.address(&b.Way.Remote)
	c.time(&b.Expires)
	c.time(&lifetime)
	return lifetime
}
