// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package cause translates why a call ended between SIP, which has status codes, and the telephone network, which has
// the causes of ITU-T Q.850. It does no I/O.
//
//	status of a response ─▶ OfStatus ─▶ Cause ─▶ Cause.Status ─▶ status of a response
//	Reason of BYE, CANCEL or a response ─▶ Parse ─▶ Reason ─▶ Reason.Append
//
// RFC 3398 §7.2.4.1 and §8.2.6.1 have the tables, RFC 3326 the header, RFC 6432 lets it stand in responses.
package cause

// Cause is a cause value of ITU-T Q.850, from 1 to 127. 0 is none.
type Cause uint8

// Causes that the code speaks of.
const (
	Unallocated    Cause = 1
	NormalClearing Cause = 16
	UserBusy       Cause = 17
	NoAnswer       Cause = 19
	Rejected       Cause = 21
	Normal         Cause = 31 // unspecified
	NoCircuit      Cause = 34
	OnTimerExpiry  Cause = 102
	Interworking   Cause = 127
)

// status is what a response says of a cause. RFC 3398 §7.2.4.1.
type status struct {
	code int
	name string
}

// statuses are all causes that RFC 3398 maps. 16 has no response: it is a BYE or CANCEL.
var statuses = map[Cause]status{
	1:   {404, "unallocated number"},
	2:   {404, "no route to network"},
	3:   {404, "no route to destination"},
	16:  {0, "normal call clearing"},
	17:  {486, "user busy"},
	18:  {408, "no user responding"},
	19:  {480, "no answer from user"},
	20:  {480, "subscriber absent"},
	21:  {403, "call rejected"},
	22:  {410, "number changed"},
	23:  {410, "redirection to new destination"},
	26:  {404, "non-selected user clearing"},
	27:  {502, "destination out of order"},
	28:  {484, "address incomplete"},
	29:  {501, "facility rejected"},
	31:  {480, "normal, unspecified"},
	34:  {503, "no circuit available"},
	38:  {503, "network out of order"},
	41:  {503, "temporary failure"},
	42:  {503, "switching equipment congestion"},
	47:  {503, "resource unavailable"},
	55:  {403, "incoming calls barred within closed user group"},
	57:  {403, "bearer capability not authorized"},
	58:  {503, "bearer capability not presently available"},
	65:  {488, "bearer capability not implemented"},
	70:  {488, "only restricted digital information available"},
	79:  {501, "service or option not implemented"},
	87:  {403, "user not member of closed user group"},
	88:  {503, "incompatible destination"},
	102: {504, "recovery on timer expiry"},
	111: {500, "protocol error"},
	127: {500, "interworking, unspecified"},
}

// String returns the name of c, or "".
func (c Cause) String() string { return statuses[c].name }

// Status returns the status of a response for c; 500 for a cause that is not in the table. A rejection by the user
// herself is final: no other branch is to be tried. For 16, which ends a call that was answered or given up, it is 487,
// in case there must be a response.
func (c Cause) Status(byUser bool) int {
	if c == Rejected && byUser {
		return 603 // RFC 3398 §7.2.4.1, note (+)
	}
	if c == NormalClearing {
		return 487
	}
	if s, ok := statuses[c]; ok {
		return s.code
	}
	return 500
}

// causes is RFC 3398 §8.2.6.1. What is not there is 31.
var causes = map[int]Cause{
	400: 41, 401: 21, 402: 21, 403: 21, 404: 1, 405: 63, 406: 79, 407: 21, 408: 102, 410: 22, 413: 127, 414: 127, 415: 79,
	416: 127, 420: 127, 421: 127, 423: 127, 480: 18, 481: 41, 482: 25, 483: 25, 484: 28, 485: 1, 486: 17,
	500: 41, 501: 79, 502: 38, 503: 41, 504: 102, 505: 127, 513: 127, 600: 17, 603: 21, 604: 1,
}

// OfStatus returns the cause of a final response. For 487 it is 16: the caller gave up. RFC 3398 leaves that out.
func OfStatus(code int) Cause {
	if code == 487 || code/100 == 2 {
		return NormalClearing
	}
	if c, ok := causes[code]; ok {
		return c
	}
	return Normal
}

// Of returns the cause of a response with what its Reason says, which knows better than the table.
func Of(code int, r Reason) Cause {
	if r.Q850 != 0 {
		return r.Q850
	}
	return OfStatus(code)
}
