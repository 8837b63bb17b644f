/* SPDX-License-Identifier: MIT */
/*
 * What a connection holds and when it lets go: memory of messages received in part, and ends
 * of all kinds.
 */
#include "fault.h"
#include "rig.h"

#include <errno.h>

#define ECHO "echo_path = /echo\nmax_incoming_frames_per_second = 0\n"

TEST(conn_holds_nothing_at_a_frame_boundary_and_accounts_what_it_holds)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");
	const struct conn_env *env = &g->worker->hub.env;
	struct buf all = {0};

	CHECK_EQ(g->conn->input, NULL);
	guest_encode(&all, true, WS_BINARY, "0123456789", 10);
	for (size_t i = 0; i < all.len; i++) {
		guest_write(g, all.data + i, 1);
		CHECK_EQ(g->conn->input == NULL, i == all.len - 1);
		if (!g->conn->input)
			break;
		CHECK(g->conn->input->decoder != NULL);
		CHECK(env->reassembly_bytes >= sizeof(struct conn_input));
		CHECK_EQ(env->reassembly_bytes, g->conn->input->accounted);
		CHECK_EQ(RIG_SUM(r, reassembly_bytes), env->reassembly_bytes);
	}
	CHECK_EQ(env->reassembly_bytes, 0);
	CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
	CHECK_EQ(env->n_decoders, 1);
	buf_fini(&all);
	rig_free(r);
}

/* Between the fragments of a message there is the message, but no decoder. */
TEST(conn_gives_its_decoder_back_between_frames)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g[CONN_DECODERS + 10];
	const struct conn_env *env = &r->w[0]->hub.env;

	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		g[i] = guest_open(r, 0, "/echo");
		guest_send(g[i], false, WS_BINARY, "part", 4);
		CHECK(g[i]->conn->input && !g[i]->conn->input->decoder);
		CHECK_EQ(env->n_decoders, 1);
	}
	/* Many frames at once that are incomplete; the pool keeps a bounded number of decoders. */
	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		guest_write(g[i], "\x80", 1);
		CHECK(g[i]->conn->input->decoder != NULL);
	}
	CHECK_EQ(env->n_decoders, 0);
	for (size_t i = 0; i < ARRAY_LEN(g); i++)
		guest_write(g[i], "\x81\0\0\0\0!", 6);
	CHECK_EQ(env->n_decoders, CONN_DECODERS);
	rig_settle(r);
	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		struct guest_frame f;

		CHECK(guest_next_message(g[i], &f));
		CHECK_EQ(f.n, 5);
		CHECK_EQ(g[i]->conn->input, NULL);
	}
	rig_free(r);
}

/* A frame that is only announced reserves no more than a bit of it. */
TEST(conn_does_not_believe_an_announced_length)
{
	static const uint8_t head[] = {0x82, 0xff, 0, 0, 0, 0, 0, 0x3f, 0, 0, 0, 0, 0, 0, 'x'};
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");

	guest_write(g, head, sizeof(head));
	CHECK(RIG_SUM(r, reassembly_bytes) < 200 * 1024);
	rig_free(r);
}

/* Whoever holds much, and goes on, stays; one that began before it and sends nothing goes. */
TEST(conn_closes_who_stands_still_longest_past_reassembly_memory)
{
	struct rig *r = rig_new(1, ECHO "reassembly_memory = 1M\n");
	struct guest *g[4];
	uint8_t *p = calloc(1, 600 * 1024);

	for (size_t i = 0; i < ARRAY_LEN(g); i++)
		g[i] = guest_open(r, 0, "/echo");
	guest_send(g[0], false, WS_BINARY, p, 400 * 1024);
	guest_send(g[1], false, WS_BINARY, p, 100 * 1024);
	guest_send(g[2], false, WS_BINARY, p, 200 * 1024);
	guest_send(g[0], false, WS_CONTINUATION, p, 2 * 1024);
	rig_settle(r);
	/* A byte now and then is not going on. */
	guest_send(g[1], false, WS_CONTINUATION, p, 1);
	rig_settle(r);
	for (size_t i = 0; i < ARRAY_LEN(g); i++)
		CHECK_EQ(g[i]->conn->state, CONN_OPEN);
	/* In steps, so that one that goes is enough. */
	for (unsigned i = 0; i < 100 && g[1]->conn->state == CONN_OPEN; i++) {
		guest_send(g[3], false, i == 0 ? WS_BINARY : WS_CONTINUATION, p, 16 * 1024);
		rig_settle(r);
	}
	CHECK_EQ(guest_close_code(g[1]), 1013);
	CHECK(RIG_SUM(r, reassembly_bytes) <= 1024 * 1024);
	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		struct guest_frame f;

		if (i == 1)
			continue;
		guest_send(g[i], true, WS_CONTINUATION, p, 1);
		rig_settle(r);
		CHECK(guest_next_message(g[i], &f));
	}
	CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
	free(p);
	rig_free(r);
}

/* What they announce costs them nothing, and an upload that really comes nothing either. */
TEST(conn_lets_an_upload_pass_beside_many_that_only_announce)
{
	static const uint8_t head[] = {0x82, 0xff, 0, 0, 0, 0, 0, 0x3f, 0, 0, 0, 0, 0, 0, 'x'};
	struct rig *r = rig_new(1, ECHO "reassembly_memory = 2M\n");
	uint8_t *p = calloc(1, 64 * 1024);
	struct guest *g[100], *honest;
	unsigned closed = 0;
	struct guest_frame f;

	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		g[i] = guest_open(r, 0, "/echo");
		guest_write(g[i], head, sizeof(head));
	}
	honest = guest_open(r, 0, "/echo");
	guest_send(honest, false, WS_BINARY, p, 64 * 1024);
	for (unsigned i = 0; i < 29; i++) {
		guest_send(honest, false, WS_CONTINUATION, p, 64 * 1024);
		rig_settle(r);
	}
	guest_send(honest, true, WS_CONTINUATION, p, 1);
	rig_settle(r);
	CHECK(guest_next_message(honest, &f));
	CHECK_EQ(f.n, 30 * 64 * 1024 + 1);
	for (size_t i = 0; i < ARRAY_LEN(g); i++)
		closed += g[i]->conn->state != CONN_OPEN;
	CHECK(closed > 0);
	free(p);
	rig_free(r);
}

/* Who isn't read, because the server has no room for what comes, does not stand still. */
TEST(conn_that_is_paused_is_not_the_one_that_stands_still)
{
	struct rig *r = rig_new(1, ECHO "reassembly_memory = 1M\n");
	struct guest *paused = guest_open(r, 0, "/echo"), *still = guest_open(r, 0, "/echo");
	struct guest *third = guest_open(r, 0, "/echo");
	uint8_t *p = calloc(1, 500 * 1024);

	guest_send(paused, false, WS_BINARY, p, 400 * 1024);
	guest_send(still, false, WS_BINARY, p, 400 * 1024);
	rig_settle(r);
	conn_pause(paused->conn, CONN_PAUSE_SPOOL);
	guest_send(third, false, WS_BINARY, p, 400 * 1024);
	rig_settle(r);
	CHECK_EQ(guest_close_code(still), 1013);
	CHECK_EQ(paused->conn->state, CONN_OPEN);
	CHECK_EQ(third->conn->state, CONN_OPEN);
	conn_resume(paused->conn, CONN_PAUSE_SPOOL);
	free(p);
	rig_free(r);
}

/* Both lie in one piece of memory, made anew by each change; all of it goes with the client. */
TEST(conn_keeps_its_names_apart)
{
	struct rig *r = rig_new(1, "");
	struct conn *c = guest_open(r, 0, "/room")->conn;
	char user[CONN_USER_MAX];

	CHECK_STR(conn_session_id(c), "");
	CHECK_EQ(conn_left_path_channel(c), NULL);
	conn_set_session_id(c, "");
	CHECK_EQ(c->names, NULL);
	conn_set_session_id(c, "me");
	CHECK_EQ(conn_left_path_channel(c), NULL);
	conn_set_left_path_channel(c, "room");
	CHECK_STR(conn_session_id(c), "me");
	conn_set_session_id(c, "somebody else");
	CHECK_STR(conn_session_id(c), "somebody else");
	CHECK_STR(conn_left_path_channel(c), "room");
	conn_set_left_path_channel(c, "");
	CHECK(conn_set_user_id(c, "user-1"));
	conn_set_session_id(c, "");
	CHECK_STR(conn_session_id(c), "");
	CHECK_STR(conn_left_path_channel(c), "");
	CHECK_STR(conn_format_user(user, c), "user-1");
	rig_free(r);
}

/* Without memory there is none, rather than the one before. */
TEST(conn_has_no_name_without_memory)
{
	struct rig *r = rig_new(1, "");
	struct conn *c = guest_open(r, 0, "/room")->conn;

	for (uint64_t nth = 1; nth <= 2; nth++) {
		fault_fail(FAULT_ALLOC, nth, 1, ENOMEM);
		conn_set_left_path_channel(c, "room");
		CHECK_EQ(fault_end(FAULT_ALLOC), 1);
		CHECK_EQ(conn_left_path_channel(c), NULL);
	}
	conn_set_session_id(c, "me");
	fault_fail(FAULT_ALLOC, 1, 1, ENOMEM);
	conn_set_session_id(c, "you");
	CHECK_EQ(fault_end(FAULT_ALLOC), 1);
	CHECK_STR(conn_session_id(c), "");
	rig_free(r);
}

/* An end in the middle of whatever gives everything back. */
TEST(conn_ends_at_any_byte_without_leaving_anything)
{
	static const int errors[] = {0, -ECONNRESET, -ETIMEDOUT};
	struct rig *r = rig_new(1, ECHO);
	struct buf all = {0};
	char request[1024];
	size_t n = guest_handshake(request, sizeof(request), "/echo");

	CHECK_EQ(buf_append(&all, request, n, BUF_NO_LIMIT), 0);
	guest_encode(&all, false, WS_TEXT, "frag", 4);
	guest_encode(&all, true, WS_PING, "ping", 4);
	guest_encode(&all, true, WS_CONTINUATION, "ment", 4);
	for (size_t at = 0; at <= all.len; at++) {
		struct guest *g = guest_accept(r, 0);

		guest_write(g, all.data, at);
		if (at % 2)
			rig_turn(r);
		g->error = errors[at % ARRAY_LEN(errors)];
		guest_end(g);
		CHECK(g->is_closed);
		rig_turn(r);
		CHECK_EQ(slab_in_use(&r->w[0]->conns), 0);
		CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
		CHECK_EQ(r->pool->shared.frame_bytes, 0);
	}
	CHECK_EQ(RIG_SUM(r, closed_abnormal), RIG_SUM(r, connections_total));
	CHECK_EQ(RIG_SUM(r, connections_active), 0);
	buf_fini(&all);
	rig_free(r);
}

/* The client said Close and ended its side: what we had to say still goes out before the end. */
TEST(conn_answers_a_close_after_the_peers_half_close)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");
	struct guest_frame f;

	guest_set_room(g, 3);
	guest_send(g, true, WS_TEXT, "last words", 10);
	rig_settle(r);
	guest_send(g, true, WS_CLOSE, "\x03\xe8", 2);
	guest_end(g);
	rig_settle(r);
	CHECK(!g->is_closed && g->conn->state == CONN_CLOSING);
	guest_set_room(g, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK(g->is_closed && !g->was_reset);
	CHECK(guest_next_frame(g, &f));
	CHECK_EQ(f.n, 10);
	CHECK_EQ(guest_close_code(g), 1000);
	CHECK_EQ(RIG_SUM(r, closed_1000), 1);
	CHECK_EQ(RIG_SUM(r, connection_errors), 0);
	rig_free(r);
}

TEST(conn_is_gone_when_the_peer_ends_without_a_close)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");

	guest_end(g);
	CHECK(g->is_closed && g->was_reset);
	CHECK_EQ(RIG_SUM(r, closed_abnormal), 1);
	CHECK_EQ(RIG_SUM(r, connection_errors), 1);
	rig_free(r);
}

TEST(conn_reads_all_that_was_written_before_the_end)
{
	struct rig *r = rig_new(2, "max_incoming_frames_per_second = 0\n");
	struct guest *g = guest_open(r, 0, "/room"), *other = guest_open(r, 1, "/room");
	struct buf all = {0};

	for (int i = 0; i < 5000; i++)
		guest_encode(&all, true, WS_BINARY, "\x08\x04", 2); /* HEARTBEAT */
	CHECK_EQ(buf_append(&g->in, all.data, all.len, BUF_NO_LIMIT), 0);
	guest_chat(g, "the last one", NULL);
	guest_end(g);
	rig_settle(r);
	CHECK(g->is_closed);
	CHECK_EQ(RIG_SUM(r, messages_received), 5001);
	CHECK_STR(guest_next_msg(other)->chat->content, "the last one");
	buf_fini(&all);
	rig_free(r);
}
