/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One HTTP request to the control socket of a daemon, and its answer.
 *
 * A client for one server that we know: HTTP/1.1, one request a connection, an
 * answer with Content-Length or up to the end of the connection. Whatever comes
 * instead is an error; nothing here trusts the other side. Bounded in size and
 * in the time without progress.
 */

#include "base/base.h"
#include "containers/buf.h"

#define CONTROL_HTTP_MAX_HEAD 8192
#define CONTROL_HTTP_MAX_BODY ((size_t)256 << 20)

#define CONTROL_HTTP_E_BROKEN 1 /* what answers speaks no HTTP, or stopped in the middle */

struct WB_VALUE control_request {
	const char *socket_path;
	const char *method;
	const char *target; /* path and query, percent-encoded */
	const char *type;   /* content type; NULL: none */
	const void *body;
	size_t body_n;
	int timeout_ms; /* without progress: each byte that goes or comes begins it anew */
};

struct WB_VALUE control_answer {
	int status;
	struct buf body; /* a NUL follows, not counted */
};

static inline const char *control_answer_text(const struct control_answer *a)
{
	return (const char *)a->body.data;
}

/**
 * control_http_ask() - send a request and wait for the answer
 *
 * Return:  0 | -errno of connect, send or recv: -ENOENT and -ECONNREFUSED nobody is there,
 *          -EACCES not allowed, -ETIMEDOUT no progress, -EMSGSIZE too long an answer,
 *          -ENAMETOOLONG | -ENOMEM | CONTROL_HTTP_E_BROKEN.
 * Owns:    the caller frees ret->body with buf_fini().
 * Thread:  any; blocks.
 */
int control_http_ask(const struct control_request *request, struct control_answer *ret)
	WB_NODISCARD;

/**
 * control_http_encode() - append a text to a query, percent-encoded
 *
 * Return:  0 | -ENOMEM.
 * Source:  RFC 3986 section 2.3.
 */
int control_http_encode(struct buf *out, const char *text) WB_NODISCARD;
