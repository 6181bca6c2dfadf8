// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// ask asks and waits for the answer.
func ask(r *Resolver, q Question) Answer {
	answer := make(chan Answer, 1)
	r.Ask(q, func(a Answer) { answer <- a })
	return <-answer
}
