// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// RemoveRemains removes a folder of pins through which no packet goes any more: what was attached is off its interface, and
// nothing else uses the maps. It returns false, and leaves everything, if that is not so or if there is something in it that is not ours.
//
// The caller knows that the network namespace of the folder is gone, and has the folder for itself. It needs CAP_SYS_ADMIN.
func RemoveRemains(pin string) (bool, error) {
	names, err := os.ReadDir(pin)
	if err != nil {
		return false, fmt.Errorf("read pins: %w", err)
	}
	ours, err := ourMaps()
	if err != nil {
		return false, fmt.Errorf("read programs: %w", err)
	}
	var r remains
	for _, n := range names {
		at := filepath.Join(pin, n.Name())
		switch {
		case n.IsDir():
			return false, nil
		case ours[n.Name()] || strings.HasPrefix(n.Name(), filterPrefix):
			err = r.addMap(at)
		case strings.HasPrefix(n.Name(), linkPrefix):
			err = r.addLink(at)
		default:
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look at pin %s: %w", at, err)
		}
	}
	if used, err := r.used(); used || err != nil {
		return false, err
	}
	for _, n := range names {
		err = errors.Join(err, os.Remove(filepath.Join(pin, n.Name())))
	}
	if err = errors.Join(err, os.Remove(pin)); errors.Is(err, fs.ErrNotExist) {
		return true, nil // another process has done it
	}
	return err == nil, err
}

// ourMaps returns the names of the maps of both programs.
func ourMaps() (map[string]bool, error) {
	names := make(map[string]bool)
	for _, load := range []func() (*ebpf.CollectionSpec, error){loadForward, loadStreams} {
		spec, err := load()
		if err != nil {
			return nil, err
		}
		for name := range spec.Maps {
			names[name] = true
		}
	}
	return names, nil
}

// remains are the pins of a folder.
type remains struct {
	maps     map[ebpf.MapID]bool
	programs map[ebpf.ProgramID]bool // of links that are off their interfaces
	attached bool
}

func (r *remains) addMap(at string) error {
	m, err := ebpf.LoadPinnedMap(at, nil)
	if err != nil {
		return err
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return err
	}
	if r.maps == nil {
		r.maps = make(map[ebpf.MapID]bool)
	}
	id, ok := info.ID()
	r.maps[id] = true
	return orUnknown(ok)
}

func (r *remains) addLink(at string) error {
	l, err := link.LoadPinnedLink(at, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return err
	}
	if r.programs == nil {
		r.programs = make(map[ebpf.ProgramID]bool)
	}
	r.programs[info.Program] = true
	if tcx := info.TCX(); tcx == nil || tcx.Ifindex != 0 {
		r.attached = true
	}
	return nil
}

// used says whether packets may still go through: a link is on its interface, or a program that no link of the folder keeps has the
// maps. A filter of clsact is such a program, and so is one that a process has open.
func (r *remains) used() (bool, error) {
	if r.attached {
		return true, nil
	}
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("list programs: %w", err)
		}
		if id = next; r.programs[id] {
			continue
		}
		maps, err := mapsOf(id)
		if err != nil {
			return false, fmt.Errorf("look at program %d: %w", id, err)
		}
		if slices.ContainsFunc(maps, func(m ebpf.MapID) bool { return r.maps[m] }) {
			return true, nil
		}
	}
}

// mapsOf returns the maps of a program; none if it has just ended.
func mapsOf(id ebpf.ProgramID) ([]ebpf.MapID, error) {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, err
	}
	maps, ok := info.MapIDs()
	return maps, orUnknown(ok)
}

var errNoIDs = errors.New("kernel: it has no number")

// orUnknown is the error of what a kernel does not tell.
func orUnknown(ok bool) error {
	if ok {
		return nil
	}
	return errNoIDs
}
