// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

import "strconv"

// Continue is the interim response that lets a client send its body. RFC 9110 §15.2.1.
const Continue = "HTTP/1.1 100 Continue\r\n\r\n"

// AppendError writes a whole answer of our own to the client that asked x: a status of 4xx or 5xx and one line that
// says what it means. Unless x.KeepAlive, it says that the connection is closed after it; set it to false wherever
// the request has not been read to its end.
func AppendError(dst []byte, status int, x Exchange) []byte {
	reason := StatusText(status)
	const line = len("200 \n")
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, reason...)
	dst = append(dst, "\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(line+len(reason)), 10)
	switch {
	case !x.KeepAlive:
		dst = append(dst, "\r\nConnection: close"...)
	case x.Minor == 0:
		dst = append(dst, "\r\nConnection: keep-alive"...)
	}
	dst = append(dst, "\r\n\r\n"...)
	if x.Verb == Head {
		return dst
	}
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, reason...)
	return append(dst, '\n')
}

// StatusText returns the reason of a status that AppendError is for. RFC 9110 §15.5 and §15.6, RFC 6585.
func StatusText(status int) string {
	switch status {
	case 400:
		return "Bad Request"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 408:
		return "Request Timeout"
	case 413:
		return "Content Too Large"
	case 414:
		return "URI Too Long"
	case 417:
		return "Expectation Failed"
	case 421:
		return "Misdirected Request"
	case 429:
		return "Too Many Requests"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	case 505:
		return "HTTP Version Not Supported"
	}
	return "Error"
}
