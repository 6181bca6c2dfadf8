// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/edge"
)

// TestLimited: `kyozon status` names the prefixes that want too much.
func TestLimited(t *testing.T) {
	t.Parallel()
	st := wellStatus()
	st.Limited = []edge.LimitedStatus{{Service: "shop", Prefix: netip.MustParsePrefix("2001:db8:666::/48"), Kind: "requests", Refused: 1234}}
	var b strings.Builder
	if err := WriteStatus(&b, st, Style{}); err != nil {
		t.Fatal(err)
	}
	if want := "shop: 2001:db8:666::/48, 1,234 of requests refused in the last second"; !strings.Contains(b.String(), want) {
		t.Errorf("got\n%s\nwant a line with %q", b.String(), want)
	}
}
