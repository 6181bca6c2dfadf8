// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	mailEach = 5           // messages of a connection
	mailTime = time.Minute // for anything that is waited for
)

// post is clients that keep sending mail. Each message has a number, and none of them may hear anything but yes.
type post struct {
	t       *testing.T
	cancel  context.CancelFunc
	workers sync.WaitGroup
	taken   chan string // no buffer: a number for each message that was taken

	mu   sync.Mutex
	sent map[string]bool // numbers of messages that were taken
}

// startPost has two clients on each host send mail to mx.example.jp.
func startPost(ctx context.Context, t *testing.T, hosts ...*Host) *post {
	ctx, cancel := context.WithCancel(ctx)
	p := &post{t: t, cancel: cancel, taken: make(chan string), sent: make(map[string]bool)}
	for _, h := range hosts {
		for i := range 2 {
			p.workers.Go(func() { p.work(ctx, h, fmt.Sprintf("%s-%d", h.Name(), i)) })
		}
	}
	t.Cleanup(p.stop)
	return p
}

// work sends until ctx is done, and then no more: what it has begun it ends.
func (p *post) work(ctx context.Context, h *Host, name string) {
	for n := 0; ctx.Err() == nil; n += mailEach {
		m, err := openMail(h)
		for i := 0; i < mailEach && err == nil && ctx.Err() == nil; i++ {
			number := fmt.Sprintf("%s-%d", name, n+i)
			if err = m.send(number, fmt.Sprintf("user%d@example.jp", (n+i)%10)); err == nil {
				p.note(number)
				select {
				case p.taken <- number:
				case <-ctx.Done():
				}
			}
		}
		if err == nil {
			err = m.say("QUIT", 221)
		}
		if err != nil {
			p.t.Errorf("%s: %v", name, err)
			return
		}
		m.Close()
	}
}

func (p *post) note(number string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent[number] = true
}

// await waits for n more messages to be taken.
func (p *post) await(n int) {
	p.t.Helper()
	for range n {
		select {
		case <-p.taken:
		case <-time.After(mailTime):
			p.t.Fatal("no message is taken")
		}
	}
}

// until waits until a message matches that has come to a spool server.
func (p *post) until(pattern string, spools ...*Host) {
	p.t.Helper()
	match := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(mailTime); time.Now().Before(deadline); p.await(10) {
		for _, all := range delivered(p.t, spools...) {
			if slices.ContainsFunc(all, match.MatchString) {
				return
			}
		}
	}
	p.t.Fatalf("no message matches %s", pattern)
}

func (p *post) stop() {
	p.cancel()
	p.workers.Wait()
}

// count waits until as many messages have come to the spool servers as were taken, and compares which.
func (p *post) count(spools ...*Host) {
	p.t.Helper()
	var all map[string][]string
	poll(p.t, func() bool {
		all = delivered(p.t, spools...)
		return len(all) >= len(p.sent)
	})
	for number := range p.sent {
		if n := len(all[number]); n != 1 {
			p.t.Errorf("message %s has come %d times", number, n)
		}
	}
	for number := range all {
		if !p.sent[number] {
			p.t.Errorf("message %s has come, and nobody was told that it was taken", number)
		}
	}
	if !p.t.Failed() {
		p.t.Logf("%d messages, each there once", len(p.sent))
	}
}

// poll asks until something is so, or for long enough: what is not so is for the caller to say.
func poll(t *testing.T, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), mailTime)
	defer cancel()
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for !so() {
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

var (
	numbered = regexp.MustCompile(`(?m)^Subject: number (\S+)`)
	standIn  = regexp.MustCompile(`\(unknown \[(100\.\d+\.\d+\.\d+)\]\)`)
)

// delivered returns the messages that have come to spool servers, by their number. Those without are left out.
func delivered(t *testing.T, spools ...*Host) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for _, h := range spools {
		err := h.inside(func() error {
			files, err := filepath.Glob(MailDirectory + "/*/new/*")
			if err != nil {
				return err
			}
			for _, f := range files {
				text, err := os.ReadFile(f)
				if err != nil {
					return err
				}
				if m := numbered.FindSubmatch(text); m != nil {
					all[string(m[1])] = append(all[string(m[1])], string(text))
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// mailer is a client of SMTP.
type mailer struct{ *textproto.Conn }

// openMail connects to mx.example.jp. Its words have a deadline together.
func openMail(h *Host) (*mailer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), mailTime)
	defer cancel()
	c, err := h.DialContext(ctx, "tcp", "mx.example.jp:25")
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(2 * mailTime)); err != nil {
		return nil, err
	}
	m := &mailer{textproto.NewConn(c)}
	if _, _, err := m.ReadResponse(220); err != nil {
		return nil, fmt.Errorf("greeting: %w", err)
	}
	return m, m.say("EHLO "+h.Name()+".example.com", 250)
}

// say says a line and wants a reply.
func (m *mailer) say(line string, code int) error {
	if err := m.PrintfLine("%s", line); err != nil {
		return err
	}
	if _, _, err := m.ReadResponse(code); err != nil {
		return fmt.Errorf("%.20s: %w", line, err)
	}
	return nil
}

// send sends a message.
func (m *mailer) send(number, to string) error {
	if err := m.begin(to); err != nil {
		return err
	}
	return m.end(number)
}

// begin says the envelope, and end the message.
func (m *mailer) begin(to string) error {
	for _, s := range []struct {
		line string
		code int
	}{{"MAIL FROM:<me@example.com>", 250}, {"RCPT TO:<" + to + ">", 250}, {"DATA", 354}} {
		if err := m.say(s.line, s.code); err != nil {
			return err
		}
	}
	return nil
}

func (m *mailer) end(number string) error {
	return m.say("Subject: number "+number+"\r\n\r\n"+strings.Repeat("It is only a test.\r\n", 100)+".", 250)
}

// scaleMail adds an MTA and a spool server to S3 under load, and takes an MTA away (S3: scale). No message may be lost,
// doubled or refused. IPv4 clients come through the load balancer that was always there.
func scaleMail(t *testing.T, l *Lab) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	site := regexp.MustCompile(`(?m)^    limits: .*\n`).ReplaceAllString(readSite(t, "s3.yaml"), "") // one client is many here
	reload(ctx, t, l, site)
	spool1, spool2 := l.Host("spool1"), l.Host("spool2")
	p := startPost(ctx, t, l.Host("subscriber4"), l.Host("subscriber6"))
	for _, mta := range []string{"mta1", "mta2"} {
		p.until(`from subscriber6.*\n.*by `+mta, spool1)
	}
	reload(ctx, t, l, strings.ReplaceAll(site, `"10.0.2.12:25"]`, `"10.0.2.12:25", "10.0.2.13:25"]`))
	p.until(`from subscriber6.*\n.*by mta3`, spool1)

	spools := spoolTable([]netip.AddrPort{netip.MustParseAddrPort("10.0.3.31:24"), netip.MustParseAddrPort("10.0.3.32:24")})
	for _, mta := range []string{"mta1", "mta2", "mta3", "new1"} {
		h := l.Host(mta)
		if err := h.WriteFile(postfixHosts, []byte(spools)); err != nil {
			t.Fatal(err)
		}
		if out, err := h.Command(ctx, "postfix", "-c", postfixConf, "reload").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	p.until(`from subscriber6`, spool2)
	p.until(`from subscriber4`, spool2)

	reload(ctx, t, l, strings.ReplaceAll(site, `"10.0.2.11:25", "10.0.2.12:25"]`, `"10.0.2.12:25", "10.0.2.13:25"]`))
	p.await(200)
	p.stop()
	p.count(spool1, spool2)
	checkStandIn(t, delivered(t, spool1, spool2))
	source(ctx, t, l)
}

// checkStandIn looks who the servers have taken the IPv6 subscriber for: always the same.
func checkStandIn(t *testing.T, all map[string][]string) {
	t.Helper()
	seen := make(map[string]int)
	for number, texts := range all {
		if strings.HasPrefix(number, "subscriber6") {
			m := standIn.FindStringSubmatch(texts[0])
			if m == nil {
				t.Fatalf("no stand-in in %s", texts[0])
			}
			seen[m[1]]++
		}
	}
	if len(seen) != 1 {
		t.Errorf("the subscriber has the stand-ins %v, want one", seen)
	}
}

// source has Postfix's load generator send from the IPv6 subscriber: as many recipients as messages, each once.
func source(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	const messages = 200
	out, err := l.Host("subscriber6").Command(ctx, "smtp-source", "-N", "-m", fmt.Sprint(messages), "-s", "5", "-l", "4096", "-f", "me@example.com",
		"-t", "source7@example.jp", "[2001:db8:100::25]:25").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	boxes, files := make(map[string]bool), 0
	poll(t, func() bool {
		files = 0
		for _, spool := range []string{"spool1", "spool2"} {
			err := l.Host(spool).inside(func() error {
				all, _ := filepath.Glob(MailDirectory + "/*source7@example.jp/new/*") // the pattern is right
				for _, f := range all {
					boxes[filepath.Dir(f)] = true
				}
				files += len(all)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return files >= messages
	})
	if len(boxes) != messages || files != messages {
		t.Errorf("%d messages in %d mailboxes, want %d in as many", files, len(boxes), messages)
	}
}

// moveMail takes two MTAs of S4 from global to private addresses under load, also under a client that is in the middle of a
// message. Then the global addresses are no longer there. No message may be lost, doubled or refused.
func moveMail(t *testing.T, l *Lab) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	spool := l.Host("spool1")
	p := startPost(ctx, t, l.Host("subscriber4"), l.Host("subscriber6"))
	for _, mta := range []string{"mta1", "mta2", "mta3"} {
		p.until(`from subscriber6.*\n.*by `+mta, spool)
		p.until(`from subscriber4.*\[198\.51\.100\.4\].*\n.*by `+mta, spool)
	}
	slow, err := openMail(l.Host("subscriber6"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if err := slow.begin("user1@example.jp"); err != nil {
		t.Fatal(err)
	}

	reload(ctx, t, l, readSite(t, "s4-moved.yaml"))
	global := regexp.MustCompile(`203\.0\.113\.1[12]:25`)
	for flows := "203.0.113.11:25"; global.MatchString(flows); {
		out, err := l.Host("edge").Command(ctx, l.options.Kyozon, "flows").Output()
		if err != nil {
			t.Fatal(err)
		}
		flows = string(out)
		p.await(1)
	}
	for mta, address := range map[string]string{"mta1": "203.0.113.11/24", "mta2": "203.0.113.12/24"} {
		if out, err := l.Host(mta).Command(ctx, "ip", "address", "delete", address, "dev", "idc").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if err := slow.end("slow"); err != nil {
		t.Errorf("the slow client: %v", err)
	}
	p.note("slow")
	p.await(200)
	p.stop()
	p.count(spool)
	checkStandIn(t, delivered(t, spool))
}
