/* SPDX-License-Identifier: MIT */
/* What travels from one process to the next: at the right byte, in both directions. */
#include "handover/config_record.h"
#include "rig.h"

#include <errno.h>
#include <stdio.h>

#define ECHO "echo_path = /echo\nmax_incoming_frames_per_second = 0\n"
#define QUIET "notice_limit = 0\nmax_incoming_frames_per_second = 0\n"

static void expect_echo(struct guest *g, uint8_t opcode, const void *p, size_t n)
{
	struct guest_frame f;

	CHECK(guest_next_message(g, &f));
	CHECK_EQ(f.opcode, opcode);
	CHECK_EQ(f.n, n);
	CHECK_MEM(f.p, p, n);
}

/* ---------------------------------------------------------------------- what comes in */

TEST(handover_of_nobody)
{
	struct rig *r = rig_new(2, "");

	rig_hand_over(r, 2, NULL);
	rig_hand_over(r, 1, NULL);
	rig_free(r);
}

TEST(handover_in_a_handshake_at_every_byte)
{
	struct rig *r = rig_new(1, "");
	char request[1024];
	size_t n = guest_handshake(request, sizeof(request), "/some%20room");

	for (size_t at = 0; at <= n; at += at < n - 3 ? 7 : 1) {
		struct guest *g = guest_accept(r, 0);

		if (at > 0)
			guest_write(g, request, at);
		rig_hand_over(r, 1, NULL);
		if (at < n)
			guest_write(g, request + at, n - at);
		rig_settle(r);
		CHECK_EQ(guest_status(g), 101);
		CHECK_STR(g->conn->path_member.channel->entry->name, "some room");
	}
	rig_free(r);
}

/* A message of fragments with control frames between, cut at every byte. */
TEST(handover_in_frames_at_every_byte)
{
	const char *whole = "hello, w\xc3\xb6rld";
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");
	struct guest_frame f;
	struct buf bytes = {0};

	guest_encode(&bytes, false, WS_TEXT, whole, 9); /* ends within a character */
	guest_encode(&bytes, true, WS_PING, "?", 1);
	guest_encode(&bytes, false, WS_CONTINUATION, NULL, 0);
	guest_encode(&bytes, true, WS_CONTINUATION, whole + 9, strlen(whole) - 9);
	for (size_t at = 0; at <= bytes.len; at++) {
		if (at > 0)
			guest_write(g, bytes.data, at);
		rig_hand_over(r, 1, NULL);
		if (at < bytes.len)
			guest_write(g, bytes.data + at, bytes.len - at);
		rig_settle(r);
		CHECK(guest_next_frame(g, &f));
		CHECK_EQ(f.opcode, WS_PONG);
		expect_echo(g, WS_TEXT, whole, strlen(whole));
		CHECK_EQ(g->conn->input, NULL);
	}
	buf_fini(&bytes);
	rig_free(r);
}

TEST(handover_after_every_byte)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");
	struct buf bytes = {0};
	uint8_t data[70000];

	memset(data, 'x', sizeof(data));
	guest_encode(&bytes, true, WS_BINARY, "one", 3);
	guest_encode(&bytes, false, WS_BINARY, "two", 3);
	guest_encode(&bytes, true, WS_PONG, "unasked", 7);
	guest_encode(&bytes, true, WS_CONTINUATION, " and three", 10);
	for (size_t at = 0; at < bytes.len; at++) {
		guest_write(g, bytes.data + at, 1);
		rig_hand_over(r, 1, NULL);
	}
	expect_echo(g, WS_BINARY, "one", 3);
	expect_echo(g, WS_BINARY, "two and three", 13);
	/* A large one, somewhere in its payload. */
	buf_clear(&bytes);
	guest_encode(&bytes, true, WS_BINARY, data, sizeof(data));
	guest_write(g, bytes.data, 54321);
	rig_hand_over(r, 1, NULL);
	CHECK(RIG_SUM(r, reassembly_bytes) > 54000);
	guest_write(g, bytes.data + 54321, bytes.len - 54321);
	rig_settle(r);
	expect_echo(g, WS_BINARY, data, sizeof(data));
	buf_fini(&bytes);
	rig_free(r);
}

/* Text that became wrong before is found to be wrong after. */
TEST(handover_keeps_the_state_of_a_text)
{
	struct rig *r = rig_new(1, ECHO);
	struct guest *g = guest_open(r, 0, "/echo");

	guest_send(g, false, WS_TEXT, "\xc3", 1);
	rig_hand_over(r, 1, NULL);
	guest_send(g, true, WS_CONTINUATION, "x", 1);
	rig_settle(r);
	CHECK_EQ(guest_close_code(g), WS_CODE_INVALID_DATA);
	rig_free(r);
}

/* Several turns of inflating: begun anew, delivered once. */
TEST(handover_while_a_message_is_inflated)
{
	static uint8_t data[2 << 20];
	struct rig *r = rig_new(1, "echo_path = /echo\n");
	struct guest *g = guest_open_offering(r, 0, "/echo", "permessage-deflate");
	struct buf packed = {0}, bytes = {0};
	struct deflater d = {0};
	uint64_t seed = 1;
	struct guest_frame f;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(test_random(&seed) % 4);
	CHECK_EQ(deflater_run(&d, DEFLATE_32K, 6, data, sizeof(data), &packed), 0);
	guest_encode(&bytes, true, WS_BINARY | GUEST_RSV1, packed.data, packed.len);
	guest_write(g, bytes.data, bytes.len);
	while (!g->conn->input || !g->conn->input->inflater) {
		CHECK(hub_has_work(&g->worker->hub));
		rig_turn(r);
	}
	rig_hand_over(r, 1, NULL);
	CHECK(g->conn->input && g->conn->input->inflater);
	rig_settle(r);
	CHECK(guest_next_message(g, &f));
	CHECK_EQ(f.n > 0, true);
	CHECK(!guest_next_message(g, &f));
	CHECK_EQ(RIG_SUM(r, inflate_out_bytes), sizeof(data));
	deflater_fini(&d);
	buf_fini(&packed);
	buf_fini(&bytes);
	rig_free(r);
}

/* Bytes that were read and may not be processed yet. */
TEST(handover_of_a_throttled_client)
{
	struct rig *r = rig_new(1, "echo_path = /echo\nmax_incoming_frames_per_second = 2\n");
	struct guest *g = guest_open(r, 0, "/echo");
	struct buf bytes = {0};

	for (int i = 0; i < 5; i++)
		guest_encode(&bytes, true, WS_BINARY, &(char){(char)('a' + i)}, 1);
	guest_write(g, bytes.data, bytes.len);
	rig_settle(r);
	rig_hand_over(r, 1, NULL);
	CHECK(g->conn->pauses & CONN_PAUSE_THROTTLED);
	rig_turn(r);
	for (int i = 0; i < 5; i++) {
		if (i == 2 || i == 4)
			rig_pass_in_steps(r, 1100 * NS_PER_MS, 50 * NS_PER_MS);
		expect_echo(g, WS_BINARY, &(char){(char)('a' + i)}, 1);
		if (i == 1)
			CHECK_EQ(guest_drop(g), 0);
	}
	buf_fini(&bytes);
	rig_free(r);
}

/* --------------------------------------------------------------------- what goes out */

/* A chat message in fragments of at most 1000 bytes. */
static void chat_in_fragments(struct guest *g, const char *content)
{
	struct msg_builder b;
	uint8_t bytes[4096];
	size_t n;

	msg_init_chat(&b, "", "somebody", content, 1);
	n = msg_size(&b);
	CHECK(n <= sizeof(bytes) && msg_pack(&b, bytes) == n);
	for (size_t at = 0; at < n; at += 1000)
		guest_send(g, at + 1000 >= n, at ? WS_CONTINUATION : WS_BINARY, bytes + at,
			   MIN(n - at, (size_t)1000));
}

/* Reads byte by byte, with a hand-over after each: queue, transit, control frames between. */
TEST(handover_after_every_byte_sent)
{
	struct rig *r = rig_new(1, QUIET "max_frame_size = 1K\n");
	struct guest *reader = guest_open(r, 0, "/room");
	struct guest *writer = guest_open(r, 0, "/room");
	char text[2500];
	const Websocket__WebSocketMessage *m;
	unsigned steps = 0, workers = 1;

	memset(text, 't', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	guest_set_room(reader, 0);
	chat_in_fragments(writer, text);
	guest_chat(writer, "second", NULL);
	rig_settle(r);
	guest_send(reader, true, WS_PING, "between", 7);
	guest_subscribe(reader, "another");
	rig_settle(r);
	while (reader->conn->out != &conn_no_output || reader->conn->n_lagging > 0) {
		workers = workers % 3 + 1;
		rig_hand_over(r, workers, NULL);
		guest_set_room(reader, steps % 7 + 1);
		rig_settle(r);
		CHECK(++steps < 5000);
	}
	CHECK(steps > 500);
	guest_set_room(reader, ROOM_FOR_ALL);
	rig_settle(r);
	/* The answer to SUBSCRIBE is private; the rest keeps its order. */
	m = guest_next_msg(reader);
	CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE);
	CHECK_EQ(strlen(m->chat->content), sizeof(text) - 1);
	m = guest_next_msg(reader);
	CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL);
	m = guest_next_msg(reader);
	CHECK_STR(m->chat->content, "second");
	CHECK_EQ(guest_drop(reader), 0);
	/* And it goes on as before. */
	guest_chat(writer, "third", NULL);
	guest_chat(reader, "fourth", NULL);
	rig_settle(r);
	CHECK_STR(guest_next_msg(reader)->chat->content, "third");
	CHECK_STR(guest_next_msg(writer)->chat->content, "fourth");
	rig_free(r);
}

/* Those that lag go on where they were, the others get nothing twice. */
TEST(handover_of_members_that_lag)
{
	struct rig *r = rig_new(3, QUIET);
	struct guest *slow = guest_open(r, 0, "/room");
	struct guest *slower = guest_open(r, 1, "/room");
	struct guest *fast = guest_open(r, 1, "/room");
	struct guest *writer = guest_open(r, 2, "/room");

	guest_send_numbers(writer, 0, 10);
	rig_settle(r);
	guest_expect_numbers(slower, 0, 10);
	guest_set_room(slower, 0);
	guest_send_numbers(writer, 10, 20);
	rig_settle(r);
	guest_expect_numbers(slow, 0, 20);
	guest_set_room(slow, 0);
	guest_send_numbers(writer, 20, 30);
	rig_settle(r);
	guest_expect_numbers(fast, 0, 30);
	for (unsigned n = 1; n <= 4; n++) {
		rig_hand_over(r, n, NULL);
		CHECK_EQ(slow->conn->n_lagging, 1);
		CHECK_EQ(fast->conn->n_lagging, 0);
		rig_settle(r);
	}
	guest_send_numbers(writer, 30, 40);
	rig_settle(r);
	guest_set_room(slow, ROOM_FOR_ALL);
	guest_set_room(slower, ROOM_FOR_ALL);
	rig_settle(r);
	guest_expect_numbers(slow, 20, 40);
	guest_expect_numbers(slower, 10, 40);
	guest_expect_numbers(fast, 30, 40);
	CHECK_EQ(guest_drop(writer), 0);
	rig_free(r);
}

/* What one worker has read and another one has not even looked at. */
TEST(handover_of_what_is_between_workers)
{
	struct rig *r = rig_new(2, QUIET);
	struct guest *here = guest_open(r, 0, "/room");
	struct guest *there = guest_open(r, 1, "/room");

	guest_send_numbers(here, 0, 5);
	rig_turn_one(r, 0);
	CHECK(!ring_is_empty(&r->w[1]->hub.inbox));
	rig_hand_over(r, 2, NULL);
	guest_send_numbers(here, 5, 6);
	rig_settle(r);
	guest_expect_numbers(there, 0, 6);
	CHECK_EQ(guest_drop(here), 0);
	rig_free(r);
}

/* A reader that has a part of a compressed variant gets the rest of just that. */
TEST(handover_in_the_middle_of_a_variant)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *deflated = guest_open_offering(r, 0, "/room", "permessage-deflate");
	struct guest *plain = guest_open(r, 0, "/room");
	struct guest *writer = guest_open(r, 0, "/room");
	char text[20000];
	const Websocket__WebSocketMessage *m;

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)('a' + i % 7);
	text[sizeof(text) - 1] = '\0';
	guest_set_room(deflated, 20);
	guest_set_room(plain, 20);
	guest_chat(writer, text, NULL);
	rig_settle(r);
	CHECK(deflated->conn->out->transit && plain->conn->out->transit);
	/* With other settings it would be made in another way. */
	rig_hand_over(r, 1, QUIET "compression_level = 1\nmax_frame_size = 1K\n");
	CHECK(deflated->conn->out->transit_bytes != &deflated->conn->out->transit->body);
	CHECK(deflated->conn->out->transit == plain->conn->out->transit);
	guest_set_room(deflated, ROOM_FOR_ALL);
	guest_set_room(plain, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK(deflated->sent < 1000);
	m = guest_next_msg(plain);
	CHECK_STR(m->chat->content, text);
	CHECK_EQ(RIG_SUM(r, deflate_in_bytes) > 0, true);
	rig_free(r);
}

/* A Close that could not be sent, and a peer's end that is waited for. */
TEST(handover_of_those_that_are_closing)
{
	struct rig *r = rig_new(1, "");
	struct guest *saying = guest_open(r, 0, "/");
	struct guest *waiting = guest_open(r, 0, "/");
	struct guest *lingering = guest_open(r, 0, "/");

	guest_set_room(saying, 0);
	conn_close(saying->conn, 4242, "said later");
	conn_close(waiting->conn, 4243, "said");
	guest_send(lingering, true, WS_CLOSE, "\x03\xe8", 2);
	rig_settle(r);
	CHECK_EQ(lingering->conn->state, CONN_LINGERING);
	rig_hand_over(r, 2, NULL);
	CHECK_EQ(saying->conn->state, CONN_CLOSING);
	CHECK_EQ(waiting->conn->state, CONN_CLOSING);
	CHECK_EQ(lingering->conn->state, CONN_LINGERING);
	guest_set_room(saying, ROOM_FOR_ALL);
	guest_end(lingering);
	guest_send(waiting, true, WS_CLOSE, "\x03\xe8", 2);
	rig_settle(r);
	CHECK_EQ(guest_close_code(saying), 4242);
	CHECK_EQ(guest_close_code(waiting), 4243);
	CHECK(waiting->is_shut && !saying->is_shut && lingering->is_closed);
	/* It doesn't answer: the deadline is the one from before. */
	rig_pass_in_steps(r, 6 * NS_PER_S, 100 * NS_PER_MS);
	CHECK(saying->is_closed);
	rig_free(r);
}

/* ------------------------------------------------------------------ who and what it is */

TEST(handover_keeps_who_somebody_is)
{
	struct rig *r = rig_new(2, "permessage_deflate = yes\n");
	struct guest *g = guest_open_offering(r, 1, "/home", "permessage-deflate");
	const char *caps[] = {"zstd", "ack"};
	char *names[] = {(char *)(uintptr_t)caps[0], (char *)(uintptr_t)caps[1]};
	struct conn before, *c = g->conn;
	struct msg_builder b;
	char *session;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONNECT);
	msg_set_session_id(&b, "my own id");
	b.control.capabilities = names;
	b.control.n_capabilities = 2;
	guest_send_msg(g, &b);
	guest_subscribe(g, "one");
	guest_subscribe(g, "two");
	rig_settle(r);
	guest_drop(g);
	c->ping_tick = conn_tick(77 * NS_PER_MS);
	before = *c;
	session = strdup(conn_session_id(c));
	rig_hand_over(r, 2, NULL);
	c = g->conn;
	CHECK_EQ(c->serial, before.serial);
	CHECK_EQ(c->connected_s, before.connected_s);
	CHECK_EQ(c->last_sign_ns, before.last_sign_ns);
	CHECK_EQ(c->ping_tick, before.ping_tick);
	CHECK_EQ(c->messages_in, before.messages_in);
	CHECK_EQ(c->messages_out, before.messages_out);
	CHECK(c->messages_in > 0 && c->messages_out > 0);
	CHECK_EQ(c->rate_second_ms, before.rate_second_ms);
	CHECK_EQ(c->rate_frames, before.rate_frames);
	CHECK_EQ(c->caps, MSG_CAP_ZSTD | MSG_CAP_ACK);
	CHECK_EQ(c->deflate_window, before.deflate_window);
	CHECK(c->deflate_window != DEFLATE_NONE && c->was_open);
	CHECK_EQ(c->n_members, 3);
	CHECK_MEM(c->id, before.id, sizeof(before.id));
	CHECK_EQ(memcmp(&c->peer, &before.peer, sizeof(before.peer)), 0);
	CHECK_STR(conn_session_id(c), session);
	CHECK_STR(c->members->channel->entry->name, "two");
	CHECK_STR(c->members->sibling->channel->entry->name, "one");
	CHECK_STR(c->path_member.channel->entry->name, "home");
	CHECK_EQ(admission_total(&r->pool->shared.admission), 1);
	CHECK_EQ(guest_drop(g), 0); /* nobody greets it again */
	free(session);
	rig_free(r);
}

/* The channel of the path that was left is still that; a new serial is nobody's. */
TEST(handover_of_a_path_channel_that_was_left)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *g = guest_open(r, 0, "/home"), *other = guest_open(r, 0, "/home"), *late;

	guest_unsubscribe(g, "home");
	rig_settle(r);
	guest_drop(g);
	rig_hand_over(r, 1, NULL);
	CHECK(!g->conn->path_member.channel);
	CHECK_STR(conn_left_path_channel(g->conn), "home");
	late = guest_open(r, 0, "/home");
	CHECK(late->conn->serial != other->conn->serial && late->conn->serial != g->conn->serial);
	guest_subscribe(g, "home");
	rig_settle(r);
	guest_drop(g);
	guest_chat(other, "to all", NULL);
	rig_settle(r);
	CHECK_STR(guest_next_msg(g)->chat->content, "to all");
	guest_chat(g, "from home", NULL);
	rig_settle(r);
	CHECK_STR(guest_next_msg(late)->chat->content, "to all");
	CHECK_STR(guest_next_msg(late)->chat->content, "from home");
	rig_free(r);
}

/* The lobby's name is empty, like the record's where there is none. */
TEST(handover_of_a_lobby_that_was_left)
{
	struct rig *r = rig_new(1, "echo_path = /echo\n" QUIET);
	struct guest *g = guest_open(r, 0, "/"), *other = guest_open(r, 0, "/");
	struct guest *echo = guest_open(r, 0, "/echo");

	guest_unsubscribe(g, "");
	rig_settle(r);
	guest_drop(g);
	rig_hand_over(r, 1, NULL);
	CHECK_STR(conn_left_path_channel(g->conn), "");
	CHECK(!conn_left_path_channel(echo->conn) && !conn_left_path_channel(other->conn));
	guest_subscribe(g, "");
	rig_settle(r);
	guest_chat(g, "from the lobby", NULL);
	rig_settle(r);
	CHECK_STR(guest_next_msg(other)->chat->content, "from the lobby");
	rig_free(r);
}

TEST(handover_keeps_what_somebody_may)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *g = guest_open(r, 0, "/");
	const char *patterns[] = {"news/*", "room/**"};
	const struct grant like = {
		.user_id = "carol",
		.expires_s = clock_wall_ms() / 1000 + 100,
		.may_publish = false,
		.any_channel = false,
		.n_patterns = 2,
		.pattern = patterns,
	};

	g->conn->grant = grant_restore(&like);
	rig_hand_over(r, 1, NULL);
	CHECK_STR(g->conn->grant->user_id, "carol");
	CHECK_EQ(g->conn->grant->expires_s, like.expires_s);
	CHECK(!g->conn->grant->may_publish);
	CHECK(grant_allows(g->conn->grant, "room/a/b") &&
	      !grant_allows(g->conn->grant, "news/a/b"));
	guest_chat(g, "may I?", NULL);
	rig_settle(r);
	CHECK_EQ(guest_next_msg(g)->control->code, 403);
	rig_free(r);
}

/* Its authorization has ended by the time the next process looks. */
TEST(handover_of_a_grant_that_ends)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *g = guest_open(r, 0, "/"), *h = guest_open(r, 0, "/");
	const struct grant like = {
		.user_id = "carol", .expires_s = clock_wall_ms() / 1000 - 1, .any_channel = true};

	g->conn->grant = grant_restore(&like);
	rig_hand_over(r, 1, NULL);
	rig_pass(r, 100 * NS_PER_MS);
	rig_settle(r);
	CHECK_EQ(guest_close_code(g), 4003);
	CHECK_EQ(guest_close_code(h), 0);
	rig_free(r);
}

/* Those who are here count for their addresses, also for those that a proxy named. */
TEST(handover_keeps_places_of_addresses)
{
	struct sock_peer one = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1}, .port = 1};
	struct rig *r = rig_new(2, "max_connections_per_ip = 2\n");
	struct sock_peer local = {.is_unix = true};
	struct guest *g[4];
	char request[256];
	size_t n = guest_handshake(request, sizeof(request), "/");

	for (unsigned i = 0; i < 4; i++) {
		g[i] = guest_accept_from(r, i % 2, i < 2 ? &one : &local);
		guest_write(g[i], request, n);
		rig_settle(r);
		CHECK_EQ(guest_status(g[i]), 101);
	}
	rig_hand_over(r, 3, NULL);
	for (unsigned i = 0; i < 2; i++) {
		struct guest *late = guest_accept_from(r, i, &one);

		guest_write(late, request, n);
		rig_settle(r);
		CHECK_EQ(guest_status(late), i == 0 ? 429 : 101);
		guest_end(g[i]);
		rig_settle(r);
	}
	CHECK(g[2]->conn->peer.is_unix);
	rig_free(r);
}

/* A deadline is neither forgotten nor begun anew. */
TEST(handover_keeps_deadlines)
{
	struct rig *r = rig_new(1, "heartbeat_timeout = 60\nping_interval = 50\n");
	struct guest *g = guest_open(r, 0, "/"), *half = guest_open(r, 0, "/");
	struct guest *silent = guest_accept(r, 0);

	guest_send(half, false, WS_BINARY, "x", 1);
	rig_settle(r);
	rig_pass_in_steps(r, 9 * NS_PER_S, NS_PER_S);
	rig_hand_over(r, 1, NULL);
	rig_pass_in_steps(r, 2 * NS_PER_S, 100 * NS_PER_MS);
	CHECK(silent->is_closed); /* handshake_timeout: 10 s */
	for (int i = 0; i < 5; i++) {
		rig_hand_over(r, 1, NULL);
		rig_pass_in_steps(r, 10 * NS_PER_S, NS_PER_S);
	}
	CHECK_EQ(guest_close_code(g), 4001);
	CHECK_EQ(guest_close_code(half), 4001);
	CHECK_EQ(RIG_SUM(r, heartbeat_expired), 2);
	rig_free(r);
}

/* --------------------------------------------------------------------------- counters */

TEST(handover_keeps_counters)
{
	struct rig *r = rig_new(3, "");
	struct guest *g = guest_open(r, 2, "/"), *h = guest_open(r, 1, "/");
	uint64_t received, turns;

	guest_send_numbers(g, 0, 100);
	rig_settle(r);
	guest_expect_numbers(h, 0, 100);
	metric_observe(&r->w[1]->metrics, 20000);
	metric_observe(&r->w[2]->metrics, 9 * NS_PER_S);
	for (unsigned i = 0; i < r->n; i++)
		atomic_store(&r->w[i]->metrics.loop_turns, 1000 + i);
	received = RIG_SUM(r, messages_received);
	turns = RIG_SUM(r, loop_turns);
	rig_hand_over(r, 2, NULL);
	CHECK_EQ(RIG_SUM(r, messages_received), received);
	CHECK_EQ(RIG_SUM(r, connections_total), 2);
	CHECK_EQ(RIG_SUM(r, connections_active), 2);
	CHECK_EQ(RIG_SUM(r, loop_turns), turns);
	CHECK_EQ(RIG_SUM(r, latency.bucket[1]), 1);
	CHECK_EQ(RIG_SUM(r, latency.bucket[METRICS_N_BOUNDS]), 1);
	CHECK(RIG_SUM(r, latency.sum_ns) >= 9 * NS_PER_S + 20000);
	rig_free(r);
}

/* -------------------------------------------------------------------- other settings */

/* Those who are there stay, also where the limits would not let them in any more. */
TEST(handover_to_smaller_limits)
{
	struct rig *r = rig_new(2, QUIET);
	struct guest *g[8];

	for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
		char path[16];

		snprintf(path, sizeof(path), "/c%u", i);
		g[i] = guest_open(r, i % 2, path);
		guest_subscribe(g[i], "common");
	}
	rig_settle(r);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		guest_drop(g[i]);
	rig_hand_over(r, 2,
		      QUIET "max_connections = 4\nmax_connections_per_ip = 2\nmax_channels = 9\n"
			    "max_channels_per_client = 1\n");
	CHECK_EQ(admission_total(&r->pool->shared.admission), 8);
	guest_chat(g[0], "still here", "common");
	rig_settle(r);
	for (unsigned i = 1; i < ARRAY_LEN(g); i++)
		CHECK_STR(guest_next_msg(g[i])->chat->content, "still here");
	CHECK_EQ(RIG_SUM(r, closed_1013), 0);
	rig_free(r);
}

/* What waits counts against a smaller max_send_buffer as it always does: by the rules of lag. */
TEST(handover_to_a_smaller_send_buffer)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *slow = guest_open(r, 0, "/room"), *writer = guest_open(r, 0, "/room");

	guest_set_room(slow, 0);
	guest_send_numbers(writer, 0, 400);
	rig_settle(r);
	CHECK_EQ(slow->conn->over_tick, 0);
	rig_hand_over(r, 1, QUIET "message_queue_size = 300\n");
	guest_send_numbers(writer, 400, 401);
	rig_settle(r);
	CHECK(slow->conn->over_tick != 0);
	rig_pass_in_steps(r, 6 * NS_PER_S, 100 * NS_PER_MS);
	guest_send_numbers(writer, 401, 402);
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 1);
	rig_free(r);
}

/* ------------------------------------------------------------------------- at random */

struct crowd {
	struct rig *r;
	uint64_t seed;
	struct guest *guest[12];
	unsigned sent;     /* numbers, by the one who writes */
	unsigned seen[12]; /* the next number that each expects */
};

static void crowd_look(struct crowd *c, unsigned who)
{
	const Websocket__WebSocketMessage *m;

	while ((m = guest_next_msg(c->guest[who]))) {
		unsigned number;

		CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE);
		CHECK_EQ(sscanf(m->chat->content, "%u", &number), 1);
		CHECK_EQ(number, c->seen[who]);
		c->seen[who]++;
	}
}

static void crowd_step(struct crowd *c)
{
	unsigned who = 1 + (unsigned)(test_random(&c->seed) % (ARRAY_LEN(c->guest) - 1));

	switch (test_random(&c->seed) % 6) {
	case 0:
		guest_set_room(c->guest[who], (size_t)(test_random(&c->seed) % 400));
		break;
	case 1:
		guest_set_room(c->guest[who], ROOM_FOR_ALL);
		rig_settle(c->r);
		crowd_look(c, who); /* whole messages, that is */
		break;
	case 2:
		rig_hand_over(c->r, 1 + (unsigned)(test_random(&c->seed) % 5), NULL);
		break;
	case 3:
		rig_turn_one(c->r, (unsigned)(test_random(&c->seed) % c->r->n));
		break;
	default:
		guest_send_numbers(c->guest[0], c->sent, c->sent + 3);
		c->sent += 3;
	}
}

/* Nothing is lost, doubled or out of order, whoever reads how slowly, whenever the process goes. */
TEST(handover_at_random)
{
	struct crowd c = {.seed = test_seed()};

	c.r = rig_new(3, QUIET "message_queue_size = 100000\n");
	for (unsigned i = 0; i < ARRAY_LEN(c.guest); i++)
		c.guest[i] = guest_open(c.r, i % 3, "/room");
	for (unsigned i = 0; i < 2000; i++)
		crowd_step(&c);
	for (unsigned i = 0; i < ARRAY_LEN(c.guest); i++)
		guest_set_room(c.guest[i], ROOM_FOR_ALL);
	rig_settle(c.r);
	for (unsigned i = 1; i < ARRAY_LEN(c.guest); i++) {
		crowd_look(&c, i);
		CHECK_EQ(c.seen[i], c.sent);
	}
	rig_free(c.r);
}

/* ----------------------------------------------------------------- what are no records */

/* Any change is found; nobody is restored from it. */
TEST(handover_refuses_records_that_were_changed)
{
	struct rig *r = rig_new(1, QUIET);
	struct handover_report report;
	struct record_writer records;

	(void)guest_open(r, 0, "/room");
	(void)guest_open(r, 0, "/room");
	records = rig_save(r);
	for (size_t n = 0; n < records.len; n += n < 40 ? 1 : 17) {
		struct record_reader reader;

		CHECK_EQ(record_open(&reader, records.data, n), RECORD_E_BROKEN);
	}
	for (size_t i = 0; i < records.len; i += i < 40 ? 1 : 13) {
		enum record_result expected = i >= 8 && i < 12 ? RECORD_E_FORMAT : RECORD_E_BROKEN;
		struct record_reader reader;
		bool is_count = i >= 24 && i < 32; /* attempts, and what is reserved */

		records.data[i] ^= 0x10;
		CHECK_EQ(record_open(&reader, records.data, records.len),
			 is_count ? RECORD_OK : expected);
		records.data[i] ^= 0x10;
	}
	CHECK_EQ(record_count_attempt(records.data, records.len), 0);
	CHECK_EQ(record_count_attempt(records.data, records.len), 1);
	CHECK_EQ(record_count_attempt(records.data, 10), 0);
	records.data[8]++;
	CHECK_EQ(rig_restore(r, 1, NULL, &records, &report), RECORD_E_FORMAT);
	CHECK_EQ(report.connections, 0);
	CHECK(r->guests[0]->is_closed && r->guests[1]->is_closed);
	free(records.data);
	rig_free(r);
}

/* A record that is of no connection costs that one alone. */
TEST(handover_of_one_that_is_broken)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *bad = guest_open(r, 0, "/room"), *good = guest_open(r, 0, "/room");
	struct handover_report report;
	struct record_writer records;

	bad->conn->state = 7; /* no such */
	records = rig_save(r);
	bad->conn->state = CONN_OPEN;
	CHECK_EQ(rig_restore(r, 1, NULL, &records, &report), 0);
	CHECK_EQ(report.failed, 1);
	CHECK_EQ(report.connections, 1);
	CHECK(bad->is_closed && !good->is_closed);
	free(records.data);
	rig_free(r);
}

/* Records of kinds, fields and counters that only a later version knows. */
TEST(handover_from_a_later_version)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *g = guest_open(r, 0, "/room"), *h = guest_open(r, 0, "/room");
	Record__Counters counters = RECORD__COUNTERS__INIT;
	static char name[] = "invented_later", other[] = "latency/of a kind";
	char *names[] = {name, other};
	uint64_t values[] = {5, 6};
	struct handover_report report;
	struct record_writer records = rig_save(r);

	counters.name = names;
	counters.value = values;
	counters.n_name = counters.n_value = 2;
	CHECK_EQ(record_put(&records, 99, &counters.base), 0);
	CHECK_EQ(record_put(&records, RECORD_COUNTERS, &counters.base), 0);
	CHECK_EQ(record_finish(&records), 0);
	CHECK_EQ(rig_restore(r, 1, NULL, &records, &report), 0);
	CHECK_EQ(report.failed, 0);
	guest_chat(g, "hello", NULL);
	rig_settle(r);
	CHECK_STR(guest_next_msg(h)->chat->content, "hello");
	free(records.data);
	rig_free(r);
}

/* --------------------------------------------------------------- what it was set to */

static int grow(struct record_writer *w, size_t need)
{
	w->data = realloc(w->data, need);
	w->cap = need;
	return w->data ? 0 : -ENOMEM;
}

TEST(handover_brings_the_settings_and_the_files_that_they_name)
{
	static const char secret[] = "0123456789abcdef0123456789abcdef";
	struct record_writer w = {.grow = grow};
	struct config *config = NULL, *again = NULL;
	struct file_set files = {.is_closed = true};
	struct policy *before = NULL, *after = NULL;
	struct config_errors errors = {0};
	static const char text[] = "auth = jwt\njwt_key_file = k=/gone\nwelcome = \xc3\xa4 # \"\n"
				   "max_message_size = 1M\nping_interval = 1500ms\n";
	char why[POLICY_WHY_MAX];
	const char *key;

	CHECK_EQ(config_parse_text("t", text, strlen(text), &config, &errors), 0);
	CHECK_EQ(file_set_add(&files, "/gone", secret, strlen(secret)), 0);
	CHECK_EQ(policy_new(config, NULL, &files, &before, &key, why), 0);
	CHECK_EQ(files.count, 0);
	CHECK_EQ(config_record_put(&w, before), 0);
	CHECK_EQ(record_finish(&w), 0);
	CHECK_EQ(config_record_find(w.data, w.len, &again, &files), 0);
	CHECK_EQ(policy_new(again, NULL, &files, &after, &key, why), 0);
	CHECK_EQ(after->keys->at[0].key.id, before->keys->at[0].key.id);
	CHECK_STR(after->keys->at[0].kid, "k");
	for (size_t i = 0; i < CONFIG_N_KEYS; i++) {
		char *was, *is;

		CHECK_EQ(config_format(config, &config_keys[i], &was), 0);
		CHECK_EQ(config_format(again, &config_keys[i], &is), 0);
		CHECK_STR(was, is);
		CHECK_EQ(config->origin[i] != NULL, again->origin[i] != NULL);
		free(was);
		free(is);
	}
	/* Nothing of it is there: what a version before had written. */
	CHECK_EQ(config_record_find(w.data, RECORD_HEAD_BYTES, &again, &files), -ENOENT);
	policy_unref(before);
	policy_unref(after);
	config_unref(config);
	config_unref(again);
	free(w.data);
}
