/* SPDX-License-Identifier: MIT */
#include "client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/text.h"
#include "client/client_private.h"
#include "client/client_show.h"
#include "far.h"

#define OWN_ID "11111111-2222-4333-8444-555555555555"
#define OTHER_ID "99999999-2222-4333-8444-555555555555"

/* --------------------------------------------------------------------------- showing */

static char *shown(const struct msg_builder *b)
{
	static char text[16384];
	FILE *out = fmemopen(text, sizeof(text), "w");

	text[0] = '\0';
	client_show(out, &b->m, OWN_ID);
	fclose(out);
	return text;
}

TEST(client_shows_chat)
{
	struct msg_builder b;
	char *mentions[] = {(char[]){"ann"}, (char[]){"bob"}};

	msg_init_chat(&b, "id", "someone", "grüße", 0);
	CHECK_STR(shown(&b), "someone: grüße\n");
	msg_set_mentions(&b, mentions, 2);
	CHECK_STR(shown(&b), "someone: grüße  @ann @bob\n");
	msg_init_chat(&b, "id", "", "x", 0);
	CHECK_STR(shown(&b), "(nobody): x\n");
}

/* Nothing that others send may act on the terminal, or fake another line. */
TEST(client_shows_no_control_characters_of_others)
{
	static const char evil[] = "a\x1b]0;t\x07\nsystem: b\xc2\x9b";
	struct msg_builder b;

	for (int kind = 0; kind < 6; kind++) {
		char *text;

		if (kind == 0)
			msg_init_chat(&b, "", "u", evil, 0);
		else if (kind == 1)
			msg_init_chat(&b, "", evil, "c", 0);
		else
			msg_init_control(&b, kind == 2   ? WEBSOCKET__CONTROL_TYPE__ERROR
					     : kind == 3 ? WEBSOCKET__CONTROL_TYPE__CONFIG
					     : kind == 4 ? WEBSOCKET__CONTROL_TYPE__CONNECT
							 : WEBSOCKET__CONTROL_TYPE__DISCONNECT);
		if (kind >= 2) {
			msg_set_session_id(&b, evil);
			msg_set_reason(&b, evil);
			msg_set_channel(&b, evil);
		}
		text = shown(&b);
		CHECK(!strchr(text, '\x1b') && !strchr(text, '\x07') && !strstr(text, "\xc2\x9b"));
		CHECK_EQ(strchr(text, '\n') - text, strlen(text) - 1);
	}
}

TEST(client_shows_control_events_in_words)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONNECT);
	msg_set_session_id(&b, OTHER_ID);
	CHECK_STR(shown(&b), "* " OTHER_ID " joined\n");
	msg_set_channel(&b, "room/7");
	CHECK_STR(shown(&b), "* " OTHER_ID " joined room/7\n");

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
	msg_set_session_id(&b, OTHER_ID);
	CHECK_STR(shown(&b), "* " OTHER_ID " left\n");
	CHECK(!client_is_own_disconnect(&b.m, OWN_ID));
	msg_set_session_id(&b, OWN_ID);
	msg_set_reason(&b, "server is stopping");
	msg_set_reconnect_after_ms(&b, 1500);
	CHECK_STR(shown(&b),
		  "* the server says goodbye: server is stopping; come back after 1.5 s\n");
	CHECK(client_is_own_disconnect(&b.m, OWN_ID));

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONFIG);
	msg_set_session_id(&b, OWN_ID);
	msg_set_max_size(&b, 16 << 20);
	msg_set_capabilities(&b, MSG_CAP_ACK | MSG_CAP_ZSTD);
	CHECK_STR(shown(&b), "* your client id is " OWN_ID
			     "; messages of up to 16M; the server speaks zstd ack\n");

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ERROR);
	msg_set_reason(&b, "no");
	msg_set_code(&b, 404);
	CHECK_STR(shown(&b), "* error: no (404)\n");

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	CHECK_STR(shown(&b), "");
	msg_init_heartbeat(&b);
	CHECK_STR(shown(&b), "");
}

TEST(client_shows_binary_data_by_size_and_checks_it)
{
	struct msg_builder b;

	msg_init_binary(&b, "12345", 5, 3, true, WEBSOCKET__COMPRESSION_TYPE__ZSTD);
	CHECK_STR(shown(&b), "* binary data: 5 bytes, chunk 3, the last, zstd\n");
	b.checksum[0] ^= 1;
	CHECK(strstr(shown(&b), "CHECKSUM WRONG"));
	b.checksum[0] = '\0';
	b.binary.compression = (Websocket__CompressionType)17;
	CHECK_STR(shown(&b),
		  "* binary data: 5 bytes, chunk 3, the last, packed in an unknown way\n");
}

/* --------------------------------------------------------------------------- sessions */

/* A command with one session, as client_main() would make it, over a socket pair. */
struct set {
	struct client client;
	struct session session;
	struct far far;
	char path[64];
};

static struct set *set_new(enum client_mode mode)
{
	const struct endpoint_limits limits = {.queue_bytes = 1 << 20, .message_bytes = 1 << 20};
	struct set *s = calloc(1, sizeof(*s));
	struct client *c = &s->client;
	struct config_errors errors = {0};
	struct ws_url url;
	const char *why;

	c->mode = mode;
	c->sessions = &s->session;
	c->n_sessions = 1;
	CHECK_EQ(config_parse_text("test", "", 0, &c->config, &errors), 0);
	CHECK_EQ(ws_url_parse("ws://127.0.0.1:1/", &url), 0);
	CHECK_EQ(target_init(&c->target, &url, &why), 0);
	CHECK_EQ(endpoint_loop_init(&c->loop, &c->target, &limits), 0);
	client_init_group(c, 1 << 20);
	return s;
}

/* A file of @n bytes to send; in a temporary place that is gone already. */
static void set_file(struct set *s, size_t n)
{
	char data[4096];
	int fd;

	snprintf(s->path, sizeof(s->path), "/tmp/wsbind-test-XXXXXX");
	fd = mkstemp(s->path);
	CHECK(fd >= 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 31);
	for (size_t at = 0; at < n; at += sizeof(data))
		CHECK(write(fd, data, MIN(sizeof(data), n - at)) > 0);
	fd_closep(&fd);
	CHECK_EQ(client_file_open(s->path, &s->client.file), 0);
	CHECK_EQ(unlink(s->path), 0);
}

/* Connects over the socket pair instead of TCP. */
static void set_open(struct set *s)
{
	session_start(&s->session, &s->client.group, 1);
	/* The connection by TCP that session_start() began. */
	endpoint_abort(&s->session.endpoint, 0);
	s->session.is_done = false;
	far_turn(&s->client.loop);
	wheel_del(&s->client.loop.reactor.wheel, &s->session.retry);
	far_open(&s->far, &s->session.endpoint);
}

static void set_free(struct set *s)
{
	endpoint_abort(&s->session.endpoint, 0);
	s->session.is_stopping = true;
	far_turn(&s->client.loop);
	session_fini(&s->session);
	arena_fini(&s->client.group.arena);
	client_file_free(s->client.file);
	config_unref(s->client.config);
	endpoint_loop_fini(&s->client.loop);
	far_close(&s->far);
	free(s);
}

/* The next message of the client, decoded; it lives until the next one. */
static Websocket__WebSocketMessage *next(struct set *s)
{
	static struct arena arena;
	Websocket__WebSocketMessage *m;

	if (arena.limit_bytes == 0)
		arena_init(&arena, 1 << 20, 1 << 20);
	arena_reset(&arena);
	do
		CHECK(far_read(&s->far, &s->client.loop));
	while (s->far.opcode == WS_PING);
	CHECK_EQ(s->far.opcode, WS_BINARY);
	CHECK_EQ(msg_decode(&arena, s->far.payload, s->far.payload_n, &m), MSG_OK);
	return m;
}

static void answer(struct set *s, Websocket__ControlType type, const uint8_t id[16], unsigned caps)
{
	struct msg_builder b;

	msg_init_control(&b, type);
	msg_set_request_id(&b, id, 16);
	msg_set_capabilities(&b, caps);
	msg_set_reason(&b, type == WEBSOCKET__CONTROL_TYPE__ERROR ? "because" : "");
	far_send_msg(&s->far, &b);
}

/* Takes CONNECT and grants the capabilities. */
static void greet(struct set *s, unsigned caps)
{
	Websocket__WebSocketMessage *m = next(s);

	CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__CONTROL);
	CHECK_EQ(m->control->type, WEBSOCKET__CONTROL_TYPE__CONNECT);
	CHECK_EQ(m->request_id.len, 16);
	CHECK_EQ(strlen(m->control->session_id), 36);
	answer(s, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE, m->request_id.data, caps);
}

TEST(client_session_greets_and_chats)
{
	struct set *s = set_new(CLIENT_INTERVAL);
	Websocket__WebSocketMessage *m;
	uint8_t id[16];

	s->client.group.user = "ann";
	set_open(s);
	greet(s, 0);
	CHECK_EQ(session_chat(&s->session, "hello"), 0);
	m = next(s);
	CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE);
	CHECK_STR(m->chat->user_id, "ann");
	CHECK_STR(m->chat->content, "hello");
	CHECK_EQ(uuid_parse(m->chat->id, id), 0);
	CHECK(m->chat->timestamp >= (int64_t)(clock_wall_ms() / 1000) - 60);
	set_free(s);
}

TEST(client_session_sends_heartbeats_and_pings_into_silence)
{
	struct set *s = set_new(CLIENT_INTERVAL);
	uint64_t now = clock_now_ns();

	set_open(s);
	greet(s, 0);
	for (int i = 0; i < 1000 && !s->session.is_accepted; i++)
		far_turn(&s->client.loop);
	clock_set_for_test(now + 31 * NS_PER_S);
	CHECK_EQ(next(s)->type, WEBSOCKET__MESSAGE_TYPE__HEARTBEAT);
	clock_set_for_test(now + 62 * NS_PER_S);
	CHECK(far_read(&s->far, &s->client.loop));
	CHECK_EQ(s->far.opcode, WS_BINARY);
	CHECK(far_read(&s->far, &s->client.loop));
	CHECK_EQ(s->far.opcode, WS_PING);
	CHECK_EQ(s->session.backoff.attempts, 0);
	clock_set_for_test(now + 130 * NS_PER_S);
	for (int i = 0; i < 5 && s->session.endpoint.state != ENDPOINT_IDLE; i++)
		far_turn(&s->client.loop);
	CHECK_EQ(s->session.backoff.attempts, 1); /* given up, and about to be tried again */
	clock_set_for_test(0);
	set_free(s);
}

static void turn_until_done(struct set *s)
{
	for (int i = 0; i < 5000 && !s->client.n_done; i++)
		far_turn(&s->client.loop);
	CHECK_EQ(s->client.n_done, 1);
}

/* The server closes with a code, and the session decides what then. */
static void close_with(struct set *s, uint16_t code)
{
	const uint8_t payload[] = {(uint8_t)(code >> 8), (uint8_t)code};

	far_send_frame(&s->far, true, WS_CLOSE, payload, sizeof(payload));
	for (int i = 0; i < FAR_WAIT_MS && (endpoint_is_open(&s->session.endpoint) ||
					    s->session.endpoint.state == ENDPOINT_ENDED);
	     i++)
		far_turn(&s->client.loop);
}

enum outcome { DONE, FAILED, RETRIES, CONNECTS };

static enum outcome outcome_of(const struct set *s)
{
	if (s->client.n_done)
		return s->client.status ? FAILED : DONE;
	return wheel_is_armed(&s->session.retry) ? RETRIES : CONNECTS;
}

TEST(client_session_follows_the_table_of_codes)
{
	static const struct {
		uint16_t code;
		enum outcome outcome;
	} table[] = {
		{1000, DONE},    {1001, RETRIES}, {1002, FAILED},  {1003, FAILED},
		{1007, FAILED},  {1008, FAILED},  {1009, FAILED},  {1011, RETRIES},
		{1012, RETRIES}, {1013, RETRIES}, {3999, RETRIES}, {4001, CONNECTS},
		{4002, RETRIES}, {4003, FAILED},  {4400, FAILED},  {4401, FAILED},
		{4403, FAILED},  {4404, FAILED},  {4429, RETRIES}, {4503, RETRIES},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct set *s = set_new(CLIENT_INTERVAL);

		set_open(s);
		clock_set_for_test(clock_now_ns() + 2 * NS_PER_S);
		close_with(s, table[i].code);
		CHECK_EQ(outcome_of(s), table[i].outcome);
		clock_set_for_test(0);
		set_free(s);
	}
}

/* Else a server that does it to everybody would be asked without a pause. */
TEST(client_session_connects_at_once_but_not_in_a_circle)
{
	struct set *s = set_new(CLIENT_INTERVAL);

	set_open(s);
	close_with(s, WS_CODE_HEARTBEAT_TIMEOUT);
	CHECK_EQ(outcome_of(s), RETRIES);
	set_free(s);
}

/* A refusal that was let through to be read: no success, and later by what its ERROR says. */
TEST(client_session_counts_refusals_by_close_as_attempts)
{
	struct set *s = set_new(CLIENT_INTERVAL);
	struct msg_builder b;

	s->client.group.backoff.attempts = 3;
	set_open(s);
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ERROR);
	msg_set_code(&b, 503);
	msg_set_reconnect_after_ms(&b, 30000);
	far_send_msg(&s->far, &b);
	close_with(s, WS_CODE_REFUSED_FULL);
	CHECK_EQ(outcome_of(s), RETRIES);
	CHECK_EQ(s->session.backoff.attempts, 5); /* set_open() had one that failed */
	CHECK(s->session.retry.deadline_ns >= clock_now_ns() + 29 * NS_PER_S);
	set_free(s);

	/* Of an ERROR about something else, the time is nothing that a later end has to keep. */
	s = set_new(CLIENT_INTERVAL);
	set_open(s);
	far_send_msg(&s->far, &b);
	close_with(s, WS_CODE_SERVICE_RESTART);
	CHECK_EQ(s->session.backoff.attempts, 1);
	CHECK(s->session.retry.deadline_ns < clock_now_ns() + 29 * NS_PER_S);
	set_free(s);
}

static void write_token(const char *path, const char *token)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, token, strlen(token)), strlen(token));
	fd_closep(&fd);
}

/* Each token is brought once: with the same one it would be sent away in the same way. */
TEST(client_session_brings_a_fresh_token_once)
{
	static const uint16_t codes[] = {WS_CODE_AUTH_EXPIRED, WS_CODE_REFUSED_TOKEN};

	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		char path[] = "/tmp/wsbind-test-XXXXXX";
		int fd = mkstemp(path);
		struct target_security security = {.token_file = path};
		struct set *s = set_new(CLIENT_INTERVAL);

		fd_closep(&fd);
		write_token(path, "first");
		CHECK_EQ(target_secure(&s->client.target, &security, "client", stderr), 0);
		set_open(s);
		clock_set_for_test(clock_now_ns() + 2 * NS_PER_S);
		write_token(path, "second");
		close_with(s, codes[i]);
		CHECK_EQ(outcome_of(s), CONNECTS);
		CHECK_STR(s->client.target.headers, "Authorization: Bearer second\r\n");
		clock_set_for_test(0);
		endpoint_abort(&s->session.endpoint, 0);
		far_turn(&s->client.loop);
		far_close(&s->far);
		far_open(&s->far, &s->session.endpoint);
		close_with(s, codes[i]);
		CHECK_EQ(outcome_of(s), FAILED);
		CHECK_EQ(unlink(path), 0);
		set_free(s);
	}
}

TEST(client_session_stays_away_as_long_as_it_is_told)
{
	struct set *s = set_new(CLIENT_INTERVAL);
	struct msg_builder b;

	set_open(s);
	greet(s, 0);
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
	msg_set_reconnect_after_ms(&b, 30000);
	far_send_msg(&s->far, &b);
	far_send_frame(&s->far, true, WS_CLOSE, "\x03\xf4", 2);
	while (far_read(&s->far, &s->client.loop)) {
	}
	far_turn(&s->client.loop);
	CHECK(wheel_is_armed(&s->session.retry));
	CHECK(s->session.retry.deadline_ns >= clock_now_ns() + 29 * NS_PER_S);
	CHECK(s->session.retry.deadline_ns <= clock_now_ns() + 30 * NS_PER_S);
	set_free(s);
}

TEST(client_session_gives_up_after_its_attempts)
{
	struct set *s = set_new(CLIENT_INTERVAL);

	s->client.group.backoff.max_attempts = 2;
	s->client.group.backoff.first_ns = NS_PER_MS;
	s->far.fd = -1;
	session_start(&s->session, &s->client.group, 1);
	turn_until_done(s);
	CHECK_EQ(s->client.status, 1);
	CHECK_EQ(s->session.backoff.attempts, 2);
	set_free(s);
}

/* ------------------------------------------------------------------------------ files */

TEST(client_file_opens_regular_files_alone)
{
	struct client_file *f = NULL;

	CHECK_EQ(client_file_open("/no/such/file", &f), -ENOENT);
	CHECK_EQ(client_file_open("/tmp", &f), -EINVAL);
	CHECK_EQ(client_file_open("/dev/null", &f), -EINVAL);
	CHECK(!f);
}

/* Takes @n chunks from @first on; their request_ids go to @ids. */
static void take_chunks(struct set *s, uint32_t first, uint32_t n, uint8_t (*ids)[16])
{
	for (uint32_t i = first; i < first + n; i++) {
		Websocket__WebSocketMessage *m = next(s);

		CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__BINARY_DATA);
		CHECK_EQ(m->binary->sequence, i);
		CHECK_EQ(msg_check_binary(m), MSG_OK);
		CHECK(m->binary->checksum[0]);
		CHECK_EQ(m->request_id.len, 16);
		/* Which file it is of is in each, what file that is in the first. */
		CHECK_EQ(m->binary->transfer.len, 12);
		CHECK_EQ(m->binary->size > 0, i == 0);
		CHECK_EQ(strncmp(m->binary->name, "wsbind-test-", 12) == 0, i == 0);
		memcpy(ids[i], m->request_id.data, 16);
	}
}

static void expect_silence(struct set *s)
{
	for (int i = 0; i < 20; i++)
		far_turn(&s->client.loop);
	CHECK_EQ(s->far.n, 0);
	CHECK(recv(s->far.fd, s->far.bytes, 1, MSG_DONTWAIT) < 0);
}

TEST(client_file_keeps_to_its_window_and_ends_with_the_last_acknowledgement)
{
	uint8_t ids[40][16];
	struct set *s = set_new(CLIENT_FILE);
	Websocket__WebSocketMessage *m;

	set_file(s, 39 * CLIENT_CHUNK + 5);
	set_open(s);
	greet(s, MSG_CAP_ACK);
	take_chunks(s, 0, CLIENT_WINDOW, ids);
	expect_silence(s);
	answer(s, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE, ids[0], 0);
	take_chunks(s, CLIENT_WINDOW, 1, ids);
	expect_silence(s);
	for (uint32_t i = 1; i < 39 - CLIENT_WINDOW; i++) {
		answer(s, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE, ids[i], 0);
		take_chunks(s, CLIENT_WINDOW + i, 1, ids);
	}
	answer(s, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE, ids[38], 0);
	m = next(s);
	CHECK(m->binary->is_last);
	CHECK_EQ(m->binary->data.len, 5);
	memcpy(ids[39], m->request_id.data, 16);
	CHECK(!client_file_is_done(s->client.file));
	answer(s, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE, ids[39], 0);
	do
		CHECK(far_read(&s->far, &s->client.loop));
	while (s->far.opcode == WS_PING);
	CHECK_EQ(s->far.opcode, WS_CLOSE);
	CHECK_MEM(s->far.payload, "\x03\xe8", 2);
	CHECK(client_file_is_done(s->client.file));
	far_send_frame(&s->far, true, WS_CLOSE, "\x03\xe8", 2);
	turn_until_done(s);
	CHECK_EQ(s->client.status, 0);
	set_free(s);
}

TEST(client_file_that_is_empty_is_one_chunk)
{
	struct set *s = set_new(CLIENT_FILE);
	Websocket__WebSocketMessage *m;

	set_file(s, 0);
	set_open(s);
	greet(s, MSG_CAP_ACK);
	m = next(s);
	CHECK(m->binary->is_last);
	CHECK_EQ(m->binary->data.len, 0);
	set_free(s);
}

TEST(client_file_fails_with_an_error_of_the_server)
{
	struct set *s = set_new(CLIENT_FILE);
	uint8_t ids[1][16];

	set_file(s, 10);
	set_open(s);
	greet(s, MSG_CAP_ACK);
	take_chunks(s, 0, 1, ids);
	answer(s, WEBSOCKET__CONTROL_TYPE__ERROR, ids[0], 0);
	turn_until_done(s);
	CHECK_EQ(s->client.status, 1);
	CHECK(!client_file_is_done(s->client.file));
	set_free(s);
}

TEST(client_file_wants_a_server_that_acknowledges)
{
	struct set *s = set_new(CLIENT_FILE);

	set_file(s, 10);
	set_open(s);
	greet(s, MSG_CAP_ZSTD);
	turn_until_done(s);
	CHECK_EQ(s->client.status, 1);
	set_free(s);
}

TEST(client_file_fails_when_the_server_closes_before_the_end)
{
	struct set *s = set_new(CLIENT_FILE);

	set_file(s, 10);
	set_open(s);
	far_send_frame(&s->far, true, WS_CLOSE, "\x03\xe8", 2);
	turn_until_done(s);
	CHECK_EQ(s->client.status, 1);
	set_free(s);
}

/* ------------------------------------------------------------------------ command line */

static int run(const char *line)
{
	char copy[256], *argv[16] = {(char[]){"client"}}, *save = NULL;
	int argc = 1;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	return client_main(argc, argv);
}

TEST(client_exits_as_its_page_says)
{
	static const struct {
		const char *line;
		int status;
	} table[] = {
		{"--url http://h/", OPTIONS_EXIT_USAGE},
		{"-c 0", OPTIONS_EXIT_USAGE},
		{"surplus", OPTIONS_EXIT_USAGE},
		{"--send-file /dev/null -c 2", OPTIONS_EXIT_USAGE},
		{"--receive-dir /tmp -c 2", OPTIONS_EXIT_USAGE},
		{"--receive-dir /tmp --send-file /dev/null", OPTIONS_EXIT_USAGE},
		{"--receive-dir /no/such/folder", EXIT_FAILURE},
		{"--user \xff", OPTIONS_EXIT_USAGE},
		{"--send-file /no/such/file", EXIT_FAILURE},
		{"-u wss://127.0.0.1/ --ca /no/such/file", EXIT_FAILURE},
		{"--token-file /no/such/file", EXIT_FAILURE},
		{"--config=/no/such/file", OPTIONS_EXIT_CONFIG},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		CHECK_EQ(run(table[i].line), table[i].status);
}
