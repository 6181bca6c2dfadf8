// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/kyozon/kyozon/protocol/l4"
	"github.com/kyozon/kyozon/protocol/mail"
	"github.com/kyozon/kyozon/protocol/phone"
	"github.com/kyozon/kyozon/protocol/web"
	"github.com/kyozon/kyozon/service"
)

// protocols is everything this kyozon speaks. To add one: write a folder, add a line.
func protocols() []service.Protocol {
	return []service.Protocol{
		l4.TCP(),
		l4.UDP(),
		web.Protocol(),
		phone.Protocol(),
		mail.Protocol(),
	}
}
