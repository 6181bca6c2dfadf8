// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package state keeps what must outlive the process: small keys with values and revisions. The embedded store is
// a bbolt file; several edges will share a NATS cluster behind the same contract.
//
//	Apply ─┐
//	Apply ─┼─▶ one transaction, one fsync ─▶ Apply returns ─▶ Watch
//	Apply ─┘
//
// RAM is the read path of everything built on it: a store is read at the start and written when something
// changes, never per packet. Package statetest holds the tests that every store passes.
package state

import (
	"context"
	"errors"
)

// ErrConflict means that a key exists already, or that it is not at the revision named.
var ErrConflict = errors.New("state: conflict")

// ErrLocked means that another process has the store open.
var ErrLocked = errors.New("state: locked by another process")

// ErrClosed means that this store was closed.
var ErrClosed = errors.New("state: closed")

// ErrBehind means that a watcher was so slow that changes would have been held without bound.
var ErrBehind = errors.New("state: watcher is too far behind")

// Entry is one key and its value. Revision grows with every change of the store.
// In a Watch a nil Value means that the key was deleted.
type Entry struct {
	Key, Value []byte
	Revision   uint64
}

// Op is one change. With Revision 0 it creates a key that must be absent; with Any it writes, or with a nil Value
// deletes, whatever was there; otherwise it replaces, or with a nil Value deletes, the key at that revision.
type Op struct {
	Key, Value []byte
	Revision   uint64
}

// Any is the Revision of an Op that does not care what was there.
const Any = ^uint64(0)

// Store is the contract. It is safe for concurrent use.
type Store interface {
	// Apply makes all changes or none. They are on disk when it returns. Concurrent calls share one fsync.
	// Revisions are compared with what was there before the call. The slices may be reused when it returns.
	//
	// Returns ErrConflict, ErrClosed, or the context's error if it was done before the changes were begun; then
	// nothing was written. After any other error nobody knows whether the changes are on disk: write them again.
	Apply(ctx context.Context, ops ...Op) error

	// Each calls fn for every key that begins with prefix, in order, until fn returns an error, which it returns.
	// What fn gets is valid until it returns. fn must not call the store.
	Each(prefix []byte, fn func(Entry) error) error

	// Watch calls fn for every key that begins with prefix, in order of keys, then for every change, in order of
	// revisions; nothing is missed between the two. It returns when ctx is done, with its error.
	// Returns ErrBehind and ErrClosed.
	Watch(ctx context.Context, prefix []byte, fn func(Entry)) error

	// Close waits for what is under way and lets another process open the store.
	Close() error
}
