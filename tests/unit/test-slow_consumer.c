/* SPDX-License-Identifier: MIT */
/* What happens to a client that reads too slowly, and when; it has a message in transit. */
#include "rig.h"

#include <stdio.h>

#include "worker/protocol.h"
#include "worker/slow_consumer.h"

#define STEP (50 * NS_PER_MS)
#define FREE "max_incoming_frames_per_second = 0\nnotice_limit = 0\nping_interval = 1h\n"

struct scene {
	struct rig *r;
	struct guest *sender, *slow, *fast;
	unsigned next; /* number of the next message */
};

static void scene_init(struct scene *s, const char *config)
{
	*s = (struct scene){.r = rig_new(1, config)};
	s->sender = guest_open(s->r, 0, "/room");
	s->slow = guest_open(s->r, 0, "/room");
	s->fast = guest_open(s->r, 0, "/room");
	guest_set_room(s->slow, 0);
}

/* The fast one always gets everything. */
static void scene_fini(struct scene *s)
{
	rig_settle(s->r);
	CHECK_EQ(guest_drop(s->fast), s->next);
	CHECK_EQ(s->fast->conn->state, CONN_OPEN);
	rig_check(s->r);
	rig_free(s->r);
}

/* Messages with @bytes of text, their number in front. */
static void publish(struct scene *s, unsigned n, size_t bytes)
{
	char *text = malloc(bytes + 16);

	for (; n > 0; n--) {
		memset(text, ' ', bytes + 15);
		text[snprintf(text, 15, "%u", s->next++)] = ' ';
		text[MAX(bytes, (size_t)12)] = '\0';
		guest_chat(s->sender, text, NULL);
	}
	free(text);
	rig_turn(s->r);
}

static uint64_t waiting(const struct guest *g)
{
	uint64_t bytes, messages;

	channel_backlog(g->conn, &bytes, &messages);
	return messages;
}

static unsigned next_number(struct guest *g)
{
	const Websocket__WebSocketMessage *m = guest_next_msg(g);

	return m ? (unsigned)strtoul(m->chat->content, NULL, 10) : UINT32_MAX;
}

static uint64_t time_until_closing(struct scene *s, uint64_t longest)
{
	uint64_t start = s->r->now_ns;

	while (s->slow->conn->state == CONN_OPEN && s->r->now_ns - start < longest)
		rig_pass(s->r, STEP);
	return s->r->now_ns - start;
}

TEST(slow_consumer_stays_as_long_as_it_is_within_the_limits)
{
	struct scene s;

	scene_init(&s, FREE "message_queue_size = 10\n");
	publish(&s, 11, 10); /* one is in transit */
	CHECK_EQ(waiting(s.slow), 10);
	CHECK_EQ(s.slow->conn->over_tick, 0);
	CHECK(time_until_closing(&s, 60 * NS_PER_S) >= 60 * NS_PER_S);
	guest_set_room(s.slow, ROOM_FOR_ALL);
	rig_settle(s.r);
	CHECK_EQ(guest_drop(s.slow), 11);
	CHECK(list_is_empty(&s.r->w[0]->hub.env.unsent));
	scene_fini(&s);
}

TEST(slow_consumer_is_closed_after_the_grace)
{
	struct scene s;
	uint64_t took;

	scene_init(&s, FREE "message_queue_size = 10\n");
	publish(&s, 12, 10);
	took = time_until_closing(&s, 60 * NS_PER_S);
	CHECK(took >= 5 * NS_PER_S && took <= 5 * NS_PER_S + 2 * STEP);
	CHECK_EQ(RIG_SUM(s.r, slow_disconnects), 1);
	guest_set_room(s.slow, ROOM_FOR_ALL);
	rig_settle(s.r);
	/* What was partly sent, or may have been, is completed; then Close. */
	CHECK_EQ(next_number(s.slow), 0);
	CHECK_EQ(guest_close_code(s.slow), 1013);
	scene_fini(&s);
}

TEST(slow_consumer_grace_begins_anew_after_each_recovery)
{
	struct scene s;

	scene_init(&s, FREE "message_queue_size = 10\n");
	for (int i = 0; i < 4; i++) {
		publish(&s, 20, 10);
		CHECK(s.slow->conn->over_tick != 0);
		rig_pass_in_steps(s.r, 4900 * NS_PER_MS, STEP);
		guest_set_room(s.slow, ROOM_FOR_ALL);
		rig_settle(s.r);
		CHECK_EQ(s.slow->conn->over_tick, 0);
		CHECK_EQ(guest_drop(s.slow), 20);
		guest_set_room(s.slow, 0);
	}
	CHECK_EQ(s.slow->conn->state, CONN_OPEN);
	scene_fini(&s);
}

TEST(slow_consumer_has_no_grace_at_four_times_a_limit)
{
	struct scene s;

	scene_init(&s, FREE "message_queue_size = 10\n");
	publish(&s, 41, 10);
	CHECK_EQ(s.slow->conn->state, CONN_OPEN);
	publish(&s, 1, 10);
	CHECK_EQ(s.slow->conn->state, CONN_CLOSING);
	scene_fini(&s);
	scene_init(&s, FREE "message_queue_size = 10\nslow_consumer_grace = 0\n");
	publish(&s, 11, 10);
	CHECK_EQ(s.slow->conn->state, CONN_OPEN);
	publish(&s, 1, 10);
	CHECK_EQ(s.slow->conn->state, CONN_CLOSING);
	scene_fini(&s);
}

TEST(slow_consumer_bytes_count_but_one_message_may_be_larger)
{
	struct scene s;

	scene_init(&s, FREE "max_send_buffer = 4K\n");
	publish(&s, 1, 100);
	publish(&s, 1, 100000);
	CHECK_EQ(waiting(s.slow), 1);
	CHECK(time_until_closing(&s, 30 * NS_PER_S) >= 30 * NS_PER_S);
	publish(&s, 1, 10); /* not alone any more, and far past four times the limit */
	CHECK_EQ(s.slow->conn->state, CONN_CLOSING);
	scene_fini(&s);
	scene_init(&s, FREE "max_send_buffer = 4K\n");
	publish(&s, 1, 10);
	publish(&s, 4, 980);
	CHECK_EQ(s.slow->conn->over_tick, 0);
	publish(&s, 1, 980);
	CHECK(s.slow->conn->over_tick != 0);
	CHECK(time_until_closing(&s, 30 * NS_PER_S) <= 5 * NS_PER_S + 2 * STEP);
	scene_fini(&s);
}

TEST(slow_consumer_skip_goes_down_to_half_and_keeps_the_newest)
{
	struct scene s;
	unsigned expected;

	scene_init(&s, FREE "message_queue_size = 10\nslow_consumer = skip\n");
	publish(&s, 16, 10);
	CHECK_EQ(waiting(s.slow), 15);
	rig_pass_in_steps(s.r, 5 * NS_PER_S + 2 * STEP, STEP);
	CHECK_EQ(waiting(s.slow), 5);
	CHECK_EQ(RIG_SUM(s.r, skipped_messages), 10);
	CHECK_EQ(RIG_SUM(s.r, slow_skips), 1);
	CHECK_EQ(s.slow->conn->over_tick, 0);
	guest_set_room(s.slow, ROOM_FOR_ALL);
	rig_settle(s.r);
	CHECK_EQ(next_number(s.slow), 0);
	for (expected = 11; expected < 16; expected++)
		CHECK_EQ(next_number(s.slow), expected);
	CHECK_EQ(next_number(s.slow), UINT32_MAX);
	scene_fini(&s);
}

/*
 * A client that stands still for a moment while the server is far behind: what no round has
 * brought to it yet is the server's own backlog, and counts for nobody.
 */
TEST(slow_consumer_does_not_pay_for_the_backlog_of_the_server)
{
	struct rig *r = rig_new(1, FREE "message_queue_size = 100\n");
	struct guest *sender = guest_open(r, 0, "/room"), *slow = guest_open(r, 0, "/room");
	unsigned turns = 0;

	for (unsigned i = 0; i < HUB_MEMBERS_PER_TURN; i++)
		guest_open(r, 0, "/room")->is_mute = true;
	guest_set_room(slow, 10);
	guest_send_numbers(sender, 0, 1000);
	rig_turn(r);
	CHECK_EQ(slow->conn->n_lagging, 1);
	CHECK(waiting(slow) < CHANNEL_BATCH_FRAMES);
	CHECK_EQ(slow->conn->state, CONN_OPEN);
	guest_set_room(slow, ROOM_FOR_ALL);
	rig_settle(r);
	guest_expect_numbers(slow, 0, 1000);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 0);
	/* What rounds have come by with counts, though, also when nothing follows. */
	guest_set_room(slow, 0);
	guest_send_numbers(sender, 0, 150);
	rig_settle(r);
	CHECK(waiting(slow) > 100);
	for (; slow->conn->state == CONN_OPEN; turns++)
		rig_pass(r, NS_PER_S);
	CHECK(turns >= 5 && turns <= 7);
	rig_free(r);
}

/* What a client published itself is counted out by totals, wherever it stops reading. */
TEST(slow_consumer_own_messages_are_totals)
{
	struct rig *r = rig_new(1, FREE "message_queue_size = 3000\nslow_consumer_grace = 1h\n");
	struct guest *sender = guest_open(r, 0, "/room"), *g = guest_open(r, 0, "/room");
	uint64_t bytes, messages;

	guest_set_room(g, 0);
	guest_send_numbers(sender, 0, 10);
	for (int i = 0; i < 20; i++)
		guest_chat(g, "my own", NULL);
	guest_send_numbers(sender, 10, 20);
	rig_settle(r);
	channel_backlog_bound(g->conn, &bytes, &messages);
	CHECK_EQ(messages, 39);
	CHECK_EQ(waiting(g), 19);
	CHECK_EQ(g->conn->path_member.own_messages, 20);
	guest_set_room(g, 400); /* into the middle of what waits */
	rig_settle(r);
	CHECK(waiting(g) < 19);
	rig_check(r);
	guest_set_room(g, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK_EQ(g->conn->path_member.own_messages, 0);
	CHECK_EQ(g->conn->path_member.own_bytes, 0);
	guest_expect_numbers(g, 0, 20);
	rig_free(r);
}

/* Over all its channels the oldest go first. */
TEST(slow_consumer_skip_takes_the_oldest_of_all_channels)
{
	struct scene s;
	static const unsigned kept[] = {0, 11, 12, 13, 14, 15};
	bool seen[16] = {false};

	scene_init(&s, FREE "message_queue_size = 10\nslow_consumer = skip\n"
			    "slow_consumer_grace = 0\n");
	guest_set_room(s.slow, ROOM_FOR_ALL);
	guest_subscribe(s.slow, "second");
	guest_subscribe(s.sender, "second");
	rig_settle(s.r);
	guest_drop(s.slow);
	guest_set_room(s.slow, 0);
	for (unsigned i = 0; i < 16; i++) {
		char text[16];

		snprintf(text, sizeof(text), "%u", i);
		guest_chat(s.sender, text, i % 3 ? "second" : "room");
		s.next += i % 3 == 0;
		rig_pass(s.r, NS_PER_MS);
		rig_check(s.r);
	}
	CHECK(waiting(s.slow) <= 10);
	guest_set_room(s.slow, ROOM_FOR_ALL);
	rig_settle(s.r);
	for (unsigned i; (i = next_number(s.slow)) != UINT32_MAX;)
		seen[i] = true;
	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		CHECK(seen[kept[i]]);
	for (unsigned i = 1; i < 6; i++)
		CHECK(!seen[i]);
	scene_fini(&s);
}

static void queue_errors(struct guest *g, unsigned n)
{
	for (; n > 0; n--)
		protocol_send_error(g->conn, NULL, 400, "test");
	rig_turn(g->rig);
}

/* What is addressed to the client alone is never skipped: past a limit by that alone, it goes. */
TEST(slow_consumer_private_queue_past_a_limit_disconnects_in_either_case)
{
	static const char *const actions[] = {"skip", "disconnect"};

	for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
		char config[300];
		struct scene s;

		snprintf(config, sizeof(config),
			 FREE "message_queue_size = 10\nslow_consumer_grace = 0\n"
			      "slow_consumer = %s\n",
			 actions[i]);
		scene_init(&s, config);
		queue_errors(s.slow, 10);
		CHECK_EQ(s.slow->conn->state, CONN_OPEN);
		queue_errors(s.slow, 1);
		publish(&s, 1, 10); /* the round comes by */
		CHECK_EQ(s.slow->conn->state, CONN_CLOSING);
		CHECK_EQ(RIG_SUM(s.r, slow_disconnects), 1);
		scene_fini(&s);
	}
}

/* Within the limit by itself it is no reason to go: then all of the channel's are skipped. */
TEST(slow_consumer_private_queue_within_the_limit_is_no_reason_to_go)
{
	struct scene s;
	unsigned errors = 0;

	scene_init(&s, FREE "message_queue_size = 10\nslow_consumer_grace = 0\n"
			    "slow_consumer = skip\n");
	queue_errors(s.slow, 8);
	publish(&s, 6, 10);
	CHECK_EQ(s.slow->conn->state, CONN_OPEN);
	CHECK_EQ(RIG_SUM(s.r, slow_disconnects), 0);
	CHECK_EQ(waiting(s.slow), 8);
	guest_set_room(s.slow, ROOM_FOR_ALL);
	rig_settle(s.r);
	for (const Websocket__WebSocketMessage *m; (m = guest_next_msg(s.slow));)
		errors += m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL;
	CHECK_EQ(errors, 8);
	scene_fini(&s);
}

/* A pong and a half sent message survive what is dropped when the client is closed. */
TEST(slow_consumer_close_keeps_control_frames_and_what_is_partly_sent)
{
	struct scene s;
	struct guest_frame f;

	scene_init(&s, FREE "message_queue_size = 10\n");
	guest_set_room(s.slow, 20);
	publish(&s, 1, 100);
	CHECK(s.slow->conn->out->transit != NULL && s.slow->conn->out->transit_at == 20);
	guest_send(s.slow, true, WS_PING, "!", 1);
	queue_errors(s.slow, 3);
	publish(&s, 60, 10);
	CHECK_EQ(s.slow->conn->state, CONN_CLOSING);
	guest_set_room(s.slow, ROOM_FOR_ALL);
	rig_settle(s.r);
	CHECK(guest_next_frame(s.slow, &f));
	CHECK_EQ(f.opcode, WS_BINARY);
	CHECK(guest_next_frame(s.slow, &f));
	CHECK_EQ(f.opcode, WS_PONG);
	CHECK(guest_next_frame(s.slow, &f)); /* the errors are dropped */
	CHECK_EQ(f.opcode, WS_CLOSE);
	CHECK_EQ(f.p[0] << 8 | f.p[1], 1013);
	scene_fini(&s);
}

/* ------------------------------------------------------------------- log_memory */

#define MEMORY                                                                       \
	FREE "log_memory = 1M\nmax_send_buffer = 64M\nmessage_queue_size = 100000\n" \
	     "slow_consumer_grace = 1h\n"

struct lagger {
	struct guest *sender, *slow;
	char path[16];
};

static void lagger_init(struct lagger *l, struct rig *r, unsigned worker, const char *path)
{
	l->sender = guest_open(r, worker, path);
	l->slow = guest_open(r, worker, path);
	guest_set_room(l->slow, 0);
}

static void lagger_wait(struct lagger *l, unsigned kib)
{
	char text[1024];

	memset(text, 'x', sizeof(text));
	text[900] = '\0';
	for (unsigned i = 0; i < kib; i++)
		guest_chat(l->sender, text, NULL);
	/* As often as it is held back because the channel is behind. */
	for (unsigned i = 0; i < 100; i++)
		rig_turn(l->sender->rig);
}

static size_t frame_bytes(struct rig *r)
{
	return atomic_load(&r->pool->shared.frame_bytes);
}

TEST(slow_consumer_log_memory_takes_those_that_lag_most)
{
	struct rig *r = rig_new(1, MEMORY);
	struct lagger a, b, c;

	lagger_init(&a, r, 0, "/a");
	lagger_init(&b, r, 0, "/b");
	lagger_init(&c, r, 0, "/c");
	lagger_wait(&a, 300);
	lagger_wait(&b, 500);
	CHECK_EQ(b.slow->conn->state, CONN_OPEN);
	lagger_wait(&c, 300);
	CHECK_EQ(a.slow->conn->state, CONN_OPEN);
	CHECK_EQ(b.slow->conn->state, CONN_CLOSING);
	CHECK_EQ(c.slow->conn->state, CONN_OPEN);
	CHECK(frame_bytes(r) <= 1024 * 1024);
	rig_free(r);
}

TEST(slow_consumer_log_memory_skips_until_it_fits)
{
	struct rig *r = rig_new(1, MEMORY "slow_consumer = skip\n");
	struct lagger a, b;

	lagger_init(&a, r, 0, "/a");
	lagger_init(&b, r, 0, "/b");
	lagger_wait(&a, 200);
	lagger_wait(&b, 900);
	CHECK_EQ(b.slow->conn->state, CONN_OPEN);
	CHECK(frame_bytes(r) <= 1024 * 1024);
	CHECK(RIG_SUM(r, skipped_messages) >= 400 && RIG_SUM(r, skipped_messages) <= 500);
	CHECK_EQ(waiting(a.slow), 199);
	/* Where all that waits is private, skipping doesn't help. */
	for (int i = 0; i < 3000 && b.slow->conn->state == CONN_OPEN; i++) {
		char text[1024];

		memset(text, 'e', sizeof(text));
		text[1023] = '\0';
		protocol_send_error(b.slow->conn, NULL, 400, text);
		rig_turn(r);
	}
	CHECK_EQ(b.slow->conn->state, CONN_CLOSING);
	CHECK(frame_bytes(r) <= 1024 * 1024);
	rig_free(r);
}

/* The worker that has the one that lags most acts; the others leave theirs in peace. */
TEST(slow_consumer_log_memory_spares_the_smaller_lag_of_another_worker)
{
	struct rig *r = rig_new(2, MEMORY);
	struct lagger a, b;

	lagger_init(&a, r, 0, "/a");
	lagger_init(&b, r, 1, "/b");
	lagger_wait(&b, 900);
	lagger_wait(&a, 60);
	CHECK(frame_bytes(r) <= 1024 * 1024);
	for (unsigned i = 0; i < 50 && b.slow->conn->state == CONN_OPEN; i++) {
		/* What worker 1 says of itself while there is too much. */
		atomic_store(&r->pool->shared.lags.worst_bytes[1], 900 * 1024);
		lagger_wait(&a, 1);
	}
	CHECK_EQ(a.slow->conn->state, CONN_OPEN);
	CHECK_EQ(b.slow->conn->state, CONN_CLOSING);
	rig_turn(r);
	CHECK_EQ(a.slow->conn->state, CONN_OPEN);
	CHECK(frame_bytes(r) <= 1024 * 1024);
	CHECK_EQ(r->pool->shared.lags.worst_bytes[1], 0);
	rig_free(r);
}

/* Those who read nothing pin notices: these go, and nobody for whom a message waits. */
TEST(slow_consumer_notices_are_shed_before_anybody_goes)
{
	struct rig *r = rig_new(1, "log_memory = 1M\nmax_incoming_frames_per_second = 0\n"
				   "message_queue_size = 100000\nping_interval = 1h\n");
	struct guest *deaf = guest_open(r, 0, "/pin"), *churner = guest_open(r, 0, "/churn");
	struct guest *good = guest_open(r, 0, "/good"), *sender = guest_open(r, 0, "/good");
	struct channel *ch;
	char *text = calloc(1, 600001);

	memset(text, 'x', 600000);
	guest_set_room(deaf, 0);
	guest_set_room(good, 1000);
	guest_chat(sender, text, NULL);
	for (unsigned i = 0; i < 5000; i++) {
		guest_subscribe(churner, "pin");
		rig_turn(r);
		guest_unsubscribe(churner, "pin");
		rig_turn(r);
		CHECK(r->w[0]->hub.channels.notice_bytes <= (1 << 20) / CHANNEL_BACKLOG_SHARE);
	}
	rig_check(r);
	ch = rig_channel(r, 0, "pin");
	/* Neither they nor their places are kept. */
	CHECK(ch->high - ch->from < 1000);
	CHECK(RIG_SUM(r, notices_skipped) > 5000);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 0);
	CHECK_EQ(good->conn->state, CONN_OPEN);
	guest_set_room(good, ROOM_FOR_ALL);
	guest_set_room(deaf, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK(guest_drop(good) >= 1 && guest_drop(deaf) >= 1);
	CHECK_EQ(r->w[0]->hub.channels.notice_bytes, 0);
	free(text);
	rig_free(r);
}

/* What no round has taken is nobody's lag: it makes nobody give way. */
TEST(slow_consumer_log_memory_spares_all_while_the_server_is_behind)
{
	struct rig *r = rig_new(1, FREE "log_memory = 1M\n");
	struct guest *sender = guest_open(r, 0, "/room"), *slow = guest_open(r, 0, "/else");
	struct guest *other = guest_open(r, 0, "/else");
	char *text = calloc(1, 2000001);

	memset(text, 'x', 2000000);
	for (unsigned i = 0; i < HUB_MEMBERS_PER_TURN + 100; i++)
		guest_open(r, 0, "/room")->is_mute = true;
	guest_set_room(slow, 0);
	guest_chat(other, "one", NULL);
	rig_turn(r);
	guest_chat(sender, text, NULL);
	/* Until it is published: before that it is under work. */
	while (RIG_SUM(r, messages_received) < 2 || sender->conn->pauses & CONN_PAUSE_WORK)
		rig_turn(r);
	CHECK(frame_bytes(r) > 1024 * 1024);
	CHECK_EQ(slow->conn->state, CONN_OPEN);
	rig_settle(r);
	CHECK(frame_bytes(r) < 1024 * 1024);
	CHECK_EQ(slow->conn->state, CONN_OPEN);
	guest_set_room(slow, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 0);
	free(text);
	rig_free(r);
}
