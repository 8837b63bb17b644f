/* SPDX-License-Identifier: MIT */
#include "client/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "client/client_show.h"
#include "client/session_private.h"
#include "client/system.h"

#define HEARTBEAT_NS (30 * NS_PER_S)
#define SILENCE_NS (35 * NS_PER_S) /* then the server is pinged: its own pings are due by then */
#define DEAD_NS (95 * NS_PER_S)    /* silence after which the connection is given up */
#define AT_ONCE_NS NS_PER_S        /* of a connection after which the next may follow at once */
#define END_TEXT 640

typedef Websocket__WebSocketMessage message;

static struct session *session_of(struct endpoint *e)
{
	return CONTAINER_OF(e, struct session, endpoint);
}

static struct wheel *session_wheel(struct session *s)
{
	return &s->group->loop->reactor.wheel;
}

/* ------------------------------------------------------------------- connecting */

static void session_connect(struct session *s)
{
	target_refresh_token(s->group->target);
	s->token = s->group->target->n_tokens;
	s->opened_ns = 0;
	session_bring_position(s);
	endpoint_connect(&s->endpoint);
}

static void session_retry(struct session *s, const char *why)
{
	uint64_t delay_ns;
	uint32_t random;

	system_random_bytes(&random, sizeof(random));
	if (!backoff_next(&s->backoff, random, &delay_ns)) {
		session_fail(s, "%s; giving up after %" PRIu64 " more attempt%s", why,
			     s->backoff.max_attempts, s->backoff.max_attempts == 1 ? "" : "s");
		return;
	}
	/*
	 * The server knows when it is back; but no server keeps us away for more than the maximum.
	 */
	delay_ns = MIN(MAX(delay_ns, s->stay_away_ns), BACKOFF_MAX_NS);
	s->stay_away_ns = 0;
	session_report(s, "%s; attempt %" PRIu64 " of %" PRIu64 " in %.1f s", why,
		       s->backoff.attempts, s->backoff.max_attempts, (double)delay_ns / NS_PER_S);
	wheel_add(session_wheel(s), &s->retry, clock_now_ns() + delay_ns);
}

/* The address is the target's, of which an end knows nothing. */
static void session_format_end(const struct session *s, const struct endpoint_end *end,
			       char why[END_TEXT])
{
	if (end->kind == ENDPOINT_END_UNREACHABLE)
		snprintf(why, END_TEXT, "cannot connect to %s: %s", s->group->loop->target->host,
			 strerror(-end->error));
	else
		endpoint_end_format(why, END_TEXT, end);
}

/* A handshake that was let through only to say why it is refused was no success. */
static void session_note_refusal(struct session *s, const struct endpoint_end *end)
{
	if (end->kind != ENDPOINT_END_CLOSED || !close_code_is_refusal(end->code))
		return;
	s->backoff.attempts = s->attempts_before;
	s->stay_away_ns = MAX(s->stay_away_ns, s->error_ns);
}

static void session_stay_away(struct session *s, const struct endpoint_end *end, const char *why)
{
	bool is_normal = end->kind == ENDPOINT_END_CLOSED && end->code == WS_CODE_NORMAL;

	if (is_normal && s->group->delivers_file) {
		session_fail(s, "%s before the file was delivered", why);
	} else if (is_normal) {
		session_report(s, "%s", why);
		session_finish(s, 0);
	} else {
		session_fail(s, "%s", why);
	}
}

/* A server that sends everyone away at once is not to be asked a thousand times a second. */
static void session_come_back_at_once(struct session *s, const char *why)
{
	if (!s->opened_ns || clock_now_ns() - s->opened_ns < AT_ONCE_NS) {
		session_retry(s, why);
		return;
	}
	session_report(s, "%s; connecting again", why);
	session_connect(s);
}

/* Each token is brought once: the same one would be refused in the same way. */
static void session_come_back_fresh(struct session *s, const char *why)
{
	target_refresh_token(s->group->target);
	if (s->token == s->group->target->n_tokens)
		session_fail(s, "%s; there is no other token", why);
	else
		session_come_back_at_once(s, why);
}

static void session_come_back(struct session *s, const struct endpoint_end *end)
{
	char why[END_TEXT];

	session_format_end(s, end, why);
	switch (endpoint_end_return(end)) {
	case CLOSE_RETURN_NOT:
		session_stay_away(s, end, why);
		break;
	case CLOSE_RETURN_ANEW:
		session_drop_token(s);
		session_retry(s, why);
		break;
	case CLOSE_RETURN_LATER:
		session_retry(s, why);
		break;
	case CLOSE_RETURN_AT_ONCE:
		session_come_back_at_once(s, why);
		break;
	case CLOSE_RETURN_FRESH:
		session_come_back_fresh(s, why);
		break;
	}
}

static void session_closed(struct endpoint *e, const struct endpoint_end *end)
{
	struct session *s = session_of(e);

	wheel_del(session_wheel(s), &s->heartbeat);
	s->is_accepted = false;
	session_leave_all(s);
	session_note_refusal(s, end);
	s->group->ops->closed(s);
	/* Whoever wanted the end does not ask how it came about. */
	if (s->is_done || s->is_stopping)
		session_finish(s, 0);
	else
		session_come_back(s, end);
}

static void session_retry_due(struct wheel_timer *t)
{
	session_connect(CONTAINER_OF(t, struct session, retry));
}

/* ----------------------------------------------------------------------- sending */

static void session_heartbeat_due(struct wheel_timer *t)
{
	struct session *s = CONTAINER_OF(t, struct session, heartbeat);
	uint64_t now = clock_now_ns(), silent_ns = now - s->endpoint.last_read_ns;
	struct msg_builder b;

	/* Not even our own pings were answered; TCP alone would wait for a quarter of an hour. */
	if (silent_ns >= DEAD_NS) {
		endpoint_abort(&s->endpoint, -ETIMEDOUT);
		return;
	}
	msg_init_heartbeat(&b);
	/* A full queue is a sign of life that waits already. */
	(void)!endpoint_send_msg(&s->endpoint, &b);
	if (silent_ns >= SILENCE_NS)
		(void)!endpoint_send(&s->endpoint, WS_PING, NULL, 0);
	wheel_add(session_wheel(s), t, now + HEARTBEAT_NS);
}

static void session_new_uuid(char out[SESSION_UUID_TEXT])
{
	uint8_t random[16];

	system_random_bytes(random, sizeof(random));
	uuid4_format(out, random);
}

int session_chat(struct session *s, const char *text)
{
	char id[SESSION_UUID_TEXT];
	uint8_t request_id[16];
	struct msg_builder b;
	int r;

	session_new_uuid(id);
	session_next_id(s, request_id);
	msg_init_chat(&b, id, s->user, text, (int64_t)(clock_wall_ms() / 1000));
	msg_set_request_id(&b, request_id, sizeof(request_id));
	r = endpoint_send_msg(&s->endpoint, &b);
	/* What was refused room is not lost silently: the caller says so, or tries the next one. */
	if (r == 0) {
		s->sent++;
		s->group->sent++;
		session_note_said(s, &b, request_id);
	}
	return r;
}

/* The first messages: who we are, what we want acknowledged, and where we go on. */
static void session_send_connect(struct session *s)
{
	char session_id[SESSION_UUID_TEXT];
	struct msg_builder b;

	/* Another one for each connection: nothing of the last one is asked for. */
	session_new_uuid(session_id);
	session_next_id(s, s->connect_id);
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONNECT);
	msg_set_request_id(&b, s->connect_id, sizeof(s->connect_id));
	msg_set_session_id(&b, session_id);
	msg_set_capabilities(&b, s->group->delivers_file    ? MSG_CAP_ACK
				 : s->group->keeps_identity ? MSG_CAP_RESUME
							    : 0);
	if (endpoint_send_msg(&s->endpoint, &b) < 0 || session_subscribe(s) < 0)
		session_fail(s, "out of memory");
}

static void session_opened(struct endpoint *e)
{
	struct session *s = session_of(e);
	char address[TARGET_ADDRESS_TEXT + 8];
	const char *name = s->group->user;

	s->opened_ns = clock_now_ns();
	s->attempts_before = s->backoff.attempts;
	backoff_reset(&s->backoff);
	s->stay_away_ns = 0;
	s->error_ns = 0;
	s->own_id[0] = '\0';
	/* Several sessions under one name would look like one to everybody else. */
	if (name && s->group->n > 1)
		snprintf(s->user, sizeof(s->user), "%s-%u", name, s->index);
	else if (name)
		snprintf(s->user, sizeof(s->user), "%s", name);
	else
		snprintf(s->user, sizeof(s->user), "user-%s", endpoint_format_local(address, e));
	session_send_connect(s);
	wheel_add(session_wheel(s), &s->heartbeat, s->opened_ns + HEARTBEAT_NS);
	s->group->ops->opened(s);
}

/* ---------------------------------------------------------------------- receiving */

/* The answer to our CONNECT: a file needs a server that acknowledges. */
static void session_take_connect_answer(struct session *s, const Websocket__ControlMessage *control)
{
	unsigned caps = msg_caps_parse(control->capabilities, control->n_capabilities);
	bool is_refused = control->type == WEBSOCKET__CONTROL_TYPE__ERROR;

	/* Chat needs nothing of CONNECT, so it goes on where the server refuses that. */
	if (is_refused && s->group->delivers_file) {
		session_fail(s, "the server refuses CONNECT");
	} else if (s->group->delivers_file && !(caps & MSG_CAP_ACK)) {
		session_fail(s, "the server does not acknowledge messages (capability \"ack\"), "
				"which sending a file needs");
	} else {
		s->is_accepted = true;
		session_take_token(s, control);
		/* It acknowledges nothing, or nothing twice: there is nothing to wait for. */
		s->is_once = caps & MSG_CAP_ONCE;
		if (!s->is_once)
			session_forget_said(s);
		s->group->ops->accepted(s);
	}
}

static void session_take_answer(struct session *s, const message *m)
{
	if (!s->is_accepted && session_is_answer_to(m, s->connect_id))
		session_take_connect_answer(s, m->control);
	else if (!session_take_join(s, m) && !session_take_said(s, m))
		s->group->ops->answered(s, m);
}

static void session_take_control(struct session *s, const message *m)
{
	const Websocket__ControlMessage *control = m->control;

	switch (control->type) {
	case WEBSOCKET__CONTROL_TYPE__CONFIG:
		/* With the greeting; after that a DISCONNECT can be told from a notice. */
		snprintf(s->own_id, sizeof(s->own_id), "%s", control->session_id);
		session_take_token(s, control);
		session_take_config(s, m);
		if (session_say_again(s) < 0)
			session_fail(s, "out of memory");
		break;
	case WEBSOCKET__CONTROL_TYPE__DISCONNECT:
		if (client_is_own_disconnect(m, s->own_id))
			s->stay_away_ns = control->reconnect_after_ms * NS_PER_MS;
		break;
	case WEBSOCKET__CONTROL_TYPE__GAP:
		session_take_gap(s, m);
		break;
	case WEBSOCKET__CONTROL_TYPE__POSITION:
		session_take_position(s, m);
		break;
	case WEBSOCKET__CONTROL_TYPE__ERROR:
		if (control->reconnect_after_ms)
			s->error_ns = control->reconnect_after_ms * NS_PER_MS;
		session_take_answer(s, m);
		break;
	case WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE:
		session_take_answer(s, m);
		break;
	default:
		break;
	}
}

static void session_message(struct endpoint *e, uint8_t opcode, uint8_t *data, size_t n)
{
	struct session *s = session_of(e);
	struct session_group *g = s->group;
	enum msg_result r;
	message *m;

	g->received++;
	if (opcode == WS_TEXT) {
		g->ops->text(s, (const char *)data, n);
		return;
	}
	/* Nobody keeps a message beyond this call: the next one is decoded into the same memory. */
	arena_reset(&g->arena);
	r = msg_decode(&g->arena, data, n, &m);
	if (r != MSG_OK) {
		session_report(s, "a message of %zu bytes is not understood: %s", n,
			       msg_result_text(r));
		return;
	}
	session_take_sequence(s, m);
	if (m->has_sequence_case && session_is_own(s, m))
		return;
	g->ops->message(s, m);
	if (m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL)
		session_take_control(s, m);
}

static void session_writable(struct endpoint *e)
{
	struct session *s = session_of(e);

	if (s->is_accepted)
		s->group->ops->writable(s);
}

void session_start(struct session *s, struct session_group *group, unsigned index)
{
	static const struct endpoint_ops ops = {
		.opened = session_opened,
		.message = session_message,
		.writable = session_writable,
		.closed = session_closed,
	};

	s->group = group;
	s->index = index;
	s->backoff = group->backoff;
	wheel_timer_init(&s->retry, session_retry_due);
	wheel_timer_init(&s->heartbeat, session_heartbeat_due);
	endpoint_init(&s->endpoint, group->loop, &ops);
	session_init_id(s);
	if (session_init_positions(s) < 0)
		session_fail(s, "out of memory");
	else
		session_connect(s);
}

void session_fini(struct session *s)
{
	endpoint_fini(&s->endpoint);
	session_forget_said(s);
	free(s->positions);
}
