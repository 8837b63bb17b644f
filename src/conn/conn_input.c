/* SPDX-License-Identifier: MIT */
#include "conn/conn_private.h"

#define PROGRESS_BYTES 1024          /* after so many a message has gone on */
#define STILL_LOOKS 32               /* at connections, for the one whose message stands still */
#define PARKED_BYTES_PER 16          /* that are read and kept cost one unit of a turn's work */
#define BARREN_UNITS (TURN_STEP / 8) /* of a turn's work, for a record without data */

/* -------------------------------------------------------------- what is kept between reads */

/*
 * Who is paused by the server is not the one that stands still. Some of those are passed over,
 * not all: that would be a walk, and some pause themselves by sending too fast.
 */
static struct conn_input *conn_find_stillest(const struct conn_env *env)
{
	unsigned looks = STILL_LOOKS;

	LIST_FOREACH (node, &env->partial_inputs) {
		struct conn_input *in = CONTAINER_OF(node, struct conn_input, node);

		if (!conn_is_paused(in->conn))
			return in;
		if (--looks == 0)
			break;
	}
	return list_is_empty(&env->partial_inputs)
		       ? NULL
		       : CONTAINER_OF(list_first(&env->partial_inputs), struct conn_input, node);
}

void conn_enforce_reassembly(struct conn_env *env)
{
	/* Whoever has to go would be missed by those that are not back yet. */
	while (!env->is_restoring && env->reassembly_bytes > env->config->reassembly_memory) {
		struct conn_input *in = conn_find_stillest(env);

		if (!in)
			return;
		if (in->conn->state == CONN_HANDSHAKE) {
			conn_abort(in->conn);
			continue;
		}
		conn_log(in->conn, LOG_NOTICE, EV_LIMIT_EXCEEDED, "reassembly_memory",
			 "has a message in part that stood still longest, past reassembly_memory; "
			 "closing with " WS_CODE_TEXT(TRY_AGAIN));
		conn_close(in->conn, WS_CODE_TRY_AGAIN, "reassembly memory");
		conn_drop_input(in->conn);
	}
}

/* What has been used up goes back; false when nothing is left that is incomplete or waits. */
static bool conn_trim_input(struct conn *c)
{
	struct conn_input *in = c->input;

	if (in->decoder && ws_decoder_is_idle(in->decoder)) {
		conn_give_decoder(c->env, in->decoder);
		in->decoder = NULL;
	}
	if (in->parked_at == in->parked.len) {
		buf_fini(&in->parked);
		in->parked_at = 0;
	}
	return in->decoder || in->opcode || in->message.len || in->parked.len;
}

void conn_keep_partial(struct conn *c)
{
	struct conn_input *in = c->input;

	if (!in)
		return;
	/* What a deaf one holds is never looked at again. */
	if (c->is_deaf || !conn_trim_input(c)) {
		conn_drop_input(c);
		return;
	}
	conn_input_account(in);
	/* The time of a message runs from the first byte of it that has to be kept. */
	if (c->state == CONN_OPEN && !in->started_ns && (in->decoder || in->opcode)) {
		in->started_ns = c->env->reactor->now_ns;
		conn_input_went_on(in);
		conn_arm(c, in->started_ns + c->env->config->message_timeout);
	}
	/* This may close another connection than this one, or this one. */
	conn_enforce_reassembly(c->env);
}

/*
 * A byte now and then doesn't count as going on, or many connections would be for ever younger
 * than one that really sends.
 */
static void conn_note_arrival(struct conn *c, size_t n)
{
	if (!c->input)
		return;
	c->input->arrived += n;
	if (c->input->arrived >= PROGRESS_BYTES)
		conn_input_went_on(c->input);
}

/* Bytes that may not be processed now: no event will announce them again. */
static void conn_park(struct conn *c, const uint8_t *p, size_t n)
{
	struct conn_input *in = conn_input_of(c);

	if (!in || buf_append(&in->parked, p, n, BUF_NO_LIMIT))
		conn_close(c, WS_CODE_INTERNAL_ERROR, NULL);
	/* Hundreds that are paused may fill a read buffer each. */
	turn_charge(&c->env->turn, n / PARKED_BYTES_PER);
}

/* ------------------------------------------------------------------ whether it may go on */

/* One frame too many in this second: the connection is closed, or waits for the next one. */
static void conn_throttle(struct conn *c)
{
	uint64_t now = c->env->reactor->now_ns;

	METRIC_INC(c->env->metrics, throttles);
	c->is_busy = true;
	if (c->env->config->rate_limit_action == RATE_CLOSE) {
		conn_log(c, LOG_NOTICE, EV_THROTTLED, "max_incoming_frames_per_second",
			 "sends more than max_incoming_frames_per_second; "
			 "closing with " WS_CODE_TEXT(POLICY));
		conn_close(c, WS_CODE_POLICY, "too many frames");
		return;
	}
	conn_log(c, LOG_INFO, EV_THROTTLED, "max_incoming_frames_per_second",
		 "sends more than max_incoming_frames_per_second; not read until its next second");
	conn_pause(c, CONN_PAUSE_THROTTLED);
	conn_arm(c, now + conn_rate_left_ns(c, now));
	/* Once: it may be meant to send as fast as it is let. */
	if (c->was_told_of_rate || c->is_echo)
		return;
	c->was_told_of_rate = true;
	c->env->ops->throttled(c);
}

/* Whether it has sent as many frames as a second has room for; begins a new second in time. */
static bool conn_is_past_rate(struct conn *c)
{
	uint64_t now = c->env->reactor->now_ns;
	uint64_t limit = c->env->config->max_incoming_frames_per_second;

	if (conn_rate_second_is_over(c, now)) {
		uint64_t paid = conn_rate_age_ms(c, now) / 1000 * limit;

		/* Who uses half of what it may is not one that says little; others are again. */
		c->is_busy = limit && c->rate_frames > limit / 2;
		/* What one message cost may be more than a second has room for. */
		c->rate_second_ms = (uint32_t)(now / NS_PER_MS);
		c->rate_frames -= limit ? (uint32_t)MIN(paid, c->rate_frames) : c->rate_frames;
	}
	return limit && c->rate_frames >= limit;
}

void conn_take_barren(struct conn *c, unsigned n)
{
	turn_charge(&c->env->turn, n * BARREN_UNITS);
	(void)conn_is_past_rate(c); /* a new second begins before they count */
	c->rate_frames += n;
	if (conn_is_past_rate(c) && !(c->pauses & CONN_PAUSE_THROTTLED))
		conn_throttle(c);
}

/* Whether the next frame may be processed now; false after it arranged for going on later. */
static bool conn_may_take_frame(struct conn *c)
{
	if (c->is_deaf || c->state == CONN_DEAD)
		return false;
	if (c->state == CONN_CLOSING)
		return true; /* one of them may be the peer's Close */
	if (conn_is_past_rate(c)) {
		conn_throttle(c);
		return false;
	}
	/* The message before has to be delivered first. */
	if (conn_is_working(c))
		return false;
	if (!conn_may_work(c->env)) {
		conn_want_read(c);
		return false;
	}
	return !conn_is_paused(c);
}

/* In the middle of a frame, what may go on goes on: limits are for the next one. */
static bool conn_may_feed(struct conn *c, const struct ws_decoder *d)
{
	if (ws_decoder_is_idle(d))
		return conn_may_take_frame(c);
	return !c->is_deaf && c->state != CONN_DEAD;
}

bool conn_must_wait(struct conn *c)
{
	if (c->state != CONN_OPEN || !((c->pauses & ~CONN_PAUSE_WORK) | c->env->pauses))
		return false;
	/*
	 * What pauses all of a worker wakes those that wait for its end; reasons of its own wake a
	 * client by themselves.
	 */
	if (c->env->pauses && list_is_empty(&c->read_node))
		list_add_tail(&c->env->stalled, &c->read_node);
	return true;
}

/* ------------------------------------------------------------------------------ bytes in */

/* Where the decoder goes after some frames: kept in the middle of one, else to the worker. */
static void conn_put_decoder(struct conn *c, struct ws_decoder *d)
{
	if (ws_decoder_is_idle(d) || c->is_deaf || c->state == CONN_DEAD) {
		conn_give_decoder(c->env, d);
	} else if (conn_input_of(c)) {
		c->input->decoder = d;
	} else {
		conn_give_decoder(c->env, d); /* nothing could be made of what follows */
		conn_abort(c);
	}
}

/* Takes frames; returns how many of @n bytes were used. All of them unless it is paused. */
static size_t conn_feed_frames(struct conn *c, uint8_t *p, size_t n)
{
	struct ws_decoder *d = c->input ? c->input->decoder : NULL;
	size_t at = 0, used;
	struct ws_piece w;
	uint16_t code;

	/* It is in our hands: a close meanwhile must not free it. */
	if (c->input)
		c->input->decoder = NULL;
	if (!d)
		d = conn_take_decoder(c);
	if (!d) {
		conn_abort(c);
		return n;
	}
	/* Each piece may close the connection, pause it, or bring it to its death. */
	while (at < n && conn_may_feed(c, d)) {
		enum ws_result r = ws_decoder_feed(d, p + at, n - at, &used, &w, &code);

		at += used;
		if (r == WS_PIECE) {
			conn_take_piece(c, &w);
		} else if (r == WS_BROKEN) {
			conn_close_violation(c, code, "frame is not valid");
			c->is_deaf = true;
		}
	}
	conn_put_decoder(c, d);
	return c->is_deaf ? n : at;
}

/* Takes bytes as far as it may; returns how many. */
static size_t conn_process(struct conn *c, uint8_t *p, size_t n)
{
	size_t used = 0;

	if (c->state == CONN_HANDSHAKE)
		used = conn_feed_head(c, p, n);
	/* Frames may come right behind the head, and behind our Close until the peer's is here. */
	if (used < n && (c->state == CONN_OPEN || c->state == CONN_CLOSING))
		used += conn_feed_frames(c, p + used, n - used);
	if (c->is_deaf || c->state == CONN_DEAD || c->state == CONN_LINGERING)
		return n; /* nothing that it says is of interest any more */
	return used;
}

void conn_feed(struct conn *c, uint8_t *p, size_t n)
{
	size_t used = 0;

	METRIC_ADD(c->env->metrics, bytes_received, n);
	/* What came earlier goes first, so these wait behind it. */
	if (!conn_has_parked(c))
		used = conn_process(c, p, n);
	if (used < n)
		conn_park(c, p + used, n - used);
	conn_note_arrival(c, n);
	conn_keep_partial(c);
	(void)conn_must_wait(c);
}

bool conn_work_on(struct conn *c)
{
	if (!conn_is_working(c))
		return true;
	conn_work(c);
	conn_keep_partial(c);
	return !conn_is_working(c);
}

bool conn_feed_parked(struct conn *c)
{
	struct buf parked;
	size_t at;

	if (!conn_has_parked(c))
		return true;
	/* Taken out while it is processed: a close meanwhile frees what the connection holds. */
	parked = c->input->parked;
	at = c->input->parked_at;
	c->input->parked = (struct buf){0};
	c->input->parked_at = 0;
	at += conn_process(c, parked.data + at, parked.len - at);
	if (at < parked.len && conn_input_of(c)) {
		c->input->parked = parked;
		c->input->parked_at = at;
	} else {
		if (at < parked.len)
			conn_abort(c);
		buf_fini(&parked);
	}
	conn_keep_partial(c);
	(void)conn_must_wait(c);
	return !conn_has_parked(c);
}
