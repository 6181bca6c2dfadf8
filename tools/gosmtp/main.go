// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Command gosmtp is a proxy of SMTP made with github.com/emersion/go-smtp, which bench/mail measures beside ours. Each
// session has a connection to one server, which answers each command; a message is passed on as it comes.
//
//	gosmtp LISTEN TO
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/emersion/go-smtp"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: gosmtp LISTEN TO")
		os.Exit(2)
	}
	s := smtp.NewServer(backend(os.Args[2]))
	s.Addr, s.Domain, s.MaxMessageBytes = os.Args[1], "mail.example", 64<<20
	if err := s.ListenAndServe(); err != nil {
		fmt.Fprintln(os.Stderr, "gosmtp:", err)
		os.Exit(1)
	}
}

// backend is the address of the server.
type backend string

// NewSession implements smtp.Backend.
func (b backend) NewSession(*smtp.Conn) (smtp.Session, error) {
	c, err := smtp.Dial(string(b))
	if err != nil {
		return nil, err
	}
	return &session{c}, nil
}

// session is a client's. Its methods implement smtp.Session.
type session struct{ server *smtp.Client }

func (s *session) Mail(from string, o *smtp.MailOptions) error { return s.server.Mail(from, o) }

func (s *session) Rcpt(to string, o *smtp.RcptOptions) error { return s.server.Rcpt(to, o) }

func (s *session) Data(r io.Reader) error {
	w, err := s.server.Data()
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return w.Close()
}

// Reset is called after each message too.
func (s *session) Reset() {}

func (s *session) Logout() error { return s.server.Quit() }
