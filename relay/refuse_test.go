// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// untilClosed tells when its connection is closed.
type untilClosed chan error

func (h untilClosed) Data(_ *Conn, p []byte) int { return len(p) }
func (h untilClosed) Event(*Conn, Event)         {}
func (h untilClosed) Closed(_ *Conn, err error)  { h <- err }

// A client that is refused after its own handshake is done learns why, whatever it has sent meanwhile and goes on to send.
func TestServerTLSSaysWhy(t *testing.T) {
	t.Parallel()
	eachWay(t, 1, serverTLSSaysWhy)
}

func serverTLSSaysWhy(t *testing.T, ls *Loops) {
	server, client := servertest.TLS(t, "shop.example.jp")
	server.ClientAuth = tls.RequireAnyClientCert
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		e := connected(t, ls, f)
		closed := make(untilClosed, 1)
		e.start(asServer, server, closed)
		c := tls.Client(e.peer, client)
		if err := c.HandshakeContext(context.Background()); err != nil {
			t.Fatal(err)
		}
		request := make([]byte, 8<<10)
		if _, err := c.Write(request); err != nil {
			t.Errorf("what is sent with the handshake: %v", err)
		}
		select {
		case err := <-closed:
			if err == nil || !strings.Contains(err.Error(), "client didn't provide a certificate") {
				t.Errorf("the handler is told %v", err)
			}
		case <-time.After(patience):
			t.Fatal("the handler is told nothing")
		}
		for range 3 {
			if _, err := c.Write(request); err != nil {
				t.Errorf("what is sent behind it: %v", err)
			}
		}
		if _, err := c.Read(request); err == nil || err.Error() != "remote error: tls: certificate required" {
			t.Errorf("the client reads %v", err)
		}
		if _, err := e.peer.Read(request); !errors.Is(err, io.EOF) {
			t.Errorf("and then %v", err)
		}
	})
}
