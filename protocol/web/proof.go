// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"strconv"

	"github.com/kyozon/kyozon/certs/acme"
)

// proves answers the request if it is an ACME server's for http-01, and ends the connection; such a server asks once.
// What only looks like one goes to the service as any other request. RFC 8555 §8.3.
func (h *client1) proves() bool {
	x := h.exchange
	if !bytes.HasPrefix(x.request.Target, []byte(acme.Path)) {
		return false
	}
	body, ok := x.table.acme.Challenge(x.request.Host(), x.request.Target)
	if !ok || string(x.request.Method) != "GET" {
		return false
	}
	out := append(h.scratch(), "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\nContent-Length: "...)
	out = strconv.AppendInt(out, int64(len(body)), 10)
	out = append(out, "\r\n\r\n"...)
	h.conn.Write(append(out, body...))
	x.record.answered(200)
	h.finishExchange()
	h.letGo()
	h.phase = over
	h.conn.Linger(lingerTime)
	return true
}
