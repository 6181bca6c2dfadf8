// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
)

// The mistakes of a file of authorities, beside certificates that cannot be read.
var (
	errNoCA  = errors.New("holds no certificate in PEM form")
	errAfter = errors.New("is no PEM after the last certificate")
)

// ParseAuthorities reads the certificates of those who may sign, PEM. Other than the standard library it passes over
// none that cannot be read, and over none that is cut off: who is missing would be found out much later.
func ParseAuthorities(data []byte) (all []*x509.Certificate, err error) {
	rest, err := eachBlock(data, "CERTIFICATE", func(der []byte) error {
		c, err := x509.ParseCertificate(der)
		all = append(all, c)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case len(all) == 0:
		return nil, errNoCA
	case bytes.Contains(rest, []byte("-----BEGIN")):
		return nil, errAfter
	}
	return all, nil
}

// eachBlock calls f for each PEM block of a kind and returns what is after the last block.
func eachBlock(data []byte, kind string, f func(der []byte) error) (rest []byte, err error) {
	for {
		block, after := pem.Decode(data)
		if block == nil {
			return data, nil
		}
		data = after
		if block.Type != kind {
			continue
		}
		if err := f(block.Bytes); err != nil {
			return data, err
		}
	}
}

// Pool returns the certificates as what may be trusted.
func Pool(all []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range all {
		pool.AddCert(c)
	}
	return pool
}
