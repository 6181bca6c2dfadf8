// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package acme gets certificates from an ACME server and renews them in time.
//
//	Order{name, settings} ──Slots──▶ certs.Slot, filled with what is on disk ──▶ handshakes
//	        │                            ▲
//	        └──Run─▶ due? ─▶ order ─▶ challenge ─▶ certificate ─▶ disk ─┘
//	                                     │
//	            http-01: Challenge ◀─────┼─────▶ tls-alpn-01: TLSConfig
//	                                     └─────▶ dns-01: dynamic update
//
// It opens no socket for others to connect to: challenges are answered where clients come, by whoever serves them.
// All work is done in Run. Whatever goes wrong there, a certificate that is still valid stays in use.
//
// RFC 8555 (ACME), RFC 8737 (tls-alpn-01), RFC 9773 (renewal information), RFC 2136 (dynamic update).
package acme

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kyozon/kyozon/certs"
)

// LetsEncrypt is the directory of the ACME server where none is named.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// The challenges by which a name is proved to be ours. RFC 8555 §8.3, §8.4; RFC 8737 §3.
const (
	HTTP01    = "http-01"
	TLSALPN01 = "tls-alpn-01"
	DNS01     = "dns-01"
)

// ErrTwice means that two orders are for the same name at the same server, but differ in their settings.
var ErrTwice = errors.New("acme: ordered twice, with different settings")

// Settings say from whom certificates come, and how a name is proved to be ours.
type Settings struct {
	Directory string // URL of the server's directory
	Email     string // of the account; "" for none
	Roots     string // file of the CAs that sign the server's own certificate, PEM; "" for those of the system
	Challenge string // HTTP01, TLSALPN01 or DNS01
	DNS       DNS    // for DNS01
}

// DNS says where the records of dns-01 are put.
type DNS struct {
	Server netip.AddrPort // takes dynamic updates, RFC 2136
	Key    string         // file of the TSIG key, in the format of BIND; "" to send unsigned updates
	Settle time.Duration  // that secondary servers need to have an update
}

// Order is a certificate that is wanted.
type Order struct {
	Name     string // of the host, in lower case; a wildcard as "*.example.jp"
	Settings Settings
}

// key tells certificates apart.
type key struct{ directory, name string }

// Client gets certificates. It outlives reloads: what it has got is there for the next generation at once. It is safe
// for use by many goroutines.
type Client struct {
	dir     string
	log     *slog.Logger
	answers answers
	pace    pace
	work    chan struct{} // holds one: the Run at work in this process

	mu    sync.Mutex
	wants map[key]*want
}

// want is a certificate that was ordered once. All but slot belongs to the one Run at work.
type want struct {
	slot     *certs.Slot
	file     string
	settings Settings
	due      time.Time // when to look at it next
	failures int       // since it last succeeded
	info     renewal
}

// pace is how often things are done. Tests are in a hurry.
type pace struct {
	retry, retryMost time.Duration // after the first failure and after many
	ask              time.Duration // between two questions for renewal information
	lock             time.Duration // between two looks whether another process is still at work
}

// NewClient returns a client that keeps accounts and certificates below dir. It does nothing before Slots.
//
// The pace of retries keeps below Let's Encrypt's limit of five failures per name and hour.
func NewClient(dir string, log *slog.Logger) *Client {
	return &Client{dir: dir, log: log, wants: make(map[key]*want), work: make(chan struct{}, 1),
		pace: pace{retry: 5 * time.Minute, retryMost: time.Hour, ask: 6 * time.Hour, lock: time.Second}}
}

// Slots returns the slot of each order, filled if there is a certificate on disk. It asks no server. Returns ErrTwice.
func (c *Client) Slots(orders []Order) ([]*certs.Slot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var slots []*certs.Slot
	settings := make(map[key]Settings)
	for _, o := range orders {
		k := o.key()
		if before, ok := settings[k]; ok && before != o.Settings {
			return nil, fmt.Errorf("certificate for %s: %w", o.Name, ErrTwice)
		}
		settings[k] = o.Settings
		w := c.wants[k]
		if w == nil {
			w = &want{file: c.file(k), slot: &certs.Slot{Name: o.Name, Source: o.Settings.Directory, Asked: c.asked}}
			if err := os.MkdirAll(filepath.Dir(w.file), 0o700); err != nil {
				return nil, fmt.Errorf("certificate for %s: %w", o.Name, err)
			}
			c.load(w)
			c.wants[k] = w
		}
		slots = append(slots, w.slot)
	}
	return slots, nil
}

func (o Order) key() key { return key{o.Settings.Directory, o.Name} }

func (c *Client) asked(name, fault string) {
	if fault == "" {
		fault = "the order is under way"
	}
	c.log.Warn("a client was refused: there is no certificate yet", "name", name, "err", fault)
}
