/* SPDX-License-Identifier: MIT */

/* Messages under work: before they are published, in their sender's share of turns. */

#include "conn/conn_private.h"
#include "containers/buf.h"
#include "fault.h"
#include "rig.h"
#include "wire/zip.h"

#define QUIET "notice_limit = 0\nping_interval = 1h\nheartbeat_timeout = 2h\n"
#define KIB ((size_t)1024)
#define MIB (KIB * KIB)
#define SHARE_BYTES (256 * KIB + 64 * KIB) /* of work in one turn, and a step more */

#define KIND_OF(NAME, name, number) ZIP_##NAME,
static const enum zip_kind packed_kinds[] = {ZIP_CODECS(KIND_OF)};

/* Half noise, half repetition. */
static uint8_t *make_data(size_t n)
{
	uint64_t random = 4711;
	uint8_t *p = malloc(n);

	for (size_t i = 0; i < n; i++)
		p[i] = i & 64 ? (uint8_t)(test_random(&random) >> 56) : (uint8_t)(i >> 8);
	return p;
}

static struct buf packed_by(enum zip_kind kind, const void *p, size_t n)
{
	struct buf out = {0};
	struct zip z = {0};

	CHECK_EQ(zip_pack_kind(&z, kind, 3, p, n, &out), 0);
	zip_fini(&z);
	return out;
}

static void send_binary(struct guest *g, enum zip_kind kind, const void *p, size_t n)
{
	struct msg_builder b;

	msg_init_binary(&b, p, n, 1, true, (Websocket__CompressionType)kind);
	guest_send_msg(g, &b);
}

static void connect_with(struct guest *g, unsigned caps)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONNECT);
	msg_set_capabilities(&b, caps);
	guest_send_msg(g, &b);
	rig_settle(g->rig);
	(void)guest_drop(g);
}

/* Turns until all is done, none of which works on more than a share of @clients. */
static unsigned work_off(struct rig *r, unsigned clients)
{
	uint64_t before = RIG_SUM(r, work_bytes), after;
	unsigned turns = 0;

	while (hub_has_work(&r->w[0]->hub)) {
		rig_turn(r);
		after = RIG_SUM(r, work_bytes);
		CHECK(after - before <= clients * SHARE_BYTES);
		turns += after > before;
		before = after;
	}
	return turns;
}

/* Turns until all of its message has come, and some of the work on it is done. */
static void turn_to_work(struct guest *g)
{
	while (!conn_is_working(g->conn))
		rig_turn(g->rig);
	rig_turn(g->rig);
	CHECK(conn_is_working(g->conn));
}

static void expect_binary(struct guest *g, enum zip_kind kind, const void *p, size_t n)
{
	const Websocket__WebSocketMessage *m = guest_next_msg(g);

	CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__BINARY_DATA);
	CHECK_STR(m->channel, "room");
	CHECK_EQ(m->binary->compression, kind);
	CHECK_EQ(m->binary->data.len, n);
	CHECK_MEM(m->binary->data.data, p, n);
	CHECK_EQ(msg_check_binary(m), MSG_OK);
}

static void expect_error(struct guest *g, uint32_t code)
{
	const Websocket__WebSocketMessage *m = guest_next_msg(g);

	CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL);
	CHECK_EQ(m->control->type, WEBSOCKET__CONTROL_TYPE__ERROR);
	CHECK_EQ(m->control->code, code);
}

/* 4 MiB for somebody who can't read the codec: a share a turn, and others go on meanwhile. */
TEST(work_unpacks_a_share_in_each_turn)
{
	uint8_t *data = make_data(4 * MIB);

	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++) {
		struct rig *r = rig_new(1, QUIET "max_send_buffer = 20M\n");
		struct guest *sender = guest_open(r, 0, "/room"),
			     *plain = guest_open(r, 0, "/room");
		struct guest *reader = guest_open(r, 0, "/room"),
			     *other = guest_open(r, 0, "/room");
		struct buf packed = packed_by(packed_kinds[k], data, 4 * MIB);

		connect_with(reader, 1u << packed_kinds[k]);
		send_binary(sender, packed_kinds[k], packed.data, packed.len);
		guest_chat(sender, "behind it", NULL);
		turn_to_work(sender);
		CHECK(sender->conn->pauses & CONN_PAUSE_WORK);
		CHECK(RIG_SUM(r, reassembly_bytes) >= packed.len);
		guest_chat(other, "at once", NULL);
		rig_turn(r);
		CHECK_STR(guest_next_msg(plain)->chat->content, "at once");
		CHECK(guest_next_msg(plain) == NULL);
		CHECK(work_off(r, 1) >= 12);
		expect_binary(plain, ZIP_NONE, data, 4 * MIB);
		CHECK_STR(guest_next_msg(plain)->chat->content, "behind it");
		(void)guest_next_msg(reader);
		expect_binary(reader, packed_kinds[k], packed.data, packed.len);
		CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
		CHECK_EQ(sender->conn->pauses, 0);
		CHECK_EQ(r->w[0]->hub.maker.n_packings, 0);
		buf_fini(&packed);
		rig_free(r);
	}
	free(data);
}

/* What can't be unpacked for others is refused to who sent it, and nobody gets it. */
TEST(work_refuses_what_cannot_be_unpacked)
{
	struct rig *r = rig_new(1, QUIET "max_incoming_frames_per_second = 0\n");
	struct guest *sender = guest_open(r, 0, "/room"), *plain = guest_open(r, 0, "/room");
	struct guest *reader = guest_open(r, 0, "/room");
	uint8_t *zeros = calloc(1, 17 * MIB), *noise = make_data(1000);

	connect_with(reader, MSG_CAPS_ALL);
	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++) {
		/*
		 * A byte past what a few hundred may become, and what is no compressed data at all.
		 */
		struct buf fits = packed_by(packed_kinds[k], zeros, 256 * KIB);
		struct buf bomb = packed_by(packed_kinds[k], zeros, 17 * MIB);

		send_binary(sender, packed_kinds[k], fits.data, fits.len);
		(void)work_off(r, 1);
		expect_binary(plain, ZIP_NONE, zeros, 256 * KIB);
		expect_binary(reader, packed_kinds[k], fits.data, fits.len);
		buf_fini(&fits);
		send_binary(sender, packed_kinds[k], bomb.data, bomb.len);
		(void)work_off(r, 1);
		expect_error(sender, 422);
		send_binary(sender, packed_kinds[k], noise, 1000);
		(void)work_off(r, 1);
		expect_error(sender, 422);
		CHECK_EQ(guest_drop(plain) + guest_drop(reader), 0);
		buf_fini(&bomb);
	}
	CHECK_EQ(RIG_SUM(r, compression_errors), 2 * ARRAY_LEN(packed_kinds));
	/* Where all can read it, nobody has to. */
	connect_with(plain, MSG_CAPS_ALL);
	send_binary(sender, ZIP_GZIP, noise, 1000);
	(void)work_off(r, 1);
	expect_binary(plain, ZIP_GZIP, noise, 1000);
	CHECK_EQ(guest_drop(sender), 0);
	free(noise);
	free(zeros);
	rig_free(r);
}

/* Each 16 KiB that was unpacked counts as a frame, also of what came to nothing. */
TEST(work_is_charged_as_frames)
{
	uint8_t *data = make_data(MIB);
	struct buf packed = packed_by(ZIP_GZIP, data, MIB);

	for (int broken = 0; broken < 2; broken++) {
		struct rig *r = rig_new(1, QUIET "max_incoming_frames_per_second = 60\n"
						 "max_send_buffer = 20M\n");
		struct guest *sender = guest_open(r, 0, "/room"),
			     *plain = guest_open(r, 0, "/room");

		send_binary(sender, ZIP_GZIP, packed.data, packed.len - (broken ? 1 : 0));
		guest_chat(sender, "next second", NULL);
		(void)work_off(r, 1);
		CHECK_EQ(guest_drop(plain), !broken);
		CHECK(sender->conn->pauses & CONN_PAUSE_THROTTLED);
		rig_pass(r, 1100 * NS_PER_MS);
		rig_settle(r);
		CHECK_STR(guest_next_msg(plain)->chat->content, "next second");
		rig_free(r);
	}
	buf_fini(&packed);
	free(data);
}

/* What is packed or deflated is so for those who were there; who comes later gets the body. */
TEST(work_makes_what_members_read)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *sender = guest_open(r, 0, "/room"), *plain = guest_open(r, 0, "/room");
	uint8_t *data = make_data(200 * KIB);
	struct guest *reader;
	struct buf back = {0};
	struct zip z = {0};

	const Websocket__WebSocketMessage *m;

	/* The sender reads zstd itself: that is no reason. */
	connect_with(sender, MSG_CAP_ZSTD);
	send_binary(sender, ZIP_NONE, data, 200 * KIB);
	(void)work_off(r, 1);
	CHECK_EQ(RIG_SUM(r, pack_in_bytes), 0);
	expect_binary(plain, ZIP_NONE, data, 200 * KIB);
	reader = guest_open(r, 0, "/room");
	connect_with(reader, MSG_CAP_ZSTD);
	send_binary(sender, ZIP_NONE, data, 200 * KIB);
	(void)work_off(r, 1);
	CHECK_EQ(RIG_SUM(r, pack_in_bytes), 200 * KIB);
	expect_binary(plain, ZIP_NONE, data, 200 * KIB);
	m = guest_next_msg(reader);
	CHECK(m && m->binary->compression == WEBSOCKET__COMPRESSION_TYPE__ZSTD);
	CHECK_STR(m->channel, "room");
	CHECK_EQ(zip_unpack(&z, ZIP_ZSTD, m->binary->data.data, m->binary->data.len, MIB, &back),
		 0);
	CHECK_EQ(back.len, 200 * KIB);
	CHECK_MEM(back.data, data, 200 * KIB);
	/* It changes its mind, and goes: nobody is counted any more. */
	connect_with(reader, MSG_CAP_ACK);
	send_binary(sender, ZIP_NONE, data, 200 * KIB);
	(void)work_off(r, 1);
	CHECK_EQ(RIG_SUM(r, pack_in_bytes), 200 * KIB);
	zip_fini(&z);
	buf_fini(&back);
	free(data);
	rig_free(r);
}

/* It goes on after a hand-over, from its bytes as they came. */
TEST(work_begins_anew_after_a_hand_over)
{
	uint8_t *data = make_data(4 * MIB);
	struct buf packed = packed_by(ZIP_ZSTD, data, 4 * MIB);
	struct rig *r = rig_new(1, QUIET "max_send_buffer = 20M\n");
	struct guest *sender = guest_open(r, 0, "/room"), *plain = guest_open(r, 0, "/room");

	send_binary(sender, ZIP_ZSTD, packed.data, packed.len);
	guest_chat(sender, "behind it", NULL);
	turn_to_work(sender);
	rig_hand_over(r, 1, NULL);
	CHECK(conn_is_working(sender->conn));
	(void)work_off(r, 1);
	expect_binary(plain, ZIP_NONE, data, 4 * MIB);
	CHECK_STR(guest_next_msg(plain)->chat->content, "behind it");
	buf_fini(&packed);
	free(data);
	rig_free(r);
}

/* Whoever goes, or is closed, in the middle of it leaves nothing behind. */
TEST(work_ends_with_its_connection)
{
	uint8_t *data = make_data(4 * MIB);
	struct buf packed = packed_by(ZIP_GZIP, data, 4 * MIB);

	for (int how = 0; how < 3; how++) {
		struct rig *r = rig_new(1, QUIET);
		struct guest *sender = guest_open(r, 0, "/room"),
			     *plain = guest_open(r, 0, "/room");

		send_binary(sender, ZIP_GZIP, packed.data, packed.len);
		turn_to_work(sender);
		if (how == 0)
			conn_abort(sender->conn);
		else if (how == 1)
			conn_close(sender->conn, 1008, "enough");
		else
			guest_end(sender);
		rig_settle(r);
		CHECK_EQ(guest_drop(plain), how == 2);
		CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
		rig_free(r);
	}
	buf_fini(&packed);
	free(data);
}

TEST(work_survives_the_lack_of_memory)
{
	uint8_t *data = make_data(300 * KIB);
	struct buf packed = packed_by(ZIP_LZ4, data, 300 * KIB);
	struct buf message = {0};
	struct msg_builder b;
	bool is_over = false;

	msg_init_binary(&b, packed.data, packed.len, 1, true, WEBSOCKET__COMPRESSION_TYPE__LZ4);
	CHECK_EQ(buf_reserve(&message, msg_size(&b), BUF_NO_LIMIT), 0);
	message.len = msg_pack(&b, message.data);
	for (uint64_t nth = 1; !is_over; nth++) {
		struct rig *r = rig_new(1, QUIET);
		struct guest *sender = guest_open(r, 0, "/room"),
			     *plain = guest_open(r, 0, "/room");

		plain->is_mute = sender->is_mute = true;
		guest_encode(&sender->in, true, WS_BINARY, message.data, message.len);
		fault_fail(FAULT_ALLOC, nth, 1, ENOMEM);
		conn_event(&sender->conn->source, EPOLLIN);
		rig_settle(r);
		is_over = fault_end(FAULT_ALLOC) == 0;
		CHECK(!is_over || plain->sent > 300 * KIB);
		rig_free(r);
	}
	buf_fini(&message);
	buf_fini(&packed);
	free(data);
}

/* A chat of a megabyte is decoded, and given its sender's name, a piece in each turn. */
TEST(work_decodes_a_share_in_each_turn)
{
	struct rig *r = rig_new(1, QUIET "max_message_size = 4M\nmax_frame_size = 4M\n");
	struct guest *g = guest_open(r, 0, "/room"), *reader = guest_open(r, 0, "/room");
	struct guest *other = guest_open(r, 0, "/else"), *peer = guest_open(r, 0, "/else");
	const Websocket__WebSocketMessage *m;
	char *text = malloc(2 * MIB + 1);
	unsigned turns = 0;

	memset(text, 'x', 2 * MIB);
	text[2 * MIB] = '\0';
	g->conn->grant = calloc(1, sizeof(*g->conn->grant));
	CHECK(g->conn->grant);
	g->conn->grant->user_id = "alice";
	g->conn->grant->may_publish = true;
	g->conn->grant->any_channel = true;
	g->conn->grant->expires_s = UINT64_MAX;
	clock_creep_for_test(TURN_CLIENT_NS / 2);
	guest_chat(g, text, NULL);
	while (!conn_is_working(g->conn))
		rig_turn(r);
	while (conn_is_working(g->conn)) {
		guest_chat(other, "hello", NULL);
		rig_turn(r);
		CHECK_EQ(guest_drop(peer), 1);
		turns++;
		CHECK(turns < 1000);
	}
	CHECK(turns >= 8);
	rig_settle(r);
	m = guest_next_msg(reader);
	CHECK(m && m->chat);
	CHECK_STR(m->chat->content, text);
	CHECK_STR(m->chat->user_id, "alice");
	free(text);
	rig_free(r);
}

/*
 * For a moment it is there twice: as it came, and as what is sent. It counts as one all the
 * same.
 */
TEST(work_counts_a_message_once)
{
	struct rig *r = rig_new(1, QUIET "max_message_size = 4M\nmax_frame_size = 4M\n"
					 "reassembly_memory = 3M\n");
	struct guest *g = guest_open(r, 0, "/room"), *reader = guest_open(r, 0, "/room");
	char *text = malloc(2 * MIB + 1);
	uint8_t *data = make_data(2 * MIB);

	memset(text, 'x', 2 * MIB);
	text[2 * MIB] = '\0';
	clock_creep_for_test(TURN_CLIENT_NS / 2);
	guest_chat(g, text, NULL);
	send_binary(g, (enum zip_kind)0, data, 2 * MIB);
	rig_settle(r);
	CHECK_EQ(guest_drop(reader), 2);
	CHECK_EQ(g->conn->state, CONN_OPEN);
	free(text);
	free(data);
	rig_free(r);
}
