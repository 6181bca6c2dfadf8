// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
)

// killed is where an edge dies: when the server has heard so, or its client.
func killed() []string {
	return []string{"EHLO", "MAIL", "RCPT", "DATA", ".", "250", "never"}
}

// TestKill kills edges, with SIGKILL, at each step of a message, while a client sends message after message, each until it
// is told that it was taken. The server has all of them; it has one twice only as often as edges say that it may.
func TestKill(t *testing.T) {
	t.Parallel()
	const env = "KYOZON_TEST_MAIL_EDGE"
	if where := os.Getenv(env); where != "" {
		edgeForever(t, where, nil)
		return
	}
	messages := 50
	if os.Getenv("KYOZON_SOAK") != "" {
		messages = 1000
	}
	k := &killer{t: t, test: "TestKill", env: env, state: t.TempDir()}
	var step atomic.Pointer[string] // at which the edge is to be killed
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			if s := step.Load(); s != nil && strings.HasPrefix(line, *s) && *s != "" {
				step.Store(nil)
				k.kill()
			}
			return ""
		}
	})
	k.server = m.Addr
	k.start()
	defer func() {
		k.kill()
		k.ended()
	}()
	for n := range messages {
		at := killed()[n%len(killed())]
		step.Store(&at)
		for try := 0; !k.send(fmt.Sprintf("message %d", n), at == "250" && try == 0); try++ {
			if try > 10 {
				t.Fatalf("message %d is not taken", n)
			}
			k.start()
		}
		step.Store(nil)
	}
	had := make(map[string]int64)
	for _, got := range m.Messages() {
		had[got.Text]++
	}
	var twice int64
	for n := range messages {
		times := had[fmt.Sprintf("message %d\r\n", n)]
		if times == 0 {
			t.Errorf("message %d was taken, and the server has it not", n)
		}
		twice += max(0, times-1)
		if at := killed()[n%len(killed())]; times > 1 && at != "." {
			t.Errorf("message %d is there %d times, though the edge was killed at %q", n, times, at)
		}
	}
	if twice != k.doubtful { // each is sent again, and the server has it
		t.Errorf("%d messages are there twice, the edges say %d", twice, k.doubtful)
	}
	if want := messages - messages/len(killed()) - 1; k.kills < want {
		t.Errorf("%d kills, want %d", k.kills, want)
	}
	t.Logf("%d messages, %d kills; %d messages are there twice, %d may have been", messages, k.kills, twice, k.doubtful)
}

// killer starts edges in processes of their own, one after the other.
type killer struct {
	t        *testing.T
	test     string // which, with env, is the edge
	env      string
	state    string
	server   netip.AddrPort
	child    *exec.Cmd
	at       netip.AddrPort
	kills    int
	doubtful int64
}

// start starts an edge if none is there, and reads where it is and how many messages it says may come twice.
func (k *killer) start() {
	k.t.Helper()
	if k.child != nil {
		k.kill()
		k.ended()
	}
	child := exec.CommandContext(k.t.Context(), os.Args[0], "-test.run=^"+k.test+"$")
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", k.env, k.state, k.server))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		k.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var at string
	var doubtful int64
	if n, _ := fmt.Sscan(line, &at, &doubtful); n != 2 {
		k.t.Fatalf("the edge says %q, %v", line, err)
	}
	k.child, k.at = child, netip.MustParseAddrPort(at)
	k.doubtful += doubtful
}

// kill kills the edge.
func (k *killer) kill() {
	_ = k.child.Process.Kill() // it may be gone
}

// send sends a message to the edge and says whether it was told that it was taken. With deaf the edge is killed when it
// has begun to say so, and what it has said is not believed.
func (k *killer) send(text string, deaf bool) bool {
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(k.at))
	if err != nil {
		k.ended()
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	r := textproto.NewReader(bufio.NewReader(conn))
	for _, line := range []string{"", "EHLO client.example", "MAIL FROM:<a@example>", "RCPT TO:<b@example>", "DATA", text + "\r\n."} {
		if line != "" {
			if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
				k.ended()
				return false
			}
		}
		code, _, err := r.ReadResponse(0)
		if err != nil {
			k.ended()
			return false
		}
		if code/100 > 3 {
			return false
		}
		if strings.HasSuffix(line, "\r\n.") && code == 250 && deaf {
			k.kill()
			k.ended()
			return false
		}
	}
	return true
}

// ended waits for the end of the edge.
func (k *killer) ended() {
	k.kills++
	_ = k.child.Wait() // it was killed
	k.child = nil
}

// edgeForever is an edge, until it is killed.
func edgeForever(t *testing.T, where string, change func(*Options)) {
	var state, server string
	if _, err := fmt.Sscan(where, &state, &server); err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	b.state = state
	e := b.serve(t, "smtp", ip.V6, to(netip.MustParseAddrPort(server)), change)
	fmt.Println(e.at, b.outcomesOf().Doubtful)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // if nobody kills us
	defer cancel()
	<-ctx.Done()
}
