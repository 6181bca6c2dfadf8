// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"strings"
	"testing"
)

// shop is the present state of a provider, without kyozon: HAProxy before IPv4-only servers, and a dedicated IPv6
// server that reaches the same database over private IPv4.
const shop = `
lab: shop
names: {shop.example.jp: [203.0.113.10, "2001:db8:100::10"]}
links: {access: {}, servers: {}, data: {}}
hosts:
  subscriber4: {links: {access: 203.0.113.2/24}}
  subscriber6: {links: {access: "2001:db8:100::2/64"}}
  balancer:
    links: {access: [203.0.113.10/24, "2001:db8:100::10/64"], servers: [10.0.1.2/24, "fd00:1::2/64"]}
    servers:
      - haproxy: {listen: 203.0.113.10:80, servers: 10.0.1.11:80, forwarded-for: true, check: /healthz}
      - haproxy: {listen: "[2001:db8:100::10]:80", servers: "[fd00:1::21]:80", forwarded-for: true}
      - haproxy: {listen: "[2001:db8:100::10]:81", mode: tcp, servers: 10.0.1.11:81}
  web1:
    links: {servers: 10.0.1.11/24, data: 10.0.3.11/24}
    servers:
      - nginx: {listen: 10.0.1.11:80, upstream: 127.0.0.1:8080, trust: 10.0.1.2/32}
      - app: {listen: 127.0.0.1:8080, database: postgres://shop@10.0.3.31/shop, trust: 127.0.0.0/8}
  web6:
    links: {servers: "fd00:1::21/64", data: 10.0.3.21/24}
    servers:
      - app: {listen: "[fd00:1::21]:80", database: postgres://shop@10.0.3.31/shop, trust: "fd00:1::2/128"}
  db:
    links: {data: 10.0.3.31/24}
    servers:
      - postgres: {listen: 10.0.3.31:5432, database: shop, user: shop, allow: 10.0.3.0/24}
  game:
    links: {servers: 10.0.1.31/24}
    servers:
      - udp: {listen: 10.0.1.31:27015}
      - nginx: {listen: 10.0.1.31:80, body: "game to $remote_addr\n", files: {big: 1000000}}
try:
  - {from: subscriber4, crossing: 4→4, get: "http://shop.example.jp/", want: {body: '"server":"web1".*"client":"203.0.113.2","stored":"203.0.113.2"'}}
  - {from: subscriber6, crossing: 6→6, get: "http://shop.example.jp/", want: {body: '"server":"web6".*"stored":"2001:db8:100::2","family":6'}}
  - {from: subscriber6, crossing: 6→4, get: "http://shop.example.jp:81/", want: {fail: true}}
  - {from: subscriber4, get: "http://shop.example.jp/healthz"}
  - {from: subscriber4, get: "http://10.0.1.11/", timeout: 1s, want: {fail: true}}
  - {from: web1, crossing: 4→4, ask: 10.0.1.31:27015, send: hello, want: {body: '^game saw 10.0.1.11 #1: hello$'}}
  - {from: web1, crossing: 4→4, get: "http://10.0.1.31/x", want: {body: "^game to 10.0.1.11\n$"}}
  - {from: web1, get: "http://10.0.1.31/big", want: {body: "@B", not: "nothing like this"}}
  - {from: db, command: [psql, -h, 10.0.3.31, -U, shop, -Atc, "select client from visits where family(client) = 6"], want: {body: "^2001:db8:100::2\n$"}}
`

func TestServers(t *testing.T) {
	t.Parallel()
	l := up(t, shop)
	for _, r := range l.TryAll(t.Context()) {
		if !r.OK {
			t.Errorf("%s from %s to %s: %s", r.Attempt.Crossing, r.Attempt.From, r.Attempt.to(), r.Detail)
		}
	}
	log, err := l.Host("game").ReadFile("/var/log/nginx/access.log")
	if err != nil || !strings.HasPrefix(string(log), "10.0.1.11 - - [") {
		t.Errorf("access log: %q, %v", log, err)
	}
}
