/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * permessage-deflate (RFC 7692): what a client offers, and the two directions of it.
 *
 * Every connection gets server_no_context_takeover and client_no_context_takeover,
 * asked for or not: a message depends on none before it. So a broadcast is deflated
 * once for everyone who negotiated the same window, and an idle connection holds
 * nothing of zlib.
 *
 * Windows: a client may bound the server's with server_max_window_bits, from 8 to
 * 15. The server uses three sizes only, and answers with the largest that the
 * client's bound allows, so a message has three deflated variants at most. A bound of 8
 * is declined: zlib has no raw stream with that window. The client's own window is
 * left to the client: everything up to 15 is read.
 *
 * What comes out of inflating is bounded by the caller's limit while it comes. The
 * work is bounded, too: inflater_run() stops when a budget of bytes is used up and
 * goes on where it was, since a few hundred bytes can inflate to megabytes, and
 * input that is nothing but tables of codes costs forty times what its bytes do
 * otherwise. So does deflating_run().
 *
 * Kept stricter than it might be: a message has to be a whole deflate stream, not
 * the beginning of one. Kept wider: a message may end in a block with BFINAL (RFC
 * 7692 section 7.2.3.4) and go on after it, and no bytes at all are an empty message.
 */

#include "base/base.h"
#include "containers/buf.h"
#include "wire/http.h"

struct z_stream_s;

/* Sizes of the server's window. DEFLATE_NONE is 0: nothing was negotiated. */
enum deflate_window {
	DEFLATE_NONE,
	DEFLATE_512, /* server_max_window_bits 9 to 11 */
	DEFLATE_4K,  /* 12 to 14 */
	DEFLATE_32K, /* 15, or no bound */
	DEFLATE_N_WINDOWS,
};

#define DEFLATE_ANSWER_MAX 160 /* of the response's value, its NUL included [bytes] */

/**
 * deflate_negotiate() - choose among the extensions that a client offers
 * @answer:     value for Sec-WebSocket-Extensions; "" when nothing is accepted
 * @ret:        window to deflate with; DEFLATE_NONE when nothing is accepted
 *
 * The first acceptable offer of permessage-deflate is taken. Declined are offers with
 * an unknown parameter, one that stands twice, or one with a value that it can't have.
 * Other extensions are passed over.
 *
 * Return:  0 | 400: a header line that is no list of extensions.
 * Thread:  any.
 * Source:  RFC 7692 sections 5.1, 7.1; RFC 6455 section 9.1.
 */
WB_ANY_THREAD int deflate_negotiate(const struct http_headers *h, char answer[DEFLATE_ANSWER_MAX],
				    enum deflate_window *ret) WB_NODISCARD;

/* zlib's streams for sending, made on first use. All-zero is valid and empty. */
struct WB_OWNER(user) deflater {
	struct z_stream_s *stream[DEFLATE_N_WINDOWS];
	int level[DEFLATE_N_WINDOWS]; /* that the stream has */
};

void deflater_fini(struct deflater *d);

enum deflate_outcome {
	DEFLATE_E_NOT_SMALLER = 1, /* deflating would not make it smaller */
	DEFLATE_MORE,              /* the budget is used up: go on later */
	INFLATE_MORE,              /* likewise */
	INFLATE_E_CORRUPT,         /* not a deflate stream, or not a whole one */
	INFLATE_E_TOO_BIG,         /* inflates to more than the limit */
};

/**
 * deflater_run() - the payload of a compressed message
 * @window: not DEFLATE_NONE
 * @level:  zlib's, 1 to 9
 * @out:    appended to; on failure its content is as before
 *
 * Return:  0 | DEFLATE_E_NOT_SMALLER | -ENOMEM.
 * Cost:    up to @n bytes more in @out; up to 256 KiB once for each window.
 * Source:  RFC 7692 section 7.2.1.
 */
int deflater_run(struct deflater *d, enum deflate_window window, int level, const void *p, size_t n,
		 struct buf *out) WB_NODISCARD;

/* One message on its way into zlib. All-zero is good for deflating_fini(). */
struct WB_OWNER(user) deflating {
	struct deflater *from; /* lends a stream, and gets it back; the next makes its own */
	enum deflate_window window;
	int level;
	struct z_stream_s *stream;
	struct buf *out;
	size_t start; /* of @out, before the first byte came */
	size_t at;    /* bytes that zlib has taken */
};

/* Begin to deflate as deflater_run() does; @d lives longer than @k, @out until deflating_fini(). */
void deflating_init(struct deflating *k, struct deflater *d, enum deflate_window window, int level,
		    struct buf *out);

/**
 * deflating_run() - deflate a message, or go on with it
 * @p:      the whole message, the same bytes in each call; they may have moved
 * @budget: bytes that may still go in; counted down
 *
 * It ends as soon as it can't get smaller any more.
 *
 * Return:  as deflater_run(), | DEFLATE_MORE; only after that it may be called again.
 * Cost:    as deflater_run(). A call with a budget of 1 takes 8 KiB.
 */
int deflating_run(struct deflating *k, const void *p, size_t n, size_t *budget) WB_NODISCARD;

/* Gives back the stream, in any state; @k is all-zero then. What came out stays in its buffer. */
void deflating_fini(struct deflating *k);

/* One message on its way through zlib; about 40 KiB, and what came out of it. */
struct inflater;

/* Return: ready for a message, or NULL without memory. Owns: the caller. */
struct inflater *inflater_new(void) WB_NODISCARD;

/* NULL is fine. Returns NULL. */
struct inflater *inflater_free(struct inflater *z);

/* Makes it ready for another message. What a large one made grow is given back. */
void inflater_reset(struct inflater *z);

/**
 * inflater_run() - inflate a message, or go on with it
 * @p:      the whole compressed payload, the same bytes in each call for one message
 * @limit:  most bytes that may come out
 * @budget: bytes that may still go in or come out; counted down
 *
 * Return:  0 done, see inflater_output() | INFLATE_MORE | INFLATE_E_CORRUPT |
 *          INFLATE_E_TOO_BIG | -ENOMEM; but for INFLATE_MORE, inflater_reset() comes next.
 * Cost:    memory grows by doubling as bytes come out, up to @limit. A step is
 *          2 KiB in, and out 16 KiB or what is left of the budget.
 * Source:  RFC 7692 section 7.2.2.
 */
int inflater_run(struct inflater *z, const uint8_t *p, size_t n, size_t limit, size_t *budget)
	WB_NODISCARD;

/*
 * Looks at what came out since it did so last: whether it is UTF-8. inflater_is_text() tells
 * whether all of what has been looked at is a whole text.
 */
void inflater_look_at_text(struct inflater *z);
bool inflater_is_text(const struct inflater *z);

/* What came out so far; the caller may change its bytes until the next call for @z. */
struct buf *inflater_output(struct inflater *z);
