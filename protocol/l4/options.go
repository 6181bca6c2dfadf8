// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package l4

import "github.com/kyozon/kyozon/service"

// Options is the section of a service that is carried as it is: there is nothing to say beyond what every service
// says.
type Options struct{}

// Check implements service.Options.
func (*Options) Check(*service.Service) []error { return nil }
