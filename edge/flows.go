// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/relay"
)

// Flows is the UDP flows that one process hands to the next, by the address that clients send to.
type Flows map[listen.Addr][]relay.HandedOver

// take returns the flows of an address, once.
func (f Flows) take(a listen.Addr) []relay.HandedOver {
	flows := f[a]
	delete(f, a)
	return flows
}

// drop closes the flows of addresses that nobody serves.
func (f Flows) drop() {
	for a := range f {
		for _, h := range f.take(a) {
			unix.Close(h.FD)
		}
	}
}

// flowsAtOnce is how many flows one message carries: the kernel passes up to 253 descriptors. unix(7), SCM_RIGHTS.
const flowsAtOnce = 100

// flowsMessage is some flows of one address, whose sockets come beside it in the same order. One without flows is the
// last.
type flowsMessage struct {
	At    listen.Addr
	Flows []relay.HandedOver
}

// sendFlowsLocked hands over the UDP flows of all doors.
func (e *Edge) sendFlowsLocked(fd int) error {
	for a, d := range e.doors {
		if d.packets == nil {
			continue
		}
		flows := d.packets.HandOver()
		for len(flows) > 0 {
			n := min(len(flows), flowsAtOnce)
			if err := sendFlows(fd, flowsMessage{a, flows[:n]}); err != nil {
				return err
			}
			flows = flows[n:]
		}
	}
	return sendFlows(fd, flowsMessage{})
}

func sendFlows(fd int, m flowsMessage) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	fds := make([]int, len(m.Flows))
	for i, h := range m.Flows {
		fds[i] = h.FD
	}
	return patiently(fd, unix.POLLOUT, func() error { return unix.Sendmsg(fd, text, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL) })
}

// receiveFlows takes what sendFlowsLocked sends.
func receiveFlows(fd int) (Flows, error) {
	all := make(Flows)
	text, rights := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(4*flowsAtOnce))
	for {
		var n, oob int
		if err := patiently(fd, unix.POLLIN, func() (err error) {
			n, oob, _, _, err = unix.Recvmsg(fd, text, rights, unix.MSG_CMSG_CLOEXEC)
			return err
		}); err != nil {
			return all, err
		}
		var m flowsMessage
		if err := json.Unmarshal(text[:n], &m); err != nil {
			return all, fmt.Errorf("receive UDP flows: %w", err)
		}
		if len(m.Flows) == 0 {
			return all, nil
		}
		fds, err := descriptors(rights[:oob])
		if err != nil || len(fds) != len(m.Flows) {
			return all, fmt.Errorf("receive UDP flows: %d sockets for %d flows: %w", len(fds), len(m.Flows), errors.Join(err, errUpgrade))
		}
		for i := range m.Flows {
			m.Flows[i].FD = fds[i]
		}
		all[m.At] = append(all[m.At], m.Flows...)
	}
}

func descriptors(rights []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil, err
	}
	return unix.ParseUnixRights(&messages[0])
}

// patiently makes a call again until the socket is ready for it.
func patiently(fd int, events int16, call func() error) error {
	for deadline := time.Now().Add(upgradePatience); time.Now().Before(deadline); {
		err := call()
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("hand over UDP flows", err)
		}
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 1000)
	}
	return errUpgrade
}
