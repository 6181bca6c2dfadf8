// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// control is a connection to a telephone's control port, which speaks JSON in netstrings.
type control struct {
	net.Conn
	reader *bufio.Reader
	events []phoneEvent // that came while an answer was waited for
}

// phoneEvent is something that has happened to a telephone, or the answer to a command.
type phoneEvent struct {
	Type     string `json:"type"`
	Param    string `json:"param"`
	Response bool   `json:"response"`
	OK       bool   `json:"ok"`
	Data     string `json:"data"`
}

var errNetstring = errors.New("lab: not what a telephone says")

// openControl connects to the telephone of a host. The caller must close it.
func openControl(ctx context.Context, h *Host) (*control, error) {
	conn, err := h.DialContext(ctx, "tcp4", baresipControl().String())
	if err != nil {
		return nil, err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(startTime)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &control{Conn: conn, reader: bufio.NewReader(conn)}, nil
}

// do has the telephone do a command of its menu, and returns what it says to that.
func (c *control) do(command, params string) (string, error) {
	text, err := json.Marshal(map[string]string{"command": command, "params": params})
	if err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "%d:%s,", len(text), text); err != nil {
		return "", err
	}
	for {
		e, err := c.read()
		switch {
		case err != nil:
			return "", fmt.Errorf("%s: %w", command, err)
		case e.Response && !e.OK:
			return "", fmt.Errorf("%s: %s", command, e.Data)
		case e.Response:
			return e.Data, nil
		}
		c.events = append(c.events, e)
	}
}

// read reads an event: its length, a colon, JSON, a comma.
func (c *control) read() (e phoneEvent, err error) {
	head, err := c.reader.ReadString(':')
	if err != nil {
		return e, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(head, ":"))
	if err != nil || n < 0 || n > 1<<16 {
		return e, errNetstring
	}
	text := make([]byte, n+1)
	if _, err = io.ReadFull(c.reader, text); err != nil {
		return e, err
	}
	return e, json.Unmarshal(text[:n], &e)
}

// await waits for events, which may come in any order.
func (c *control) await(kinds ...string) error {
	for len(kinds) > 0 {
		var e phoneEvent
		if len(c.events) > 0 {
			e, c.events = c.events[0], c.events[1:]
		} else {
			var err error
			if e, err = c.read(); err != nil {
				return fmt.Errorf("wait for %v: %w", kinds, err)
			}
		}
		if e.Type == "CALL_CLOSED" && !slices.Contains(kinds, e.Type) {
			return fmt.Errorf("the call is over: %s", e.Param)
		}
		kinds = slices.DeleteFunc(kinds, func(k string) bool { return k == e.Type })
	}
	return nil
}

// dial has the telephone of a host call a number, waits until it hears the other end, and hangs up.
func (h *Host) dial(ctx context.Context, number string) answer {
	c, err := openControl(ctx, h)
	if err != nil {
		return answer{err: err}
	}
	defer c.Close()
	if _, err = c.do("dial", number); err == nil {
		err = c.await("CALL_ESTABLISHED", "CALL_RTPESTAB") // what is said may come before the answer
	}
	if err == nil {
		_, err = c.do("hangup", "")
	}
	return answer{body: "answered and heard", err: err}
}
