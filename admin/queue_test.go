// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"testing"
	"time"

	"github.com/kyozon/kyozon/edge"
)

// TestWriteQueue: what waits, for how long, when it is tried and what kept it, whatever servers and senders write.
func TestWriteQueue(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	all := []edge.QueuedStatus{
		{ID: "1-17", Service: "mail", Pool: "spool", Sender: "a@example", Recipients: []string{"b@example"}, Size: 4096, Arrived: now.Add(-time.Hour),
			Next: now.Add(4 * time.Minute), Attempts: 3, Last: "452 4.2.2 Full"},
		{ID: "1-19", Service: "mail", Pool: "spool", Recipients: []string{"b@x", "c@x", "d@x", "e@x", "f@x"}, Arrived: now.Add(-time.Second), Next: now},
		{ID: "2-1", Service: "mail", Pool: "relay", Sender: "a\x1b[31m@x", Recipients: []string{"b@x"}, Arrived: now, Next: now, Busy: true},
	}
	var b bytes.Buffer
	if err := WriteQueue(&b, all, Style{Now: now}); err != nil {
		t.Fatal(err)
	}
	if err := WriteQueue(&b, nil, Style{Now: now}); err != nil {
		t.Fatal(err)
	}
	golden(t, "queue.txt", b.Bytes())
}
