// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	errAbandoned = errors.New("queue: abandoned")
	errNoReports = errors.New("queue: no pool for reports")
)

const (
	maxReturned = 256 << 10 // bytes of a message that are returned whole, where that is asked for
	maxHeader   = 64 << 10  // bytes of its header that are
)

// reported is what a report says of a recipient.
type reported struct {
	recipient      int
	action, status string
}

// enhanced is an enhanced status code behind a reply code. RFC 2034 §4.
var enhanced = regexp.MustCompile(`^[245]\d\d[ -]([245]\.\d{1,3}\.\d{1,3})(\s|$)`)

// statusOf returns the status in a reply, or what stands for one. RFC 3464 §2.3.4.
func statusOf(r Result, usual string) string {
	if found := enhanced.FindStringSubmatch(r.Reply); found != nil && found[1][0] == r.Reply[0] {
		return found[1]
	}
	return usual
}

// report renders a report to the sender of m. RFC 3464 §2, RFC 6522 §3.
func (q *Queue) report(m *Message, server string, all []reported, now time.Time) ([]byte, error) {
	returned, whole, err := q.returned(m)
	if err != nil {
		return nil, err
	}
	const date = "Mon, 02 Jan 2006 15:04:05 -0700"
	t := q.terms(m.Service)
	boundary := rand.Text() // nothing in the message can know it
	var b bytes.Buffer
	line := func(format string, a ...any) { //house:ok as fmt has it
		fmt.Fprintf(&b, format+"\r\n", a...)
	}
	line("From: Mail delivery <postmaster@%s>", t.Name)
	line("To: <%s>", m.Sender)
	line("Subject: %s", subject(all))
	line("Date: %s", now.Format(date))
	line("Message-ID: <%s@%s>", rand.Text(), t.Name)
	line("Auto-Submitted: auto-replied") // RFC 3834 §5
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"", boundary)
	line("\r\n--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n", boundary)
	m.describe(line, t.Name, all)
	line("\r\n--%s\r\nContent-Type: message/delivery-status\r\n", boundary)
	if len(m.Envid) > 0 {
		line("Original-Envelope-Id: %s", xtext(m.Envid)) // RFC 3464 §2.2.1
	}
	line("Reporting-MTA: dns; %s", t.Name)
	line("Arrival-Date: %s", m.Arrived.Format(date))
	for _, r := range all {
		to := &m.Recipients[r.recipient]
		line("")
		if kind, address, ok := bytes.Cut(to.Orcpt, []byte(";")); ok {
			line("Original-Recipient: %s; %s", kind, xtext(address)) // RFC 3464 §2.3.1
		}
		line("Final-Recipient: rfc822; %s", to.Path)
		line("Action: %s", r.action)
		line("Status: %s", r.status)
		if server != "" {
			line("Remote-MTA: dns; %s", server)
			line("Diagnostic-Code: smtp; %s", m.state.Ends[r.recipient].Reply)
		}
		line("Last-Attempt-Date: %s", now.Format(date))
		if r.action == delayed { // RFC 3464 §2.3.9
			line("Will-Retry-Until: %s", m.Arrived.Add(t.Keep).Format(date))
		}
	}
	kind := "text/rfc822-headers"
	if whole {
		kind = "message/rfc822"
	}
	line("\r\n--%s\r\nContent-Type: %s", boundary, kind)
	if bytes.ContainsFunc(returned, func(r rune) bool { return r > '~' }) {
		line("Content-Transfer-Encoding: 8bit")
	}
	line("")
	b.Write(returned)
	line("\r\n--%s--", boundary)
	return b.Bytes(), nil
}

// headings are what people read above the recipients of an action, the worst first.
var headings = []struct{ action, subject, text string }{
	{failed, "Your message could not be delivered", "Your message could not be delivered to these addresses:"},
	{delayed, "Your message is delayed", "Your message could not be delivered yet to these addresses. It will be tried again; you need do nothing:"},
	{delivered, "Your message was delivered", "Your message was delivered to these addresses:"},
	{relayed, "Your message was sent on", "Your message was sent on to these addresses. Nobody will say what becomes of it:"},
}

// subject is about the worst.
func subject(all []reported) string {
	for _, h := range headings {
		if slices.ContainsFunc(all, func(r reported) bool { return r.action == h.action }) {
			return h.subject
		}
	}
	return ""
}

// describe is what people read.
func (m *Message) describe(line func(string, ...any), name string, all []reported) {
	line("This is the mail system at %s.", name)
	for _, h := range headings {
		first := true
		for _, r := range all {
			if r.action != h.action {
				continue
			}
			if first {
				line("\r\n%s\r\n", h.text)
			}
			first = false
			line("  <%s>\r\n    %s", m.Recipients[r.recipient].Path, m.state.Ends[r.recipient].Reply)
		}
	}
}

// returned is what of a message is returned: all, if that was asked for and it is not long, or its header. RFC 3461 §4.3,
// RFC 6522 §4.
func (q *Queue) returned(m *Message) (text []byte, whole bool, err error) {
	whole = m.Full && m.Size <= maxReturned
	for n := range m.Pieces {
		p, err := q.Piece(m, n)
		if err != nil {
			return nil, false, fmt.Errorf("read message: %w", err)
		}
		text = append(text, p...)
		if whole {
			continue
		}
		if end := bytes.Index(text, []byte("\r\n\r\n")); end >= 0 {
			return text[:end+2], false, nil
		}
		if len(text) > maxHeader {
			break
		}
	}
	if whole {
		return text, true, nil
	}
	text = text[:min(len(text), maxHeader)]
	return text[:bytes.LastIndexByte(text, '\n')+1], false, nil
}

// xtext decodes RFC 3461 §4 into one printable line.
func xtext(p []byte) string {
	var s strings.Builder
	for i := 0; i < len(p); i++ {
		c := p[i]
		if c == '+' && i+2 < len(p) {
			if hi, lo := strings.IndexByte(hex, p[i+1]), strings.IndexByte(hex, p[i+2]); hi >= 0 && lo >= 0 {
				c = byte(hi<<4 | lo)
				i += 2
			}
		}
		if c < ' ' || c > '~' {
			c = '?'
		}
		s.WriteByte(c)
	}
	return s.String()
}

const hex = "0123456789ABCDEF"
