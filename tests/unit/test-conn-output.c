/* SPDX-License-Identifier: MIT */
/* A connection's way out: private queue, message in transit, short writes at every byte. */
#include "rig.h"

#include <errno.h>

/* Echoed messages are cut into frames of 1 KiB. */
#define CUT "echo_path = /echo\nmax_frame_size = 1K\nmax_incoming_frames_per_second = 0\n"

static uint8_t pattern[5000];

static void fill_pattern(void)
{
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i % 251);
}

/* A message of any size in fragments that the limit allows. */
static void send_cut(struct guest *g, const uint8_t *p, size_t n)
{
	for (size_t at = 0; at < n; at += 1024)
		guest_send(g, at + 1024 >= n, at ? WS_CONTINUATION : WS_BINARY, p + at,
			   MIN((size_t)1024, n - at));
}

/* Messages must come whole and in order, pongs in order and between frames, Close last. */
struct reader {
	size_t at;        /* in the present message */
	unsigned message; /* that comes next */
	unsigned pongs;
	bool closed;
};

static const size_t sizes[] = {2500, 300, 1024, 4000, 1};

static void read_all(struct guest *g, struct reader *in)
{
	struct guest_frame f;

	while (guest_next_frame(g, &f)) {
		CHECK(!in->closed);
		if (f.opcode == WS_PONG) {
			CHECK_EQ(f.n, 1);
			CHECK_EQ(f.p[0], '0' + in->pongs);
			in->pongs++;
			continue;
		}
		if (f.opcode == WS_CLOSE) {
			in->closed = true;
			continue;
		}
		CHECK(in->message < ARRAY_LEN(sizes));
		CHECK_EQ(f.opcode, in->at ? WS_CONTINUATION : WS_BINARY);
		CHECK_EQ(f.n, MIN((size_t)1024, sizes[in->message] - in->at));
		CHECK_MEM(f.p, pattern + in->at, f.n);
		in->at += f.n;
		CHECK_EQ(f.fin, in->at == sizes[in->message]);
		if (!f.fin)
			continue;
		in->at = 0;
		in->message++;
	}
}

/* Room for @step bytes at a time; pings come now and then, a Close in the end. */
static void run_with_room(struct rig *r, size_t step)
{
	struct guest *g = guest_open(r, 0, "/echo");
	struct reader in = {0};
	unsigned pings = 0;

	guest_set_room(g, 0);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		send_cut(g, pattern, sizes[i]);
	rig_turn(r);
	for (size_t given = 0; in.message < ARRAY_LEN(sizes); given += step) {
		if (given / 1900 >= pings && pings < 4)
			guest_send(g, true, WS_PING, &"0123"[pings++], 1);
		guest_set_room(g, step);
		rig_turn(r);
		read_all(g, &in);
		CHECK(given < 20000);
	}
	guest_set_room(g, ROOM_FOR_ALL);
	guest_send(g, true, WS_CLOSE, "\x03\xe8", 2);
	rig_settle(r);
	read_all(g, &in);
	CHECK_EQ(in.pongs, pings);
	CHECK(in.closed && g->is_shut);
	CHECK_EQ(r->pool->shared.frame_bytes, 0);
	guest_end(g);
	rig_turn(r);
}

TEST(conn_sends_the_right_bytes_whatever_the_kernel_takes)
{
	struct rig *r = rig_new(1, CUT);

	fill_pattern();
	for (size_t step = 1; step < 1100; step++)
		run_with_room(r, step);
	for (size_t step = 1100; step < 8200; step += 97)
		run_with_room(r, step);
	rig_free(r);
}

TEST(conn_sends_the_right_bytes_with_room_at_random)
{
	struct rig *r = rig_new(1, CUT);
	uint64_t random = test_seed();

	fill_pattern();
	for (int round = 0; round < 200; round++) {
		struct guest *g = guest_open(r, 0, "/echo");
		struct reader in = {0};
		uint8_t pings = 0;

		guest_set_room(g, 0);
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			send_cut(g, pattern, sizes[i]);
		for (int turns = 0; in.message < ARRAY_LEN(sizes); turns++) {
			CHECK(turns < 1000);
			if (pings < 10 && test_random(&random) % 4 == 0)
				guest_send(g, true, WS_PING, &"0123456789"[pings++], 1);
			guest_set_room(g, test_random(&random) % 3000);
			rig_settle(r);
			read_all(g, &in);
		}
		guest_set_room(g, ROOM_FOR_ALL);
		rig_settle(r);
		read_all(g, &in);
		CHECK_EQ(in.pongs, pings);
		guest_end(g);
		rig_turn(r);
	}
	rig_free(r);
}

/* A pong doesn't wait for the end of a long message, nor does it cut into a frame of it. */
/* Many small ones wait in few frames, are counted one by one, and stay apart for their reader. */
TEST(conn_joins_small_messages_that_wait)
{
	enum { N = 400 };
	struct rig *r = rig_new(1, CUT);
	struct guest *g = guest_open(r, 0, "/echo");
	struct guest_frame f;
	size_t memory;

	guest_set_room(g, 0);
	fill_pattern();
	for (unsigned i = 0; i < N; i++)
		guest_send(g, true, i % 2 ? WS_TEXT : WS_BINARY, "0123456789", 1 + i % 10);
	rig_turn(r);
	memory = r->pool->shared.frame_bytes;
	CHECK(memory > 0 && memory < 10 * sizeof(struct frame) + 4 * N * (2 + 10));
	CHECK_EQ(RIG_SUM(r, messages_sent), 0);
	guest_send(g, true, WS_PING, "p", 1);
	guest_set_room(g, ROOM_FOR_ALL);
	rig_settle(r);
	for (unsigned i = 0; i < N; i++) {
		CHECK(guest_next_frame(g, &f));
		if (f.opcode == WS_PONG)
			CHECK(guest_next_frame(g, &f));
		CHECK_EQ(f.opcode, i % 2 ? WS_TEXT : WS_BINARY);
		CHECK_EQ(f.n, 1 + i % 10);
		CHECK_MEM(f.p, "0123456789", f.n);
	}
	CHECK_EQ(RIG_SUM(r, messages_sent), N);
	CHECK_EQ(RIG_SUM(r, frames_sent), N + 1);
	CHECK_EQ(r->pool->shared.frame_bytes, 0);
	rig_free(r);
}

/* The limits mean messages, however they lie: who has half of message_queue_size isn't read. */
TEST(conn_counts_joined_messages_against_its_limits)
{
	struct rig *r = rig_new(1, CUT "message_queue_size = 100\n");
	struct guest *g = guest_open(r, 0, "/echo");

	guest_set_room(g, 0);
	for (unsigned i = 0; i < 90; i++)
		guest_send(g, true, WS_BINARY, "x", 1);
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, messages_received), 51);
	guest_set_room(g, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, messages_sent), 90);
	rig_free(r);
}

TEST(conn_puts_control_frames_between_the_frames_of_a_message)
{
	struct rig *r = rig_new(1, CUT);
	struct guest_frame f;

	fill_pattern();
	for (size_t at = 1; at < 1028; at += 79) {
		struct guest *g = guest_open(r, 0, "/echo");

		guest_set_room(g, at);
		send_cut(g, pattern, 4096);
		rig_settle(r);
		CHECK(g->conn->out->transit != NULL);
		guest_send(g, true, WS_PING, "quick", 5);
		guest_set_room(g, ROOM_FOR_ALL);
		rig_settle(r);
		CHECK(guest_next_frame(g, &f));
		CHECK_EQ(f.opcode, WS_BINARY);
		CHECK(guest_next_frame(g, &f));
		CHECK_EQ(f.opcode, WS_PONG);
		for (int i = 0; i < 3; i++) {
			CHECK(guest_next_frame(g, &f));
			CHECK_EQ(f.opcode, WS_CONTINUATION);
		}
		CHECK(f.fin);
	}
	rig_free(r);
}

/* Close stands behind everything that was queued before it. */
TEST(conn_says_close_last)
{
	struct rig *r = rig_new(1, CUT);
	struct guest *g = guest_open(r, 0, "/echo");
	static const uint8_t order[] = {WS_BINARY, WS_PONG, WS_BINARY, WS_CLOSE};
	struct guest_frame f;

	fill_pattern();
	guest_set_room(g, 1);
	guest_send(g, true, WS_BINARY, pattern, 1000);
	rig_settle(r);
	guest_send(g, true, WS_BINARY, pattern, 500);
	guest_send(g, true, WS_PING, "x", 1);
	conn_close(g->conn, 1001, "going");
	conn_send_control(g->conn, WS_PING, "too late", 8);
	guest_set_room(g, ROOM_FOR_ALL);
	rig_settle(r);
	for (size_t i = 0; i < ARRAY_LEN(order); i++) {
		CHECK(guest_next_frame(g, &f));
		CHECK_EQ(f.opcode, order[i]);
	}
	CHECK_EQ(f.n, 7);
	CHECK_MEM(f.p, "\x03\xe9going", 7);
	CHECK(!guest_next_frame(g, &f));
	rig_free(r);
}

/* A control frame may go between the frames of a message, Close may not. */
TEST(conn_says_close_after_the_message_in_transit)
{
	static const uint8_t order[] = {WS_BINARY,       WS_PONG,         WS_CONTINUATION,
					WS_CONTINUATION, WS_CONTINUATION, WS_CLOSE};
	struct rig *r = rig_new(1, CUT);
	struct guest *g = guest_open(r, 0, "/echo");
	struct guest_frame f;

	fill_pattern();
	guest_set_room(g, 1);
	send_cut(g, pattern, 4096);
	rig_settle(r);
	guest_send(g, true, WS_PING, "x", 1);
	conn_close(g->conn, 1001, "going");
	guest_set_room(g, ROOM_FOR_ALL);
	rig_settle(r);
	for (size_t i = 0; i < ARRAY_LEN(order); i++) {
		CHECK(guest_next_frame(g, &f));
		CHECK_EQ(f.opcode, order[i]);
	}
	rig_free(r);
}

/* A client that reads nothing of its own echo isn't read either, and loses nothing. */
TEST(conn_does_not_read_who_does_not_read)
{
	struct rig *r = rig_new(1, "echo_path = /echo\nmax_incoming_frames_per_second = 0\n"
				   "message_queue_size = 100\nmax_send_buffer = 64K\n");
	struct guest *g = guest_open(r, 0, "/echo");
	struct buf all = {0};
	struct guest_frame f;

	guest_set_room(g, 0);
	for (unsigned i = 0; i < 3000; i++)
		guest_encode(&all, true, WS_BINARY, &i, sizeof(i));
	guest_write(g, all.data, all.len);
	rig_settle(r);
	CHECK_EQ(g->conn->out->queue_count, 51);
	for (unsigned i = 0; i < 3000; i++) {
		for (int turns = 0; !guest_next_frame(g, &f); turns++) {
			CHECK(turns < 10);
			guest_set_room(g, 999);
			rig_settle(r);
			CHECK(g->conn->out->queue_count <= 52);
		}
		CHECK_EQ(f.n, sizeof(i));
		CHECK_MEM(f.p, &i, sizeof(i));
	}
	CHECK_EQ(g->conn->input, NULL);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 0);
	buf_fini(&all);
	rig_free(r);
}

TEST(conn_is_gone_when_sending_fails)
{
	struct rig *r = rig_new(1, CUT);
	struct guest *g = guest_open(r, 0, "/echo");

	g->error = -EPIPE;
	guest_send(g, true, WS_BINARY, "x", 1);
	rig_settle(r);
	CHECK(g->is_closed && g->was_reset);
	CHECK_EQ(RIG_SUM(r, closed_abnormal), 1);
	CHECK_EQ(RIG_SUM(r, connection_errors), 1);
	rig_free(r);
}
