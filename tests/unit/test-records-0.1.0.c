/* SPDX-License-Identifier: MIT */
/*
 * What wsbind 0.1.0 left to the next process, byte for byte: every later version restores it.
 * data/make-records-0.1.0.sh says where the bytes come from. A number that has changed its
 * meaning since (a state, a flag, a variant, the name of a counter) fails here.
 */
#include "rig.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "data/records-0.1.0.h"
#include "worker/transfer.h"

__asm__(".section .rodata\n"
	"records_start: .incbin \"tests/unit/data/records-0.1.0.bin\"\n"
	"records_end:\n"
	".previous\n");
extern const uint8_t records_start[], records_end[];

struct old_records {
	struct rig *rig;
	struct handover_report report;
	char dir[40];
};

static struct conn *conn_of(const struct old_records *o, enum saved_client who)
{
	struct conn *c = o->rig->guests[who]->conn;

	CHECK(c != NULL);
	return c;
}

static void ignore_result(void *ctx, const struct spool_result *result)
{
	(void)ctx;
	(void)result;
}

static void ignore_room(void *ctx, unsigned worker)
{
	(void)ctx;
	(void)worker;
}

/* As the next process finds it: the file is where it was, and the spool takes nothing new. */
static void make_spool(struct old_records *o)
{
	static const struct spool_ops ops = {.done = ignore_result, .room = ignore_room};
	int dir_fd, fd;

	snprintf(o->dir, sizeof(o->dir), "/tmp/wsbind-test-records-XXXXXX");
	CHECK(mkdtemp(o->dir) != NULL);
	dir_fd = open(o->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	fd = openat(dir_fd, SAVED_PART, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK_EQ(write(fd, SAVED_FILE_BYTES, strlen(SAVED_FILE_BYTES)), strlen(SAVED_FILE_BYTES));
	CHECK_EQ(close(fd) | close(dir_fd), 0);
	CHECK_EQ(spool_new(o->dir, true, &ops, NULL, &o->rig->spool), 0);
	spool_close(o->rig->spool);
}

static void restore_old(struct old_records *o)
{
	const struct record_writer records = {
		.data = (uint8_t *)(uintptr_t)records_start,
		.len = (size_t)(records_end - records_start),
	};

	o->rig = rig_new(1, SAVED_CONFIG);
	for (unsigned i = 0; i < SAVED_N_CLIENTS; i++)
		CHECK(guest_accept(o->rig, 0) != NULL);
	make_spool(o);
	CHECK_EQ(rig_restore(o->rig, 1, SAVED_CONFIG, &records, &o->report), 0);
}

static void forget_old(struct old_records *o)
{
	struct rig *r = o->rig;
	char path[200];

	r->pool->shared.transfers.spool = NULL;
	if (r->spool)
		r->spool = spool_free(r->spool);
	snprintf(path, sizeof(path), "%s/" SAVED_PART, o->dir);
	(void)unlink(path);
	CHECK_EQ(rmdir(o->dir), 0);
	rig_free(r);
}

static enum conn_state state_of(enum saved_client who)
{
	if (who <= SAVED_TOO_MANY)
		return CONN_HANDSHAKE;
	return who == SAVED_CLOSING     ? CONN_CLOSING
	       : who == SAVED_LINGERING ? CONN_LINGERING
					: CONN_OPEN;
}

/* ------------------------------------------------------------------------ connections */

TEST(records_of_0_1_0_say_how_many)
{
	struct old_records o;

	restore_old(&o);
	/* This configuration has no TLS: who waits for it cannot go on. */
	CHECK_EQ(o.report.failed, 1);
	CHECK(o.rig->guests[SAVED_AWAITS_TLS]->is_closed);
	CHECK_EQ(o.report.connections, SAVED_N_CLIENTS - 1);
	CHECK_EQ(o.report.channels, 3);
	CHECK_EQ(o.report.frames, SAVED_N_LOG - 1 + ARRAY_LEN(saved_transit));
	CHECK_EQ(o.report.frozen_ns, SAVED_FROZEN_NS);
	CHECK_STR(o.report.version, "0.1.0");
	CHECK_EQ(o.rig->w[0]->next_serial, SAVED_NEXT_SERIAL);
	CHECK_EQ(RIG_SUM(o.rig, connections_active), SAVED_N_CLIENTS - 8);
	forget_old(&o);
}

static void check_plain(const struct conn *c, unsigned i)
{
	char session[32];

	CHECK_EQ(c->serial, saved_serial(i));
	CHECK_EQ(c->connected_s, saved_connected_ms(i) / 1000);
	CHECK_EQ(c->last_sign_ns, saved_last_sign_ns(i));
	CHECK_EQ(c->ping_tick, conn_tick(saved_ping_ns(i)));
	CHECK_EQ(c->over_tick, conn_tick(saved_over_ns(i)));
	CHECK_EQ(c->rate_second_ms, saved_rate_second_ms(i));
	CHECK_EQ(c->rate_frames, saved_rate_frames(i));
	CHECK_EQ(c->close_code, saved_close_code(i));
	for (unsigned k = 0; k < sizeof(c->id); k++)
		CHECK_EQ(c->id[k], saved_id_byte(i, k));
	snprintf(session, sizeof(session), "session %u", i);
	CHECK_STR(conn_session_id(c), session);
	CHECK_EQ(c->peer.ip[12], i == SAVED_UNIX ? c->peer.ip[12] : 127);
	CHECK_EQ(c->peer.port, 40000 + i);
	CHECK_EQ(c->state, state_of(i));
	if (c->state != CONN_OPEN)
		CHECK_EQ(c->timer.deadline_ns, saved_deadline_ns(i));
}

/* Each flag of those who have it, and of nobody else. */
static void check_flags(const struct conn *c, unsigned i)
{
	CHECK_EQ(c->peer.is_unix, i == SAVED_UNIX);
	CHECK_EQ(c->is_echo, i == SAVED_ECHO || i == SAVED_HALF_TEXT || i == SAVED_INFLATING);
	CHECK_EQ(c->is_deaf, i == SAVED_DEAF || i == SAVED_LINGERING);
	CHECK_EQ(c->got_close, i == SAVED_LINGERING);
	CHECK_EQ(c->was_open, i > SAVED_TOO_MANY);
	CHECK_EQ(!!(c->pauses & CONN_PAUSE_THROTTLED), i == SAVED_THROTTLED);
	CHECK_EQ(c->awaits_proxy, i == SAVED_AWAITS_PROXY);
	CHECK_EQ(c->awaits_tls, false);
	CHECK_EQ(c->is_too_many, i == SAVED_TOO_MANY);
	CHECK_EQ(c->has_hup, i == SAVED_HUP);
	CHECK_EQ(conn_refusals[c->refusal].status, i == SAVED_REFUSED_429   ? 429
						   : i == SAVED_REFUSED_503 ? 503
									    : 0);
}

static void check_abilities(const struct conn *c, unsigned i)
{
	CHECK_EQ(c->caps, i == SAVED_CAPS_ACK    ? MSG_CAP_ACK
			  : i == SAVED_CAPS_GZIP ? MSG_CAP_GZIP
			  : i == SAVED_CAPS_ZSTD ? MSG_CAP_ZSTD
			  : i == SAVED_CAPS_LZ4  ? MSG_CAP_LZ4
						 : 0);
	CHECK_EQ(c->deflate_window,
		 i == SAVED_WINDOW_512  ? DEFLATE_512
		 : i == SAVED_WINDOW_4K ? DEFLATE_4K
		 : i == SAVED_WINDOW_32K || i == SAVED_HALF_DEFLATED || i == SAVED_INFLATING
			 ? DEFLATE_32K
			 : DEFLATE_NONE);
}

TEST(records_of_0_1_0_say_who_somebody_is)
{
	struct old_records o;
	struct conn *c;

	restore_old(&o);
	for (unsigned i = 0; i < SAVED_N_CLIENTS; i++) {
		if (i == SAVED_AWAITS_TLS)
			continue;
		c = conn_of(&o, i);
		check_plain(c, i);
		check_flags(c, i);
		check_abilities(c, i);
		CHECK_EQ(c->grant != NULL, i == SAVED_GRANTED);
	}
	c = conn_of(&o, SAVED_GRANTED);
	CHECK_STR(c->grant->user_id, "carol");
	CHECK_EQ(c->grant->expires_s, 4102444800);
	CHECK(!c->grant->may_publish && c->grant->any_channel);
	CHECK_EQ(c->grant->n_patterns, 2);
	CHECK_STR(c->grant->pattern[0], "news/*");
	CHECK_STR(c->grant->pattern[1], "room/**");
	forget_old(&o);
}

/* --------------------------------------------------------------------------- channels */

static void check_member(const struct member *m, const char *name, uint64_t next)
{
	CHECK(m != NULL && m->channel != NULL);
	CHECK_STR(m->channel->entry->name, name);
	CHECK_EQ(m->next, next);
	/* What it published itself lies before it in each of them. */
	CHECK_EQ(m->own_messages, 0);
}

TEST(records_of_0_1_0_say_who_is_in_which_channel)
{
	struct old_records o;
	struct conn *c;

	restore_old(&o);
	c = conn_of(&o, SAVED_MEMBER_OF_THREE);
	CHECK_EQ(c->n_members, 3);
	/* The latest stands first. */
	check_member(c->members, SAVED_ROOM, SAVED_ROOM_SEQ + 1);
	check_member(c->members->sibling, SAVED_HALL, SAVED_HALL_SEQ);
	check_member(c->members->sibling->sibling, "", SAVED_LOBBY_SEQ);
	CHECK(c->members->sibling->sibling == &c->path_member);
	check_member(conn_of(&o, SAVED_UNIX)->members, SAVED_ROOM, SAVED_ROOM_SEQ + SAVED_N_LOG);
	check_member(conn_of(&o, SAVED_TRANSIT_BODY)->members, SAVED_ROOM, SAVED_ROOM_SEQ);
	check_member(conn_of(&o, SAVED_LAGGARD)->members, SAVED_ROOM, SAVED_ROOM_SEQ + 1);
	CHECK_EQ(conn_of(&o, SAVED_LAGGARD)->n_lagging, 1);
	CHECK_EQ(conn_of(&o, SAVED_UNIX)->n_lagging, 0);
	c = conn_of(&o, SAVED_LEFT_PATH);
	CHECK_EQ(c->n_members, 0);
	CHECK_STR(conn_left_path_channel(c), SAVED_ROOM);
	CHECK_EQ(conn_of(&o, SAVED_ECHO)->n_members, 0);
	forget_old(&o);
}

static void check_message(const struct frame *f, unsigned i)
{
	static const uint8_t flags[] = {
		[0] = 0,
		[1 << 0] = FRAME_NOTICE,
		[1 << 2] = FRAME_CAN_PACK,
		[1 << 3] = FRAME_IS_PACKED,
		[1 << 5] = FRAME_CAN_DEFLATE,
	};
	static const uint8_t packed_with[] = {ZIP_NONE, ZIP_GZIP, ZIP_ZSTD, ZIP_LZ4};
	const struct saved_message *m = &saved_log[i];
	uint8_t payload[64];

	CHECK(f != NULL);
	CHECK_EQ(f->flags, flags[m->flags]);
	CHECK_EQ(f->packed_with, packed_with[m->packed_with]);
	CHECK_EQ(f->seq, SAVED_ROOM_SEQ + i);
	CHECK_EQ(f->sender, saved_sender(i));
	CHECK_EQ(f->received_ns, saved_received_ns(i));
	CHECK_EQ(f->opcode, WS_BINARY);
	CHECK_EQ(f->messages, 1);
	CHECK_EQ(frame_payload_len(f), strlen(m->payload));
	frame_copy_payload(f, payload);
	CHECK_MEM(payload, m->payload, strlen(m->payload));
}

TEST(records_of_0_1_0_bring_what_waits_in_a_channel)
{
	const struct channel *room;
	struct old_records o;

	restore_old(&o);
	room = rig_channel(o.rig, 0, SAVED_ROOM);
	CHECK(room != NULL);
	CHECK_EQ(room->from, SAVED_ROOM_SEQ);
	CHECK_EQ(room->high, SAVED_ROOM_SEQ + SAVED_N_LOG);
	CHECK_EQ(directory_next_seq(room->entry), SAVED_ROOM_SEQ + SAVED_N_LOG);
	CHECK_EQ(directory_next_seq(rig_channel(o.rig, 0, SAVED_HALL)->entry), SAVED_HALL_SEQ);
	CHECK_EQ(directory_next_seq(rig_channel(o.rig, 0, "")->entry), SAVED_LOBBY_SEQ);
	for (unsigned i = 0; i < SAVED_N_LOG; i++) {
		const struct frame *f = room->slots[(SAVED_ROOM_SEQ + i) & room->mask].frame;

		if (i == SAVED_HOLE)
			CHECK(f == NULL);
		else
			check_message(f, i);
	}
	forget_old(&o);
}

/* ----------------------------------------------------------------------- what comes in */

TEST(records_of_0_1_0_bring_what_was_half_received)
{
	static const char request[] = "GET /half HTTP/1.1\r\nHos";
	const struct conn_input *in;
	struct old_records o;

	restore_old(&o);
	in = conn_of(&o, SAVED_HALF_A_REQUEST)->input;
	CHECK(in && in->message.len == strlen(request));
	CHECK_MEM(in->message.data, request, strlen(request));
	in = conn_of(&o, SAVED_THROTTLED)->input;
	CHECK(in && in->parked.len - in->parked_at == 6);
	CHECK_MEM(in->parked.data + in->parked_at, "\x81\x80key!", 6);
	in = conn_of(&o, SAVED_HALF_TEXT)->input;
	CHECK(in && in->message.len == 4 && in->opcode == WS_TEXT && !in->is_deflated);
	CHECK(in->started_ns == RIG_START_NS && !in->decoder);
	in = conn_of(&o, SAVED_HALF_FRAME)->input;
	CHECK(in && in->decoder && in->opcode == WS_BINARY && in->message.len == 5);
	CHECK(in->grow_to == SIZE_MAX && in->started_ns == RIG_START_NS);
	CHECK_MEM(in->message.data, "01234", 5);
	in = conn_of(&o, SAVED_HALF_PING)->input;
	CHECK(in && in->decoder && in->opcode == 0 && in->control_len == 7);
	CHECK_MEM(in->control, "0123456", 7);
	in = conn_of(&o, SAVED_HALF_DEFLATED)->input;
	CHECK(in && in->decoder && in->is_deflated && in->message.len == 5);
	in = conn_of(&o, SAVED_INFLATING)->input;
	CHECK(in && in->inflater && in->is_deflated && in->opcode == WS_BINARY);
	forget_old(&o);
}

/* And it goes on at the right byte. */
TEST(records_of_0_1_0_go_on_where_they_were)
{
	static const uint8_t mask[4] = {0x1f, 0x80, 0xa5, 0x03};
	struct old_records o;
	struct guest_frame f;
	struct guest *g;
	uint8_t rest[3] = "789";

	restore_old(&o);
	g = o.rig->guests[SAVED_HALF_TEXT];
	guest_send(g, true, WS_CONTINUATION, "\xa9", 1);
	rig_turn(o.rig);
	CHECK(guest_next_message(g, &f));
	CHECK_EQ(f.opcode, WS_TEXT);
	CHECK_MEM(f.p, "caf\xc3\xa9", 5);
	g = o.rig->guests[SAVED_HALF_PING];
	ws_mask(rest, sizeof(rest), mask, 7);
	guest_write(g, rest, sizeof(rest));
	rig_turn(o.rig);
	/* Behind what its channel had for it. */
	do
		CHECK(guest_next_frame(g, &f));
	while (f.opcode != WS_PONG);
	CHECK_MEM(f.p, "0123456789", 10);
	forget_old(&o);
}

/* ---------------------------------------------------------------------- what goes out */

TEST(records_of_0_1_0_bring_what_is_in_transit)
{
	static const int variant[] = {
		-1,
		FRAME_VARIANT_PACKED,
		FRAME_VARIANT_UNPACKED,
		FRAME_VARIANT_DEFLATED + DEFLATE_512 - 1,
		FRAME_VARIANT_DEFLATED + DEFLATE_4K - 1,
		FRAME_VARIANT_DEFLATED + DEFLATE_32K - 1,
	};
	struct old_records o;

	restore_old(&o);
	for (unsigned i = 0; i < ARRAY_LEN(variant); i++) {
		const struct conn_output *out = conn_of(&o, SAVED_TRANSIT_BODY + i)->out;
		const struct frame_bytes *b;
		size_t n = strlen(saved_transit[i]);

		CHECK(out->transit != NULL);
		CHECK_EQ(out->transit_at, 3);
		b = i ? atomic_load(&out->transit->variant[variant[i]]) : &out->transit->body;
		CHECK(b == out->transit_bytes);
		CHECK_EQ(b->len, n + 2);
		CHECK_EQ(b->piece, n + 2);
		CHECK_MEM(b->bytes + 2, saved_transit[i], n);
	}
	forget_old(&o);
}

TEST(records_of_0_1_0_bring_private_queues)
{
	const struct conn_output *out;
	const struct frame *f;
	struct old_records o;

	restore_old(&o);
	out = conn_of(&o, SAVED_QUEUE)->out;
	CHECK_EQ(out->head_sent, 1);
	CHECK_EQ(out->queue_count, 3);
	f = out->queue;
	CHECK(f && f->opcode == WS_PONG && f->flags == FRAME_CONTROL);
	CHECK_MEM(f->body.bytes, "\x8a\x04pong", 6);
	f = f->next;
	CHECK(f && f->flags == 0 && f->messages == 2);
	CHECK_EQ(f->body.len, 17);
	CHECK_MEM(f->body.bytes, "\x81\x07private\x82\x06joined", 17);
	out = conn_of(&o, SAVED_CLOSING)->out;
	f = out->queue;
	CHECK(f && f->opcode == WS_CLOSE && f->flags == (FRAME_CONTROL | FRAME_CLOSE) && !f->next);
	CHECK_MEM(f->body.bytes, "\x88\x0c\x10\x92said later", 14);
	forget_old(&o);
}

/* -------------------------------------------------------------------------- transfers */

static void check_unfinished(struct old_records *o, enum saved_client who, bool is_broken)
{
	const struct conn *c = conn_of(o, who);
	const struct spool_unfinished *u = transfer_unfinished(&o->rig->w[0]->hub.transfers, c);

	CHECK(u != NULL);
	CHECK_EQ(u->is_broken, is_broken);
	CHECK_EQ(u->next_sequence, 3);
	CHECK_EQ(u->sequence, 2);
	CHECK_EQ(u->request_id_len, 4);
	CHECK_MEM(u->request_id, "ask!", 4);
	if (is_broken)
		return;
	CHECK_EQ(u->bytes, strlen(SAVED_FILE_BYTES));
	CHECK_STR(u->name, SAVED_FILE);
	CHECK_STR(u->part, SAVED_PART);
}

TEST(records_of_0_1_0_bring_files_half_received)
{
	static const char *const data[] = {"plain", "gzip", "zstd", "lz4"};
	static const enum zip_kind kind[] = {ZIP_NONE, ZIP_GZIP, ZIP_ZSTD, ZIP_LZ4};
	struct old_records o;
	struct rig *r;

	restore_old(&o);
	r = o.rig;
	for (unsigned i = 0; i < ARRAY_LEN(data); i++) {
		const struct conn *c = conn_of(&o, SAVED_CHUNK_PLAIN + i);
		const struct spool_chunk *chunk =
			transfer_waiting_chunk(&r->w[0]->hub.transfers, c);

		CHECK(chunk && (c->pauses & CONN_PAUSE_SPOOL));
		CHECK_EQ(chunk->kind, kind[i]);
		CHECK_EQ(chunk->sequence, i);
		CHECK_EQ(chunk->is_last, i > 0);
		CHECK_EQ(chunk->n, strlen(data[i]));
		CHECK_MEM(chunk->data, data[i], chunk->n);
		CHECK_EQ(chunk->request_id_len, 4);
		CHECK_MEM(chunk->request_id, "ask!", 4);
	}
	/* What the spool took over it gives back. */
	r->pool->shared.transfers.spool = NULL;
	r->spool = spool_hand_over(r->spool, transfer_set_unfinished, &r->pool->shared.transfers);
	check_unfinished(&o, SAVED_TRANSFER, false);
	check_unfinished(&o, SAVED_BROKEN_TRANSFER, true);
	forget_old(&o);
}

/* --------------------------------------------------------------------------- all fields */

/* How many values this version would pass over, in a message and those within it. */
static unsigned count_unknown(const ProtobufCMessage *m)
{
	unsigned n = m->n_unknown_fields;

	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const char *at = (const char *)m + f->offset;
		size_t count = 1;

		if (f->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			memcpy(&count, (const char *)m + f->quantifier_offset, sizeof(count));
		for (size_t k = 0; k < count; k++) {
			const ProtobufCMessage *within =
				*(ProtobufCMessage *const *)(const void *)at;

			if (f->label == PROTOBUF_C_LABEL_REPEATED)
				within = (*(ProtobufCMessage *const *const *)(const void *)at)[k];
			n += within ? count_unknown(within) : 0;
		}
	}
	return n;
}

TEST(records_of_0_1_0_have_no_field_that_is_not_known)
{
	static const ProtobufCMessageDescriptor *const descriptor[] = {
		[RECORD_HEAD] = &record__head__descriptor,
		[RECORD_COUNTERS] = &record__counters__descriptor,
		[RECORD_FRAME] = &record__frame__descriptor,
		[RECORD_CHANNEL] = &record__channel__descriptor,
		[RECORD_CONNECTION] = &record__connection__descriptor,
	};
	struct record_reader reader;
	struct record record;
	unsigned n = 0;

	CHECK_EQ(record_open(&reader, records_start, (size_t)(records_end - records_start)),
		 RECORD_OK);
	for (; record_next(&reader, &record); n++) {
		ProtobufCMessage *m;

		CHECK(record.kind > 0 && record.kind < ARRAY_LEN(descriptor));
		m = protobuf_c_message_unpack(descriptor[record.kind], NULL, record.n, record.p);
		CHECK(m != NULL);
		CHECK_EQ(count_unknown(m), 0);
		protobuf_c_message_free_unpacked(m, NULL);
	}
	CHECK_EQ(n, 1 + 2 + SAVED_N_LOG - 1 + ARRAY_LEN(saved_transit) + 3 + SAVED_N_CLIENTS);
}

/* --------------------------------------------------------------------------- counters */

struct named_counter {
	char name[64];
	uint64_t value;
};

struct counters {
	struct named_counter all[400];
	size_t n;
};

static uint64_t *counter_named(struct counters *c, const char *name)
{
	for (size_t i = 0; i < c->n; i++)
		if (strcmp(c->all[i].name, name) == 0)
			return &c->all[i].value;
	CHECK(c->n < ARRAY_LEN(c->all));
	snprintf(c->all[c->n].name, sizeof(c->all[c->n].name), "%s", name);
	return &c->all[c->n++].value;
}

static void add_counter(void *ctx, const char *name, uint64_t value)
{
	*counter_named(ctx, name) += value;
}

/* They travel by name, so none may be called something else. */
TEST(records_of_0_1_0_bring_counters)
{
	static struct counters was, is;
	struct record_reader reader;
	struct record record;
	struct old_records o;

	restore_old(&o);
	CHECK_EQ(record_open(&reader, records_start, (size_t)(records_end - records_start)),
		 RECORD_OK);
	while (record_next(&reader, &record)) {
		Record__Counters *s;

		if (record.kind != RECORD_COUNTERS)
			continue;
		s = record__counters__unpack(NULL, record.n, record.p);
		CHECK(s && s->n_name == s->n_value);
		for (size_t i = 0; i < s->n_name; i++)
			add_counter(&was, s->name[i], s->value[i]);
		record__counters__free_unpacked(s, NULL);
	}
	CHECK(was.n > 80);
	metrics_each(&o.rig->w[0]->metrics, add_counter, &is);
	for (size_t i = 0; i < was.n; i++) {
		if (*counter_named(&is, was.all[i].name) == was.all[i].value)
			continue;
		fail_msg("%s is %" PRIu64 ", was %" PRIu64, was.all[i].name,
			 *counter_named(&is, was.all[i].name), was.all[i].value);
	}
	forget_old(&o);
}
