/* SPDX-License-Identifier: MIT */
#include "client/endpoint.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include "far.h"
#include "io/sock.h"

#define QUEUE 1000
#define MESSAGE 5000

/* An endpoint and what it told. */
struct near {
	struct endpoint_loop loop;
	struct target target;
	struct endpoint endpoint;
	unsigned n_opened, n_messages, n_pongs, n_writable, n_closed;
	uint8_t opcode;
	struct buf message; /* the last one */
	struct endpoint_end end;
	bool connects_again; /* from within closed() */
};

static struct near *near_of(struct endpoint *e)
{
	return CONTAINER_OF(e, struct near, endpoint);
}

static void on_opened(struct endpoint *e)
{
	near_of(e)->n_opened++;
}

static void on_message(struct endpoint *e, uint8_t opcode, uint8_t *data, size_t n)
{
	struct near *t = near_of(e);

	t->n_messages++;
	t->opcode = opcode;
	buf_clear(&t->message);
	CHECK_EQ(buf_append(&t->message, data, n, BUF_NO_LIMIT), 0);
}

static void on_pong(struct endpoint *e, const uint8_t *data, size_t n)
{
	near_of(e)->n_pongs++;
	on_message(e, WS_PONG, (uint8_t *)(uintptr_t)data, n);
}

static void on_writable(struct endpoint *e)
{
	near_of(e)->n_writable++;
}

static void on_closed(struct endpoint *e, const struct endpoint_end *end)
{
	struct near *t = near_of(e);

	CHECK_EQ(e->state, ENDPOINT_IDLE);
	t->n_closed++;
	t->end = *end;
	if (t->connects_again)
		endpoint_connect(e);
	t->connects_again = false;
}

static const struct endpoint_ops ops = {
	.opened = on_opened,
	.message = on_message,
	.pong = on_pong,
	.writable = on_writable,
	.closed = on_closed,
};

static struct near *near_new(const char *url)
{
	const struct endpoint_limits limits = {.queue_bytes = QUEUE, .message_bytes = MESSAGE};
	struct near *t = calloc(1, sizeof(*t));
	struct ws_url u;
	const char *why;

	CHECK_EQ(ws_url_parse(url, &u), 0);
	CHECK_EQ(target_init(&t->target, &u, &why), 0);
	CHECK_EQ(endpoint_loop_init(&t->loop, &t->target, &limits), 0);
	endpoint_init(&t->endpoint, &t->loop, &ops);
	return t;
}

static void near_free(struct near *t)
{
	endpoint_abort(&t->endpoint, 0);
	far_turn(&t->loop);
	endpoint_fini(&t->endpoint);
	endpoint_loop_fini(&t->loop);
	buf_fini(&t->message);
	free(t);
}

#define TURN_UNTIL(t, condition)                \
	do {                                    \
		int turns_ = 0;                 \
		while (!(condition)) {          \
			CHECK(turns_++ < 5000); \
			far_turn(&(t)->loop);   \
		}                               \
	} while (0)

static struct far *open_pair(struct near **ret)
{
	struct far *f = calloc(1, sizeof(*f));

	*ret = near_new("ws://127.0.0.1:1/some/path");
	far_open(f, &(*ret)->endpoint);
	return f;
}

static void free_pair(struct far *f, struct near *t)
{
	near_free(t);
	far_close(f);
	free(f);
}

/* ------------------------------------------------------------------- open, messages */

TEST(endpoint_shakes_hands_and_carries_messages_both_ways)
{
	struct near *t;
	struct far *f = open_pair(&t);
	struct msg_builder b;
	uint8_t packed[64];

	CHECK_EQ(t->n_opened, 1);
	CHECK_EQ(t->loop.opening, 0);
	CHECK_EQ(endpoint_send(&t->endpoint, WS_TEXT, "hello", 5), 0);
	CHECK_EQ(endpoint_send(&t->endpoint, WS_BINARY, NULL, 0), 0);
	msg_init_heartbeat(&b);
	CHECK_EQ(endpoint_send_msg(&t->endpoint, &b), 0);
	CHECK(endpoint_queued(&t->endpoint) > 0);
	far_expect(f, &t->loop, WS_TEXT, "hello", 5);
	far_expect(f, &t->loop, WS_BINARY, NULL, 0);
	far_expect(f, &t->loop, WS_BINARY, packed, msg_pack(&b, packed));
	CHECK_EQ(endpoint_queued(&t->endpoint), 0);

	far_send_frame(f, true, WS_BINARY, "answer", 6);
	TURN_UNTIL(t, t->n_messages == 1);
	CHECK_EQ(t->opcode, WS_BINARY);
	CHECK_EQ(t->message.len, 6);
	CHECK_MEM(t->message.data, "answer", 6);
	CHECK(t->endpoint.last_read_ns == t->loop.read_ns && t->loop.read_ns > 0);
	free_pair(f, t);
}

/* Two frames with the same payload differ on the wire. */
TEST(endpoint_masks_with_keys_of_their_own)
{
	struct near *t;
	struct far *f = open_pair(&t);
	uint8_t first[4];

	CHECK_EQ(endpoint_send(&t->endpoint, WS_BINARY, "aaaa", 4), 0);
	CHECK_EQ(endpoint_send(&t->endpoint, WS_BINARY, "aaaa", 4), 0);
	while (f->n < 20)
		CHECK(far_fill(f, &t->loop));
	memcpy(first, f->bytes + 2, 4);
	CHECK(memcmp(first, f->bytes + 12, 4) != 0);
	free_pair(f, t);
}

static void send_fragments(struct far *f)
{
	far_send_frame(f, false, WS_TEXT, "one \xc3", 5);
	far_send_frame(f, true, WS_PING, "ping", 4);
	far_send_frame(f, false, WS_CONTINUATION, "\xbc", 1);
	far_send_frame(f, true, WS_CONTINUATION, " two", 4);
	far_send_frame(f, true, WS_BINARY, NULL, 0);
}

TEST(endpoint_joins_fragments_and_answers_the_ping_between)
{
	struct near *t;
	struct far *f = open_pair(&t);

	send_fragments(f);
	far_expect(f, &t->loop, WS_PONG, "ping", 4);
	TURN_UNTIL(t, t->n_messages == 2);
	CHECK_EQ(t->message.len, 0);
	free_pair(f, t);
}

TEST(endpoint_does_not_care_how_bytes_are_cut)
{
	static const uint8_t bytes[] = {0x01, 0x02, 'a',  'b',  0x89, 0x02,
					'h',  'i',  0x80, 0x01, 'c'};
	struct near *t;
	struct far *f = open_pair(&t);

	for (size_t i = 0; i < sizeof(bytes); i++) {
		far_send_bytes(f, bytes + i, 1);
		far_turn(&t->loop);
	}
	TURN_UNTIL(t, t->n_messages == 1);
	CHECK_EQ(t->opcode, WS_TEXT);
	CHECK_EQ(t->message.len, 3);
	CHECK_MEM(t->message.data, "abc", 3);
	far_expect(f, &t->loop, WS_PONG, "hi", 2);
	free_pair(f, t);
}

/* The server's first messages may come with its 101. */
/* A transport that gives little at a time, with more behind it that no event announces. */
static const struct transport_ops *plain;

static ssize_t recv_little(struct transport *t, void *p, size_t n)
{
	return plain->recv(t, p, MIN(n, (size_t)10));
}

static bool has_more(const struct transport *t)
{
	struct pollfd p = {.fd = t->fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

TEST(endpoint_asks_whether_there_is_more)
{
	struct near *t;
	struct far *f = open_pair(&t);
	struct transport_ops ops_little;

	plain = t->endpoint.transport.ops;
	ops_little = *plain;
	ops_little.recv = recv_little;
	ops_little.has_more = has_more;
	t->endpoint.transport.ops = &ops_little;
	for (unsigned i = 0; i < 100; i++)
		far_send_frame(f, true, WS_BINARY, "eight by", 8);
	TURN_UNTIL(t, t->n_messages == 100);
	t->endpoint.transport.ops = plain;
	free_pair(f, t);
}

TEST(endpoint_takes_frames_that_come_with_the_answer)
{
	struct near *t;
	struct far *f = open_pair(&t);
	struct http_request request;
	struct upgrade upgrade;
	char text[512];
	size_t head, n;
	int fds[2];

	endpoint_abort(&t->endpoint, 0);
	far_turn(&t->loop);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	fd_closep(&f->fd);
	f->fd = fds[1];
	endpoint_connect_fd(&t->endpoint, fds[0]);
	CHECK(far_fill(f, &t->loop));
	CHECK_EQ(http_parse_request((char *)f->bytes, f->n, HTTP_MAX_HEAD, &request, &head), 0);
	CHECK_EQ(upgrade_check(&request, &upgrade), 0);
	CHECK_STR(upgrade.channel, "some/path");
	n = upgrade_format_ok(text, sizeof(text), &upgrade, NULL);
	memcpy(text + n,
	       "\x82\x03"
	       "hey",
	       5);
	far_send_bytes(f, text, n + 5);
	TURN_UNTIL(t, t->n_messages == 1);
	CHECK_EQ(t->n_opened, 2);
	CHECK_MEM(t->message.data, "hey", 3);
	free_pair(f, t);
}

TEST(endpoint_reports_pongs)
{
	struct near *t;
	struct far *f = open_pair(&t);

	CHECK_EQ(endpoint_send(&t->endpoint, WS_PING, "\1\2\3", 3), 0);
	far_expect(f, &t->loop, WS_PING, "\1\2\3", 3);
	far_send_frame(f, true, WS_PONG, "\1\2\3", 3);
	TURN_UNTIL(t, t->n_pongs == 1);
	CHECK_MEM(t->message.data, "\1\2\3", 3);
	free_pair(f, t);
}

/* -------------------------------------------------------------------------- the queue */

TEST(endpoint_queue_is_bounded_and_says_when_it_is_free)
{
	static const char big[2 * QUEUE];
	struct near *t;
	struct far *f = open_pair(&t);

	CHECK_EQ(endpoint_send(&t->endpoint, WS_BINARY, big, 600), 0);
	CHECK_EQ(endpoint_send(&t->endpoint, WS_BINARY, big, 600), ENDPOINT_E_FULL);
	CHECK_EQ(endpoint_send(&t->endpoint, WS_BINARY, big, 300), 0);
	CHECK_EQ(t->n_writable, 0);
	TURN_UNTIL(t, endpoint_queued(&t->endpoint) == 0);
	CHECK_EQ(t->n_writable, 1);
	CHECK_EQ(endpoint_send(&t->endpoint, WS_BINARY, big, sizeof(big)),
		 0); /* one alone always may */
	CHECK_EQ(endpoint_send(&t->endpoint, WS_BINARY, big, 0), ENDPOINT_E_FULL);
	far_expect(f, &t->loop, WS_BINARY, big, 600);
	far_expect(f, &t->loop, WS_BINARY, big, 300);
	far_expect(f, &t->loop, WS_BINARY, big, sizeof(big));
	free_pair(f, t);
}

/* More than the kernel takes at once: all of it arrives, in order, once the other reads. */
TEST(endpoint_goes_on_when_the_kernel_has_room_again)
{
	static char big[3 << 20];
	struct near *t;
	struct far *f = open_pair(&t);
	size_t got = 0;

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 7 >> 3);
	CHECK_EQ(endpoint_send(&t->endpoint, WS_BINARY, big, sizeof(big)), 0);
	far_turn(&t->loop);
	CHECK(endpoint_queued(&t->endpoint) > 0);
	while (got < sizeof(big)) {
		struct ws_piece piece;
		uint16_t code;
		size_t used;
		enum ws_result r =
			ws_decoder_feed(f->decoder, f->bytes, f->n, &used, &piece, &code);

		if (r == WS_PIECE) {
			CHECK_MEM(piece.data, big + got, piece.len);
			got += piece.len;
		}
		far_drop(f, used);
		if (got < sizeof(big) && f->n == 0)
			CHECK(far_fill(f, &t->loop));
	}
	CHECK_EQ(endpoint_queued(&t->endpoint), 0);
	free_pair(f, t);
}

TEST(endpoint_sends_only_while_it_is_open)
{
	struct near *t = near_new("ws://127.0.0.1:1/");
	struct far f = {0};

	CHECK_EQ(endpoint_send(&t->endpoint, WS_TEXT, "x", 1), ENDPOINT_E_NOT_OPEN);
	far_open(&f, &t->endpoint);
	CHECK(endpoint_is_open(&t->endpoint));
	endpoint_close(&t->endpoint, WS_CODE_NORMAL, "");
	CHECK(!endpoint_is_open(&t->endpoint));
	CHECK_EQ(endpoint_send(&t->endpoint, WS_TEXT, "x", 1), ENDPOINT_E_NOT_OPEN);
	near_free(t);
	far_close(&f);
}

/* ------------------------------------------------------------------------------- ends */

TEST(endpoint_answers_a_close_and_reports_it_once)
{
	struct near *t;
	struct far *f = open_pair(&t);

	far_send_frame(f, true, WS_CLOSE,
		       "\x03\xe9"
		       "bye",
		       5);
	far_expect(f, &t->loop, WS_CLOSE, "\x03\xe9", 2);
	CHECK(!far_read(f, &t->loop));
	CHECK_EQ(t->n_closed, 1);
	CHECK_EQ(t->end.kind, ENDPOINT_END_CLOSED);
	CHECK_EQ(t->end.code, WS_CODE_GOING_AWAY);
	CHECK_STR(t->end.reason, "bye");
	CHECK(t->end.was_open);
	free_pair(f, t);
}

TEST(endpoint_takes_a_close_without_a_code)
{
	struct near *t;
	struct far *f = open_pair(&t);

	far_send_frame(f, true, WS_CLOSE, NULL, 0);
	far_expect(f, &t->loop, WS_CLOSE, NULL, 0);
	TURN_UNTIL(t, t->n_closed == 1);
	CHECK_EQ(t->end.kind, ENDPOINT_END_CLOSED);
	CHECK_EQ(t->end.code, WS_CODE_NO_STATUS);
	free_pair(f, t);
}

TEST(endpoint_closes_after_what_is_queued_and_waits_for_the_answer)
{
	struct near *t;
	struct far *f = open_pair(&t);

	CHECK_EQ(endpoint_send(&t->endpoint, WS_TEXT, "last words", 10), 0);
	endpoint_close(&t->endpoint, WS_CODE_NORMAL, "done");
	endpoint_close(&t->endpoint, WS_CODE_INTERNAL_ERROR, "twice");
	far_expect(f, &t->loop, WS_TEXT, "last words", 10);
	far_expect(f, &t->loop, WS_CLOSE,
		   "\x03\xe8"
		   "done",
		   6);
	far_send_frame(f, true, WS_TEXT, "on its way", 10);
	TURN_UNTIL(t, t->n_messages == 1);
	CHECK_EQ(t->n_closed, 0);
	far_send_frame(f, true, WS_CLOSE, "\x03\xe8", 2);
	TURN_UNTIL(t, t->n_closed == 1);
	CHECK_EQ(t->end.kind, ENDPOINT_END_CLOSED);
	CHECK_EQ(t->end.code, WS_CODE_NORMAL);
	free_pair(f, t);
}

TEST(endpoint_does_not_wait_for_ever)
{
	uint64_t now = clock_now_ns();
	struct near *t;
	struct far *f = open_pair(&t);

	endpoint_close(&t->endpoint, WS_CODE_NORMAL, "");
	clock_set_for_test(now + ENDPOINT_CLOSE_NS - NS_PER_S);
	far_turn(&t->loop);
	CHECK_EQ(t->n_closed, 0);
	clock_set_for_test(now + ENDPOINT_CLOSE_NS + NS_PER_S);
	TURN_UNTIL(t, t->n_closed == 1);
	clock_set_for_test(0);
	CHECK_EQ(t->end.kind, ENDPOINT_END_TIMEOUT);
	free_pair(f, t);
}

TEST(endpoint_gives_a_handshake_so_much_time)
{
	struct near *t = near_new("ws://127.0.0.1:1/");
	uint64_t now = clock_now_ns();
	int fds[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	endpoint_connect_fd(&t->endpoint, fds[0]);
	far_turn(&t->loop);
	CHECK_EQ(t->loop.opening, 1);
	clock_set_for_test(now + ENDPOINT_HANDSHAKE_NS + NS_PER_S);
	TURN_UNTIL(t, t->n_closed == 1);
	clock_set_for_test(0);
	CHECK_EQ(t->end.kind, ENDPOINT_END_TIMEOUT);
	CHECK(!t->end.was_open);
	CHECK_EQ(t->loop.opening, 0);
	near_free(t);
	fd_closep(&fds[1]);
}

TEST(endpoint_notices_that_the_server_went_away)
{
	struct near *t;
	struct far *f = open_pair(&t);

	far_send_frame(f, true, WS_TEXT, "one more", 8);
	fd_closep(&f->fd);
	TURN_UNTIL(t, t->n_closed == 1);
	CHECK_EQ(t->n_messages, 1);
	CHECK_EQ(t->end.kind, ENDPOINT_END_LOST);
	CHECK_EQ(t->end.error, 0);
	CHECK(t->end.was_open);
	free_pair(f, t);
}

/* A send fails, but the other said why before it stopped to listen. */
TEST(endpoint_reads_a_close_that_came_before_its_send_failed)
{
	struct near *t;
	struct far *f = open_pair(&t);

	far_send_frame(f, true, WS_CLOSE, "\x03\xf5slow", 6);
	fd_closep(&f->fd);
	CHECK_EQ(endpoint_send(&t->endpoint, WS_TEXT, "x", 1), 0);
	TURN_UNTIL(t, t->n_closed == 1);
	CHECK_EQ(t->end.kind, ENDPOINT_END_CLOSED);
	CHECK_EQ(t->end.code, WS_CODE_TRY_AGAIN);
	CHECK_STR(t->end.reason, "slow");
	free_pair(f, t);
}

TEST(endpoint_reports_what_the_handshake_was_answered_with)
{
	static const struct {
		const char *answer;
		enum endpoint_end_kind kind;
		int status;
		const char *reason;
	} table[] = {
		{"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n",
		 ENDPOINT_END_REFUSED, 503, ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ENDPOINT_END_REFUSED, 200, ""},
		{"HTTP/1.1 404 x\r\nContent-Type: text/plain\r\n\r\nno such\x1b room\nmore",
		 ENDPOINT_END_REFUSED, 404, "no such\x1b room"},
		{"HTTP/1.1 404 x\r\nContent-Type: text/html\r\n\r\n<html>", ENDPOINT_END_REFUSED,
		 404, ""},
		{"HTTP/1.1 404 x\r\nContent-Type: text/plain\r\n\r\n"
		 "0123456789012345678901234567890123456789012345678901234567890123456789"
		 "0123456789012345678901234567890123456789012345678901234567890123456789",
		 ENDPOINT_END_REFUSED, 404,
		 "0123456789012345678901234567890123456789012345678901234567890123456789"
		 "01234567890123456789012345678901234567890123456789012"},
		{"220 mail.example.org\r\n\r\n", ENDPOINT_END_NOT_WS, 0, ""},
		{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		 "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
		 ENDPOINT_END_NOT_WS, 101, ""},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct near *t = near_new("ws://127.0.0.1:1/");
		struct far *f = calloc(1, sizeof(*f));

		far_answer(f, &t->endpoint, table[i].answer);
		TURN_UNTIL(t, t->n_closed == 1);
		CHECK_EQ(t->end.kind, table[i].kind);
		if (table[i].kind == ENDPOINT_END_REFUSED)
			CHECK_EQ(t->end.status, table[i].status);
		CHECK_STR(t->end.reason, table[i].reason);
		CHECK_EQ(t->n_opened, 0);
		CHECK_EQ(t->loop.opening, 0);
		free_pair(f, t);
	}
}

/* What breaks RFC 6455, and the code that it is answered with. */
TEST(endpoint_refuses_what_breaks_the_protocol)
{
	static const struct {
		const char *bytes;
		size_t n;
		uint16_t code;
	} table[] = {
		{"\x82\x81"
		 "abcdx",
		 7, WS_CODE_PROTOCOL_ERROR},                       /* masked */
		{"\x83\x00", 2, WS_CODE_PROTOCOL_ERROR},           /* reserved opcode */
		{"\xc2\x00", 2, WS_CODE_PROTOCOL_ERROR},           /* RSV1, which was not granted */
		{"\x80\x01x", 3, WS_CODE_PROTOCOL_ERROR},          /* continuation of nothing */
		{"\x01\x01x\x81\x01y", 6, WS_CODE_PROTOCOL_ERROR}, /* a message within a message */
		{"\x09\x00", 2, WS_CODE_PROTOCOL_ERROR},           /* fragmented ping */
		{"\x88\x01x", 3, WS_CODE_PROTOCOL_ERROR},          /* half a code */
		{"\x88\x02\x03\xed", 4, WS_CODE_PROTOCOL_ERROR},   /* 1005 on the wire */
		{"\x88\x03\x03\xe8\xff", 5, WS_CODE_INVALID_DATA},
		{"\x81\x01\xff", 3, WS_CODE_INVALID_DATA},
		{"\x01\x01\xc3\x80\x01x", 6, WS_CODE_INVALID_DATA},
		{"\x82\x7e\x13\x89", 4, WS_CODE_TOO_BIG}, /* one byte past the limit, in its head */
		{"\x02\x01x\x80\x7e\x13\x88", 7, WS_CODE_TOO_BIG},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct near *t;
		struct far *f = open_pair(&t);

		far_send_bytes(f, table[i].bytes, table[i].n);
		CHECK(far_read(f, &t->loop));
		CHECK_EQ(f->opcode, WS_CLOSE);
		CHECK_EQ(f->payload[0] << 8 | f->payload[1], table[i].code);
		CHECK_EQ(t->n_closed, 1);
		CHECK_EQ(t->end.kind, ENDPOINT_END_VIOLATION);
		CHECK_EQ(t->end.code, table[i].code);
		CHECK(t->end.reason[0]);
		CHECK_EQ(t->n_messages, 0);
		free_pair(f, t);
	}
}

TEST(endpoint_takes_a_message_of_the_largest_size)
{
	static char big[MESSAGE];
	struct near *t;
	struct far *f = open_pair(&t);

	far_send_frame(f, true, WS_BINARY, big, MESSAGE);
	far_send_frame(f, false, WS_BINARY, big, MESSAGE - 1);
	far_send_frame(f, true, WS_CONTINUATION, big, 1);
	TURN_UNTIL(t, t->n_messages == 2);
	CHECK_EQ(t->message.len, MESSAGE);
	free_pair(f, t);
}

TEST(endpoint_abort_ends_at_once)
{
	struct near *t;
	struct far *f = open_pair(&t);

	endpoint_abort(&t->endpoint, -ETIMEDOUT);
	CHECK_EQ(t->n_closed, 0);
	far_turn(&t->loop);
	CHECK_EQ(t->n_closed, 1);
	CHECK_EQ(t->end.kind, ENDPOINT_END_TIMEOUT);
	endpoint_abort(&t->endpoint, -ETIMEDOUT); /* idle: nothing */
	far_turn(&t->loop);
	CHECK_EQ(t->n_closed, 1);
	free_pair(f, t);
}

/* -------------------------------------------------------------------------- connecting */

static struct near *near_on(int *listener)
{
	char url[64];

	CHECK_EQ(sock_listen("127.0.0.1", 0, 300, true, listener), 0);
	snprintf(url, sizeof(url), "ws://127.0.0.1:%u/", sock_port(*listener));
	return near_new(url);
}

TEST(endpoint_says_why_it_cannot_connect_and_may_try_again)
{
	int listener;
	struct near *t = near_on(&listener);

	fd_closep(&listener);
	t->connects_again = true;
	endpoint_connect(&t->endpoint);
	TURN_UNTIL(t, t->n_closed == 2);
	CHECK_EQ(t->end.kind, ENDPOINT_END_UNREACHABLE);
	CHECK_EQ(t->end.error, -ECONNREFUSED);
	CHECK_EQ(t->loop.opening, 0);
	near_free(t);
}

/* localhost may mean ::1 first, while the server listens on 127.0.0.1 alone. */
TEST(endpoint_tries_all_addresses)
{
	int listener;
	struct near *t = near_on(&listener);
	char local[TARGET_ADDRESS_TEXT + 8];

	strcpy(t->target.address[0], "127.0.0.9");
	strcpy(t->target.address[1], "127.0.0.1");
	t->target.n_addresses = 2;
	endpoint_connect(&t->endpoint);
	TURN_UNTIL(t, t->endpoint.state == ENDPOINT_HANDSHAKE);
	CHECK(strncmp(endpoint_format_local(local, &t->endpoint), "127.0.0.1:", 10) == 0);
	near_free(t);
	fd_closep(&listener);
}

#define MANY 200

TEST(endpoint_loop_lets_not_too_many_connect_at_a_time)
{
	int listener;
	struct near *t = near_on(&listener);
	struct near *many = calloc(MANY, sizeof(*many));
	unsigned waiting = 0;

	for (size_t i = 0; i < MANY; i++) {
		endpoint_init(&many[i].endpoint, &t->loop, &ops);
		endpoint_connect(&many[i].endpoint);
	}
	for (int i = 0; i < 5; i++)
		far_turn(&t->loop);
	CHECK_EQ(t->loop.opening, ENDPOINT_MAX_OPENING);
	for (size_t i = 0; i < MANY; i++)
		waiting += many[i].endpoint.state == ENDPOINT_WAITING;
	CHECK_EQ(waiting, MANY - ENDPOINT_MAX_OPENING);

	endpoint_close(&many[MANY - 1].endpoint, WS_CODE_NORMAL, ""); /* one that waits */
	endpoint_abort(&many[0].endpoint, 0);                         /* makes room for another */
	far_turn(&t->loop);
	far_turn(&t->loop);
	CHECK_EQ(t->loop.opening, ENDPOINT_MAX_OPENING);
	CHECK_EQ(many[MANY - 1].n_closed, 1);
	for (size_t i = 0; i < MANY; i++)
		endpoint_abort(&many[i].endpoint, 0);
	far_turn(&t->loop);
	CHECK_EQ(t->loop.opening, 0);
	for (size_t i = 0; i < MANY; i++) {
		CHECK_EQ(many[i].n_closed, 1);
		endpoint_fini(&many[i].endpoint);
	}
	free(many);
	near_free(t);
	fd_closep(&listener);
}

TEST(endpoint_end_has_words_for_everything)
{
	static const struct {
		struct endpoint_end end;
		const char *text;
	} table[] = {
		{{.kind = ENDPOINT_END_CLOSED, .code = 1012, .reason = "soon\x1b[2J"},
		 "closed by the server with 1012 (soon\\x1b[2J)"},
		{{.kind = ENDPOINT_END_CLOSED, .code = WS_CODE_NO_STATUS},
		 "closed by the server without a code"},
		{{.kind = ENDPOINT_END_UNREACHABLE, .error = -ECONNREFUSED},
		 "cannot connect: Connection refused"},
		{{.kind = ENDPOINT_END_REFUSED, .status = 418}, "the server answered 418"},
		{{.kind = ENDPOINT_END_REFUSED, .status = 418, .reason = "a\x1b[2J pot"},
		 "the server answered 418 (a\\x1b[2J pot)"},
		{{.kind = ENDPOINT_END_NOT_WS}, "the answer is not that of a WebSocket server"},
		{{.kind = ENDPOINT_END_LOST, .error = -ECONNRESET},
		 "connection lost: Connection reset by peer"},
		{{.kind = ENDPOINT_END_LOST}, "connection lost: the server went away"},
		{{.kind = ENDPOINT_END_TIMEOUT}, "the server does not answer"},
		{{.kind = ENDPOINT_END_VIOLATION, .reason = "so"},
		 "the server broke the protocol: so"},
	};
	char text[640], small[8];

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		CHECK_STR(endpoint_end_format(text, sizeof(text), &table[i].end), table[i].text);
		CHECK(strlen(endpoint_end_format(small, sizeof(small), &table[i].end)) <
		      sizeof(small));
	}
	CHECK(strstr(endpoint_end_format(
			     text, sizeof(text),
			     &(struct endpoint_end){.kind = ENDPOINT_END_REFUSED, .status = 503}),
		     "max_connections"));
}

TEST(endpoint_end_says_whether_to_come_back)
{
	static const struct {
		struct endpoint_end end;
		enum close_return client;
	} table[] = {
		{{.kind = ENDPOINT_END_CLOSED, .code = 1000}, CLOSE_RETURN_NOT},
		{{.kind = ENDPOINT_END_CLOSED, .code = 1012}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_CLOSED, .code = 4001}, CLOSE_RETURN_AT_ONCE},
		{{.kind = ENDPOINT_END_VIOLATION, .code = 1009}, CLOSE_RETURN_NOT},
		{{.kind = ENDPOINT_END_UNREACHABLE, .error = -ECONNREFUSED}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_LOST}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_TIMEOUT}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_TLS}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_NOT_WS, .status = 101}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_REFUSED, .status = 302}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_REFUSED, .status = 400}, CLOSE_RETURN_NOT},
		{{.kind = ENDPOINT_END_REFUSED, .status = 401}, CLOSE_RETURN_FRESH},
		{{.kind = ENDPOINT_END_REFUSED, .status = 403}, CLOSE_RETURN_NOT},
		{{.kind = ENDPOINT_END_REFUSED, .status = 404}, CLOSE_RETURN_NOT},
		{{.kind = ENDPOINT_END_REFUSED, .status = 408}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_REFUSED, .status = 425}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_REFUSED, .status = 426}, CLOSE_RETURN_NOT},
		{{.kind = ENDPOINT_END_REFUSED, .status = 429}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_REFUSED, .status = 500}, CLOSE_RETURN_LATER},
		{{.kind = ENDPOINT_END_REFUSED, .status = 503}, CLOSE_RETURN_LATER},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		CHECK_EQ(endpoint_end_return(&table[i].end), table[i].client);
}

/* Each connection may have a query of its own, behind the one that the URL has. */
TEST(endpoint_adds_a_query_to_the_path)
{
	static const struct {
		const char *url, *query, *line;
	} table[] = {
		{"ws://127.0.0.1:1/a", NULL, "GET /a HTTP/1.1\r\n"},
		{"ws://127.0.0.1:1/a", "", "GET /a HTTP/1.1\r\n"},
		{"ws://127.0.0.1:1/a", "since=1.2", "GET /a?since=1.2 HTTP/1.1\r\n"},
		{"ws://127.0.0.1:1/a?b=c", "since=1.2", "GET /a?b=c&since=1.2 HTTP/1.1\r\n"},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct near *t = near_new(table[i].url);
		struct far f = {0};
		int fds[2];

		CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
		f.fd = fds[1];
		endpoint_set_query(&t->endpoint, table[i].query);
		endpoint_connect_fd(&t->endpoint, fds[0]);
		CHECK(far_fill(&f, &t->loop));
		CHECK_MEM(f.bytes, table[i].line, strlen(table[i].line));
		near_free(t);
		far_close(&f);
	}
}
