// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// UpgradeEnv is the environment variable by which a process tells the one that replaces it how many sockets it hands
// over. It is not LISTEN_FDS, which names the process that it is meant for: that one does not exist yet.
const UpgradeEnv = "KYOZON_LISTEN_FDS"

// firstFD is the first descriptor handed over. sd_listen_fds(3); also where os/exec puts ExtraFiles.
const firstFD = 3

// Inherit takes over the sockets that systemd (LISTEN_FDS) or the process that this one replaces (UpgradeEnv) has handed
// over, and returns their addresses. They are kept, and lent like those that the set has opened. Call it once, before
// anything else opens a descriptor, and take the variables out of the environment afterwards.
//
// Descriptors that the edge cannot use are closed; the error names each. The others are taken all the same.
func (s *Set) Inherit(getenv func(string) string) ([]Addr, error) {
	n, err := handedOver(getenv)
	if err != nil {
		return nil, err
	}
	return s.adopt(firstFD, n, strings.Split(getenv("LISTEN_FDNAMES"), ":"))
}

// handedOver returns how many descriptors are meant for this process.
func handedOver(getenv func(string) string) (int, error) {
	name := UpgradeEnv
	if getenv(name) == "" {
		name = "LISTEN_FDS"
		if pid := getenv("LISTEN_PID"); getenv(name) == "" || pid != strconv.Itoa(os.Getpid()) {
			return 0, nil // none, or meant for another process
		}
	}
	n, err := strconv.Atoi(getenv(name))
	if err != nil || n < 0 || n > 1<<16 {
		return 0, fmt.Errorf("inherit sockets: %s is %q, want a number", name, getenv(name))
	}
	return n, nil
}

func (s *Set) adopt(first, n int, names []string) ([]Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Addr
	var errs []error
	for i := range n {
		fd := first + i
		unix.CloseOnExec(fd)
		a, err := addrOf(fd)
		if err == nil {
			err = os.NewSyscallError("fcntl", unix.SetNonblock(fd, true))
		}
		if err == nil && s.kept[a] != nil {
			err = fmt.Errorf("%v is there twice", a)
		}
		if err != nil {
			unix.Close(fd)
			errs = append(errs, fmt.Errorf("inherit %s: %w", describe(fd, i, names), err))
			continue
		}
		s.kept[a] = &socket{fd: fd}
		all = append(all, a)
	}
	return all, errors.Join(errs...)
}

// describe names a descriptor by its number and, if systemd has said it, by its FileDescriptorName.
func describe(fd, i int, names []string) string {
	if i < len(names) && names[i] != "" {
		return fmt.Sprintf("descriptor %d (%s)", fd, names[i])
	}
	return fmt.Sprintf("descriptor %d", fd)
}

// Files returns a copy of each kept socket, for the ExtraFiles of the process that is to replace this one, and the
// variable that tells it so. The caller closes the files. Until both processes have closed a socket no client that
// waits in it is lost.
func (s *Set) Files() (files []*os.File, env string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs := make([]Addr, 0, len(s.kept))
	for a := range s.kept {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, func(a, b Addr) int { return strings.Compare(a.String(), b.String()) })
	for _, a := range addrs {
		fd, err := unix.FcntlInt(uintptr(s.kept[a].fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, "", fmt.Errorf("hand over %v: %w", a, os.NewSyscallError("fcntl", err))
		}
		files = append(files, os.NewFile(uintptr(fd), a.String()))
	}
	return files, UpgradeEnv + "=" + strconv.Itoa(len(files)), nil
}
