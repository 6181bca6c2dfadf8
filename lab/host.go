// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// Host is one machine of a lab: a network namespace, a host name, and its own /run, /var/lib, /var/log and
// /etc/hosts. The rest of the file system is that of the machine which runs the lab. Its methods may be called by
// many goroutines.
type Host struct {
	name          string
	spec          HostSpec
	lab           *Lab
	entering      sync.RWMutex // read-locked by those who use the files: close waits for them
	net, mnt, uts *os.File
}

// hidden returns the directories of which each host has its own. /run is last: over it, the lab's own is gone.
func hidden() []string { return []string{"/var/lib", "/var/log", "/run"} }

// newHost makes the namespaces of a host. They have no name: they live as long as something holds them.
func newHost(l *Lab, name string, spec HostSpec, etcHosts []byte) (*Host, error) {
	h := &Host{name: name, spec: spec, lab: l}
	err := onThread(func() error {
		// The lab's /proc does not know this thread, so open its own directory before going there.
		own, err := unix.Open("/proc/thread-self/ns", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open namespaces: %w", err)
		}
		defer unix.Close(own)
		if err := enter(l.box.mnt, unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("make namespaces: %w", err)
		}
		if err := unix.Sethostname([]byte(name)); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
		if err := furnish(name, etcHosts); err != nil {
			return err
		}
		for kind, to := range map[string]**os.File{"net": &h.net, "mnt": &h.mnt, "uts": &h.uts} {
			fd, err := unix.Openat(own, kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open namespace %s: %w", kind, err)
			}
			*to = os.NewFile(uintptr(fd), name+" "+kind)
		}
		return nil
	})
	if err != nil {
		h.close()
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	return h, nil
}

// furnish gives the host of this mount namespace its own directories, which lie in the lab's /run, and its
// /etc/hosts.
func furnish(name string, etcHosts []byte) error {
	base := filepath.Join("/run", name)
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(base+"/hosts", etcHosts, 0o644); err != nil {
		return err
	}
	if err := bind(base+"/hosts", "/etc/hosts"); err != nil {
		return err
	}
	for _, dir := range hidden() {
		from := filepath.Join(base, filepath.Base(dir))
		if err := os.Mkdir(from, 0o755); err != nil {
			return err
		}
		if err := bind(from, dir); err != nil {
			return err
		}
	}
	return os.Mkdir("/run/tmp", 0o1777)
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}

// enter takes this thread into a namespace. A thread that shares its root directory with others may not change its
// mount namespace.
func enter(ns *os.File, kind int) error {
	if kind == unix.CLONE_NEWNS {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("leave root directory: %w", err)
		}
	}
	if err := unix.Setns(int(ns.Fd()), kind); err != nil {
		return fmt.Errorf("enter namespace of %s: %w", ns.Name(), err)
	}
	return nil
}

// Name returns the name the host has in the file.
func (h *Host) Name() string { return h.name }

// Do runs fn in the host's network: sockets that fn opens, in its own goroutine, belong to the host and remain so.
// fn must not end its goroutine, as t.Fatal does.
func (h *Host) Do(fn func() error) error {
	return onThread(func() error {
		h.entering.RLock()
		err := enter(h.net, unix.CLONE_NEWNET)
		h.entering.RUnlock()
		if err != nil {
			return err
		}
		return fn()
	})
}

// DialContext connects from inside the host. The address may be one of the file's names: of its addresses, the host
// takes the first IPv6 one if it has IPv6, else the first IPv4 one, and no other. It fits http.Transport.
func (h *Host) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	if name, port, err := net.SplitHostPort(address); err == nil {
		if a := h.lookUp(network, name); a.IsValid() {
			address = net.JoinHostPort(a.String(), port)
		}
	}
	err = h.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// lookUp returns the address the host uses for a name, or the zero Addr.
func (h *Host) lookUp(network, name string) netip.Addr {
	mine := h.spec.families()
	mine[ip.V4] = mine[ip.V4] && !strings.HasSuffix(network, "6")
	mine[ip.V6] = mine[ip.V6] && !strings.HasSuffix(network, "4")
	for _, f := range []ip.Family{ip.V6, ip.V4} {
		for _, a := range h.lab.file.Names[name] {
			if mine[f] && ip.FamilyOf(a) == f {
				return a
			}
		}
	}
	return netip.Addr{}
}

// Listen listens inside the host. The address must be a literal one.
func (h *Host) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = h.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return l, err
}

// inside runs fn in the host's network and file system; processes that fn starts are processes of the lab.
func (h *Host) inside(fn func() error) error {
	return onThread(func() error {
		b := h.lab.box
		for _, e := range []struct {
			ns   *os.File
			kind int
		}{
			{h.mnt, unix.CLONE_NEWNS}, {h.net, unix.CLONE_NEWNET}, {h.uts, unix.CLONE_NEWUTS},
			{b.ipc, unix.CLONE_NEWIPC}, {b.pid, unix.CLONE_NEWPID},
		} {
			if err := enter(e.ns, e.kind); err != nil {
				return err
			}
		}
		return fn()
	})
}

// ReadFile reads a file of the host.
func (h *Host) ReadFile(path string) (data []byte, err error) {
	err = h.inside(func() (err error) {
		data, err = os.ReadFile(path)
		return err
	})
	return data, err
}

// WriteFile writes a file of the host, and makes its directory. Only what is below /run, /var/lib and /var/log
// vanishes with the lab; WriteFile refuses any other path.
func (h *Host) WriteFile(path string, data []byte) error {
	if hiddenAt(path) == "" {
		return fmt.Errorf("write %s: it would remain when the lab is gone", path)
	}
	return h.inside(func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o644)
	})
}

// hiddenAt returns which of the hidden directories path is in, or "".
func hiddenAt(path string) string {
	for _, dir := range hidden() {
		if strings.HasPrefix(filepath.Clean(path), dir+"/") {
			return dir
		}
	}
	return ""
}

// Cmd is a command that runs on a host. Start, Run, Output and CombinedOutput are those of exec.Cmd, and so is the
// rest. A command that was started must be waited for. It dies with the lab.
type Cmd struct {
	*exec.Cmd
	host *Host
}

// Command returns the command argv to run on the host, with a small environment that is the same everywhere. It is
// killed when ctx is done.
func (h *Host) Command(ctx context.Context, argv ...string) *Cmd {
	return h.command(exec.CommandContext(ctx, lookPath(argv[0]), argv[1:]...))
}

func (h *Host) command(c *exec.Cmd) *Cmd {
	c.Dir = "/run"
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
		"HOME=/run", "TMPDIR=/run/tmp"}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return &Cmd{Cmd: c, host: h}
}

// Start starts the command and does not wait for it.
func (c *Cmd) Start() error { return c.host.inside(c.Cmd.Start) }

// Run starts the command and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns what it wrote. What it wrote to stderr, if nobody took it, is part of the error.
func (c *Cmd) Output() ([]byte, error) {
	var out, complaint bytes.Buffer
	c.Stdout = &out
	if c.Stderr == nil {
		c.Stderr = &complaint
	}
	err := c.Run()
	if err != nil && complaint.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(complaint.String()))
	}
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns what it wrote, stderr too.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// close gives up the namespaces. Who is inside stays there; nobody comes in any more.
func (h *Host) close() {
	h.entering.Lock()
	defer h.entering.Unlock()
	for _, f := range []*os.File{h.net, h.mnt, h.uts} {
		if f != nil {
			f.Close()
		}
	}
}
