// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
)

// explainPlanes: where there can be no kernel plane, each service is in the user plane, and says why.
func explainPlanes(t *testing.T, binary string) {
	const all = "-all,+net_bind_service,+net_admin,+sys_admin,+dac_override"
	for _, tt := range []struct {
		name    string
		prepare []string // a command on the edge, before it starts
		as      []string // what the edge is started by
		site    string
		want    string
	}{
		{"forwarding is off", []string{"sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/servers/forwarding"}, nil, "",
			"interface servers does not forward ipv4: set /proc/sys/net/ipv4/conf/servers/forwarding to 1"},
		{"no BPF file system", []string{"umount", "/sys/fs/bpf"}, nil, "", "/sys/fs/bpf is no BPF file system: mount -t bpf bpf /sys/fs/bpf"},
		{"no privilege", nil, []string{"setpriv", "--bounding-set", strings.ReplaceAll(all, "+sys_admin,", "")}, "",
			"it needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"},
		{"no such interface", nil, nil, "kernel: {interfaces: [eth7]}", "eth7"},
		{"too few ports", []string{"sh", "-c", "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range"}, nil, "", "leaves fewer than 1000 ports"},
		{"a server behind another interface", nil, nil, "kernel: {interfaces: [access]}", "is reached by servers, which kernel.interfaces does not name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &planes{Lab: up(t, kernelLab), t: t, ctx: t.Context()}
			p.options.Kyozon = binary
			for host, at := range map[string]string{"server4": "10.0.1.11:7", "server6": "[fd00:1::21]:7"} {
				telling(t, p.Host(host), at)
			}
			edge := p.Host("edge")
			if tt.prepare != nil {
				if out, err := edge.Command(p.ctx, tt.prepare...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %v: %s", tt.prepare, err, out)
				}
			}
			for path, text := range map[string]string{sitePath: strings.ReplaceAll(kernelSite, "PLANE", "auto") + tt.site, "/var/lib/kyozon/.lab": ""} {
				if err := edge.WriteFile(path, []byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			d := Daemon{Name: "kyozon", Argv: append(tt.as, binary, "run", sitePath), Ready: AnswersHTTP(netip.MustParseAddrPort("127.0.0.1:8464"), "/readyz")}
			var err error
			if p.edge, err = edge.Start(p.ctx, d); err != nil {
				t.Fatal(err)
			}
			if out := ask(p.ctx, t, p.Lab, "services"); !strings.Contains(out, tt.want) || strings.Contains(out, "kernel  all") {
				t.Errorf("services do not say %q:\n%s", tt.want, out)
			}
			for _, c := range ip.Crossings() {
				if _, err := p.dial("tcp", c, 8000).says("hello"); err != nil {
					t.Errorf("%v: %v", c, err)
				}
			}
			if log := p.edge.Log(); strings.Count(log, "not carried in the kernel") > strings.Count(kernelSite, "protocol: ") {
				t.Errorf("it was said more than once for a service:\n%s", log)
			}
		})
	}
	t.Run("few privileges", func(t *testing.T) { unprivileged(t, binary) })
}

// unprivileged: three capabilities are enough, as packaging/kernel-plane.conf gives them.
func unprivileged(t *testing.T, binary string) {
	p := &planes{Lab: up(t, kernelLab), t: t, ctx: t.Context()}
	p.options.Kyozon = binary
	telling(t, p.Host("server4"), "10.0.1.11:7")
	telling(t, p.Host("server6"), "[fd00:1::21]:7")
	edge := p.Host("edge")
	if err := edge.WriteFile(sitePath, []byte(strings.ReplaceAll(kernelSite, "PLANE", "auto"))); err != nil {
		t.Fatal(err)
	}
	script := `mkdir -p -m 700 /sys/fs/bpf/kyozon && chown nobody /sys/fs/bpf/kyozon && chmod o+x /sys/fs/bpf && ` +
		`mkdir -p /var/lib/kyozon /run/kyozon && chown -R nobody /var/lib/kyozon /run/kyozon`
	if out, err := edge.Command(p.ctx, "sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const caps = "-all,+net_bind_service,+net_admin,+bpf,+perfmon"
	d := Daemon{Name: "kyozon", Argv: []string{"setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--inh-caps", caps, "--ambient-caps", caps,
		"--bounding-set", caps, binary, "run", sitePath}, Ready: AnswersHTTP(netip.MustParseAddrPort("127.0.0.1:8464"), "/readyz")}
	var err error
	if p.edge, err = edge.Start(p.ctx, d); err != nil {
		t.Fatal(err)
	}
	for _, c := range ip.Crossings() {
		p.inPlane("kernel", "tcp", c, 8000)
		p.inPlane("kernel", "udp", c, 8000)
	}
}
