// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	systemFile  = "/etc/resolv.conf"
	mostServers = 3 // as the C library: resolv.conf(5)
	mostConf    = 64 << 10
	port        = 53
	lookAgain   = 5 * time.Second
)

// servers are those to ask: the ones that were given, or those of a file, which may change.
type servers struct {
	given []netip.AddrPort
	file  string

	mu     sync.Mutex
	looked time.Time // when the file was last looked at
	stamp  time.Time // when it was last changed
	found  []netip.AddrPort
}

// list returns the servers, in the order in which to ask them. There is always one.
func (s *servers) list() []netip.AddrPort {
	if len(s.given) > 0 {
		return s.given
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.looked) < lookAgain && !s.looked.IsZero() {
		return s.found
	}
	s.looked = time.Now()
	if info, err := os.Stat(s.file); err != nil || !info.ModTime().Equal(s.stamp) {
		s.found = readFile(s.file)
		if err == nil {
			s.stamp = info.ModTime()
		}
	}
	return s.found
}

// readFile returns the servers of a file, or the one of this machine: resolv.conf(5).
func readFile(name string) []netip.AddrPort {
	var found []netip.AddrPort
	if f, err := os.Open(name); err == nil {
		defer f.Close()
		found = readConf(io.LimitReader(f, mostConf))
	}
	if len(found) == 0 {
		found = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	}
	return found
}

// readConf reads the lines that name servers. The others do not matter to who asks for complete names only.
func readConf(r io.Reader) (found []netip.AddrPort) {
	for lines := bufio.NewScanner(r); lines.Scan() && len(found) < mostServers; {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil { // with its zone: it may be of the link
			found = append(found, netip.AddrPortFrom(a.Unmap(), port))
		}
	}
	return found
}
