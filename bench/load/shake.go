// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// Shake does a plan with a connection for each request: TCP, a full handshake of TLS 1.3, a request, an answer, and
// the program's close. It calls ready, and begins. Returns ErrWrong or ErrSuite.
func Shake(p Plan, ready func() error) (Report, error) {
	if err := ready(); err != nil {
		return Report{}, err
	}
	began := time.Now()
	latencies, errs := make([][]time.Duration, p.Connections), make([]error, p.Connections)
	var wg sync.WaitGroup
	for i := range p.Connections {
		wg.Go(func() {
			for before := began; before.Sub(began) < p.Time && errs[i] == nil; {
				errs[i] = p.shake()
				now := time.Now()
				latencies[i] = append(latencies[i], now.Sub(before))
				before = now
			}
		})
	}
	wg.Wait()
	var all []time.Duration
	for _, l := range latencies {
		all = append(all, l...)
	}
	return report(time.Since(began), all), errors.Join(errs...)
}

// shake is one connection.
func (p Plan) shake() error {
	network := "tcp6"
	if ip.FamilyOf(p.To.Addr()) == ip.V4 {
		network = "tcp4"
	}
	stream, err := net.DialTimeout(network, p.To.String(), patience)
	if err != nil {
		return err
	}
	c := tls.Client(stream, ClientTLS(p.Host))
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", p.Host); err != nil {
		return err
	}
	if err := CheckTLS(c.ConnectionState()); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, answer)
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, answer))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if r.StatusCode != http.StatusOK || !bytes.Equal(body, []byte(p.Body)) {
		return fmt.Errorf("%w: status %d, %d bytes", ErrWrong, r.StatusCode, len(body))
	}
	// The program closes first, so that the ports which wait for stragglers (RFC 9293 §3.6) are not the client's.
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("await close: %w", err)
	}
	return nil
}

// ClientTLS returns what a client offers that comes for the first time: TLS 1.3 with X25519 only, which the oldest of
// the programs has, too, and no session, though it would take one. It does not know the certificate, but verifies that
// the program has its key.
func ClientTLS(host string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}, ServerName: host,
		InsecureSkipVerify: true, ClientSessionCache: noSessions{}}
}

// noSessions forgets all sessions. Without a cache the client would ask for none, and the programs be spared making them.
type noSessions struct{}

func (noSessions) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (noSessions) Put(string, *tls.ClientSessionState)        {}

// CheckTLS says whether a handshake was the one that all programs are measured by: TLS_AES_128_GCM_SHA256 and a
// certificate with ECDSA. Returns ErrSuite if it was another.
func CheckTLS(s tls.ConnectionState) error {
	if s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 || s.DidResume || s.CurveID != tls.X25519 {
		return fmt.Errorf("%w: %s, %v, resumed %v", ErrSuite, tls.CipherSuiteName(s.CipherSuite), s.CurveID, s.DidResume)
	}
	if len(s.PeerCertificates) == 0 || s.PeerCertificates[0].PublicKeyAlgorithm.String() != "ECDSA" {
		return fmt.Errorf("%w: a certificate that is not ECDSA", ErrSuite)
	}
	return nil
}
