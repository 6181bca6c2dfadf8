// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Why a packet went where it went. Each has a counter for each service and crossing; Go reads the names out of the
 * object (Reason in counts.go), so the order here is free. A packet that is passed goes to the host's stack, and with it to
 * the user plane; what is dropped cannot go on in either. */

#pragma once

enum reason {
	FORWARDED,
	FORWARDED_NEW,         /* and made a flow */
	FORWARDED_ERROR,       /* an ICMP error about a flow */
	ANSWERED_TOO_BIG,      /* told the sender with ICMP; so the others */
	ANSWERED_EXPIRED,
	ANSWERED_SOURCE_ROUTE,
	ANSWERED_ROUTING,
	FRAGMENTED,            /* cut; the pieces are counted as they come */
	PASSED_UNKNOWN,        /* no flow and no service: the host's own traffic */
	PASSED_TRUNCATED,      /* ends before its headers do */
	PASSED_MALFORMED,      /* contradicts itself */
	PASSED_EXTENSION,      /* an IPv6 extension header that hides the transport */
	PASSED_USER,           /* the user plane's own flow */
	PASSED_MIDDLE,         /* TCP that belongs to no flow and opens none */
	PASSED_HEARTBEAT,      /* the process is gone: no new flows */
	PASSED_ACCESS,         /* not allowed; the user plane refuses it, and counts it so */
	PASSED_NO_BACKEND,
	PASSED_NO_STAND_IN,    /* the first flow of a prefix: the user plane leases one */
	PASSED_NO_PORT,        /* every source port tried is taken */
	PASSED_FRAGMENT,       /* a fragment whose first is not known */
	PASSED_ECHO,           /* ICMP that is no error */
	PASSED_ERROR,          /* an ICMP error about no flow of ours */
	DROPPED_NO_ROUTE,
	DROPPED_FAILED,        /* a helper refused: no memory, or no room in the packet */
	DROPPED_CHECKSUM,      /* a first fragment of UDP without a checksum, to IPv6. RFC 7915 §4.5 */
	DROPPED_ERROR_TYPE,    /* an ICMP error that the other family has no word for. RFC 7915 §4.2, §5.2 */
	DROPPED_ERROR_SMALL,   /* an MTU that no link has. RFC 8201 §4 */
	DROPPED_UNANSWERED,    /* what would be answered, but too many were in this second, or it is a later fragment. RFC 4443 §2.4 */
	REASONS = 32,
};
