// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestOpenSSL reads hellos of a client that is not written in Go. One of them is spread over records by the client.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/openssl.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSpace(line), "|")
		t.Run(strings.TrimSpace(f[0]), func(t *testing.T) {
			t.Parallel()
			p, err := hex.DecodeString(strings.TrimSpace(f[4]))
			if err != nil {
				t.Fatal(err)
			}
			want := Hello{ServerName: strings.TrimSpace(f[1]), ALPN: strings.Fields(f[2])}
			for v := range strings.FieldsSeq(f[3]) {
				var version uint16
				if _, err := fmt.Sscanf(v, "%x", &version); err != nil {
					t.Fatal(err)
				}
				want.Versions = append(want.Versions, version)
			}
			got, n, err := ParseHello(p)
			if err != nil || n != len(p) {
				t.Fatalf("ParseHello = %d, %v, want %d", n, err, len(p))
			}
			if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}
