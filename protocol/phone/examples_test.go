// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"errors"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/service"
)

// TestExamples: the files of S6 and S7 are good, and each flow that the systems are there for takes its way.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ file, from, to, want string }{
		{"s6", "0312345678", "0612345678", "trunk osaka, in network core: 10.0.6.11:5060 (weight 2), 10.0.6.12:5060 (weight 1); at most 1440 calls at once"},
		{"s6", "0612345678", "0312345678", "trunk tokyo, in network core: 10.0.5.11:5060, 10.0.5.12:5060; at most 960 calls at once"},
		{"s7", "05010001234", "05010005678", "routes[0]: to own, for everybody: via subscribers"},
		{"s7", "05010001234", "0312345678", "trunk pstn, in network core: 10.0.5.11:5060, 10.0.5.12:5060; at most 960 calls at once"},
		{"s7", "05010001234", "09012345678", "trunk pstn, in network core: 10.0.5.11:5060, 10.0.5.12:5060; at most 960 calls at once"},
		{"s7", "05010001234", "05012345678", "trunk pstn, in network core: 10.0.5.11:5060, 10.0.5.12:5060; at most 960 calls at once"},
		{"s7", "05010001234", "05020001234", "trunk neighbour, in network carriers: [2001:db8:900::5]:5060, 198.51.100.5:5060"},
		{"s7", "05010001234", "010442071234567", "trunk international, in network core: sip:10.0.5.21;transport=tcp; at most 20 calls in 1s"},
		{"s7", "0312345678", "05010001234", "routes[0]: to own, for everybody: via subscribers"},
	} {
		cfg, err := config.Load("../../examples/"+test.file+".yaml", []service.Protocol{Protocol()})
		if err != nil {
			t.Fatal(err)
		}
		o, ok := cfg.Services[0].Options.(*Options)
		if !ok {
			t.Fatal("not a phone service")
		}
		if errs := o.Check(cfg.Services[0]); len(errs) > 0 {
			t.Errorf("%s: %v", test.file, errors.Join(errs...))
		}
		if got := strings.Join(o.Explain(test.to, test.from), "; "); !strings.HasSuffix(got, test.want) {
			t.Errorf("%s: a call from %s to %s: %s", test.file, test.from, test.to, got)
		}
	}
}
