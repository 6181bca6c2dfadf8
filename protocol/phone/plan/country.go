// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	_ "embed" // the countries
	"errors"
	"fmt"
	"strings"
)

//go:embed japan.txt
var japan string

// Country is what numbers mean in a country.
type Country struct {
	Name          string // of the file
	Code          string // 81
	Trunk         string // what stands before a national number: 0
	International string // what stands before a foreign one: 010

	privacy  []prefix
	carriers []Pattern // the digits that choose one
	classes  []class
	areas    []area
}

// area is what numbers of an area code begin with.
type area struct {
	begin string
	code  int  // how many digits of it, with the trunk prefix, are the code
	whole bool // begin is the code itself, which no 0 or 1 follows
}

type prefix struct {
	digits string
	asks   Privacy
}

// class is one pattern of a class.
type class struct {
	name    string
	pattern Pattern
	place   place
}

// Countries returns the names of the plans that come with the program.
func Countries() []string { return []string{"japan"} }

// OpenCountry returns the plan of that name, or nil if there is none.
func OpenCountry(name string) (*Country, error) {
	if name != "japan" {
		return nil, fmt.Errorf("plan: no plan %q: want one of %s", name, strings.Join(Countries(), ", "))
	}
	return ParseCountry("japan.txt", japan)
}

// ParseCountry reads a country's plan: a line says one thing, # begins a comment. All mistakes are returned at once,
// each with its line.
func ParseCountry(name, text string) (*Country, error) {
	c := &Country{Name: name}
	var wrong []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		at := place{path: []string{"numbers", "plan"}, line: fmt.Sprintf("%s:%d", name, number)}
		if err := c.line(words[0], words[1:], at); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", at, err))
		}
	}
	if c.Code == "" || c.Trunk == "" || c.International == "" {
		wrong = append(wrong, fmt.Errorf("%s: country, trunk and international are not all there", name))
	}
	return c, errors.Join(wrong...)
}

// line reads the words behind the first one of a line.
func (c *Country) line(word string, rest []string, at place) error {
	if len(rest) == 0 {
		return fmt.Errorf("%s: nothing follows", word)
	}
	switch word {
	case "country":
		return once(&c.Code, rest)
	case "trunk":
		return once(&c.Trunk, rest)
	case "international":
		return once(&c.International, rest)
	case "privacy":
		return c.addPrivacy(rest)
	case "carrier":
		return c.addCarriers(rest, at)
	case "class":
		for _, text := range rest[1:] {
			p, err := ParsePattern(text)
			if err != nil {
				return err
			}
			c.classes = append(c.classes, class{rest[0], p, at})
		}
		return nil
	case "area", "also":
		return c.addAreas(word, rest)
	}
	return fmt.Errorf("%q is none of country, trunk, international, privacy, carrier, class, area, also", word)
}

// addAreas adds area codes, or what numbers of one begin with although a longer code does too.
func (c *Country) addAreas(word string, rest []string) error {
	for i, digits := range rest {
		if !allDigits(digits) || i > 0 && word == "also" && !strings.HasPrefix(digits, rest[0]) {
			return fmt.Errorf("%s %q: not digits, or not of the code", word, digits)
		}
		switch {
		case word == "area":
			c.areas = append(c.areas, area{digits, len(digits), true})
		case i > 0:
			c.areas = append(c.areas, area{digits, len(rest[0]), false})
		}
	}
	return nil
}

// once sets what may be said once.
func once(field *string, words []string) error {
	if len(words) != 1 || *field != "" || !allDigits(words[0]) {
		return fmt.Errorf("%q: want digits, once", strings.Join(words, " "))
	}
	*field = words[0]
	return nil
}

func (c *Country) addPrivacy(words []string) error {
	asks := map[string]Privacy{"withhold": Withhold, "show": Show}
	if len(words) != 2 || !allDigits(words[0]) || asks[words[1]] == NoPrefix {
		return fmt.Errorf("privacy: want digits and withhold or show, have %q", strings.Join(words, " "))
	}
	c.privacy = append(c.privacy, prefix{words[0], asks[words[1]]})
	return nil
}

// addCarriers adds the digits that choose a carrier, and with them the class: those digits, and something behind.
func (c *Country) addCarriers(words []string, at place) error {
	for _, text := range words {
		code, err := ParsePattern(text)
		if err != nil {
			return err
		}
		if code.min != code.max || code.max > 6 {
			return fmt.Errorf("carrier %q: want a fixed length of at most 6", text)
		}
		whole, err := ParsePattern(fmt.Sprintf("%sx{1,%d}", text, maxDigits-code.max))
		if err != nil {
			return err
		}
		for i := range c.classes {
			if n, ok := whole.shared(&c.classes[i].pattern); ok && c.classes[i].name == Carrier {
				return fmt.Errorf("carrier %q: %s is also of %s", text, n, c.classes[i].pattern.text)
			}
		}
		c.carriers = append(c.carriers, code)
		c.classes = append(c.classes, class{Carrier, whole, at})
	}
	return nil
}

func allDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= maxDigits
}

// begins says whether n could still become a prefix for privacy.
func (c *Country) begins(n *Number) bool {
	for _, p := range c.privacy {
		if int(n.n) < len(p.digits) && p.digits[:n.n] == string(n.digits[:n.n]) {
			return true
		}
	}
	return false
}

// chosen returns how many digits of n choose a carrier. Two codes never begin alike: ParseCountry refuses it.
func (c *Country) chosen(n *Number) int {
	for i := range c.carriers {
		code := &c.carriers[i]
		if head := n.first(code.max); head.n > 0 && code.Match(head) {
			return code.max
		}
	}
	return 0
}

// first returns the first k digits of n, or none if there are fewer.
func (n *Number) first(k int) (m Number) {
	if int(n.n) >= k {
		m.n = uint8(copy(m.digits[:], n.digits[:k]))
	}
	return m
}

// Area returns how many digits of a national number are its area code with the trunk prefix, or 0. What says most of
// its beginning counts. No local number begins with 0 or 1, so that 0154 103 is not of 0154 but of 015.
func (c *Country) Area(n Number) (digits int) {
	longest := 0
	for _, a := range c.areas {
		k := len(a.begin)
		if k > longest && k < int(n.n) && n.begins(a.begin) && (!a.whole || n.digits[k] >= '2') {
			longest, digits = k, a.code
		}
	}
	return digits
}
