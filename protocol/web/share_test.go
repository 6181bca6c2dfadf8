// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/service"
)

// TestShare: what two services at one address must agree on, and what each may say for itself.
func TestShare(t *testing.T) {
	t.Parallel()
	const (
		ended  = "tls: {certificate: a.pem, key: a.key}"
		passed = "tls: {pass-through: true}"
	)
	for _, test := range []struct {
		name, first, second string // the sections web
		want                []string
	}{
		{"all alike", "hosts: [a.example]", "hosts: [b.example]", nil},
		{"one for the rest", "hosts: [a.example]", "{}", nil},
		{"a response's time", "hosts: [a.example]", "hosts: [b.example], timeouts: {response: 5s}", nil},
		{"TLS ended and passed through", "hosts: [a.example], " + ended, "hosts: [b.example], " + passed, nil},
		{"versions", "hosts: [a.example], " + ended, `hosts: [b.example], tls: {certificate: a.pem, key: a.key, minimum: "1.3"}`, nil},
		{"both for the rest", "{}", "{}", []string{
			`14:5: "a" at [2001:db8::1]:80 takes the requests that no other service takes, too; give hosts to one of them`}},
		{"hosts", "hosts: [a.example, c.example]", "hosts: [b.example, c.example, a.example]", []string{
			`14:30: "a" has this host at [2001:db8::1]:80 too`, `14:41: "a" has this host at [2001:db8::1]:80 too`}},
		{"head", "hosts: [a.example], limits: {head: 32KiB}", "hosts: [b.example]", []string{
			`14:5: "a" listens to [2001:db8::1]:80 too, and a head is read before it is known whom it is for; write the same in both`}},
		{"underscores", "hosts: [a.example]", "hosts: [b.example], limits: {underscores: true}", []string{
			`14:31: "a" listens to [2001:db8::1]:80 too, and a head is read before it is known whom it is for; write the same in both`}},
		{"deadlines", "hosts: [a.example]", "hosts: [b.example], timeouts: {request: 1s, keep-alive: 2s}", []string{
			`14:51: "a" listens to [2001:db8::1]:80 too, and the time of a request begins before it is known whom it is for; write the same in both`,
			`14:67: "a" listens to [2001:db8::1]:80 too, and nobody knows whom the next request will be for; write the same in both`}},
		{"TLS and clear", "hosts: [a.example], " + ended, "hosts: [b.example]", []string{
			`14:5: of "a" and this service, which share [2001:db8::1]:443, one speaks TLS there and one does not; an address speaks one of both`}},
		{"plain ports", "hosts: [a.example], " + ended, "hosts: [b.example], tls: {certificate: a.pem, key: a.key, plain-ports: [443]}", []string{
			`14:31: of "a" and this service, which share [2001:db8::1]:443, one speaks TLS there and one does not; an address speaks one of both`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			b.WriteString("site: x\nservices:\n")
			writeShared(&b, "a", test.first)
			writeShared(&b, "b", test.second)
			_, err := config.Parse("site.yaml", []byte(b.String()), []service.Protocol{Protocol()}, config.Options{})
			var got []string
			for _, e := range config.Errors(err) {
				got = append(got, strings.TrimPrefix(e.Error(), "site.yaml:"))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s\n%s", diff, b.String())
			}
		})
	}
}

func writeShared(b *strings.Builder, name, section string) {
	if section != "{}" {
		section = "{" + section + "}"
	}
	fmt.Fprintf(b, "  %s:\n    protocol: web\n    listen: [\"[2001:db8::1]:80\", \"[2001:db8::1]:443\"]\n"+
		"    pools: {p: [\"10.0.0.1:80\"]}\n    clients: {ipv6: p}\n    web: %s\n", name, section)
}
