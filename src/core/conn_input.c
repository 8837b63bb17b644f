/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "core/conn_private.h"
#include "wire/upgrade.h"
#include "wire/ws.h"

#define HEAD_LIMIT (8 * 1024)
#define FRAMES_PER_TURN 512     /* of one connection */
#define RESERVE_MAX (64 * 1024) /* of a frame that is only announced */

/* ------------------------------------------------- what is held between reads */

static struct conn_input *input_of(struct conn *c)
{
	if (c->input)
		return c->input;
	c->input = calloc(1, sizeof(*c->input));
	if (!c->input)
		return NULL;
	c->input->conn = c;
	list_add_tail(&c->env->holding, &c->input->node);
	return c->input;
}

static void give_back(struct conn_env *env, struct ws_decoder *d)
{
	if (env->n_decoders == CONN_DECODERS || ws_decoder_reset(d, 0))
		ws_decoder_free(d);
	else
		env->decoders[env->n_decoders++] = d;
}

static struct ws_decoder *take_decoder(struct conn_env *env)
{
	if (env->n_decoders > 0)
		return env->decoders[--env->n_decoders];
	return ws_decoder_new(WS_SERVER, 0);
}

static void recharge(struct conn *c, size_t bytes)
{
	struct conn_env *env = c->env;

	env->reassembly_bytes += bytes - c->input->charged;
	METRIC_ADD(env->metrics, reassembly_bytes, (uint64_t)bytes - c->input->charged);
	c->input->charged = bytes;
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
	buf_fini(&in->message);
	buf_fini(&in->parked);
	free(in);
	c->input = NULL;
}

/* Past reassembly_memory the one that holds most goes, until it fits. */
static void enforce_reassembly(struct conn_env *env)
{
	while (env->reassembly_bytes > env->config->reassembly_memory) {
		struct conn_input *most = NULL;

		LIST_FOREACH (node, &env->holding) {
			struct conn_input *in = CONTAINER_OF(node, struct conn_input, node);

			if (!most || in->charged > most->charged)
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
			 "closing with 1013");
		conn_close(most->conn, WS_CODE_TRY_AGAIN, "reassembly memory");
		conn_drop_input(most->conn);
	}
}

/* After processing: keeps what must be kept, charges it, and gives back the rest. */
static void settle(struct conn *c)
{
	struct conn_input *in = c->input;
	size_t held;

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
	held = sizeof(*in) + in->message.cap + in->parked.cap + (in->decoder ? 4608 : 0);
	recharge(c, held);
	if (c->state == CONN_OPEN && !in->started_ns && (in->decoder || in->opcode)) {
		in->started_ns = c->env->reactor->now_ns;
		conn_arm(c, in->started_ns + c->env->config->message_timeout);
	}
	enforce_reassembly(c->env);
}

static void park(struct conn *c, const uint8_t *p, size_t n)
{
	struct conn_input *in = input_of(c);

	if (!in || buf_append(&in->parked, p, n, BUF_NO_LIMIT))
		conn_close(c, WS_CODE_INTERNAL_ERROR, "out of memory");
}

/* ---------------------------------------------------------- opening handshake */

/* Refuses a request for what it is; @request: NULL when it could not be read. */
static void refuse_request(struct conn *c, int status, const struct http_request *request)
{
	struct metrics *m = c->env->metrics;
	_Atomic uint64_t *counter = &m->refused_bad_request;

	if (status == 404)
		counter = &m->refused_path;
	else if (status == 405)
		counter = &m->refused_method;
	else if (status == 431)
		counter = &m->refused_head_too_large;
	else if (status == 426)
		counter = request && http_find(request, "Upgrade") ? &m->refused_version
								   : &m->refused_no_upgrade;
	conn_refuse(c, status, counter, NULL);
}

/* True when there is room for the connection; else it was refused. */
static bool find_room(struct conn *c, const struct upgrade *u)
{
	struct metrics *m = c->env->metrics;
	int status;

	if (c->refuse_status == 429) {
		conn_refuse(c, 429, &m->refused_per_ip, "max_connections_per_ip");
		return false;
	}
	if (c->refuse_status) {
		conn_refuse(c, c->refuse_status, &m->refused_max_connections, "max_connections");
		return false;
	}
	status = c->env->ops->admit(c, u);
	if (status)
		conn_refuse(c, status, &m->refused_max_channels, "max_channels");
	return status == 0;
}

static void upgrade_now(struct conn *c, const struct http_request *request)
{
	char answer[1024];
	struct upgrade u;
	int status;
	size_t n;

	status = upgrade_check(request, &u);
	if (status) {
		refuse_request(c, status, request);
		return;
	}
	if (!find_room(c, &u))
		return;
	n = upgrade_format_ok(answer, sizeof(answer), &u, NULL);
	conn_send_raw(c, answer, n);
	conn_upgraded(c);
}

/* Takes bytes of the request's head; returns how many of @n were used. */
static size_t feed_head(struct conn *c, const uint8_t *p, size_t n)
{
	struct conn_input *in = c->input;
	size_t before = in ? in->message.len : 0;
	size_t more = MIN(n, HEAD_LIMIT + 1 - before);
	struct http_request request;
	size_t head_bytes = 0;
	int r;

	if (before == 0) {
		r = http_parse_request((const char *)p, n, HEAD_LIMIT, &request, &head_bytes);
	} else {
		if (buf_append(&in->message, p, more, HEAD_LIMIT + 1)) {
			conn_abort(c);
			return n;
		}
		r = http_parse_request((const char *)in->message.data, in->message.len, HEAD_LIMIT,
				       &request, &head_bytes);
	}
	if (r == 0) {
		upgrade_now(c, &request);
		if (c->input)
			conn_drop_input(c);
		return head_bytes - before;
	}
	if (r != HTTP_MORE) {
		refuse_request(c, r, NULL);
		return n;
	}
	if (before == 0 &&
	    (!input_of(c) || buf_append(&c->input->message, p, more, HEAD_LIMIT + 1)))
		conn_abort(c);
	return n;
}

/* ------------------------------------------------------------------- messages */

static void broken(struct conn *c, uint16_t code, const char *reason)
{
	char text[160];

	snprintf(text, sizeof(text), "broke the protocol: %s; closing with %u", reason, code);
	conn_log(c, LOG_NOTICE, EV_PROTOCOL_ERROR, NULL, text);
	conn_close(c, code, reason);
}

static void too_big(struct conn *c, const char *setting, uint64_t bytes)
{
	char text[160];

	snprintf(text, sizeof(text), "sent %llu bytes, %s is smaller; closing with 1009",
		 (unsigned long long)bytes, setting);
	conn_log(c, LOG_NOTICE, EV_LIMIT_EXCEEDED, setting, text);
	conn_close(c, WS_CODE_TOO_BIG, setting);
}

static void echo(struct conn *c, uint8_t opcode, const uint8_t *p, size_t n)
{
	struct frame *f =
		frame_new(opcode, n, c->env->config->max_frame_size, c->env->frame_account);

	if (f)
		frame_write(f, 0, p, n);
	conn_send(c, f);
}

static void deliver(struct conn *c, uint8_t opcode, uint8_t *p, size_t n)
{
	METRIC_INC(c->env->metrics, messages_received);
	if (opcode == WS_TEXT)
		METRIC_INC(c->env->metrics, text_messages);
	else
		METRIC_INC(c->env->metrics, binary_messages);
	if (c->is_echo)
		echo(c, opcode, p, n);
	else
		c->env->ops->message(c, opcode, p, n);
}

/* Judges a data frame by its head; false when the connection was closed for it. */
static bool check_data_frame(struct conn *c, const struct ws_piece *w)
{
	const struct config *config = c->env->config;
	const struct conn_input *in = c->input;
	bool is_inside = in && in->opcode;
	size_t so_far = in ? in->message.len : 0;

	if (w->opcode == WS_CONTINUATION && !is_inside) {
		broken(c, WS_CODE_PROTOCOL_ERROR, "continuation of nothing");
		return false;
	}
	if (w->opcode != WS_CONTINUATION && is_inside) {
		broken(c, WS_CODE_PROTOCOL_ERROR, "message inside a message");
		return false;
	}
	if (w->frame_bytes > config->max_frame_size) {
		too_big(c, "max_frame_size", w->frame_bytes);
		return false;
	}
	if (w->frame_bytes + so_far > config->max_message_size) {
		too_big(c, "max_message_size", w->frame_bytes + so_far);
		return false;
	}
	if (w->opcode == WS_TEXT && !c->is_echo && config->text_messages == TEXT_REJECT) {
		METRIC_INC(c->env->metrics, text_messages);
		conn_log(c, LOG_NOTICE, EV_LIMIT_EXCEEDED, "text_messages",
			 "sent a text message, text_messages is reject; closing with 1003");
		conn_close(c, WS_CODE_UNSUPPORTED_DATA, "text messages are not accepted");
		return false;
	}
	return true;
}

static bool check_text(struct conn *c, uint32_t state)
{
	if (state != UTF8_REJECT)
		return true;
	broken(c, WS_CODE_INVALID_DATA, "text is not UTF-8");
	return false;
}

/* A message that lies in one piece in the read buffer: nothing is copied. */
static void take_whole(struct conn *c, const struct ws_piece *w)
{
	if (w->opcode == WS_TEXT && !check_text(c, utf8_valid(w->data, w->len) ? 0 : UTF8_REJECT))
		return;
	if (c->input)
		c->input->started_ns = 0; /* its head had come alone */
	deliver(c, w->opcode, w->data, w->len);
}

static void take_part(struct conn *c, const struct ws_piece *w)
{
	struct conn_input *in = input_of(c);
	size_t ahead = (size_t)MIN(w->frame_bytes, (uint64_t)RESERVE_MAX);

	/* The buffer grows by doubling, but not past the end of a large frame. */
	if (in && !in->grow_to)
		in->grow_to = w->frame_bytes < RESERVE_MAX
				      ? BUF_NO_LIMIT
				      : in->message.len + (size_t)w->frame_bytes;
	if (!in || (w->begins && buf_reserve(&in->message, ahead, in->grow_to)) ||
	    buf_append(&in->message, w->data, w->len, in->grow_to)) {
		conn_close(c, WS_CODE_INTERNAL_ERROR, "out of memory");
		return;
	}
	if (w->ends)
		in->grow_to = 0;
	if (w->opcode != WS_CONTINUATION)
		in->opcode = w->opcode;
	if (in->opcode == WS_TEXT) {
		in->utf8 = utf8_feed(in->utf8, w->data, w->len);
		if (w->ends && w->fin && in->utf8 != UTF8_ACCEPT)
			in->utf8 = UTF8_REJECT;
		if (!check_text(c, in->utf8))
			return;
	}
	if (!w->ends || !w->fin)
		return;
	deliver(c, in->opcode, in->message.data, in->message.len);
	if (c->input != in)
		return;
	buf_fini(&in->message);
	in->opcode = 0;
	in->utf8 = UTF8_ACCEPT;
	in->started_ns = 0;
}

static void take_data(struct conn *c, const struct ws_piece *w)
{
	bool is_inside = c->input && c->input->opcode;

	if (w->len == 0 && !w->ends)
		return; /* only the head is here */
	if (!is_inside && w->ends && w->fin && w->len == w->frame_bytes)
		take_whole(c, w);
	else
		take_part(c, w);
}

/* ------------------------------------------------------------- control frames */

static void take_close(struct conn *c, const uint8_t *p, size_t n)
{
	enum ws_close_result r;
	const char *reason;
	uint16_t code;
	size_t len;

	c->got_close = true;
	c->is_deaf = true;
	if (c->state == CONN_CLOSING) {
		conn_want_write(c); /* perhaps this was all it waited for */
		return;
	}
	r = ws_parse_close(p, n, &code, &reason, &len);
	if (r != WS_CLOSE_OK) {
		broken(c, (uint16_t)r, "close frame is not valid");
		return;
	}
	conn_close(c, code, "");
}

static void take_control(struct conn *c, const struct ws_piece *w)
{
	const uint8_t *p = w->data;
	size_t n = w->len;

	if (w->len < w->frame_bytes) {
		struct conn_input *in = input_of(c);

		if (!in) {
			conn_abort(c);
			return;
		}
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
		take_close(c, p, n);
	else if (w->opcode == WS_PING && c->state == CONN_OPEN)
		conn_send_control(c, WS_PONG, p, n);
}

/* --------------------------------------------------------------------- frames */

static void take_piece(struct conn *c, const struct ws_piece *w)
{
	bool is_control = w->opcode >= WS_CLOSE;

	if (w->begins) {
		c->window_frames++;
		METRIC_INC(c->env->metrics, frames_received);
		if (c->state == CONN_OPEN && !is_control && !check_data_frame(c, w))
			return;
	}
	if (w->ends)
		c->last_sign_ns = c->env->reactor->now_ns;
	if (is_control)
		take_control(c, w);
	else if (c->state == CONN_OPEN)
		take_data(c, w);
}

/* Whether the next frame may be processed now; false after it arranged for going on later. */
static bool may_process(struct conn *c, unsigned *budget)
{
	const struct config *config = c->env->config;
	uint64_t now = c->env->reactor->now_ns;

	if (c->is_deaf || c->state == CONN_DEAD)
		return false;
	if (c->state == CONN_CLOSING)
		return true;
	if (now >= c->window_ns + NS_PER_S) {
		c->window_ns = now;
		c->window_frames = 0;
	}
	if (config->max_incoming_frames_per_second &&
	    c->window_frames >= config->max_incoming_frames_per_second) {
		METRIC_INC(c->env->metrics, throttles);
		if (config->rate_limit_action == RATE_CLOSE) {
			conn_log(c, LOG_NOTICE, EV_THROTTLED, "max_incoming_frames_per_second",
				 "sends more than max_incoming_frames_per_second; closing with "
				 "1008");
			conn_close(c, WS_CODE_POLICY, "too many frames");
			return false;
		}
		conn_log(c, LOG_INFO, EV_THROTTLED, "max_incoming_frames_per_second",
			 "sends more than max_incoming_frames_per_second; not read until its next "
			 "second");
		c->is_throttled = true;
		conn_arm(c, c->window_ns + NS_PER_S);
		return false;
	}
	if (*budget == 0) {
		conn_want_read(c);
		return false;
	}
	(*budget)--;
	return !conn_is_held(c);
}

bool conn_is_held(const struct conn *c)
{
	const struct config *config = c->env->config;

	return c->env->is_congested || c->env->is_stopping || c->is_throttled || c->is_spool_held ||
	       (c->queue && (c->queue_bytes > config->max_send_buffer / 2 ||
			     c->queue_count > config->message_queue_size / 2));
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
		d = take_decoder(c->env);
	if (!d) {
		conn_abort(c);
		return n;
	}
	while (at < n && (!ws_decoder_is_idle(d) ? !c->is_deaf && c->state != CONN_DEAD
						 : may_process(c, &budget))) {
		enum ws_result r = ws_decoder_feed(d, p + at, n - at, &used, &w, &code);

		at += used;
		if (r == WS_PIECE) {
			take_piece(c, &w);
		} else if (r == WS_BROKEN) {
			broken(c, code, "frame is not valid");
			c->is_deaf = true;
		}
	}
	if (ws_decoder_is_idle(d) || c->is_deaf || c->state == CONN_DEAD) {
		give_back(c->env, d);
	} else if (input_of(c)) {
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
		used = feed_head(c, p, n);
	if (used < n && (c->state == CONN_OPEN || c->state == CONN_CLOSING))
		used += feed_frames(c, p + used, n - used);
	if (c->is_deaf || c->state == CONN_DEAD || c->state == CONN_LINGERING)
		return n;
	return used;
}

/* True when it must not be read now; it is where it will be found again when it may. */
static bool hold(struct conn *c)
{
	if (c->state != CONN_OPEN || !conn_is_held(c))
		return false;
	if (c->env->is_congested && list_is_empty(&c->read_node))
		list_add_tail(&c->env->stalled, &c->read_node);
	return true;
}

void conn_feed(struct conn *c, uint8_t *p, size_t n)
{
	size_t used;

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

/* Goes on with parked bytes; true when none are left. */
static bool feed_parked(struct conn *c)
{
	struct conn_input *in = c->input;
	struct buf parked;
	size_t at;

	if (!in || in->parked_at == in->parked.len)
		return true;
	/* Taken out while it is processed: a close meanwhile frees what the connection holds. */
	parked = in->parked;
	at = in->parked_at;
	in->parked = (struct buf){0};
	in->parked_at = 0;
	at += feed_some(c, parked.data + at, parked.len - at);
	if (at < parked.len && input_of(c)) {
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
	if (c->state == CONN_CLOSING && c->got_close && !conn_is_said(c)) {
		c->can_read = true; /* it still reads what we say; its end is met again then */
		return;
	}
	conn_abort(c);
}

void conn_read(struct conn *c)
{
	struct conn_env *env = c->env;
	ssize_t n;

	list_del(&c->read_node);
	if (c->state == CONN_DEAD || hold(c) || !feed_parked(c) || !c->can_read ||
	    c->state == CONN_DEAD || hold(c))
		return;
	n = transport_recv(&c->transport, env->read_buffer, env->read_buffer_bytes);
	if (n == -EAGAIN) {
		c->can_read = false;
		return;
	}
	if (n <= 0) {
		c->can_read = false;
		conn_feed_end(c);
		return;
	}
	/* A short read empties the socket, unless the peer's end is behind the bytes. */
	if ((size_t)n < env->read_buffer_bytes && !c->has_hup)
		c->can_read = false;
	else
		conn_want_read(c);
	conn_feed(c, env->read_buffer, (size_t)n);
}
