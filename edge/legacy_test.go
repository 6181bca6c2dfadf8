// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/edge"
)

// TestLegacies reads what an old process says before it says "go".
func TestLegacies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, said string
		want       edge.Legacies
		ok         bool
	}{
		{"none", "go\n", edge.Legacies{}, true},
		{"two", "legacy mail aGVsbG8=\nlegacy web d29ybGQ=\ngo\n", edge.Legacies{"mail": []byte("hello"), "web": []byte("world")}, true},
		{"no bytes", "legacy web\ngo\n", nil, false},
		{"no base64", "legacy web -\ngo\n", nil, false},
		{"another word", "stop\ngo\n", nil, false},
		{"no more", "legacy web d29ybGQ=\n", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			talk, flows := pair(t, unix.SOCK_STREAM), pair(t, unix.SOCK_SEQPACKET)
			s, err := edge.OpenSuccessor(func(string) string { return fmt.Sprintf("%d,%d", talk[0], flows[0]) })
			if err != nil {
				t.Fatal(err)
			}
			for fd, text := range map[int]string{talk[1]: tt.said, flows[1]: "{}"} {
				if _, err := unix.Write(fd, []byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			unix.Shutdown(talk[1], unix.SHUT_WR)
			_, got, err := s.Built()
			if (err == nil) != tt.ok || tt.ok && !cmp.Equal(got, tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
			if err != nil {
				unix.Close(flows[0]) // else Built has
			}
			s.Fail(os.ErrClosed)
		})
	}
}

// pair returns a pair of sockets. The second is closed when the test ends.
func pair(t *testing.T, kind int) [2]int {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[1]) })
	return p
}
