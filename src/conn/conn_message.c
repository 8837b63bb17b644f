/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "conn/conn_private.h"
#include "wire/frame_variant.h"

#define SMALL_FRAME (64 * 1024)  /* one of many, perhaps */
#define WORK_STEP ((size_t)4096) /* bytes into and out of zlib between two looks at the clock */

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
		 "sent %" PRIu64 " bytes, %s is smaller; closing with " WS_CODE_TEXT(TOO_BIG),
		 bytes, setting);
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
	conn_charge_work(env, n);
	return frame_new_deflated(opcode, p, n, c->deflate_window, env->maker, env->frame_account);
}

static void conn_count_message(struct conn *c, uint8_t opcode)
{
	c->messages_in++;
	METRIC_INC(c->env->metrics, messages_received);
	if (opcode == WS_TEXT)
		METRIC_INC(c->env->metrics, text_messages);
	else
		METRIC_INC(c->env->metrics, binary_messages);
}

static void conn_echo(struct conn *c, uint8_t opcode, const uint8_t *p, size_t n)
{
	struct frame *f = conn_new_deflated_echo(c, opcode, p, n);

	conn_count_message(c, opcode);
	if (f)
		conn_send(c, f);
	else
		conn_send_copy(c, opcode, p, n);
}

/*
 * @p may be the read buffer itself: it is the receiver's until it returns, and no longer. False:
 * the message is for conn_deliver_on() from here on.
 */
static bool conn_deliver(struct conn *c, uint8_t opcode, uint8_t *p, size_t n)
{
	if (c->is_echo) {
		conn_echo(c, opcode, p, n);
		return true;
	}
	conn_count_message(c, opcode);
	return c->env->ops->message(c, opcode, p, n);
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
	in->is_inflated = in->is_under_work = false;
	c->pauses &= (uint8_t)~CONN_PAUSE_WORK;
}

/* The rest has to wait for the next turn. */
static void conn_work_later(struct conn *c)
{
	conn_pause(c, CONN_PAUSE_WORK);
	conn_want_read(c);
}

/* A message whose bytes will be others soon is kept, since it isn't done with. */
static struct conn_input *conn_keep_message(struct conn *c, uint8_t opcode, const uint8_t *p,
					    size_t n)
{
	struct conn_input *in = conn_input_of(c);

	if (!in || buf_append(&in->message, p, n, BUF_NO_LIMIT)) {
		conn_close_no_memory(c);
		return NULL;
	}
	in->opcode = opcode;
	return in;
}

/* It lies whole in @in, and is not done with. */
static void conn_begin_work(struct conn *c, struct conn_input *in)
{
	in->is_under_work = true;
	conn_work_later(c);
}

/* One share of work on a message that ops->message() has left to it. */
static void conn_deliver_on(struct conn *c, struct conn_input *in)
{
	/* All of it is in our hands: a close meanwhile must not free it under us. */
	struct inflater *z = TAKE_PTR(in->inflater);
	struct conn_work *w = TAKE_PTR(in->work);
	struct buf message = in->message;
	struct buf *from = z ? inflater_output(z) : &message;
	bool is_done = true;

	in->message = (struct buf){0};
	if (c->state == CONN_OPEN)
		is_done = c->env->ops->work(c, &w, in->opcode, from->data, from->len);
	if (!is_done && c->input == in) {
		in->message = message;
		in->inflater = z;
		in->work = w;
		conn_work_later(c);
		return;
	}
	if (w)
		c->env->ops->free_work(c->env, w);
	buf_fini(&message);
	if (z)
		conn_give_inflater(c->env, z);
	conn_end_message(c, in);
}

static bool conn_check_text(struct conn *c, bool is_utf8)
{
	if (!is_utf8)
		conn_close_violation(c, WS_CODE_INVALID_DATA, "text is not UTF-8");
	return is_utf8;
}

/* ----------------------------------------------------------------------- deflated messages */

/* What inflating came to. False: the message was delivered, and isn't done with. */
static bool conn_end_inflating(struct conn *c, uint8_t opcode, size_t n, struct inflater *z,
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
	else if (opcode != WS_TEXT || conn_check_text(c, inflater_is_text(z)))
		return conn_deliver(c, opcode, out->data, out->len);
	return true;
}

/* Steps of inflating while there is a share for it. Return: as inflater_run(). */
static int conn_inflate_steps(struct conn_env *env, uint8_t opcode, const uint8_t *p, size_t n,
			      struct inflater *z)
{
	int r = INFLATE_MORE;

	while (r == INFLATE_MORE && conn_may_work(env)) {
		size_t budget = WORK_STEP;

		r = inflater_run(z, p, n, env->config->max_message_size, &budget);
		/* A text is looked at as it comes, so that nothing is left to do for all of it. */
		if (opcode == WS_TEXT && r != INFLATE_MORE && r != 0)
			break;
		if (opcode == WS_TEXT)
			inflater_look_at_text(z);
		conn_charge_work(env, WORK_STEP - budget);
	}
	return r;
}

enum inflated {
	INFLATED_NOT_ALL, /* the share is over */
	INFLATED_KEPT,    /* delivered, and under work: it lies in the inflater */
	INFLATED_DONE,    /* the inflater has gone back */
};

static enum inflated conn_inflate_some(struct conn *c, uint8_t opcode, const uint8_t *p, size_t n,
				       struct inflater *z)
{
	struct conn_env *env = c->env;
	int r = conn_inflate_steps(env, opcode, p, n, z);

	if (r == INFLATE_MORE)
		return INFLATED_NOT_ALL;
	/* The message lies in the inflater: that goes back once the message is done with. */
	if (!conn_end_inflating(c, opcode, n, z, r) && c->state == CONN_OPEN)
		return INFLATED_KEPT;
	conn_give_inflater(env, z);
	return INFLATED_DONE;
}

/* Not done with: @z is the connection's. */
static void conn_keep_inflater(struct conn *c, struct inflater *z, enum inflated how)
{
	c->input->inflater = z;
	c->input->is_inflated = c->input->is_under_work = how == INFLATED_KEPT;
	conn_work_later(c);
}

static void conn_inflate(struct conn *c, struct conn_input *in)
{
	/* It is in our hands: a close meanwhile must not give it back under us. */
	struct inflater *z = TAKE_PTR(in->inflater);
	enum inflated how = INFLATED_DONE;

	if (c->state != CONN_OPEN)
		conn_give_inflater(c->env, z);
	else
		how = conn_inflate_some(c, in->opcode, in->message.data, in->message.len, z);
	if (how == INFLATED_DONE)
		conn_end_message(c, in);
	else
		conn_keep_inflater(c, z, how);
}

void conn_work(struct conn *c)
{
	struct conn_input *in = c->input;

	if (in->inflater && !in->is_inflated)
		conn_inflate(c, in);
	else
		conn_deliver_on(c, in);
}

void conn_restart_work(struct conn *c)
{
	struct conn_input *in = c->input;

	if (in->is_deflated)
		in->inflater = conn_take_inflater(c->env);
	if (in->inflater || !in->is_deflated)
		conn_work_later(c);
	else
		conn_close_no_memory(c);
}

/* A deflated message that lies in one piece in the read buffer. */
static void conn_inflate_whole(struct conn *c, const struct ws_piece *w)
{
	struct inflater *z = conn_take_inflater(c->env);
	struct conn_input *in;
	enum inflated how;

	if (!z) {
		conn_close_no_memory(c);
		return;
	}
	how = conn_inflate_some(c, w->opcode, w->data, w->len, z);
	if (how == INFLATED_DONE)
		return;
	/* It goes on next turn, when the read buffer has other bytes: those are kept here. */
	in = conn_keep_message(c, w->opcode, w->data, w->len);
	if (!in) {
		inflater_free(z);
		return;
	}
	in->is_deflated = true;
	conn_keep_inflater(c, z, how);
}

/* A deflated message that was put together. */
static void conn_inflate_parts(struct conn *c, struct conn_input *in)
{
	in->inflater = conn_take_inflater(c->env);
	if (in->inflater)
		conn_inflate(c, in);
	else
		conn_close_no_memory(c);
}

/* ------------------------------------------------------------------------ putting together */

/* It isn't done with, and the read buffer will have other bytes. */
static void conn_keep_for_work(struct conn *c, const struct ws_piece *w)
{
	struct conn_input *in = conn_keep_message(c, w->opcode, w->data, w->len);

	if (in)
		conn_begin_work(c, in);
}

/* A message that lies in one piece in the read buffer: nothing is copied. */
static void conn_take_whole(struct conn *c, const struct ws_piece *w)
{
	if (c->input)
		c->input->started_ns = 0; /* its head had come alone */
	if (w->rsv & WS_RSV1)
		conn_inflate_whole(c, w);
	else if (w->opcode == WS_TEXT && !conn_check_text(c, utf8_valid(w->data, w->len)))
		return;
	else if (c->is_echo)
		conn_echo(c, w->opcode, w->data, w->len);
	else if (!conn_deliver(c, w->opcode, w->data, w->len))
		conn_keep_for_work(c, w);
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
	if (conn_deliver(c, in->opcode, in->message.data, in->message.len))
		conn_end_message(c, in);
	else
		conn_begin_work(c, in);
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
