// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// many is how many addresses of record are in a benchmark of bindings.
const many = 100_000

// bind fills a table, one binding each.
func bind(tb testing.TB, b *bindings) {
	tb.Helper()
	way := sip.Way{Local: netip.MustParseAddrPort("[2001:db8:100::50]:5060"), Remote: netip.MustParseAddrPort("[2001:db8::1]:5060")}
	for i := range many {
		u := location.Update{CallID: fmt.Appendf(nil, "%d-5e8f1a2b3c4d@2001:db8::%x", i, i), Sequence: 1, Way: way, Contacts: []location.Contact{
			{URI: fmt.Appendf(nil, "sip:050%08d@[2001:db8::%x]:5060", i, i), Lifetime: 3600, Quality: 1000}}}
		if _, _, err := b.table.Update(fmt.Sprintf("sip:050%08d@%s", i, domain), &u, now()); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkBindings writes bindings that have come, and reads those that another process has left.
func BenchmarkBindings(b *testing.B) {
	directory := b.TempDir()
	table := location.New()
	homes := newBindings(directory, table, new(agents), slog.New(slog.DiscardHandler))
	if _, err := homes.read(now()); err != nil {
		b.Fatal(err)
	}
	table.Changed = homes.note
	bind(b, homes)
	began := spent()
	if !homes.write() {
		b.Fatal("not written")
	}
	wrote := spent() - began
	homes.close()
	var read, took time.Duration
	n := 0
	for b.Loop() {
		before, from := spent(), time.Now()
		other := newBindings(directory, location.New(), new(agents), slog.New(slog.DiscardHandler))
		if count, err := other.read(now()); count != many || err != nil {
			b.Fatal(count, err)
		}
		read += time.Duration(spent() - before)
		took += time.Since(from)
		other.close()
		n++
	}
	b.ReportMetric(float64(wrote)/many, "cpu-ns/write")
	b.ReportMetric(float64(read)/float64(n)/many, "cpu-ns/read")
	b.ReportMetric(float64(took)/float64(n)/many, "ns/read")
}
