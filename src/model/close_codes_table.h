/* SPDX-License-Identifier: MIT */
/*
 * Every code that a connection may end with: one row each (RFC 6455 section 7.4.1, IANA's
 * registry, and wsbind's own from 4000 up), included wherever rows are needed, so no
 * #pragma once.
 *
 *   CLOSE_CODE(name, counter, by, client, reason)
 *     name     of the number: WS_CODE_name of close_codes.h
 *     counter  its row of websocket_closes_total, whose name a hand-over carries
 *     by       whose doing the end is: enum close_by
 *     client   what a client does that is to stay connected: enum close_return
 *     reason   what the server says where the caller has nothing better
 *
 *   CLOSE_CODE_UNCOUNTED(name, by, client, reason)   counts as "other", like one without a row
 *
 * wsbind-protocol(7) describes those that the server sends of itself: tests/lint/protocol.sh.
 */
#ifndef CLOSE_CODE
#define CLOSE_CODE(name, counter, by, client, reason)
#endif
#ifndef CLOSE_CODE_UNCOUNTED
#define CLOSE_CODE_UNCOUNTED(name, by, client, reason) CLOSE_CODE(name, closed_other, by, client, reason)
#endif

/* clang-format off */
CLOSE_CODE(NORMAL,            closed_1000,     WISH,      NOT,     "")
CLOSE_CODE(GOING_AWAY,        closed_1001,     CLIENT,    LATER,   "")
CLOSE_CODE(PROTOCOL_ERROR,    closed_1002,     VIOLATION, NOT,     "")
CLOSE_CODE(UNSUPPORTED_DATA,  closed_1003,     LIMIT,     NOT,     "")
CLOSE_CODE_UNCOUNTED(NO_STATUS,                NOBODY,    LATER,   "")
CLOSE_CODE(ABNORMAL,          closed_abnormal, NOBODY,    LATER,   "")
CLOSE_CODE(INVALID_DATA,      closed_1007,     VIOLATION, NOT,     "")
CLOSE_CODE(POLICY,            closed_1008,     LIMIT,     NOT,     "")
CLOSE_CODE(TOO_BIG,           closed_1009,     LIMIT,     NOT,     "")
CLOSE_CODE(INTERNAL_ERROR,    closed_1011,     SERVER,    LATER,   "out of memory")
CLOSE_CODE(SERVICE_RESTART,   closed_1012,     SERVER,    LATER,   "server is stopping")
CLOSE_CODE(TRY_AGAIN,         closed_1013,     LIMIT,     LATER,   "slow consumer")
CLOSE_CODE(HEARTBEAT_TIMEOUT, closed_4001,     SERVER,    AT_ONCE, "heartbeat timeout")
CLOSE_CODE(RESUMED,           closed_4002,     SERVER,    ANEW,    "resumed by another connection")
CLOSE_CODE(AUTH_EXPIRED,      closed_4003,     SERVER,    FRESH,   "authorization has expired")
CLOSE_CODE_UNCOUNTED(REFUSED_REQUEST,          SERVER,    NOT,     "The request is not valid.")
CLOSE_CODE_UNCOUNTED(REFUSED_TOKEN,            SERVER,    FRESH,   "This token is not valid.")
CLOSE_CODE_UNCOUNTED(REFUSED_DENIED,           SERVER,    NOT,     "This connection is not allowed.")
CLOSE_CODE_UNCOUNTED(REFUSED_PATH,             SERVER,    NOT,     "There is no such channel.")
CLOSE_CODE_UNCOUNTED(REFUSED_ADDRESS,          SERVER,    LATER,   "There are too many connections from this address.")
CLOSE_CODE_UNCOUNTED(REFUSED_FULL,             SERVER,    LATER,   "No more connections are possible now.")
/* clang-format on */

#undef CLOSE_CODE
#undef CLOSE_CODE_UNCOUNTED
