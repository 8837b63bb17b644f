/* SPDX-License-Identifier: MIT */
/* What comes in over a connection that is open: frames become messages, pings are answered. */
#include "client/peer_private.h"

#include <string.h>

#include "base/text.h"

#define KEEP_BYTES ((size_t)1 << 20) /* a larger buffer is given back after its message */

static void peer_take_close(struct peer *p)
{
	const char *reason;
	size_t n;
	uint16_t code;
	enum ws_close_result r = ws_parse_close(p->control, p->control_n, &code, &reason, &n);

	if (r != WS_CLOSE_OK) {
		peer_violation(p, (uint16_t)r, "bad Close frame");
		return;
	}
	p->end.code = code;
	memcpy(p->end.reason, reason, n);
	p->end.reason[n] = '\0';
	if (p->state == PEER_OPEN)
		peer_queue_control(p, WS_CLOSE, p->control, MIN(p->control_n, 2));
	peer_flush(p);
	peer_end(p, PEER_END_CLOSED, 0);
}

static void peer_take_control(struct peer *p, const struct ws_piece *piece)
{
	if (piece->begins)
		p->control_n = 0;
	memcpy(p->control + p->control_n, piece->data, piece->len);
	p->control_n = (uint8_t)(p->control_n + piece->len);
	if (!piece->ends)
		return;
	switch (piece->opcode) {
	case WS_CLOSE:
		peer_take_close(p);
		break;
	case WS_PING:
		if (p->state == PEER_OPEN)
			peer_queue_control(p, WS_PONG, p->control, p->control_n);
		break;
	default:
		if (p->ops->pong)
			p->ops->pong(p, p->control, p->control_n);
		break;
	}
}

static void peer_deliver(struct peer *p, uint8_t opcode, uint8_t *data, size_t n)
{
	if (opcode == WS_TEXT && !utf8_valid(data, n))
		peer_violation(p, WS_CODE_INVALID_DATA, "text that is not UTF-8");
	else
		p->ops->message(p, opcode, data, n);
}

/* The message that ends here was put together in p->in. */
static void peer_deliver_joined(struct peer *p)
{
	uint8_t opcode = p->opcode;

	p->opcode = 0;
	peer_deliver(p, opcode, p->in.data, p->in.len);
	if (buf_cap(&p->in) > KEEP_BYTES)
		buf_fini(&p->in);
	else
		buf_clear(&p->in);
}

/* NULL, or what is wrong with a frame that begins here. */
static const char *peer_check_begin(const struct peer *p, const struct ws_piece *piece)
{
	if (piece->opcode == WS_CONTINUATION && !p->opcode)
		return "continuation of nothing";
	if (piece->opcode != WS_CONTINUATION && p->opcode)
		return "a message within a message";
	return NULL;
}

static void peer_take_data(struct peer *p, const struct ws_piece *piece)
{
	size_t limit = p->loop->limits.message_bytes;
	const char *wrong = piece->begins ? peer_check_begin(p, piece) : NULL;

	if (wrong) {
		peer_violation(p, WS_CODE_PROTOCOL_ERROR, wrong);
		return;
	}
	if (piece->begins && (p->in.len > limit || piece->frame_bytes > limit - p->in.len)) {
		peer_violation(p, WS_CODE_TOO_BIG, "message is too big");
		return;
	}
	if (piece->begins && piece->ends && piece->fin && !p->opcode) {
		peer_deliver(p, piece->opcode, piece->data, piece->len);
		return;
	}
	if (piece->begins && !p->opcode)
		p->opcode = piece->opcode;
	if (buf_append(&p->in, piece->data, piece->len, limit) < 0)
		peer_violation(p, WS_CODE_TOO_BIG, "out of memory");
	else if (piece->ends && piece->fin)
		peer_deliver_joined(p);
}

void peer_feed(struct peer *p, uint8_t *bytes, size_t n)
{
	for (;;) {
		struct ws_piece piece;
		uint16_t code;
		size_t used;
		enum ws_result r = ws_decoder_feed(p->decoder, bytes, n, &used, &piece, &code);

		if (r == WS_MORE)
			return;
		if (r == WS_BROKEN) {
			peer_violation(p, code, "frame that is not valid");
			return;
		}
		bytes += used;
		n -= used;
		if (piece.opcode >= WS_CLOSE)
			peer_take_control(p, &piece);
		else
			peer_take_data(p, &piece);
		if (p->state == PEER_ENDED)
			return;
	}
}
