// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/smuggletest"
)

// TestSmuggling reads the published attacks, cut in two at every place: what goes on is what net/http reads, it is what
// the table says, and after it comes the refusal that the table says.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	for _, c := range smuggletest.Cases() {
		t.Run(c.Source+"/"+c.Name, func(t *testing.T) {
			t.Parallel()
			step := 1 + len(c.In)/1000
			for cut := 0; cut < len(c.In); cut += step {
				out, status := sendOn(t, c.In, cut)
				if status != c.Status {
					t.Fatalf("cut at %d: %q is refused with %d, want %d", cut, c.In, status, c.Status)
				}
				if diff := cmp.Diff(c.Seen, seenBy(out)); diff != "" {
					t.Fatalf("cut at %d: %q goes on as %q (-want +got):\n%s", cut, c.In, out, diff)
				}
			}
		})
	}
}

// sendOn sends on what a client says, in two pieces, as an edge would. It returns what went on, without a last request
// that did not come whole, and the status of the refusal.
func sendOn(t *testing.T, in string, cut int) (out string, status int) {
	t.Helper()
	rest := in
	for rest != "" {
		var r Request
		n, err := r.Parse([]byte(rest[:min(cut, len(rest))]), &Limits{})
		if n == 0 && err == nil {
			n, err = r.Parse([]byte(rest), &Limits{})
		}
		if err != nil || n == 0 {
			return out, statusOf(err)
		}
		b := r.Body()
		head := string(AppendRequest(nil, &r, Forward{}))
		body, taken, err := send(&b, rest[n:], max(0, min(cut-n, len(rest)-n)))
		if err != nil || !b.Done() {
			return out, statusOf(err)
		}
		out += head + body
		cut = max(0, cut-n-taken)
		rest = rest[n+taken:]
	}
	return out, 0
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

// seenBy returns the requests that a server reads in what went on.
func seenBy(out string) (seen []string) {
	for r := bufio.NewReader(strings.NewReader(out)); ; {
		request, err := http.ReadRequest(r)
		if err != nil {
			return seen
		}
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return seen
		}
		seen = append(seen, fmt.Sprintf("%s %s %s", request.Method, request.RequestURI, body))
	}
}

// TestEveryByte puts each byte at each place around the fields that frame a message: which of them are taken, and for
// what, is spelled out. All others are refused.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	const (
		digits = "0123456789"
		tokens = "!#$%&'*+-.^`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" // '_' is refused in names
		post   = "POST / HTTP/1.1\r\nHost: a\r\n"
	)
	var values strings.Builder // all that a value may have
	for c := range 256 {
		if c == '\t' || c >= ' ' && c != 0x7f {
			values.WriteByte(byte(c))
		}
	}
	tests := []struct {
		name, in             string // @ is the byte
		chunked, length, not string // the bytes with which the body is chunked, has a length, or is not there
	}{
		{"before the name of the coding", post + "@Transfer-Encoding: chunked\r\n\r\n", "", "", tokens},
		{"in it", post + "Transfer@Encoding: chunked\r\n\r\n", "-", "", ":" + strings.ReplaceAll(tokens, "-", "")},
		{"after it", post + "Transfer-Encoding@: chunked\r\n\r\n", "", "", tokens},
		{"for the space after the colon", post + "Transfer-Encoding:@chunked\r\n\r\n", " ", "", ""},
		{"after the space", post + "Transfer-Encoding: @chunked\r\n\r\n", "", "", ""},
		{"in the coding", post + "Transfer-Encoding: chun@ed\r\n\r\n", "kK", "", ""},
		{"after the coding", post + "Transfer-Encoding: chunked@\r\n\r\n", "", "", ""},
		{"before the line of the coding", post + "X: x@Transfer-Encoding: chunked\r\n\r\n", "", "", values.String()},
		{"before the name of the length", post + "@Content-Length: 5\r\n\r\n", "", "", tokens},
		{"after it", post + "Content-Length@: 5\r\n\r\n", "", "", tokens},
		{"for the space", post + "Content-Length:@5\r\n\r\n", "", " " + digits, ""},
		{"before the length", post + "Content-Length: @5\r\n\r\n", "", digits, ""},
		{"after the length", post + "Content-Length: 5@\r\n\r\n", "", digits, ""},
		{"between a length and a coding", post + "Content-Length: 5@Transfer-Encoding: chunked\r\n\r\n", "", "", ""},
		{"after a coding of 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked@\r\n\r\n", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for c := range 256 {
				in := strings.ReplaceAll(tt.in, "@", string([]byte{byte(c)}))
				want := "refused"
				for framing, bytes := range map[Framing]string{Chunked: tt.chunked, Length: tt.length, NoBody: tt.not} {
					if strings.IndexByte(bytes, byte(c)) >= 0 {
						want = fmt.Sprint("framing ", framing)
					}
				}
				var r Request
				got := "refused"
				n, err := r.Parse([]byte(in), &Limits{})
				if n > 0 {
					got = fmt.Sprint("framing ", r.Framing)
				}
				if got != want {
					t.Errorf("%q: %s (%v), want %s", in, got, err, want)
				}
			}
		})
	}
}
