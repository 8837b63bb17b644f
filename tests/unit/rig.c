/* SPDX-License-Identifier: MIT */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "io/log.h"
#include "wire/upgrade.h"

static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";

static struct rig *the_rig; /* transports know their guest by number only */

/* -------------------------------------------------------------------- transport */

static struct guest *guest_of(const struct transport *t)
{
	return the_rig->guests[t->fd];
}

static ssize_t memory_recv(struct transport *t, void *p, size_t n)
{
	struct guest *g = guest_of(t);

	if (g->error)
		return g->error;
	n = MIN(n, g->in.len - g->in_at);
	if (n == 0)
		return g->has_ended ? 0 : -EAGAIN;
	memcpy(p, g->in.data + g->in_at, n);
	g->in_at += n;
	if (g->in_at == g->in.len) {
		buf_clear(&g->in);
		g->in_at = 0;
	}
	return (ssize_t)n;
}

static unsigned memory_take_barren(struct transport *t)
{
	struct guest *g = guest_of(t);
	unsigned n = g->barren;

	g->barren = 0;
	return n;
}

static ssize_t memory_send(struct transport *t, const struct iovec *iov, int count)
{
	struct guest *g = guest_of(t);
	size_t sent = 0;

	CHECK(!g->is_shut && !g->is_closed);
	g->calls++;
	if (g->error)
		return g->error;
	for (int i = 0; i < count; i++) {
		size_t n = MIN(iov[i].iov_len, g->room);

		CHECK(iov[i].iov_len > 0);
		if (!g->is_mute)
			CHECK_EQ(buf_append(&g->out, iov[i].iov_base, n, BUF_NO_LIMIT), 0);
		if (g->room != ROOM_FOR_ALL)
			g->room -= n;
		sent += n;
		g->is_blocked |= n < iov[i].iov_len;
	}
	g->sent += sent;
	g->sends += sent > 0;
	return sent ? (ssize_t)sent : -EAGAIN;
}

static void memory_shutdown(struct transport *t)
{
	struct guest *g = guest_of(t);

	CHECK(!g->is_shut && !g->is_closed);
	g->is_shut = true;
}

static void memory_close(struct transport *t, bool reset)
{
	struct guest *g = guest_of(t);

	CHECK(!g->is_closed);
	g->is_closed = true;
	g->was_reset = reset;
	g->conn = NULL;
}

static const struct transport_ops memory_ops = {
	.recv = memory_recv,
	.take_barren = memory_take_barren,
	.send = memory_send,
	.shutdown = memory_shutdown,
	.close = memory_close,
};

/* -------------------------------------------------------------------------- rig */

struct config *rig_config(const char *lines)
{
	struct config_errors errors = {0};
	struct config *config = NULL;
	char text[4096];
	int n = snprintf(text, sizeof(text),
			 "host = 127.0.0.1\nport = 0\nmax_channels = 1000\n"
			 "max_connections = 4000\nwelcome =\n%s",
			 lines);

	CHECK(n < (int)sizeof(text));
	if (config_parse_text("test", text, (size_t)n, &config, &errors))
		fail_msg("%s", errors.n ? errors.line[0] : "no memory");
	return config;
}

struct policy *rig_policy(const char *lines)
{
	struct config *config = rig_config(lines);
	struct policy *policy = NULL;
	char why[POLICY_WHY_MAX];
	const char *blame;

	if (policy_new(config, NULL, NULL, &policy, &blame, why))
		fail_msg("%s", why);
	config_unref(config);
	return policy;
}

/* Workers whose channels keep what they keep in the rig's file. */
static void make_pool(struct rig *r, unsigned workers)
{
	const struct worker_inherited inherited = {.history_fd = r->history_fd};
	const char *blame;

	CHECK_EQ(worker_pool_new(r->policy, workers, &inherited, &r->main, &r->pool, &blame), 0);
	r->n = workers;
	for (unsigned i = 0; i < workers; i++)
		r->w[i] = r->pool->workers[i];
}

struct rig *rig_new(unsigned workers, const char *config)
{
	static const struct reactor_ops no_ops;
	struct rig *r = calloc(1, sizeof(*r));
	CHECK(r != NULL);
	the_rig = r;
	atomic_store(&log_level, LOG_ERR);
	r->now_ns = RIG_START_NS;
	clock_set_for_test(r->now_ns);
	r->policy = rig_policy(config);
	r->config = r->policy->config;
	arena_init(&r->arena, 65536, 64 << 20);
	CHECK_EQ(reactor_init(&r->main, &no_ops), 0);
	r->history_fd = memfd_create("history", MFD_CLOEXEC);
	CHECK(r->history_fd >= 0);
	make_pool(r, workers);
	worker_pool_serve(r->pool);
	rig_turn(r);
	return r;
}

/* As it is now: what becomes of the process that has it comes behind that. */
int rig_copy_history(const struct rig *r)
{
	static uint8_t bytes[1 << 16];
	int from = r->history_fd, to = memfd_create("history", MFD_CLOEXEC);
	off_t end = lseek(from, 0, SEEK_END), at = 0;

	CHECK(to >= 0 && ftruncate(to, end) == 0);
	while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
		off_t hole = lseek(from, at, SEEK_HOLE);

		for (; at < hole; at += (off_t)sizeof(bytes)) {
			size_t n = MIN((size_t)(hole - at), sizeof(bytes));

			CHECK_EQ(pread(from, bytes, n, at), n);
			CHECK_EQ(pwrite(to, bytes, n, at), n);
		}
		at = hole;
		/* Pages that were taken and not written to are holes here, too. */
		CHECK_EQ(fallocate(to, 0, 0, (hole | 0xffff) + 1), 0);
	}
	return to;
}

/* ---------------------------------------------------------------------- handing over */

static int writer_grow(struct record_writer *w, size_t need)
{
	size_t cap = MAX(need, 2 * w->cap);
	uint8_t *data = realloc(w->data, cap);

	if (!data)
		return -ENOMEM;
	w->data = data;
	w->cap = cap;
	return 0;
}

struct record_writer rig_writer(void)
{
	return (struct record_writer){.grow = writer_grow};
}

static uint64_t guest_cookie(void *ctx, const struct conn *c)
{
	(void)ctx;
	return (uint64_t)c->transport.fd + 1;
}

static bool guest_claim(void *ctx, uint64_t cookie, struct transport *ret)
{
	struct rig *r = ctx;

	if (cookie == 0 || cookie > r->n_guests || !r->guests[cookie - 1]->is_left)
		return false;
	r->guests[cookie - 1]->is_left = false;
	*ret = (struct transport){.ops = &memory_ops, .fd = (int)cookie - 1};
	return true;
}

static int guest_attach(void *ctx, struct worker *w, struct conn *c)
{
	struct rig *r = ctx;

	r->guests[c->transport.fd]->conn = c;
	r->guests[c->transport.fd]->worker = w;
	return 0;
}

static const struct handover_ops guest_handover = {
	.cookie = guest_cookie,
	.claim = guest_claim,
	.attach = guest_attach,
};

struct record_writer rig_save(struct rig *r)
{
	struct record_writer out = rig_writer();
	struct handover_report report = {.frozen_ns = r->now_ns};

	worker_pool_freeze(r->pool);
	CHECK_EQ(handover_save(r->pool, &guest_handover, r, &out, &report), 0);
	return out;
}

static int nothing_flush(struct transport *t)
{
	(void)t;
	return 0;
}

static ssize_t nothing_send(struct transport *t, const struct iovec *iov, int count)
{
	(void)t;
	(void)iov;
	(void)count;
	return -EAGAIN;
}

static void nothing_shutdown(struct transport *t)
{
	(void)t;
}

static void nothing_close(struct transport *t, bool reset)
{
	(void)t;
	(void)reset;
}

/* Of connections that live on somewhere else. */
static const struct transport_ops nothing_ops = {
	.flush = nothing_flush,
	.send = nothing_send,
	.shutdown = nothing_shutdown,
	.close = nothing_close,
};

/* The process ends, its clients don't notice. */
static void end_pool(struct rig *r)
{
	int history_fd = rig_copy_history(r);

	for (unsigned i = 0; i < r->n; i++) {
		LIST_FOREACH (node, &r->w[i]->hub.env.all) {
			struct conn *c = CONTAINER_OF(node, struct conn, node);

			r->guests[c->transport.fd]->is_left = true;
			r->guests[c->transport.fd]->conn = NULL;
			c->transport.ops = &nothing_ops;
		}
	}
	r->pool->shared.transfers.spool = NULL;
	for (unsigned i = 0; i < r->n; i++) {
		LIST_FOREACH_SAFE (node, next, &r->w[i]->hub.env.all)
			conn_abort(CONTAINER_OF(node, struct conn, node));
		rig_turn_one(r, i);
	}
	worker_pool_free(r->pool);
	close(r->history_fd);
	r->history_fd = history_fd;
}

static void begin_pool(struct rig *r, unsigned workers, const char *config)
{
	if (config) {
		policy_unref(r->policy);
		r->policy = rig_policy(config);
		r->config = r->policy->config;
	}
	make_pool(r, workers);
	r->pool->shared.transfers.spool = r->spool;
}

static int restore(struct rig *r, unsigned workers, const char *config,
		   const struct record_writer *records, struct handover_report *ret)
{
	int error;

	end_pool(r);
	begin_pool(r, workers, config);
	error = handover_restore(r->pool, &guest_handover, r, records->data, records->len, ret);
	worker_pool_serve(r->pool);
	return error;
}

/* Who wasn't taken over is gone; of the others epoll reports what they are ready for. */
static void go_on(struct rig *r)
{
	for (unsigned i = 0; i < r->n_guests; i++) {
		struct guest *g = r->guests[i];

		g->is_closed |= g->is_left;
		g->is_left = false;
		if (g->conn)
			conn_event(&g->conn->source,
				   (g->room ? EPOLLOUT : 0u) |
					   (g->in.len > g->in_at || g->has_ended ? EPOLLIN : 0u) |
					   (g->has_ended ? EPOLLRDHUP : 0u));
	}
}

int rig_restore(struct rig *r, unsigned workers, const char *config,
		const struct record_writer *records, struct handover_report *ret)
{
	int result = restore(r, workers, config, records, ret);

	go_on(r);
	return result;
}

void rig_hand_over(struct rig *r, unsigned workers, const char *config)
{
	struct record_writer records = rig_save(r);
	struct handover_report report;
	uint64_t open = RIG_SUM(r, connections_active);

	CHECK_EQ(restore(r, workers, config, &records, &report), 0);
	CHECK_EQ(report.failed, 0);
	CHECK_EQ(RIG_SUM(r, connections_active), open);
	free(records.data);
	go_on(r);
	rig_check(r);
}

static void guest_free(struct guest *g)
{
	buf_fini(&g->in);
	buf_fini(&g->out);
	buf_fini(&g->payload);
	ws_decoder_free(g->decoder);
	free(g);
}

static void check_empty(struct worker *w)
{
	struct hub *h = &w->hub;

	ring_check(&h->inbox);
	slab_check(&w->conns);
	CHECK_EQ(h->env.n_all, 0);
	CHECK(list_is_empty(&h->env.all) && list_is_empty(&h->env.unsent));
	CHECK(list_is_empty(&h->env.partial_inputs) && list_is_empty(&h->env.stalled));
	CHECK_EQ(h->env.reassembly_bytes, 0);
	CHECK_EQ(slab_in_use(&w->conns), 0);
	CHECK(h->by_name.n == 0 && h->memberships.n == 0);
	table_check(&h->by_name);
	table_check(&h->memberships);
	CHECK(h->outbox.set == 0 && h->notices.pending.n == 0 && h->notices.groups.n == 0);
}

void rig_free(struct rig *r)
{
	for (unsigned i = 0; i < r->n_guests; i++)
		if (r->guests[i]->conn)
			conn_abort(r->guests[i]->conn);
	rig_settle(r);
	rig_check(r);
	for (unsigned i = 0; i < r->n; i++)
		check_empty(r->w[i]);
	CHECK_EQ(RIG_SUM(r, connections_active), 0);
	CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
	CHECK_EQ(admission_total(&r->pool->shared.admission), 0);
	CHECK_EQ(r->pool->shared.directory.count, 0);
	CHECK_EQ(r->pool->shared.frame_bytes, 0);
	for (unsigned i = 0; i < r->n_guests; i++)
		guest_free(r->guests[i]);
	worker_pool_free(r->pool);
	close(r->history_fd);
	reactor_fini(&r->main);
	policy_unref(r->policy);
	arena_fini(&r->arena);
	clock_set_for_test(0);
	atomic_store(&log_level, LOG_INFO);
	free(r);
}

void rig_turn_one(struct rig *r, unsigned worker)
{
	CHECK_EQ(worker_turn(r->w[worker], 0), 0);
}

void rig_turn(struct rig *r)
{
	for (unsigned i = 0; i < r->n; i++)
		rig_turn_one(r, i);
}

static bool has_work(struct rig *r)
{
	for (unsigned i = 0; i < r->n; i++)
		if (hub_has_work(&r->w[i]->hub) || atomic_load(&r->w[i]->inbox.head) ||
		    conn_env_is_paused(&r->w[i]->hub.env, CONN_PAUSE_CONGESTED))
			return true;
	return false;
}

static void turn_until_idle(struct rig *r)
{
	unsigned turns = 0;

	do {
		rig_turn(r);
		CHECK(++turns < 100000);
	} while (has_work(r));
}

void rig_settle(struct rig *r)
{
	turn_until_idle(r);
	if (getenv("WB_HANDOVER") && r->n_guests < 200) {
		rig_hand_over(r, r->n, NULL);
		turn_until_idle(r);
	}
}

void rig_pass(struct rig *r, uint64_t ns)
{
	r->now_ns += ns;
	clock_set_for_test(r->now_ns);
	/* They slept: in their last turn no time has passed. */
	for (unsigned i = 0; i < r->n; i++)
		r->w[i]->reactor.now_ns = r->now_ns;
	rig_turn(r);
}

void rig_stand_still(struct rig *r, uint64_t ns)
{
	r->now_ns += ns;
	clock_set_for_test(r->now_ns);
}

void rig_pass_in_steps(struct rig *r, uint64_t ns, uint64_t step)
{
	for (; ns > step; ns -= step)
		rig_pass(r, step);
	rig_pass(r, ns);
}

void rig_check(struct rig *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		struct hub *h = &r->w[i]->hub;

		HUB_FOREACH_CHANNEL (ch, h)
			channel_check(ch);
		CHECK_EQ(list_check(&h->env.all), h->env.n_all);
		table_check(&h->notices.pending);
		table_check(&h->notices.groups);
		CHECK_EQ(list_check(&h->notices.turns), h->notices.groups.n);
	}
}

struct channel *rig_channel(struct rig *r, unsigned worker, const char *name)
{
	HUB_FOREACH_CHANNEL (ch, &r->w[worker]->hub)
		if (strcmp(ch->entry->name, name) == 0)
			return ch;
	return NULL;
}

uint64_t rig_sum(const struct rig *r, size_t offset)
{
	const struct metrics *shards[DIRECTORY_MAX_WORKERS];

	for (unsigned i = 0; i < r->n; i++)
		shards[i] = &r->w[i]->metrics;
	return metrics_sum_at(shards, r->n, offset);
}

struct rig_task {
	struct worker_task task;
	bool is_done;
};

static void task_done(struct worker_task *t)
{
	CONTAINER_OF(t, struct rig_task, task)->is_done = true;
}

bool rig_run(struct rig *r, unsigned worker, worker_task_fn *fn)
{
	static struct rig_task tasks[16]; /* one that is kept is answered later */
	static unsigned n;
	struct rig_task *t = &tasks[n++ % ARRAY_LEN(tasks)];

	*t = (struct rig_task){.task = {.run = fn, .done = task_done}};
	worker_post(r->w[worker], &t->task);
	rig_turn_one(r, worker);
	worker_pool_run_done(r->pool);
	return t->is_done;
}

/* ----------------------------------------------------------------------- guests */

struct guest *guest_accept_from(struct rig *r, unsigned worker, const struct sock_peer *peer)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct transport t = {.ops = &memory_ops, .fd = (int)r->n_guests};

	CHECK(g && r->n_guests < RIG_MAX_GUESTS);
	g->rig = r;
	g->worker = r->w[worker];
	g->index = r->n_guests;
	g->room = ROOM_FOR_ALL;
	g->conn = worker_accept_conn(g->worker, &t, peer);
	if (!g->conn) {
		free(g);
		return NULL;
	}
	r->guests[r->n_guests++] = g;
	return g;
}

struct guest *guest_accept(struct rig *r, unsigned worker)
{
	const struct sock_peer peer = {
		.ip = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1},
		.port = (uint16_t)(40000 + r->n_guests),
	};

	return guest_accept_from(r, worker, &peer);
}

size_t guest_handshake(char *out, size_t cap, const char *path)
{
	size_t n = upgrade_format_request(out, cap, "localhost", path, key, NULL);

	CHECK(n > 0);
	return n;
}

size_t guest_handshake_offering(char *out, size_t cap, const char *path, const char *offer)
{
	char extra[512];
	size_t n;

	CHECK(snprintf(extra, sizeof(extra), "Sec-WebSocket-Extensions: %s\r\n", offer) <
	      (int)sizeof(extra));
	n = upgrade_format_request(out, cap, "localhost", path, key, extra);
	CHECK(n > 0);
	return n;
}

static struct guest *open_with(struct guest *g, const char *request, size_t n)
{
	CHECK(g != NULL);
	guest_write(g, request, n);
	rig_settle(g->rig);
	CHECK_EQ(guest_status(g), 101);
	guest_drop(g);
	g->sends = g->calls = 0;
	return g;
}

struct guest *guest_open(struct rig *r, unsigned worker, const char *path)
{
	char request[1024];
	size_t n = guest_handshake(request, sizeof(request), path);

	return open_with(guest_accept(r, worker), request, n);
}

struct guest *guest_open_offering(struct rig *r, unsigned worker, const char *path,
				  const char *offer)
{
	struct guest *g = guest_accept(r, worker);
	char request[1024];
	size_t n = guest_handshake_offering(request, sizeof(request), path, offer);

	g->may_deflate = true;
	return open_with(g, request, n);
}

/* An edge begins a turn, whose first client this is: its handshake is read at once, too. */
static void guest_edge(struct guest *g, uint32_t events)
{
	struct conn *c = g->conn;

	conn_event(&c->source, events);
	if (!g->rig->has_lines && g->conn && c->state == CONN_HANDSHAKE &&
	    !list_is_empty(&c->read_node))
		conn_read(c);
}

void guest_write(struct guest *g, const void *p, size_t n)
{
	CHECK(!g->has_ended);
	CHECK_EQ(buf_append(&g->in, p, n, BUF_NO_LIMIT), 0);
	if (g->conn)
		guest_edge(g, EPOLLIN);
}

void guest_encode(struct buf *out, bool fin, uint8_t opcode, const void *p, size_t n)
{
	static const uint8_t mask[4] = {0x1f, 0x80, 0xa5, 0x03};
	size_t at = out->len, head;

	CHECK_EQ(buf_reserve(out, n + WS_MAX_HEAD, BUF_NO_LIMIT), 0);
	head = ws_encode_head(out->data + at, fin, opcode & GUEST_RSV1 ? WS_RSV1 : 0, opcode & 0x0f,
			      n, mask);
	if (n)
		memcpy(out->data + at + head, p, n);
	ws_mask(out->data + at + head, n, mask, 0);
	out->len += head + n;
}

void guest_send(struct guest *g, bool fin, uint8_t opcode, const void *p, size_t n)
{
	guest_encode(&g->in, fin, opcode, p, n);
	if (g->conn)
		guest_edge(g, EPOLLIN);
}

void guest_send_msg(struct guest *g, const struct msg_builder *b)
{
	size_t n = msg_size(b);
	uint8_t *p = malloc(n);

	CHECK(p != NULL);
	CHECK_EQ(msg_pack(b, p), n);
	guest_send(g, true, WS_BINARY, p, n);
	free(p);
}

void guest_chat(struct guest *g, const char *content, const char *channel)
{
	struct msg_builder b;

	msg_init_chat(&b, "", "somebody", content, 1);
	if (channel)
		msg_set_channel(&b, channel);
	guest_send_msg(g, &b);
}

static void guest_control(struct guest *g, Websocket__ControlType type, const char *channel)
{
	char *name = (char *)(uintptr_t)channel;
	struct msg_builder b;

	msg_init_control(&b, type);
	msg_set_channels(&b, &name, 1);
	guest_send_msg(g, &b);
}

void guest_subscribe(struct guest *g, const char *channel)
{
	guest_control(g, WEBSOCKET__CONTROL_TYPE__SUBSCRIBE, channel);
}

void guest_unsubscribe(struct guest *g, const char *channel)
{
	guest_control(g, WEBSOCKET__CONTROL_TYPE__UNSUBSCRIBE, channel);
}

void guest_end(struct guest *g)
{
	g->has_ended = true;
	if (g->conn)
		guest_edge(g, EPOLLIN | EPOLLRDHUP);
}

void guest_set_room(struct guest *g, size_t room)
{
	g->room = room;
	if (!g->is_blocked || room == 0)
		return;
	g->is_blocked = false;
	if (g->conn)
		guest_edge(g, EPOLLOUT);
}

/* ------------------------------------------------------------------ what came */

static void guest_took(struct guest *g, size_t n)
{
	g->out_at += n;
	if (g->out_at < g->out.len)
		return;
	buf_clear(&g->out);
	g->out_at = 0;
}

/* The answer to a handshake that offered an extension, which wsbind's own client never does. */
static int status_and_extension(struct guest *g, const char *p, size_t n)
{
	struct http_response answer;
	struct http_list pos = {0};
	struct http_text value = {"", 0};
	size_t head;

	if (http_parse_response(p, n, HTTP_MAX_HEAD, &answer, &head) != 0)
		return 0;
	(void)http_list_next(&answer.headers, "Sec-WebSocket-Extensions", &pos, &value);
	CHECK(snprintf(g->extension, sizeof(g->extension), "%.*s", (int)value.n, value.p) <
	      (int)sizeof(g->extension));
	guest_took(g, answer.status == 101 ? head : n);
	return answer.status;
}

int guest_status(struct guest *g)
{
	size_t n = g->out.len - g->out_at, head = 0;
	const char *p;
	int status = 0, r;

	if (n == 0)
		return 0;
	p = (const char *)g->out.data + g->out_at;
	if (g->may_deflate)
		return status_and_extension(g, p, n);
	r = upgrade_check_response(p, n, key, &head, &status);
	if (r == HTTP_MORE)
		return 0;
	CHECK(r == 0 || r == UPGRADE_E_REFUSED);
	guest_took(g, r ? n : head);
	return status;
}

/* Adds the next whole frame's payload to what is there. */
static bool take_frame(struct guest *g, struct guest_frame *ret)
{
	struct ws_piece w;
	uint16_t code;
	size_t used;

	if (!g->decoder)
		g->decoder = ws_decoder_new(WS_CLIENT, g->may_deflate ? WS_RSV1 : 0);
	CHECK(g->decoder != NULL);
	while (g->out_at < g->out.len) {
		enum ws_result r = ws_decoder_feed(g->decoder, g->out.data + g->out_at,
						   g->out.len - g->out_at, &used, &w, &code);

		CHECK(r != WS_BROKEN);
		if (r == WS_PIECE)
			CHECK_EQ(buf_append(&g->payload, w.data, w.len, BUF_NO_LIMIT), 0);
		guest_took(g, used);
		if (r != WS_PIECE || !w.ends)
			continue;
		*ret = (struct guest_frame){w.opcode, w.fin, w.rsv & WS_RSV1, g->payload.data,
					    g->payload.len};
		return true;
	}
	return false;
}

bool guest_next_frame(struct guest *g, struct guest_frame *ret)
{
	if (!g->decoder || ws_decoder_is_idle(g->decoder))
		buf_clear(&g->payload);
	return take_frame(g, ret);
}

bool guest_next_message(struct guest *g, struct guest_frame *ret)
{
	uint8_t opcode = 0;
	bool rsv1 = false;

	buf_clear(&g->payload);
	for (;;) {
		size_t before = g->payload.len;

		if (!take_frame(g, ret)) {
			CHECK(opcode == 0 && g->payload.len == 0); /* tests look at whole ones */
			return false;
		}
		if (ret->opcode >= WS_CLOSE) {
			g->payload.len = before;
			continue;
		}
		CHECK_EQ(ret->opcode == WS_CONTINUATION, opcode != 0);
		rsv1 |= ret->rsv1;
		opcode = opcode ? opcode : ret->opcode;
		ret->opcode = opcode;
		ret->rsv1 = rsv1;
		if (ret->fin)
			return true;
	}
}

const Websocket__WebSocketMessage *guest_next_msg(struct guest *g)
{
	Websocket__WebSocketMessage *m = NULL;
	struct guest_frame f;

	if (!guest_next_message(g, &f))
		return NULL;
	CHECK_EQ(f.opcode, WS_BINARY);
	arena_reset(&g->rig->arena);
	CHECK_EQ(msg_decode(&g->rig->arena, f.p, f.n, &m), MSG_OK);
	return m;
}

size_t guest_drop(struct guest *g)
{
	struct guest_frame f;
	size_t n = 0;

	while (guest_next_frame(g, &f))
		n += f.opcode < WS_CLOSE && f.fin;
	return n;
}

unsigned guest_close_code(struct guest *g)
{
	struct guest_frame f;
	unsigned code = 0;

	while (guest_next_frame(g, &f)) {
		CHECK(code == 0); /* nothing follows a Close */
		if (f.opcode == WS_CLOSE)
			code = f.n >= 2 ? (unsigned)(f.p[0] << 8 | f.p[1]) : WS_CODE_NO_STATUS;
	}
	return code;
}

void guest_send_numbers(struct guest *g, unsigned from, unsigned to)
{
	char text[16];

	for (; from < to; from++) {
		snprintf(text, sizeof(text), "%u", from);
		guest_chat(g, text, NULL);
	}
}

void guest_expect_numbers(struct guest *g, unsigned from, unsigned to)
{
	for (; from < to; from++) {
		const Websocket__WebSocketMessage *m = guest_next_msg(g);

		CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE);
		CHECK_EQ(strtoul(m->chat->content, NULL, 10), from);
	}
}
