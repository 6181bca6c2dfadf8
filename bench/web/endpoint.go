// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/bench/load"
	"github.com/kyozon/kyozon/ip"
)

// endpoint is where a work is done, and what is spoken there.
type endpoint struct {
	port   uint16
	scheme string // "" means that a stream of bytes comes
	major  int    // version of HTTP
}

// url returns the URL of the endpoint at a program. A TLS client may ask for a name only (RFC 6066 §3), and the tools
// ask for whatever the URL has.
func (e endpoint) url(f ip.Family, program string) string {
	return fmt.Sprintf("%s://%s:%d/", e.scheme, nameOf(f, program), e.port)
}

// families returns those that the endpoint has. Where clients have connections of their own they are all IPv6: IPv4 ones
// would be known to the servers by their own addresses, which needs another network.
func (e endpoint) families() []ip.Family {
	if e.port == portClient {
		return []ip.Family{ip.V6}
	}
	return []ip.Family{ip.V4, ip.V6}
}

const checkTime = 10 * time.Second

var errWrong = errors.New("a wrong answer")

// check has a program answer once, and looks at every byte: a rate of wrong answers is no rate.
func (p *place) check(ctx context.Context, r *running, e endpoint) (err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	for _, f := range e.families() {
		if e.scheme == "" {
			err = p.checkBytes(ctx, r, f)
		} else {
			err = p.checkAnswer(ctx, r, f, e)
		}
		if err != nil {
			return fmt.Errorf("check port %d of %s over %v: %w", e.port, r.name, f, err)
		}
	}
	return nil
}

func (p *place) checkAnswer(ctx context.Context, r *running, f ip.Family, e endpoint) error {
	at := r.at(f, e.port)
	t := &http.Transport{DisableKeepAlives: true, Protocols: new(http.Protocols), TLSClientConfig: load.ClientTLS(host),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return p.client.DialContext(ctx, bench.Network(at), at.String())
		}}
	defer t.CloseIdleConnections()
	t.Protocols.SetHTTP1(e.major == 1)
	t.Protocols.SetHTTP2(e.major == 2 && e.scheme == "https")
	t.Protocols.SetUnencryptedHTTP2(e.major == 2 && e.scheme == "http")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url(f, r.name), nil)
	if err != nil {
		return err
	}
	request.Host = host
	answer, err := t.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	return e.judge(answer, got)
}

// judge says whether an answer is what was asked for, and came as it should.
func (e endpoint) judge(answer *http.Response, got []byte) error {
	secure := answer.TLS != nil
	if answer.StatusCode != http.StatusOK || answer.ProtoMajor != e.major || string(got) != body() || secure != (e.scheme == "https") {
		return fmt.Errorf("%w: %s, TLS %v, status %d, %d bytes", errWrong, answer.Proto, secure, answer.StatusCode, len(got))
	}
	if secure {
		return load.CheckTLS(*answer.TLS)
	}
	return nil
}

// checkBytes reads the beginning of a download.
func (p *place) checkBytes(ctx context.Context, r *running, f ip.Family) error {
	at := r.at(f, portBulk)
	c, err := p.client.DialContext(ctx, bench.Network(at), at.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(checkTime)); err != nil {
		return err
	}
	want, got := bench.BulkData(), make([]byte, bench.BulkSize)
	for range 4 {
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%w: not the bytes that were sent", errWrong)
		}
	}
	return nil
}
