// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRules: each rule finds what it is there to find. A rule that finds nothing holds nothing.
func TestRules(t *testing.T) {
	t.Parallel()
	global := func(s *source) []string {
		w := map[string]bool{}
		writes(s, w)
		return globals(s, w)
	}
	for _, tt := range []struct {
		name string
		rule func(*source) []string
		code string
		want []string // line: a part of the text
	}{
		{"error", global, `var ErrNone = errors.New("x: none")`, nil},
		{"error of a type", global, `var errLate = &late{}`, nil},
		{"pattern", global, `var word = regexp.MustCompile("a")`, nil},
		{"address", global, `var any4 = netip.AddrFrom4([4]byte{})`, nil},
		{"guard", global, `var _ io.Reader = (*T)(nil)`, nil},
		{"embedded", global, "//go:embed page.html\nvar page string", nil},
		{"table", global, `var names = [...]string{"a", "b"}`, nil},
		{"excused", global, `var pool sync.Pool //house:ok it is one for each process by nature`, nil},
		{"excused without a reason", global, `var pool sync.Pool //house:ok`, []string{"3: global variable pool"}},
		{"written table", global, "var names = map[int]string{}\nfunc f() { names[1] = `b` }", []string{"3: global variable names"}},
		{"deleted from", global, "var names = map[int]string{}\nfunc f() { delete(names, 1) }", []string{"3: global variable names"}},
		{"written error", global, "var errX error = nil\nfunc f() { errX = nil }", []string{"3: global variable errX"}},
		{"exported table", global, `var Names = []string{"a"}`, []string{"3: global variable Names"}},
		{"counter", global, "var n, m int", []string{"3: global variable n", "3: global variable m"}},
		{"init", global, "func init() {}", []string{"3: func init"}},
		{"method init", global, "func (t T) init() {}", nil},

		{"one family", twoFamilies, `var l, _ = net.Listen("tcp6", "[::1]:0")`, nil},
		{"a name of a protocol", twoFamilies, `func f() string { return "tcp" }`, nil},
		{"two families", twoFamilies, `var l, _ = net.Listen("tcp", ":80")`, []string{`3: network "tcp" means two`}},
		{"two families, resolved", twoFamilies, `var a, _ = net.ResolveUDPAddr("udp", "x:1")`, []string{`3: network "udp" means two`}},
		{"net.IP", twoFamilies, "var a net.IP", []string{"3: net.IP hides"}},
		{"net.ParseIP", twoFamilies, `var a = net.ParseIP("::1")`, []string{"3: net.ParseIP hides"}},
		{"excused net.IPNet", twoFamilies, "func f() *net.IPNet { return nil } //house:ok netlink has no other", nil},

		{"hot", hotImports, `import "net/netip"`, nil},
		{"fmt", hotImports, `import "fmt"`, []string{"3: a hot path imports fmt"}},
		{"slog", hotImports, "import (\n\t\"log/slog\"\n)", []string{"4: a hot path imports log/slog"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := parse("x.go", "package x\n\n"+tt.code+"\n")
			if err != nil {
				t.Fatal(err)
			}
			got := tt.rule(s)
			if len(got) != len(tt.want) {
				t.Fatalf("found %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], "x.go:"+tt.want[i]) {
					t.Errorf("found %q, want %q", got[i], tt.want[i])
				}
			}
		})
	}
}

// TestImportTable: the table is understood as it reads.
func TestImportTable(t *testing.T) {
	t.Parallel()
	rows := importTable(`
| layer | packages | may import |
|---|---|---|
| 3 program | ` + "`cmd/*`" + ` | layer 2, layer 1 |
| 2 protocols | ` + "`protocol/*`" + ` | layer 1 |
| 1 parts | ` + "`relay` `state`" + ` | ` + "`ip`" + ` |
| 0 base | ` + "`ip`" + ` | – |
`)
	for _, tt := range []struct {
		from, to string
		want     string // a part of the reason, or "" if it may
	}{
		{"cmd/kyozon", "protocol/web", ""},
		{"cmd/kyozon", "ip", "not in its row"},
		{"protocol/web", "relay", ""},
		{"protocol/web", "protocol/web/http1", ""},
		{"protocol/web/http1", "protocol/web/h2", ""},
		{"protocol/web", "protocol/mail", "not in its row"},
		{"protocol/web/http1", "state", ""},
		{"relay", "state", "not in its row"},
		{"relay", "ip", ""},
		{"ip", "relay", "not in its row"},
		{"relay", "ip/iptest", "tests only"},
		{"relay", "internal/servertest", "tests only"},
		{"other", "ip", "other is not in the table"},
	} {
		if got := forbidden(rows, tt.from, tt.to); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s imports %s: %q, want %q", tt.from, tt.to, got, tt.want)
		}
	}
}

// TestReferences: citations are found in the forms that comments use.
func TestReferences(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]reference{
		"// nothing here":   nil,
		"// RFC 9112 §6.3.": {{9112, "6.3"}},
		"// RFC 6052":       {{6052, ""}},
		"// RFC 6052 §2.2, §2.3 and RFC 4291 §2.5.1": {{6052, "2.2"}, {6052, "2.3"}, {4291, "2.5.1"}},
		"// RFC 5321 §4.1.1.4 and §7 say so":         {{5321, "4.1.1.4"}, {5321, "7"}},
	} {
		if diff := cmp.Diff(want, references(line), cmp.AllowUnexported(reference{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}
