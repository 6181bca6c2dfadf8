// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// answerTo writes the answer of a server to a question; empty is none.
func answerTo(question, status string) string {
	var via string
	for line := range strings.Lines(question) {
		if strings.HasPrefix(line, "Via: ") {
			via = line
		}
	}
	if status == "" {
		return ""
	}
	return "SIP/2.0 " + status + "\r\n" + via + "Content-Length: 0\r\n\r\n"
}

// TestSIP: who answers is well, over each transport and family, unless it says that it takes nothing.
func TestSIP(t *testing.T) {
	t.Parallel()
	server, client := servertest.TLS(t, "sip.example")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		for _, over := range []string{"udp", "tcp", "tls"} {
			for _, test := range []struct{ status, want string }{
				{"200 OK", ""}, {"404 Not Found", ""}, {"100 Trying+200 OK", ""}, {"503 Service Unavailable", "answer: answered with 503"},
				{"408 Request Timeout", "answer: answered with 408"},
			} {
				target := Target{SIP: SIPOverTCP}
				says := func(question string) (all string) {
					for one := range strings.SplitSeq(test.status, "+") {
						all += answerTo(question, one)
					}
					return all
				}
				switch over {
				case "udp":
					target.SIP, target.Addr = SIPOverUDP, udpServer(t, f, says)
				case "tls":
					target.TLS, target.Addr = client, tcpServer(t, f, says, server)
				default:
					target.Addr = tcpServer(t, f, says, nil)
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				got := Ask(ctx, target)
				cancel()
				if text := fmt.Sprint(got.Err); text != test.want && (test.want != "" || got.Err != nil) {
					t.Errorf("%s, %s: %v, want %q", over, test.status, got.Err, test.want)
				}
			}
		}
	})
}

// TestSIPSilence: who does not answer, or answers something else, is not well.
func TestSIPSilence(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		mute := func(string) string { return "" }
		other := func(q string) string { return answerTo(strings.Replace(q, "z9hG4bK", "z9hG4bKx", 1), "200 OK") }
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		for _, says := range []func(string) string{mute, other} {
			if r := SIP(ctx, Target{Addr: udpServer(t, f, says), SIP: SIPOverUDP}); r.Err == nil {
				t.Error("a server over UDP that says nothing to us is well")
			}
		}
		if r := SIP(t.Context(), Target{Addr: tcpServer(t, f, func(string) string { return "HTTP/1.1 400 Bad Request\r\n\r\n" }, nil), SIP: SIPOverTCP}); r.Err == nil ||
			!strings.Contains(r.Err.Error(), errNotSIP.Error()) {
			t.Errorf("a server of HTTP: %v", r.Err)
		}
	})
}

func udpServer(t *testing.T, f ip.Family, says func(string) string) netip.AddrPort {
	t.Helper()
	network := map[ip.Family]string{ip.V4: "udp4", ip.V6: "udp6"}[f]
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-ended })
	go func() {
		defer close(ended)
		p := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			for one := range strings.SplitSeq(says(string(p[:n])), "\r\n\r\n") {
				if one != "" {
					c.WriteToUDPAddrPort([]byte(one+"\r\n\r\n"), from)
				}
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func tcpServer(t *testing.T, f ip.Family, says func(string) string, secure *tls.Config) netip.AddrPort {
	t.Helper()
	return servertest.TCP(t, f, func(raw *net.TCPConn) {
		var c net.Conn = raw
		if secure != nil {
			c = tls.Server(raw, secure)
		}
		lines, question := bufio.NewReader(c), ""
		for !strings.HasSuffix(question, "\r\n\r\n") {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			question += line
		}
		c.Write([]byte(says(question)))
		lines.ReadByte() // until the probe has gone
	})
}

// FuzzSIPAnswer holds that only what has the branch answers, and that its status is one.
func FuzzSIPAnswer(f *testing.F) {
	branch := []byte("z9hG4bKx")
	for _, s := range []string{"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP x;branch=z9hG4bKx\r\n\r\n", "\r\n\r\nSIP/2.0 100 x\r\nv:z9hG4bKx\r\n\r\nSIP/2.0 503 y\r\nz9hG4bKx\r\n\r\n", "SIP/2.0 2", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if n, ok := readAnswer(p, branch); ok && (n < 100 || n > 699 || !bytes.Contains(p, branch)) {
			t.Errorf("%q is a %d", p, n)
		}
		if answered(bytes.NewReader(p), branch) == nil && !bytes.Contains(p, branch) {
			t.Errorf("%q answers", p)
		}
	})
}
