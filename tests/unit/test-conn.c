/* SPDX-License-Identifier: MIT */
/* A connection's way in: handshake, frames, messages, what breaks the rules. Most speak to echo. */
#include "rig.h"

#include <errno.h>
#include <stdio.h>

#define ECHO "echo_path = /echo\nmax_incoming_frames_per_second = 0\n"

static void expect_frame(struct guest *g, uint8_t opcode, bool fin, const void *p, size_t n)
{
	struct guest_frame f;

	CHECK(guest_next_frame(g, &f));
	CHECK_EQ(f.opcode, opcode);
	CHECK_EQ(f.fin, fin);
	CHECK_EQ(f.n, n);
	if (n)
		CHECK_MEM(f.p, p, n);
}

static void expect_nothing(struct guest *g)
{
	struct guest_frame f;

	CHECK(!guest_next_frame(g, &f));
	CHECK(!g->decoder || ws_decoder_is_idle(g->decoder));
}

/* Writes @p in two parts, with turns between. */
static void write_split(struct guest *g, const void *p, size_t n, size_t at)
{
	guest_write(g, p, at);
	rig_turn(g->rig);
	if (at < n)
		guest_write(g, (const char *)p + at, n - at);
	rig_settle(g->rig);
}

/* -------------------------------------------------------------------- handshake */

TEST(conn_takes_a_handshake_split_at_every_byte)
{
	struct rig *r = rig_new(1, ECHO);
	char request[1024];
	size_t n = guest_handshake(request, sizeof(request), "/some%20room");

	for (size_t at = 1; at < n; at++) {
		struct guest *g = guest_accept(r, 0);

		write_split(g, request, n, at);
		CHECK_EQ(guest_status(g), 101);
		CHECK_EQ(g->conn->state, CONN_OPEN);
		CHECK_EQ(g->conn->input, NULL);
		CHECK_STR(g->conn->path_member.channel->entry->name, "some room");
	}
	CHECK_EQ(RIG_SUM(r, connections_total), n - 1);
	CHECK_EQ(RIG_SUM(r, connections_active), n - 1);
	CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
	rig_free(r);
}

TEST(conn_takes_a_handshake_byte_by_byte)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_accept(r, 0);
	char request[1024];
	size_t n = guest_handshake(request, sizeof(request), "/");

	for (size_t i = 0; i < n; i++) {
		CHECK_EQ(guest_status(g), 0);
		CHECK_EQ(g->conn->state, CONN_HANDSHAKE);
		write_split(g, request + i, 1, 1);
	}
	CHECK_EQ(guest_status(g), 101);
	rig_free(r);
}

/* A client that doesn't wait for the answer: its first frames come with the head, cut anywhere. */
TEST(conn_takes_frames_right_behind_the_head)
{
	struct rig *r = rig_new(1, ECHO);
	struct buf all = {0};
	char request[1024];
	size_t n = guest_handshake(request, sizeof(request), "/echo");

	CHECK_EQ(buf_append(&all, request, n, BUF_NO_LIMIT), 0);
	guest_encode(&all, true, WS_PING, "early", 5);
	guest_encode(&all, true, WS_TEXT, "bird", 4);
	for (size_t at = n - 4; at <= all.len; at++) {
		struct guest *g = guest_accept(r, 0);

		write_split(g, all.data, all.len, at);
		CHECK_EQ(guest_status(g), 101);
		expect_frame(g, WS_PONG, true, "early", 5);
		expect_frame(g, WS_TEXT, true, "bird", 4);
		expect_nothing(g);
		CHECK_EQ(g->conn->input, NULL);
	}
	buf_fini(&all);
	rig_free(r);
}

#define UPGRADE "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
#define KEY_LINE "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"

TEST(conn_refuses_a_handshake_and_counts_why)
{
	static const struct {
		const char *request;
		int status;
		size_t counter;
	} cases[] = {
		{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 426,
		 offsetof(struct metrics, refused_no_upgrade)},
		{"POST / HTTP/1.1\r\n" UPGRADE KEY_LINE VERSION "\r\n", 405,
		 offsetof(struct metrics, refused_method)},
		{"GET / HTTP/1.1\r\n" UPGRADE KEY_LINE "Sec-WebSocket-Version: 8\r\n\r\n", 426,
		 offsetof(struct metrics, refused_version)},
		{"GET /%ff HTTP/1.1\r\n" UPGRADE KEY_LINE VERSION "\r\n", 404,
		 offsetof(struct metrics, refused_path)},
		{"GET / HTTP/1.1\r\n" UPGRADE VERSION "\r\n", 400,
		 offsetof(struct metrics, refused_bad_request)},
		{"\x16\x03\x01\x02", 400, offsetof(struct metrics, refused_bad_request)},
	};
	struct rig *r = rig_new(1, "");

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct guest *g = guest_accept(r, 0);
		uint64_t before = rig_sum(r, cases[i].counter);

		guest_write(g, cases[i].request, strlen(cases[i].request));
		rig_settle(r);
		CHECK_EQ(guest_status(g), cases[i].status);
		CHECK_EQ(rig_sum(r, cases[i].counter), before + 1);
		CHECK_EQ(RIG_SUM(r, connection_errors), i + 1);
		/* The answer is out and this side shut: the client's end ends it. */
		CHECK(g->is_shut && !g->is_closed);
		guest_end(g);
		CHECK(g->is_closed && !g->was_reset);
	}
	CHECK_EQ(RIG_SUM(r, connections_total), 0);
	rig_free(r);
}

TEST(conn_refuses_a_head_past_8_kib)
{
	struct rig *r = rig_new(1, "");

	for (size_t step = 1000; step <= 10000; step += 9000) {
		struct guest *g = guest_accept(r, 0);
		char filler[10000];
		size_t sent = 16;

		memset(filler, 'a', sizeof(filler));
		guest_write(g, "GET / HTTP/1.1\r\n", 16);
		guest_write(g, "X: ", 3);
		for (; guest_status(g) == 0 && sent < 20000; sent += step) {
			guest_write(g, filler, step);
			rig_settle(r);
			if (g->is_shut)
				break;
		}
		CHECK(g->is_shut && sent <= 8192 + step);
		CHECK(!g->conn->input || g->conn->input->message.cap <= 16384);
	}
	CHECK_EQ(RIG_SUM(r, refused_head_too_large), 2);
	rig_free(r);
}

/* --------------------------------------------------------------------- messages */

TEST(conn_echoes_messages_of_every_length_form_unchanged)
{
	static const size_t sizes[] = {0, 1, 7, 125, 126, 127, 65535, 65536, 200000};
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");
	uint8_t *p = malloc(200000);

	for (size_t i = 0; i < 200000; i++)
		p[i] = (uint8_t)(i * 7 + i / 256);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		guest_send(g, true, WS_BINARY, p, sizes[i]);
		rig_settle(r);
		expect_frame(g, WS_BINARY, true, p, sizes[i]);
		CHECK_EQ(g->conn->input, NULL);
	}
	CHECK_EQ(RIG_SUM(r, messages_received), ARRAY_LEN(sizes));
	CHECK_EQ(RIG_SUM(r, messages_sent), ARRAY_LEN(sizes));
	free(p);
	rig_free(r);
}

TEST(conn_takes_a_message_split_at_every_byte)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");
	char text[300];
	struct buf all = {0};

	memset(text, 'z', sizeof(text));
	memcpy(text + 98, "\xf0\x9f\x90\xa6", 4);
	guest_encode(&all, true, WS_TEXT, text, sizeof(text));
	for (size_t at = 1; at <= all.len; at++) {
		write_split(g, all.data, all.len, at);
		expect_frame(g, WS_TEXT, true, text, sizeof(text));
		expect_nothing(g);
		CHECK_EQ(g->conn->input, NULL);
		CHECK_EQ(g->worker->hub.env.reassembly_bytes, 0);
	}
	buf_fini(&all);
	rig_free(r);
}

TEST(conn_puts_fragments_together_with_control_frames_between)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");
	struct buf all = {0};

	guest_encode(&all, false, WS_TEXT, "a\xc3", 2);
	guest_encode(&all, true, WS_PING, "first", 5);
	guest_encode(&all, false, WS_CONTINUATION, "\xa9", 1);
	guest_encode(&all, true, WS_PONG, "nobody asked", 12);
	guest_encode(&all, false, WS_CONTINUATION, "", 0);
	guest_encode(&all, true, WS_PING, "", 0);
	guest_encode(&all, true, WS_CONTINUATION, "z", 1);
	guest_encode(&all, true, WS_TEXT, "next", 4);
	for (size_t at = 1; at <= all.len; at++) {
		write_split(g, all.data, all.len, at);
		expect_frame(g, WS_PONG, true, "first", 5);
		expect_frame(g, WS_PONG, true, "", 0);
		expect_frame(g, WS_TEXT, true, "a\xc3\xa9z", 4);
		expect_frame(g, WS_TEXT, true, "next", 4);
		expect_nothing(g);
		CHECK_EQ(g->conn->input, NULL);
	}
	buf_fini(&all);
	rig_free(r);
}

/* ------------------------------------------------------------- what breaks rules */

#define MASKED(first, length) (uint8_t)(first), (uint8_t)(0x80 | (length)), 0, 0, 0, 0

/* Raw frames, masked with zeroes, and the code of the Close that answers them. */
/* clang-format off */
static const struct {
	uint8_t bytes[24];
	size_t n;
	unsigned code;
} rules[] = {
	{{MASKED(0x88, 2), 0x03, 0xe8}, 8, 1000},
	{{MASKED(0x88, 5), 0x03, 0xe9, 'b', 'y', 'e'}, 11, 1001},
	{{MASKED(0x88, 2), 0x0b, 0xb8}, 8, 3000},
	{{MASKED(0x88, 2), 0x13, 0x87}, 8, 4999},
	{{MASKED(0x88, 0)}, 6, WS_CODE_NO_STATUS},
	{{MASKED(0x88, 1), 0x03}, 7, 1002},
	{{MASKED(0x88, 2), 0x03, 0xe7}, 8, 1002}, /* 999 */
	{{MASKED(0x88, 2), 0x03, 0xec}, 8, 1002}, /* 1004 */
	{{MASKED(0x88, 2), 0x03, 0xed}, 8, 1002}, /* 1005 */
	{{MASKED(0x88, 2), 0x03, 0xee}, 8, 1002}, /* 1006 */
	{{MASKED(0x88, 2), 0x03, 0xf7}, 8, 1002}, /* 1015 */
	{{MASKED(0x88, 2), 0x13, 0x88}, 8, 1002}, /* 5000 */
	{{MASKED(0x88, 3), 0x03, 0xe8, 0xff}, 9, 1007},
	{{0x81, 0x01, 'x'}, 3, 1002},              /* not masked */
	{{MASKED(0xc1, 1), 'x'}, 7, 1002},         /* RSV1 */
	{{MASKED(0xa2, 1), 'x'}, 7, 1002},         /* RSV2 */
	{{MASKED(0x91, 1), 'x'}, 7, 1002},         /* RSV3 */
	{{MASKED(0x83, 1), 'x'}, 7, 1002},         /* reserved opcodes */
	{{MASKED(0x8b, 1), 'x'}, 7, 1002},
	{{MASKED(0x09, 1), 'x'}, 7, 1002},         /* a ping in parts */
	{{0x89, 0xfe, 0, 126, 0, 0, 0, 0}, 8, 1002}, /* a long one */
	{{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 14, 1002},
	{{0x81, 0xfe, 0, 5, 0, 0, 0, 0}, 8, 1002}, /* a length not in its shortest form */
	{{MASKED(0x80, 1), 'x'}, 7, 1002},         /* continues nothing */
	{{MASKED(0x01, 1), 'x', MASKED(0x81, 1), 'y'}, 14, 1002},
	{{MASKED(0x02, 1), 'x', MASKED(0x82, 1), 'y'}, 14, 1002},
	{{MASKED(0x81, 1), 0xff}, 7, 1007},
	{{MASKED(0x81, 2), 'x', 0xc3}, 8, 1007},   /* ends within a character */
	{{MASKED(0x01, 1), 0xc3, MASKED(0x80, 1), 'y'}, 14, 1007},
	{{MASKED(0x81, 3), 0xed, 0xa0, 0x80}, 9, 1007}, /* a surrogate */
};
/* clang-format on */

TEST(conn_answers_each_broken_rule_with_its_close_code)
{
	struct rig *r = rig_new(1, ECHO);

	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		for (size_t at = 1; at <= rules[i].n; at++) {
			struct guest *g = guest_open(r, 0, "/echo");

			guest_write(g, rules[i].bytes, at);
			rig_turn(r);
			if (at < rules[i].n)
				guest_write(g, rules[i].bytes + at, rules[i].n - at);
			/* What comes after it is not looked at. */
			guest_send(g, true, WS_TEXT, "more", 4);
			rig_settle(r);
			CHECK_EQ(guest_close_code(g), rules[i].code);
			CHECK_EQ(RIG_SUM(r, messages_received), 0);
			CHECK(g->is_shut && g->conn && g->conn->state == CONN_LINGERING);
			CHECK_EQ(g->conn->input, NULL);
			guest_end(g);
			CHECK(g->is_closed && !g->was_reset);
			rig_turn(r);
		}
	}
	CHECK_EQ(RIG_SUM(r, connections_active), 0);
	rig_free(r);
}

/* The close comes with the byte that cannot be text, not with the end of the frame. */
TEST(conn_sees_bad_utf8_as_early_as_it_can)
{
	static const uint8_t head[] = {MASKED(0x01, 100)};
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");

	guest_write(g, head, sizeof(head));
	guest_write(g, "fine \xf4", 6);
	rig_settle(r);
	CHECK_EQ(guest_close_code(g), 0);
	guest_write(g, "\x90", 1);
	rig_settle(r);
	CHECK_EQ(guest_close_code(g), 1007);
	CHECK_EQ(RIG_SUM(r, closed_1007), 1);
	CHECK_EQ(RIG_SUM(r, connection_errors), 1);
	rig_free(r);
}

/* --------------------------------------------------------------------- limits */

#define SMALL ECHO "max_frame_size = 1K\nmax_message_size = 2K\n"

/* Sends a message in fragments; returns the close code, 0 when it came back. */
static unsigned try_sizes(struct rig *r, const size_t *sizes, size_t n)
{
	struct guest *g = guest_open(r, 0, "/echo");
	struct guest_frame f;
	uint8_t zeroes[4096] = {0};
	size_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		guest_send(g, i == n - 1, i ? WS_CONTINUATION : WS_BINARY, zeroes, sizes[i]);
		sum += sizes[i];
	}
	rig_settle(r);
	if (g->conn->state != CONN_OPEN)
		return guest_close_code(g);
	CHECK(guest_next_message(g, &f));
	CHECK_EQ(f.n, sum);
	return 0;
}

TEST(conn_holds_frames_and_messages_to_their_limits)
{
	struct rig *r = rig_new(1, SMALL);

	CHECK_EQ(try_sizes(r, (size_t[]){1023}, 1), 0);
	CHECK_EQ(try_sizes(r, (size_t[]){1024}, 1), 0);
	CHECK_EQ(try_sizes(r, (size_t[]){1025}, 1), 1009);
	CHECK_EQ(try_sizes(r, (size_t[]){1, 1025}, 2), 1009);
	CHECK_EQ(try_sizes(r, (size_t[]){1024, 1023}, 2), 0);
	CHECK_EQ(try_sizes(r, (size_t[]){1024, 1024}, 2), 0);
	CHECK_EQ(try_sizes(r, (size_t[]){1024, 1024, 0}, 3), 0);
	CHECK_EQ(try_sizes(r, (size_t[]){1024, 1024, 1}, 3), 1009);
	CHECK_EQ(try_sizes(r, (size_t[]){1000, 1000, 49}, 3), 1009);
	CHECK_EQ(RIG_SUM(r, closed_1009), 4);
	rig_free(r);
}

TEST(conn_judges_a_frame_by_its_head)
{
	static const uint8_t huge[] = {0x82, 0xfe, 4, 1, 0, 0, 0, 0};
	struct rig *r = rig_new(1, SMALL);
	struct guest *g = guest_open(r, 0, "/echo");

	guest_write(g, huge, sizeof(huge));
	rig_settle(r);
	CHECK_EQ(guest_close_code(g), 1009);
	CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
	rig_free(r);
	r = rig_new(1, "text_messages = reject\n");
	g = guest_open(r, 0, "/");
	guest_write(g, (uint8_t[]){MASKED(0x81, 5)}, 6);
	rig_settle(r);
	CHECK_EQ(guest_close_code(g), 1003);
	CHECK_EQ(RIG_SUM(r, text_messages), 1);
	rig_free(r);
}

static size_t count_pongs(struct guest *g)
{
	struct guest_frame f;
	size_t n = 0;

	while (guest_next_frame(g, &f))
		n += f.opcode == WS_PONG;
	return n;
}

static void send_pings(struct guest *g, size_t n)
{
	struct buf all = {0};

	for (size_t i = 0; i < n; i++)
		guest_encode(&all, true, WS_PING, "", 0);
	guest_write(g, all.data, all.len);
	buf_fini(&all);
	rig_settle(g->rig);
}

TEST(conn_throttles_a_client_until_its_next_second)
{
	struct rig *r = rig_new(1, "max_incoming_frames_per_second = 10\n");
	struct guest *g = guest_open(r, 0, "/");

	send_pings(g, 10);
	CHECK_EQ(count_pongs(g), 10);
	CHECK_EQ(RIG_SUM(r, throttles), 0);
	send_pings(g, 25);
	CHECK_EQ(count_pongs(g), 0);
	CHECK_EQ(RIG_SUM(r, throttles), 1);
	rig_pass_in_steps(r, 999 * NS_PER_MS, 50 * NS_PER_MS);
	CHECK_EQ(count_pongs(g), 0);
	rig_pass_in_steps(r, 151 * NS_PER_MS, 50 * NS_PER_MS);
	CHECK_EQ(count_pongs(g), 10);
	rig_pass_in_steps(r, 1100 * NS_PER_MS, 50 * NS_PER_MS);
	CHECK_EQ(count_pongs(g), 10);
	rig_pass_in_steps(r, 1100 * NS_PER_MS, 50 * NS_PER_MS);
	CHECK_EQ(count_pongs(g), 5);
	CHECK_EQ(RIG_SUM(r, throttles), 3);
	CHECK_EQ(g->conn->state, CONN_OPEN);
	CHECK_EQ(g->conn->input, NULL);
	rig_free(r);
}

TEST(conn_closes_a_client_past_its_rate)
{
	struct rig *r = rig_new(1, "max_incoming_frames_per_second = 10\n"
				   "rate_limit_action = close\n");
	struct guest *g = guest_open(r, 0, "/");

	for (int second = 0; second < 3; second++) {
		send_pings(g, 10);
		CHECK_EQ(count_pongs(g), 10);
		rig_pass(r, NS_PER_S);
	}
	send_pings(g, 11);
	CHECK_EQ(guest_close_code(g), 1008);
	rig_free(r);
}

/* One client's time in a turn is bounded; the rest is parked, counted, and goes on by itself. */
TEST(conn_takes_a_share_of_frames_a_turn)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");
	struct buf all = {0};

	for (int i = 0; i < 2000; i++)
		guest_encode(&all, true, WS_PONG, "", 0);
	clock_creep_for_test(TURN_CLIENT_NS / 40);
	guest_write(g, all.data, all.len);
	CHECK(RIG_SUM(r, frames_received) >= 64 && RIG_SUM(r, frames_received) < 200);
	CHECK(RIG_SUM(r, reassembly_bytes) >= all.len / 2);
	/* The first share is small; from then on it is one of the busy ones. */
	rig_turn(r);
	CHECK(RIG_SUM(r, frames_received) >= 640 && RIG_SUM(r, frames_received) < 1000);
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, frames_received), 2000);
	CHECK_EQ(g->conn->input, NULL);
	buf_fini(&all);
	rig_free(r);
}
