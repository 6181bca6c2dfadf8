// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package users says where the mailboxes of a user are: in a file, or at a directory that is asked over HTTP or SQL.
//
//	File                      lines in memory, taken anew when the file changes
//	Remote ─▶ cache ─▶ gate ─▶ Source: HTTP, Postgres
//
// What it says is a few words, such as the address of a server or the name of a pool; what they mean is the caller's. Users
// are the same in either case. Users of whom nothing is known have no words, which is no error.
package users

import (
	"bytes"
	"errors"
)

// MaxAnswer bounds the bytes of what is said of a user.
const MaxAnswer = 255

// The errors of a directory.
var (
	ErrBusy   = errors.New("users: too many are looked up at once")
	ErrAnswer = errors.New("users: the answer is too long, or no text")
)

// Directory knows where mailboxes are. Its methods may be called from anywhere and never block.
type Directory interface {
	// Known returns what is said of a user, "" if that is nothing; ok is false if it must be looked up.
	Known(user string) (answer string, ok bool)

	// Find looks a user up and calls done, perhaps on another goroutine and perhaps before it returns.
	Find(user string, done func(answer string, err error))
}

// Name returns how a user is called here: in lower case, as far as that is the same in all languages.
func Name(user []byte) string {
	name := bytes.Clone(user)
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			name[i] |= 0x20
		}
	}
	return string(name)
}

// clean returns an answer that can be kept.
func clean(answer []byte) (string, error) {
	answer = bytes.TrimSpace(answer)
	if len(answer) > MaxAnswer {
		return "", ErrAnswer
	}
	for _, c := range answer {
		if c < ' ' || c > '~' {
			return "", ErrAnswer
		}
	}
	return string(answer), nil
}
