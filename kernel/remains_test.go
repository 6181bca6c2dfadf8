// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kyozon/kyozon/ip"
)

// TestRemains: pins are removed when nothing is attached any more, and not before; and none of a folder that has what is not ours.
func TestRemains(t *testing.T) {
	root := bpffs(t)
	for name, filters := range map[string]bool{"tcx": false, "clsact": true} {
		t.Run(name, func(t *testing.T) {
			pin := filepath.Join(root, name)
			r := newRig(t, Options{Flows: 100, Pending: 100, StandIns: 10, Pin: pin, filters: filters})
			r.serve(ip.Crossings()[0])
			r.must(r.Attach("clients"))
			r.must(r.Attach("servers"))
			r.keepsRemains("an open plane")
			r.must(r.Close())
			r.keepsRemains("a plane that forwards without a process")
			r.must(netlink.LinkDel(r.clients))
			r.keepsRemains("a plane on one interface")
			r.must(netlink.LinkDel(r.servers))
			r.must(os.Mkdir(filepath.Join(pin, "other"), 0o700))
			r.keepsRemains("a folder of others")
			r.must(os.Remove(filepath.Join(pin, "other")))
			for removed := false; !removed && !t.Failed(); runtime.Gosched() { // the kernel ends a filter in its own time
				var err error
				removed, err = RemoveRemains(pin)
				r.must(err)
			}
			if _, err := os.Stat(pin); !os.IsNotExist(err) {
				t.Errorf("the folder is left: %v", err)
			}
		})
	}
}

func (r *rig) keepsRemains(what string) {
	r.t.Helper()
	before, err := os.ReadDir(r.options.Pin)
	r.must(err)
	removed, err := RemoveRemains(r.options.Pin)
	r.must(err)
	after, err := os.ReadDir(r.options.Pin)
	r.must(err)
	if removed || len(after) != len(before) || len(after) == 0 {
		r.t.Errorf("%s: of %d pins %d are left", what, len(before), len(after))
	}
}
