// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// startNginx runs Debian's nginx with one TLS server, which also has the given lines, until the test ends. It inherits
// its socket, so that no port has to be guessed and clients can connect before it runs.
func startNginx(t *testing.T, f ip.Family, lines ...string) netip.AddrPort {
	t.Helper()
	binary, err := exec.LookPath("/usr/sbin/nginx")
	if err != nil {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatalf("nginx is not installed: %v", err)
		}
		t.Skipf("needs nginx: %v", err)
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	at, dir := ip.CanonicalPort(l.Addr().(*net.TCPAddr).AddrPort()), t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf("daemon off; worker_processes 1; user root; pid %[1]s/pid; error_log stderr;\nevents {}\nhttp {\n access_log off; default_type text/plain;\n"+
		" client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;\n"+
		" server {\n  listen %[2]s ssl;\n  %[3]s\n }\n}\n", dir, at, strings.Join(lines, "\n  "))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var output strings.Builder
	c := exec.Command(binary, "-e", "stderr", "-c", config)
	c.Env, c.ExtraFiles = append(os.Environ(), "NGINX=3;"), []*os.File{socket}
	c.Stdout, c.Stderr = &output, &output
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM) // so that its worker ends too
		c.Wait()
		if t.Failed() {
			t.Logf("nginx: %s", output.String())
		}
	})
	return at
}

// A server that is nginx is verified, and verifies us. The status says of one that does not fit what is wrong.
func TestTLSToNginx(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		dir := t.TempDir()
		shop, _ := servertest.TLS(t, "shop.example.jp")
		strange, _ := servertest.TLS(t, "strange.example.jp")
		us, _ := servertest.TLS(t, "edge.example.jp")
		certificate, key := saved(t, dir, "shop", shop)
		other, _ := saved(t, dir, "strange", strange)
		ours, ourKey := saved(t, dir, "us", us)
		speaks := fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s;", certificate, key)
		answers := "location / { return 200 '$ssl_server_name for $ssl_client_s_dn told $http_x_forwarded_for'; }"
		open := startNginx(t, x.Backend, speaks, answers)
		strict := startNginx(t, x.Backend, speaks, answers, fmt.Sprintf("ssl_client_certificate %s; ssl_verify_client on;", ours))
		named := "name: shop.example.jp, ca: " + certificate
		for _, tt := range []struct {
			name   string
			server netip.AddrPort
			keys   string
			want   string // of the page; "" if the server is down
			reason string // of the status
		}{
			{"verified", open, named, "shop.example.jp for  told ", ""},
			{"it verifies us", strict, named + fmt.Sprintf(", certificate: %s, key: %s", ours, ourKey), "shop.example.jp for CN=edge.example.jp told ", ""},
			{"it knows nobody", strict, named, "", "answer: status 400, want 200 to 399"},
			{"wrong name", open, "name: www.example.jp, ca: " + certificate, "", "tls: certificate is for shop.example.jp, not www.example.jp"},
			{"wrong authority", open, "name: shop.example.jp, ca: " + other, "", `tls: certificate was issued by "shop.example.jp", who is not trusted`},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				at := b.free(listen.TCP, x.Client)
				b.serve(line("web", "web", at, servers([]netip.AddrPort{tt.server}, "handover: header", "tls: {"+tt.keys+"}"), "health: {every: 1s, http: /}"))
				status := b.edge.Status().Backends[0]
				if status.Reason != tt.reason || (status.State == "up") != (tt.want != "") {
					t.Errorf("the server is %s: %q, want %q", status.State, status.Reason, tt.reason)
				}
				code, body, err := get(browser(t, x.Client, false), at)
				switch {
				case tt.want == "" && (code != 503 || err != nil):
					t.Errorf("got %d, %v, want 503", code, err)
				case tt.want != "" && body != tt.want+client(x.Client).String():
					t.Errorf("got %d %q, %v, want %q", code, body, err, tt.want)
				}
			})
		}
	})
}
