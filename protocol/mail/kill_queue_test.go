// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
)

// TestQueueKill kills edges that keep messages, with SIGKILL, at each step: while a server is asked for recipients, when the
// client begins to hear that its message is kept, and when a server gets it. A message that was taken comes to the server,
// from whatever edge; it comes twice only as often as edges say that it may.
func TestQueueKill(t *testing.T) {
	t.Parallel()
	const env = "KYOZON_TEST_MAIL_QUEUE"
	if where := os.Getenv(env); where != "" {
		edgeForever(t, where, keeps(SpeechLMTP))
		return
	}
	messages := 50
	if os.Getenv("KYOZON_SOAK") != "" {
		messages = 1000
	}
	steps := []string{"LHLO", "MAIL", "RCPT", "250", "DATA", ". RCPT"} // and every other message at none
	k := &killer{t: t, test: "TestQueueKill", env: env, state: t.TempDir()}
	var step atomic.Pointer[string]
	killed := make(chan struct{}, 1)
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			if s := step.Load(); s != nil && strings.HasPrefix(line, *s) && step.CompareAndSwap(s, nil) {
				k.kill()
				killed <- struct{}{}
			}
			return ""
		}
	})
	k.server = m.Addr
	k.start()
	defer func() {
		if k.child != nil {
			k.kill()
			k.ended()
		}
	}()
	for n := range messages {
		at := "never"
		if n%2 == 0 {
			at = steps[n/2%len(steps)]
		}
		step.Store(&at)
		for try := 0; !k.send(fmt.Sprintf("message %d", n), at == "250" && try == 0); try++ {
			if try > 10 {
				t.Fatalf("message %d is not taken", n)
			}
			k.start()
		}
		if at == "DATA" || at == ". RCPT" { // while it is brought to the server
			<-killed
			k.start()
		}
		step.Store(nil)
		select {
		case <-killed:
		default:
		}
	}
	if k.child == nil {
		k.start()
	}
	had := func() map[string]int64 {
		all := make(map[string]int64)
		for _, got := range m.Messages() {
			all[strings.SplitN(got.Text, "\r\n", 4)[3]]++ // behind the trace
		}
		return all
	}
	await(t, "that the server has all messages", func() bool { return len(had()) == messages })
	var twice int64
	for n := range messages {
		times := had()[fmt.Sprintf("message %d\r\n", n)]
		if times == 0 {
			t.Errorf("message %d was taken, and the server has it not", n)
		}
		twice += max(0, times-1)
	}
	if twice > k.doubtful || twice == 0 { // as often as the edge has died behind the last dot
		t.Errorf("%d messages are there twice, the edges say %d", twice, k.doubtful)
	}
	if want := messages/2 - len(steps); k.kills < want {
		t.Errorf("%d kills, want %d", k.kills, want)
	}
	t.Logf("%d messages, %d kills; %d messages are there twice, %d may have been", messages, k.kills, twice, k.doubtful)
}
