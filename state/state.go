// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package state keeps what must outlive the process: small keys with values and revisions. The embedded store is
// a bbolt file; several edges will share a NATS cluster behind the same contract.
//
// RAM is the read path of everything built on it: a store is read at the start and written when something
// changes, never per packet.
package state

import (
	"context"
	"errors"
)

// ErrConflict means that a key exists already, or that it is not at the revision named.
var ErrConflict = errors.New("state: conflict")

// ErrLocked means that another process has the store open.
var ErrLocked = errors.New("state: locked by another process")

// Entry is one key and its value. Revision grows with every change of the store.
type Entry struct {
	Key, Value []byte
	Revision   uint64
}

// Op is one change. With Revision 0 it creates a key that must be absent; with Any it writes whatever was there;
// otherwise it replaces, or with a nil Value deletes, the key at that revision.
type Op struct {
	Key, Value []byte
	Revision   uint64
}

// Any is the Revision of an Op that does not care what was there.
const Any = ^uint64(0)

// Store is the contract.
type Store interface {
	// Apply makes all changes or none. They are on disk when it returns. Concurrent calls share one fsync.
	// Returns ErrConflict.
	Apply(ctx context.Context, ops ...Op) error

	// Each calls fn for every key that begins with prefix, in order, until fn returns an error, which it returns.
	// What fn gets is valid until it returns.
	Each(prefix []byte, fn func(Entry) error) error

	// Watch calls fn for every change of keys that begin with prefix, in order, until ctx is done.
	Watch(ctx context.Context, prefix []byte, fn func(Entry)) error

	// Close waits for what is under way and lets another process open the store.
	Close() error
}
