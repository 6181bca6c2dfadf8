// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// BenchmarkForward is what the program costs for a packet of one flow, as the kernel measures it: its two readings of the clock
// included, shown by a packet that passes at once ("pass"). Each run is a call of its own, since the kernel would run the program
// again on what it has left, which is no packet of the flow any more. So caches are colder than under load.
func BenchmarkForward(b *testing.B) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Skip(err)
	}
	defer stats.Close()
	for _, c := range ip.Crossings() {
		r := opened(b, c)
		r.forwards(question(c, nil))
		b.Run(c.String()+"/forward", func(b *testing.B) { r.measure(b, question(c, make([]byte, 64)).bytes()) })
		arp := append(append(make([]byte, 12), 0x08, 0x06), make([]byte, 92)...)
		b.Run(c.String()+"/pass", func(b *testing.B) { r.measure(b, arp) })
	}
}

func (r *rig) measure(b *testing.B, frame []byte) {
	o := ebpf.RunOptions{Data: frame, Context: skb{Index: uint32(r.clients.Attrs().Index)}}
	before, err := r.objects.Forward.Stats()
	r.must(err)
	for b.Loop() {
		if _, err := r.objects.Forward.Run(&o); err != nil {
			b.Fatal(err)
		}
	}
	after, err := r.objects.Forward.Stats()
	r.must(err)
	b.ReportMetric(float64(after.Runtime-before.Runtime)/float64(after.RunCount-before.RunCount), "ns/packet")
}
