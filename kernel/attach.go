// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hooks are where a program is attached.
type hooks struct {
	pin      string // folder of pins; "" means that all ends with the process
	filters  bool   // attach as on a kernel that has no TCX, for tests
	priority uint16 // of filters: each program has its own
	program  *ebpf.Program

	mu       sync.Mutex
	attached map[string]attachment // by interface
}

// The priorities of filters. What the first passes the second sees.
const (
	forwardPriority = 1
	streamsPriority = 2
)

// attachment is the program on one interface: a link where the kernel has TCX (6.6), otherwise a filter of clsact,
// which has no life of its own and so is known by a mark among the pins.
type attachment struct {
	link  link.Link
	index int
}

const (
	linkPrefix   = "link-"   // pins of links
	filterPrefix = "filter-" // marks of filters
	filterName   = "kyozon"
)

// Attach puts the program onto an interface, in place of that of the process before. The interface must be one that
// Supported has nothing against. Both the clients' and the backends' interfaces need it.
func (p *Plane) Attach(iface string) error {
	if err := Supported(iface); err != nil {
		return err
	}
	return p.hooks.attach(iface)
}

// attach puts the program onto an interface.
func (h *hooks) attach(iface string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("attach %s: %w", iface, err)
	}
	a := attachment{index: l.Attrs().Index}
	switch old, ok := h.attached[iface]; {
	case ok && old.index == a.index:
		return nil
	case ok: // another one has its name
		if err := h.leaveLocked(iface); err != nil {
			return err
		}
	}
	err = ebpf.ErrNotSupported
	if !h.filters {
		a.link, err = h.attachLink(iface, a.index)
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		err = h.attachFilter(iface, a.index)
	}
	if err != nil {
		return fmt.Errorf("attach %s: %w", iface, err)
	}
	h.attached[iface] = a
	return nil
}

// Leave lets go of an interface that is no more, so that one which comes in its place can be attached.
func (p *Plane) Leave(iface string) error { return p.hooks.leave(iface) }

func (h *hooks) leave(iface string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leaveLocked(iface)
}

// close gives back what the process holds. What is pinned stays attached.
func (h *hooks) close() (failed error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, a := range h.attached {
		if err := h.let(a); err != nil {
			failed = errors.Join(failed, fmt.Errorf("detach %s: %w", name, err))
		}
	}
	clear(h.attached)
	return failed
}

func (h *hooks) leaveLocked(iface string) error {
	a, ok := h.attached[iface]
	if !ok {
		return nil
	}
	delete(h.attached, iface)
	var failed error
	if a.link != nil {
		failed = a.link.Close()
	}
	if h.pin != "" {
		for _, prefix := range []string{linkPrefix, filterPrefix} {
			if err := os.Remove(filepath.Join(h.pin, prefix+iface)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = errors.Join(failed, err)
			}
		}
	}
	if failed != nil {
		return fmt.Errorf("leave %s: %w", iface, failed)
	}
	return nil
}

// attachLink gives a pinned link the new program, so that no packet goes by; or makes a link.
func (h *hooks) attachLink(iface string, index int) (link.Link, error) {
	pin := filepath.Join(h.pin, linkPrefix+iface)
	if h.pin != "" {
		old, err := link.LoadPinnedLink(pin, nil)
		switch {
		case err == nil && isOn(old, index):
			if err := old.Update(h.program); err != nil {
				return nil, errors.Join(fmt.Errorf("update link: %w", err), old.Close())
			}
			return old, nil
		case err == nil: // the interface it was on is gone
			if err := errors.Join(old.Unpin(), old.Close()); err != nil {
				return nil, fmt.Errorf("remove old link: %w", err)
			}
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("open pinned link: %w", err)
		}
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: index, Program: h.program, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
	})
	if err != nil {
		return nil, err
	}
	if h.pin != "" {
		if err := l.Pin(pin); err != nil {
			return nil, errors.Join(fmt.Errorf("pin link: %w", err), l.Close())
		}
	}
	return l, nil
}

// detachLink takes the program of a pinned link from its interface, at once: without the pin alone the link would end soon
// after.
func detachLink(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return fmt.Errorf("open pinned link: %w", err)
	}
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) { // the interface is gone
		return errors.Join(fmt.Errorf("detach: %w", err), l.Close())
	}
	return l.Close()
}

func isOn(l link.Link, index int) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	tcx := info.TCX()
	return tcx != nil && tcx.Ifindex == uint32(index)
}

// attachFilter is the way of kernels before 6.6.
func (h *hooks) attachFilter(iface string, index int) error {
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", err)
	}
	if err := netlink.FilterReplace(h.filter(index)); err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	if h.pin == "" {
		return nil
	}
	// A map of one byte is the only kind of mark that a BPF file system holds.
	mark, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 1, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make mark: %w", err)
	}
	defer mark.Close()
	if err := mark.Pin(filepath.Join(h.pin, filterPrefix+iface)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("pin mark: %w", err)
	}
	return nil
}

func (h *hooks) filter(index int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: h.priority, Protocol: unix.ETH_P_ALL,
		},
		Fd: h.program.FD(), Name: filterName, DirectAction: true,
	}
}

// let gives up an attachment. A filter that is pinned stays.
func (h *hooks) let(a attachment) error {
	switch {
	case a.link != nil:
		return a.link.Close()
	case h.pin != "":
		return nil
	}
	return removeFilter(a.index, h.priority)
}

// interfaceOf returns the interface whose filter a pin marks.
func interfaceOf(pin string) (string, bool) { return strings.CutPrefix(pin, filterPrefix) }

// detachFilter removes the filter from an interface, if that is still there.
func detachFilter(iface string, priority uint16) error {
	l, err := netlink.LinkByName(iface)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("detach %s: %w", iface, err)
	}
	return removeFilter(l.Attrs().Index, priority)
}

func removeFilter(index int, priority uint16) error {
	err := netlink.FilterDel(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: priority, Protocol: unix.ETH_P_ALL,
	}})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
