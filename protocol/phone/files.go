// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/protocol/phone/cause"
	"github.com/kyozon/kyozon/protocol/phone/clip"
	"github.com/kyozon/kyozon/service"
)

// mostFaults bounds how many faults of one file are told.
const mostFaults = 5

// files is what the files hold that a service names, and what is wrong with them. It is immutable.
//
//	site file ─▶ openFiles ─┬─▶ Protocol.Read: kyozon check
//	                        └─▶ core.read: the settings of a generation
type files struct {
	store         *certs.Store // nil if there is no TLS
	subscribers   map[string]*subscriber
	trunks        map[string]trunkFiles // by name
	announcements map[string]*announcement

	errs []error // each a *service.Error
}

// trunkFiles is what those of a trunk hold.
type trunkFiles struct {
	password    string
	callers     map[string]*subscriber
	authorities *x509.CertPool // nil is those whom the system trusts
}

// openFiles reads the files that a service names.
func openFiles(s *service.Service) *files {
	o := s.Options.(*Options) // made by our own Protocol
	f := &files{trunks: make(map[string]trunkFiles)}
	if o.TLS != nil {
		store, err := certs.Open(o.TLS.pairs())
		f.store = store
		f.errs = append(f.errs, service.PairErrors(err, true, "phone", "tls")...)
		if err == nil {
			f.errs = append(f.errs, service.PairWarnings(store, time.Now(), true, "phone", "tls")...)
		}
	}
	if from := o.Subscribers.From; from != "" {
		var errs []error
		f.subscribers, errs = readSubscribers(string(from), o.Domain)
		f.fault(errs, "subscribers", "from")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Trunks)) {
		f.openTrunk(name, o)
	}
	f.openAnnouncements(o)
	if o.CDR != "" {
		f.fault([]error{accesslog.Writable(string(o.CDR))}, "cdr")
	}
	return f
}

// fault notes what is wrong with the file at a place below the section.
func (f *files) fault(errs []error, path ...string) {
	for _, err := range errs {
		if err != nil {
			f.errs = append(f.errs, &service.Error{Path: append([]string{"phone"}, path...), Err: err})
		}
	}
}

func (f *files) openTrunk(name string, o *Options) {
	t, read := o.Trunks[name], trunkFiles{}
	var err error
	if t.Login != nil {
		read.password, err = readPassword(string(t.Login.Password))
		f.fault([]error{err}, "trunks", name, "login", "password")
	}
	if t.Callers != "" {
		var errs []error
		read.callers, errs = readSubscribers(string(t.Callers), o.Domain)
		for _, caller := range slices.Sorted(maps.Keys(read.callers)) {
			if f.has(caller) {
				errs = append(errs, fmt.Errorf("%s: %s: %w", t.Callers, caller, errBoth))
			}
		}
		f.fault(errs, "trunks", name, "callers")
	}
	if t.TLS != nil {
		read.authorities, err = readAuthorities(string(t.TLS.CA))
		f.fault([]error{err}, "trunks", name, "tls", "ca")
	}
	f.trunks[name] = read
}

// has says whether somebody of a name was read.
func (f *files) has(name string) bool {
	for _, t := range f.trunks {
		if t.callers[name] != nil {
			return true
		}
	}
	return f.subscribers[name] != nil
}

func (f *files) openAnnouncements(o *Options) {
	f.announcements = make(map[string]*announcement)
	for _, name := range slices.Sorted(maps.Keys(o.Announcements)) {
		a, err := readAnnouncement(name, o.Announcements[name])
		f.fault([]error{err}, "announcements", name, "file")
		f.announcements[name] = a
	}
}

// readAnnouncement reads the file of an announcement.
func readAnnouncement(name string, o Announcement) (*announcement, error) {
	data, err := os.ReadFile(string(o.File))
	if err != nil {
		return nil, err
	}
	a := &announcement{name: name, times: max(o.Times, 1), cause: cause.Rejected}
	if o.Cause != 0 {
		a.cause = cause.Cause(o.Cause)
	}
	if a.clip, err = clip.Parse(string(o.File), data); err != nil {
		return nil, fmt.Errorf("%s: %w", o.File, err)
	}
	if all := time.Duration(a.times) * a.clip.Length(); all > longestAnnounced {
		return nil, fmt.Errorf("%s: %v, %d times: %w", o.File, a.clip.Length(), a.times, clip.ErrLong)
	}
	return a, nil
}

// readFiles says what is wrong with the files that a service names. A SQLite database is a file too: of what a generation does
// with it, which goes on without it if it can, this is the question alone.
func readFiles(s *service.Service) []error {
	o := s.Options.(*Options) // made by our own Protocol
	f := openFiles(s)
	d := o.Subscribers.Database
	if d == nil || d.File == "" {
		return f.errs
	}
	ctx, cancel := context.WithTimeout(context.Background(), rosterPatience)
	defer cancel()
	var left leftOut
	r := &roster{from: d.complete()}
	err := r.openedSQLite(ctx, func(conn *sql.Conn) (err error) {
		_, _, left, err = readRows(ctx, sqliteRows(conn), r.from.Query, o.Domain)
		return err
	})
	if _, bad := os.Stat(string(d.File)); errors.Is(bad, fs.ErrNotExist) {
		err = bad // says more than the library
	}
	if err != nil {
		if !strings.Contains(err.Error(), string(d.File)) {
			err = fmt.Errorf("%s: %w", d.File, err)
		}
		f.fault([]error{err}, "subscribers", "database", "file")
	} else if left.rows > 0 {
		f.errs = append(f.errs, &service.Error{Path: []string{"phone", "subscribers", "database", "file"}, Warning: true,
			Err: fmt.Errorf("%s: %d rows are left out; the last: %w", d.File, left.rows, left.why)})
	}
	return f.errs
}
