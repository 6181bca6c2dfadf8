// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/kernel"
)

// remaining is a folder of pins for a test.
type remaining struct {
	*testing.T
	folder string
	space  netns.NsHandle // of the test
	media  bool           // what is left is the relay of media's
}

// TestRemains: pins go when their namespace is gone, and only then.
func TestRemains(t *testing.T) {
	t.Parallel()
	r := newRemaining(t)
	stay := make(chan struct{})
	inside, left := r.plane("", func() { <-stay })
	mounted := filepath.Join(t.TempDir(), "a name with spaces")
	kept, ended := r.plane(mounted, nil)
	<-ended
	locked, ended := r.plane("", nil)
	<-ended
	lock, err := lockFolder(locked)
	r.must(err)
	free, ended := r.plane("", nil)
	<-ended
	for _, other := range []string{"net-", "net-007", "net-x", "other"} {
		r.must(os.Mkdir(filepath.Join(r.folder, other), 0o700))
	}
	r.media = true
	media, ended := r.plane("", nil)
	<-ended
	r.removes(media, free)
	r.removes()
	r.must(lock.Close())
	r.removes(locked)
	r.must(unix.Unmount(mounted, 0))
	r.removes(kept)
	close(stay)
	<-left
	r.removes(inside)
}

func newRemaining(t *testing.T) *remaining {
	t.Helper()
	runtime.LockOSThread() // never given back: the thread ends with the test's goroutine
	r := &remaining{T: t, folder: t.TempDir()}
	if err := unix.Mount("bpf", r.folder, "bpf", 0, ""); err != nil {
		if errors.Is(err, unix.EPERM) && os.Getenv("KYOZON_LAB") != "require" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { r.must(unix.Unmount(r.folder, 0)) })
	var err error
	r.space, err = netns.New()
	r.must(err)
	t.Cleanup(func() { r.must(r.space.Close()) })
	return r
}

func (r *remaining) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// plane leaves a kernel plane in a namespace, whose interface goes. The namespace stays until stay, if there is one, has returned, and as
// long as it is mounted, if a place is given. The channel is closed when no thread is in it any more.
func (r *remaining) plane(mount string, stay func()) (pin string, ended chan struct{}) {
	r.Helper()
	ready := make(chan error)
	ended = make(chan struct{})
	go func() {
		runtime.LockOSThread() // never given back
		defer close(ended)
		err := r.leave(mount, &pin)
		ready <- err
		if err == nil && stay != nil {
			stay()
		}
		if err := netns.Set(r.space); err != nil { // the thread may last longer than its goroutine
			r.Error(err)
		}
	}()
	r.must(<-ready)
	return pin, ended
}

func (r *remaining) leave(mount string, pin *string) error {
	space, err := netns.New()
	if err != nil {
		return err
	}
	defer space.Close()
	number, err := cookie()
	if err != nil {
		return err
	}
	*pin = filepath.Join(r.folder, fmt.Sprint(pinPrefix, number))
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "servers"}, PeerName: "server"}
	if err := netlink.LinkAdd(link); err != nil {
		return err
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		if err := os.WriteFile("/proc/sys/net/"+family+"/conf/servers/forwarding", []byte("1"), 0); err != nil {
			return err
		}
	}
	if mount != "" {
		if err := errors.Join(os.WriteFile(mount, nil, 0o600), unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), mount, "", unix.MS_BIND, "")); err != nil {
			return err
		}
	}
	if r.media {
		*pin = filepath.Join(r.folder, fmt.Sprint(mediaPrefix, number))
		s, err := kernel.OpenStreams(kernel.StreamsOptions{Pin: *pin, Lanes: 100})
		if err != nil {
			return err
		}
		return errors.Join(s.Attach("servers"), s.Close(), netlink.LinkDel(link))
	}
	k, err := kernel.Open(kernel.Options{Pin: *pin, Flows: 100, Pending: 100, StandIns: 10})
	if err != nil {
		return err
	}
	return errors.Join(k.Attach("servers"), k.Close(), netlink.LinkDel(link))
}

// removes wants exactly these folders removed.
func (r *remaining) removes(want ...string) {
	r.Helper()
	before := r.folders()
	n, err := removeRemains(r.folder)
	r.must(err)
	after := r.folders()
	gone := slices.DeleteFunc(before, func(name string) bool { return slices.Contains(after, name) })
	if n != len(want) || !slices.Equal(gone, want) {
		r.Errorf("%d are removed, %v, want %v", n, gone, want)
	}
}

func (r *remaining) folders() (all []string) {
	r.Helper()
	names, err := os.ReadDir(r.folder)
	r.must(err)
	for _, n := range names {
		all = append(all, filepath.Join(r.folder, n.Name()))
	}
	return all
}
