// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package outcome

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
	"slices"

	"github.com/kyozon/kyozon/ip"
)

// Key names a message of a client: two are the same if and only if the client's prefix, the service, the sender, the
// recipients, in any order, and every byte of the content are.
type Key [sha256.Size]byte

// Digest is that of a message's content. It is computed as the content comes, piece by piece: what is digested is what
// the message is, without the dots of DATA and the frames of BDAT, so that it does not matter how it comes the second
// time. The zero value is ready.
type Digest struct {
	hash hash.Hash
}

// Reset begins with another message.
func (d *Digest) Reset() {
	if d.hash != nil {
		d.hash.Reset()
	}
}

// Add adds a piece of the content.
func (d *Digest) Add(p []byte) {
	if d.hash == nil {
		d.hash = sha256.New()
	}
	d.hash.Write(p) // never fails
}

// Envelope is who sends a message to whom.
type Envelope struct {
	Service    string
	Client     netip.Addr
	Sender     []byte
	Recipients [][]byte // sorted by Key
}

// Key returns that of the message whose content has been digested. The digest may be added to and asked again.
func (d *Digest) Key(e Envelope) (k Key) {
	d.Add(nil)
	var content [sha256.Size]byte
	d.hash.Sum(content[:0])
	h := sha256.New()
	add := func(p []byte) {
		var size [8]byte // in front of each, so that none can look like two
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
	text, _ := ip.ClientPrefix(e.Client).MarshalBinary() // never fails
	add(text)
	add([]byte(e.Service))
	add(content[:])
	add(e.Sender)
	slices.SortFunc(e.Recipients, slices.Compare[[]byte])
	for _, r := range e.Recipients {
		add(r)
	}
	h.Sum(k[:0])
	return k
}
