// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/metrics"
)

func render(t *testing.T, st edge.Status, flows []edge.FlowStatus) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := parsePage().Execute(&out, newPage(st, flows, now())); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestPage(t *testing.T) {
	t.Parallel()
	full := wellStatus()
	full.Ledger.Err, full.Ledger.Leased = "all stand-ins are leased", full.Ledger.Size
	tests := []struct {
		golden string
		status edge.Status
		flows  []edge.FlowStatus
	}{
		{"page.html", fixedStatus(), fixedFlows()},
		{"page-well.html", wellStatus(), fixedFlows()},
		{"page-full.html", full, nil},
		{"page-nothing.html", edge.Status{Site: "empty", Version: "0.1.0", Started: now(), Loaded: now(), Generation: 1, Loops: 1, Ready: true}, nil},
	}
	for _, test := range tests {
		t.Run(test.golden, func(t *testing.T) {
			t.Parallel()
			got := render(t, test.status, test.flows)
			golden(t, test.golden, got)
			// What the policy forbids would be dead on the page.
			for _, bad := range []string{" style=", "<style", "javascript:", " onclick", "ZgotmplZ"} {
				if bytes.Contains(got, []byte(bad)) {
					t.Errorf("the page has %q", bad)
				}
			}
		})
	}
}

// node is an element of the page, and what a reader of its row finds: the text of its cells by their label, and the
// exact numbers of <data>.
type node struct {
	cells map[string]string
	data  map[string][]string
}

// rows reads the table with the given id out of the page.
func rows(t *testing.T, page []byte, id string) []node {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var all []node
	var inside, head bool
	label := ""
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			attr := make(map[string]string)
			for _, a := range e.Attr {
				attr[a.Name.Local] = a.Value
			}
			switch e.Name.Local {
			case "table":
				inside = attr["id"] == id
			case "thead":
				head = true
			case "tr":
				if inside && !head && !strings.HasPrefix(attr["class"], "why") {
					all = append(all, node{make(map[string]string), make(map[string][]string)})
				}
			case "th", "td":
				label = attr["data-label"]
				if strings.HasPrefix(attr["id"], "why-") {
					label = "Why"
				}
			case "data":
				if inside && len(all) > 0 {
					row := all[len(all)-1]
					row.data[label] = append(row.data[label], attr["value"])
				}
			}
		case xml.EndElement:
			switch e.Name.Local {
			case "table":
				inside = false
			case "thead":
				head = false
			}
		case xml.CharData:
			if inside && !head && len(all) > 0 {
				row := all[len(all)-1]
				row.cells[label] = strings.Join(strings.Fields(row.cells[label]+" "+string(e)), " ")
			}
		}
	}
}

func decode[T any](t *testing.T, s Source, path string) (v T) {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(s, new(metrics.Registry), Options{}).ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// holds says which of the words a cell lacks.
func holds(t *testing.T, where, cell string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(cell, word) {
			t.Errorf("%s: %q lacks %q", where, cell, word)
		}
	}
}

func texts(numbers ...int64) []string {
	var all []string
	for _, n := range numbers {
		all = append(all, strconv.FormatInt(n, 10))
	}
	return all
}

// Each row of /services.json is a row of the table with the same words and numbers, and the other way round.
func TestServicesEqualTheirTwin(t *testing.T) {
	t.Parallel()
	s := newFake(fixedStatus(), nil)
	table, twin := rows(t, render(t, fixedStatus(), nil), "services"), decode[[]edge.ServiceStatus](t, s, "/services.json")
	if len(table) != len(twin) {
		t.Fatalf("%d rows, the twin has %d", len(table), len(twin))
	}
	for i, want := range twin {
		got, where := table[i], want.Service+" "+want.ClientFamily
		holds(t, where, got.cells[""], want.Service, want.Protocol)
		holds(t, where, got.cells["Clients"], append([]string{familyName(want.ClientFamily)}, want.Listen...)...)
		holds(t, where, got.cells["State"], want.State)
		holds(t, where, got.cells["Why"], want.Reason, want.PlaneReason)
		holds(t, where, got.cells["Backends"], want.Pools...)
		holds(t, where, got.cells["Source"], want.Source)
		holds(t, where, got.cells["Handover"], want.Handover)
		holds(t, where, got.cells["Plane"], want.Plane)

		var flows, byCrossing, errs, toServer, toClient []int64
		flows, errs, toServer, toClient = []int64{0}, []int64{0}, []int64{0}, []int64{0}
		var speed float64
		for _, c := range want.Crossings {
			flows[0] += c.Active
			toServer[0] += c.ToServer
			toClient[0] += c.ToClient
			speed += c.Rate
			if c.Opened > 0 {
				byCrossing = append(byCrossing, c.Active)
				holds(t, where, got.cells["Flows"], c.Crossing)
			}
			for name, n := range c.Errors {
				errs[0] += n
				holds(t, where, got.cells["Errors"], name)
			}
		}
		for label, want := range map[string][]string{
			"Backends": texts(int64(want.Up), int64(want.Backends)), "Flows": texts(append(flows, byCrossing...)...),
			"To servers": texts(toServer...), "To clients": texts(toClient...), "Errors": texts(errs...),
		} {
			if d := cmp.Diff(want, got.data[label][:min(len(want), len(got.data[label]))]); d != "" {
				t.Errorf("%s: %s (-twin +table):\n%s", where, label, d)
			}
		}
		if v, err := strconv.ParseFloat(got.data["Rate /s"][0], 64); err != nil || math.Abs(v-speed) > 1e-9 {
			t.Errorf("%s: rate %v, %v; want %v", where, v, err, speed)
		}
	}
}

func TestBackendsEqualTheirTwin(t *testing.T) {
	t.Parallel()
	table, twin := rows(t, render(t, fixedStatus(), nil), "backends"), decode[[]edge.BackendStatus](t, newFake(fixedStatus(), nil), "/backends.json")
	if len(table) != len(twin) {
		t.Fatalf("%d rows, the twin has %d", len(table), len(twin))
	}
	for i, want := range twin {
		got := table[i]
		cells := map[string]string{"": want.Address, "Service": want.Service, "Pool": want.Pool, "Family": familyName(want.Family),
			"State": want.State, "Reason": want.Reason, "Since": age(now(), want.Since), "Asked": ago(now(), want.Checked)}
		for label, text := range cells {
			if got.cells[label] != text {
				t.Errorf("%s: %s is %q, want %q", want.Address, label, got.cells[label], text)
			}
		}
		numbers := map[string][]string{"Flows": texts(want.Flows), "Weight": texts(int64(want.Weight))}
		if want.Cap > 0 {
			numbers["Cap"] = texts(int64(want.Cap))
		}
		if d := cmp.Diff(numbers, got.data); d != "" {
			t.Errorf("%s (-twin +table):\n%s", want.Address, d)
		}
	}
}

func TestCertificatesEqualTheirTwin(t *testing.T) {
	t.Parallel()
	table, twin := rows(t, render(t, fixedStatus(), nil), "certificates"), decode[[]edge.CertificateStatus](t, newFake(fixedStatus(), nil), "/certificates.json")
	if len(table) != len(twin) {
		t.Fatalf("%d rows, the twin has %d", len(table), len(twin))
	}
	for i, want := range twin {
		expires := ""
		if !want.End.IsZero() {
			expires = until(now(), want.End)
		}
		for label, text := range map[string]string{"": strings.Join(want.Names, ", "), "State": want.State, "Expires": expires,
			"Key": want.Algorithm, "Issuer": want.Issuer, "From": want.Source, "Reason": want.Reason} {
			if table[i].cells[label] != text {
				t.Errorf("%s: %s is %q, want %q", want.Names, label, table[i].cells[label], text)
			}
		}
	}
}

func TestFlowsEqualTheirTwin(t *testing.T) {
	t.Parallel()
	table, twin := rows(t, render(t, fixedStatus(), fixedFlows()), "flows"), decode[[]edge.FlowStatus](t, newFake(fixedStatus(), fixedFlows()), "/flows.json")
	if len(table) != len(twin) {
		t.Fatalf("%d rows, the twin has %d", len(table), len(twin))
	}
	for i, want := range twin {
		got := table[i]
		cells := map[string]string{"": want.Client.String(), "Service": want.Service, "Crossing": want.Crossing, "Plane": want.Plane,
			"Seen by the server as": want.Source.String(), "Backend": want.Backend.String(), "For": age(now(), want.Started)}
		for label, text := range cells {
			if got.cells[label] != text {
				t.Errorf("%s: %s is %q, want %q", want.Client, label, got.cells[label], text)
			}
		}
		if d := cmp.Diff(map[string][]string{"To server": texts(want.ToServer), "To client": texts(want.ToClient)}, got.data); d != "" {
			t.Errorf("%s (-twin +table):\n%s", want.Client, d)
		}
	}
}

func TestHeadline(t *testing.T) {
	t.Parallel()
	refused := wellStatus()
	refused.ReloadErr = "no"
	limping := wellStatus()
	limping.Backends[0].State = "down"
	limping.Services[0].State = "degraded"
	late := wellStatus()
	late.Certificates = fixedStatus().Certificates
	tests := []struct {
		status edge.Status
		text   string
		tone   string
	}{
		{fixedStatus(), "not ready", "bad"},
		{wellStatus(), "ready", "good"},
		{refused, "ready", "warn"},
		{limping, "ready, 2 in trouble", "warn"},
		{late, "ready, 2 in trouble", "warn"},
	}
	for _, test := range tests {
		p := newPage(test.status, nil, now())
		if p.Headline() != test.text || p.Tone() != test.tone {
			t.Errorf("got %q, %q; want %q, %q", p.Headline(), p.Tone(), test.text, test.tone)
		}
	}
}

// Every text colour can be read on every ground: WCAG 2.2 asks for a contrast of 4.5 (success criterion 1.4.3).
func TestContrast(t *testing.T) {
	t.Parallel()
	css, err := assets.ReadFile("assets/style.css")
	if err != nil {
		t.Fatal(err)
	}
	colours := regexp.MustCompile(`--(\w+): #([0-9a-f]{6});`)
	light, dark, ok := bytes.Cut(css, []byte("(prefers-color-scheme: dark)"))
	if !ok {
		t.Fatal("no dark scheme")
	}
	for name, part := range map[string][]byte{"light": light, "dark": dark} {
		c := make(map[string]float64)
		for _, m := range colours.FindAllSubmatch(part, -1) {
			c[string(m[1])] = luminance(t, string(m[2]))
		}
		for _, text := range []string{"ink", "muted", "good", "warn", "bad", "v4", "v6"} {
			for _, ground := range []string{"ground", "paper"} {
				if c[text] == 0 || c[ground] == 0 {
					t.Fatalf("%s: --%s or --%s is not set", name, text, ground)
				}
				if got := (max(c[text], c[ground]) + 0.05) / (min(c[text], c[ground]) + 0.05); got < 4.5 {
					t.Errorf("%s: --%s on --%s has a contrast of %.2f, want 4.5", name, text, ground, got)
				}
			}
		}
	}
}

// luminance is the relative luminance of a colour as WCAG 2.2 defines it.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(v uint64) float64 {
		s := float64(v&0xff) / 255
		if s <= 0.04045 {
			return s / 12.92
		}
		return math.Pow((s+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(n>>16) + 0.7152*linear(n>>8) + 0.0722*linear(n)
}
