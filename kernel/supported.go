// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrUnsupported means that this machine or this interface cannot carry the kernel plane. The text says why, for
// people.
var ErrUnsupported = errors.New("kernel: unsupported")

// Able returns nil if this process can have a kernel plane, otherwise why not, in words. It changes nothing.
func Able() error {
	for _, f := range []asm.BuiltinFunc{asm.FnRedirectNeigh, asm.FnKtimeGetCoarseNs, asm.FnCheckMtu} {
		switch err := features.HaveProgramHelper(ebpf.SchedCLS, f); {
		case errors.Is(err, ebpf.ErrNotSupported):
			return fmt.Errorf("%w: the kernel has no helper %v: Linux 5.15 or newer is needed", ErrUnsupported, f)
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("%w: this process may not load BPF programs: it needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", ErrUnsupported)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	return nil
}

// Supported returns nil if the kernel plane can run on an interface, otherwise why not, in words. It changes nothing.
func Supported(iface string) error {
	if err := Able(); err != nil {
		return err
	}
	l, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("%w: interface %s: %w", ErrUnsupported, iface, err)
	}
	if l.Attrs().EncapType != "ether" {
		return fmt.Errorf("%w: interface %s is of type %q, not Ethernet", ErrUnsupported, iface, l.Attrs().EncapType)
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		file := filepath.Join("/proc/sys/net", family, "conf", iface, "forwarding")
		value, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("%w: interface %s: is %s on? %w", ErrUnsupported, iface, family, err)
		}
		if !bytes.HasPrefix(value, []byte("1")) {
			return fmt.Errorf("%w: interface %s does not forward %s: set %s to 1 (IPv6: and accept_ra to 2 if it is configured by router advertisements)",
				ErrUnsupported, iface, family, file)
		}
	}
	return nil
}

// Pinnable returns nil if maps can be pinned below a folder, otherwise what is missing.
func Pinnable(pin string) error {
	var st unix.Statfs_t
	folder := filepath.Dir(pin)
	if err := unix.Statfs(folder, &st); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnsupported, folder, err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%w: %s is no BPF file system: mount -t bpf bpf %[2]s", ErrUnsupported, folder)
	}
	return nil
}
