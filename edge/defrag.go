// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// defragPriority is where connection tracking has packets whole, before whatever looks at ports. Each program has a
// priority of its own: those from here on are tried.
const defragPriority = -300

// These are the parts of linux/bpf.h that are needed here.
type (
	bpfInstruction struct {
		code      uint8
		_         uint8 // registers
		_         int16 // offset
		immediate int32
	}
	bpfProgram struct {
		kind, count          uint32
		code, license        unsafe.Pointer
		logLevel, logSize    uint32
		log                  unsafe.Pointer
		kernel, flags        uint32
		name                 [16]byte
		device, willAttachAs uint32
	}
	bpfLink struct {
		program, target, attachAs, flags uint32
		family, hook                     uint32
		priority                         int32
		netfilterFlags                   uint32
	}
)

// defragment has the kernel put the fragments of one family together before it routes them, until stop is called or
// the process ends.
//
// Only the first fragment of a datagram has ports, and the kernel routes each by itself: a rule that names a port
// would miss them, and a server's large answers to clients' own addresses pass by the edge. Packet filters that track
// connections prevent that. For machines whose filter does not, a program that accepts everything asks for it.
func defragment(f ip.Family) (stop func(), err error) {
	program, err := loadAccept()
	if err != nil {
		return nil, err
	}
	defer unix.Close(program)
	a := bpfLink{program: uint32(program), attachAs: unix.BPF_NETFILTER, family: unix.NFPROTO_IPV4,
		hook: unix.NF_INET_PRE_ROUTING, priority: defragPriority, netfilterFlags: unix.BPF_F_NETFILTER_IP_DEFRAG}
	if f == ip.V6 {
		a.family = unix.NFPROTO_IPV6
	}
	link, err := bpf(unix.BPF_LINK_CREATE, unsafe.Pointer(&a), unsafe.Sizeof(a))
	for errors.Is(err, unix.EBUSY) && a.priority < defragPriority+priorities {
		a.priority++
		link, err = bpf(unix.BPF_LINK_CREATE, unsafe.Pointer(&a), unsafe.Sizeof(a))
	}
	if err != nil {
		return nil, err
	}
	return func() { unix.Close(link) }, nil
}

// loadAccept loads a program that accepts every packet.
func loadAccept() (fd int, err error) {
	code := [...]bpfInstruction{
		{code: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K, immediate: 1}, // r0 = NF_ACCEPT
		{code: unix.BPF_JMP | unix.BPF_EXIT},
	}
	license := [...]byte{'B', 'S', 'D', 0}
	a := bpfProgram{kind: unix.BPF_PROG_TYPE_NETFILTER, count: uint32(len(code)), code: unsafe.Pointer(&code),
		license: unsafe.Pointer(&license), willAttachAs: unix.BPF_NETFILTER}
	copy(a.name[:], "kyozon_defrag")
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&a), unsafe.Sizeof(a))
}

// bpf makes the call that gives it its name and returns a descriptor, which is closed on exec.
func bpf(command int, attr unsafe.Pointer, size uintptr) (fd int, err error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return -1, fmt.Errorf("command %d: %w", command, os.NewSyscallError("bpf", errno))
	}
	return int(n), nil
}
