// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// turn is how often a program runs in one system call.
const turn = 32_768

// turns runs the program on packets that come again.
type turns struct {
	in      netlink.Link
	first   []byte
	tick    asm.Instructions // see write
	ours    *ebpf.Program    // writes the next packet, and goes on in the program
	plain   *ebpf.Program    // only writes it
	twice   *ebpf.Program    // changes the family there and back, and writes it
	crosses bool
	ran     uint64 // times that the program has, at least

	interrupted bool // by a signal: it has run more often
}

// turns makes programs that write the headers of frames into the packet, one after the other, as those of one side. What comes
// after, nobody changes.
func (r *rig) turns(b *testing.B, c ip.Crossing, frames [][]byte, toServer bool) *turns {
	b.Helper()
	t := &turns{in: r.clients, ours: r.objects.Forward}
	if !toServer {
		t.in = r.servers
		c.Client, c.Backend = c.Backend, c.Client
	}
	t.write(r, b, c, frames, headers(frames[0]))
	return t
}

// write makes the programs for frames of the client's family whose first bytes, so many, are written. t has the program and where
// the frames come in.
func (t *turns) write(r *rig, b *testing.B, c ip.Crossing, frames [][]byte, size uint32) {
	b.Helper()
	t.first, t.crosses = frames[0], c.Client != c.Backend
	from, to := etherType(c.Client), etherType(c.Backend)
	packets := r.table(b, ebpf.Array, (size+7)&^7, uint32(len(frames)))
	for i, f := range frames {
		r.must(packets.Put(uint32(i), append(slices.Clone(f[14:14+size]), make([]byte, packets.ValueSize()-size)...)))
	}
	next := r.table(b, ebpf.Array, 8, 1)
	calls := r.table(b, ebpf.ProgramArray, 4, 1)
	r.must(calls.Put(uint32(0), t.ours))
	begin, end := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return()}
	call := asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6), asm.LoadMapPtr(asm.R2, calls.FD()), asm.Mov.Imm(asm.R3, 0), asm.FnTailCall.Call(),
	}
	writes := write(packets, next, size, t.tick)
	t.ours = r.program(b, begin, change("change", from, "write"), writes, call, end)
	t.plain = r.program(b, begin, change("change", from, "write"), writes, end)
	t.twice = r.program(b, begin, change("there", to, "back"), change("back", from, "write"), writes, end)
}

// headers is how long the headers of IP and TCP are.
func headers(frame []byte) uint32 {
	length := uint32(20)
	if frame[14]>>4 == 6 {
		length = 40
	}
	return length + uint32(frame[14+length+12]>>4)*4
}

// table makes a map that ends with the test.
func (r *rig) table(b *testing.B, kind ebpf.MapType, value, entries uint32) *ebpf.Map {
	b.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: kind, KeySize: 4, ValueSize: value, MaxEntries: entries})
	r.must(err)
	b.Cleanup(func() { m.Close() })
	return m
}

// program makes a program of some parts.
func (r *rig) program(b *testing.B, parts ...asm.Instructions) *ebpf.Program {
	b.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: slices.Concat(parts...)})
	r.must(err)
	b.Cleanup(func() { p.Close() })
	return p
}

// etherType is that of a family, as it is in memory.
func etherType(f ip.Family) int32 {
	if f == ip.V4 {
		return int32(port(unix.ETH_P_IP))
	}
	return int32(port(unix.ETH_P_IPV6))
}

// change changes the packet's family to another, if it is not that already, and goes on at a place.
func change(name string, to int32, then string) asm.Instructions {
	const protocol = 16 // in the context
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, protocol, asm.Word).WithSymbol(name),
		asm.JEq.Imm(asm.R1, to, then),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, to), asm.Mov.Imm(asm.R3, 0), asm.FnSkbChangeProto.Call(),
	}
}

// write writes the headers of the next of the packets, and changes them for the next time by tick, which finds them at R0.
func write(packets, next *ebpf.Map, size uint32, tick asm.Instructions) asm.Instructions {
	first := asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word).WithSymbol("write"),
		asm.LoadMapPtr(asm.R1, next.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4), asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.LoadMem(asm.R7, asm.R0, 0, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R7), asm.Add.Imm(asm.R1, 1),
		asm.JLT.Imm(asm.R1, int32(packets.MaxEntries()), "keep"),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.Word).WithSymbol("keep"),
		asm.StoreMem(asm.RFP, -4, asm.R7, asm.Word),
		asm.LoadMapPtr(asm.R1, packets.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4), asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
	}
	return slices.Concat(first, tick, asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 14), asm.Mov.Reg(asm.R3, asm.R0), asm.Mov.Imm(asm.R4, int32(size)),
		asm.Mov.Imm(asm.R5, 0), asm.FnSkbStoreBytes.Call(),
	})
}

// add adds to a number in a packet, in the order of the network.
func add(at int16, size asm.Size, n int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R0, at, size), asm.HostTo(asm.BE, asm.R1, size), asm.Add.Imm(asm.R1, n), asm.HostTo(asm.BE, asm.R1, size),
		asm.StoreMem(asm.R0, at, asm.R1, size),
	}
}

// program runs the program in turn on the packets, and returns what a run takes, with the writing of the packet.
func (t *turns) program(b *testing.B) float64 {
	t.ran += turn
	return t.run(b, t.ours)
}

// restore returns what the writing of a packet takes. Where the program changes its family, it is changed back.
func (t *turns) restore(b *testing.B) float64 {
	plain := t.run(b, t.plain)
	if !t.crosses {
		return plain
	}
	return plain + (t.run(b, t.twice)-plain)/2
}

// testRun is what the kernel takes and gives: BPF_PROG_TEST_RUN of union bpf_attr.
type testRun struct {
	program, result         uint32
	sizeIn, sizeOut         uint32
	in, out                 uint64
	repeat, duration        uint32
	contextSize, contextOut uint32
	context, contextBack    uint64
	flags, cpu, batch       uint32
	_                       uint32
}

// run runs a program for a turn and returns the time of one run in nanoseconds. The library either takes a context or says
// how long it has taken.
func (t *turns) run(b *testing.B, p *ebpf.Program) float64 {
	b.Helper()
	const command = 10
	context := skb{Index: uint32(t.in.Attrs().Index), Ingress: uint32(t.in.Attrs().Index)}
	for {
		frame := slices.Clone(t.first)
		attr := testRun{program: uint32(p.FD()), sizeIn: uint32(len(frame)), in: uint64(uintptr(unsafe.Pointer(&frame[0]))), repeat: turn,
			contextSize: uint32(unsafe.Sizeof(context)), context: uint64(uintptr(unsafe.Pointer(&context)))}
		_, _, err := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		runtime.KeepAlive(frame)
		switch {
		case err == 0:
			return float64(attr.duration)
		case errors.Is(err, unix.EINTR): // it has run for a while
			t.interrupted = true
		default:
			b.Fatal(err)
		}
	}
}
