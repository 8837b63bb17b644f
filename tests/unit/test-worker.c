/* SPDX-License-Identifier: MIT */
/* A worker without its thread: who may come in, reload, stop; and the list of its clients. */
#include "rig.h"

#include <errno.h>
#include <stdio.h>

#include "base/text.h"
#include "io/sock.h"
#include "worker/client_list.h"

#define STEP (50 * NS_PER_MS)

static struct sock_peer address(uint8_t last, uint16_t port)
{
	return (struct sock_peer){.ip = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = last},
				  .port = port};
}

static int shake_hands(struct guest *g)
{
	char request[256];

	guest_write(g, request, guest_handshake(request, sizeof(request), "/"));
	rig_settle(g->rig);
	return guest_status(g);
}

/* The sets of workers are 64 bits wide; what the key allows is a text. */
TEST(worker_threads_are_as_many_as_there_may_be_workers)
{
	const struct config_key *key = config_key_find("worker_threads", strlen("worker_threads"));

	CHECK(key != NULL);
	CHECK_EQ(strtoul(key->max, NULL, 10), DIRECTORY_MAX_WORKERS);
	CHECK_EQ(SPOOL_MAX_WORKERS, DIRECTORY_MAX_WORKERS);
}

TEST(worker_refuses_past_max_connections)
{
	struct rig *r = rig_new(2, "max_connections = 3\n");
	struct guest *g[5];

	for (unsigned i = 0; i < 5; i++) {
		g[i] = guest_accept(r, i % 2);
		CHECK_EQ(shake_hands(g[i]), i < 3 ? 101 : 503);
	}
	CHECK_EQ(RIG_SUM(r, refused_max_connections), 2);
	CHECK_EQ(RIG_SUM(r, connections_active), 3);
	guest_end(g[0]); /* the refused ones are still there, and in nobody's way */
	rig_turn(r);
	CHECK_EQ(shake_hands(guest_accept(r, 0)), 101);
	CHECK_EQ(shake_hands(guest_accept(r, 0)), 503);
	rig_free(r);
}

TEST(worker_drops_what_waits_to_be_refused_past_a_bound)
{
	struct rig *r = rig_new(1, "max_connections = 1\n");
	unsigned taken = 0;

	while (taken < 2000 && guest_accept(r, 0))
		taken++;
	CHECK_EQ(admission_total(&r->pool->shared.admission), 1);
	CHECK_EQ(taken, 1 + ADMISSION_REFUSED_MAX);
	CHECK_EQ(RIG_SUM(r, refused_max_connections), 1);
	rig_free(r);
}

TEST(worker_refuses_past_max_connections_per_ip)
{
	struct rig *r = rig_new(2, "max_connections_per_ip = 2\n");
	struct sock_peer one = address(1, 1000), two = address(2, 1000);
	struct sock_peer local = {.is_unix = true};
	struct guest *g = guest_accept_from(r, 0, &one);

	CHECK_EQ(shake_hands(g), 101);
	one.port++;
	CHECK_EQ(shake_hands(guest_accept_from(r, 1, &one)), 101);
	one.port++;
	CHECK_EQ(shake_hands(guest_accept_from(r, 0, &one)), 429);
	CHECK_EQ(RIG_SUM(r, refused_per_ip), 1);
	CHECK_EQ(shake_hands(guest_accept_from(r, 0, &two)), 101);
	for (int i = 0; i < 5; i++) /* a unix socket has no address to count */
		CHECK_EQ(shake_hands(guest_accept_from(r, 0, &local)), 101);
	guest_end(g);
	rig_turn(r);
	CHECK_EQ(shake_hands(guest_accept_from(r, 1, &one)), 101);
	rig_free(r);
}

/* A refusal is for those that would be let in: what is no handshake is told so. */
TEST(worker_refusal_comes_after_the_requests_own_faults)
{
	struct rig *r = rig_new(1, "max_connections = 1\n");
	struct guest *g;

	guest_open(r, 0, "/");
	g = guest_accept(r, 0);
	guest_write(g, "POST / HTTP/1.1\r\nHost: h\r\n\r\n", 28);
	rig_settle(r);
	CHECK_EQ(guest_status(g), 405);
	rig_free(r);
}

/* --------------------------------------------------------------------- listening */

TEST(worker_pool_names_the_key_that_is_to_blame)
{
	static const struct reactor_ops no_ops;
	struct policy *policy = rig_policy("");
	struct config *config = policy->config;
	struct reactor loop = {0};
	struct worker_pool *p = NULL, *q = NULL;
	const char *key = NULL;
	struct worker_socket given = {-1, LISTENER_ACTIVATED};
	const struct worker_inherited inherited = {&given, 1, -1};
	char *host;

	CHECK_EQ(reactor_init(&loop, &no_ops), 0);
	CHECK_EQ(worker_pool_new(policy, 2, NULL, &loop, &p, &key), 0);
	CHECK(p->port > 0 && key == NULL);
	config->port = p->port;
	CHECK_EQ(worker_pool_new(policy, 1, NULL, &loop, &q, &key), -EADDRINUSE);
	CHECK_STR(key, "port");
	host = config->host;
	config->host = (char *)(uintptr_t) "192.0.2.1";
	CHECK_EQ(worker_pool_new(policy, 1, NULL, &loop, &q, &key), -EADDRNOTAVAIL);
	CHECK_STR(key, "host");
	config->host = host;
	p = worker_pool_free(p);
	CHECK(p == NULL && worker_pool_free(NULL) == NULL);
	/* One socket that was handed over is shared by all workers. */
	CHECK_EQ(sock_listen("127.0.0.1", 0, 8, true, &given.fd), 0);
	CHECK_EQ(worker_pool_new(policy, 3, &inherited, &loop, &p, &key), 0);
	worker_pool_drain(p, &given, 1);
	CHECK_EQ(given.fd, -1);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(p->workers[i]->n_listeners, 1);
	CHECK(p->port > 0);
	worker_pool_free(p);
	reactor_fini(&loop);
	policy_unref(policy);
}

/* Who waits at a listener that goes is let in, with a serial that nobody had before. */
TEST(worker_pool_drains_listeners_that_are_not_used)
{
	static const struct reactor_ops no_ops;
	struct policy *policy = rig_policy("host = 127.0.0.2\n");
	struct worker_socket given = {-1, LISTENER_PLAIN};
	const struct worker_inherited inherited = {&given, 1, -1};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct reactor loop = {0};
	struct worker_pool *p = NULL;
	const char *key = NULL;
	struct conn *c;
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_EQ(reactor_init(&loop, &no_ops), 0);
	CHECK_EQ(sock_listen("127.0.0.1", 0, 8, true, &given.fd), 0);
	to.sin_port = htons(sock_port(given.fd));
	CHECK_EQ(connect(client, (struct sockaddr *)&to, sizeof(to)), 0);
	CHECK_EQ(worker_pool_new(policy, 1, &inherited, &loop, &p, &key), 0);
	CHECK(given.fd >= 0);
	CHECK_EQ(p->workers[0]->hub.env.n_all, 0);
	p->workers[0]->next_serial = 1000; /* as the state of the process before says */
	worker_pool_drain(p, &given, 1);
	CHECK_EQ(given.fd, -1);
	CHECK_EQ(p->workers[0]->hub.env.n_all, 1);
	c = CONTAINER_OF(list_first(&p->workers[0]->hub.env.all), struct conn, node);
	CHECK(c->serial >= 1000);
	conn_abort(c);
	CHECK_EQ(worker_turn(p->workers[0], 0), 0);
	worker_pool_free(p);
	reactor_fini(&loop);
	policy_unref(policy);
	(void)close(client);
}

/* ------------------------------------------------------------------------ reload */

TEST(worker_reload_reaches_open_connections)
{
	struct rig *r = rig_new(2, "");
	struct guest *idle = guest_open(r, 0, "/"), *sender = guest_open(r, 1, "/");
	struct guest *handshake = guest_accept(r, 0);
	struct policy *policy = rig_policy("max_frame_size = 1K\nmax_message_size = 1K\n"
					   "heartbeat_timeout = 2\nping_interval = 1\n");
	uint8_t zeroes[2000] = {0};
	uint64_t start;

	for (unsigned i = 0; i < 2; i++)
		worker_configure(r->w[i], policy_ref(policy));
	policy_unref(policy);
	guest_send(sender, true, WS_BINARY, zeroes, 1025);
	start = r->now_ns;
	rig_settle(r);
	CHECK_EQ(guest_close_code(sender), 1009);
	while (idle->conn->state == CONN_OPEN && r->now_ns - start < 10 * NS_PER_S)
		rig_pass(r, STEP);
	CHECK(r->now_ns - start >= 2 * NS_PER_S && r->now_ns - start <= 3 * NS_PER_S);
	CHECK_EQ(RIG_SUM(r, pings_sent), 1);
	CHECK_EQ(shake_hands(handshake), 101);
	rig_free(r);
}

TEST(worker_reload_keeps_a_message_in_the_middle)
{
	struct rig *r = rig_new(1, "echo_path = /echo\n");
	struct guest *g = guest_open(r, 0, "/echo");
	struct guest_frame f;

	guest_send(g, false, WS_TEXT, "ab", 2);
	worker_configure(r->w[0], rig_policy("echo_path = /echo\nmax_frame_size = 1K\n"));
	rig_pass(r, STEP);
	guest_send(g, true, WS_CONTINUATION, "cd", 2);
	rig_settle(r);
	CHECK(guest_next_frame(g, &f));
	CHECK_MEM(f.p, "abcd", 4);
	rig_free(r);
}

/* -------------------------------------------------------------------------- stop */

TEST(worker_answers_a_ping_and_tasks_in_their_order)
{
	struct rig *r = rig_new(1, "");

	CHECK(rig_run(r, 0, worker_task_ping));
	CHECK(!worker_pool_has_done(r->pool));
	rig_free(r);
}

/* Nothing is read any more; answered once the outboxes are empty. */
TEST(worker_has_stopped_reading_once_its_posts_are_out)
{
	struct rig *r = rig_new(2, "max_incoming_frames_per_second = 0\nnotice_limit = 0\n");
	struct guest *sender = guest_open(r, 0, "/room"), *far = guest_open(r, 1, "/room");

	for (int i = 0; i <= HUB_INBOX_SLOTS; i++)
		guest_chat(sender, "", NULL);
	CHECK(!rig_run(r, 0, worker_task_stop_reading));
	guest_chat(sender, "not read", NULL);
	rig_turn_one(r, 0);
	CHECK(!worker_pool_has_done(r->pool));
	rig_turn_one(r, 1);
	rig_turn_one(r, 0);
	CHECK(worker_pool_has_done(r->pool));
	worker_pool_run_done(r->pool);
	CHECK_EQ(r->w[0]->phase, WORKER_NOT_READING);
	rig_settle(r);
	CHECK_EQ(guest_drop(far), HUB_INBOX_SLOTS + 1);
	rig_free(r);
}

TEST(worker_leaves_after_everything_was_sent)
{
	struct rig *r = rig_new(1, "notice_limit = 500\nshutdown_timeout = 10\n");
	struct guest *sender = guest_open(r, 0, "/"), *slow = guest_open(r, 0, "/");
	struct guest *early = guest_accept(r, 0);

	guest_drop(sender);
	guest_set_room(slow, 5);
	for (int i = 0; i < 10; i++)
		guest_chat(sender, "said before", NULL);
	CHECK(rig_run(r, 0, worker_task_stop_reading));
	CHECK(!rig_run(r, 0, worker_task_say_goodbye));
	rig_settle(r);
	CHECK(early->is_closed);
	CHECK_EQ(guest_drop(sender), 1); /* DISCONNECT, and no notices of the others' going */
	CHECK_EQ(RIG_SUM(r, closed_1012), 1);
	CHECK_EQ(slow->conn->state, CONN_OPEN);
	guest_set_room(slow, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK_EQ(guest_drop(slow), 11);
	CHECK_EQ(RIG_SUM(r, closed_1012), 2);
	for (unsigned i = 0; i < 2; i++) {
		guest_send(r->guests[i], true, WS_CLOSE, "\x03\xf4", 2);
		rig_settle(r);
		guest_end(r->guests[i]);
	}
	rig_turn(r);
	CHECK(worker_pool_has_done(r->pool));
	worker_pool_run_done(r->pool);
	CHECK_EQ(r->w[0]->hub.env.n_all, 0);
	rig_free(r);
}

/* Clients that neither read nor answer don't keep the daemon from ending. */
static void leave_within(const char *config, uint64_t timeout)
{
	struct rig *r = rig_new(1, config);
	struct guest *sender = guest_open(r, 0, "/"), *stuck = guest_open(r, 0, "/");
	uint64_t start = r->now_ns;

	guest_set_room(stuck, 0);
	guest_chat(sender, "never read", NULL);
	guest_chat(sender, "neither", NULL);
	rig_settle(r);
	CHECK(rig_run(r, 0, worker_task_stop_reading));
	CHECK(!rig_run(r, 0, worker_task_say_goodbye));
	while (!worker_pool_has_done(r->pool) && r->now_ns - start < 20 * NS_PER_S)
		rig_pass(r, STEP);
	CHECK(r->now_ns - start <= timeout);
	CHECK(stuck->is_closed && sender->is_closed);
	worker_pool_run_done(r->pool);
	rig_free(r);
}

TEST(worker_leaves_within_its_timeout)
{
	leave_within("shutdown_timeout = 10\n", 10 * NS_PER_S);
	leave_within("shutdown_timeout = 2\n", 2 * NS_PER_S);
	leave_within("shutdown_timeout = 1\n", NS_PER_S);
	leave_within("shutdown_timeout = 0\n", 2 * STEP);
}

/* ------------------------------------------------------------------------- clients */

TEST(client_list_has_pages_and_finds)
{
	struct rig *r = rig_new(1, "");
	struct guest *g[5];
	struct client_list l = {.limit = 100};
	uint8_t nobody[16] = {0};
	char id[37];

	for (int i = 0; i < 5; i++)
		g[i] = guest_open(r, 0, "/a\%22b");
	guest_accept(r, 0); /* no client yet */
	CHECK_EQ(client_list_count(&r->w[0]->hub), 5);
	for (int i = 0; i < 5; i++)
		CHECK(client_list_find(&r->w[0]->hub, g[i]->conn->id) == g[i]->conn);
	CHECK(client_list_find(&r->w[0]->hub, nobody) == NULL);
	CHECK_EQ(client_list_append(&r->w[0]->hub, &l), 0);
	CHECK_EQ(l.limit, 95);
	CHECK_EQ(l.listed, 5);
	uuid4_format(id, g[4]->conn->id);
	CHECK(strstr((char *)l.out.data, id) != NULL);
	CHECK(strstr((char *)l.out.data, "\"channels\":[\"a\\\"b\"]") != NULL);
	CHECK(strstr((char *)l.out.data, "\"user_id\":\"user-127.0.0.1:40000\"") != NULL);
	for (uint64_t skip = 0; skip < 7; skip++) {
		buf_clear(&l.out);
		l.offset = skip;
		l.limit = 2;
		CHECK_EQ(client_list_append(&r->w[0]->hub, &l), 0);
		CHECK_EQ(2 - l.limit, skip >= 5 ? 0 : MIN((uint64_t)2, 5 - skip));
		CHECK_EQ(l.offset, skip > 5 ? skip - 5 : 0);
	}
	conn_close(g[0]->conn, 1000, "");
	CHECK_EQ(client_list_count(&r->w[0]->hub), 4);
	buf_fini(&l.out);
	rig_free(r);
}

TEST(client_list_shows_those_that_are_asked_for)
{
	struct rig *r = rig_new(1, "");
	struct guest *g[4] = {guest_open(r, 0, "/a"), guest_open(r, 0, "/b"),
			      guest_open(r, 0, "/a"), guest_open(r, 0, "/")};
	struct hub *h = &r->w[0]->hub;
	struct client_list l = {.limit = 1, .channel = "a"}, user = {.limit = 9};
	char id[37], name[CONN_USER_MAX];

	CHECK_EQ(client_list_append(h, &l), 0);
	CHECK_EQ(l.listed, 1);
	CHECK_EQ(l.total, 2);
	uuid4_format(id, g[0]->conn->id);
	CHECK(strstr((char *)l.out.data, id) != NULL);
	buf_fini(&l.out);
	l = (struct client_list){.limit = 9, .channel = ""};
	CHECK_EQ(client_list_append(h, &l), 0);
	CHECK_EQ(l.total, 1);
	buf_fini(&l.out);
	l = (struct client_list){.limit = 9};
	CHECK_EQ(client_list_append(h, &l), 0);
	CHECK_EQ(l.total, 4);
	buf_fini(&l.out);
	user.user = conn_format_user(name, g[1]->conn);
	CHECK_EQ(client_list_append(h, &user), 0);
	CHECK(user.total >= 1 && user.listed == user.total);
	uuid4_format(id, g[1]->conn->id);
	CHECK(strstr((char *)user.out.data, id) != NULL);
	buf_fini(&user.out);
	user = (struct client_list){.limit = 9, .user = "nobody"};
	CHECK_EQ(client_list_append(h, &user), 0);
	CHECK_EQ(user.total, 0);
	rig_free(r);
}

/* What is long comes in pieces, between which clients may go, also the one that is next. */
TEST(client_list_comes_in_pieces)
{
	struct rig *r = rig_new(1, "max_connections = 1000\nnotice_limit = 0\n");
	struct client_list l = {.limit = 1000};
	struct hub *h = &r->w[0]->hub;
	struct guest *g[400];
	unsigned pieces = 1;
	uint64_t before;

	for (size_t i = 0; i < ARRAY_LEN(g); i++)
		g[i] = guest_open(r, 0, "/a");
	CHECK_EQ(client_list_append(h, &l), CLIENT_LIST_E_MORE);
	before = l.listed;
	CHECK(before > 0 && before < 100);
	conn_abort(g[before]->conn);
	conn_abort(g[before + 1]->conn);
	conn_abort(g[0]->conn);
	rig_turn(r);
	while (client_list_append(h, &l) == CLIENT_LIST_E_MORE)
		pieces++;
	CHECK(pieces > 3);
	CHECK_EQ(l.listed, 398);
	CHECK(list_is_empty(&h->env.walkers));
	buf_fini(&l.out);
	rig_free(r);
}
