// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Stream is one request and its response. It belongs to its Conn, which uses it again for another: the owner forgets it
// when it is gone.
//
// For a server it is gone when the response has been written to its end, whether or not the request has come whole;
// for a client, when the request has been written to its end and the response has come to its end. For both when
// Owner.Reset has been told or Conn.ResetStream been called.
type Stream struct {
	ID    uint32 // 0 for a client's stream until AppendRequest
	Owner Owner  // nil: nobody is told, and what comes is dropped
}
