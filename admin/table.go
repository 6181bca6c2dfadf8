// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kyozon/kyozon/edge"
)

// Style says how tables are written for the command line. The zero value works.
type Style struct {
	Colour bool      // states in colour; for a terminal
	Now    time.Time // what ages are counted from; zero means the present
}

// WriteStatus writes the edge in a few lines, and what is wrong with it.
func WriteStatus(w io.Writer, st edge.Status, style Style) error {
	t := newTable(style)
	line := func(name, format string, args ...any) { t.row(plain(name), plain(fmt.Sprintf(format, args...))) }
	p := newPage(st, nil, t.now)

	t.row(plain("site"), plain(st.Site))
	t.row(plain("state"), cell{p.Headline(), p.Tone(), false})
	line("version", "%s, process %d, up %s", st.Version, st.PID, age(t.now, st.Started))
	line("generation", "%d, loaded %s%s", st.Generation, ago(t.now, st.Loaded), draining(st.Draining))
	if l := st.Ledger; l != nil {
		line("ledger", "%s of %s stand-ins leased (%s of %s), %s shared", count(int64(l.Leased)), count(int64(l.Size)),
			percent(int64(l.Leased), int64(l.Size)), l.Pool, count(int64(l.Shared)))
		if l.Err != "" {
			t.row(plain(""), cell{"new prefixes get no stand-in: " + l.Err, "bad", false})
		}
	}
	if k := st.Kernel; k != nil && notCarrying(k) == "" {
		line("kernel", "on %s, %s flows; its packets go before the packet filter of this machine", strings.Join(k.Interfaces, ", "),
			count(int64(k.Flows)))
	} else if k != nil {
		t.row(plain("kernel"), cell{notCarrying(k), "warn", false})
	}
	for _, c := range p.Crossings {
		line(c.CrossingStatus.Crossing, "%s active, %s/s, %s opened (%s), %s errors%s",
			count(c.Active), rate(c.Rate), count(c.Opened), percent(c.Opened, p.Opened), count(c.Failed), c.sessions())
	}
	if l := st.AccessLog; l.To != "" {
		line("access log", "%s, %s lines, %s dropped", l.To, count(l.Lines), count(l.Dropped))
		if l.Err != "" {
			t.row(plain(""), cell{"lines cannot be written: " + l.Err, "bad", false})
		}
	}
	for _, c := range st.Certificates {
		if c.Reason != "" {
			t.row(plain("certificate"), cell{certificate(c, t.now), certificateTone(c), false})
		}
	}
	for i, f := range st.Findings {
		if i == maxFindings {
			line("", "and %d more: see `kyozon status --json`", len(st.Findings)-i)
			break
		}
		t.row(plain("found"), cell{finding(f), "warn", false})
	}
	for _, r := range st.Refusals {
		line("rule", "%s: %s, %s of %s %s", r.Service, r.Rule, count(r.Count), r.ClientFamily, r.Outcome)
	}
	for i, r := range p.Counted {
		name := cmp.Or(r.Service, "counted")
		if i > 0 && p.Counted[i-1].Service == r.Service {
			name = ""
		}
		t.row(plain(name), plain(r.line()))
	}
	for _, q := range st.Queues {
		switch {
		case q.Stuck == "":
			line("queue", "%s messages for %s/%s, %s", count(q.Messages), q.Service, q.Pool, size(q.Bytes))
		default:
			t.row(plain("queue"), cell{stuck(q), "bad", false})
		}
	}
	for _, reason := range p.NotReady {
		t.row(plain("not ready"), cell{reason, "bad", false})
	}
	for _, l := range st.Limited {
		t.row(plain("limited"), cell{fmt.Sprintf("%s: %s, %s of %s %s in the last second", l.Service, l.Prefix, count(l.Refused), l.Kind, cmp.Or(l.Outcome, "refused")), "warn", false})
	}
	if st.ReloadErr != "" {
		t.row(plain("reload"), cell{fmt.Sprintf("refused, generation %d runs on:", st.Generation), "warn", false})
		for text := range strings.Lines(st.ReloadErr) {
			t.row(plain(""), plain(strings.TrimRight(text, "\n")))
		}
	}
	return t.write(w)
}

// certificate says which certificate needs attention, and why.
func certificate(c edge.CertificateStatus, now time.Time) string {
	why := c.Reason
	switch {
	case c.End.IsZero() && !strings.HasPrefix(why, "there is none"):
		why = "there is none yet: " + why
	case !c.End.IsZero() && c.End.After(now) && !strings.HasPrefix(why, "expires"):
		why = "expires " + until(now, c.End) + ", and no newer one is taken: " + why
	}
	return fmt.Sprintf("%s (%s): %s", strings.Join(c.Names, ", "), c.Source, why)
}

// maxFindings is how many findings a terminal shows.
const maxFindings = 8

// finding says what was found, and what it means.
func finding(f edge.FindingStatus) string {
	times := "once"
	if f.Count > 1 {
		times = count(f.Count) + " times"
	}
	return fmt.Sprintf("responses of %s/%s name %s in %s (%s, e.g. %s): IPv6 clients cannot reach that",
		f.Service, f.Pool, f.Address, f.Field, times, f.Example)
}

// notCarrying says why the kernel plane takes nothing new, or ""; and what becomes of its flows, which go on without it.
func notCarrying(k *edge.KernelStatus) string {
	why := k.Err
	switch {
	case why == "" && len(k.Interfaces) > 0:
		return ""
	case why == "":
		why = "no service uses it"
	}
	if k.Flows > 0 {
		return fmt.Sprintf("takes no new flows, %s go on: %s", count(int64(k.Flows)), why)
	}
	return "carries nothing: " + why
}

func draining(generations int) string {
	switch generations {
	case 0:
		return ""
	case 1:
		return "; 1 older draining"
	}
	return fmt.Sprintf("; %d older draining", generations)
}

// WriteServices writes a line for each service and client family, and below it why it is not open.
func WriteServices(w io.Writer, services []edge.ServiceStatus, style Style) error {
	if len(services) == 0 {
		return say(w, "no services")
	}
	t := newTable(style, "SERVICE", "CLIENTS", "STATE", "UP", ">FLOWS", ">RATE/S", ">TO SERVERS", ">TO CLIENTS", ">ERRORS",
		"SOURCE", "HANDOVER", "PLANE", "POOLS")
	for _, s := range services {
		sums := sum(s)
		t.row(plain(s.Service), plain(familyName(s.ClientFamily)), state(s.State), plain(up(&s)),
			number(count(sums.Active)), number(rate(sums.Rate)), number(size(sums.ToServer)), number(size(sums.ToClient)), number(count(sums.Failed)),
			plain(s.Source), plain(s.Handover), plain(s.Plane), plain(strings.Join(s.Pools, ", ")))
		if s.Sessions != nil {
			t.note(plain(sessions(s)))
		}
		if s.Reason != "" {
			t.note(cell{s.Reason, tone(s.State), false})
		}
		if s.PlaneReason != "" {
			t.note(plain(s.PlaneReason))
		}
	}
	return t.write(w)
}

// up says how many backends are up; a service that has none, as telephony, says nothing.
func up(s *edge.ServiceStatus) string {
	if s.Backends == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", s.Up, s.Backends)
}

// sessions says how many there are: "1 call", "1,234 sessions".
func sessions(s edge.ServiceStatus) string {
	return count(*s.Sessions) + " " + some(*s.Sessions, s.SessionNoun)
}

// some returns the noun for so many of what a plural names.
func some(n int64, noun string) string {
	if n == 1 {
		return strings.TrimSuffix(noun, "s")
	}
	return noun
}

// WriteBackends writes a line for each backend.
func WriteBackends(w io.Writer, backends []edge.BackendStatus, style Style) error {
	if len(backends) == 0 {
		return say(w, "no backends")
	}
	t := newTable(style, "SERVICE", "POOL", "BACKEND", "STATE", ">FLOWS", ">CAP", ">WEIGHT", ">SINCE", ">ASKED", "REASON")
	for _, b := range backends {
		most := "none"
		if b.Cap > 0 {
			most = count(int64(b.Cap))
		}
		t.row(plain(b.Service), plain(b.Pool), plain(b.Address), state(b.State), number(count(b.Flows)), number(most),
			number(count(int64(b.Weight))), number(age(t.now, b.Since)), number(ago(t.now, b.Checked)), plain(b.Reason))
	}
	return t.write(w)
}

// WriteFlows writes a line for each flow.
func WriteFlows(w io.Writer, flows []edge.FlowStatus, style Style) error {
	if len(flows) == 0 {
		return say(w, "no flow is under way")
	}
	t := newTable(style, "SERVICE", "CLIENT", "SEEN AS", "BACKEND", "CROSSING", "PLANE", ">TO SERVER", ">TO CLIENT", ">FOR")
	for _, f := range flows {
		t.row(plain(f.Service), plain(f.Client.String()), plain(f.Source.String()), plain(f.Backend.String()), plain(f.Crossing),
			plain(f.Plane), number(size(f.ToServer)), number(size(f.ToClient)), number(age(t.now, f.Started)))
	}
	return t.write(w)
}

func say(w io.Writer, text string) error {
	_, err := fmt.Fprintln(w, text)
	return err
}

// cell is one text of a table. A tone other than "" is a colour on a terminal.
type cell struct {
	text  string
	tone  string
	right bool
}

func plain(text string) cell  { return cell{text: text} }
func number(text string) cell { return cell{text: text, right: true} }
func state(word string) cell  { return cell{text: word, tone: tone(word)} }

// table aligns cells. text/tabwriter cannot align single columns to the right, and counts colours as text.
type table struct {
	colour bool
	now    time.Time
	rows   [][]cell
	notes  map[int][]cell // below the row of that number
}

// newTable returns a table with a heading for each column, if it has headings. One that begins with ">" stands to
// the right.
func newTable(style Style, headings ...string) *table {
	t := &table{colour: style.Colour, now: style.Now, notes: make(map[int][]cell)}
	if t.now.IsZero() {
		t.now = time.Now()
	}
	if len(headings) > 0 {
		head := make([]cell, len(headings))
		for i, h := range headings {
			text, right := strings.CutPrefix(h, ">")
			head[i] = cell{text: text, right: right}
		}
		t.rows = append(t.rows, head)
	}
	return t
}

func (t *table) row(cells ...cell) { t.rows = append(t.rows, cells) }

// note stands below the last row and takes no part in the widths.
func (t *table) note(c cell) { t.notes[len(t.rows)-1] = append(t.notes[len(t.rows)-1], c) }

func (t *table) write(w io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			row[i].text = clean(c.text)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	out := bufio.NewWriter(w) // keeps the first error for Flush
	for n, row := range t.rows {
		var line strings.Builder
		for i, c := range row {
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
			if c.right {
				line.WriteString(gap + t.paint(c))
			} else {
				line.WriteString(t.paint(c) + gap)
			}
			line.WriteString("  ")
		}
		fmt.Fprintln(out, strings.TrimRight(line.String(), " "))
		for _, c := range t.notes[n] {
			c.text = clean(c.text)
			fmt.Fprintln(out, "    "+t.paint(c))
		}
	}
	return out.Flush()
}

// paint adds the colour. The words stand for themselves without it.
func (t *table) paint(c cell) string {
	code := map[string]string{"good": "32", "warn": "33", "bad": "31"}[c.tone]
	if !t.colour || code == "" || c.text == "" {
		return c.text
	}
	return "\x1b[" + code + "m" + c.text + "\x1b[0m"
}
