/* SPDX-License-Identifier: MIT */
/* What comes in over a connection that is open: frames become messages, pings are answered. */
#include "client/endpoint_private.h"

#include <string.h>

#include "base/text.h"

#define KEEP_BYTES ((size_t)1 << 20) /* a larger buffer is given back after its message */

static void endpoint_take_close(struct endpoint *e)
{
	const char *reason;
	size_t n;
	uint16_t code;
	enum ws_close_result r = ws_parse_close(e->control, e->control_n, &code, &reason, &n);

	/* A Close that is none says nothing that could be reported as the server's reason. */
	if (r != WS_CLOSE_OK) {
		endpoint_violation(e, (uint16_t)r, "bad Close frame");
		return;
	}
	e->end.code = code;
	memcpy(e->end.reason, reason, n);
	e->end.reason[n] = '\0';
	/* RFC 6455 section 5.5.1: the answer has the same code, unless ours was there first. */
	if (e->state == ENDPOINT_OPEN)
		endpoint_queue_control(e, WS_CLOSE, e->control, MIN(e->control_n, 2));
	endpoint_flush(e);
	endpoint_end(e, ENDPOINT_END_CLOSED, 0);
}

static void endpoint_take_control(struct endpoint *e, const struct ws_piece *piece)
{
	/* The decoder refuses control frames over 125 bytes, so that the pieces always fit. */
	if (piece->begins)
		e->control_n = 0;
	memcpy(e->control + e->control_n, piece->data, piece->len);
	e->control_n = (uint8_t)(e->control_n + piece->len);
	if (!piece->ends)
		return;
	switch (piece->opcode) {
	case WS_CLOSE:
		endpoint_take_close(e);
		break;
	case WS_PING:
		if (e->state == ENDPOINT_OPEN)
			endpoint_queue_control(e, WS_PONG, e->control, e->control_n);
		break;
	default:
		if (e->ops->pong)
			e->ops->pong(e, e->control, e->control_n);
		break;
	}
}

static void endpoint_deliver(struct endpoint *e, uint8_t opcode, uint8_t *data, size_t n)
{
	/* Checked whole: a character may be cut by the end of a frame. */
	if (opcode == WS_TEXT && !utf8_valid(data, n))
		endpoint_violation(e, WS_CODE_INVALID_DATA, "text that is not UTF-8");
	else
		e->ops->message(e, opcode, data, n);
}

/* The message that ends here was put together in e->in. */
static void endpoint_deliver_joined(struct endpoint *e)
{
	uint8_t opcode = e->opcode;

	/* Before the call: from within it the owner may end the connection. */
	e->opcode = 0;
	endpoint_deliver(e, opcode, e->in.data, e->in.len);
	if (buf_cap(&e->in) > KEEP_BYTES)
		buf_fini(&e->in);
	else
		buf_clear(&e->in);
}

/* NULL, or what is wrong with a frame that begins here. */
static const char *endpoint_check_begin(const struct endpoint *e, const struct ws_piece *piece)
{
	if (piece->opcode == WS_CONTINUATION && !e->opcode)
		return "continuation of nothing";
	if (piece->opcode != WS_CONTINUATION && e->opcode)
		return "a message within a message";
	return NULL;
}

static void endpoint_take_data(struct endpoint *e, const struct ws_piece *piece)
{
	size_t limit = e->loop->limits.message_bytes;
	const char *wrong = piece->begins ? endpoint_check_begin(e, piece) : NULL;

	if (wrong) {
		endpoint_violation(e, WS_CODE_PROTOCOL_ERROR, wrong);
		return;
	}
	/* By what the frame announces, before a byte of it takes memory. */
	if (piece->begins && (e->in.len > limit || piece->frame_bytes > limit - e->in.len)) {
		endpoint_violation(e, WS_CODE_TOO_BIG, "message is too big");
		return;
	}
	/*
	 * The usual case: a message of one frame that came in one read is handed out where it
	 * lies.
	 */
	if (piece->begins && piece->ends && piece->fin && !e->opcode) {
		endpoint_deliver(e, piece->opcode, piece->data, piece->len);
		return;
	}
	if (piece->begins && !e->opcode)
		e->opcode = piece->opcode;
	if (buf_append(&e->in, piece->data, piece->len, limit) < 0)
		endpoint_violation(e, WS_CODE_TOO_BIG, "out of memory");
	else if (piece->ends && piece->fin)
		endpoint_deliver_joined(e);
}

void endpoint_feed(struct endpoint *e, uint8_t *bytes, size_t n)
{
	for (;;) {
		struct ws_piece piece;
		uint16_t code;
		size_t used;
		enum ws_result r = ws_decoder_feed(e->decoder, bytes, n, &used, &piece, &code);

		if (r == WS_MORE)
			return;
		if (r == WS_BROKEN) {
			endpoint_violation(e, code, "frame that is not valid");
			return;
		}
		bytes += used;
		n -= used;
		/*
		 * Control frames may stand between those of a message, and have a buffer of their
		 * own.
		 */
		if (piece.opcode >= WS_CLOSE)
			endpoint_take_control(e, &piece);
		else
			endpoint_take_data(e, &piece);
		/* What follows a Close, or what the owner gave up, is not looked at. */
		if (e->state == ENDPOINT_ENDED)
			return;
	}
}
