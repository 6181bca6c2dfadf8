// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What outlives the process:
//
//	DIR/lock                      locked by the process that orders
//	DIR/SERVER/account EMAIL.key  the key of the account
//	DIR/SERVER/NAME.pem           the key of a certificate, the certificate, and those that signed it
//
// Key and certificate are in one file so that it can be replaced at once.

// errNames means that a certificate is not for the name it was ordered for.
var errNames = errors.New("it is for other names")

// file returns where a certificate is kept. No host has an underscore in its name, so that a wildcard can.
func (c *Client) file(k key) string {
	name := strings.Replace(k.name, "*", "_", 1)
	return filepath.Join(c.server(k.directory), name+".pem")
}

// server returns the folder of an ACME server. What its URL has beside the host is escaped: it becomes one name.
func (c *Client) server(directory string) string {
	_, rest, _ := strings.Cut(directory, "://")
	return filepath.Join(c.dir, url.PathEscape(rest))
}

// load fills the slot of w with what is on disk, if that is another certificate and ends later than what is in it.
func (c *Client) load(w *want) {
	data, err := os.ReadFile(w.file)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var cert *tls.Certificate
	if err == nil {
		cert, err = parse(data, w.slot.Name)
	}
	if err != nil {
		c.log.Error("a certificate on disk is of no use, and will be ordered anew", "file", w.file, "err", err)
		return
	}
	if now := w.slot.Certificate(); now == nil || cert.Leaf.NotAfter.After(now.Leaf.NotAfter) {
		w.slot.Fill(cert)
	}
}

// parse reads the content of a file: a key, and a certificate for name.
func parse(data []byte, name string) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(cert.Leaf.DNSNames, name) {
		return nil, errNames
	}
	return &cert, nil
}

// save writes a key and what was signed for it, and returns the certificate.
func save(w *want, key crypto.Signer, chain []byte) (*tls.Certificate, error) {
	text, err := encode(key)
	if err != nil {
		return nil, err
	}
	text = append(text, chain...)
	cert, err := parse(text, w.slot.Name)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return cert, replace(w.file, text)
}

// encode returns a key in PEM. RFC 5958.
func encode(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// replace writes a file so that there is always the old one or the new one, also after a crash.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // readable by its owner only
	if err != nil {
		return fmt.Errorf("save certificate: %w", err)
	}
	defer os.Remove(f.Name()) // if it is still there
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save certificate: %w", err)
	}
	return nil
}

// accountKey returns the key of the account with a server, which is made if there is none.
func (c *Client) accountKey(s Settings) (crypto.Signer, error) {
	path := filepath.Join(c.server(s.Directory), "account "+url.PathEscape(s.Email)+".key")
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newAccountKey(path)
	case err != nil:
		return nil, fmt.Errorf("read account: %w", err)
	}
	block, _ := pem.Decode(bytes.TrimSpace(text))
	if block == nil {
		return nil, fmt.Errorf("read account: %s holds no key", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read account: %s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read account: %s: a key that cannot sign", path)
	}
	return signer, nil
}

func newAccountKey(path string) (crypto.Signer, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	text, err := encode(key)
	if err != nil {
		return nil, err
	}
	return key, replace(path, text)
}

func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// lock waits until no other process orders, as there is one during an upgrade.
func (c *Client) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock certificates: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock certificates: %w", err)
		}
		if !sleep(ctx, c.pace.lock) {
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}

// sleep waits, and says whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
