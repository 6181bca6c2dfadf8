// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Dialogue is a call as its two ends see it, a line for each message. A line has who sends it, caller or called; the method of
// a request, or a status and the method that it answers; the name of a body, if there is one; and after each "|" a field. The
// receiver sees to it that the body and the fields arrive.
//
//	caller INVITE sdp | Supported: 100rel
//	called 180 INVITE
//	called 200 INVITE sdp
//	caller ACK
//	called BYE
//	caller 200 BYE
type Dialogue string

// Party is who calls in a dialogue, and whom.
type Party struct {
	Name, Called, Domain string
	Password             string // if there is one, the INVITE is challenged
}

// body is what a message may carry, and what the receiver looks for.
type body struct{ kind, text, sign string }

func bodies() map[string]body {
	sdp := func(direction string) body {
		return body{"application/sdp", "v=0\no=- 1 1 IN IP[media_ip_type] [media_ip]\ns=-\nc=IN IP[media_ip_type] [media_ip]\nt=0 0\n" +
			"m=audio 16384 RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000\na=" + direction + "\n", "a=" + direction}
	}
	return map[string]body{
		"": {}, "sdp": sdp("sendrecv"), "hold": sdp("sendonly"), "held": sdp("recvonly"),
		"dtmf": {"application/dtmf-relay", "Signal=5\nDuration=160\n", "Signal=5"},
		"frag": {"message/sipfrag", "SIP/2.0 200 OK\n", "SIP/2.0 200"},
	}
}

// message is a line of a dialogue.
type message struct {
	who, what string // what is a method or a status
	answers   string // a method
	fields    []string
	body      body
}

func readMessage(line string) (m message, err error) {
	parts := strings.Split(line, " | ")
	m.fields = parts[1:]
	words := append(strings.Fields(parts[0]), "", "", "")
	m.who, m.what = words[0], words[1]
	carries := words[2]
	if m.what != "" && m.what[0] <= '9' {
		m.answers, carries = words[2], words[3]
	}
	var ok bool
	if m.body, ok = bodies()[carries]; !ok || m.what == "" || m.who != "caller" && m.who != "called" {
		err = fmt.Errorf("servertest: not a line of a dialogue: %q", line)
	}
	return m, err
}

// side is one end of a dialogue while its scenario is written.
type side struct {
	Party
	caller bool
	xml    strings.Builder
	vars   []string
	seq    int    // of our last request
	invite int    // of our last INVITE
	final  string // the status that has ended it
	dialog bool   // there is one
}

// Scenario writes what SIPp needs to be one end, "caller" or "called".
func (d Dialogue) Scenario(who string, p Party) (string, error) {
	s := &side{Party: p, caller: who == "caller"}
	for line := range strings.Lines(string(d)) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		m, err := readMessage(strings.TrimSpace(line))
		switch {
		case err != nil:
			return "", err
		case m.who == who && m.answers == "":
			s.ask(&m)
		case m.who == who:
			s.answer(&m)
		default:
			s.hear(&m)
		}
	}
	slices.Sort(s.vars) // SIPp refuses what nobody reads
	return fmt.Sprintf("<?xml version=\"1.0\"?>\n<!DOCTYPE scenario SYSTEM \"sipp.dtd\">\n<scenario name=\"dialogue\">\n%s<Reference variables=%q/>\n</scenario>\n",
		&s.xml, strings.Join(slices.Compact(s.vars), ",")), nil
}

// parties returns this end and the other, as From and To have them in a request of ours.
func (s *side) parties() (own, other string) {
	if !s.caller {
		return "[$local];tag=called[call_number]", "[$remote]"
	}
	own = "<sip:" + s.Name + "@" + s.Domain + ">;tag=caller[call_number]"
	if s.final == "" && !s.dialog {
		return own, "<sip:" + s.Called + "@" + s.Domain + ">"
	}
	return own, "[$remote]"
}

// ask sends a request; the first INVITE once more when it was challenged.
func (s *side) ask(m *message) {
	s.request(m, "")
	if m.what == "INVITE" && s.caller && !s.dialog && s.Password != "" {
		s.hear(&message{what: "401", answers: "INVITE"})
		s.request(&message{what: "ACK"}, "")
		s.final = ""
		s.request(m, fmt.Sprintf("[authentication username=%s password=%s]", s.Name, s.Password))
	}
}

func (s *side) request(m *message, line string) {
	seq, part := s.invite, "" // CANCEL and the ACK of a failure are in the INVITE's transaction. RFC 3261 §9.1, §17.1.1.3
	switch {
	case m.what == "ACK" && s.final == "200":
		part = "a"
	case m.what != "ACK" && m.what != "CANCEL":
		s.seq++
		seq = s.seq
	}
	if m.what == "INVITE" {
		s.invite, s.final = seq, ""
	}
	own, other := s.parties()
	target := "[$contact]"
	if s.caller && (!s.dialog || m.what == "CANCEL" || m.what == "ACK" && s.final != "200") {
		target = "sip:" + s.Called + "@" + s.Domain
	}
	if m.what == "CANCEL" { // To is that of the INVITE
		other = "<sip:" + s.Called + "@" + s.Domain + ">"
	}
	s.send(m.what != "ACK", m, []string{m.what + " " + target + " SIP/2.0",
		fmt.Sprintf("Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK[pid]x[call_number]x%d%s", seq, part),
		"Max-Forwards: 70", "From: " + own, "To: " + other, "Call-ID: [call_id]", fmt.Sprintf("CSeq: %d %s", seq, m.what), line, s.routes(m)})
}

// answer sends an answer. It has the fields of the request, which need not be the last that came.
func (s *side) answer(m *message) {
	own, other := s.parties()
	s.send(m.answers == "INVITE" && m.what >= "200", m, []string{"SIP/2.0 " + m.what + " So", "[$path" + m.answers + "]",
		"From: " + other, "To: " + own, "Call-ID: [call_id]", "CSeq: [$seq" + m.answers + "]"})
}

// routes is the route of a request within the dialog. RFC 3261 §12.2.1.1.
func (s *side) routes(m *message) string {
	if !s.dialog || m.what == "CANCEL" || m.what == "ACK" && s.final != "200" {
		return ""
	}
	return "[routes]"
}

// send writes a message that is sent, and sent again where it must be until it is answered: late, because nothing is lost on one
// machine, and a copy that an end that was busy hears is taken for the message that comes next.
func (s *side) send(again bool, m *message, lines []string) {
	lines = append(lines, "Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>")
	lines = append(lines, m.fields...)
	if m.body.kind != "" {
		lines = append(lines, "Content-Type: "+m.body.kind)
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return l == "" })
	retrans := map[bool]string{true: ` retrans="10000"`}[again]
	fmt.Fprintf(&s.xml, "<send%s><![CDATA[\n\n%s\nContent-Length: [len]\n\n%s\n]]></send>\n", retrans, strings.Join(lines, "\n"), m.body.text)
}

// hear expects a message, keeps what is needed of it, and looks for what must have arrived.
func (s *side) hear(m *message) {
	var actions strings.Builder
	find := func(in, pattern, variable string, check bool) {
		fmt.Fprintf(&actions, `<ereg regexp="%s" search_in=%s check_it="%t" assign_to="%s"/>`, pattern, in, check, variable)
		s.vars = append(s.vars, variable)
	}
	field := func(name string) string { return `"hdr" header="` + name + `:"` }
	switch {
	case m.answers == "INVITE" && s.caller:
		find(field("To"), ".*", "remote", true)
		find(field("Contact"), "sip:[^&gt;]*", "contact", m.what < "300")
		s.dialog = s.dialog || m.what < "300"
	case m.answers == "" && m.what != "ACK":
		const line, eol = "[^[:cntrl:]]+", "[[:cntrl:]]+" // an answer has all of these fields. RFC 3261 §8.2.6.2, §12.1.1
		find(`"msg"`, "(Record-Route: "+line+eol+")*Via: "+line+"("+eol+"Via: "+line+")*", "path"+m.what, true)
		find(field("CSeq"), ".*", "seq"+m.what, true)
	}
	if m.what == "INVITE" && !s.caller && !s.dialog {
		s.dialog = true
		find(field("From"), ".*", "remote", true)
		find(field("To"), ".*", "local", true)
		find(field("Contact"), "sip:[^&gt;]*", "contact", true)
	}
	if m.body.sign != "" {
		find(`"body"`, m.body.sign, "sign", true)
	}
	for _, f := range m.fields {
		name, value, _ := strings.Cut(f, ": ")
		find(field(name), regexp.QuoteMeta(strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(value)), "sign", true)
	}
	what := fmt.Sprintf("request=%q", m.what)
	if m.answers != "" {
		what = fmt.Sprintf("response=%q", m.what)
	}
	if m.answers == "INVITE" {
		s.xml.WriteString(`<recv response="100" optional="true"></recv>` + "\n")
		if m.what >= "200" {
			s.final = m.what
		}
	}
	if s.dialog && (m.answers == "INVITE" && s.caller && s.final == "200" || m.what == "INVITE" && !s.caller) {
		what += ` rrs="true"`
	}
	if m.what == "401" {
		what += ` auth="true"`
	}
	fmt.Fprintf(&s.xml, "<recv %s><action>%s</action></recv>\n", what, &actions)
}
