/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The head of an HTTP/1.1 message (RFC 9112), read strictly and within bounds.
 *
 * The parser keeps no state: the caller collects bytes and calls again with all
 * it has. What is returned are slices into those bytes; nothing is copied and
 * nothing is allocated. A head is bounded, so reading it anew with each arrival
 * costs microseconds even when it comes byte by byte; whatever can no longer
 * become a request (a TLS ClientHello, a control character, a folded line) is
 * refused at that byte and not when the head is complete.
 *
 * Where RFC 9112 leaves a choice, the stricter one is taken: a bare LF or CR, a
 * folded line, white space before the colon are all 400. One empty line before
 * the request line is skipped, as section 2.2 asks. Bodies are not read at all:
 * http_has_body() tells whether one would follow.
 *
 * Lists (Connection, Upgrade, Sec-WebSocket-Extensions, …) may be spread over
 * several header lines, which mean the same as one line with commas:
 * http_list_next() walks the elements of all of them.
 */

#include "base/base.h"

#define HTTP_MAX_HEAD 8192 /* default limit of a head [bytes], its last empty line included */
#define HTTP_MAX_HEADERS 64

#define HTTP_MORE 1 /* not complete yet: call again with more bytes */

/* Text inside the caller's bytes, not terminated. p is NULL where there is none. */
struct WB_VALUE http_text {
	const char *p;
	size_t n;
};

struct WB_VALUE http_header {
	struct http_text name;
	struct http_text value; /* white space around it removed */
};

struct WB_VALUE http_headers {
	unsigned count;
	struct http_header at[HTTP_MAX_HEADERS];
};

struct WB_VALUE http_request {
	struct http_text method;    /* case matters: "get" is not GET */
	struct http_text target;    /* as it came */
	struct http_text path;      /* begins with "/"; "*" for OPTIONS *; none for CONNECT */
	struct http_text query;     /* after "?"; p is NULL when there is none */
	struct http_text authority; /* of an absolute target, else the Host header */
	uint8_t version_minor;      /* HTTP/1.x */
	const char *why;            /* where it is refused: what for, a static text */
	struct http_headers headers;
};

struct WB_VALUE http_response {
	int status; /* [100, 999] */
	uint8_t version_minor;
	struct http_headers headers;
};

/* Where http_list_next() stands. All-zero = before the first element. */
struct WB_VALUE http_list {
	unsigned line; /* number of the header */
	size_t offset; /* into its value */
};

/**
 * http_parse_request() - read a request head
 * @p:              all bytes of the connection so far
 * @limit:          what a head may have [bytes]; at most HTTP_MAX_HEADERS lines beside
 * @ret:            slices into @p, filled on 0; @ret->why alone where a status is returned
 * @ret_head_bytes: length of the head on 0; what follows is the next protocol's
 *
 * Host must be there once for HTTP/1.1 and at most once for HTTP/1.0, and must be
 * an authority. Targets: origin-form, absolute-form (http, https, ws, wss), "*"
 * with OPTIONS, authority-form with CONNECT; visible ASCII without "#".
 *
 * Return:  0 | HTTP_MORE | the status to answer: 400 malformed, 431 past @limit or
 *          HTTP_MAX_HEADERS, 505 another major version (an HTTP/2 preface too).
 * Thread:  any.
 * Cost:    O(@n), no allocation.
 * Source:  RFC 9112 sections 2, 3, 5; RFC 9110 sections 5.5, 7.2.
 */
WB_ANY_THREAD int http_parse_request(const char *p, size_t n, size_t limit,
				     struct http_request *ret, size_t *ret_head_bytes) WB_NODISCARD;

/**
 * http_parse_response() - read a response head, with the same strictness
 *
 * Return:  0 | HTTP_MORE | 400 malformed | 431 past a limit | 505 another major version.
 * Thread:  any.
 * Source:  RFC 9112 section 4.
 */
WB_ANY_THREAD int http_parse_response(const char *p, size_t n, size_t limit,
				      struct http_response *ret, size_t *ret_head_bytes)
	WB_NODISCARD;

/* Whether @text is exactly @word; http_text_is_nocase() takes ASCII letters of any case. */
WB_ANY_THREAD bool http_text_is(struct http_text text, const char *word);
WB_ANY_THREAD bool http_text_is_nocase(struct http_text text, const char *word);

/* Whether @text is a token (RFC 9110 section 5.6.2): not empty, no separators in it. */
WB_ANY_THREAD bool http_text_is_token(struct http_text text);

/* @text without the white space around it. */
WB_ANY_THREAD struct http_text http_trim(struct http_text text);

/* Cuts @text at the first @c: @ret_before gets what is before it, @text keeps what is behind.
 * Return: false when there is no @c; nothing is changed then. */
WB_ANY_THREAD bool http_cut(struct http_text *text, char c, struct http_text *ret_before);

/* The first header called @name (any case), or NULL. */
WB_ANY_THREAD const struct http_header *http_headers_find(const struct http_headers *h,
							  const char *name);

/* The same of a request. */
static inline const struct http_header *http_find(const struct http_request *req, const char *name)
{
	return http_headers_find(&req->headers, name);
}

/* How many header lines are called @name. */
WB_ANY_THREAD unsigned http_count(const struct http_headers *h, const char *name);

/**
 * http_list_next() - the next element of a list header, over all its lines
 * @pos:    all-zero at first; moved on by each call
 * @ret:    the element, white space around it removed; commas inside quoted strings
 *          belong to it; empty elements are passed over
 *
 * Return:  false when there are no more; @ret is then untouched.
 * Thread:  any.
 * Source:  RFC 9110 section 5.6.1.
 */
WB_ANY_THREAD bool http_list_next(const struct http_headers *h, const char *name,
				  struct http_list *pos, struct http_text *ret);

/* Whether the list @name has the element @token (any case). */
WB_ANY_THREAD bool http_headers_have_token(const struct http_headers *h, const char *name,
					   const char *token);

static inline bool http_has_token(const struct http_request *req, const char *name,
				  const char *token)
{
	return http_headers_have_token(&req->headers, name, token);
}

/* Whether a body follows, or might: Transfer-Encoding, or a Content-Length that isn't 0. */
WB_ANY_THREAD bool http_has_body(const struct http_request *req);

/* "Not Found" for 404; "Unknown" for a status that wsbind doesn't send. */
WB_ANY_THREAD const char *http_status_text(int status);

/**
 * http_format_response() - a complete response that ends the connection
 * @out:            gets a NUL behind it, which @cap has to have room for
 * @extra_headers:  whole lines, each with its CRLF; or NULL
 * @body:           text/plain; or NULL for none
 *
 * Connection: close and Content-Length are added.
 *
 * Return:  its length, or 0 when it doesn't fit @cap.
 * Thread:  any.
 */
WB_ANY_THREAD size_t http_format_response(char *out, size_t cap, int status,
					  const char *extra_headers, const char *body);
