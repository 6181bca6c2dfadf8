// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package config reads the site file. It finds every mistake in it, with its place, or returns one immutable value
// that says completely what should run.
//
//	bytes ─ yaml.go ─▶ nodes ─ decode.go ─▶ file.go's structs ─ complete.go ─▶ *Config ─ check.go ─▶ *Config
//	                      every step reports into one list ──▶ []*Error in the order of the file
//
// A node knows its line and column, and the structs keep the nodes they came from, so that a check three steps later
// points at the very word that is wrong. A node under which something was wrong is marked: later steps do not
// complain about what follows from a mistake that was reported.
package config

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kyozon/kyozon/service"
)

// MaxSize is how large a site file may be, in bytes. It holds some ten thousand servers.
const MaxSize = 1 << 20

// Config is the whole file, completed and checked. It is immutable: share it freely.
type Config struct {
	Site      string
	Addresses Addresses
	Networks  []service.Network  // in the order of the file; those that are not written have no media
	Services  []*service.Service // in the order of the file
	State     State
	Admin     Admin
	Log       Log
	Kernel    Kernel
	Drain     time.Duration // how long running flows may outlive a reload
	Demo      bool          // read with Options.Demo

	// Warnings are what is allowed but should be looked at, in the order of the file.
	Warnings []*Error

	// Hash is the SHA-256 of the file. Two files with one hash say the same, but files that they name may differ.
	Hash [32]byte

	written written
}

// MediaSocket is the path of the socket at which signalling asks the relay of media.
func (c *Config) MediaSocket() string { return service.MediaSocket(c.State.Directory) }

// Addresses are those of the whole site.
type Addresses struct {
	GlobalIPv4 []netip.Addr
	Ledger     *Ledger // nil if servers know no client of the other family by an address
}

// Ledger says which addresses stand in for clients of the other family.
type Ledger struct {
	Pool  netip.Prefix  // of stand-ins, IPv4
	Bits  int           // length of the IPv6 prefix that has one stand-in: 48, 56 or 64
	Keep  time.Duration // how long an unused stand-in stays reserved
	Embed netip.Prefix  // the /96 that IPv4 clients are embedded in, RFC 6052; zero means none
}

// State is where the process keeps what must outlive it.
type State struct {
	Directory string // absolute, unless Parse was given a name without a directory
}

// Admin is where the status page and the metrics are.
type Admin struct {
	Listen netip.AddrPort // zero means off
}

// Log says what is written down.
type Log struct {
	Access string // the access log: a file, absolute; accesslog.Stderr; or "" for none
}

// Kernel says how large the kernel plane is and where.
type Kernel struct {
	Interfaces     []string // none means those that the services need
	Flows, Pending int      // at once: established, and those of which only one side has spoken
}

// Options change how a file is read. The zero value is right for a real site.
type Options struct {
	// Demo allows stand-ins from 127.0.0.0/8, which only servers on the same machine can answer.
	Demo bool
}

// Load reads the file at path. It returns every mistake it finds, joined, each an *Error; or, when the file cannot
// be read, that error.
func Load(path string, protocols []service.Protocol) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read site file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read site file: %w", err)
	}
	if abs, err := filepath.Abs(path); err == nil {
		return parse(path, filepath.Dir(abs), data, protocols, Options{})
	}
	return parse(path, filepath.Dir(path), data, protocols, Options{})
}

// Parse is Load for a file that is in memory. The files that it names are beside name.
func Parse(name string, data []byte, protocols []service.Protocol, o Options) (*Config, error) {
	return parse(name, filepath.Dir(name), data, protocols, o)
}

func parse(name, dir string, data []byte, protocols []service.Protocol, o Options) (*Config, error) {
	r := &report{file: name, lines: []string{""}}
	hash := sha256.Sum256(data)
	if len(data) > MaxSize {
		r.fail(nil, "the file is larger than %d bytes", MaxSize)
		return nil, r.err()
	}
	data = bytes.ReplaceAll(bytes.TrimPrefix(data, []byte("\ufeff")), []byte("\r\n"), []byte("\n"))
	if !r.readable(data) {
		return nil, r.err()
	}
	root := r.readYAML(data)
	if root == nil {
		return nil, r.err()
	}
	d := &decoder{report: r, dir: dir, protocols: protocols}
	file := new(siteFile)
	d.site(root, file)
	c := d.complete(file)
	c.Hash, c.Demo = hash, o.Demo
	k := &checker{decoder: d, file: file, config: c}
	k.check()
	if err := r.err(); err != nil {
		return nil, err
	}
	c.Warnings = r.warnings
	c.written = written{report: r, root: root}
	return c, nil
}

// readable splits the file into lines and reports a character that YAML does not allow. YAML 1.2.2 §5.1.
func (r *report) readable(data []byte) bool {
	r.lines = strings.Split(string(bytes.ToValidUTF8(data, []byte("\ufffd"))), "\n")
	line, column := 1, 0
	for rest := data; len(rest) > 0; {
		c, size := utf8.DecodeRune(rest)
		rest = rest[size:]
		column++
		switch {
		case c == '\n':
			line, column = line+1, 0
		case c == utf8.RuneError && size == 1:
			r.fail(&node{line: line, column: column}, "the file is not UTF-8")
			return false
		case c < ' ' && c != '\t' || c == 0x7f:
			r.fail(&node{line: line, column: column}, "a control character, %U", c)
			return false
		}
	}
	return true
}
