// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/kernel"
)

const pinPrefix = "net-" // of folders, before the cookie

// removeRemains removes the folders of network namespaces that are gone from a folder of pins, and returns how many. A namespace is
// gone if no process is in it and no file keeps it, as far as this process can see; and then only if no packet
// goes through what is pinned. It needs CAP_SYS_ADMIN if there is anything to look at.
func removeRemains(folder string) (removed int, err error) {
	all, err := os.ReadDir(folder)
	if err != nil {
		return 0, fmt.Errorf("read folder of pins: %w", err)
	}
	own, err := cookie()
	if err != nil {
		return 0, err
	}
	var gone []string
	for _, f := range all {
		if cookie, ok := cookieOf(f.Name()); ok && f.IsDir() && cookie != own {
			gone = append(gone, f.Name())
		}
	}
	if len(gone) == 0 {
		return 0, nil
	}
	there, err := namespaces() // after the folders were listed: who makes one is in its namespace before
	if err != nil {
		return 0, fmt.Errorf("find network namespaces: %w", err)
	}
	for _, name := range gone {
		if cookie, _ := cookieOf(name); there[cookie] {
			continue
		}
		ok, failed := removeIfFree(filepath.Join(folder, name))
		if ok {
			removed++
		}
		err = errors.Join(err, failed)
	}
	return removed, err
}

// removeIfFree removes a folder that no process has locked.
func removeIfFree(pin string) (bool, error) {
	lock, err := lockFolder(pin)
	switch {
	case errors.Is(err, errLocked) || errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	defer lock.Close()
	return kernel.RemoveRemains(pin)
}

// cookieOf returns the cookie of the namespace whose pins a folder has.
func cookieOf(folder string) (uint64, bool) {
	text, ok := strings.CutPrefix(folder, pinPrefix)
	if !ok {
		text, ok = strings.CutPrefix(folder, mediaPrefix)
	}
	cookie, err := strconv.ParseUint(text, 10, 64)
	return cookie, ok && err == nil && strconv.FormatUint(cookie, 10) == text
}

// namespaces returns the cookies of the network namespaces that a process is in, or that a mount keeps. It is an error if there is one
// that it may not look at.
func namespaces() (map[uint64]bool, error) {
	files, err := openNamespaces()
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	found := make(map[uint64]bool)
	failed := make(chan error)
	go func() { failed <- visit(files, found) }()
	return found, <-failed
}

// visit notes the cookies of namespaces. If its thread cannot come back it ends with the goroutine.
func visit(files []*os.File, found map[uint64]bool) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	for _, f := range files {
		err = errors.Join(err, enter(f, found))
	}
	if failed := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); failed != nil {
		return errors.Join(err, fmt.Errorf("come back: %w", failed))
	}
	runtime.UnlockOSThread()
	return err
}

// enter goes into a namespace and notes its cookie.
func enter(f *os.File, found map[uint64]bool) error {
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", f.Name(), err)
	}
	cookie, err := cookie()
	found[cookie] = true
	return err
}

// openNamespaces opens each namespace that a thread is in, or that a mount keeps. The caller closes them, also if there is an error. Not
// every process may be looked at, also by root; but the number of a file below net says which are in the same namespace.
func openNamespaces() (all []*os.File, err error) {
	tasks, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	if err != nil {
		return nil, err
	}
	there, denied := make(map[uint64]bool), make(map[uint64]error)
	for _, task := range tasks {
		var st unix.Stat_t
		var f *os.File
		err := unix.Stat(filepath.Join(task, "net/dev"), &st)
		if there[st.Ino] {
			continue
		}
		if err == nil {
			f, err = os.Open(filepath.Join(task, "ns/net"))
		}
		switch {
		case err == nil:
			there[st.Ino], all = true, append(all, f)
		case !isGone(err):
			denied[st.Ino] = err
		}
	}
	for number, err := range denied {
		if !there[number] {
			return all, err
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return all, err
	}
	for _, at := range mountsOf(mounts) {
		f, err := os.Open(at)
		switch {
		case err == nil:
			all = append(all, f)
		case !isGone(err):
			return all, err
		}
	}
	return all, nil
}

// isGone says whether a process has ended meanwhile.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// mountsOf returns where the files of namespaces are mounted. Octal stands for spaces in names. proc(5)
func mountsOf(mountinfo []byte) (all []string) {
	for line := range strings.Lines(string(mountinfo)) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 || !strings.HasPrefix(after, "nsfs ") || !strings.HasPrefix(fields[3], "net:") {
			continue
		}
		at, err := strconv.Unquote(`"` + strings.ReplaceAll(fields[4], `"`, `\"`) + `"`)
		if err == nil {
			all = append(all, at)
		}
	}
	return all
}

// cookie returns the cookie of this thread's network namespace.
func cookie() (uint64, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	return unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}
