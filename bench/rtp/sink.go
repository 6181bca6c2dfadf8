// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// sink is what counts the packets that come to an end, before the kernel there has done much with them: a program at TC that looks how
// long each has been on its way, and drops it. So the ends cost little of the processors that they share with the relay.
type sink struct {
	counts  *ebpf.Map
	memory  *ebpf.Memory
	program *ebpf.Program
	link    link.Link
	window  [2]int64
}

const (
	slots     = 1 << 15
	slotShift = 14                                    // 16 µs
	passes    = -1                                    // TCX_NEXT: the packet goes on to the socket
	drops     = 2                                     // TCX_DROP
	slotsAt   = 16                                    // in the map's one value; before them is the window
	fromPort  = 2                                     // where the port of the destination is in a header of UDP
	fields    = headerUDP - fromPort + stampAt + 8    // bytes from there to the end of the stamp
	toStamp   = int64(headerUDP - fromPort + stampAt) // from there to the stamp
	lastSlot  = time.Duration(slots-1) << slotShift   // half a second: what is later is counted there
	metaLen   = 0                                     // fields of struct __sk_buff
	metaProto = 16
)

// openSink attaches a sink to an interface of the namespace of the caller's thread.
func openSink(index int) (_ *sink, err error) {
	s := new(sink)
	defer func() {
		if err != nil {
			s.close()
			err = fmt.Errorf("count packets at TC: %w", err)
		}
	}()
	s.counts, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: slotsAt + 8*slots, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE})
	if err != nil {
		return nil, err
	}
	if s.memory, err = s.counts.Memory(); err != nil {
		return nil, err
	}
	s.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: countPackets(s.counts.FD())})
	if err != nil {
		return nil, err
	}
	s.link, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: s.program, Attach: ebpf.AttachTCXIngress})
	return s, err
}

// countPackets is the program. What is no packet of ours passes, and everything does while the window is {0, 0}.
func countPackets(counts int) asm.Instructions {
	const base = -int16(toStamp) - 8 // on the stack, so that the stamp is the last
	order := func(v uint16) int32 { return int32(binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)})) }
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, metaProto, asm.Word),
		asm.LoadMem(asm.R3, asm.R6, metaLen, asm.Word),
		asm.JEq.Imm(asm.R2, order(unix.ETH_P_IP), "four"),
		asm.JNE.Imm(asm.R2, order(unix.ETH_P_IPV6), "pass"),
		asm.JNE.Imm(asm.R3, headerEthernet+headerIP6+headerUDP+packetSize, "pass"),
		asm.Mov.Imm(asm.R2, headerEthernet+headerIP6+fromPort),
		asm.Ja.Label("load"),
		asm.JNE.Imm(asm.R3, headerEthernet+headerIP4+headerUDP+packetSize, "pass").WithSymbol("four"),
		asm.Mov.Imm(asm.R2, headerEthernet+headerIP4+fromPort),

		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("load"),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, int32(base)),
		asm.Mov.Imm(asm.R4, fields),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R2, asm.R10, base, asm.Half),
		asm.JNE.Imm(asm.R2, order(endPort), "pass"),
		asm.LoadMem(asm.R8, asm.R10, -8, asm.DWord),

		asm.LoadMapValue(asm.R9, counts, 0),
		asm.LoadMem(asm.R2, asm.R9, 8, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, "pass"),
		asm.JGE.Reg(asm.R8, asm.R2, "drop"),
		asm.LoadMem(asm.R2, asm.R9, 0, asm.DWord),
		asm.JLT.Reg(asm.R8, asm.R2, "drop"),

		asm.FnKtimeGetNs.Call(),
		asm.Sub.Reg(asm.R0, asm.R8),
		asm.JSGE.Imm(asm.R0, 0, "later"),
		asm.Mov.Imm(asm.R0, 0),
		asm.RSh.Imm(asm.R0, slotShift).WithSymbol("later"),
		asm.JLT.Imm(asm.R0, slots, "count"),
		asm.Mov.Imm(asm.R0, slots-1),
		asm.LSh.Imm(asm.R0, 3).WithSymbol("count"),
		asm.Add.Reg(asm.R9, asm.R0),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R9, asm.R1, asm.DWord, slotsAt),

		asm.Mov.Imm(asm.R0, drops).WithSymbol("drop"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, passes).WithSymbol("pass"),
		asm.Return(),
	}
}

// The windows that are none.
var (
	passAll = [2]int64{0, 0} // packets go to the socket
	dropAll = [2]int64{1, 1} // they are dropped, and not counted
)

// count has those packets counted that were sent from the first time on and before the second.
func (s *sink) count(window [2]int64) error {
	if window[0] > 1 {
		clear(s.window[:])
	}
	b := make([]byte, 16)
	binary.NativeEndian.PutUint64(b, uint64(window[0]))
	binary.NativeEndian.PutUint64(b[8:], uint64(window[1]))
	_, err := s.memory.WriteAt(b, 0)
	return err
}

// delays returns how many packets have taken how long, and all in all.
func (s *sink) delays() (d delays, err error) {
	b := make([]byte, 8*slots)
	if _, err := s.memory.ReadAt(b, slotsAt); err != nil {
		return d, err
	}
	d.slots = make([]int64, slots)
	for i := range d.slots {
		d.slots[i] = int64(binary.NativeEndian.Uint64(b[8*i:]))
		d.all += d.slots[i]
	}
	return d, nil
}

// forget sets the counts to zero.
func (s *sink) forget() error {
	_, err := s.memory.WriteAt(make([]byte, 8*slots), slotsAt)
	return err
}

func (s *sink) close() {
	var all []error
	if s.link != nil {
		all = append(all, s.link.Close())
	}
	if s.program != nil {
		all = append(all, s.program.Close())
	}
	if s.counts != nil {
		all = append(all, s.counts.Close())
	}
	_ = errors.Join(all...) // all of it ends with the process
}

// delays is how many packets have taken how long.
type delays struct {
	slots []int64
	all   int64
}

func (d *delays) add(o delays) {
	if d.slots == nil {
		d.slots = make([]int64, slots)
	}
	for i, n := range o.slots {
		d.slots[i] += n
	}
	d.all += o.all
}

// quantile returns how long a part of the packets took at most.
func (d delays) quantile(part float64) time.Duration {
	seen := int64(0)
	at := slices.IndexFunc(d.slots, func(n int64) bool {
		seen += n
		return seen > 0 && float64(seen) >= part*float64(d.all)
	})
	return time.Duration(max(at, 0)+1) << slotShift
}

// within returns how many packets took no longer than a time.
func (d delays) within(t time.Duration) (n int64) {
	for _, some := range d.slots[:min(int(t>>slotShift), len(d.slots))] {
		n += some
	}
	return n
}
