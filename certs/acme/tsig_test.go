// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodKey = "key \"update.\" {\n\talgorithm hmac-sha256;\n\tsecret \"c2VjcmV0\";\n};\n"

func TestParseTSIGKey(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		want       tsigKey
		err        error
	}{
		{"as tsig-keygen writes it", goodKey, tsigKey{"update.", "hmac-sha256.", "c2VjcmV0"}, nil},
		{"in one line, the other way round", `key Update.Example { secret "c2VjcmV0"; algorithm HMAC-SHA512; };`,
			tsigKey{"update.example.", "hmac-sha512.", "c2VjcmV0"}, nil},
		{"without quotes", "key update { algorithm hmac-sha384; secret c2VjcmV0; };", tsigKey{"update.", "hmac-sha384.", "c2VjcmV0"}, nil},
		{"comments", "# one\n// two\n/* three\n { */ " + goodKey, tsigKey{"update.", "hmac-sha256.", "c2VjcmV0"}, nil},
		{"slashes in a secret are no comment", `key "a" { algorithm hmac-sha224; secret "c2//c2//"; };`, tsigKey{"a.", "hmac-sha224.", "c2//c2//"}, nil},
		{"the first of two", goodKey + `key "b" { algorithm hmac-sha256; secret "AAAA"; };`, tsigKey{"update.", "hmac-sha256.", "c2VjcmV0"}, nil},
		{"nothing", "", tsigKey{}, errNoKey},
		{"another statement", `zone "example" { type primary; };`, tsigKey{}, errNoKey},
		{"no braces", `key "update" algorithm hmac-sha256;`, tsigKey{}, errNoKey},
		{"no name", `key "" { algorithm hmac-sha256; secret "c2VjcmV0"; };`, tsigKey{}, errKeyName},
		{"no secret", `key "update" { algorithm hmac-sha256; };`, tsigKey{}, errSecret},
		{"broken secret", `key "update" { algorithm hmac-sha256; secret "c2VjcmV"; };`, tsigKey{}, errSecret},
		{"no algorithm", `key "update" { secret "c2VjcmV0"; };`, tsigKey{}, errAlgorithm},
		{"broken by now", `key "update" { algorithm hmac-md5; secret "c2VjcmV0"; };`, tsigKey{}, errAlgorithm},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k, err := parseTSIGKey(test.text)
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			if err == nil && *k != test.want {
				t.Errorf("got %+v, want %+v", *k, test.want)
			}
		})
	}
}

// TestReadTSIGKey checks that the message says which file, and never what the secret is.
func TestReadTSIGKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "update.key")
	if _, err := readTSIGKey(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte(`key "update" { algorithm hmac-md5; secret "hushhush"; };`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readTSIGKey(path); !errors.Is(err, errAlgorithm) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hush") {
		t.Errorf("error: %v", err)
	}
}

// FuzzParseTSIGKey holds that a key that is taken is one that updates can be signed with.
func FuzzParseTSIGKey(f *testing.F) {
	for _, s := range []string{goodKey, `key a { secret "c2//"; algorithm hmac-sha512; };`, "/* key", `key " { };`, "key \"\\000\" {"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseTSIGKey(text)
		if err != nil {
			return
		}
		if err := k.check(); err != nil || strings.ContainsAny(k.name, "\"{};\n") {
			t.Errorf("%q gives %+v, %v", text, *k, err)
		}
	})
}
