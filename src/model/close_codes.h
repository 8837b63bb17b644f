/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Close codes: what each of them means to the server, to its metrics and to its client.
 *
 * The rows are in close_codes_table.h. A new code is a number here, a row there, and its
 * lines in wsbind-protocol(7). The numbers are macros and no enum so that a log line can
 * have the one that follows in its text: see WS_CODE_TEXT().
 */

#include "base/base.h"

#define WS_CODE_NORMAL 1000
#define WS_CODE_GOING_AWAY 1001
#define WS_CODE_PROTOCOL_ERROR 1002
#define WS_CODE_UNSUPPORTED_DATA 1003
#define WS_CODE_NO_STATUS 1005 /* stands for a close frame without a code; never sent */
#define WS_CODE_ABNORMAL 1006  /* stands for an end without a close frame; never sent */
#define WS_CODE_INVALID_DATA 1007
#define WS_CODE_POLICY 1008
#define WS_CODE_TOO_BIG 1009
#define WS_CODE_INTERNAL_ERROR 1011
#define WS_CODE_SERVICE_RESTART 1012
#define WS_CODE_TRY_AGAIN 1013
#define WS_CODE_HEARTBEAT_TIMEOUT 4001
#define WS_CODE_RESUMED 4002
#define WS_CODE_AUTH_EXPIRED 4003
/* Of a handshake that is refused: this and the status of HTTP; see refuse_by_close. */
#define WS_CODES_REFUSED 4000
#define WS_CODE_REFUSED_REQUEST 4400
#define WS_CODE_REFUSED_TOKEN 4401
#define WS_CODE_REFUSED_DENIED 4403
#define WS_CODE_REFUSED_PATH 4404
#define WS_CODE_REFUSED_ADDRESS 4429
#define WS_CODE_REFUSED_FULL 4503

/* The number of a code as a string literal: "closing with " WS_CODE_TEXT(POLICY) is "… 1008". */
#define WS_CODE_TEXT(name) WS_CODE_TEXT_EXPAND(WS_CODE_##name)
#define WS_CODE_TEXT_EXPAND(number) WS_CODE_TEXT_QUOTE(number)
#define WS_CODE_TEXT_QUOTE(number) #number

/* Whose doing the end of a connection is. */
enum close_by {
	CLOSE_BY_NOBODY,    /* the code stands for something that no close frame says */
	CLOSE_BY_WISH,      /* a client's, or an administrator's */
	CLOSE_BY_CLIENT,    /* a client's alone; the server sends it as an answer */
	CLOSE_BY_VIOLATION, /* the peer broke RFC 6455 or the protocol of wsbind */
	CLOSE_BY_LIMIT,     /* the peer went past what the configuration allows */
	CLOSE_BY_SERVER,    /* the peer did nothing wrong, or nothing at all */
};

/* What a client does that is to stay connected. */
enum close_return {
	CLOSE_RETURN_NOT,     /* it is wanted so, or would end in the same way again */
	CLOSE_RETURN_LATER,   /* with backoff */
	CLOSE_RETURN_AT_ONCE, /* nobody is at fault, and nothing is short */
	CLOSE_RETURN_ANEW,    /* without its resume token, which another connection has used */
	CLOSE_RETURN_FRESH,   /* once, with another token of who it is than this one */
};

struct WB_FROZEN close_code {
	uint16_t code;
	enum close_by by;
	enum close_return client;
	const char *reason; /* "" where each end says its own */
};

/* The row of a code; of one without a row, one that says CLOSE_BY_WISH, later, "". */
WB_ANY_THREAD const struct close_code *close_code_find(uint16_t code);

/* All rows, by number. Return: how many. */
WB_ANY_THREAD size_t close_codes_all(const struct close_code **ret);

/* Whether it stands for the status of a handshake that was refused. */
static inline bool close_code_is_refusal(uint16_t code)
{
	return code >= WS_CODES_REFUSED + 400 && code < WS_CODES_REFUSED + 600;
}

/* Whether the peer is at fault: what it sends from here on, its Close too, is not waited for. */
static inline bool close_code_is_fault(uint16_t code)
{
	enum close_by by = close_code_find(code)->by;

	return by == CLOSE_BY_VIOLATION || by == CLOSE_BY_LIMIT;
}
