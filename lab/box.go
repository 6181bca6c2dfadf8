// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrRoot means that the process may not make namespaces.
var ErrRoot = errors.New("lab: needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) to make namespaces")

const (
	selfName = "(kyozon lab)" // argv[0] of this program when it runs as a part of a lab
	insideOf = "KYOZON_LAB_INSIDE"
	initEnds = 5 * time.Second
)

// Main makes this program do a part of a lab, and does not return, if a lab has started it for that. Call it first
// in main and in TestMain; otherwise it does nothing.
func Main() {
	if len(os.Args) < 2 || os.Args[0] != selfName {
		return
	}
	part := map[string]func([]string) error{"init": runInit, "app": runApp, "udp": runUDP}[os.Args[1]]
	if err := part(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// self returns a command that runs a part of a lab in this program's binary, which need not be reachable by a path.
func self(part string, args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Args = append([]string{selfName, part}, args...)
	return c
}

// box is what every process of a lab lives in: a PID, a mount and an IPC namespace. Its init is the only process
// that holds them; when the last write end of the pipe alive is closed, and the kernel closes it however the lab's
// process ends, init ends, and with it every process in the PID namespace.
//
// Pdeathsig is not used: it follows the thread that started the process, and threads of a Go program end.
type box struct {
	init          *exec.Cmd
	alive         *os.File
	pid, mnt, ipc *os.File
}

func openBox() (_ *box, err error) {
	if os.Getenv(insideOf) != "" {
		return nil, errors.New("lab: main or TestMain must call lab.Main first")
	}
	if os.Geteuid() != 0 {
		return nil, ErrRoot
	}
	aliveR, aliveW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer aliveR.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), aliveW.Close())
	}
	defer readyR.Close()

	b := &box{init: self("init"), alive: aliveW}
	b.init.Env = []string{insideOf + "=1"}
	b.init.ExtraFiles = []*os.File{aliveR, readyW}
	b.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC,
		Setpgid:    true, // a Ctrl-C is for the lab's process, which closes the lab
	}
	err = b.init.Start()
	readyW.Close()
	if err != nil {
		aliveW.Close()
		if errors.Is(err, unix.EPERM) {
			return nil, ErrRoot
		}
		return nil, fmt.Errorf("start init of the lab: %w", err)
	}
	said, _ := io.ReadAll(readyR)
	if s := strings.TrimSpace(string(said)); s != "ready" {
		return nil, errors.Join(fmt.Errorf("start init of the lab: it said %q (does main call lab.Main first?)", s), b.close())
	}
	for name, to := range map[string]**os.File{"pid": &b.pid, "mnt": &b.mnt, "ipc": &b.ipc} {
		if *to, err = os.Open(fmt.Sprintf("/proc/%d/ns/%s", b.init.Process.Pid, name)); err != nil {
			return nil, errors.Join(fmt.Errorf("open namespace: %w", err), b.close())
		}
	}
	return b, nil
}

// close ends every process of the box. Whoever started one must be waiting for it, else init cannot end.
func (b *box) close() error {
	b.alive.Close()
	for _, f := range []*os.File{b.pid, b.mnt, b.ipc} {
		if f != nil {
			f.Close()
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.init.Wait() // its exit code says nothing: it ends because it is told to
	}()
	late := time.NewTimer(initEnds)
	defer late.Stop()
	select {
	case <-ended:
		return nil
	case <-late.C:
		return errors.New("lab: init did not end: a process started in the lab was not waited for")
	}
}

// runInit is the first process of the PID namespace. It makes the file system private, takes in orphans, and stays
// until the lab's process is gone.
func runInit([]string) error {
	alive, ready := os.NewFile(3, "alive"), os.NewFile(4, "ready")
	if err := privateMounts(); err != nil {
		fmt.Fprintln(ready, err)
		return err
	}
	children := make(chan os.Signal, 1) // one is enough: each wakes a loop that takes all there are
	signal.Notify(children, unix.SIGCHLD)
	go func() {
		for range children {
			for {
				if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}()
	fmt.Fprintln(ready, "ready")
	ready.Close()
	io.Copy(io.Discard, alive)
	return nil
}

// privateMounts gives the lab its own /proc, memory in place of /run and /dev/shm, and a BPF file system. They vanish with
// the mount namespace. /dev/shm is where PostgreSQL keeps memory that a kill would leave behind.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	for _, m := range []struct{ kind, at, data string }{
		{"proc", "/proc", ""},
		{"tmpfs", "/dev/shm", "mode=1777"},
		{"tmpfs", "/run", "mode=755"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.at, err)
		}
	}
	// Where there is none, edges do without the kernel plane, and say so.
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", flags, "mode=700"); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mount bpf on /sys/fs/bpf: %w", err)
	}
	return nil
}

// onThread runs fn on a thread of its own. The thread ends with fn, so that what fn does to the thread's namespaces
// meets no other goroutine.
func onThread(fn func() error) error {
	err := errors.New("lab: the function ended its goroutine")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		err = fn()
	}()
	<-done
	return err
}
