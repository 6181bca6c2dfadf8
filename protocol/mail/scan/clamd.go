// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package scan

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/kyozon/kyozon/ip"
)

const (
	pieceSize  = 64 << 10
	replyLimit = 1 << 10 // bytes of what clamd says
)

// errClamd means that clamd says something else than that there is a virus, or none.
var errClamd = errors.New("clamd")

// clamd has a server look for a virus, and returns its name, or "". INSTREAM of clamd(8): pieces with their length before
// them, an empty one at the end.
func clamd(ctx context.Context, at netip.AddrPort, m *Message) (virus string, err error) {
	c, err := dial(ctx, "", at.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if err := instream(c, m); err != nil && ctx.Err() == nil {
		// It may have closed because it has said that this is too much: what it says counts.
		if said, readErr := reply(c); readErr == nil {
			return verdict(said)
		}
		return "", err
	}
	said, err := reply(c)
	if err != nil {
		return "", err
	}
	return verdict(said)
}

func instream(c net.Conn, m *Message) error {
	if _, err := io.WriteString(c, "zINSTREAM\x00"); err != nil {
		return err
	}
	p := make([]byte, 4+pieceSize)
	for at := int64(0); at < m.Size; {
		n, err := m.Text.ReadAt(p[4:4+min(pieceSize, m.Size-at)], at)
		if err != nil && !(errors.Is(err, io.EOF) && at+int64(n) == m.Size) {
			return fmt.Errorf("read message: %w", err)
		}
		binary.BigEndian.PutUint32(p, uint32(n))
		if _, err := c.Write(p[:4+n]); err != nil {
			return err
		}
		at += int64(n)
	}
	_, err := c.Write(make([]byte, 4))
	return err
}

// reply reads what clamd says, to the zero byte at its end.
func reply(c net.Conn) ([]byte, error) {
	p, err := io.ReadAll(io.LimitReader(c, replyLimit))
	if err != nil && !bytes.HasSuffix(p, []byte{0}) {
		return nil, err
	}
	return p, nil
}

// verdict reads "stream: OK" or "stream: NAME FOUND".
func verdict(said []byte) (virus string, err error) {
	text, whole := strings.CutSuffix(string(said), "\x00")
	text, found := strings.CutPrefix(text, "stream: ")
	name, bad := strings.CutSuffix(text, " FOUND")
	switch {
	case whole && found && bad && clip(name) != "":
		return name, nil
	case whole && found && text == "OK":
		return "", nil
	}
	return "", fmt.Errorf("%w says %q", errClamd, clip(text))
}

// dial connects to an engine, over the family of its address.
func dial(ctx context.Context, _, at string) (net.Conn, error) {
	addr, err := netip.ParseAddrPort(at)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, fmt.Sprintf("tcp%d", ip.FamilyOf(addr.Addr())), at)
}
