// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package proxyproto

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// patience bounds each wait for HAProxy.
const patience = time.Minute

// haproxy is a configuration of HAProxy and the listening sockets that it gets from the test, so that no port has to
// be guessed and clients can connect before it runs.
type haproxy struct {
	config  strings.Builder
	sockets []*os.File
}

// listen opens a socket of family f and returns its address and how a bind line names it.
func (h *haproxy) listen(t *testing.T, f ip.Family) (addr netip.AddrPort, bind string) {
	t.Helper()
	l := listenOn(t, f)
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	h.sockets = append(h.sockets, file)
	return l.Addr().(*net.TCPAddr).AddrPort(), fmt.Sprintf("fd@%d", 2+len(h.sockets))
}

// start runs HAProxy until the test ends.
func (h *haproxy) start(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(path, []byte(h.config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var output strings.Builder
	cmd := exec.Command(findHAProxy(t), "-db", "-f", path)
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = h.sockets, &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy: %s", output.String())
		}
	})
}

// findHAProxy returns the path of HAProxy. Without one the test is skipped, unless KYOZON_LAB forbids that.
func findHAProxy(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("KYOZON_LAB") == "require" {
		t.Fatal("haproxy is not installed")
	}
	t.Skip("haproxy is not installed")
	return ""
}

// network returns the TCP network of family f.
func network(f ip.Family) string { return fmt.Sprintf("tcp%d", f) }

func listenOn(t *testing.T, f ip.Family) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP(network(f), net.TCPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(network(ip.FamilyOf(addr.Addr())), addr.String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// defaults are at the top of each configuration.
const defaults = "defaults\n  timeout connect 10s\n  timeout client 10s\n  timeout server 10s\n"

// TestFromHAProxy reads the headers that HAProxy writes to a server, for every crossing and both versions.
func TestFromHAProxy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, option string
		version      int
	}{
		{"v1", "send-proxy", 1},
		{"v2", "send-proxy-v2", 2},
		{"v2 with checksum and unique ID", "send-proxy-v2 proxy-v2-options crc32c,unique-id", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
				server := listenOn(t, c.Backend)
				h := new(haproxy)
				front, bind := h.listen(t, c.Client)
				fmt.Fprintf(&h.config, "%slisten relay\n  mode tcp\n  bind %s\n  unique-id-format id-%%[src_port]\n  server s %s %s\n",
					defaults, bind, server.Addr(), test.option)
				h.start(t)
				client := dial(t, front)

				got := acceptHeader(t, server)
				tlvs := got.TLVs
				got.TLVs = nil
				want := Header{Version: test.version, Client: localAddr(client), Dest: front}
				if d := diff(want, got); d != "" {
					t.Errorf("-want +got\n%s", d)
				}
				if !strings.Contains(test.option, "unique-id") {
					return
				}
				if id, _ := tlvs.Get(TypeUniqueID); string(id) != fmt.Sprintf("id-%d", want.Client.Port()) {
					t.Errorf("unique ID = %q", id)
				}
				if _, ok := tlvs.Get(TypeCRC32C); !ok {
					t.Error("no checksum")
				}
			})
		})
	}
}

func localAddr(c net.Conn) netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }

// acceptHeader reads the header of the next connection.
func acceptHeader(t *testing.T, l *net.TCPListener) Header {
	t.Helper()
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 0, MaxV2)
	for {
		n, err := c.Read(buffer[len(buffer):cap(buffer)])
		if err != nil {
			t.Fatalf("after %q: %v", buffer, err)
		}
		buffer = buffer[:len(buffer)+n]
		h, n, err := Parse(buffer)
		if err != nil {
			t.Fatalf("Parse(%q): %v", buffer, err)
		}
		if n > 0 {
			return h
		}
	}
}

// TestToHAProxy writes headers to HAProxy, over both families, and asks it who the client is.
func TestToHAProxy(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		h := new(haproxy)
		front, bind := h.listen(t, f)
		fmt.Fprintf(&h.config, `%sfrontend ask
  mode http
  bind %s accept-proxy
  http-request return status 200 content-type text/plain lf-string "%%[src] %%[src_port] %%[dst] %%[dst_port] %%[fc_pp_authority]"
`, defaults, bind)
		h.start(t)

		addrs := map[ip.Family]netip.AddrPort{
			ip.V4: netip.MustParseAddrPort("192.0.2.1:56324"),
			ip.V6: netip.MustParseAddrPort("[2001:db8:1:2::3]:65535"),
		}
		for _, version := range []int{1, 2} {
			iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) { // here: the client's and the destination's family
				want := Header{Version: version, Client: addrs[c.Client], Dest: addrs[c.Backend]}
				if client, dest, _ := askHAProxy(t, front, want); client != want.Client || dest != want.Dest {
					t.Errorf("version %d: client %s, destination %s, want %s, %s", version, client, dest, want.Client, want.Dest)
				}
			})
		}
		t.Run("checksum", func(t *testing.T) {
			want := Header{Version: 2, Client: addrs[ip.V6], Dest: addrs[ip.V4]}
			want.TLVs, _ = want.TLVs.Add(TypeAuthority, []byte("shop.example.jp"))
			want.TLVs, _ = want.TLVs.AddChecksum()
			if client, _, authority := askHAProxy(t, front, want); client != want.Client || authority != "shop.example.jp" {
				t.Errorf("client %s, authority %q", client, authority)
			}
		})
		t.Run("local", func(t *testing.T) { // a PROXY command without addresses HAProxy resets, as it is free to
			for _, h := range []Header{{Version: 1, Local: true, Unnamed: true}, {Version: 2, Local: true}} {
				if _, dest, _ := askHAProxy(t, front, h); dest != front {
					t.Errorf("%+v: destination %s, want %s", h, dest, front)
				}
			}
		})
	})
}

// askHAProxy sends h and a request to HAProxy, and returns what it took from the header.
func askHAProxy(t *testing.T, front netip.AddrPort, h Header) (client, dest netip.AddrPort, authority string) {
	t.Helper()
	c := dial(t, front)
	if _, err := c.Write(append(appendHeader(nil, h), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"...)); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var addrs [2]string
	var ports [2]uint16
	if _, err := fmt.Sscan(string(body), &addrs[0], &ports[0], &addrs[1], &ports[1]); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	endpoint := func(i int) netip.AddrPort {
		return ip.CanonicalPort(netip.AddrPortFrom(netip.MustParseAddr(addrs[i]), ports[i]))
	}
	if f := strings.Fields(string(body)); len(f) > 4 {
		authority = f[4]
	}
	return endpoint(0), endpoint(1), authority
}
