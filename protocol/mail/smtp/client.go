// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

// Client is our side towards a backend: it knows which replies are owed. The zero value waits for the greeting after
// one call of Sent with Other.
type Client struct {
	Limits Limits

	owed []Verb // at most what may be in flight, which the owner bounds by the recipients
}

// Sent notes that a command was written, or that the connection was made (Other: the greeting is owed).
func (c *Client) Sent(v Verb) { c.owed = append(c.owed, v) }

// Owed is how many replies are still to come.
func (c *Client) Owed() int { return len(c.owed) }

// Next returns the reply that p begins with, the verb that it answers, and how many bytes it takes; 0 if its end is
// not there yet. A reply that nobody asked for is refused, but 421, which a server may say at any time. So is
// anything in clear behind the reply to STARTTLS. RFC 5321 §3.8, RFC 3207 §4.2.
func (c *Client) Next(p []byte) (Reply, Verb, int, Refusal) {
	if len(p) == 0 {
		return Reply{}, Other, 0, 0
	}
	r, n, refusal := ParseReply(p, &c.Limits)
	if refusal != 0 || n == 0 {
		return Reply{}, Other, 0, refusal
	}
	if len(c.owed) == 0 {
		if r.Code != 421 {
			return Reply{}, Other, 0, Unasked
		}
		return r, Other, n, 0
	}
	v := c.owed[0]
	if v == StartTLS && r.Code == 220 && len(p) > n {
		return Reply{}, v, 0, Unasked
	}
	copy(c.owed, c.owed[1:])
	c.owed = c.owed[:len(c.owed)-1]
	return r, v, n, 0
}
