// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package relay is the event loop, and bytes both ways on it.
//
// There is one loop for each core. A client's socket and the socket to its server live on the same loop, so a flow
// needs no lock and no goroutine, and while it is idle no buffer:
//
//	listening socket ──accept──▶ Conn ──Data──▶ Handler (a protocol) ──Dial──▶ Conn ──▶ server
//	 (lent to every loop)         ▲  │                                         │
//	                     TLS records │◀────────────── Write, Splice ────────────┘
//	                              │
//	                     handshakes on a bounded pool of goroutines
//
// Sockets are registered once, edge-triggered, for both directions; a socket is read before it is waited for, and
// bytes are sent where they are made. What the kernel does not take waits in pooled buffers. Nothing on a loop may
// block: what must (a fsync, a handshake) happens elsewhere and comes back with Loop.Post.
//
// Streams that carry bulk are moved by splice(2) through a large pipe; UDP is moved in batches (see Datagrams).
package relay
