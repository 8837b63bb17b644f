/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "conn/conn_private.h"

#define BATCH 64                 /* frames that one send gathers from the private queue */
#define SEND_BYTES (64 * 1024)   /* that one send has of a long message */
#define SHARE_BYTES (256 * 1024) /* of a connection's own that go out in one turn */

/* ----------------------------------------------------------------- where the kernel is full */

bool conn_transit(struct conn *c, struct frame *f, const struct frame_bytes *b, size_t sent)
{
	struct conn_output *out = conn_output_of(c);

	if (!out) {
		conn_abort(c);
		return false;
	}
	WB_ASSERT(!out->transit);
	out->transit = frame_ref(f);
	out->transit_bytes = b;
	out->transit_at = sent;
	conn_note_unsent(c);
	return true;
}

void conn_blocked(struct conn *c, ssize_t result)
{
	c->is_owed = false; /* what waits from here on waits for it */
	if (result >= 0 || result == -EAGAIN) {
		c->can_write = false;
		return;
	}
	/* Whoever takes nothing any more gets no Close either: it ends without one. */
	if (c->state == CONN_OPEN) {
		METRIC_INC(c->env->metrics, connection_errors);
		c->close_code = WS_CODE_ABNORMAL;
	}
	conn_abort(c);
}

/* Sends, counts, and notices when the kernel took only a part. Returns what it took. */
static size_t conn_send_iov(struct conn *c, const struct iovec *iov, int count, size_t bytes)
{
	ssize_t sent = transport_send(&c->transport, iov, count);

	if (sent < (ssize_t)bytes)
		conn_blocked(c, sent);
	if (sent <= 0)
		return 0;
	turn_charge_send(&c->env->turn, (size_t)sent);
	METRIC_ADD(c->env->metrics, bytes_sent, (uint64_t)sent);
	return (size_t)sent;
}

static void conn_count_sent(struct conn *c, const struct frame *f)
{
	struct metrics *m = c->env->metrics;

	if (WB_LIKELY(f->opcode == WS_BINARY || f->opcode == WS_TEXT)) {
		c->messages_out += f->messages;
		METRIC_ADD(m, messages_sent, f->messages);
		METRIC_ADD(m, frames_sent, f->messages);
	} else if (f->opcode) { /* none: the answer to a handshake */
		METRIC_ADD(m, frames_sent, f->messages);
	}
}

/* ------------------------------------------------------------------------ one send at a time */

/* The message in transit, up to @end. Returns what the kernel took. */
static size_t conn_send_transit(struct conn *c, size_t end)
{
	struct conn_output *out = c->out;
	const struct frame_bytes *b = out->transit_bytes;
	/* A long one goes in pieces, between which the clock of the turn is looked at. */
	const struct iovec iov = {(void *)(uintptr_t)(b->bytes + out->transit_at),
				  MIN(end - out->transit_at, (size_t)SEND_BYTES)};
	size_t sent = conn_send_iov(c, &iov, 1, iov.iov_len);

	/* If the send failed, all of the output went with the connection, @out too. */
	if (c->state == CONN_DEAD)
		return 0;
	out->transit_at += sent;
	if (out->transit_at < b->len)
		return sent;
	conn_count_sent(c, out->transit);
	out->transit = frame_unref(out->transit);
	out->transit_bytes = NULL;
	return sent;
}

/* What was sent leaves the queue. A message of which a part is out becomes the one in transit. */
static void conn_advance_queue(struct conn *c, size_t sent)
{
	while (sent > 0) {
		struct frame *f = c->out->queue;
		size_t left = f->body.len - c->out->head_sent;

		/*
		 * A control frame stays the head instead: nothing may go between its bytes, and it
		 * may stand between the fragments of a message that is in transit already.
		 */
		if (sent < left && conn_is_control(f)) {
			c->out->head_sent += (uint32_t)sent;
			return;
		}
		f = conn_queue_pop(c->out);
		c->out->head_sent = 0;
		if (sent >= left)
			conn_count_sent(c, f);
		else if (!conn_transit(c, f, &f->body, sent))
			sent = 0; /* it is gone */
		frame_unref(f);
		sent -= MIN(sent, left);
	}
}

/* Close is no control frame here: it is the last word, behind all messages. */
static bool is_urgent(const struct frame *f)
{
	return conn_is_control(f) && !(f->flags & FRAME_CLOSE);
}

/* The queue's head, many frames at once; @urgent_only: between fragments of what is in transit. */
static size_t conn_send_queue(struct conn *c, bool urgent_only)
{
	struct iovec iov[BATCH];
	size_t bytes = 0, at = c->out->head_sent;
	int n = 0;

	for (struct frame *f = c->out->queue; f && n < BATCH && bytes < SEND_BYTES; f = f->next) {
		size_t len = f->body.len - at;

		if (urgent_only && !is_urgent(f))
			break;
		/* A control frame goes whole, since no other may go between its bytes. */
		if (WB_UNLIKELY(len > SEND_BYTES - bytes) && !conn_is_control(f))
			len = SEND_BYTES - bytes;
		iov[n++] = (struct iovec){f->body.bytes + at, len};
		bytes += len;
		at = 0;
	}
	bytes = conn_send_iov(c, iov, n, bytes);
	conn_advance_queue(c, bytes);
	return bytes;
}

/* One send of what is private or in transit. */
static size_t conn_send_some(struct conn *c)
{
	const struct conn_output *out = c->out;
	const struct frame_bytes *b = out->transit_bytes;

	if (!out->transit)
		return conn_send_queue(c, false);
	if (!out->queue || !is_urgent(out->queue))
		return conn_send_transit(c, b->len);
	/*
	 * A pong doesn't wait for the end of a long message, but may only go where one of its
	 * fragments ends (RFC 6455 section 5.4): the message goes on to that place first. A pong
	 * that is partly out stands at such a place already, and goes on at once.
	 */
	if (out->head_sent > 0 || frame_bytes_is_boundary(b, out->transit_at))
		return conn_send_queue(c, true);
	return conn_send_transit(c, MIN(b->len, (out->transit_at / b->piece + 1) * b->piece));
}

/* ------------------------------------------------------------------------ a turn's sending */

/* What is private or in transit: its share of a turn, as far as the kernel takes it. */
static void conn_send_private(struct conn *c)
{
	uint64_t sent = 0;

	while (c->state != CONN_DEAD && c->can_write && !conn_is_drained(c) && sent < SHARE_BYTES)
		sent += conn_send_some(c);
	if (c->state == CONN_DEAD)
		return;
	if (conn_is_drained(c))
		conn_give_output(c);
	else if (c->can_write)
		conn_want_write(c);
}

/* The last word is out. With the peer's Close here too, or after a refusal, this side ends. */
static void conn_check_drained(struct conn *c)
{
	if (c->state == CONN_CLOSING && c->got_close && conn_is_drained(c))
		conn_step(c, CONN_ON_DRAINED);
}

/* Rounds look at what lags; without any, it is what is private that went past a limit. */
static bool conn_may_be_slow(const struct conn *c)
{
	const struct config *config = c->env->config;
	const struct conn_output *out = c->out;

	if (c->over_tick || c->is_slow)
		return true; /* or it isn't any more */
	if (out->queue && c->n_lagging > 0)
		return true;
	return out->queue_bytes > config->max_send_buffer / 2 ||
	       out->queue_count > config->message_queue_size / 2;
}

void conn_flush(struct conn *c)
{
	list_del(&c->write_node);
	/*
	 * The order is that of what the client sees: the message of which it has a part, with
	 * control frames between its fragments; the private queue; then what its channels have.
	 */
	conn_send_private(c);
	if (c->state == CONN_OPEN && c->n_lagging > 0 && conn_can_send_now(c))
		c->env->ops->catch_up(c);
	conn_check_drained(c);
	if (c->state == CONN_DEAD)
		return;
	if (conn_is_drained(c) && c->n_lagging == 0)
		list_del(&c->unsent_node);
	if (c->state == CONN_OPEN && conn_may_be_slow(c))
		c->env->ops->check_limits(c);
	/* Sending makes it shorter, so it can only be the end of a pause. */
	if (c->pauses & CONN_PAUSE_QUEUE)
		conn_judge_queue(c);
}
