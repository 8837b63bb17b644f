/* SPDX-License-Identifier: MIT */
/*
 * One or two workers and up to eight clients at a time, all in memory, driven by a
 * script. Input: a byte of which configuration (bits 0 to 2) and how many workers (bit
 * 7), then steps: a byte whose low half says what happens and whose high half to whom
 * or where, and what that takes. Every byte means something, so every input is a script.
 *
 * After each step the invariants of channels and lists must hold. In the end, what each
 * client was sent must be a proper stream: whole frames, proper messages, nothing behind
 * Close, no message twice or back to its sender, deflated only for the window that was
 * negotiated, and one order of a channel's messages
 * for all; and everything must be gone, to the last byte of the account of frames.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <zlib.h>

#include "base/text.h"
#include "rig.h"
#include "worker/protocol.h"

#define SLOTS 8
#define MAX_GUESTS 24
#define MAX_STEPS 500
#define MAX_CHATS 64
#define MAX_CUTS 64              /* pieces of one write; the rest comes at once */
#define MAX_WRITTEN (512 * 1024) /* by all clients of a script */
#define AUTHOR "f0c4aa9c-the-fuzzer"
#define ECHO_PATH 5 /* in paths[] */

static const char common[] = "ping_interval = 1\npong_timeout = 500ms\nheartbeat_timeout = 4\n"
			     "message_timeout = 3\nhandshake_timeout = 2\necho_path = /echo\n"
			     "shutdown_timeout = 2\nworker_threads = 1\n";

static const char *const configs[8] = {
	"",
	"max_frame_size = 1K\nmax_message_size = 8K\nmax_send_buffer = 4K\n"
	"message_queue_size = 8\nslow_consumer = skip\nslow_consumer_grace = 0\n",
	"max_frame_size = 4K\nmax_message_size = 4K\nmax_send_buffer = 4K\n"
	"message_queue_size = 3\nslow_consumer_grace = 200ms\n",
	"max_incoming_frames_per_second = 5\ntext_messages = relay\nnotice_limit = 2\n",
	"max_incoming_frames_per_second = 3\nrate_limit_action = close\ntext_messages = reject\n"
	"notice_limit = 0\n",
	"max_channels = 3\nmax_channels_per_client = 2\nmax_connections = 3\n",
	"compression_threshold = 0\nmax_connections_per_ip = 4\nlog_memory = 1M\n"
	"welcome = Hi {user}, {id}\n",
	"enable_compression = no\nreassembly_memory = 1M\nmax_send_buffer = 8K\n"
	"message_queue_size = 20\nslow_consumer = skip\nwelcome = Hi\n",
};

/* Where clients come in; the names of the same channels. */
static const char *const paths[SLOTS] = {"/",       "/a",    "/b", "/room?x=1",
					 "/%C3%BC", "/echo", "/c", "/%zz"};
/* What clients offer, and the window that the server may then use. */
static const struct {
	const char *extension;
	int bits;
} offers[] = {{NULL, 0},
	      {"permessage-deflate; client_max_window_bits", 15},
	      {"permessage-deflate; server_max_window_bits=14", 12},
	      {"x-other, permessage-deflate; server_max_window_bits=9", 9}};

static const char *const channels[SLOTS] = {"", "a", "b", "room", "\xc3\xbc", "echo", "c", NULL};

struct chat {
	const struct guest *sender;
	unsigned channel;
};

/* What a script keeps beside the rig. */
struct play {
	struct fuzz_input in;
	struct rig *rig;
	struct guest *slot[SLOTS];
	uint8_t cut[SLOTS]; /* bytes that a write comes in; 0: all at once */
	uint8_t path[MAX_GUESTS];
	uint8_t offer[MAX_GUESTS]; /* index of offers[] */
	bool is_plain[MAX_GUESTS]; /* began with a handshake of ours */
	struct chat chats[MAX_CHATS];
	uint16_t place[MAX_GUESTS][MAX_CHATS]; /* of what it received; 0: it didn't */
	unsigned n_chats;
	size_t written;
	struct zip zip;
	struct worker_task stopping[2], leaving[2];
	unsigned n_quiet; /* answered */
	bool is_stopping, is_leaving, has_flooded;
};

static struct play *the_play; /* tasks know nobody */

__attribute__((constructor)) static void abort_on_failure(void)
{
	setenv("CMOCKA_TEST_ABORT", "1", 1);
}

/* ---------------------------------------------------------------- what clients do */

/* The guest that a step is about, if it can still write. */
static struct guest *writer(struct play *pl, unsigned slot)
{
	struct guest *g = pl->slot[slot];

	return g && g->conn && !g->has_ended && pl->written < MAX_WRITTEN ? g : NULL;
}

static void write_bytes(struct play *pl, unsigned slot, const void *p, size_t n)
{
	struct guest *g = writer(pl, slot);
	size_t cut = pl->cut[slot] ? pl->cut[slot] : n, at = 0;

	if (!g)
		return;
	pl->written += n;
	for (unsigned i = 0; at < n && g->conn; i++) {
		size_t piece = i < MAX_CUTS ? MIN(cut, n - at) : n - at;

		guest_write(g, (const char *)p + at, piece);
		at += piece;
		if (at < n)
			rig_turn_one(pl->rig, g->worker->hub.index);
	}
}

static void write_frame(struct play *pl, unsigned slot, uint8_t first, const void *p, size_t n)
{
	struct buf b = {0};

	guest_encode(&b, first >> 7, first & 15, p, n);
	b.data[0] |= first & 0x70;
	write_bytes(pl, slot, b.data, b.len);
	buf_fini(&b);
}

/* @cut_at: 0, or where it is cut into two frames. */
static void write_msg(struct play *pl, unsigned slot, const struct msg_builder *m, size_t cut_at)
{
	size_t n = msg_size(m);
	uint8_t *p = malloc(n);

	CHECK(p != NULL);
	msg_pack(m, p);
	if (cut_at > 0 && cut_at < n) {
		write_frame(pl, slot, WS_BINARY, p, cut_at);
		write_frame(pl, slot, 0x80 | WS_CONTINUATION, p + cut_at, n - cut_at);
	} else {
		write_frame(pl, slot, 0x80 | WS_BINARY, p, n);
	}
	free(p);
}

static void step_accept(struct play *pl, unsigned slot)
{
	struct guest *g = pl->slot[slot];

	if ((g && g->conn) || pl->rig->n_guests == MAX_GUESTS || pl->is_stopping)
		return;
	pl->slot[slot] = guest_accept(pl->rig, slot % pl->rig->n);
	pl->cut[slot] = 0;
}

static void step_handshake(struct play *pl, unsigned slot)
{
	uint8_t what = fuzz_byte(&pl->in);
	unsigned path = what % SLOTS, offer = what / SLOTS % ARRAY_LEN(offers);
	struct guest *g;
	char request[1024];
	size_t n;

	step_accept(pl, slot);
	g = writer(pl, slot);
	if (!g)
		return;
	if (g->in.len == 0 && !pl->is_plain[g->index] && g->conn->state == CONN_HANDSHAKE &&
	    !g->conn->input) {
		pl->is_plain[g->index] = true;
		pl->path[g->index] = (uint8_t)path;
		pl->offer[g->index] = (uint8_t)offer;
		g->may_deflate = offer > 0;
	}
	n = offers[offer].extension ? guest_handshake_offering(request, sizeof(request),
							       paths[path], offers[offer].extension)
				    : guest_handshake(request, sizeof(request), paths[path]);
	write_bytes(pl, slot, request, n);
}

static void step_raw(struct play *pl, unsigned slot)
{
	const uint8_t *p;
	size_t n = fuzz_take(&pl->in, fuzz_byte(&pl->in), &p);

	write_bytes(pl, slot, p, n);
}

/* With RSV1 and RSV2, which nobody could mean, the payload is deflated and goes with RSV1. */
static void write_payload(struct play *pl, unsigned slot, uint8_t first, const uint8_t *p, size_t n)
{
	struct deflater d = {0};
	struct buf packed = {0};

	if ((first & 0x60) == 0x60 && deflater_run(&d, DEFLATE_32K, 1, p, n, &packed) == 0)
		write_frame(pl, slot, first & ~0x20, packed.data, packed.len);
	else
		write_frame(pl, slot, first, p, n);
	deflater_fini(&d);
	buf_fini(&packed);
}

/* The first byte of a frame, and a payload from the script or a long one. */
static void step_frame(struct play *pl, unsigned slot)
{
	uint8_t first = fuzz_byte(&pl->in), size = fuzz_byte(&pl->in), *filled;
	const uint8_t *p;
	size_t n;

	if (size < 200) {
		n = fuzz_take(&pl->in, size, &p);
		write_payload(pl, slot, first, p, n);
		return;
	}
	n = (size_t)(size - 199) * 512;
	filled = malloc(n);
	CHECK(filled != NULL);
	memset(filled, size, n);
	write_payload(pl, slot, first, filled, n);
	free(filled);
}

static void step_chat(struct play *pl, unsigned slot)
{
	uint8_t what = fuzz_byte(&pl->in);
	unsigned channel = what % SLOTS;
	struct guest *g = writer(pl, slot);
	char content[64 * 32 + 1];
	struct msg_builder m;

	if (!g || pl->n_chats == MAX_CHATS)
		return;
	memset(content, '.', (size_t)(what >> 3) * 64);
	content[(size_t)(what >> 3) * 64] = '\0';
	msg_init_chat(&m, "", AUTHOR, content, pl->n_chats);
	if (channels[channel])
		msg_set_channel(&m, channels[channel]);
	else
		channel = pl->path[g->index];
	pl->chats[pl->n_chats++] = (struct chat){g, channel};
	write_msg(pl, slot, &m, 0);
}

static void step_membership(struct play *pl, unsigned slot, Websocket__ControlType type)
{
	unsigned first = fuzz_byte(&pl->in);
	struct msg_builder m;
	char *names[2];
	size_t n = 0;

	for (unsigned i = 0; i < 2; i++)
		if (channels[(first >> (3 * i)) % SLOTS])
			names[n++] = (char *)(uintptr_t)channels[(first >> (3 * i)) % SLOTS];
	msg_init_control(&m, type);
	msg_set_channels(&m, names, first >> 6 ? n : MIN(n, (size_t)1));
	write_msg(pl, slot, &m, 0);
}

/* CONNECT: what the client can read, and its own session id. */
static void step_hello(struct play *pl, unsigned slot)
{
	uint8_t what = fuzz_byte(&pl->in);
	struct msg_builder m;

	msg_init_control(&m, WEBSOCKET__CONTROL_TYPE__CONNECT);
	msg_set_capabilities(&m, what & 15);
	if (what & 16)
		msg_set_session_id(&m, what & 32 ? "x" : "one that is somewhat longer than that");
	write_msg(pl, slot, &m, 0);
}

/* A chunk of data: packed or not, whole or in two frames, right or damaged. */
static void step_data(struct play *pl, unsigned slot)
{
	uint8_t what = fuzz_byte(&pl->in), size = fuzz_byte(&pl->in);
	Websocket__CompressionType kind = what & 3;
	size_t n = (size_t)size * (what & 4 ? 256 : 8);
	uint8_t *data = malloc(n + 1);
	struct buf packed = {0};
	struct msg_builder m;

	CHECK(data != NULL);
	for (size_t i = 0; i < n; i++)
		data[i] = (uint8_t)(i / 7);
	CHECK_EQ(zip_pack_kind(&pl->zip, (enum zip_kind)kind, 1, data, n, &packed), 0);
	if (what & 8 && packed.len)
		packed.data[packed.len / 2] ^= 1;
	msg_init_binary(&m, packed.data, packed.len, what >> 6, what & 16, kind);
	write_msg(pl, slot, &m, what & 32 ? 1 + packed.len / 2 : 0);
	buf_fini(&packed);
	free(data);
}

static void step_room(struct play *pl, unsigned slot)
{
	uint8_t room = fuzz_byte(&pl->in);

	if (pl->slot[slot])
		guest_set_room(pl->slot[slot], room == 255 ? ROOM_FOR_ALL : (size_t)room * 8);
}

static void step_end(struct play *pl, unsigned slot)
{
	if (pl->slot[slot] && !pl->slot[slot]->has_ended)
		guest_end(pl->slot[slot]);
}

static void step_error(struct play *pl, unsigned slot)
{
	static const int errors[] = {-ECONNRESET, -EPIPE, -ETIMEDOUT, -ECONNRESET};
	struct guest *g = pl->slot[slot];
	uint8_t what = fuzz_byte(&pl->in);

	if (!g)
		return;
	g->error = errors[what % ARRAY_LEN(errors)];
	if (what & 4 && g->conn)
		conn_event(&g->conn->source, EPOLLIN | EPOLLERR | EPOLLHUP);
}

/* ---------------------------------------------------------- what the server does */

static void step_turn(struct play *pl, unsigned which)
{
	if (which == 0)
		rig_turn(pl->rig);
	else if (which == 1)
		rig_settle(pl->rig);
	else
		rig_turn_one(pl->rig, which % pl->rig->n);
}

static void step_time(struct play *pl)
{
	static const uint64_t units[] = {NS_PER_MS, 50 * NS_PER_MS, 300 * NS_PER_MS, NS_PER_S};
	uint8_t what = fuzz_byte(&pl->in);

	rig_pass_in_steps(pl->rig, (1 + (what & 15)) * units[what >> 4 & 3], NS_PER_S / 2);
}

static uint8_t publish_what;

static void run_publish(struct worker *w, struct worker_task *t)
{
	static uint8_t text[9000];
	const char *name = channels[publish_what % (SLOTS - 1)];
	size_t n = (size_t)(publish_what >> 3) * 256;

	memset(text, 'p', sizeof(text));
	(void)protocol_publish(&w->hub, name, true, text, n);
	worker_task_answer(w, t);
}

static void step_publish(struct play *pl, unsigned worker)
{
	publish_what = fuzz_byte(&pl->in);
	CHECK(rig_run(pl->rig, worker % pl->rig->n, run_publish));
}

/* Publishes until the ring into the other worker is full, which takes its turn later. */
static void run_flood(struct worker *w, struct worker_task *t)
{
	const char *name = channels[publish_what % (SLOTS - 1)];

	for (unsigned i = 0; i <= HUB_INBOX_SLOTS; i++)
		if (protocol_publish(&w->hub, name, true, (const uint8_t *)"f", 1).status != 200)
			break;
	worker_task_answer(w, t);
}

/* Once in a script: it takes its time. */
static void step_flood(struct play *pl, unsigned worker)
{
	if (!pl->has_flooded)
		CHECK(rig_run(pl->rig, worker % pl->rig->n, run_flood));
	pl->has_flooded = true;
}

static void is_quiet(struct worker_task *t)
{
	(void)t;
	the_play->n_quiet++;
}

static void has_left(struct worker_task *t)
{
	(void)t;
}

/* First all stop reading, then all say goodbye; as main does it. */
static void step_stop(struct play *pl)
{
	struct rig *r = pl->rig;

	worker_pool_run_done(r->pool);
	for (unsigned i = 0; i < r->n; i++) {
		if (!pl->is_stopping) {
			pl->stopping[i] = (struct worker_task){.run = worker_task_stop_reading,
							       .done = is_quiet};
			worker_post(r->w[i], &pl->stopping[i]);
		} else if (!pl->is_leaving && pl->n_quiet == r->n) {
			pl->leaving[i] = (struct worker_task){.run = worker_task_say_goodbye,
							      .done = has_left};
			worker_post(r->w[i], &pl->leaving[i]);
		}
	}
	pl->is_leaving = pl->is_stopping && pl->n_quiet == r->n;
	pl->is_stopping = true;
}

/* Every second time with less memory than a file may say, or no script would come near it. */
static struct policy *make_policy(unsigned which)
{
	struct policy *policy;
	char lines[2048];

	snprintf(lines, sizeof(lines), "%s%s", common, configs[which % ARRAY_LEN(configs)]);
	policy = rig_policy(lines);
	if (which / ARRAY_LEN(configs) % 2) {
		policy->config->log_memory = 24 * 1024;
		policy->config->reassembly_memory = 8 * 1024;
	}
	return policy;
}

/* Another process goes on; not before nothing waits for room in a ring. */
static void step_hand_over(struct play *pl, unsigned workers)
{
	bool can = !pl->is_stopping;

	for (unsigned i = 0; i < pl->rig->n; i++)
		can &= !conn_env_is_paused(&pl->rig->w[i]->hub.env, CONN_PAUSE_CONGESTED);
	if (can)
		rig_hand_over(pl->rig, workers, NULL);
}

/* A reload, a flood, a hand-over, or the stop. */
static void step_order(struct play *pl, unsigned which)
{
	uint8_t what = fuzz_byte(&pl->in);
	struct policy *policy;

	if (what >= 250) {
		step_stop(pl);
		return;
	}
	if (what >= 216 && what < 240) {
		step_hand_over(pl, 1 + what % 2);
		return;
	}
	if (what >= 240) {
		publish_what = what - 240;
		step_flood(pl, which);
		return;
	}
	policy = make_policy(what);
	CHECK_EQ(config_keep_running(policy->config, pl->rig->config), 0);
	for (unsigned i = 0; i < pl->rig->n; i++)
		if (which % 2 == 0 || i == which / 2 % pl->rig->n)
			worker_configure(pl->rig->w[i], policy_ref(policy));
	policy_unref(policy);
}

static void step(struct play *pl)
{
	uint8_t what = fuzz_byte(&pl->in);
	unsigned slot = what >> 4 & 7;

	switch (what & 15) {
	case 0:
		step_accept(pl, slot);
		break;
	case 1:
		step_handshake(pl, slot);
		break;
	case 2:
		step_raw(pl, slot);
		break;
	case 3:
		step_frame(pl, slot);
		break;
	case 4:
		step_chat(pl, slot);
		break;
	case 5:
		step_membership(pl, slot, WEBSOCKET__CONTROL_TYPE__SUBSCRIBE);
		break;
	case 6:
		step_membership(pl, slot, WEBSOCKET__CONTROL_TYPE__UNSUBSCRIBE);
		break;
	case 7:
		step_room(pl, slot);
		break;
	case 8:
		step_time(pl);
		break;
	case 9:
		step_turn(pl, slot);
		break;
	case 10:
		step_end(pl, slot);
		break;
	case 11:
		step_error(pl, slot);
		break;
	case 12:
		step_publish(pl, slot);
		break;
	case 13:
		pl->cut[slot] = fuzz_byte(&pl->in);
		break;
	case 14:
		if (what >> 7)
			step_hello(pl, slot);
		else
			step_data(pl, slot);
		break;
	default:
		step_order(pl, slot);
		break;
	}
	rig_check(pl->rig);
}

/* -------------------------------------------------------------- what clients got */

/* Each message of ours once at most, and never to whom it is from. */
static void note_chat(struct play *pl, const struct guest *g, const Websocket__ChatMessage *c,
		      unsigned *places)
{
	uint64_t id = (uint64_t)c->timestamp;

	if (strcmp(c->user_id, AUTHOR) != 0 || id >= pl->n_chats)
		return;
	CHECK(pl->chats[id].sender != g);
	CHECK_EQ(pl->place[g->index][id], 0);
	pl->place[g->index][id] = (uint16_t)++ * places;
}

static void look_at_message(struct play *pl, const struct guest *g, uint8_t opcode,
			    const struct buf *b, unsigned *places)
{
	Websocket__WebSocketMessage *m = NULL;

	if (opcode == WS_TEXT)
		CHECK(utf8_valid(b->data, b->len));
	if (opcode == WS_TEXT || pl->path[g->index] == ECHO_PATH)
		return;
	arena_reset(&pl->rig->arena);
	CHECK_EQ(msg_decode(&pl->rig->arena, b->data, b->len, &m), MSG_OK);
	if (m->payload_case == WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CHAT)
		note_chat(pl, g, m->chat, places);
}

static void look_at_control(const struct guest_frame *f)
{
	const char *reason;
	uint16_t code;
	size_t n;

	CHECK(f->fin && f->n <= WS_MAX_CONTROL);
	if (f->opcode == WS_CLOSE)
		CHECK_EQ(ws_parse_close(f->p, f->n, &code, &reason, &n), WS_CLOSE_OK);
}

/* What a deflated message stands for, read by zlib with just the window that was agreed to. */
static void inflate_message(const struct play *pl, const struct guest *g, struct buf *b)
{
	struct buf out = {0};
	z_stream zs = {0};

	fuzz_append(b, "\x00\x00\xff\xff", 4);
	CHECK_EQ(inflateInit2(&zs, -offers[pl->offer[g->index]].bits), Z_OK);
	CHECK_EQ(buf_reserve(&out, MAX_WRITTEN, BUF_NO_LIMIT), 0);
	zs.next_in = b->data;
	zs.avail_in = (uInt)b->len;
	zs.next_out = out.data;
	zs.avail_out = (uInt)out.cap;
	CHECK_EQ(inflate(&zs, Z_SYNC_FLUSH), Z_OK);
	CHECK_EQ(zs.avail_in, 0);
	out.len = zs.total_out;
	inflateEnd(&zs);
	buf_fini(b);
	*b = out;
}

/* All that one client was sent; the end of it may be missing. */
static void look_at(struct play *pl, struct guest *g)
{
	struct buf message = {0};
	struct guest_frame f;
	unsigned places = 0;
	bool is_over = false, is_deflated = false;
	uint8_t inside = 0;

	if (!pl->is_plain[g->index] || guest_status(g) != 101)
		return;
	while (guest_next_frame(g, &f)) {
		CHECK(!is_over);
		is_over = f.opcode == WS_CLOSE;
		if (f.opcode >= WS_CLOSE) {
			look_at_control(&f);
			continue;
		}
		CHECK_EQ(f.opcode == WS_CONTINUATION, inside != 0);
		is_deflated = inside ? is_deflated : f.rsv1;
		inside = inside ? inside : f.opcode;
		fuzz_append(&message, f.p, f.n);
		if (!f.fin)
			continue;
		if (is_deflated)
			inflate_message(pl, g, &message);
		look_at_message(pl, g, inside, &message, &places);
		buf_clear(&message);
		inside = 0;
	}
	buf_fini(&message);
}

static bool are_in_order(const uint16_t *a, const uint16_t *b, unsigned i, unsigned k)
{
	if (!a[i] || !a[k] || !b[i] || !b[k])
		return true;
	return (a[i] < a[k]) == (b[i] < b[k]);
}

/* Two clients that got the same two messages of a channel got them in one order. */
static void look_at_order(const struct play *pl, const uint16_t *a, const uint16_t *b)
{
	for (unsigned i = 0; i < pl->n_chats; i++)
		for (unsigned k = i + 1; k < pl->n_chats; k++)
			if (pl->chats[i].channel == pl->chats[k].channel)
				CHECK(are_in_order(a, b, i, k));
}

static void look_at_all(struct play *pl)
{
	unsigned n = pl->rig->n_guests;

	for (unsigned i = 0; i < n; i++)
		look_at(pl, pl->rig->guests[i]);
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = i + 1; k < n; k++)
			look_at_order(pl, pl->place[i], pl->place[k]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct play pl = {.in = {data, size}};
	uint8_t what = fuzz_byte(&pl.in);
	char lines[2048];

	the_play = &pl;
	snprintf(lines, sizeof(lines), "%s%s", common, configs[what % ARRAY_LEN(configs)]);
	pl.rig = rig_new(what >> 7 ? 2 : 1, lines);
	for (unsigned i = 0; i < MAX_STEPS && pl.in.n > 0; i++)
		step(&pl);
	look_at_all(&pl);
	worker_pool_run_done(pl.rig->pool);
	zip_fini(&pl.zip);
	rig_free(pl.rig);
	return 0;
}
