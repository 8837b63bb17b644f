/* SPDX-License-Identifier: MIT */
/*
 * Writes records-0.1.0.bin. It speaks of wsbind as it was at 0.1.0, is built there, and is no
 * part of the build here: make-records-0.1.0.sh.
 */
#include "core-fixture.h"

#include <stdio.h>
#include <unistd.h>

#include "core/conn_private.h"
#include "core/transfer.h"
#include "records-0.1.0.h"

/* Serials are set at once: transfers are found by them. */
static struct guest *named(struct guest *g)
{
	g->conn->serial = saved_serial(g->index);
	return g;
}

static struct guest *accept_one(struct rig *r)
{
	return named(guest_accept(r, r->n_guests % r->n));
}

static struct guest *open_one(struct rig *r, const char *path)
{
	return named(guest_open(r, r->n_guests % r->n, path));
}

static void hold_channel(struct rig *r, const char *name, uint64_t seq)
{
	struct directory_entry *e;

	CHECK_EQ(directory_restore(&r->pool->shared.directory, name, strlen(name), seq, &e), 0);
}

static void write_handshakes(struct rig *r)
{
	guest_write(accept_one(r), "GET /half HTTP/1.1\r\nHos", 23);
	accept_one(r)->conn->refuse_status = 429;
	accept_one(r)->conn->refuse_status = 503;
	accept_one(r)->conn->awaits_proxy = true;
	accept_one(r)->conn->awaits_tls = true;
	accept_one(r)->conn->is_too_many = true;
	rig_turn(r);
}

static void write_flags(struct rig *r)
{
	struct conn *c;

	open_one(r, "/echo");
	open_one(r, "/" SAVED_ROOM)->conn->is_deaf = true;
	c = open_one(r, "/" SAVED_ROOM)->conn;
	c->is_throttled = true;
	CHECK_EQ(buf_append(&conn_input_of(c)->parked, "xx\x81\x80key!", 8, BUF_NO_LIMIT), 0);
	c->input->parked_at = 2;
	open_one(r, "/" SAVED_ROOM)->conn->has_hup = true;
	open_one(r, "/" SAVED_ROOM)->conn->peer.is_unix = true;
	open_one(r, "/" SAVED_ROOM)->conn->caps = MSG_CAP_ACK;
	open_one(r, "/" SAVED_ROOM)->conn->caps = MSG_CAP_GZIP;
	open_one(r, "/" SAVED_ROOM)->conn->caps = MSG_CAP_ZSTD;
	open_one(r, "/" SAVED_ROOM)->conn->caps = MSG_CAP_LZ4;
	open_one(r, "/" SAVED_ROOM)->conn->window = DEFLATE_512;
	open_one(r, "/" SAVED_ROOM)->conn->window = DEFLATE_4K;
	open_one(r, "/" SAVED_ROOM)->conn->window = DEFLATE_32K;
}

/* Bytes of one unmasked frame. */
static size_t lay_out(uint8_t *out, const char *payload)
{
	size_t head = ws_encode_head(out, true, 0, WS_BINARY, strlen(payload), NULL);

	memcpy(out + head, payload, strlen(payload));
	return head + strlen(payload);
}

static struct frame *new_frame(struct rig *r, const char *payload)
{
	struct frame *f =
		frame_new(WS_BINARY, strlen(payload), 1 << 20, &r->pool->shared.frame_bytes);

	CHECK(f != NULL);
	frame_write(f, 0, payload, strlen(payload));
	return f;
}

static void write_transit(struct rig *r)
{
	static const int form[] = {-1,
				   FRAME_PACKED,
				   FRAME_UNPACKED,
				   FRAME_DEFLATED + DEFLATE_512 - 1,
				   FRAME_DEFLATED + DEFLATE_4K - 1,
				   FRAME_DEFLATED + DEFLATE_32K - 1};

	for (unsigned i = 0; i < ARRAY_LEN(form); i++) {
		struct guest *g = open_one(r, "/" SAVED_ROOM);
		struct frame *f = new_frame(r, i ? "another encoding" : saved_transit[0]);
		const struct frame_bytes *b = &f->body;
		uint8_t bytes[64];
		size_t n = lay_out(bytes, saved_transit[i]);

		if (i > 0)
			b = frame_set_form(f, (size_t)form[i], bytes, n, n);
		CHECK(b && conn_transit(g->conn, f, b, 3));
		frame_unref(f);
	}
}

static void write_memberships(struct rig *r)
{
	const char *patterns[] = {"news/*", "room/**"};
	const struct grant like = {
		.user_id = "carol",
		.expires_s = 4102444800,
		.may_publish = false,
		.any_channel = true,
		.n_patterns = 2,
		.pattern = patterns,
	};
	struct guest *g;

	open_one(r, "/")->conn->grant = grant_restore(&like);
	g = open_one(r, "/" SAVED_ROOM);
	guest_unsubscribe(g, SAVED_ROOM);
	g = open_one(r, "/");
	guest_subscribe(g, SAVED_HALL);
	guest_subscribe(g, SAVED_ROOM);
	rig_settle(r);
	g->conn->home.last_own = 1 + SAVED_LOBBY_SEQ - 5;
	g->conn->members->last_own = 1 + SAVED_ROOM_SEQ - 6;
}

static void write_input(struct rig *r)
{
	struct buf bytes = {0};
	struct guest *g = open_one(r, "/echo");

	guest_send(g, false, WS_TEXT, "caf\xc3", 4);
	g = open_one(r, "/" SAVED_ROOM);
	guest_encode(&bytes, true, WS_BINARY, "0123456789", 10);
	guest_write(g, bytes.data, bytes.len - 5);
	g = open_one(r, "/" SAVED_ROOM);
	buf_clear(&bytes);
	guest_encode(&bytes, true, WS_PING, "0123456789", 10);
	guest_write(g, bytes.data, bytes.len - 3);
	g = named(guest_open_offering(r, r->n_guests % r->n, "/" SAVED_ROOM, "permessage-deflate"));
	buf_clear(&bytes);
	guest_encode(&bytes, true, WS_BINARY | GUEST_RSV1, "0123456789", 10);
	guest_write(g, bytes.data, bytes.len - 5);
	rig_settle(r);
}

/* So many bytes that one turn does not inflate them all. */
static void write_inflating(struct rig *r)
{
	static uint8_t zeros[8 << 20];
	struct guest *g =
		named(guest_open_offering(r, r->n_guests % r->n, "/echo", "permessage-deflate"));
	struct buf packed = {0};
	struct deflater d = {0};

	CHECK_EQ(deflater_run(&d, DEFLATE_32K, 9, zeros, sizeof(zeros), &packed), 0);
	guest_send(g, true, WS_BINARY | GUEST_RSV1, packed.data, packed.len);
	while (!g->conn->input || !g->conn->input->inflater)
		rig_turn_one(r, g->worker->hub.index);
}

static void write_output(struct rig *r)
{
	struct guest *g = open_one(r, "/" SAVED_ROOM);
	struct guest *closing = open_one(r, "/" SAVED_ROOM);
	struct guest *lingering = open_one(r, "/" SAVED_ROOM);

	guest_set_room(g, 0);
	guest_set_room(closing, 0);
	conn_send_control(g->conn, WS_PONG, "pong", 4);
	conn_send_copy(g->conn, WS_TEXT, "private", 7);
	conn_send_copy(g->conn, WS_BINARY, "joined", 6);
	conn_close(closing->conn, 4242, "said later");
	guest_send(lingering, true, WS_CLOSE, "\x03\xe8", 2);
	rig_settle(r);
	CHECK_EQ(lingering->conn->state, CONN_LINGERING);
	g->conn->out->head_sent = 1;
}

static void nothing_done(void *ctx, const struct spool_result *result)
{
	(void)ctx;
	(void)result;
}

static void nothing_room(void *ctx, unsigned worker)
{
	(void)ctx;
	(void)worker;
}

static void send_chunk(struct guest *g, uint32_t sequence, int compression, const char *data)
{
	Websocket__WebSocketMessage m;
	Websocket__BinaryData binary;

	websocket__web_socket_message__init(&m);
	websocket__binary_data__init(&binary);
	m.binary = &binary;
	m.request_id = (ProtobufCBinaryData){4, (uint8_t *)(uintptr_t) "ask!"};
	binary.sequence = sequence;
	binary.is_last = sequence > 0;
	binary.compression = (Websocket__CompressionType)compression;
	binary.data = (ProtobufCBinaryData){strlen(data), (uint8_t *)(uintptr_t)data};
	transfer_chunk(g->conn, &m);
}

static void keep(struct rig *r, const struct guest *g, bool is_broken)
{
	struct spool_kept k = {
		.owner = {g->worker->hub.index, g->conn->serial},
		.name = SAVED_FILE,
		.part = SAVED_PART,
		.bytes = strlen(SAVED_FILE_BYTES),
		.next_sequence = 3,
		.sequence = 2,
		.request_id = "ask!",
		.request_id_len = 4,
		.is_broken = is_broken,
	};

	transfer_keep(r->pool, &k);
}

static void write_transfers(struct rig *r)
{
	static const struct spool_ops ops = {.done = nothing_done, .room = nothing_room};
	static const char *const data[] = {"plain", "gzip", "zstd", "lz4"};
	char dir[] = "/tmp/wsbind-records-XXXXXX";
	struct spool *spool;
	struct guest *good, *broken;

	CHECK(mkdtemp(dir) != NULL);
	CHECK_EQ(spool_new(dir, false, &ops, NULL, &spool), 0);
	r->pool->shared.spool = spool;
	good = open_one(r, "/" SAVED_ROOM);
	broken = open_one(r, "/" SAVED_ROOM);
	send_chunk(good, 0, 0, SAVED_FILE_BYTES);
	send_chunk(broken, 0, 0, SAVED_FILE_BYTES);
	while (!spool_is_idle(spool))
		usleep(1000);
	spool_close(spool);
	for (int kind = 0; kind < (int)ARRAY_LEN(data); kind++)
		send_chunk(open_one(r, "/" SAVED_ROOM), (uint32_t)kind, kind, data[kind]);
	r->pool->shared.spool = NULL;
	spool_leave(spool, transfer_keep, r->pool);
	keep(r, good, false);
	keep(r, broken, true);
}

/* One who reads nothing, and so keeps all that is in the log; two read all of it. */
static void write_log(struct rig *r)
{
	struct guest *g = open_one(r, "/" SAVED_ROOM);
	struct hub *h = &g->worker->hub;
	struct channel *ch = rig_channel(r, g->worker->hub.index, SAVED_ROOM);

	for (unsigned i = 0; i < r->n_guests; i++)
		if (i != SAVED_UNIX && i != SAVED_HUP)
			guest_set_room(r->guests[i], 0);
	for (unsigned i = 0; i < SAVED_N_LOG; i++) {
		struct frame *f = new_frame(r, saved_log[i].payload);

		f->flags = saved_log[i].flags;
		f->packed_with = saved_log[i].packed_with;
		hub_publish(h, ch->entry, f, NULL);
	}
	rig_settle(r);
}

/* One message no worker has any more; who sent the others, and when, is set here. */
static void bend_log(struct rig *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		struct channel *ch = rig_channel(r, i, SAVED_ROOM);

		for (unsigned k = 0; k < SAVED_N_LOG; k++) {
			struct frame **f = &ch->slots[(SAVED_ROOM_SEQ + k) & ch->mask].frame;

			(*f)->sender = saved_sender(k);
			(*f)->received_ns = saved_received_ns(k);
			if (k == SAVED_HOLE)
				*f = NULL;
		}
	}
}

static void set_plain(struct rig *r)
{
	for (unsigned i = 0; i < r->n_guests; i++) {
		struct conn *c = r->guests[i]->conn;

		CHECK(c != NULL);
		c->connected_ms = saved_connected_ms(i);
		c->last_sign_ns = saved_last_sign_ns(i);
		c->ping_ns = saved_ping_ns(i);
		c->over_ns = saved_over_ns(i);
		c->timer.deadline_ns = saved_deadline_ns(i);
		c->window_ms = saved_rate_second_ms(i);
		c->window_frames = saved_rate_frames(i);
		c->close_code = saved_close_code(i);
		for (unsigned k = 0; k < sizeof(c->id); k++)
			c->id[k] = saved_id_byte(i, k);
		free(c->session_id);
		CHECK(asprintf(&c->session_id, "session %u", i) > 0);
	}
	r->guests[SAVED_THROTTLED]->conn->is_throttled = true;
	r->w[0]->next_serial = SAVED_NEXT_SERIAL - 1;
	r->w[1]->next_serial = SAVED_NEXT_SERIAL;
}

/* Every counter of its own value, so that none can be taken for another. */
static void set_counters(struct metrics *m, uint64_t from)
{
	uint64_t n = from;

#define COUNTER(field, name, labels, help) atomic_store(&m->field, n++);
#define WORKER_COUNTER(field, name, labels, help) atomic_store(&m->field, n++);
#define WORKER_SECONDS(field, name, labels, help) atomic_store(&m->field, n++);
#define HISTOGRAM(field, name, labels, help)                    \
	for (size_t i = 0; i < ARRAY_LEN(m->field.bucket); i++) \
		atomic_store(&m->field.bucket[i], n++);         \
	atomic_store(&m->field.sum_ns, n++);
#include "model/metrics_table.h"
}

TEST(write_records)
{
	struct rig *r = rig_new(2, SAVED_CONFIG);
	struct state_writer out;
	FILE *f = fopen(getenv("WSBIND_RECORDS"), "wb");

	CHECK(f != NULL);
	hold_channel(r, SAVED_ROOM, SAVED_ROOM_SEQ);
	hold_channel(r, SAVED_HALL, SAVED_HALL_SEQ);
	hold_channel(r, "", SAVED_LOBBY_SEQ);
	write_handshakes(r);
	write_flags(r);
	write_transit(r);
	write_memberships(r);
	write_input(r);
	write_output(r);
	write_transfers(r);
	write_log(r);
	write_inflating(r);
	bend_log(r);
	CHECK_EQ(r->n_guests, SAVED_N_CLIENTS);
	set_plain(r);
	set_counters(&r->w[0]->metrics, 1000);
	set_counters(&r->w[1]->metrics, 3000);
	r->now_ns = SAVED_FROZEN_NS;
	out = rig_save(r);
	CHECK_EQ(fwrite(out.data, 1, out.len, f), out.len);
	CHECK_EQ(fclose(f), 0);
	_exit(0); /* what was bent has no end that could be checked */
}
