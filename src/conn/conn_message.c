/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "conn/conn_private.h"
#include "wire/frame_variant.h"

#define SMALL_FRAME (64 * 1024) /* one of many, perhaps */

/* --------------------------------------------------------------------- ends with a reason */

void conn_close_violation(struct conn *c, uint16_t code, const char *reason)
{
	char text[160];

	snprintf(text, sizeof(text), "broke the protocol: %s; closing with %u", reason, code);
	conn_log(c, LOG_NOTICE, EV_PROTOCOL_ERROR, NULL, text);
	conn_close(c, code, reason);
}

static void conn_close_too_big(struct conn *c, const char *setting, uint64_t bytes)
{
	char text[160];

	snprintf(text, sizeof(text),
		 "sent %llu bytes, %s is smaller; closing with " WS_CODE_TEXT(TOO_BIG),
		 (unsigned long long)bytes, setting);
	conn_log(c, LOG_NOTICE, EV_LIMIT_EXCEEDED, setting, text);
	conn_close(c, WS_CODE_TOO_BIG, setting);
}

static void conn_close_no_memory(struct conn *c)
{
	conn_close(c, WS_CODE_INTERNAL_ERROR, NULL);
}

/* ------------------------------------------------------------------------- whole messages */

/* The echo of a message, deflated; NULL when it goes as it is. */
static struct frame *conn_new_deflated_echo(struct conn *c, uint8_t opcode, const uint8_t *p,
					    size_t n)
{
	struct conn_env *env = c->env;

	if (!c->deflate_window || !frame_can_deflate(env->maker, n))
		return NULL;
	env->zip_left -= MIN(n, env->zip_left);
	return frame_new_deflated(opcode, p, n, c->deflate_window, env->maker, env->frame_account);
}

static void conn_echo(struct conn *c, uint8_t opcode, const uint8_t *p, size_t n)
{
	struct frame *f = conn_new_deflated_echo(c, opcode, p, n);

	if (f)
		conn_send(c, f);
	else
		conn_send_copy(c, opcode, p, n);
}

/* @p may be the read buffer itself: it is the receiver's until it returns, and no longer. */
static void conn_deliver(struct conn *c, uint8_t opcode, uint8_t *p, size_t n)
{
	METRIC_INC(c->env->metrics, messages_received);
	if (opcode == WS_TEXT)
		METRIC_INC(c->env->metrics, text_messages);
	else
		METRIC_INC(c->env->metrics, binary_messages);
	if (c->is_echo)
		conn_echo(c, opcode, p, n);
	else
		c->env->ops->message(c, opcode, p, n);
}

static bool conn_check_text(struct conn *c, bool is_utf8)
{
	if (!is_utf8)
		conn_close_violation(c, WS_CODE_INVALID_DATA, "text is not UTF-8");
	return is_utf8;
}

/* ----------------------------------------------------------------------- deflated messages */

/* What inflating came to: the message is delivered, or the connection closed for it. */
static void conn_end_inflating(struct conn *c, uint8_t opcode, size_t n, struct inflater *z,
			       int result)
{
	struct buf *out = inflater_output(z);

	METRIC_ADD(c->env->metrics, inflate_in_bytes, n);
	METRIC_ADD(c->env->metrics, inflate_out_bytes, out->len);
	if (result > 0)
		METRIC_INC(c->env->metrics, compression_errors);
	if (result == INFLATE_E_TOO_BIG)
		conn_close_too_big(c, "max_message_size", out->len);
	else if (result == INFLATE_E_CORRUPT)
		conn_close_violation(c, WS_CODE_INVALID_DATA, "compressed message is not valid");
	else if (result)
		conn_close_no_memory(c);
	else if (opcode != WS_TEXT || conn_check_text(c, utf8_valid(out->data, out->len)))
		conn_deliver(c, opcode, out->data, out->len);
}

/* One budget of inflating; false when more is to come, and @z is then the connection's. */
static bool conn_inflate_some(struct conn *c, uint8_t opcode, const uint8_t *p, size_t n,
			      struct inflater *z)
{
	struct conn_env *env = c->env;
	int r = inflater_run(z, p, n, env->config->max_message_size, &env->zip_left);

	if (r == INFLATE_MORE)
		return false;
	/* The message lies in the inflater: that goes back once the message was delivered. */
	conn_end_inflating(c, opcode, n, z, r);
	conn_give_inflater(env, z);
	return true;
}

/* The message that was put together has been dealt with. */
static void conn_end_message(struct conn *c, struct conn_input *in)
{
	if (c->input != in)
		return; /* it is closed, and all that was held is gone */
	buf_fini(&in->message);
	in->opcode = 0;
	in->utf8 = UTF8_ACCEPT;
	in->started_ns = 0;
}

/* The rest has to wait for the next turn. */
static void conn_inflate_later(struct conn *c, struct inflater *z)
{
	c->input->inflater = z;
	conn_want_read(c);
}

void conn_inflate(struct conn *c)
{
	struct conn_input *in = c->input;
	/* It is in our hands: a close meanwhile must not give it back under us. */
	struct inflater *z = TAKE_PTR(in->inflater);

	if (c->state != CONN_OPEN)
		conn_give_inflater(c->env, z);
	else if (conn_inflate_some(c, in->opcode, in->message.data, in->message.len, z))
		conn_end_message(c, in);
	else
		conn_inflate_later(c, z);
}

void conn_restart_inflating(struct conn *c)
{
	struct inflater *z = conn_take_inflater(c->env);

	if (z)
		conn_inflate_later(c, z);
	else
		conn_close_no_memory(c);
}

/* A deflated message that lies in one piece in the read buffer. */
static void conn_inflate_whole(struct conn *c, const struct ws_piece *w)
{
	struct inflater *z = conn_take_inflater(c->env);
	struct conn_input *in;

	if (z && conn_inflate_some(c, w->opcode, w->data, w->len, z))
		return;
	/* It goes on next turn, when the read buffer has other bytes: those are kept here. */
	in = z ? conn_input_of(c) : NULL;
	if (!in || buf_append(&in->message, w->data, w->len, BUF_NO_LIMIT)) {
		inflater_free(z);
		conn_close_no_memory(c);
		return;
	}
	in->opcode = w->opcode;
	in->is_deflated = true;
	conn_inflate_later(c, z);
}

/* A deflated message that was put together. */
static void conn_inflate_parts(struct conn *c, struct conn_input *in)
{
	in->inflater = conn_take_inflater(c->env);
	if (in->inflater)
		conn_inflate(c);
	else
		conn_close_no_memory(c);
}

/* ------------------------------------------------------------------------ putting together */

/* A message that lies in one piece in the read buffer: nothing is copied. */
static void conn_take_whole(struct conn *c, const struct ws_piece *w)
{
	if (c->input)
		c->input->started_ns = 0; /* its head had come alone */
	if (w->rsv & WS_RSV1)
		conn_inflate_whole(c, w);
	else if (w->opcode != WS_TEXT || conn_check_text(c, utf8_valid(w->data, w->len)))
		conn_deliver(c, w->opcode, w->data, w->len);
}

/*
 * How large the buffer may get for the next @n bytes. What a head announces costs nothing to
 * announce: memory follows what really comes, with a quarter to spare where doubling would be a
 * lot that has not arrived, and not past the end of a large frame.
 */
static size_t input_room(const struct conn_input *in, size_t n)
{
	size_t len = in->message.len;

	return MIN(in->grow_to, len + MAX(n, (size_t)SMALL_FRAME) + len / 4);
}

/* The payload of @w behind what there is; NULL without memory. */
static struct conn_input *conn_append_part(struct conn *c, const struct ws_piece *w)
{
	struct conn_input *in = conn_input_of(c);

	if (!in)
		return NULL;
	if (!in->grow_to)
		in->grow_to = w->frame_bytes < SMALL_FRAME
				      ? BUF_NO_LIMIT
				      : in->message.len + (size_t)w->frame_bytes;
	if (buf_append(&in->message, w->data, w->len, input_room(in, w->len)))
		return NULL;
	if (w->ends)
		in->grow_to = 0;
	return in;
}

/* A text that is not UTF-8 is refused at the byte that is wrong, not at its end. */
static bool conn_check_text_part(struct conn *c, struct conn_input *in, const struct ws_piece *w)
{
	/* What is deflated can be judged once it is inflated. */
	if (in->opcode != WS_TEXT || in->is_deflated)
		return true;
	in->utf8 = utf8_feed(in->utf8, w->data, w->len);
	if (w->ends && w->fin)
		return conn_check_text(c, in->utf8 == UTF8_ACCEPT);
	return conn_check_text(c, in->utf8 != UTF8_REJECT);
}

static void conn_take_part(struct conn *c, const struct ws_piece *w)
{
	struct conn_input *in = conn_append_part(c, w);

	if (!in) {
		conn_close_no_memory(c);
		return;
	}
	if (w->opcode != WS_CONTINUATION) {
		in->opcode = w->opcode;
		in->is_deflated = w->rsv & WS_RSV1;
	}
	if (!conn_check_text_part(c, in, w) || !w->ends || !w->fin)
		return;
	if (in->is_deflated) {
		conn_inflate_parts(c, in);
		return;
	}
	conn_deliver(c, in->opcode, in->message.data, in->message.len);
	conn_end_message(c, in);
}

static void conn_take_data(struct conn *c, const struct ws_piece *w)
{
	bool is_inside = c->input && c->input->opcode;

	if (w->len == 0 && !w->ends)
		return; /* only the head is here */
	if (!is_inside && w->ends && w->fin && w->len == w->frame_bytes)
		conn_take_whole(c, w);
	else
		conn_take_part(c, w);
}

/* -------------------------------------------------------------------------- control frames */

static void conn_take_close(struct conn *c, const uint8_t *p, size_t n)
{
	enum ws_close_result r;
	const char *reason;
	uint16_t code;
	size_t len;

	/* Nothing may come behind a Close (RFC 6455 section 5.5.1). */
	c->got_close = true;
	c->is_deaf = true;
	if (c->state == CONN_CLOSING) {
		conn_want_write(c); /* perhaps this was all it waited for */
		return;
	}
	r = ws_parse_close(p, n, &code, &reason, &len);
	if (r != WS_CLOSE_OK) {
		conn_close_violation(c, (uint16_t)r, "close frame is not valid");
		return;
	}
	conn_close(c, code, "");
}

/* A control frame, put together where it came in parts. */
static void conn_take_control(struct conn *c, const struct ws_piece *w)
{
	const uint8_t *p = w->data;
	size_t n = w->len;

	if (w->len < w->frame_bytes) {
		struct conn_input *in = conn_input_of(c);

		if (!in) {
			conn_abort(c);
			return;
		}
		/* The decoder has refused one that is longer than 125 bytes. */
		memcpy(in->control + in->control_len, w->data, w->len);
		in->control_len = (uint8_t)(in->control_len + w->len);
		if (!w->ends)
			return;
		p = in->control;
		n = in->control_len;
		in->control_len = 0;
	}
	if (!w->ends)
		return;
	if (c->input && !c->input->opcode)
		c->input->started_ns = 0; /* the control frame was all that was incomplete */
	if (w->opcode == WS_CLOSE)
		conn_take_close(c, p, n);
	else if (w->opcode == WS_PING && c->state == CONN_OPEN)
		conn_send_control(c, WS_PONG, p, n);
}

/* ---------------------------------------------------------------------------------- frames */

/* Whether a frame of this kind may come now: fragments of one message, and of no other. */
static bool conn_check_order(struct conn *c, const struct ws_piece *w)
{
	bool is_inside = c->input && c->input->opcode;

	if ((w->opcode == WS_CONTINUATION) == is_inside)
		return true;
	conn_close_violation(c, WS_CODE_PROTOCOL_ERROR,
			     is_inside ? "message inside a message" : "continuation of nothing");
	return false;
}

/* Judges a data frame by its head; false when the connection was closed for it. */
static bool conn_check_data_frame(struct conn *c, const struct ws_piece *w)
{
	const struct config *config = c->env->config;
	size_t so_far = c->input ? c->input->message.len : 0;

	/* Sizes are known from the head: not a byte of what is too long is kept. */
	if (!conn_check_order(c, w))
		return false;
	if (w->frame_bytes > config->max_frame_size) {
		conn_close_too_big(c, "max_frame_size", w->frame_bytes);
		return false;
	}
	if (w->frame_bytes + so_far > config->max_message_size) {
		conn_close_too_big(c, "max_message_size", w->frame_bytes + so_far);
		return false;
	}
	if (w->opcode == WS_TEXT && !c->is_echo && config->text_messages == TEXT_REJECT) {
		METRIC_INC(c->env->metrics, text_messages);
		conn_log(c, LOG_NOTICE, EV_LIMIT_EXCEEDED, "text_messages",
			 "sent a text message, text_messages is reject; "
			 "closing with " WS_CODE_TEXT(UNSUPPORTED_DATA));
		conn_close(c, WS_CODE_UNSUPPORTED_DATA, "text messages are not accepted");
		return false;
	}
	return true;
}

void conn_take_piece(struct conn *c, const struct ws_piece *w)
{
	bool is_control = w->opcode >= WS_CLOSE;

	turn_charge(&c->env->turn, TURN_FRAME + w->len);
	if (w->begins) {
		c->rate_frames++;
		METRIC_INC(c->env->metrics, frames_received);
		if (c->state == CONN_OPEN && !is_control && !conn_check_data_frame(c, w))
			return;
	}
	/* A sign of life is a frame, not a byte: who sends a byte an hour completes none. */
	if (w->ends)
		c->last_sign_ns = c->env->reactor->now_ns;
	/* One that is closing delivers nothing more; only the peer's Close is waited for. */
	if (is_control)
		conn_take_control(c, w);
	else if (c->state == CONN_OPEN)
		conn_take_data(c, w);
}
