/* SPDX-License-Identifier: MIT */
/*
 * Every limit, one less, the limit, and one more: what is within it changes nothing,
 * what is past it is met as it should and counted once, and the two who chat beside it
 * never notice.
 */
#include "rig.h"

#include <stdio.h>

#include "channel/channel.h"

#define BASE "max_incoming_frames_per_second = 0\nnotice_limit = 0\nping_interval = 1h\n"
#define ECHO BASE "echo_path = /echo\n"
#define KIB 1024

/* One limit: @probe goes to it plus @delta, and tells whether it was met. */
struct limit {
	const char *config;
	bool (*probe)(struct rig *r, int delta);
	size_t counter; /* of struct metrics: 1 once it was met */
};

#define COUNTER_OF(field) offsetof(struct metrics, field)

static void chat_beside(struct rig *r, struct guest *a, struct guest *b)
{
	guest_send_numbers(a, 0, 3);
	rig_settle(r);
	guest_expect_numbers(b, 0, 3);
}

static void check_limit(const struct limit *l)
{
	for (int delta = -1; delta <= 1; delta++) {
		struct rig *r = rig_new(1, l->config);
		struct guest *a = guest_open(r, 0, "/beside"), *b = guest_open(r, 0, "/beside");
		bool is_met = l->probe(r, delta);

		if (is_met != (delta > 0) || rig_sum(r, l->counter) != (delta > 0))
			print_message("# at the limit %+d: %s, counted %llu\n", delta,
				      is_met ? "met" : "not met",
				      (unsigned long long)rig_sum(r, l->counter));
		CHECK_EQ(is_met, delta > 0);
		CHECK_EQ(rig_sum(r, l->counter), delta > 0);
		chat_beside(r, a, b);
		rig_free(r);
	}
}

/* Whether a client was closed with this code, and with no other. */
static bool was_closed(struct guest *g, unsigned code)
{
	unsigned got = guest_close_code(g);

	CHECK(got == 0 || got == code);
	return got == code;
}

static bool frame_probe(struct rig *r, int delta)
{
	static const uint8_t zeros[2 * KIB];
	struct guest *g = guest_open(r, 0, "/echo");

	guest_send(g, true, WS_BINARY, zeros, (size_t)(KIB + delta));
	rig_settle(r);
	return was_closed(g, 1009);
}

static bool message_probe(struct rig *r, int delta)
{
	static const uint8_t zeros[KIB];
	struct guest *g = guest_open(r, 0, "/echo");

	guest_send(g, false, WS_BINARY, zeros, 1000);
	guest_send(g, false, WS_CONTINUATION, zeros, 1000);
	guest_send(g, true, WS_CONTINUATION, zeros, (size_t)(48 + delta));
	rig_settle(r);
	return was_closed(g, 1009);
}

static bool control_probe(struct rig *r, int delta)
{
	static const uint8_t zeros[200];
	struct guest *g = guest_open(r, 0, "/echo");

	guest_send(g, true, WS_PING, zeros, (size_t)(WS_MAX_CONTROL + delta));
	rig_settle(r);
	return was_closed(g, 1002);
}

/* Data that somebody can't read packed, and that is that large unpacked. */
static bool unpacked_probe(struct rig *r, int delta)
{
	struct guest *from = guest_open(r, 0, "/room"), *to = guest_open(r, 0, "/room");
	uint8_t *data = calloc(1, 3 * KIB);
	struct buf packed = {0};
	struct msg_builder b;
	struct zip zip = {0};

	CHECK_EQ(zip_pack(&zip, 1, data, (size_t)(2 * KIB + delta), &packed), 0);
	msg_init_binary(&b, packed.data, packed.len, 0, true, WEBSOCKET__COMPRESSION_TYPE__ZSTD);
	rig_settle(r);
	guest_drop(to);
	guest_send_msg(from, &b);
	rig_settle(r);
	zip_fini(&zip);
	buf_fini(&packed);
	free(data);
	CHECK_EQ(to->conn->state, CONN_OPEN);
	return guest_drop(to) == 0;
}

TEST(limit_of_a_frame)
{
	check_limit(&(struct limit){ECHO "max_frame_size = 1K\n", frame_probe,
				    COUNTER_OF(closed_1009)});
}

TEST(limit_of_a_message)
{
	check_limit(&(struct limit){ECHO "max_frame_size = 1K\nmax_message_size = 2K\n",
				    message_probe, COUNTER_OF(closed_1009)});
}

TEST(limit_of_a_control_frame)
{
	check_limit(&(struct limit){ECHO, control_probe, COUNTER_OF(closed_1002)});
}

TEST(limit_of_unpacked_data)
{
	check_limit(&(struct limit){BASE "max_message_size = 2K\nmax_frame_size = 2K\n",
				    unpacked_probe, COUNTER_OF(compression_errors)});
}

/* ------------------------------------------------------------------------ rate */

static bool rate_probe(struct rig *r, int delta)
{
	struct guest *g = guest_open(r, 0, "/");
	struct guest_frame f;
	int pongs = 0;

	rig_pass(r, 2 * NS_PER_S);
	for (int i = 0; i < 10 + delta; i++)
		guest_send(g, true, WS_PING, "", 0);
	rig_turn(r);
	while (guest_next_frame(g, &f))
		pongs += f.opcode == WS_PONG;
	CHECK_EQ(g->conn->state == CONN_OPEN ? pongs : 10, 10 + MIN(delta, 0));
	return (g->conn->pauses & CONN_PAUSE_THROTTLED) || g->conn->close_code == 1008;
}

TEST(limit_of_frames_in_a_second)
{
	static const char rate[] = "notice_limit = 0\nmax_incoming_frames_per_second = 10\n";
	char closing[200];

	check_limit(&(struct limit){rate, rate_probe, COUNTER_OF(throttles)});
	snprintf(closing, sizeof(closing), "%srate_limit_action = close\n", rate);
	check_limit(&(struct limit){closing, rate_probe, COUNTER_OF(closed_1008)});
}

/* ------------------------------------------------------------------- consumers */

/* A chat message that makes a frame of exactly @bytes, from 200 to 16000. */
static void send_of(struct guest *from, size_t bytes)
{
	char *content = calloc(1, bytes);
	struct msg_builder b;
	size_t n = bytes - 100;

	for (int i = 0; i < 3; i++) {
		memset(content, 'x', n);
		content[n] = '\0';
		msg_init_chat(&b, "id", "user", content, 1);
		n += bytes - 4 - msg_size(&b);
	}
	CHECK_EQ(msg_size(&b), bytes - 4);
	guest_send_msg(from, &b);
	rig_turn(from->rig);
	free(content);
}

/* One who reads nothing in the lobby, behind a message that is in transit. */
static struct guest *stopped_reader(struct rig *r, struct guest **ret_from)
{
	struct guest *slow = guest_open(r, 0, "/");

	*ret_from = guest_open(r, 0, "/");
	rig_settle(r);
	guest_drop(slow);
	guest_set_room(slow, 0);
	send_of(*ret_from, 200);
	CHECK(slow->conn->out->transit != NULL);
	return slow;
}

static bool is_closing(const struct guest *g)
{
	return g->conn->state != CONN_OPEN;
}

static bool queue_probe(struct rig *r, int delta)
{
	struct guest *from, *slow = stopped_reader(r, &from);

	for (int i = 0; i < 10 + delta; i++)
		send_of(from, 200);
	return is_closing(slow);
}

static bool buffer_probe(struct rig *r, int delta)
{
	struct guest *from, *slow = stopped_reader(r, &from);
	uint64_t bytes, messages;

	send_of(from, 2000);
	send_of(from, (size_t)(2096 + delta));
	channel_backlog(slow->conn, &bytes, &messages);
	CHECK(is_closing(slow) || bytes == (uint64_t)(4096 + delta));
	return is_closing(slow);
}

static bool four_times_probe(struct rig *r, int delta)
{
	struct guest *from, *slow = stopped_reader(r, &from);

	for (int i = 0; i < 40 + delta; i++)
		send_of(from, 200);
	return is_closing(slow);
}

static bool four_times_bytes_probe(struct rig *r, int delta)
{
	struct guest *from, *slow = stopped_reader(r, &from);

	for (int i = 0; i < 3; i++)
		send_of(from, 4096);
	send_of(from, (size_t)(4096 + delta));
	return is_closing(slow);
}

TEST(limit_of_messages_that_wait)
{
	check_limit(&(struct limit){BASE "message_queue_size = 10\nslow_consumer_grace = 0\n",
				    queue_probe, COUNTER_OF(slow_disconnects)});
	check_limit(&(struct limit){BASE "message_queue_size = 10\n", four_times_probe,
				    COUNTER_OF(slow_disconnects)});
}

TEST(limit_of_bytes_that_wait)
{
	check_limit(&(struct limit){BASE "max_send_buffer = 4K\nslow_consumer_grace = 0\n",
				    buffer_probe, COUNTER_OF(slow_disconnects)});
	check_limit(&(struct limit){BASE "max_send_buffer = 4K\n", four_times_bytes_probe,
				    COUNTER_OF(slow_disconnects)});
}

static bool skip_probe(struct rig *r, int delta)
{
	struct guest *from, *slow = stopped_reader(r, &from);
	uint64_t bytes, messages;

	for (int i = 0; i < 10 + delta; i++)
		send_of(from, 200);
	channel_backlog(slow->conn, &bytes, &messages);
	CHECK(!is_closing(slow));
	CHECK_EQ(messages, delta > 0 ? 5 : 10 + delta);
	return RIG_SUM(r, skipped_messages) == 6;
}

TEST(limit_at_which_messages_are_skipped)
{
	check_limit(&(struct limit){BASE "message_queue_size = 10\nslow_consumer_grace = 0\n"
					 "slow_consumer = skip\n",
				    skip_probe, COUNTER_OF(slow_skips)});
}

/* Gives the worker the configuration it has, with one number changed. */
#define RECONFIGURE(r, lines, member, value)                \
	do {                                                \
		struct policy *policy_ = rig_policy(lines); \
		policy_->config->member = (value);          \
		worker_configure((r)->w[0], policy_);       \
		rig_turn(r);                                \
	} while (0)

/* The account is what it is: the limit is moved to where it lies. */
static bool log_memory_probe(struct rig *r, int delta)
{
	struct guest *from, *slow = stopped_reader(r, &from);

	for (int i = 0; i < 10; i++)
		send_of(from, 1000);
	RECONFIGURE(r, BASE, log_memory,
		    atomic_load(r->w[0]->hub.env.frame_account) - (size_t)(long)delta);
	return is_closing(slow);
}

TEST(limit_of_memory_for_all_that_waits)
{
	check_limit(&(struct limit){BASE, log_memory_probe, COUNTER_OF(slow_disconnects)});
}

static bool reassembly_probe(struct rig *r, int delta)
{
	static const uint8_t zeros[20 * KIB];
	struct guest *large = guest_open(r, 0, "/echo"), *small = guest_open(r, 0, "/echo");

	guest_send(large, false, WS_BINARY, zeros, 20 * KIB);
	guest_send(small, false, WS_BINARY, zeros, 5 * KIB);
	rig_settle(r);
	RECONFIGURE(r, ECHO, reassembly_memory,
		    r->w[0]->hub.env.reassembly_bytes - (size_t)(long)delta);
	guest_send(small, true, WS_PING, "", 0); /* it is looked at when something comes */
	rig_settle(r);
	CHECK_EQ(small->conn->state, CONN_OPEN);
	return was_closed(large, 1013);
}

TEST(limit_of_memory_for_messages_in_part)
{
	check_limit(&(struct limit){ECHO, reassembly_probe, COUNTER_OF(closed_1013)});
}

/* ------------------------------------------------------------------------ times */

/*
 * A millisecond and a nanosecond before its time nothing has happened; soon after it, it
 * has: within the resolution of the wheel.
 */
#define RESOLUTION (50 * NS_PER_MS)

static void pass_to(struct rig *r, uint64_t limit, int delta)
{
	uint64_t before = delta < 0 ? NS_PER_MS : 1;

	rig_pass_in_steps(r, delta > 0 ? limit + RESOLUTION : limit - before, 10 * NS_PER_MS);
}

static bool grace_probe(struct rig *r, int delta)
{
	struct guest *from, *slow = stopped_reader(r, &from);

	for (int i = 0; i < 20; i++)
		send_of(from, 200);
	pass_to(r, 5 * NS_PER_S, delta);
	return is_closing(slow);
}

static bool message_time_probe(struct rig *r, int delta)
{
	struct guest *g = guest_open(r, 0, "/echo");

	guest_send(g, false, WS_TEXT, "begun", 5);
	rig_turn(r);
	pass_to(r, 3 * NS_PER_S, delta);
	return was_closed(g, 1008);
}

static bool handshake_time_probe(struct rig *r, int delta)
{
	struct guest *g = guest_accept(r, 0);

	guest_write(g, "GET /", 5);
	pass_to(r, 3 * NS_PER_S, delta);
	return g->is_closed;
}

/* Two who chat beside it give signs of life; this one doesn't. */
static bool heartbeat_probe(struct rig *r, int delta)
{
	struct guest *g = guest_open(r, 0, "/");

	for (int i = 0; i < 2; i++) {
		rig_pass_in_steps(r, NS_PER_S, 10 * NS_PER_MS);
		for (unsigned k = 0; k < 2; k++)
			guest_send(r->guests[k], true, WS_PONG, "", 0);
		rig_turn(r);
	}
	pass_to(r, NS_PER_S, delta);
	return was_closed(g, 4001);
}

TEST(limit_of_grace_for_slow_consumers)
{
	check_limit(&(struct limit){BASE "message_queue_size = 10\nslow_consumer_grace = 5\n",
				    grace_probe, COUNTER_OF(slow_disconnects)});
}

TEST(limit_of_time_for_a_message)
{
	check_limit(&(struct limit){ECHO "message_timeout = 3\n", message_time_probe,
				    COUNTER_OF(closed_1008)});
}

TEST(limit_of_time_for_a_handshake)
{
	check_limit(&(struct limit){BASE "handshake_timeout = 3\n", handshake_time_probe,
				    COUNTER_OF(refused_timeout)});
}

TEST(limit_of_time_without_a_sign_of_life)
{
	check_limit(&(struct limit){
		"notice_limit = 0\nping_interval = 1h\npong_timeout = 1h\nheartbeat_timeout = 3\n",
		heartbeat_probe, COUNTER_OF(heartbeat_expired)});
}

/* -------------------------------------------------------------------- admission */

static int shake(struct guest *g, const char *path)
{
	char request[2 * KIB];
	int status;

	guest_write(g, request, guest_handshake(request, sizeof(request), path));
	rig_settle(g->rig);
	status = guest_status(g);
	if (status == 101)
		guest_drop(g);
	return status;
}

static bool connections_probe(struct rig *r, int delta)
{
	int status = 101;

	for (int i = 2; i < 5 + delta; i++) /* two are there already */
		status = shake(guest_accept(r, 0), "/");
	CHECK(status == 101 || status == 503);
	return status == 503;
}

static bool per_ip_probe(struct rig *r, int delta)
{
	struct sock_peer peer = {.port = 1};
	int status = 101;

	peer.ip[15] = 9;
	for (int i = 0; i < 3 + delta; i++, peer.port++)
		status = shake(guest_accept_from(r, 0, &peer), "/");
	CHECK(status == 101 || status == 429);
	return status == 429;
}

static bool channels_probe(struct rig *r, int delta)
{
	int status = 101;

	for (int i = 1; i < 4 + delta; i++) { /* one is there already */
		char path[16];

		snprintf(path, sizeof(path), "/%d", i);
		status = shake(guest_accept(r, 0), path);
	}
	CHECK(status == 101 || status == 503);
	return status == 503;
}

static bool channel_name_probe(struct rig *r, int delta)
{
	char path[300] = "/";
	int status;

	memset(path + 1, 'n', (size_t)(MSG_CHANNEL_MAX + delta));
	status = shake(guest_accept(r, 0), path);
	CHECK(status == 101 || status == 404);
	return status == 404;
}

TEST(limit_of_connections)
{
	check_limit(&(struct limit){BASE "max_connections = 5\n", connections_probe,
				    COUNTER_OF(refused_max_connections)});
	check_limit(&(struct limit){BASE "max_connections_per_ip = 3\n", per_ip_probe,
				    COUNTER_OF(refused_per_ip)});
}

TEST(limit_of_channels)
{
	check_limit(&(struct limit){BASE "max_channels = 4\n", channels_probe,
				    COUNTER_OF(refused_max_channels)});
	check_limit(&(struct limit){BASE, channel_name_probe, COUNTER_OF(refused_path)});
}

/* --------------------------------------------------------------- what is asked for */

/* Whether ERROR came, where otherwise ACKNOWLEDGE does. */
static bool was_refused(struct guest *g)
{
	const Websocket__WebSocketMessage *m = guest_next_msg(g);

	CHECK(m && m->control);
	CHECK(m->control->type == WEBSOCKET__CONTROL_TYPE__ERROR ||
	      m->control->type == WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	return m->control->type == WEBSOCKET__CONTROL_TYPE__ERROR;
}

static bool subscribe_probe(struct rig *r, int delta)
{
	struct guest *g = guest_open(r, 0, "/");
	bool refused = false;

	for (int i = 1; i < 4 + delta; i++) { /* the path channel is one */
		char name[16];

		snprintf(name, sizeof(name), "%d", i);
		guest_subscribe(g, name);
		rig_settle(r);
		refused = was_refused(g);
	}
	return refused;
}

static bool session_probe(struct rig *r, int delta)
{
	struct guest *g = guest_open(r, 0, "/");
	char session[CONN_SESSION_MAX + 2] = "";
	struct msg_builder b;

	memset(session, 's', (size_t)(CONN_SESSION_MAX + delta));
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONNECT);
	msg_set_session_id(&b, session);
	guest_send_msg(g, &b);
	rig_settle(r);
	return was_refused(g);
}

TEST(limit_of_channels_of_one_client)
{
	check_limit(&(struct limit){BASE "max_channels_per_client = 4\n", subscribe_probe,
				    COUNTER_OF(message_errors)});
}

TEST(limit_of_a_session_id)
{
	check_limit(&(struct limit){BASE, session_probe, COUNTER_OF(message_errors)});
}

/* A channel of 3 and @delta tells its members of the last who came. */
TEST(limit_of_members_that_are_told)
{
	for (int delta = -1; delta <= 1; delta++) {
		struct rig *r = rig_new(1, "notice_limit = 3\n");
		struct guest *first = guest_open(r, 0, "/room");

		for (int i = 1; i < 2 + delta; i++)
			guest_open(r, 0, "/room");
		guest_drop(first);
		guest_open(r, 0, "/room");
		rig_settle(r);
		CHECK_EQ(guest_drop(first), delta <= 0);
		rig_free(r);
	}
}

/* Changes of keys between the bytes of a frame, which never ends: each costs like a frame. */
TEST(limits_count_records_without_data_as_frames)
{
	struct rig *r = rig_new(1, "max_incoming_frames_per_second = 100\n");
	struct guest *g = guest_open(r, 0, "/room");
	const uint8_t begun[] = {0x82, 0xfe, 1, 1, 1, 1};

	rig_pass(r, NS_PER_S);
	for (int second = 0; second < 3; second++) {
		for (int i = 0; i < 2; i++) {
			CHECK(!conn_is_paused(g->conn));
			g->barren = 55;
			guest_write(g, begun + 2 * second + i, 1);
			rig_turn(r); /* who was throttled before is not read as its event comes */
		}
		CHECK_EQ(g->conn->pauses, CONN_PAUSE_THROTTLED);
		CHECK_EQ(RIG_SUM(r, throttles), second + 1);
		rig_pass(r, NS_PER_S / 2);
		CHECK_EQ(g->conn->pauses, CONN_PAUSE_THROTTLED);
		rig_pass(r, NS_PER_S);
	}
	/* Also with nothing else. */
	g->barren = 101;
	conn_event(&g->conn->source, EPOLLIN);
	rig_turn(r);
	CHECK_EQ(g->conn->pauses, CONN_PAUSE_THROTTLED);
	rig_free(r);
}
