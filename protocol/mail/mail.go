// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package mail carries SMTP, message submission, IMAP and POP3, with TLS ended here.
//
//	client ─▶ front (an address) ─ its dialect ─▶ session ─ smtp.Server: commands, content
//	                                                │ envelope, body: kept until the backend has answered
//	                                                ▼
//	                          route.Dial, handover, EHLO ─▶ link ─ smtp.Client: replies ─▶ backend
//
// Nothing is stored and forwarded, unless the site keeps messages (queues): a client gets 250 for a message when the backend has said it, and not before, so that
// whatever dies on the way, the client still has the message. Recipients are answered by the backend too. What the
// edge keeps for a moment is the envelope, so that it can be said again to a backend, and the message: it goes to the
// backend when it is whole. A large or slow one does not hold a backend meanwhile.
//
// Where messages are kept, backends are asked for recipients only. The message goes to a journal, and from there to backends,
// by LMTP or SMTP, when they take it:
//
//	session ─▶ storing ─▶ queue.Queue, 250 ─▶ queues: when, where ─▶ errand ─ lmtp.Client ─▶ backend
//
// Mailboxes are another matter: what is said before the login is read, the user's backend is asked, and then nobody reads
// any more:
//
//	client ─▶ front ─▶ mailbox ─ login.Server: a login ─▶ visit ─ login.Client ─▶ backend of the user ─▶ relay.Splice
//
// Where TLS is passed through, nobody reads anything:
//
//	client ─▶ front ─▶ pass ─▶ route.Dial ─▶ relay.Splice
//
// A front outlives the generations; a session looks at what it serves with each transaction.
//
// The machines that read and write SMTP, IMAP and POP3 are in packages of their own, which know no socket.
//
// RFC 5321 (SMTP), RFC 2033 (LMTP), RFC 9051 (IMAP), RFC 1939 (POP3), RFC 6409 (submission), RFC 8314 (TLS first), RFC 3207 (STARTTLS).
package mail

import (
	_ "embed"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// source is options.go, whose comments describe the keys of the section.
//
//go:embed options.go
var source string

// Protocol is the line of the protocol table.
func Protocol() service.Protocol {
	return service.Protocol{
		Name: "mail", Doc: "SMTP, submission, IMAP and POP3, with TLS ended here or passed through", Transports: []listen.Transport{listen.TCP},
		Listens:   listens(),
		Handovers: []backend.Handover{backend.HandoverProxyV1, backend.HandoverProxyV2, backend.HandoverXclient, backend.HandoverID, backend.HandoverAuto},
		StartTLS:  true,
		Counts:    []limit.Kind{limit.Requests, limit.Connections, limit.Handshakes, limit.FailedLogins, limit.Open},
		Options:   func() service.Options { return defaults() },
		Sources:   []string{source, queueSource, service.ACMESource()},
		Build:     build,
		Read:      readFiles,
		Left:      left,
		Kernel:    unread,
	}
}
