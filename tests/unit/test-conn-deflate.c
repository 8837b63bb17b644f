/* SPDX-License-Identifier: MIT */
/* permessage-deflate on a connection: negotiation, RSV1, inflating over turns, broadcasts. */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <zlib.h>

#include "fault.h"

#define ECHO "echo_path = /echo\nmax_incoming_frames_per_second = 0\n"
#define OFFER "permessage-deflate; client_max_window_bits"
#define KIB 1024
#define TEXT_BYTES 3000

/* Deflated as a client does it. Owns: the caller. */
static struct buf deflated(const void *p, size_t n)
{
	struct buf out = {0};
	z_stream zs = {0};

	CHECK_EQ(deflateInit2(&zs, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
	CHECK_EQ(buf_reserve(&out, deflateBound(&zs, (uLong)n) + 64, BUF_NO_LIMIT), 0);
	zs.next_in = (Bytef *)(uintptr_t)p;
	zs.avail_in = (uInt)n;
	zs.next_out = out.data;
	zs.avail_out = (uInt)out.cap;
	CHECK_EQ(deflate(&zs, Z_SYNC_FLUSH), Z_OK);
	out.len = zs.total_out - 4;
	deflateEnd(&zs);
	return out;
}

static void send_deflated(struct guest *g, uint8_t opcode, const void *p, size_t n)
{
	struct buf packed = deflated(p, n);

	guest_send(g, true, opcode | GUEST_RSV1, packed.data, packed.len);
	buf_fini(&packed);
}

/* The next message, inflated with a window of @bits where it is deflated. */
static bool next_inflated(struct guest *g, int bits, struct guest_frame *f, struct buf *out)
{
	z_stream zs = {0};

	out->len = 0;
	if (!guest_next_message(g, f))
		return false;
	if (!f->rsv1) {
		CHECK_EQ(buf_append(out, f->p, f->n, BUF_NO_LIMIT), 0);
		return true;
	}
	CHECK_EQ(buf_append(&g->payload, "\x00\x00\xff\xff", 4, BUF_NO_LIMIT), 0);
	CHECK_EQ(buf_reserve(out, 1 << 20, BUF_NO_LIMIT), 0);
	CHECK_EQ(inflateInit2(&zs, -bits), Z_OK);
	zs.next_in = g->payload.data;
	zs.avail_in = (uInt)g->payload.len;
	zs.next_out = out->data;
	zs.avail_out = (uInt)out->cap;
	CHECK_EQ(inflate(&zs, Z_SYNC_FLUSH), Z_OK);
	CHECK_EQ(zs.avail_in, 0);
	out->len = zs.total_out;
	inflateEnd(&zs);
	return true;
}

static void expect_inflated(struct guest *g, uint8_t opcode, const void *p, size_t n)
{
	struct buf out = {0};
	struct guest_frame f;

	CHECK(next_inflated(g, 15, &f, &out));
	CHECK_EQ(f.opcode, opcode);
	CHECK_EQ(out.len, n);
	if (n)
		CHECK_MEM(out.data, p, n);
	buf_fini(&out);
}

static uint8_t *make_text(size_t n)
{
	static const char words[] = "the quick brown fox jumps over the lazy dog ";
	uint8_t *p = malloc(n + 1);

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)words[(i * i / 7 + i) % (sizeof(words) - 1)];
	return p;
}

/* Nothing of zlib stays with a connection between messages. */
static void expect_idle(struct rig *r, struct guest *g)
{
	CHECK_EQ(g->conn->input, NULL);
	CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
}

/* ---------------------------------------------------------------- negotiation */

TEST(conn_agrees_to_deflate_when_it_is_offered)
{
	static const struct {
		const char *offer, *answer;
		enum deflate_window window;
	} cases[] = {
		{OFFER,
		 "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
		 DEFLATE_32K},
		{"permessage-deflate; server_max_window_bits=10",
		 "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
		 "server_max_window_bits=9",
		 DEFLATE_512},
		{"permessage-deflate; server_max_window_bits=8", "", DEFLATE_NONE},
		{"permessage-deflate; nonsense", "", DEFLATE_NONE},
		{"x-something-else; a=1", "", DEFLATE_NONE},
	};
	struct rig *r = rig_new(1, ECHO);

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct guest *g = guest_open_offering(r, 0, "/echo", cases[i].offer);

		CHECK_STR(g->extension, cases[i].answer);
		CHECK_EQ(g->conn->deflate_window, cases[i].window);
	}
	rig_free(r);
}

TEST(conn_does_not_agree_to_deflate_when_it_is_off)
{
	struct rig *r = rig_new(1, ECHO "permessage_deflate = no\n");
	struct guest *g = guest_open_offering(r, 0, "/echo", OFFER);

	CHECK_STR(g->extension, "");
	CHECK_EQ(g->conn->deflate_window, DEFLATE_NONE);
	send_deflated(g, WS_TEXT, "hello", 5);
	rig_settle(r);
	CHECK_EQ(guest_close_code(g), 1002);
	rig_free(r);
}

/* RFC 6455 section 9.1: a header that is no list of extensions fails the handshake. */
TEST(conn_refuses_extensions_that_are_malformed)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_accept(r, 0);
	char request[512];

	snprintf(request, sizeof(request),
		 "GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
		 "Sec-WebSocket-Extensions: permessage-deflate; =1\r\n\r\n");
	guest_write(g, request, strlen(request));
	rig_settle(r);
	CHECK_EQ(guest_status(g), 400);
	CHECK_EQ(RIG_SUM(r, refused_bad_request), 1);
	rig_free(r);
}

/* ----------------------------------------------------------------------- RSV1 */

TEST(conn_closes_for_rsv1_where_it_may_not_stand)
{
	static const struct {
		const char *offer;
		uint8_t opcode;
		bool inside; /* of a fragmented message */
		unsigned code;
	} cases[] = {
		{"x-none", WS_TEXT | GUEST_RSV1, false, 1002},
		{OFFER, WS_TEXT | GUEST_RSV1, false, 0},
		{OFFER, WS_BINARY | GUEST_RSV1, false, 0},
		{OFFER, WS_CONTINUATION | GUEST_RSV1, true, 1002},
		{OFFER, WS_PING | GUEST_RSV1, false, 1002},
		{OFFER, WS_PONG | GUEST_RSV1, true, 1002},
		{OFFER, WS_CLOSE | GUEST_RSV1, false, 1002},
		{OFFER, WS_CONTINUATION, true, 0},
	};
	struct rig *r = rig_new(1, ECHO);
	struct buf hello = deflated("hello", 5);

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct guest *g = guest_open_offering(r, 0, "/echo", cases[i].offer);
		size_t first = cases[i].inside ? hello.len - 1 : 0;

		if (cases[i].inside)
			guest_send(g, false, WS_TEXT | GUEST_RSV1, hello.data, first);
		guest_send(g, true, cases[i].opcode, hello.data + first, hello.len - first);
		rig_settle(r);
		if (cases[i].code)
			CHECK_EQ(guest_close_code(g), cases[i].code);
		else
			CHECK_EQ(g->conn->state, CONN_OPEN);
	}
	buf_fini(&hello);
	rig_free(r);
}

/* ------------------------------------------------------------------- messages */

TEST(conn_takes_deflated_messages_cut_anywhere)
{
	uint8_t *text = make_text(TEXT_BYTES);
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open_offering(r, 0, "/echo", OFFER);
	struct buf packed = deflated(text, TEXT_BYTES), all = {0};

	guest_encode(&all, true, WS_TEXT | GUEST_RSV1, packed.data, packed.len);
	for (size_t at = 1; at < all.len; at++) {
		guest_write(g, all.data, at);
		rig_turn(r);
		guest_write(g, all.data + at, all.len - at);
		rig_settle(r);
		expect_inflated(g, WS_TEXT, text, TEXT_BYTES);
		expect_idle(r, g);
	}
	for (size_t at = 1; at < packed.len; at += 7) {
		guest_send(g, false, WS_BINARY | GUEST_RSV1, packed.data, at);
		guest_send(g, true, WS_PING, "between", 7);
		guest_send(g, true, WS_CONTINUATION, packed.data + at, packed.len - at);
		rig_settle(r);
		expect_inflated(g, WS_BINARY, text, TEXT_BYTES);
		expect_idle(r, g);
	}
	buf_fini(&all);
	buf_fini(&packed);
	free(text);
	rig_free(r);
}

TEST(conn_takes_plain_and_empty_messages_where_deflate_was_agreed_to)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open_offering(r, 0, "/echo", OFFER);

	guest_send(g, true, WS_TEXT, "plain", 5);
	guest_send(g, true, WS_BINARY | GUEST_RSV1, "\x00", 1);
	guest_send(g, true, WS_BINARY | GUEST_RSV1, "", 0);
	guest_send(g, false, WS_TEXT | GUEST_RSV1, "", 0);
	guest_send(g, true, WS_CONTINUATION, "\x00", 1);
	send_deflated(g, WS_TEXT, "end", 3);
	rig_settle(r);
	expect_inflated(g, WS_TEXT, "plain", 5);
	expect_inflated(g, WS_BINARY, "", 0);
	expect_inflated(g, WS_BINARY, "", 0);
	expect_inflated(g, WS_TEXT, "", 0);
	expect_inflated(g, WS_TEXT, "end", 3);
	expect_idle(r, g);
	rig_free(r);
}

TEST(conn_closes_for_what_does_not_inflate)
{
	static const struct {
		uint8_t opcode;
		const char *p;
		size_t n;
		unsigned code;
	} cases[] = {
		{WS_BINARY, "\x07", 1, 1007},
		{WS_TEXT, "\xf2\x48\xcd\xc9", 4, 1007},
		{WS_TEXT, "\x00\x02\x00\xfd\xff\xc3\x28\x00", 8, 1007}, /* text that isn't UTF-8 */
		{WS_BINARY, "\x00\x02\x00\xfd\xff\xc3\x28\x00", 8, 0},
		{WS_TEXT, "\x00\x01\x00\xfe\xff\xc3\x00", 7, 1007}, /* UTF-8 that is cut off */
	};
	struct rig *r = rig_new(1, ECHO);

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (size_t cut = 0; cut < 2; cut++) {
			struct guest *g = guest_open_offering(r, 0, "/echo", OFFER);
			uint64_t errors = RIG_SUM(r, connection_errors);

			if (cut)
				guest_send(g, false, cases[i].opcode | GUEST_RSV1, "", 0);
			guest_send(g, true, cut ? WS_CONTINUATION : cases[i].opcode | GUEST_RSV1,
				   cases[i].p, cases[i].n);
			rig_settle(r);
			CHECK_EQ(RIG_SUM(r, connection_errors), errors + (cases[i].code != 0));
			if (cases[i].code)
				CHECK_EQ(guest_close_code(g), cases[i].code);
			else
				expect_inflated(g, WS_BINARY, "\xc3\x28", 2);
		}
	}
	CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
	rig_free(r);
}

TEST(conn_holds_inflated_messages_to_max_message_size)
{
	static const size_t sizes[] = {65535, 65536, 65537, 300000};
	struct rig *r = rig_new(1, ECHO "max_message_size = 64K\nmax_frame_size = 64K\n");
	uint8_t *nothing = calloc(1, 300000);

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct guest *g = guest_open_offering(r, 0, "/echo", OFFER);
		uint64_t errors = RIG_SUM(r, compression_errors);

		send_deflated(g, WS_BINARY, nothing, sizes[i]);
		rig_settle(r);
		CHECK_EQ(RIG_SUM(r, compression_errors), errors + (sizes[i] > 65536));
		if (sizes[i] > 65536)
			CHECK_EQ(guest_close_code(g), 1009);
		else
			expect_inflated(g, WS_BINARY, nothing, sizes[i]);
	}
	CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
	free(nothing);
	rig_free(r);
}

/* ------------------------------------------------------------- several turns */

#define BIG (4 * 1024 * KIB)

/* 4 MiB out of 4 KiB: the client behind it in the same turn doesn't wait for all of it. */
TEST(conn_inflates_a_share_in_each_turn)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *bomber = guest_open_offering(r, 0, "/echo", OFFER);
	struct guest *other = guest_open(r, 0, "/echo");
	uint8_t *nothing = calloc(1, BIG);
	struct guest_frame f;
	unsigned turns = 0;

	bomber->is_mute = true;
	for (int parts = 0; parts < 2; parts++) {
		struct buf packed = deflated(nothing, BIG);
		uint64_t out = RIG_SUM(r, messages_received), sent = bomber->sent;

		if (parts)
			guest_send(bomber, false, WS_BINARY | GUEST_RSV1, packed.data, 100);
		guest_send(bomber, true, parts ? WS_CONTINUATION : WS_BINARY | GUEST_RSV1,
			   packed.data + (parts ? 100 : 0), packed.len - (parts ? 100 : 0));
		guest_send(bomber, true, WS_PING, "behind", 6);
		rig_turn(r);
		CHECK(bomber->conn->input && bomber->conn->input->inflater);
		CHECK(RIG_SUM(r, reassembly_bytes) > 48 * KIB);
		guest_send(other, true, WS_TEXT, "hi", 2);
		rig_turn(r);
		CHECK(guest_next_message(other, &f));
		CHECK_EQ(f.n, 2);
		CHECK_EQ(bomber->sent, sent);
		for (turns = 2; RIG_SUM(r, messages_received) < out + 2; turns++)
			rig_turn(r);
		CHECK(turns >= 10 && turns < 40);
		rig_settle(r);
		CHECK(bomber->sent >= sent + BIG);
		expect_idle(r, bomber);
		buf_fini(&packed);
	}
	free(nothing);
	rig_free(r);
}

/* Many small ones that inflate to much share the same bound. */
TEST(conn_inflates_many_messages_a_share_in_each_turn)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open_offering(r, 0, "/echo", OFFER);
	uint8_t *nothing = calloc(1, 200 * KIB);
	struct buf packed = deflated(nothing, 200 * KIB), all = {0};
	uint64_t before;

	g->is_mute = true;
	for (int i = 0; i < 20; i++)
		guest_encode(&all, true, WS_BINARY | GUEST_RSV1, packed.data, packed.len);
	guest_write(g, all.data, all.len);
	rig_turn(r);
	for (int turn = 0; turn < 5; turn++) {
		before = RIG_SUM(r, messages_received);
		rig_turn(r);
		CHECK(RIG_SUM(r, messages_received) - before <= 2);
	}
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, messages_received), 20);
	expect_idle(r, g);
	buf_fini(&all);
	buf_fini(&packed);
	free(nothing);
	rig_free(r);
}

/* Whoever goes, or is closed, in the middle of it leaves nothing behind. */
TEST(conn_ends_in_the_middle_of_inflating)
{
	uint8_t *nothing = calloc(1, BIG);
	struct buf packed = deflated(nothing, BIG);

	for (int how = 0; how < 4; how++) {
		struct rig *r = rig_new(1, ECHO "reassembly_memory = 8M\n");
		struct guest *g = guest_open_offering(r, 0, "/echo", OFFER);

		guest_send(g, true, WS_BINARY | GUEST_RSV1, packed.data, packed.len);
		guest_send(g, true, WS_CLOSE, "\x03\xe8", 2);
		rig_turn(r);
		CHECK(g->conn->input && g->conn->input->inflater);
		if (how == 0)
			conn_abort(g->conn);
		else if (how == 1)
			conn_close(g->conn, 1008, "enough");
		else if (how == 2)
			conn_close(g->conn, 1000, "");
		else
			guest_end(g);
		rig_settle(r);
		/* What a closed client had on its way reaches nobody. */
		CHECK_EQ(RIG_SUM(r, messages_received), how == 3);
		if (how == 1 || how == 2)
			CHECK_EQ(guest_close_code(g), how == 1 ? 1008 : 1000);
		rig_free(r);
	}
	buf_fini(&packed);
	free(nothing);
}

/* A client that may not be read now, with its message half inflated, goes on when it may. */
TEST(conn_goes_on_inflating_after_it_was_held)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open_offering(r, 0, "/echo", OFFER);
	uint8_t *nothing = calloc(1, BIG);
	struct buf packed = deflated(nothing, BIG);

	guest_send(g, true, WS_BINARY | GUEST_RSV1, packed.data, packed.len);
	rig_turn(r);
	CHECK(g->conn->input && g->conn->input->inflater);
	conn_pause(g->conn, CONN_PAUSE_SPOOL);
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, messages_received), 0);
	conn_resume(g->conn, CONN_PAUSE_SPOOL);
	conn_want_read(g->conn);
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, messages_received), 1);
	expect_inflated(g, WS_BINARY, nothing, BIG);
	buf_fini(&packed);
	free(nothing);
	rig_free(r);
}

TEST(conn_survives_the_lack_of_memory_while_inflating)
{
	uint8_t *text = make_text(600 * KIB);
	struct buf packed = deflated(text, 600 * KIB);
	bool is_over = false;

	for (uint64_t nth = 1; !is_over; nth++) {
		struct rig *r = rig_new(1, ECHO);
		struct guest *g = guest_open_offering(r, 0, "/echo", OFFER);
		unsigned code;

		g->is_mute = true;
		guest_write(g, NULL, 0);
		guest_encode(&g->in, true, WS_TEXT | GUEST_RSV1, packed.data, packed.len);
		fault_fail(FAULT_ALLOC, nth, 1, ENOMEM);
		conn_event(&g->conn->source, EPOLLIN);
		rig_settle(r);
		is_over = RIG_SUM(r, messages_received) == 1 && g->sent > 600 * KIB;
		(void)fault_end(FAULT_ALLOC);
		code = g->conn ? g->conn->close_code : 0;
		CHECK(is_over || !g->conn || code == 1011);
		rig_free(r);
	}
	buf_fini(&packed);
	free(text);
}

/* ----------------------------------------------------------------- broadcasts */

/* Chat of @n bytes; who negotiated deflate gets it deflated when it is worth that. */
static void broadcast(struct rig *r, struct guest *from, size_t n)
{
	char *content = (char *)make_text(n);

	content[n] = '\0';
	guest_chat(from, content, NULL);
	rig_settle(r);
	free(content);
}

TEST(conn_members_get_the_form_they_negotiated)
{
	static const struct {
		const char *offer;
		int bits;
	} kinds[] = {{"x-none", 0},
		     {OFFER, 15},
		     {"permessage-deflate; server_max_window_bits=13", 12},
		     {"permessage-deflate; server_max_window_bits=9", 9}};
	struct rig *r = rig_new(2, "compression_threshold = 1K\ncompression_max_size = 8K\n");
	struct guest *from = guest_open(r, 0, "/room"), *to[16];
	struct buf out = {0}, first = {0};
	struct guest_frame f;

	for (size_t i = 0; i < ARRAY_LEN(to); i++)
		to[i] = guest_open_offering(r, i & 1, "/room", kinds[i / 4].offer);
	rig_settle(r);
	for (size_t n = 100; n < 20000; n *= 4) {
		uint64_t in = RIG_SUM(r, deflate_in_bytes);
		bool worth = n > 1000 && n < 8000;

		for (size_t i = 0; i < ARRAY_LEN(to); i++)
			guest_drop(to[i]);
		broadcast(r, from, n);
		for (size_t i = 0; i < ARRAY_LEN(to); i++) {
			CHECK(next_inflated(to[i], MAX(kinds[i / 4].bits, 9), &f, &out));
			CHECK_EQ(f.rsv1, worth && kinds[i / 4].bits > 0);
			if (i == 0) {
				first.len = 0;
				CHECK_EQ(buf_append(&first, out.data, out.len, BUF_NO_LIMIT), 0);
			}
			CHECK_EQ(out.len, first.len);
			CHECK_MEM(out.data, first.data, out.len);
		}
		/* Once for each window, though four members on two workers have it. */
		CHECK_EQ(RIG_SUM(r, deflate_in_bytes) - in, worth ? 3 * first.len : 0);
	}
	buf_fini(&out);
	buf_fini(&first);
	rig_free(r);
}

/* Data that came packed, and small: who can't read it gets it unpacked, and then deflated. */
TEST(conn_members_get_unpacked_data_deflated)
{
	struct rig *r = rig_new(1, "");
	struct guest *from = guest_open(r, 0, "/room");
	struct guest *to = guest_open_offering(r, 0, "/room", OFFER);
	struct buf packed = {0}, out = {0};
	uint8_t nothing[5000] = {0};
	Websocket__WebSocketMessage *m;
	struct msg_builder b;
	struct guest_frame f;
	struct zip zip = {0};

	CHECK_EQ(zip_pack(&zip, 1, nothing, sizeof(nothing), &packed), 0);
	CHECK(packed.len < 100);
	msg_init_binary(&b, packed.data, packed.len, 0, true, WEBSOCKET__COMPRESSION_TYPE__ZSTD);
	rig_settle(r);
	guest_drop(to);
	guest_send_msg(from, &b);
	rig_settle(r);
	CHECK(next_inflated(to, 15, &f, &out));
	CHECK(f.rsv1);
	CHECK_EQ(msg_decode(&r->arena, out.data, out.len, &m), MSG_OK);
	CHECK_EQ(m->binary->compression, WEBSOCKET__COMPRESSION_TYPE__NONE);
	CHECK_EQ(m->binary->data.len, sizeof(nothing));
	zip_fini(&zip);
	buf_fini(&packed);
	buf_fini(&out);
	rig_free(r);
}

/* The kernel takes a few bytes at a time: each form goes on where it was. */
TEST(conn_deflated_broadcasts_survive_short_writes)
{
	struct rig *r = rig_new(1, "");
	struct guest *from = guest_open(r, 0, "/room");
	struct guest *to = guest_open_offering(r, 0, "/room", OFFER);
	struct buf out = {0};
	struct guest_frame f;

	rig_settle(r);
	guest_drop(to);
	guest_set_room(to, 0);
	for (int i = 0; i < 3; i++)
		broadcast(r, from, 5000 + (size_t)i);
	for (int i = 0; i < 20000; i++) {
		guest_set_room(to, 1);
		rig_turn(r);
	}
	guest_set_room(to, ROOM_FOR_ALL);
	rig_settle(r);
	for (int i = 0; i < 3; i++) {
		CHECK(next_inflated(to, 15, &f, &out));
		CHECK(f.rsv1);
		CHECK(out.len > 5000 && out.len < 5200);
	}
	buf_fini(&out);
	rig_free(r);
}
