/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The opening handshake of WebSocket (RFC 6455 section 4), both sides of it. Bytes
 * in, decisions out: nothing here allocates or touches a socket.
 *
 * The server's verdict on a request is the first that applies: 400 for what the
 * parser refuses, 405 not GET, 400 a body or a header that may stand only once,
 * 426 no upgrade wanted, 400 Connection doesn't name it, 426 another version, 400 a
 * key that isn't 16 bytes, 404 no channel can have that name. An HTTP/1.0 request
 * cannot upgrade whatever it says (RFC 9110 section 7.8) and gets the 426 of a
 * plain GET. Upgrade and Connection are lists and may be spread over several lines.
 *
 * Of the subprotocols that are offered, `bearer` or else `wsbind` is selected, whether anybody
 * asks for the token that stands behind `bearer` or not: a browser that has offered some and
 * is answered with none fails the connection. `resume.TOKEN` is never selected.
 *
 * Origins, tokens and limits are the server's own business: what they need is in
 * struct upgrade, and upgrade_format_refusal() writes the answer.
 *
 * Every upgrade_format_*() puts a NUL behind its text; the size given to it has to
 * have room for that, while the length that it returns doesn't count it.
 */

#include "base/base.h"
#include "wire/http.h"
#include "wire/msg.h"

#define UPGRADE_KEY_TEXT 25     /* Sec-WebSocket-Key as text, with its NUL */
#define UPGRADE_ACCEPT_TEXT 29  /* Sec-WebSocket-Accept as text, with its NUL */
#define UPGRADE_MAX_REFUSAL 512 /* no refusal is longer, its NUL included [bytes] */

/* A request that may be upgraded. Slices point into the bytes that were parsed. */
struct WB_VALUE upgrade {
	char channel[MSG_CHANNEL_MAX + 1]; /* decoded, with a NUL; "" = the lobby */
	size_t channel_len;
	char accept[UPGRADE_ACCEPT_TEXT];
	struct http_text query;
	struct http_text host;       /* authority of the request */
	struct http_text origin;     /* p is NULL when there is none: not a browser */
	struct http_text extensions; /* first line offered; all of them: http_list_next() */
	const char *why;             /* where it is refused: what for, a static text */
	struct http_text selected;   /* subprotocol to answer with; n = 0: none */
	struct http_text bearer;     /* what stood behind "bearer" among them; p NULL: it didn't */
	struct http_text resume;     /* of "resume.TOKEN" among them; p NULL: there was none */
};

/**
 * upgrade_prepare() - load what every handshake needs
 *
 * The first digest has the library set itself up, some 2 MiB of it: better before the first
 * client than with it. And where SHA-1 is not to be had, no handshake can succeed.
 *
 * Return:  0 | -ENOTSUP no SHA-1 here.
 * Thread:  main, before the workers start.
 */
int upgrade_prepare(void) WB_NODISCARD;

/**
 * upgrade_check() - decide whether a request opens a WebSocket connection
 * @req:    what http_parse_request() returned 0 for
 * @ret:    filled on 0, its slices live as long as those of @req; where a status is returned
 *          @ret->why alone, and after 404 what upgrade_format_ok() needs
 *
 * Return:  0 | the status to answer: 400, 404, 405, 426; 503 when SHA-1 is not to be had.
 * Thread:  any.
 * Source:  RFC 6455 sections 4.2.1, 4.2.2, 4.4.
 */
WB_ANY_THREAD int upgrade_check(const struct http_request *req, struct upgrade *ret) WB_NODISCARD;

/**
 * upgrade_format_ok() - the 101 response
 * @extension:  value of Sec-WebSocket-Extensions, or NULL for none
 *
 * Return:  its length, or 0 when it doesn't fit @cap.
 * Thread:  any.
 */
WB_ANY_THREAD size_t upgrade_format_ok(char *out, size_t cap, const struct upgrade *u,
				       const char *extension);

/**
 * upgrade_format_refusal() - a complete response that refuses a handshake
 * @status:         400 403 404 405 426 429 431 503 505; another one is formatted without advice
 * @retry_after_s:  for 429 and 503; 0 = say nothing
 *
 * With the headers that the status demands (Allow, Upgrade and Sec-WebSocket-Version,
 * Retry-After), Connection: close and one line of text. The client learns no more
 * than the status.
 *
 * Return:  its length, less than UPGRADE_MAX_REFUSAL; 0 when it doesn't fit @cap.
 * Thread:  any.
 */
WB_ANY_THREAD size_t upgrade_format_refusal(char *out, size_t cap, int status,
					    unsigned retry_after_s);

/* The one line of text that goes with a status. */
WB_ANY_THREAD const char *upgrade_refusal_text(int status);

/**
 * upgrade_format_request() - the client's request
 * @host:           value of Host, as RFC 9110 section 7.2 has it
 * @path:           begins with "/"; may have a query
 * @key:            from upgrade_format_key()
 * @extra_headers:  whole lines, each with its CRLF (Authorization, Origin); or NULL. May not
 *                  offer extensions or subprotocols: upgrade_check_response() takes none
 *
 * Return:  its length, or 0 when it doesn't fit @cap, or when @host or @path has anything
 *          but visible ASCII.
 * Thread:  any.
 */
WB_ANY_THREAD size_t upgrade_format_request(char *out, size_t cap, const char *host,
					    const char *path, const char key[UPGRADE_KEY_TEXT],
					    const char *extra_headers);

/* @random as the text of Sec-WebSocket-Key. */
WB_ANY_THREAD void upgrade_format_key(char out[UPGRADE_KEY_TEXT], const uint8_t random[16]);

/* What becomes of a client's handshake; besides 0 and HTTP_MORE. */
enum upgrade_outcome {
	UPGRADE_E_REFUSED = 2, /* a proper response, but not 101: see the status */
	UPGRADE_E_BROKEN,      /* no HTTP, or a 101 that doesn't fit the request */
};

/**
 * upgrade_check_response() - read the server's answer
 * @p:              all bytes received so far
 * @key:            the key that was sent
 * @ret_head_bytes: on 0: where the first frame begins
 * @ret_status:     the status, also with UPGRADE_E_REFUSED
 *
 * Other 1xx responses before the final one are passed over.
 *
 * Return:  0 | HTTP_MORE | UPGRADE_E_REFUSED | UPGRADE_E_BROKEN.
 * Thread:  any.
 * Source:  RFC 6455 section 4.1, the client's requirements on the response.
 */
WB_ANY_THREAD int upgrade_check_response(const char *p, size_t n, const char key[UPGRADE_KEY_TEXT],
					 size_t *ret_head_bytes, int *ret_status) WB_NODISCARD;
