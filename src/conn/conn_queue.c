/* SPDX-License-Identifier: MIT */

#include "conn/conn_private.h"

#define JOIN_MESSAGE_MAX ((size_t)8 << 10) /* larger ones have a frame of their own */
#define JOIN_ROOM_MIN ((size_t)512)        /* of the first frame of joined messages … */
#define JOIN_ROOM_MAX ((size_t)64 << 10)   /* … each next one has twice as much, up to this */

/* ------------------------------------------------------------------ the queue and its order */

void conn_queue_insert(struct conn_output *out, struct frame *f)
{
	struct frame *after = out->queue_end;

	/* Control frames stand before messages, but for Close, which is the last of all. */
	if (conn_is_control(f) && !(f->flags & FRAME_CLOSE)) {
		after = out->queue_control;
		out->queue_control = f;
	}
	if (after) {
		f->next = after->next;
		after->next = f;
	} else {
		f->next = out->queue;
		out->queue = f;
	}
	if (!f->next)
		out->queue_end = f;
	out->queue_count += f->messages;
	out->queue_bytes += f->body.len;
}

struct frame *conn_queue_pop(struct conn_output *out)
{
	struct frame *f = out->queue;

	out->queue = f->next;
	if (!out->queue)
		out->queue_end = NULL;
	if (out->queue_control == f)
		out->queue_control = NULL;
	out->queue_count -= f->messages;
	out->queue_bytes -= f->body.len;
	f->next = NULL;
	return f;
}

void conn_judge_queue(struct conn *c)
{
	const struct config *config = c->env->config;

	/* What it sends is answered into its own queue: echoes, pongs, acknowledgements. */
	if (c->out->queue_bytes > config->max_send_buffer / 2 ||
	    c->out->queue_count > config->message_queue_size / 2)
		conn_pause(c, CONN_PAUSE_QUEUE);
	else
		conn_resume(c, CONN_PAUSE_QUEUE);
}

void conn_drop_queue(struct conn *c)
{
	struct frame *kept = NULL, **end = &kept;

	/* A head that is partly sent is a control frame, and stays the head. */
	while (c->out->queue) {
		struct frame *f = conn_queue_pop(c->out);

		if (conn_is_control(f)) {
			*end = f;
			end = &f->next;
		} else {
			frame_unref(f);
		}
	}
	/* They go back in the order they had: the counters and both ends of the queue with them. */
	while (kept) {
		struct frame *f = kept;

		kept = f->next;
		f->next = NULL;
		conn_queue_insert(c->out, f);
	}
	conn_judge_queue(c);
}

/* ------------------------------------------------------------------------------- queueing */

/* In any state: an open one is not asked for, since Close and refusals come after it. */
static void conn_enqueue(struct conn *c, struct frame *f)
{
	struct conn_output *out = conn_output_of(c);

	if (!out) {
		frame_unref(f);
		conn_abort(c);
		return;
	}
	conn_queue_insert(out, f);
	conn_judge_queue(c);
	conn_note_unsent(c);
	conn_want_write(c);
}

void conn_send(struct conn *c, struct frame *f)
{
	if (!f) {
		conn_close(c, WS_CODE_INTERNAL_ERROR, NULL);
		return;
	}
	if (c->state != CONN_OPEN)
		frame_unref(f);
	else
		conn_enqueue(c, f);
}

/* Behind what waits, in the same frame; false when there is none with room. */
static bool conn_join_last(struct conn *c, uint8_t opcode, const void *p, size_t n)
{
	struct frame *f = c->out->queue_end;
	size_t before;

	if (!f)
		return false;
	before = f->body.len;
	if (!frame_join(f, opcode, p, n))
		return false;
	c->out->queue_bytes += f->body.len - before;
	c->out->queue_count++;
	conn_judge_queue(c);
	return true;
}

void conn_send_copy(struct conn *c, uint8_t opcode, const void *p, size_t n)
{
	size_t room = JOIN_ROOM_MIN, max_frame = c->env->config->max_frame_size;
	const struct frame *last = c->out->queue_end;
	struct frame *f;

	if (n > JOIN_MESSAGE_MAX || n > max_frame) {
		f = frame_new(opcode, n, max_frame, c->env->frame_account);
		if (f)
			frame_write(f, 0, p, n);
		conn_send(c, f);
		return;
	}
	if (conn_join_last(c, opcode, p, n))
		return;
	/*
	 * A first small answer takes little memory; one that comes behind others that wait is
	 * likely to have more behind it, and twice the room of those means few allocations.
	 */
	if (last)
		room = MIN(MAX(2 * (last->body.len + last->room), room), JOIN_ROOM_MAX);
	f = frame_new_joined(MAX(room, WS_MAX_HEAD + n), c->env->frame_account);
	if (f)
		WB_ASSERT(frame_join(f, opcode, p, n));
	conn_send(c, f);
}

void conn_send_msg(struct conn *c, const struct msg_builder *b)
{
	conn_send(c, frame_from_msg(b, c->env->config->max_frame_size, c->env->frame_account));
}

void conn_send_control(struct conn *c, uint8_t opcode, const void *p, size_t n)
{
	struct frame *f = frame_new(opcode, n, SIZE_MAX, c->env->frame_account);

	if (f)
		frame_write(f, 0, p, n);
	conn_send(c, f);
}

void conn_send_raw(struct conn *c, const void *p, size_t n)
{
	struct frame *f = frame_new_raw(p, n, c->env->frame_account);

	if (f)
		conn_enqueue(c, f);
	else
		conn_abort(c);
}

/* ---------------------------------------------------------------------------- the last word */

static void conn_send_close(struct conn *c, const uint8_t *payload, size_t n)
{
	struct frame *f = frame_new(WS_CLOSE, n, SIZE_MAX, c->env->frame_account);

	if (!f) {
		conn_abort(c);
		return;
	}
	f->flags |= FRAME_CLOSE;
	frame_write(f, 0, payload, n);
	conn_enqueue(c, f);
}

void conn_close(struct conn *c, uint16_t code, const char *reason)
{
	uint8_t payload[WS_MAX_CONTROL];
	size_t n;

	if (c->state != CONN_OPEN)
		return;
	c->close_code = code;
	if (close_code_is_fault(code))
		c->is_deaf = c->got_close = true;
	if (close_code_find(code)->by == CLOSE_BY_VIOLATION)
		METRIC_INC(c->env->metrics, connection_errors);
	/*
	 * The step first: it leaves all channels, so that nothing of theirs is queued or sent any
	 * more. Close goes behind what was queued before it.
	 */
	conn_step(c, CONN_ON_CLOSE);
	n = ws_format_close(payload, code, reason);
	conn_send_close(c, payload, n);
}
