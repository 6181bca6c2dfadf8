// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/kyozon/kyozon/bench"
)

// argument is the first one of a process that serves mailboxes.
const argument = "bench-mailboxes"

// serveMailboxes does not return if this process was started to be the server: an IMAP server that opens a mailbox for
// everybody and knows IDLE.
func serveMailboxes() {
	if len(os.Args) != 3 || os.Args[1] != argument {
		return
	}
	at, err := netip.ParseAddrPort(os.Args[2])
	if err == nil {
		var l net.Listener
		if l, err = net.Listen(bench.Network(at), at.String()); err == nil {
			for {
				var c net.Conn
				if c, err = l.Accept(); err != nil {
					break
				}
				go serveMailbox(c) // ends with the process
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func serveMailbox(c net.Conn) {
	defer c.Close()
	fmt.Fprint(c, "* OK [CAPABILITY IMAP4rev1 ID IDLE] ready\r\n")
	begin := ""
	for lines := bufio.NewScanner(c); lines.Scan(); {
		line := begin + lines.Text()
		if begin = ""; strings.HasSuffix(line, "}") { // a literal, as nginx sends; names and passwords have no line ends
			begin = line
			fmt.Fprint(c, "+ OK\r\n")
			continue
		}
		tag, command, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(command, " ")
		switch strings.ToUpper(name) {
		case "IDLE":
			fmt.Fprint(c, "+ idling\r\n")
		case "ID":
			fmt.Fprintf(c, "* ID NIL\r\n%s OK done\r\n", tag)
		default:
			fmt.Fprintf(c, "%s OK done\r\n", tag)
		}
	}
}
