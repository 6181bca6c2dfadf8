// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package scan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

const (
	opinionLimit = 1 << 20  // bytes of what rspamd answers
	fieldsLimit  = 16 << 10 // bytes of what it wants added
	fieldName    = 64
	fieldLine    = 900 // bytes of a line of that: a line has 998 at most. RFC 5322 §2.1.1
)

// errRspamd means that rspamd answers with something else than an opinion.
var errRspamd = errors.New("rspamd")

// opinion is what rspamd answers, as far as we read it.
type opinion struct {
	Action   string              `json:"action"`
	Symbols  map[string]struct{} `json:"symbols"`
	Messages struct {
		SMTP string `json:"smtp_message"`
	} `json:"messages"`
	Milter struct {
		Add map[string]json.RawMessage `json:"add_headers"`
	} `json:"milter"`
}

// rspamd asks a server. It is told who the client is, as nobody behind us may know any more.
func (e *Engines) rspamd(ctx context.Context, at netip.AddrPort, m *Message) (o opinion, err error) {
	body := func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(m.Text, 0, m.Size)), nil }
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+at.String()+"/checkv2", nil)
	if err != nil {
		return o, err
	}
	r.Body, _ = body()
	r.GetBody, r.ContentLength, r.Header = body, m.Size, told(m) // a kept connection may turn out to be closed
	answer, err := e.http.Do(r)
	if err != nil {
		return o, err
	}
	defer answer.Body.Close()
	p, err := io.ReadAll(io.LimitReader(answer.Body, opinionLimit))
	if err != nil {
		return o, err
	}
	if answer.StatusCode != http.StatusOK {
		return o, fmt.Errorf("%w answers %s: %s", errRspamd, answer.Status, clip(string(p)))
	}
	return read(p)
}

// told is what rspamd is told of the client and the envelope.
func told(m *Message) http.Header {
	h := http.Header{"Ip": {m.Client.String()}, "User-Agent": {"kyozon"}}
	for name, value := range map[string]string{"Helo": m.Hello, "Hostname": m.Name, "From": m.From} {
		if value = printable(value); value != "" {
			h.Set(name, value)
		}
	}
	for _, to := range m.Recipients {
		h.Add("Rcpt", printable(to))
	}
	return h
}

// printable returns a text without what cannot stand in a field of HTTP. Addresses may have UTF-8 in them: RFC 6531 §3.3.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}

// ascii leaves what any message may have in its fields. RFC 5322 §2.2.
func ascii(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}

// read reads an opinion. One without an action is none.
func read(p []byte) (o opinion, err error) {
	if err := json.Unmarshal(p, &o); err != nil {
		return opinion{}, fmt.Errorf("%w: %v", errRspamd, err)
	}
	if o.Action == "" {
		return opinion{}, fmt.Errorf("%w says nothing of an action", errRspamd)
	}
	return o, nil
}

// text returns what the client is to be told, if rspamd says it.
func (o *opinion) text(usual string) string {
	if said := clip(o.Messages.SMTP); said != "" {
		return said
	}
	return usual
}

// silent says whether SPF and DKIM have both been looked at and neither speaks for the message. Where one could not be
// looked at, for want of an answer of the DNS, nothing is known.
func (o *opinion) silent() bool {
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { _, ok := o.Symbols[n]; return ok })
	}
	return has("R_SPF_FAIL", "R_SPF_SOFTFAIL", "R_SPF_NEUTRAL", "R_SPF_NA", "R_SPF_PERMFAIL") &&
		has("R_DKIM_REJECT", "R_DKIM_NA", "R_DKIM_PERMFAIL") &&
		!has("R_SPF_ALLOW", "R_DKIM_ALLOW", "R_SPF_DNSFAIL", "R_DKIM_TEMPFAIL")
}

// fields returns the lines that are to stand before the message: those that rspamd asks for, and one that marks what it
// takes for spam. RFC 5321 §4.4 has lines be added on top, where they break no signature.
func (o *opinion) fields() []byte {
	var b bytes.Buffer
	if o.Action == "add header" || o.Action == "rewrite subject" {
		b.WriteString("X-Spam: Yes\r\n")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Milter.Add)) {
		for _, value := range values(o.Milter.Add[name]) {
			if line := field(name, value); b.Len()+len(line) <= fieldsLimit {
				b.WriteString(line)
			}
		}
	}
	return b.Bytes()
}

// values reads what rspamd wants in a field: a text, a text with its order, or several.
func values(raw json.RawMessage) (all []string) {
	var text string
	var one struct {
		Value string `json:"value"`
	}
	var several []json.RawMessage
	switch {
	case json.Unmarshal(raw, &text) == nil:
		return []string{text}
	case json.Unmarshal(raw, &several) == nil:
		for _, r := range several {
			if json.Unmarshal(r, &one) == nil && one.Value != "" || json.Unmarshal(r, &one.Value) == nil {
				all = append(all, one.Value)
			}
			one.Value = ""
		}
		return all
	case json.Unmarshal(raw, &one) == nil:
		return []string{one.Value}
	}
	return nil
}

// field writes a field; lines of its value are folded. RFC 5322 §2.2, §2.2.3. One whose name is none is "".
func field(name, value string) string {
	if name == "" || len(name) > fieldName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
		return ""
	}
	var lines []string
	for line := range strings.SplitSeq(value, "\n") {
		if line = strings.TrimSpace(strings.Map(ascii, line)); line != "" {
			lines = append(lines, line[:min(len(line), fieldLine)])
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return name + ": " + strings.Join(lines, "\r\n\t") + "\r\n"
}
