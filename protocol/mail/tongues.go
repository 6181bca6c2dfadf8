// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/protocol/mail/imap"
	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/pop3"
	"github.com/kyozon/kyozon/relay"
)

// speakIMAP begins with a client. RFC 9051.
func speakIMAP(f *front, t *table, c *relay.Conn) {
	newMailbox(f, t, c, &tongue{
		client: func(id login.Identity, l *login.Login, p login.Privacy) login.Client {
			return &imap.Client{Identity: id, Login: l, Privacy: p}
		},
		handover: backend.HandoverID,
		least:    "IMAP4rev1",
		refused:  "* BYE No service for you here.\r\n",
		restart:  "* BYE Service is restarting, come again.\r\n",
		silent:   "* BYE Nothing has come for long.\r\n",
	}, &imap.Server{StartTLS: t.terms != nil, Clear: t.options.AuthInClear, Secure: c.TLS() != nil})
}

// speakPOP3 begins with a client. RFC 1939.
func speakPOP3(f *front, t *table, c *relay.Conn) {
	newMailbox(f, t, c, &tongue{
		client: func(id login.Identity, l *login.Login, p login.Privacy) login.Client {
			return &pop3.Client{Identity: id, Login: l, Privacy: p}
		},
		handover: backend.HandoverXclient,
		least:    "USER\r\n",
		refused:  "-ERR [SYS/PERM] No service for you here.\r\n", // RFC 3206 §4
		restart:  "-ERR [SYS/TEMP] Service is restarting, come again.\r\n",
		silent:   "-ERR Nothing has come for long.\r\n",
	}, &pop3.Server{StartTLS: t.terms != nil, Clear: t.options.AuthInClear, Secure: c.TLS() != nil})
}
