// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/miekg/dns"
)

// The mistakes in a file with a TSIG key.
var (
	errNoKey     = errors.New(`no key; the file holds, as tsig-keygen writes it: key "NAME" { algorithm hmac-sha256; secret "…"; };`)
	errAlgorithm = errors.New("algorithm must be hmac-sha224, hmac-sha256, hmac-sha384 or hmac-sha512")
	errSecret    = errors.New("secret is not base64")
	errKeyName   = errors.New("the key's name is not a domain name")
)

// tsigKey signs dynamic updates. RFC 8945.
type tsigKey struct {
	name      string // fully qualified, in lower case
	algorithm string // likewise
	secret    string // base64
}

func readTSIGKey(path string) (*tsigKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k, err := parseTSIGKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// comment is what the format of BIND's named.conf has of comments; word is one of its words, or a sign.
var (
	comment = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*|#[^\n]*`)
	word    = regexp.MustCompile(`"[^"\n]*"|[{};]|[^\s{};"]+`)
)

// parseTSIGKey reads the first key statement of a file in the format of BIND's named.conf.
func parseTSIGKey(text string) (*tsigKey, error) {
	// A secret may hold "//": what is quoted is no comment.
	parts := strings.Split(text, `"`)
	for i := 0; i < len(parts); i += 2 {
		parts[i] = comment.ReplaceAllString(parts[i], " ")
	}
	words := word.FindAllString(strings.Join(parts, `"`), -1)
	if len(words) < 3 || words[0] != "key" || words[2] != "{" {
		return nil, errNoKey
	}
	var k tsigKey
	k.name = dns.CanonicalName(unquote(words[1]))
	for rest := words[3:]; len(rest) >= 3 && rest[0] != "}" && rest[2] == ";"; rest = rest[3:] {
		switch rest[0] {
		case "algorithm":
			k.algorithm = dns.CanonicalName(unquote(rest[1]))
		case "secret":
			k.secret = unquote(rest[1])
		}
	}
	return &k, k.check()
}

func unquote(s string) string { return strings.Trim(s, `"`) }

func (k *tsigKey) check() error {
	if _, ok := dns.IsDomainName(k.name); !ok || k.name == "." {
		return errKeyName
	}
	switch k.algorithm {
	case dns.HmacSHA224, dns.HmacSHA256, dns.HmacSHA384, dns.HmacSHA512:
	default:
		return errAlgorithm
	}
	if secret, err := base64.StdEncoding.DecodeString(k.secret); err != nil || len(secret) == 0 {
		return errSecret
	}
	return nil
}
