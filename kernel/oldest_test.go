// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// What Linux 5.15 has last: of helpers, of kinds of maps, and of flags of maps. include/uapi/linux/bpf.h
const (
	lastHelper  = asm.FnTaskPtRegs
	lastMap     = ebpf.TaskStorage
	lastMapFlag = 1 << 12 // BPF_F_INNER_MAP
)

// TestOldest: no program asks for anything that Linux 5.15 has not: no newer helper, map or instruction, and no function of
// the kernel's own.
func TestOldest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		load  func() (*ebpf.CollectionSpec, error)
		calls int // of helpers, at least
	}{"forward": {loadForward, 50}, "streams": {loadStreams, 8}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec, err := tt.load()
			if err != nil {
				t.Fatal(err)
			}
			asksOldest(t, spec, tt.calls)
		})
	}
}

func asksOldest(t *testing.T, spec *ebpf.CollectionSpec, want int) {
	t.Helper()
	for name, m := range spec.Maps {
		if m.Type > lastMap || m.Flags >= lastMapFlag<<1 {
			t.Errorf("map %s is of type %v, with flags %#x", name, m.Type, m.Flags)
		}
	}
	calls := 0
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			if ins := &p.Instructions[i]; tooNew(ins) {
				t.Errorf("%s: %v", p.Name, ins)
			} else if ins.IsBuiltinCall() {
				calls++
			}
		}
	}
	if calls < want {
		t.Errorf("%d calls of helpers were looked at, want %d", calls, want)
	}
}

// tooNew says whether an instruction is not one of Linux 5.15.
func tooNew(ins *asm.Instruction) bool {
	switch {
	case ins.IsKfuncCall():
		return true
	case ins.IsBuiltinCall():
		return asm.BuiltinFunc(ins.Constant) > lastHelper
	case ins.OpCode.Class() == asm.Jump32Class && ins.OpCode.JumpOp() == asm.Ja: // 6.6, as the next
		return true
	case ins.OpCode.Class().IsALU() && ins.OpCode.ALUOp() == asm.Mov && ins.Offset != 0: // sign extension
		return true
	case ins.OpCode.Class().IsLoad() && ins.OpCode.Mode() == asm.MemSXMode:
		return true
	}
	return false
}

// TestTooNew: what is too new is found.
func TestTooNew(t *testing.T) {
	t.Parallel()
	extend := asm.Mov.Reg(asm.R1, asm.R2)
	extend.Offset = 8
	for name, tt := range map[string]struct {
		asm.Instruction
		want bool
	}{
		"bpf_redirect_neigh": {asm.FnRedirectNeigh.Call(), false}, "bpf_loop": {asm.FnLoop.Call(), true},
		"bpf_trace_vprintk": {asm.FnTraceVprintk.Call(), true}, "bpf_task_pt_regs": {asm.FnTaskPtRegs.Call(), false},
		"mov": {asm.Mov.Reg(asm.R1, asm.R2), false}, "movs8": {extend, true},
		"load": {asm.LoadMem(asm.R1, asm.R2, 0, asm.Word), false}, "load signed": {asm.LoadMemSX(asm.R1, asm.R2, 0, asm.Word), true},
	} {
		if got := tooNew(&tt.Instruction); got != tt.want {
			t.Errorf("%s is too new: %v, want %v", name, got, tt.want)
		}
	}
}
