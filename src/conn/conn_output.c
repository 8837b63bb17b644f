/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "conn/conn_private.h"
#include "wire/ws.h"

#define BATCH 64                           /* frames that one send gathers from the private queue */
#define JOIN_MESSAGE_MAX ((size_t)8 << 10) /* larger ones have a frame of their own */
#define JOIN_ROOM_MIN ((size_t)512)        /* of the first frame of joined messages … */
#define JOIN_ROOM_MAX ((size_t)64 << 10)   /* … each next one has twice as much, up to this */

const struct conn_output conn_no_output;

static bool is_control(const struct frame *f)
{
	return f->flags & FRAME_CONTROL;
}

/* Its own, made when need be, or NULL. */
static struct conn_output *output_of(struct conn *c)
{
	struct conn_env *env = c->env;
	struct conn_output *out;

	if (c->out != &conn_no_output)
		return c->out;
	out = env->n_outputs > 0 ? env->outputs[--env->n_outputs] : malloc(sizeof(*out));
	if (!out)
		return NULL;
	*out = (struct conn_output){0};
	c->out = out;
	return out;
}

/* Everything was sent, or dropped. */
static void release_output(struct conn *c)
{
	struct conn_env *env = c->env;

	if (c->out == &conn_no_output)
		return;
	if (env->n_outputs < CONN_OUTPUTS)
		env->outputs[env->n_outputs++] = c->out;
	else
		free(c->out);
	conn_init_output(c);
}

void conn_init_output(struct conn *c)
{
	c->out = (struct conn_output *)(uintptr_t)&conn_no_output;
}

static void queue_insert(struct conn *c, struct frame *f)
{
	struct frame *after = c->out->queue_end;

	/* Control frames stand before messages, but for Close, which is the last of all. */
	if (is_control(f) && !(f->flags & FRAME_CLOSE)) {
		after = c->out->queue_control;
		c->out->queue_control = f;
	}
	if (after) {
		f->next = after->next;
		after->next = f;
	} else {
		f->next = c->out->queue;
		c->out->queue = f;
	}
	if (!f->next)
		c->out->queue_end = f;
	c->out->queue_count += f->messages;
	c->out->queue_bytes += f->body.len;
}

/* Takes the head out of the queue; the reference is the caller's. */
static struct frame *queue_pop(struct conn *c)
{
	struct frame *f = c->out->queue;

	c->out->queue = f->next;
	if (!c->out->queue)
		c->out->queue_end = NULL;
	if (c->out->queue_control == f)
		c->out->queue_control = NULL;
	c->out->queue_count -= f->messages;
	c->out->queue_bytes -= f->body.len;
	f->next = NULL;
	return f;
}

void conn_drop_queue(struct conn *c)
{
	struct frame *kept = NULL, **end = &kept;

	/* A head that is partly sent is a control frame, and stays the head. */
	while (c->out->queue) {
		struct frame *f = queue_pop(c);

		if (is_control(f)) {
			*end = f;
			end = &f->next;
		} else {
			frame_unref(f);
		}
	}
	while (kept) {
		struct frame *f = kept;

		kept = f->next;
		f->next = NULL;
		queue_insert(c, f);
	}
}

void conn_drop_output(struct conn *c)
{
	while (c->out->queue)
		frame_unref(queue_pop(c));
	frame_unref(c->out->transit);
	release_output(c);
}

/* ------------------------------------------------------------------- queueing */

static void enqueue(struct conn *c, struct frame *f)
{
	if (!output_of(c)) {
		frame_unref(f);
		conn_abort(c);
		return;
	}
	queue_insert(c, f);
	if (list_is_empty(&c->unsent_node))
		list_add_tail(&c->env->unsent, &c->unsent_node);
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
		enqueue(c, f);
}

/* Behind what waits, in the same frame; false when there is none with room. */
static bool join_last(struct conn *c, uint8_t opcode, const void *p, size_t n)
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
	if (join_last(c, opcode, p, n))
		return;
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

void conn_send_close(struct conn *c, const uint8_t *payload, size_t n)
{
	struct frame *f = frame_new(WS_CLOSE, n, SIZE_MAX, c->env->frame_account);

	if (!f) {
		conn_abort(c);
		return;
	}
	f->flags |= FRAME_CLOSE;
	frame_write(f, 0, payload, n);
	enqueue(c, f);
}

void conn_send_raw(struct conn *c, const void *p, size_t n)
{
	struct frame *f = frame_new_raw(p, n, c->env->frame_account);

	if (f)
		enqueue(c, f);
	else
		conn_abort(c);
}

bool conn_transit(struct conn *c, struct frame *f, const struct frame_bytes *b, size_t sent)
{
	WB_ASSERT(!c->out->transit);
	if (!output_of(c)) {
		conn_abort(c);
		return false;
	}
	c->out->transit = frame_ref(f);
	c->out->transit_bytes = b;
	c->out->transit_at = sent;
	if (list_is_empty(&c->unsent_node))
		list_add_tail(&c->env->unsent, &c->unsent_node);
	return true;
}

void conn_blocked(struct conn *c, ssize_t result)
{
	if (result >= 0 || result == -EAGAIN) {
		c->can_write = false;
		return;
	}
	if (c->state == CONN_OPEN) {
		METRIC_INC(c->env->metrics, connection_errors);
		c->close_code = WS_CODE_ABNORMAL;
	}
	conn_abort(c);
}

/* -------------------------------------------------------------------- sending */

/* Sends, counts, and notices when the kernel took only a part. Returns what it took. */
static size_t send_iov(struct conn *c, const struct iovec *iov, int count, size_t bytes)
{
	ssize_t sent = transport_send(&c->transport, iov, count);

	if (sent < (ssize_t)bytes)
		conn_blocked(c, sent);
	if (sent <= 0)
		return 0;
	METRIC_ADD(c->env->metrics, bytes_sent, (uint64_t)sent);
	return (size_t)sent;
}

static void count_sent(struct conn *c, const struct frame *f)
{
	if (!f->opcode)
		return; /* the answer to a handshake */
	METRIC_ADD(c->env->metrics, frames_sent, f->messages);
	if (!is_control(f))
		METRIC_ADD(c->env->metrics, messages_sent, f->messages);
}

/* The message in transit, up to @end. */
static void send_transit(struct conn *c, size_t end)
{
	const struct frame_bytes *b = c->out->transit_bytes;
	const struct iovec iov = {(void *)(uintptr_t)(b->bytes + c->out->transit_at),
				  end - c->out->transit_at};

	size_t sent = send_iov(c, &iov, 1, iov.iov_len);

	if (c->state == CONN_DEAD)
		return;
	c->out->transit_at += sent;
	if (c->out->transit_at < b->len)
		return;
	count_sent(c, c->out->transit);
	c->out->transit = frame_unref(c->out->transit);
	c->out->transit_bytes = NULL;
}

/* What was sent of the queue leaves it; a message of which a part is out becomes the one in
 * transit. */
static void advance_queue(struct conn *c, size_t sent)
{
	while (sent > 0) {
		struct frame *f = c->out->queue;
		size_t left = f->body.len - c->out->head_sent;

		if (sent < left && is_control(f)) {
			c->out->head_sent += (uint32_t)sent;
			return;
		}
		f = queue_pop(c);
		c->out->head_sent = 0;
		if (sent >= left)
			count_sent(c, f);
		else if (!conn_transit(c, f, &f->body, sent))
			sent = 0; /* it is gone */
		frame_unref(f);
		sent -= MIN(sent, left);
	}
}

/* The queue's head, many frames at once; @controls_only: between fragments of what is in transit.
 */
static void send_queue(struct conn *c, bool controls_only)
{
	struct iovec iov[BATCH];
	size_t bytes = 0, at = c->out->head_sent;
	int n = 0;

	for (struct frame *f = c->out->queue; f && n < BATCH; f = f->next) {
		if (controls_only && (!is_control(f) || f->flags & FRAME_CLOSE))
			break;
		iov[n++] = (struct iovec){f->body.bytes + at, f->body.len - at};
		bytes += f->body.len - at;
		at = 0;
	}
	advance_queue(c, send_iov(c, iov, n, bytes));
}

static bool has_control_waiting(const struct conn *c)
{
	return c->out->queue && is_control(c->out->queue) && !(c->out->queue->flags & FRAME_CLOSE);
}

/* One send of what is private or in transit. */
static void send_some(struct conn *c)
{
	const struct frame_bytes *b = c->out->transit_bytes;

	if (!c->out->transit) {
		send_queue(c, false);
		return;
	}
	if (!has_control_waiting(c)) {
		send_transit(c, b->len);
		return;
	}
	if (c->out->head_sent > 0 || frame_is_boundary(b, c->out->transit_at))
		send_queue(c, true);
	else
		send_transit(c, MIN(b->len, (c->out->transit_at / b->piece + 1) * b->piece));
}

/* The last word is out. With the peer's Close here too, or after a refusal, this side ends. */
static void conn_check_drained(struct conn *c)
{
	if (c->state == CONN_CLOSING && conn_is_drained(c) && c->got_close)
		conn_drained(c);
}

void conn_flush(struct conn *c)
{
	list_del(&c->write_node);
	while (c->state != CONN_DEAD && c->can_write && !conn_is_drained(c))
		send_some(c);
	if (conn_is_drained(c))
		release_output(c);
	if (c->state == CONN_OPEN && c->n_lagging > 0 && conn_can_send_now(c))
		c->env->ops->catch_up(c);
	if (c->state == CONN_DEAD)
		return;
	conn_check_drained(c);
	if (c->state == CONN_DEAD)
		return;
	if (conn_is_drained(c) && c->n_lagging == 0)
		list_del(&c->unsent_node);
	/* Rounds look at what lags; without any, it is what is private that went past a limit. */
	if (c->state == CONN_OPEN && (c->over_ns || (c->out->queue && c->n_lagging > 0) ||
				      c->out->queue_bytes > c->env->config->max_send_buffer ||
				      c->out->queue_count > c->env->config->message_queue_size))
		c->env->ops->check_limits(c);
	if (c->state == CONN_OPEN && conn_has_input(c) && !conn_is_paused(c))
		conn_want_read(c);
}

/* ------------------------------------------------------- from one process to the next */

bool conn_restore_queued(struct conn *c, struct frame *f)
{
	struct conn_output *out = output_of(c);

	if (!out) {
		frame_unref(f);
		return false;
	}
	f->flags &= FRAME_CONTROL | FRAME_CLOSE;
	queue_insert(c, f);
	return true;
}

/* What may be partly sent is a control frame at the head. */
static bool is_output_sound(const struct conn_output *out)
{
	if (out->transit && out->transit_at >= out->transit_bytes->len)
		return false;
	return out->head_sent == 0 ||
	       (out->queue && is_control(out->queue) && out->head_sent < out->queue->body.len);
}

bool conn_restore_output(struct conn *c, uint64_t head_sent, struct frame *transit,
			 const struct frame_bytes *bytes, uint64_t at)
{
	struct conn_output *out = output_of(c);

	if (!out)
		return false;
	if (transit && !conn_transit(c, transit, bytes, at))
		return false;
	out->head_sent = (uint32_t)MIN(head_sent, (uint64_t)UINT32_MAX);
	if (list_is_empty(&c->unsent_node))
		list_add_tail(&c->env->unsent, &c->unsent_node);
	conn_want_write(c);
	return is_output_sound(out);
}
