// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import "strings"

// enumerate joins words as prose does: "a, b and c".
func enumerate(words []string, and string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " " + and + " " + words[last]
}
