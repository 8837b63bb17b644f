/* SPDX-License-Identifier: MIT */
/* One client: connects, greets, keeps alive, comes back. What it is for is the command's. */
#include "client/client_private.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/text.h"

#define HEARTBEAT_NS (30 * NS_PER_S)
#define SILENCE_NS \
	(35 * NS_PER_S) /* after which the server is pinged: its own pings are due by then */
#define DEAD_NS (95 * NS_PER_S) /* silence after which the connection is given up */
#define LINES_PER_SECOND 10     /* of messages to the user */
#define END_TEXT 640

typedef Websocket__WebSocketMessage message;

static struct client_session *session_of(struct endpoint *e)
{
	return CONTAINER_OF(e, struct client_session, endpoint);
}

static struct wheel *wheel_of(struct client_session *s)
{
	return &s->client->loop.reactor.wheel;
}

/* ------------------------------------------------------------------------ words */

static void session_vsay(struct client_session *s, const char *format, va_list args)
{
	struct client *c = s->client;

	(void)fflush(stdout); /* so that both streams keep their order on a terminal */
	fputs("wsbind client: ", stderr);
	if (c->n_sessions > 1)
		fprintf(stderr, "client %u: ", s->index);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

void session_say(struct client_session *s, const char *format, ...)
{
	struct client *c = s->client;
	uint64_t now = clock_now_ns();
	va_list args;

	if (now - c->said_ns >= NS_PER_S) {
		c->said_ns = now;
		c->said = 0;
	}
	if (c->said++ >= LINES_PER_SECOND)
		return;
	va_start(args, format);
	session_vsay(s, format, args);
	va_end(args);
}

/* ------------------------------------------------------------------------- ends */

static void session_done(struct client_session *s, int status)
{
	if (s->is_done)
		return;
	s->is_done = true;
	wheel_del(wheel_of(s), &s->retry);
	wheel_del(wheel_of(s), &s->heartbeat);
	client_done(s, status);
}

void session_stop(struct client_session *s)
{
	if (s->endpoint.state == ENDPOINT_IDLE)
		session_done(s, 0);
	else
		endpoint_close(&s->endpoint, WS_CODE_NORMAL, "");
}

void session_fail(struct client_session *s, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	session_vsay(s, format, args);
	va_end(args);
	session_done(s, 1);
	if (s->endpoint.state != ENDPOINT_IDLE)
		endpoint_close(&s->endpoint, WS_CODE_NORMAL, "");
}

/* Whether trying again cannot help: the request itself is refused. */
static bool is_final(const struct endpoint_end *end)
{
	return end->kind == ENDPOINT_END_REFUSED && end->status >= 400 && end->status < 500 &&
	       end->status != 408 && end->status != 425 && end->status != 429;
}

static void session_retry(struct client_session *s, const char *why)
{
	uint64_t delay_ns;
	uint32_t random;

	system_random(&random, sizeof(random));
	if (!backoff_next(&s->backoff, random, &delay_ns)) {
		session_fail(s, "%s; giving up after %llu more attempt%s", why,
			     (unsigned long long)s->backoff.max_attempts,
			     s->backoff.max_attempts == 1 ? "" : "s");
		return;
	}
	delay_ns = MIN(MAX(delay_ns, s->wish_ns), BACKOFF_MAX_NS);
	s->wish_ns = 0;
	session_say(s, "%s; attempt %llu of %llu in %.1f s", why,
		    (unsigned long long)s->backoff.attempts,
		    (unsigned long long)s->backoff.max_attempts, (double)delay_ns / NS_PER_S);
	wheel_add(wheel_of(s), &s->retry, clock_now_ns() + delay_ns);
}

/* The address is the target's, of which an end knows nothing. */
static void session_format_end(const struct client_session *s, const struct endpoint_end *end,
			       char why[END_TEXT])
{
	if (end->kind == ENDPOINT_END_UNREACHABLE)
		snprintf(why, END_TEXT, "cannot connect to %s: %s", s->client->target.host,
			 strerror(-end->error));
	else
		endpoint_end_format(why, END_TEXT, end);
}

static void session_closed(struct endpoint *e, const struct endpoint_end *end)
{
	struct client_session *s = session_of(e);
	char why[END_TEXT];
	bool is_over;

	wheel_del(wheel_of(s), &s->heartbeat);
	s->is_greeted = false;
	client_lost(s);
	if (s->is_done || s->client->is_stopping ||
	    (s->client->file && client_file_is_done(s->client->file))) {
		session_done(s, 0);
		return;
	}
	session_format_end(s, end, why);
	is_over = end->kind == ENDPOINT_END_CLOSED && close_code_find(end->code)->client_stops;
	if (is_over && s->client->file) {
		session_fail(s, "%s before the file was delivered", why);
	} else if (is_over) {
		session_say(s, "%s", why);
		session_done(s, 0);
	} else if (is_final(end)) {
		session_fail(s, "%s", why);
	} else {
		session_retry(s, why);
	}
}

static void session_retry_due(struct wheel_timer *t)
{
	struct client_session *s = CONTAINER_OF(t, struct client_session, retry);

	endpoint_connect(&s->endpoint);
}

/* ----------------------------------------------------------------------- sending */

static void session_heartbeat_due(struct wheel_timer *t)
{
	struct client_session *s = CONTAINER_OF(t, struct client_session, heartbeat);
	uint64_t now = clock_now_ns(), silent_ns = now - s->endpoint.last_read_ns;
	struct msg_builder b;

	if (silent_ns >= DEAD_NS) {
		endpoint_abort(&s->endpoint, -ETIMEDOUT);
		return;
	}
	msg_init_heartbeat(&b);
	/* A full queue is a sign of life that waits already. */
	(void)!endpoint_send_msg(&s->endpoint, &b);
	if (silent_ns >= SILENCE_NS)
		(void)!endpoint_send(&s->endpoint, WS_PING, NULL, 0);
	wheel_add(wheel_of(s), t, now + HEARTBEAT_NS);
}

static void format_uuid(char out[CLIENT_UUID_TEXT])
{
	uint8_t random[16];

	system_random(random, sizeof(random));
	uuid4_format(out, random);
}

int session_chat(struct client_session *s, const char *text)
{
	char id[CLIENT_UUID_TEXT];
	struct msg_builder b;
	int r;

	format_uuid(id);
	msg_init_chat(&b, id, s->user, text, (int64_t)(clock_wall_ms() / 1000));
	r = endpoint_send_msg(&s->endpoint, &b);
	if (r == 0) {
		s->sent++;
		s->client->sent++;
	}
	return r;
}

/* The first message: who we are, and what we want acknowledged. */
static void session_send_connect(struct client_session *s)
{
	char session_id[CLIENT_UUID_TEXT], text[CLIENT_UUID_TEXT];
	struct msg_builder b;

	format_uuid(session_id);
	format_uuid(text);
	(void)!uuid_parse(text, s->connect_id); /* it is one */
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONNECT);
	msg_set_request_id(&b, s->connect_id, sizeof(s->connect_id));
	msg_set_session_id(&b, session_id);
	msg_set_capabilities(&b, s->client->mode == CLIENT_FILE ? MSG_CAP_ACK : 0);
	if (endpoint_send_msg(&s->endpoint, &b) < 0)
		session_fail(s, "out of memory");
}

static void session_opened(struct endpoint *e)
{
	struct client_session *s = session_of(e);
	char address[TARGET_ADDRESS_TEXT + 8];
	const char *name = s->client->options.user;

	backoff_reset(&s->backoff);
	s->wish_ns = 0;
	s->own_id[0] = '\0';
	if (name && s->client->n_sessions > 1)
		snprintf(s->user, sizeof(s->user), "%s-%u", name, s->index);
	else if (name)
		snprintf(s->user, sizeof(s->user), "%s", name);
	else
		snprintf(s->user, sizeof(s->user), "user-%s", endpoint_format_local(address, e));
	session_send_connect(s);
	wheel_add(wheel_of(s), &s->heartbeat, clock_now_ns() + HEARTBEAT_NS);
	client_opened(s);
}

/* ---------------------------------------------------------------------- receiving */

/* The answer to our CONNECT: a file needs a server that acknowledges. */
static void session_take_greeting(struct client_session *s, const message *m)
{
	const Websocket__ControlMessage *control = m->control;
	unsigned caps = msg_caps_parse(control->capabilities, control->n_capabilities);

	if (control->type == WEBSOCKET__CONTROL_TYPE__ERROR && s->client->mode == CLIENT_FILE) {
		session_fail(s, "the server refuses CONNECT");
	} else if (s->client->mode == CLIENT_FILE && !(caps & MSG_CAP_ACK)) {
		session_fail(s, "the server does not acknowledge messages (capability \"ack\"), "
				"which sending a file needs");
	} else {
		s->is_greeted = true;
		client_greeted(s);
	}
}

static bool is_answer_to(const message *m, const uint8_t id[16])
{
	return m->request_id.len == 16 && memcmp(m->request_id.data, id, 16) == 0;
}

static void session_take_control(struct client_session *s, const message *m)
{
	const Websocket__ControlMessage *control = m->control;
	bool is_answer = control->type == WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE ||
			 control->type == WEBSOCKET__CONTROL_TYPE__ERROR;

	if (control->type == WEBSOCKET__CONTROL_TYPE__CONFIG)
		snprintf(s->own_id, sizeof(s->own_id), "%s", control->session_id);
	else if (client_is_dismissal(m, s->own_id))
		s->wish_ns = control->reconnect_after_ms * NS_PER_MS;
	else if (is_answer && !s->is_greeted && is_answer_to(m, s->connect_id))
		session_take_greeting(s, m);
	else if (is_answer && s->client->file)
		(void)client_file_answer(s->client->file, s, m);
}

static bool shows_messages(const struct client *c)
{
	return c->n_sessions == 1 && c->mode != CLIENT_FILE;
}

static void session_message(struct endpoint *e, uint8_t opcode, uint8_t *data, size_t n)
{
	struct client_session *s = session_of(e);
	struct client *c = s->client;
	enum msg_result r;
	message *m;

	c->received++;
	if (opcode == WS_TEXT) {
		if (shows_messages(c))
			client_show_text(stdout, (const char *)data, n);
		return;
	}
	arena_reset(&c->arena);
	r = msg_decode(&c->arena, data, n, &m);
	if (r != MSG_OK) {
		session_say(s, "a message of %zu bytes is not understood: %s", n,
			    msg_result_text(r));
		return;
	}
	if (shows_messages(c))
		client_show(stdout, m, s->own_id);
	if (m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL)
		session_take_control(s, m);
}

static void session_pong(struct endpoint *e, const uint8_t *data, size_t n)
{
	struct client_session *s = session_of(e);

	if (s->client->file && s->is_greeted)
		client_file_pong(s->client->file, s, data, n);
}

static void session_writable(struct endpoint *e)
{
	struct client_session *s = session_of(e);

	if (s->client->file && s->is_greeted)
		client_file_go_on(s->client->file, s);
}

void session_start(struct client_session *s, struct client *c, unsigned index)
{
	static const struct endpoint_ops ops = {
		.opened = session_opened,
		.message = session_message,
		.pong = session_pong,
		.writable = session_writable,
		.closed = session_closed,
	};

	s->client = c;
	s->index = index;
	s->backoff = (struct backoff){
		.first_ns = c->config->reconnect_delay_ms * NS_PER_MS,
		.factor = c->config->reconnect_backoff,
		.max_attempts = c->config->reconnect_attempts,
	};
	wheel_timer_init(&s->retry, session_retry_due);
	wheel_timer_init(&s->heartbeat, session_heartbeat_due);
	endpoint_init(&s->endpoint, &c->loop, &ops);
	endpoint_connect(&s->endpoint);
}

void session_fini(struct client_session *s)
{
	endpoint_fini(&s->endpoint);
}
