// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// The kinds of records and messages that are used here. RFC 8446 §5.1, §4, §4.6.3.
const (
	handshakeRecord = 22
	dataRecord      = 23
	update          = "\x18\x00\x00\x01\x00" // KeyUpdate that asks for none
	updateBoth      = "\x18\x00\x00\x01\x01" // KeyUpdate that asks for another
)

// records speaks TLS 1.3 record by record, after a handshake by crypto/tls, which cannot be asked to update its keys.
type records struct {
	net.Conn
	from, to direction
}

// direction is one half of a connection: its keys and how many records have used them. RFC 8446 §5.2, §5.3, §7.
type direction struct {
	secret []byte
	count  uint64
	aead   cipher.AEAD
	iv     []byte
}

func (d *direction) use(secret []byte) {
	block, err := aes.NewCipher(expand(secret, "key", 16))
	if err != nil {
		panic(err)
	}
	d.aead, err = cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	d.secret, d.iv, d.count = secret, expand(secret, "iv", 12), 0
}

// update goes on to the next keys. RFC 8446 §7.2.
func (d *direction) update() { d.use(expand(d.secret, "traffic upd", 32)) }

// expand is HKDF-Expand-Label. RFC 8446 §7.1.
func expand(secret []byte, label string, size int) []byte {
	label = "tls13 " + label
	out, err := hkdf.Expand(sha256.New, secret, string([]byte{0, byte(size), byte(len(label))})+label+"\x00", size)
	if err != nil {
		panic(err)
	}
	return out
}

func (d *direction) nonce() []byte {
	n := bytes.Clone(d.iv)
	binary.BigEndian.PutUint64(n[4:], binary.BigEndian.Uint64(n[4:])^d.count)
	d.count++
	return n
}

// record returns one record as it is sent.
func (r *records) record(kind byte, content string) []byte {
	inner := append([]byte(content), kind)
	head := []byte{dataRecord, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(inner)+r.to.aead.Overhead()))
	return r.to.aead.Seal(head, r.to.nonce(), inner, head)
}

// next reads one record.
func (r *records) next() (kind byte, content string, err error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, "", err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, "", err
	}
	inner, err := r.from.aead.Open(nil, r.from.nonce(), body, head)
	if err != nil {
		return 0, "", fmt.Errorf("record %d: %w", r.from.count-1, err)
	}
	return inner[len(inner)-1], string(inner[:len(inner)-1]), nil
}

// handshaken starts TLS 1.3 on the loop and returns the peer's records.
func handshaken(t *testing.T, ls *Loops, f ip.Family, r role, h Handler) (*ends, *records) {
	t.Helper()
	server, client := servertest.TLS(t, "shop.example.jp")
	server.SessionTicketsDisabled = true // no records but those of the test
	e := connected(t, ls, f)
	e.start(r, r.ours(server.Clone(), client.Clone()), h)
	var log strings.Builder
	server.KeyLogWriter, client.KeyLogWriter = &log, &log
	c := r.speak(e.peer, server, client)
	if err := errors.Join(c.Handshake(), <-e.ready); err != nil {
		t.Fatal(err)
	}
	if c.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("crypto/tls has chosen another cipher: this machine has no AES instructions")
	}
	secrets := make(map[string][]byte)
	for line := range strings.Lines(log.String()) {
		words := strings.Fields(line)
		secret, err := hex.DecodeString(words[2])
		if err != nil {
			t.Fatal(err)
		}
		secrets[words[0]] = secret
	}
	peer := &records{Conn: e.peer}
	mine, theirs := "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"
	if r == asClient {
		mine, theirs = theirs, mine
	}
	peer.to.use(secrets[mine])
	peer.from.use(secrets[theirs])
	return e, peer
}

// A peer may change its keys at any time and ask us to change ours: RFC 8446 §4.6.3. Both roles go on, whether the
// records come alone, together or in pieces.
func TestKeyUpdate(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	for _, r := range []role{asServer, asClient} {
		t.Run(r.String(), func(t *testing.T) {
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				for _, size := range []int{1 << 20, 30, 1} {
					_, peer := handshaken(t, ls, f, r, newEchoer())
					for round := range 4 {
						asks := round%2 == 0
						message := update
						if asks {
							message = updateBoth
						}
						flight := append(peer.record(dataRecord, "before"), peer.record(handshakeRecord, message)...)
						peer.to.update()
						flight = append(flight, peer.record(dataRecord, "after")...)
						if _, err := (pieces{peer.Conn.(*net.TCPConn), size}).Write(flight); err != nil {
							t.Fatal(err)
						}
						peer.expect(t, asks)
					}
				}
			})
		})
	}
}

// expect reads the echo of what was sent before the update and after it, and the answer if one was asked for, which
// may come before either.
func (r *records) expect(t *testing.T, asked bool) {
	t.Helper()
	var heard string
	for heard != "beforeafter" || asked {
		kind, content, err := r.next()
		switch {
		case err != nil:
			t.Fatalf("after %q: %v", heard, err)
		case kind == dataRecord:
			heard += content
		case kind == handshakeRecord && asked && content == update:
			r.from.update()
			asked = false
		default:
			t.Fatalf("after %q: got a record of kind %d: %x", heard, kind, content)
		}
	}
}

// mute takes everything and answers nothing.
type mute struct{ over chan error }

func (mute) Data(_ *Conn, p []byte) int  { return len(p) }
func (mute) Event(*Conn, Event)          {}
func (m mute) Closed(_ *Conn, err error) { m.over <- err }

// A peer that has us change our keys again and again, and reads none of the answers, is not borne with for ever.
func TestKeyUpdateFlood(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	for _, r := range []role{asServer, asClient} {
		t.Run(r.String(), func(t *testing.T) {
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				h := mute{make(chan error, 1)}
				e, peer := handshaken(t, ls, f, r, h)
				onLoop(ls, func() {
					unix.SetsockoptInt(int(e.ours.fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)
					e.ours.Write(make([]byte, 1<<20)) // more than the kernel takes: answers wait behind it
				})
				for range maxAnswers / 20 {
					flight := peer.record(handshakeRecord, updateBoth)
					peer.to.update()
					if _, err := peer.Write(append(flight, peer.record(dataRecord, "x")...)); err != nil {
						break // a byte of data in between: crypto/tls itself bounds updates in a row
					}
				}
				select {
				case err := <-h.over:
					if !errors.Is(err, errAnswers) {
						t.Errorf("got %v", err)
					}
				case <-time.After(patience):
					t.Error("the connection goes on")
				}
			})
		})
	}
}
