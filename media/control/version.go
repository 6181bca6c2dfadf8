// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"net"
)

// The versions of the messages that this build speaks. One of the two processes is upgraded before the other, with calls up: a
// build speaks the versions of those before it for as long as they can be in use, and testdata has a conversation of each.
//
//	2  the first that could be followed by another
//	3  Quality.Kernel
//	4  Figures.Passed
const (
	oldest = 2
	newest = 4
)

// span is which versions a build speaks, of which the first is not 0. In a hello stand both; a build that knew version 2 alone
// says only the first, and passes over the second.
type span struct{ oldest, newest uint16 }

// errVersion means that two builds have no version in common.
var errVersion = errors.New("the two processes are too far apart in version; upgrade the older one")

// agree returns the version in which to talk with a build that speaks others: the newest that both know.
func (s span) agree(others span) (uint16, error) {
	v := min(s.newest, others.newest)
	if others.oldest == 0 || v < s.oldest || v < others.oldest {
		return 0, fmt.Errorf("%w: versions %d to %d here, %d to %d there", errVersion, s.oldest, s.newest, others.oldest, others.newest)
	}
	return v, nil
}

// greet exchanges the versions that are spoken, and returns that in which both go on.
func greet(conn *net.UnixConn) (uint16, error) {
	ours := span{oldest, newest}
	m := message{kind: hello, spoken: ours}
	if _, err := conn.Write(m.append(nil)); err != nil {
		return 0, err
	}
	if err := receive(conn, make([]byte, maxMessage), &m); err != nil {
		return 0, err
	}
	if m.kind != hello {
		return 0, errMessage
	}
	return ours.agree(m.spoken)
}
