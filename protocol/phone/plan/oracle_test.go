// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// oracle asks each pattern by itself, as a regular expression, and takes the one with the fewest numbers.
type oracle struct {
	whole, begun []*regexp.Regexp
	size         []float64 // logarithm of how many numbers
}

func newOracle(p *Plan) *oracle {
	o := &oracle{}
	for i := range p.rules {
		text := p.rules[i].pattern.text
		size := 0.0
		sets := p.rules[i].pattern.sets
		for _, s := range sets[:p.rules[i].pattern.max] {
			n := 0
			for d := range 10 {
				n += int(s>>d) & 1
			}
			size += math.Log10(float64(n))
		}
		o.whole = append(o.whole, regexp.MustCompile("^(?:"+strings.ReplaceAll(text, "x", "[0-9]")+")$"))
		o.begun = append(o.begun, regexp.MustCompile("^(?:"+beginnings(text)+")$"))
		o.size = append(o.size, size)
	}
	return o
}

// beginnings returns an expression for what numbers of a pattern begin with: a(b(c)?)?.
func beginnings(pattern string) string {
	var places []string
	for _, m := range regexp.MustCompile(`(\[[^]]*\]|x|\d)(?:\{(?:\d+,)?(\d+)\})?`).FindAllStringSubmatch(pattern, -1) {
		times := 1
		if m[2] != "" {
			fmt.Sscan(m[2], &times)
		}
		for range times {
			places = append(places, strings.ReplaceAll(m[1], "x", "[0-9]"))
		}
	}
	return "(?:" + strings.Join(places, "(?:") + strings.Repeat(")?", len(places))
}

// look returns the rule of a number in national form, or -1, and whether more digits may follow.
func (o *oracle) look(n string) (rule int, more bool) {
	rule = -1
	for i := range o.whole {
		if o.whole[i].MatchString(n) && (rule < 0 || o.size[i] < o.size[rule]) {
			rule = i
		}
		for d := range 10 {
			more = more || o.begun[i].MatchString(n+string(rune('0'+d)))
		}
	}
	return rule, more
}

func compare(t *testing.T, p *Plan, o *oracle, digits string) {
	t.Helper()
	var n Number
	n.n = uint8(copy(n.digits[:], digits))
	end := p.numbers.walk(&n)
	got := -1
	if end.chain != 0 {
		got = int(p.numbers.chains[end.chain][0])
	}
	want, more := o.look(digits)
	if got != want || end.live != more {
		t.Errorf("%s: rule %d, more %v; want %d, %v", digits, got, end.live, want, more)
	}
}

// TestOracle asks for numbers near the patterns' own ones, and for any.
func TestOracle(t *testing.T) {
	t.Parallel()
	p := compile(t, isp())
	o := newOracle(p)
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var digits string
		if r.IntN(4) > 0 {
			digits = near(r, &p.rules[r.IntN(len(p.rules))].pattern)
		} else {
			for range r.IntN(maxDigits) {
				digits += string(rune('0' + r.IntN(10)))
			}
		}
		compare(t, p, o, digits)
	}
}

// near returns a number of p, perhaps with one digit changed, or the first digits of one.
func near(r *rand.Rand, p *Pattern) string {
	var b []byte
	for i := range p.min + r.IntN(p.max-p.min+1) {
		for {
			if c := '0' + byte(r.IntN(10)); p.sets[i].has(c) {
				b = append(b, c)
				break
			}
		}
	}
	switch r.IntN(3) {
	case 0:
		b = b[:r.IntN(len(b)+1)]
	case 1:
		b[r.IntN(len(b))] = '0' + byte(r.IntN(10))
	}
	return string(b)
}

// TestRandomPlans proves of plans that nobody would write that what Compile lets pass has no ambiguous number, and
// that what it says of a refused one is true.
func TestRandomPlans(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	good, bad := 0, 0
	for range 60 {
		text := "country 81\ntrunk 0\ninternational 010\nclass emergency 119\n"
		for i := range 2 + r.IntN(6) {
			text += fmt.Sprintf("class c%d ", i)
			for range 1 + r.IntN(5) {
				text += [...]string{"0", "1", "2", "x", "[01]", "[12]", "x{1,2}"}[r.IntN(6)]
			}
			text += "\n"
		}
		c, err := ParseCountry("x", text)
		if err != nil {
			t.Fatal(err)
		}
		p, findings := Compile(c, nil, []Route{{To: Words{Emergency}, Via: "a"}})
		if p == nil {
			bad++
			refuted(t, c, problem(findings))
			continue
		}
		good++
		o := newOracle(p)
		for n := range 120 {
			compare(t, p, o, fmt.Sprint(n))
			compare(t, p, o, fmt.Sprintf("%05d", n))
		}
	}
	if good < 10 || bad < 10 {
		t.Errorf("%d plans are good and %d bad: too few to prove anything", good, bad)
	}
}

// refuted checks the numbers that findings show.
func refuted(t *testing.T, c *Country, findings string) {
	t.Helper()
	ambiguous := regexp.MustCompile(`ambiguous: (\d+) is both (\w+) \S+ \((\S+)\) and (\w+) \S+ \((\S+)\)`)
	for _, m := range ambiguous.FindAllStringSubmatch(findings, -1) {
		n, _, _ := c.Read(m[1])
		found := 0
		for i := range c.classes {
			if cl := &c.classes[i]; (cl.place.String() == m[3] || cl.place.String() == m[5]) && cl.pattern.Match(n) {
				found++
			}
		}
		if found != 2 || m[2] == m[4] {
			t.Errorf("%s: %d patterns have it", m[0], found)
		}
	}
}

func FuzzLook(f *testing.F) {
	p := compile(f, isp())
	o := newOracle(p)
	for _, s := range []string{"0312345678", "+81312345678", "184110", "00330312345678", "010(81)50.1", "+", "010(8110(81)50)50.1"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, dialled, caller string) {
		d := p.Look(dialled, caller)
		if len(p.Explain(dialled, caller)) == 0 {
			t.Error("nothing to explain")
		}
		if n := d.Number.String(); n != "" {
			compare(t, p, o, n)
		}
		if global, ok := p.country.AppendGlobal(nil, d.Number); ok && d.Kind == Complete {
			if again := p.Look(string(global), caller); again.Number != d.Number || again.Route != d.Route {
				t.Errorf("%s is %s, and that is %s", d.Number, global, again.Number)
			}
		}
	})
}

func FuzzParseCountry(f *testing.F) {
	f.Add("country 81\ntrunk 0\ninternational 010\nprivacy 184 withhold\ncarrier 00[3-8]x\nclass emergency 11[089]\nclass a x{1,9}\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 400 {
			return
		}
		c, err := ParseCountry("x", text)
		if err != nil {
			return
		}
		if p, _ := Compile(c, nil, []Route{{To: Words{Emergency}, Deny: "a"}}); p != nil {
			p.Explain("0312345678", "119")
		}
	})
}

func FuzzParsePattern(f *testing.F) {
	f.Add("010[1-9]x{6,14}")
	f.Add("[0-24]x{3}")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePattern(text)
		if err != nil {
			return
		}
		if n := p.example(); !p.Match(n) || int(n.n) != p.min || !p.within(&p) {
			t.Errorf("%q has not its own %s", text, n)
		}
	})
}
