// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Legacies is what protocols leave from one process to the next, by their names.
type Legacies map[string][]byte

// legacyWord is what comes before the name of a protocol and what it leaves, in base64.
const legacyWord = "legacy "

// sendLegaciesLocked tells the new process what the protocols leave to it.
func (e *Edge) sendLegaciesLocked(talk *os.File) error {
	leave := e.generation.Load().leave
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(leave)) {
		if left := leave[name](); len(left) > 0 {
			fmt.Fprintf(&lines, "%s%s %s\n", legacyWord, name, base64.StdEncoding.EncodeToString(left))
		}
	}
	_, err := talk.WriteString(lines.String())
	return err
}

// legacies waits for "go", and returns what comes before it.
func (s *Successor) legacies() (Legacies, error) {
	all := make(Legacies)
	for {
		word, err := hear(s.talk, s.words, "go")
		if err != nil || word == "go" {
			return all, err
		}
		text, is := strings.CutPrefix(word, legacyWord)
		name, text, both := strings.Cut(text, " ")
		left, err := base64.StdEncoding.DecodeString(text)
		if !is || !both || err != nil {
			return nil, fmt.Errorf("%w: waited for \"go\", got %q", errUpgrade, word)
		}
		all[name] = left
	}
}
