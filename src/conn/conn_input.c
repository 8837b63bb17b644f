/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "conn/conn_private.h"
#include "wire/ws.h"

#define FRAMES_PER_TURN 512            /* of one connection */
#define ZIP_PER_TURN (256 * 1024)      /* bytes into and out of zlib, of one connection */
#define DECODER_BYTES 4608             /* of memory */
#define OFFSET_MAX ((uint64_t)1 << 30) /* of a frame: more than any max_frame_size */
#define INFLATER_BYTES (48 * 1024)     /* of memory, without what comes out */

/* ------------------------------------------------- what is held between reads */

struct conn_input *conn_input_of(struct conn *c)
{
	if (c->input)
		return c->input;
	c->input = calloc(1, sizeof(*c->input));
	if (!c->input)
		return NULL;
	c->input->conn = c;
	list_add_tail(&c->env->partial_inputs, &c->input->node);
	return c->input;
}

static void give_back(struct conn_env *env, struct ws_decoder *d)
{
	if (env->n_decoders == CONN_DECODERS || ws_decoder_reset(d, 0))
		ws_decoder_free(d);
	else
		env->decoders[env->n_decoders++] = d;
}

static struct ws_decoder *take_decoder(const struct conn *c)
{
	struct conn_env *env = c->env;
	uint8_t allowed = c->deflate_window ? WS_RSV1 : 0;
	struct ws_decoder *d;

	if (env->n_decoders == 0)
		return ws_decoder_new(WS_SERVER, allowed);
	d = env->decoders[--env->n_decoders];
	return ws_decoder_reset(d, allowed) ? ws_decoder_free(d) : d;
}

static void recharge(struct conn *c, size_t bytes)
{
	struct conn_env *env = c->env;

	env->reassembly_bytes += bytes - c->input->accounted;
	METRIC_ADD(env->metrics, reassembly_bytes, (uint64_t)bytes - c->input->accounted);
	c->input->accounted = bytes;
}

void conn_drop_input(struct conn *c)
{
	struct conn_input *in = c->input;

	if (!in)
		return;
	recharge(c, 0);
	list_del(&in->node);
	if (in->decoder)
		give_back(c->env, in->decoder);
	if (in->inflater)
		conn_give_inflater(c->env, in->inflater);
	buf_fini(&in->message);
	buf_fini(&in->parked);
	free(in);
	c->input = NULL;
}

/* Past reassembly_memory the one that holds most goes, until it fits. */
static void enforce_reassembly(struct conn_env *env)
{
	/* Whoever has to go would be missed by those that are not back yet. */
	while (!env->is_restoring && env->reassembly_bytes > env->config->reassembly_memory) {
		struct conn_input *most = NULL;

		LIST_FOREACH (node, &env->partial_inputs) {
			struct conn_input *in = CONTAINER_OF(node, struct conn_input, node);

			if (!most || in->accounted > most->accounted)
				most = in;
		}
		if (!most)
			return;
		if (most->conn->state == CONN_HANDSHAKE) {
			conn_abort(most->conn);
			continue;
		}
		conn_log(most->conn, LOG_NOTICE, EV_LIMIT_EXCEEDED, "reassembly_memory",
			 "holds most of the partly received messages, past reassembly_memory; "
			 "closing with " WS_CODE_TEXT(TRY_AGAIN));
		conn_close(most->conn, WS_CODE_TRY_AGAIN, "reassembly memory");
		conn_drop_input(most->conn);
	}
}

static size_t held_bytes(const struct conn_input *in)
{
	size_t held = sizeof(*in) + in->message.cap + in->parked.cap;

	if (in->decoder)
		held += DECODER_BYTES;
	if (in->inflater)
		held += INFLATER_BYTES + inflater_output(in->inflater)->cap;
	return held;
}

/* After processing: keeps what must be kept, charges it, and gives back the rest. */
static void settle(struct conn *c)
{
	struct conn_input *in = c->input;

	if (!in)
		return;
	if (in->decoder && ws_decoder_is_idle(in->decoder)) {
		give_back(c->env, in->decoder);
		in->decoder = NULL;
	}
	if (in->parked_at == in->parked.len) {
		buf_fini(&in->parked);
		in->parked_at = 0;
	}
	if (!in->decoder && !in->opcode && !in->message.len && !in->parked.len) {
		conn_drop_input(c);
		return;
	}
	recharge(c, held_bytes(in));
	if (c->state == CONN_OPEN && !in->started_ns && (in->decoder || in->opcode)) {
		in->started_ns = c->env->reactor->now_ns;
		conn_arm(c, in->started_ns + c->env->config->message_timeout);
	}
	enforce_reassembly(c->env);
}

static void park(struct conn *c, const uint8_t *p, size_t n)
{
	struct conn_input *in = conn_input_of(c);

	if (!in || buf_append(&in->parked, p, n, BUF_NO_LIMIT))
		conn_close(c, WS_CODE_INTERNAL_ERROR, NULL);
}

/* --------------------------------------------------------------------- frames */

/* Whether the next frame may be processed now; false after it arranged for going on later. */
static bool may_process(struct conn *c, unsigned *budget)
{
	const struct config *config = c->env->config;
	uint64_t now = c->env->reactor->now_ns;

	if (c->is_deaf || c->state == CONN_DEAD)
		return false;
	if (c->state == CONN_CLOSING)
		return true;
	if (conn_rate_second_is_over(c, now)) {
		c->rate_second_ms = (uint32_t)(now / NS_PER_MS);
		c->rate_frames = 0;
	}
	if (config->max_incoming_frames_per_second &&
	    c->rate_frames >= config->max_incoming_frames_per_second) {
		METRIC_INC(c->env->metrics, throttles);
		if (config->rate_limit_action == RATE_CLOSE) {
			conn_log(c, LOG_NOTICE, EV_THROTTLED, "max_incoming_frames_per_second",
				 "sends more than max_incoming_frames_per_second; "
				 "closing with " WS_CODE_TEXT(POLICY));
			conn_close(c, WS_CODE_POLICY, "too many frames");
			return false;
		}
		conn_log(c, LOG_INFO, EV_THROTTLED, "max_incoming_frames_per_second",
			 "sends more than max_incoming_frames_per_second; not read until its next "
			 "second");
		c->is_throttled = true;
		conn_arm(c, now + conn_rate_left_ns(c, now));
		return false;
	}
	if (conn_is_inflating(c))
		return false;
	if (*budget == 0 || c->env->zip_left == 0) {
		conn_want_read(c);
		return false;
	}
	(*budget)--;
	return !conn_is_paused(c);
}

bool conn_is_paused(const struct conn *c)
{
	const struct config *config = c->env->config;

	return c->env->is_congested || c->env->is_stopping || c->env->is_frozen ||
	       c->is_throttled || c->awaits_spool ||
	       (c->out->queue && (c->out->queue_bytes > config->max_send_buffer / 2 ||
				  c->out->queue_count > config->message_queue_size / 2));
}

/* Takes frames; returns how many of @n bytes were used. All of them unless it is held. */
static size_t feed_frames(struct conn *c, uint8_t *p, size_t n)
{
	struct ws_decoder *d = c->input ? c->input->decoder : NULL;
	unsigned budget = FRAMES_PER_TURN;
	size_t at = 0, used;
	struct ws_piece w;
	uint16_t code;

	/* It is in our hands: a close meanwhile must not free it. */
	if (c->input)
		c->input->decoder = NULL;
	if (!d)
		d = take_decoder(c);
	if (!d) {
		conn_abort(c);
		return n;
	}
	while (at < n && (!ws_decoder_is_idle(d) ? !c->is_deaf && c->state != CONN_DEAD
						 : may_process(c, &budget))) {
		enum ws_result r = ws_decoder_feed(d, p + at, n - at, &used, &w, &code);

		at += used;
		if (r == WS_PIECE) {
			conn_take_piece(c, &w);
		} else if (r == WS_BROKEN) {
			conn_broken(c, code, "frame is not valid");
			c->is_deaf = true;
		}
	}
	if (ws_decoder_is_idle(d) || c->is_deaf || c->state == CONN_DEAD) {
		give_back(c->env, d);
	} else if (conn_input_of(c)) {
		c->input->decoder = d;
	} else {
		give_back(c->env, d); /* nothing could be made of what follows */
		conn_abort(c);
	}
	return c->is_deaf ? n : at;
}

/* Takes bytes as far as it may; returns how many. */
static size_t feed_some(struct conn *c, uint8_t *p, size_t n)
{
	size_t used = 0;

	if (c->state == CONN_HANDSHAKE)
		used = conn_feed_head(c, p, n);
	if (used < n && (c->state == CONN_OPEN || c->state == CONN_CLOSING))
		used += feed_frames(c, p + used, n - used);
	if (c->is_deaf || c->state == CONN_DEAD || c->state == CONN_LINGERING)
		return n;
	return used;
}

/* True when it must not be read now; it is where it will be found again when it may. */
static bool hold(struct conn *c)
{
	if (c->state != CONN_OPEN || !conn_is_paused(c))
		return false;
	if (c->env->is_congested && list_is_empty(&c->read_node))
		list_add_tail(&c->env->stalled, &c->read_node);
	return true;
}

void conn_feed(struct conn *c, uint8_t *p, size_t n)
{
	size_t used;

	c->env->zip_left = ZIP_PER_TURN;
	METRIC_ADD(c->env->metrics, bytes_received, n);
	if (c->input && c->input->parked.len > c->input->parked_at) {
		park(c, p, n);
	} else {
		used = feed_some(c, p, n);
		if (used < n)
			park(c, p + used, n - used);
	}
	if (c->is_deaf)
		conn_drop_input(c);
	settle(c);
	(void)hold(c);
}

/* Goes on with what is being inflated; true when nothing is. */
static bool inflate_on(struct conn *c)
{
	if (!conn_is_inflating(c))
		return true;
	c->env->zip_left = ZIP_PER_TURN;
	conn_inflate(c);
	settle(c);
	return !conn_is_inflating(c);
}

/* Goes on with parked bytes; true when none are left. */
static bool feed_parked(struct conn *c)
{
	struct conn_input *in = c->input;
	struct buf parked;
	size_t at;

	if (!in || in->parked_at == in->parked.len)
		return true;
	c->env->zip_left = ZIP_PER_TURN;
	/* Taken out while it is processed: a close meanwhile frees what the connection holds. */
	parked = in->parked;
	at = in->parked_at;
	in->parked = (struct buf){0};
	in->parked_at = 0;
	at += feed_some(c, parked.data + at, parked.len - at);
	if (at < parked.len && conn_input_of(c)) {
		c->input->parked = parked;
		c->input->parked_at = at;
	} else {
		if (at < parked.len)
			conn_abort(c);
		buf_fini(&parked);
	}
	if (c->is_deaf)
		conn_drop_input(c);
	settle(c);
	(void)hold(c);
	return !c->input || c->input->parked_at == c->input->parked.len;
}

void conn_feed_end(struct conn *c)
{
	if (c->state == CONN_OPEN) {
		METRIC_INC(c->env->metrics, connection_errors);
		c->close_code = WS_CODE_ABNORMAL;
	}
	if (c->state == CONN_CLOSING && c->got_close && !conn_is_drained(c)) {
		c->can_read = true; /* it still reads what we say; its end is met again then */
		return;
	}
	conn_abort(c);
}

static void report_tls(struct conn *c)
{
	char text[TLS_WHY_MAX + 20];

	if (c->state == CONN_HANDSHAKE) {
		METRIC_INC(c->env->metrics, refused_tls);
		METRIC_INC(c->env->metrics, connection_errors);
	}
	snprintf(text, sizeof(text), "TLS failed: %s", tls_failure());
	conn_log(c, LOG_INFO, EV_TLS_FAILED, NULL, text);
}

void conn_read(struct conn *c)
{
	struct conn_env *env = c->env;
	ssize_t n;

	list_del(&c->read_node);
	if (c->state == CONN_DEAD || hold(c) || !inflate_on(c) || hold(c) || !feed_parked(c) ||
	    !c->can_read || c->state == CONN_DEAD || hold(c))
		return;
	if (c->awaits_proxy && !conn_take_proxy(c))
		return;
	n = transport_recv(&c->transport, env->read_buffer, env->read_buffer_bytes);
	if (n == -EAGAIN) {
		c->can_read = false;
		return;
	}
	if (n <= 0) {
		c->can_read = false;
		if (n == -EPROTO)
			report_tls(c);
		conn_feed_end(c);
		return;
	}
	/* A short read empties the socket, unless the peer's end is behind the bytes. */
	if ((size_t)n < env->read_buffer_bytes && !c->has_hup && !transport_has_more(&c->transport))
		c->can_read = false;
	else
		conn_want_read(c);
	conn_feed(c, env->read_buffer, (size_t)n);
	/* An echo goes out while it is in the processor's cache. */
	if (c->is_echo && c->state == CONN_OPEN && c->can_write && !conn_is_drained(c))
		conn_flush(c);
}

/* ------------------------------------------------------- from one process to the next */

void conn_save_input(const struct conn *c, Record__Input *out, uint8_t head[WS_MAX_HEAD])
{
	struct conn_input *in = c->input;
	struct ws_decoder_state decoder = {0};

	if (in->decoder)
		ws_decoder_save(in->decoder, &decoder);
	memcpy(head, decoder.head, decoder.head_len);
	out->head = (ProtobufCBinaryData){decoder.head_len, head};
	out->allowed_rsv = decoder.allowed_rsv;
	out->offset = decoder.offset;
	out->message = (ProtobufCBinaryData){in->message.len, in->message.data};
	if (in->parked_at < in->parked.len)
		out->parked = (ProtobufCBinaryData){in->parked.len - in->parked_at,
						    in->parked.data + in->parked_at};
	out->grow_to = in->grow_to;
	out->started_ns = in->started_ns;
	out->opcode = in->opcode;
	out->is_deflated = in->is_deflated;
	out->is_inflating = in->inflater != NULL;
	out->control = (ProtobufCBinaryData){in->control_len, in->control};
}

static int restore_decoder(struct conn *c, const Record__Input *from)
{
	struct ws_decoder_state state = {
		.head_len = (uint8_t)from->head.len,
		.allowed_rsv = (uint8_t)(from->allowed_rsv & WS_RSV1),
		.offset = from->offset,
	};
	uint64_t control = 0;
	int r;

	if (from->head.len > sizeof(state.head) || from->offset > OFFSET_MAX)
		return -EINVAL;
	if (from->head.len > 0) {
		memcpy(state.head, from->head.data, from->head.len);
		control = (state.head[0] & 0x0f) >= WS_CLOSE ? from->offset : 0;
	}
	if (from->control.len != control || control > sizeof(c->input->control))
		return -EINVAL;
	if (control > 0)
		memcpy(c->input->control, from->control.data, control);
	c->input->control_len = (uint8_t)control;
	if (from->head.len == 0)
		return 0;
	c->input->decoder = take_decoder(c);
	if (!c->input->decoder)
		return -ENOMEM;
	r = ws_decoder_restore(c->input->decoder, &state);
	return r ? r : ws_decoder_is_idle(c->input->decoder) ? -EINVAL : 0;
}

static bool is_message_sound(const struct conn *c, const Record__Input *from)
{
	bool is_text = from->opcode == WS_TEXT;

	if (c->state == CONN_HANDSHAKE)
		return from->opcode == 0 && from->head.len == 0 &&
		       from->message.len <= CONN_HEAD_LIMIT;
	if (!is_text && from->opcode != WS_BINARY && from->opcode != 0)
		return false;
	if (from->is_inflating && (!from->is_deflated || from->head.len > 0))
		return false;
	return from->opcode || from->message.len == 0;
}

void conn_restored_all(struct conn_env *env)
{
	env->is_restoring = false;
	enforce_reassembly(env);
}

int conn_restore_input(struct conn *c, const Record__Input *from)
{
	struct conn_input *in = conn_input_of(c);
	int r;

	if (!in)
		return -ENOMEM;
	if (!is_message_sound(c, from))
		return -EINVAL;
	r = restore_decoder(c, from);
	if (r)
		return r;
	if (buf_append(&in->message, from->message.data, from->message.len, BUF_NO_LIMIT) ||
	    buf_append(&in->parked, from->parked.data, from->parked.len, BUF_NO_LIMIT))
		return -ENOMEM;
	in->grow_to = from->grow_to;
	in->started_ns = from->started_ns;
	in->opcode = (uint8_t)from->opcode;
	in->is_deflated = from->is_deflated;
	if (in->opcode == WS_TEXT && !in->is_deflated)
		in->utf8 = utf8_feed(UTF8_ACCEPT, in->message.data, in->message.len);
	if (from->is_inflating)
		conn_restart_inflating(c);
	settle(c);
	if (conn_has_input(c))
		conn_want_read(c);
	return 0;
}
