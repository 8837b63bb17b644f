/* SPDX-License-Identifier: MIT */
/* A session goes on where its last connection ended, in all of its channels. */
#include "client/session.h"

#include <stdlib.h>

#include "far.h"

#define OWN_ID "11111111-2222-4333-8444-555555555555"

/* A session over a socket pair, and what it has told its command. */
struct set {
	struct endpoint_loop loop;
	struct target target;
	struct session_group group;
	struct session session;
	struct far far;
	struct position start[3];
	char said[512]; /* "hello, a: recovered, a: missed, " */
	int status;     /* of its end; -1: none yet */
};

static struct set *set_of(struct session *s)
{
	return CONTAINER_OF(s, struct set, session);
}

static void WB_PRINTF(2, 3) say(struct set *s, const char *format, ...)
{
	size_t n = strlen(s->said);
	va_list args;

	va_start(args, format);
	vsnprintf(s->said + n, sizeof(s->said) - n, format, args);
	va_end(args);
}

static void on_nothing(struct session *s)
{
	(void)s;
}

static void on_answer(struct session *s, const Websocket__WebSocketMessage *m)
{
	(void)s;
	(void)m;
}

static void on_message(struct session *s, const Websocket__WebSocketMessage *m)
{
	if (m->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE)
		say(set_of(s), "%s, ", m->chat->content);
}

static void on_text(struct session *s, const char *text, size_t n)
{
	say(set_of(s), "%.*s, ", (int)n, text);
}

static void on_joined(struct session *s, const struct position *p, enum position_answer answer)
{
	static const char *const words[] = {"unchanged", "begun", "recovered", "lost"};

	say(set_of(s), "%s: %s, ", p->channel ? p->channel : "home", words[answer]);
}

static void on_missed(struct session *s, const struct position *p,
		      const Websocket__ControlMessage *control)
{
	say(set_of(s), "%s: missed by %s, ", p->channel ? p->channel : "home", control->reason);
}

static void on_done(struct session *s, int status)
{
	set_of(s)->status = status;
}

static const struct session_ops ops = {
	.opened = on_nothing,
	.accepted = on_nothing,
	.answered = on_answer,
	.message = on_message,
	.text = on_text,
	.joined = on_joined,
	.missed = on_missed,
	.writable = on_nothing,
	.closed = on_nothing,
	.done = on_done,
};

/* Its next connection is over the socket pair, instead of TCP. */
static void set_open(struct set *s)
{
	endpoint_abort(&s->session.endpoint, 0);
	far_turn(&s->loop);
	wheel_del(&s->loop.reactor.wheel, &s->session.retry);
	far_open(&s->far, &s->session.endpoint);
}

/* In the home and in as many of the channels "a" and "b". */
static struct set *set_new(size_t n_channels)
{
	const struct endpoint_limits limits = {.queue_bytes = 1 << 20, .message_bytes = 1 << 20};
	struct set *s = calloc(1, sizeof(*s));
	struct ws_url url;
	const char *why;

	/* It stands still, and goes forward alone: what waits for a while doesn't wait here. */
	clock_set_for_test(clock_now_ns());
	s->start[0].channel = n_channels ? "" : NULL;
	s->start[1].channel = "a";
	s->start[2].channel = "b";
	s->status = -1;
	CHECK_EQ(ws_url_parse("ws://127.0.0.1:1/", &url), 0);
	CHECK_EQ(target_init(&s->target, &url, &why), 0);
	CHECK_EQ(endpoint_loop_init(&s->loop, &s->target, &limits), 0);
	s->group = (struct session_group){
		.loop = &s->loop,
		.target = &s->target,
		.ops = &ops,
		.command = "client",
		.positions = s->start,
		.n_positions = 1 + n_channels,
		.backoff = {.first_ns = NS_PER_S, .factor = 1, .max_attempts = 5},
		.n = 1,
	};
	arena_init(&s->group.arena, 65536, 1 << 22);
	return s;
}

static void set_start(struct set *s)
{
	session_start(&s->session, &s->group, 1);
	set_open(s);
}

static void set_free(struct set *s)
{
	s->session.is_stopping = true;
	endpoint_abort(&s->session.endpoint, 0);
	far_turn(&s->loop);
	session_fini(&s->session);
	arena_fini(&s->group.arena);
	endpoint_loop_fini(&s->loop);
	far_close(&s->far);
	clock_set_for_test(0);
	free(s);
}

/* The next message of the client, which is a request of this type; it lives until the next one. */
static Websocket__WebSocketMessage *request(struct set *s, Websocket__ControlType type)
{
	static struct arena arena;
	Websocket__WebSocketMessage *m;

	if (arena.limit_bytes == 0)
		arena_init(&arena, 1 << 20, 1 << 20);
	arena_reset(&arena);
	CHECK(far_read(&s->far, &s->loop));
	CHECK_EQ(s->far.opcode, WS_BINARY);
	CHECK_EQ(msg_decode(&arena, s->far.payload, s->far.payload_n, &m), MSG_OK);
	CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__CONTROL);
	CHECK_EQ(m->control->type, type);
	CHECK_EQ(m->request_id.len, 16);
	return m;
}

static void turn(struct set *s)
{
	for (int i = 0; i < 20; i++)
		far_turn(&s->loop);
}

enum said { SAYS_NOTHING, SAYS_FALSE, SAYS_TRUE };

struct place {
	const char *channel;
	uint64_t epoch, sequence;
	enum said recovered;
};

/* A control message of the server with positions; @id: of the request, or NULL. */
static void tell(struct set *s, Websocket__ControlType type, const uint8_t *id, size_t n,
		 const struct place *places)
{
	Websocket__Position position[3], *list[3];
	struct msg_builder b;

	msg_init_control(&b, type);
	if (id)
		msg_set_request_id(&b, id, 16);
	for (size_t i = 0; i < n; i++) {
		list[i] = &position[i];
		websocket__position__init(list[i]);
		position[i].channel = (char *)(uintptr_t)places[i].channel;
		position[i].epoch = places[i].epoch;
		position[i].sequence = places[i].sequence;
		position[i].recovered = places[i].recovered == SAYS_TRUE;
		if (places[i].recovered != SAYS_NOTHING)
			position[i].has_recovered_case =
				WEBSOCKET__POSITION__HAS_RECOVERED_RECOVERED;
	}
	msg_set_positions(&b, list, n);
	if (type == WEBSOCKET__CONTROL_TYPE__CONFIG) {
		msg_set_session_id(&b, OWN_ID);
		msg_set_capabilities(&b, MSG_CAPS_ALL);
	} else if (n > 0 && places[0].channel[0] && type != WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE) {
		msg_set_channel(&b, places[0].channel);
	}
	msg_set_reason(&b, type == WEBSOCKET__CONTROL_TYPE__GAP ? "skipped" : NULL);
	far_send_msg(&s->far, &b);
	turn(s);
}

static void refuse(struct set *s, const uint8_t id[16], uint32_t code, uint32_t after_ms)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ERROR);
	msg_set_request_id(&b, id, 16);
	msg_set_code(&b, code);
	msg_set_reconnect_after_ms(&b, after_ms);
	far_send_msg(&s->far, &b);
	turn(s);
}

/* A message of somebody; @sequence 0: of a channel without history. */
static void hear(struct set *s, const char *channel, uint64_t sequence, const char *content,
		 const uint8_t *id)
{
	struct msg_builder b;

	msg_init_chat(&b, "", "ann", content, 0);
	if (channel[0])
		msg_set_channel(&b, channel);
	if (id)
		msg_set_request_id(&b, id, 16);
	b.m.sequence = sequence;
	if (sequence)
		b.m.has_sequence_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_SEQUENCE_SEQUENCE;
	far_send_msg(&s->far, &b);
	turn(s);
}

static void close_with_1012(struct set *s)
{
	far_send_frame(&s->far, true, WS_CLOSE, "\x03\xf4", 2);
	while (far_read(&s->far, &s->loop)) {
	}
	turn(s);
	far_close(&s->far);
}

/* What the next connection says, once its time has come. */
static const char *next_query(struct set *s)
{
	CHECK(wheel_is_armed(&s->session.retry));
	clock_set_for_test(s->session.retry.deadline_ns + NS_PER_S);
	strcpy(s->session.query, "unchanged");
	for (int i = 0; i < FAR_WAIT_MS && strcmp(s->session.query, "unchanged") == 0; i++)
		far_turn(&s->loop);
	return s->session.query;
}

TEST(session_goes_on_where_its_last_connection_ended)
{
	struct set *s = set_new(0);

	s->start[0].rewind = 3;
	set_start(s);
	CHECK_STR(s->session.query, "rewind=3");
	request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	tell(s, WEBSOCKET__CONTROL_TYPE__CONFIG, NULL, 1,
	     &(struct place){"x/y", 7, 10, SAYS_NOTHING});
	/* So that it is told of gaps. */
	CHECK_EQ(request(s, WEBSOCKET__CONTROL_TYPE__POSITION)->control->n_channels, 0);
	hear(s, "x/y", 12, "one", NULL);
	hear(s, "x/y", 15, "two", NULL);
	close_with_1012(s);
	CHECK_STR(next_query(s), "since=7.15&rewind=3");
	set_open(s);
	request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	tell(s, WEBSOCKET__CONTROL_TYPE__CONFIG, NULL, 1, &(struct place){"x/y", 7, 15, SAYS_TRUE});
	tell(s, WEBSOCKET__CONTROL_TYPE__POSITION, NULL, 1,
	     &(struct place){"x/y", 7, 18, SAYS_NOTHING});
	close_with_1012(s);
	CHECK_STR(next_query(s), "since=7.18&rewind=3");
	set_open(s);
	request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	tell(s, WEBSOCKET__CONTROL_TYPE__CONFIG, NULL, 1, &(struct place){"x/y", 8, 0, SAYS_FALSE});
	tell(s, WEBSOCKET__CONTROL_TYPE__GAP, NULL, 2,
	     (struct place[]){{"x/y", 8, 0, SAYS_NOTHING}, {"x/y", 8, 4, SAYS_NOTHING}});
	CHECK_STR(s->said, "home: begun, one, two, home: recovered, home: lost, "
			   "home: missed by skipped, ");
	close_with_1012(s);
	CHECK_STR(next_query(s), "since=8.4&rewind=3");
	set_free(s);
}

/* A connection that ends before the join was answered has changed nothing. */
TEST(session_keeps_its_position_when_nothing_was_answered)
{
	struct set *s = set_new(0);

	CHECK_EQ(position_parse("7.10", 4, &s->start[0]), 0);
	set_start(s);
	request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	close_with_1012(s);
	CHECK_STR(next_query(s), "since=7.10");
	set_free(s);
}

TEST(session_without_history_says_nothing)
{
	struct set *s = set_new(0);

	set_start(s);
	request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	tell(s, WEBSOCKET__CONTROL_TYPE__CONFIG, NULL, 0, NULL);
	request(s, WEBSOCKET__CONTROL_TYPE__POSITION);
	tell(s, WEBSOCKET__CONTROL_TYPE__POSITION, NULL, 1,
	     &(struct place){"", 0, 0, SAYS_NOTHING});
	hear(s, "", 0, "hello", NULL);
	close_with_1012(s);
	CHECK_STR(next_query(s), "");
	CHECK_STR(s->said, "home: begun, hello, ");
	set_free(s);
}

/* It has said it itself, on a connection before; the place counts all the same. */
TEST(session_leaves_out_what_it_has_sent_itself)
{
	struct set *s = set_new(0);
	uint8_t own[16], other[16];

	set_start(s);
	memcpy(own, request(s, WEBSOCKET__CONTROL_TYPE__CONNECT)->request_id.data, 16);
	tell(s, WEBSOCKET__CONTROL_TYPE__CONFIG, NULL, 1, &(struct place){"", 7, 10, SAYS_NOTHING});
	request(s, WEBSOCKET__CONTROL_TYPE__POSITION);
	memcpy(other, own, 16);
	own[15]++;
	other[11]++;
	hear(s, "", 11, "mine", own);
	hear(s, "", 12, "yours", other);
	hear(s, "", 13, "mine again", own);
	/* Of a channel that echoes and has no history it is what one wants to see. */
	hear(s, "", 0, "echo", own);
	CHECK_STR(s->said, "home: begun, yours, echo, ");
	CHECK_EQ(session_home(&s->session)->sequence, 13);
	set_free(s);
}

TEST(session_joins_channels_beside_its_home)
{
	struct set *s = set_new(2);
	Websocket__WebSocketMessage *m;
	uint8_t id[16];

	s->start[2].epoch = 9;
	s->start[2].sequence = 5;
	set_start(s);
	request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	m = request(s, WEBSOCKET__CONTROL_TYPE__SUBSCRIBE);
	CHECK_EQ(m->control->n_channels, 1);
	CHECK_STR(m->control->channels[0], "a");
	CHECK_EQ(m->control->n_positions, 1);
	CHECK_STR(m->control->positions[0]->channel, "b");
	CHECK(m->control->positions[0]->epoch == 9 && m->control->positions[0]->sequence == 5);
	memcpy(id, m->request_id.data, 16);
	tell(s, WEBSOCKET__CONTROL_TYPE__CONFIG, NULL, 1, &(struct place){"", 7, 10, SAYS_NOTHING});
	hear(s, "a", 4, "too early", NULL);
	tell(s, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE, id, 2,
	     (struct place[]){{"b", 9, 5, SAYS_TRUE}, {"a", 8, 3, SAYS_NOTHING}});
	request(s, WEBSOCKET__CONTROL_TYPE__POSITION);
	CHECK_STR(s->said, ": begun, too early, a: begun, b: recovered, ");
	hear(s, "b", 6, "b6", NULL);
	hear(s, "", 11, "home", NULL);
	close_with_1012(s);
	CHECK_STR(next_query(s), "since=7.11");
	set_open(s);
	request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	m = request(s, WEBSOCKET__CONTROL_TYPE__SUBSCRIBE);
	CHECK_EQ(m->control->n_channels, 0);
	CHECK_EQ(m->control->n_positions, 2);
	CHECK_EQ(m->control->positions[0]->sequence, 3);
	CHECK_EQ(m->control->positions[1]->sequence, 6);
	set_free(s);
}

/* 429 and 503 pass, others don't. */
TEST(session_subscribes_again_where_that_may_help)
{
	struct set *s = set_new(1);
	uint8_t id[16];

	set_start(s);
	request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	memcpy(id, request(s, WEBSOCKET__CONTROL_TYPE__SUBSCRIBE)->request_id.data, 16);
	refuse(s, id, 503, 30000);
	CHECK_EQ(s->status, -1);
	CHECK(wheel_is_armed(&s->session.subscribe_again));
	CHECK(s->session.subscribe_again.deadline_ns > clock_now_ns() + 29 * NS_PER_S);
	clock_set_for_test(clock_now_ns() + 31 * NS_PER_S);
	do /* a heartbeat may be due as well */
		CHECK(far_read(&s->far, &s->loop));
	while (s->far.payload_n < 20);
	/* What answers the first one counts no more. */
	refuse(s, id, 403, 0);
	CHECK_EQ(s->status, -1);
	refuse(s, s->session.subscribe_id, 403, 0);
	CHECK_EQ(s->status, 1);
	set_free(s);
}

TEST(session_gives_up_to_subscribe_after_its_attempts)
{
	struct set *s = set_new(1);

	s->group.backoff.max_attempts = 0;
	set_start(s);
	request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	request(s, WEBSOCKET__CONTROL_TYPE__SUBSCRIBE);
	refuse(s, s->session.subscribe_id, 429, 0);
	CHECK_EQ(s->status, 1);
	set_free(s);
}

/* ---------------------------------------------------------------- as the same client */

/* CONFIG or the answer to CONNECT, with a token. */
static void give_token(struct set *s, const uint8_t *id, const char *token)
{
	const Websocket__ControlType type =
		id ? WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE : WEBSOCKET__CONTROL_TYPE__CONFIG;
	Websocket__Position position, *list[] = {&position};
	struct msg_builder b;

	websocket__position__init(&position);
	position.epoch = 7;
	position.sequence = 40;
	position.channel = (char *)(uintptr_t) "";
	msg_init_control(&b, type);
	if (id)
		msg_set_request_id(&b, id, 16);
	else
		msg_set_positions(&b, list, 1);
	msg_set_session_id(&b, OWN_ID);
	msg_set_capabilities(&b, MSG_CAPS_ALL);
	msg_set_resume_token(&b, token, strlen(token));
	far_send_msg(&s->far, &b);
	turn(s);
}

static void close_with(struct set *s, uint16_t code)
{
	const uint8_t payload[] = {(uint8_t)(code >> 8), (uint8_t)code};

	far_send_frame(&s->far, true, WS_CLOSE, payload, 2);
	while (far_read(&s->far, &s->loop)) {
	}
	turn(s);
	far_close(&s->far);
}

TEST(session_comes_back_with_its_newest_token_and_counts_its_attempts)
{
	struct set *s = set_new(0);
	Websocket__WebSocketMessage *m;
	uint8_t id[16];

	s->group.keeps_identity = true;
	set_start(s);
	m = request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	CHECK_EQ(m->control->n_capabilities, 1);
	CHECK_STR(m->control->capabilities[0], "resume");
	memcpy(id, m->request_id.data, sizeof(id));
	give_token(s, NULL, "first");
	(void)request(s, WEBSOCKET__CONTROL_TYPE__POSITION);
	give_token(s, id, "second");
	close_with(s, 1012);
	CHECK_STR(next_query(s), "since=7.40&resume=second&attempt=1");
	/* Nobody has answered that one. */
	set_open(s);
	(void)request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	close_with(s, 1012);
	CHECK_STR(next_query(s), "since=7.40&resume=second&attempt=2");
	set_open(s);
	(void)request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	give_token(s, NULL, "third");
	(void)request(s, WEBSOCKET__CONTROL_TYPE__POSITION);
	close_with(s, 1012);
	CHECK_STR(next_query(s), "since=7.40&resume=third&attempt=1");
	/* Somebody else has come with it. */
	set_open(s);
	(void)request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	close_with(s, 4002);
	CHECK_STR(next_query(s), "since=7.40");
	set_free(s);
}

/* The next message of the client, a chat; with the number that marks a resend, or 0. */
static uint64_t said_chat(struct set *s, const char *content, uint8_t ret_id[16])
{
	struct arena arena;
	Websocket__WebSocketMessage *m;
	uint64_t known;

	arena_init(&arena, 1 << 20, 1 << 20);
	CHECK(far_read(&s->far, &s->loop));
	CHECK_EQ(msg_decode(&arena, s->far.payload, s->far.payload_n, &m), MSG_OK);
	CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE);
	CHECK_STR(m->chat->content, content);
	memcpy(ret_id, m->request_id.data, 16);
	known = m->has_sequence_case ? m->sequence : 0;
	arena_fini(&arena);
	return known;
}

static void answer(struct set *s, const uint8_t id[16])
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	msg_set_request_id(&b, id, 16);
	far_send_msg(&s->far, &b);
	turn(s);
}

TEST(session_says_again_what_nobody_has_answered)
{
	struct set *s = set_new(0);
	uint8_t connect[16], one[16], two[16], three[16], again[16];
	Websocket__WebSocketMessage *m;

	s->group.keeps_identity = true;
	set_start(s);
	m = request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	memcpy(connect, m->request_id.data, sizeof(connect));
	/* Before it knows where it is, nothing can be said again. */
	CHECK_EQ(session_chat(&s->session, "early"), 0);
	CHECK_EQ(said_chat(s, "early", again), 0);
	give_token(s, NULL, "t");
	(void)request(s, WEBSOCKET__CONTROL_TYPE__POSITION);
	give_token(s, connect, "t");
	CHECK_EQ(session_chat(&s->session, "one"), 0);
	CHECK_EQ(session_chat(&s->session, "two"), 0);
	CHECK_EQ(said_chat(s, "one", one), 0);
	CHECK_EQ(said_chat(s, "two", two), 0);
	hear(s, "", 45, "of somebody", NULL);
	CHECK_EQ(session_chat(&s->session, "three"), 0);
	CHECK_EQ(said_chat(s, "three", three), 0);
	answer(s, two);
	close_with(s, 1012);
	(void)next_query(s);
	set_open(s);
	(void)request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	give_token(s, NULL, "t");
	(void)request(s, WEBSOCKET__CONTROL_TYPE__POSITION);
	/* In their order, with what was known when each was said first. */
	CHECK_EQ(said_chat(s, "one", again), 40);
	CHECK(memcmp(again, one, 16) == 0);
	CHECK_EQ(said_chat(s, "three", again), 45);
	CHECK(memcmp(again, three, 16) == 0);
	answer(s, one);
	refuse(s, three, 409, 0);
	CHECK_EQ(s->session.n_said, 0);
	CHECK_EQ(s->session.said_bytes, 0);
	set_free(s);
}

TEST(session_says_nothing_again_where_the_channel_began_anew)
{
	const struct place anew = {"", 8, 1, SAYS_FALSE};
	struct set *s = set_new(0);
	uint8_t id[16];

	s->group.keeps_identity = true;
	set_start(s);
	(void)request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	give_token(s, NULL, "t");
	(void)request(s, WEBSOCKET__CONTROL_TYPE__POSITION);
	CHECK_EQ(session_chat(&s->session, "one"), 0);
	CHECK_EQ(said_chat(s, "one", id), 0);
	close_with(s, 1012);
	(void)next_query(s);
	set_open(s);
	(void)request(s, WEBSOCKET__CONTROL_TYPE__CONNECT);
	tell(s, WEBSOCKET__CONTROL_TYPE__CONFIG, NULL, 1, &anew);
	(void)request(s, WEBSOCKET__CONTROL_TYPE__POSITION);
	CHECK_EQ(s->session.n_said, 0);
	CHECK_EQ(session_chat(&s->session, "two"), 0);
	CHECK_EQ(said_chat(s, "two", id), 0);
	set_free(s);
}
