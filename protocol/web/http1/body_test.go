// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"strings"
	"testing"
)

// send passes in through b in pieces that end at the given places, as a loop would that keeps what is not taken. It
// returns what went on and how many bytes were taken.
func send(b *Body, in string, ends ...int) (out string, taken int, err error) {
	for _, end := range append(ends, len(in)) {
		for taken < end && !b.Done() {
			n, forward, err := b.Next([]byte(in[taken:end]))
			if err != nil {
				return out, taken, err
			}
			out += string(forward)
			taken += n
			if n == 0 {
				break
			}
		}
	}
	return out, taken, nil
}

func TestChunked(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in, want, unframed string
	}{
		{"empty", "0\r\n\r\n", "0\r\n\r\n", ""},
		{"canonical", "5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n", "5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n", "hello0123456789abcdef"},
		{"upper case, RFC 9112 §7.1", "A\r\n0123456789\r\n0\r\n\r\n", "a\r\n0123456789\r\n0\r\n\r\n", "0123456789"},
		{"leading zeros, RFC 9112 §7.1", "0005\r\nhello\r\n0000\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello"},
		{"extensions, RFC 9112 §7.1.1", "5;a=b\r\nhello\r\n5;\"\t\"\r\nthere\r\n0; c\r\n\r\n", "5\r\nhello\r\n5\r\nthere\r\n0\r\n\r\n", "hellothere"},
		{"data like framing", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"},
		{"trailers, RFC 9110 §6.5", "0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n", "0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n", ""},
		{"trailers that decide something, RFC 9110 §6.5.1", "1\r\na\r\n0\r\nAuthorization: x\r\nX-A: 1\r\nX-Forwarded-For: x\r\nCookie: x\r\nSet-Cookie: x\r\n" +
			"Content-Type: x\r\nIf-Match: x\r\nTE: x\r\nUpgrade: x\r\nX_B: 1\r\nX-C:1\r\nExpect: x\r\nTrailer: x\r\nEarly-Data: 1\r\nX-D: 1\r\n\r\n",
			"1\r\na\r\n0\r\nX-A: 1\r\nX-D: 1\r\n\r\n", "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for cut := range len(tt.in) {
				b := newBody(Chunked, -1)
				out, taken, err := send(&b, tt.in+"next", cut, cut+1)
				if err != nil || out != tt.want || taken != len(tt.in) || !b.Done() || b.End() != nil {
					t.Fatalf("cut at %d: %q, %d bytes, %v; want %q, %d bytes", cut, out, taken, err, tt.want, len(tt.in))
				}
				b = newBody(Chunked, -1)
				b.unframed = true
				if out, taken, err = send(&b, tt.in+"next", cut, cut+1); err != nil || out != tt.unframed || taken != len(tt.in) {
					t.Fatalf("unframed, cut at %d: %q, %d bytes, %v", cut, out, taken, err)
				}
			}
		})
	}
}

func TestChunkedRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string // the rule, with the section that has it
		in   string
		want *Error
	}{
		{"no size, RFC 9112 §7.1", "\r\nhello\r\n", ErrChunkSize},
		{"plus, RFC 9112 §7.1", "+5\r\nhello\r\n", ErrChunkSize},
		{"minus, RFC 9112 §7.1", "-5\r\nhello\r\n", ErrChunkSize},
		{"0x, RFC 9112 §7.1", "0x5\r\nhello\r\n", ErrChunkSize},
		{"space before size, RFC 9112 §7.1", " 5\r\nhello\r\n", ErrChunkSize},
		{"space after size, RFC 9112 §7.1", "5 \r\nhello\r\n", ErrChunkSize},
		{"space before extension, RFC 9112 §7.1.1", "5 ;a\r\nhello\r\n", ErrChunkSize},
		{"tab after size, RFC 9112 §7.1", "5\t\r\nhello\r\n", ErrChunkSize},
		{"underscore, RFC 9112 §7.1", "1_0\r\n", ErrChunkSize},
		{"comma, RFC 9112 §7.1", "5,5\r\nhello\r\n", ErrChunkSize},
		{"not hexadecimal, RFC 9112 §7.1", "g\r\n", ErrChunkSize},
		{"size of 2^63, RFC 9112 §7.1", "8000000000000000\r\n", ErrChunkSize},
		{"size of 2^64+5, RFC 9112 §7.1", "10000000000000005\r\nhello\r\n", ErrChunkSize},
		{"endless zeros, RFC 9112 §7.1", "00000000000000005\r\nhello\r\n", ErrChunkSize},
		{"LF after size, RFC 9112 §7.1", "5\nhello\r\n", ErrChunkSize},
		{"CR after size, RFC 9112 §7.1", "5\rhello\r\n", ErrChunkSize},
		{"CR CR LF after size, RFC 9112 §7.1", "5\r\r\nhello\r\n", ErrChunkSize},
		{"NUL after size, RFC 9112 §7.1", "5\x00\r\nhello\r\n", ErrChunkSize},
		{"LF in extension, RFC 9112 §7.1.1", "5;a\nhello\r\n", ErrExtension},
		{"CR in extension, RFC 9112 §7.1.1", "5;a\rb\r\nhello\r\n", ErrExtension},
		{"NUL in extension, RFC 9112 §7.1.1", "5;a\x00\r\nhello\r\n", ErrExtension},
		{"long extension, RFC 9112 §7.1.1", "5;" + strings.Repeat("a", 256) + "\r\nhello\r\n", ErrExtension},
		{"many extensions, RFC 9112 §7.1.1", strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\na\r\n", 50), ErrExtension},
		{"LF after data, RFC 9112 §7.1", "5\r\nhello\n0\r\n\r\n", ErrChunkEnd},
		{"CR after data, RFC 9112 §7.1", "5\r\nhello\r0\r\n\r\n", ErrChunkEnd},
		{"nothing after data, RFC 9112 §7.1", "5\r\nhello0\r\n\r\n", ErrChunkEnd},
		{"more data than said, RFC 9112 §7.1", "5\r\nhello!\r\n0\r\n\r\n", ErrChunkEnd},
		{"LF ends trailers, RFC 9112 §7.1", "0\r\n\n", ErrBareLF},
		{"CR ends trailers, RFC 9112 §7.1", "0\r\n\rx", ErrBareCR},
		{"LF in trailers, RFC 9112 §7.1.2", "0\r\nX-A: b\n\r\n", ErrBareLF},
		{"CR in trailers, RFC 9112 §7.1.2", "0\r\nX-A: b\rc\r\n\r\n", ErrBareCR},
		{"NUL in trailers, RFC 9112 §7.1.2", "0\r\nX-A: b\x00c\r\n\r\n", ErrControl},
		{"folded trailer, RFC 9112 §5.2", "0\r\nX-A: b\r\n c\r\n\r\n", ErrFold},
		{"space before colon, RFC 9112 §5.1", "0\r\nX-A : b\r\n\r\n", ErrColonSpace},
		{"request for a trailer, RFC 9112 §7.1.2", "0\r\nGET / HTTP/1.1\r\n\r\n", ErrColonSpace},
		{"Content-Length in trailers, RFC 9110 §6.5.1", "0\r\nContent-Length: 5\r\n\r\n", ErrTrailer},
		{"Transfer-Encoding in trailers, RFC 9110 §6.5.1", "0\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTrailer},
		{"Host in trailers, RFC 9110 §6.5.1", "0\r\nHost: a\r\n\r\n", ErrTrailer},
		{"long trailer, RFC 9112 §7.1.2", "0\r\nX-A: " + strings.Repeat("a", 5000) + "\r\n\r\n", ErrLongTrailer},
		{"many trailers, RFC 9112 §7.1.2", "0\r\n" + strings.Repeat("X-A: aaaaaaaaaa\r\n", 300) + "\r\n", ErrLongTrailer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			step := 1 + len(tt.in)/1000
			for cut := 0; cut < len(tt.in); cut += step {
				b := newBody(Chunked, -1)
				if out, taken, err := send(&b, tt.in, cut); !errors.Is(err, tt.want) {
					t.Fatalf("cut at %d: %q, %d bytes, %v; want %v", cut, out, taken, err, tt.want)
				}
			}
		})
	}
}

func TestOtherBodies(t *testing.T) {
	t.Parallel()
	const in = "hello, next"
	tests := []struct {
		name    string
		framing Framing
		length  int64
		want    string
		end     error
	}{
		{"none", NoBody, -1, "", nil},
		{"length", Length, 5, "hello", nil},
		{"length zero", Length, 0, "", nil},
		{"length cut short, RFC 9112 §8", Length, 100, in, ErrTruncated},
		{"until close", UntilClose, -1, in, nil},
		{"chunked cut short, RFC 9112 §8", Chunked, -1, "", ErrChunkSize},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for cut := range len(in) {
				b := newBody(tt.framing, tt.length)
				out, taken, err := send(&b, in, cut)
				if err == nil {
					err = b.End()
				}
				if out != tt.want || taken != len(tt.want) || !errors.Is(err, tt.end) {
					t.Fatalf("cut at %d: %q, %d bytes, %v; want %q, %v", cut, out, taken, err, tt.want, tt.end)
				}
			}
		})
	}
}
