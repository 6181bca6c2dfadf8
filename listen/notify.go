// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Notifier tells the service manager how the process is: sd_notify(3). Without one it says nothing.
type Notifier struct {
	socket   string
	watchdog time.Duration
}

// NewNotifier reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
func NewNotifier(getenv func(string) string) *Notifier {
	n := &Notifier{socket: getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	pid := getenv("WATCHDOG_PID")
	if err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

// WatchdogEvery returns how often to send Watchdog: twice as often as the manager wants. 0 means never.
// sd_watchdog_enabled(3).
func (n *Notifier) WatchdogEvery() time.Duration { return n.watchdog / 2 }

// Ready says that the process serves, or serves again after Reloading.
func (n *Notifier) Ready(status string) error { return n.send("READY=1", "STATUS="+oneLine(status)) }

// Reloading says that a reload has begun; say Ready at its end, however it went.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return os.NewSyscallError("clock_gettime", err)
	}
	return n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10))
}

// Stopping says that the process has begun to end.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Status says in words how the process is.
func (n *Notifier) Status(status string) error { return n.send("STATUS=" + oneLine(status)) }

// MainPID says that another process, the one that replaces this one, is the service from now on.
func (n *Notifier) MainPID(pid int) error { return n.send("MAINPID=" + strconv.Itoa(pid)) }

// Barrier waits until the manager has read all that was said before, for as long as patience. What a process says last
// may be lost otherwise: the manager believes nobody who has ended. sd_notify_barrier(3).
func (n *Notifier) Barrier(patience time.Duration) error {
	if n.socket == "" {
		return nil
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer ours.Close()
	err = n.sendWith(unix.UnixRights(int(theirs.Fd())), "BARRIER=1")
	theirs.Close()
	if err != nil {
		return err
	}
	ours.SetReadDeadline(time.Now().Add(patience))
	if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // it closes its copy
		return fmt.Errorf("wait for the service manager: %w", err)
	}
	return nil
}

// Watchdog says that the process is alive.
func (n *Notifier) Watchdog() error { return n.send("WATCHDOG=1") }

func (n *Notifier) send(lines ...string) error { return n.sendWith(nil, lines...) }

// sendWith sends one datagram, with descriptors. A socket whose name begins with @ is abstract: unix(7).
func (n *Notifier) sendWith(rights []byte, lines ...string) error {
	if n.socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer c.Close()
	raw, err := c.SyscallConn() // WriteMsgUnix refuses a socket that is connected
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		failed = unix.Sendmsg(int(fd), []byte(strings.Join(lines, "\n")), rights, nil, 0)
		return failed != unix.EAGAIN
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// oneLine keeps a text from beginning another assignment.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
