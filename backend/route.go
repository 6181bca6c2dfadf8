// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

// Route is where the clients of one listen and family go: a pool by share, then the fallbacks in order.
type Route struct{}
