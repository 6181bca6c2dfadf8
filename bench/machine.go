// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// Kernel returns the version of the kernel.
func Kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Processor returns the name of the processors.
func Processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range bytes.Lines(info) {
		if name, ok := bytes.CutPrefix(line, []byte("model name")); ok {
			return string(bytes.TrimSpace(bytes.TrimLeft(name, "\t :")))
		}
	}
	return runtime.GOARCH
}

// VersionOf returns the first line of what a program says about itself.
func VersionOf(name string, args ...string) string {
	path, err := Find(name)
	if err != nil {
		return "unknown"
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}

// Find returns where a program or another file is. Servers are in directories that an operator's PATH may lack.
func Find(name string) (string, error) {
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return name, err
	}
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	return path, err
}

// Network returns the network of a stream to at: "tcp4" or "tcp6".
func Network(at netip.AddrPort) string {
	if ip.FamilyOf(at.Addr()) == ip.V4 {
		return "tcp4"
	}
	return "tcp6"
}

// Untuned is the sysctls of a host that make the kernel treat streams as it does where nobody has tuned it, whatever the machine's own settings are,
// but for two: a connection for each request uses up the ports; and Reno, which every namespace may use, does not pace
// streams with timers as BBR does, where that is the default.
func Untuned() map[string]string {
	return map[string]string{
		"net.ipv4.ip_local_port_range":    "10240 65535",
		"net.ipv4.tcp_congestion_control": "reno",
		"net.ipv4.tcp_rmem":               "4096 131072 6291456",
		"net.ipv4.tcp_wmem":               "4096 16384 4194304",
	}
}
