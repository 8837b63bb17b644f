/* SPDX-License-Identifier: MIT */
/* The variants of a frame: who gets which, and that each is made once. */
#include <pthread.h>
#include <sched.h>
#include <zlib.h>

#include "containers/mem.h"
#include "test.h"
#include "wire/frame_variant.h"
#include "wire/ws.h"

#define DATA_BYTES 20000

static _Atomic size_t account;
static const struct msg_said nothing;

#define KIND_OF(NAME, name, number) ZIP_##NAME,
static const enum zip_kind packed_kinds[] = {ZIP_CODECS(KIND_OF)};

/* A worker's share of making variants. */
struct rig {
	struct zip zip;
	struct arena arena;
	struct frame_maker m;
};

static void rig_init(struct rig *r, size_t max_frame, size_t max_message)
{
	*r = (struct rig){.m = {.zip = &r->zip,
				.arena = &r->arena,
				.level = 3,
				.max_frame = max_frame,
				.max_message = max_message,
				.unpack_to = max_message,
				.deflate_from = 1000,
				.deflate_to = 100000}};
	zip_init(&r->zip);
	arena_init(&r->arena, 4096, 1024 * 1024);
}

static void rig_fini(struct rig *r)
{
	zip_fini(&r->zip);
	arena_fini(&r->arena);
	buf_fini(&r->m.scratch);
	buf_fini(&r->m.copy);
	deflater_fini(&r->m.deflater);
}

/* Shrinks to about half. */
static void fill(uint8_t *p, size_t n)
{
	uint64_t random = test_seed();

	for (size_t i = 0; i < n; i++)
		p[i] = i & 64 ? (uint8_t)(test_random(&random) >> 56) : (uint8_t)(i >> 8);
}

static void fill_noise(uint8_t *p, size_t n)
{
	uint64_t random = test_seed();

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(test_random(&random) >> 56);
}

/* A BINARY_DATA message with all that a variant must keep. */
static struct frame *binary(const void *p, size_t n, enum zip_kind kind, size_t max_frame)
{
	struct msg_builder b;
	struct frame *f;

	msg_init_binary(&b, p, n, 7, true, (Websocket__CompressionType)kind);
	msg_set_request_id(&b, "0123456789abcdef", 16);
	msg_set_channel(&b, "room");
	b.m.has_sequence_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_SEQUENCE_SEQUENCE;
	b.m.sequence = 42;
	f = frame_from_msg(&b, max_frame, &account);
	CHECK(f != NULL);
	f->flags |= kind == ZIP_NONE ? FRAME_CAN_PACK : FRAME_IS_PACKED;
	f->packed_with = (uint8_t)kind;
	CHECK(frame_varies(f));
	return f;
}

static struct frame *packed_binary(enum zip_kind kind, const void *p, size_t n, size_t max_frame)
{
	struct buf packed = {0};
	struct zip zip;
	struct frame *f;

	zip_init(&zip);
	CHECK_EQ(zip_pack_kind(&zip, kind, 6, p, n, &packed), 0);
	f = binary(packed.data, packed.len, kind, max_frame);
	buf_fini(&packed);
	zip_fini(&zip);
	return f;
}

/* The payload of @b as a client puts it together; returns its length. */
static size_t read_payload(const struct frame_bytes *b, uint8_t *out, size_t cap)
{
	struct ws_decoder *d = ws_decoder_new(WS_CLIENT, WS_RSV1);
	uint8_t *bytes = malloc(b->len);
	size_t at = 0, got = 0, used;
	struct ws_piece piece = {0};
	uint16_t code = 0;

	memcpy(bytes, b->bytes, b->len);
	while (ws_decoder_feed(d, bytes + at, b->len - at, &used, &piece, &code) == WS_PIECE) {
		CHECK(got + piece.len <= cap);
		if (piece.len)
			memcpy(out + got, piece.data, piece.len);
		got += piece.len;
		at += used;
		CHECK_EQ(frame_bytes_is_boundary(b, at), piece.ends);
		CHECK_EQ(piece.fin && piece.ends, at == b->len);
		CHECK(!piece.rsv || piece.opcode != WS_CONTINUATION);
	}
	CHECK_EQ(code, 0);
	CHECK_EQ(at, b->len);
	ws_decoder_free(d);
	free(bytes);
	return got;
}

/* @b must be the message of binary(), its data packed by @kind out of @p. */
static void check_variant(const struct frame_bytes *b, enum zip_kind kind, const void *p, size_t n)
{
	uint8_t *payload = malloc(b->len);
	size_t len = read_payload(b, payload, b->len);
	Websocket__WebSocketMessage *m;
	struct buf data = {0};
	struct arena arena;
	struct zip zip;

	zip_init(&zip);
	arena_init(&arena, 4096, 65536);
	CHECK_EQ(msg_decode(&arena, payload, len, &m), MSG_OK);
	CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__BINARY_DATA);
	CHECK_EQ(m->request_id.len, 16);
	CHECK_MEM(m->request_id.data, "0123456789abcdef", 16);
	CHECK_STR(m->channel, "room");
	CHECK_EQ(m->sequence, 42);
	CHECK_EQ(m->binary->sequence, 7);
	CHECK(m->binary->is_last);
	CHECK_EQ(m->binary->compression, kind);
	CHECK_STR(m->binary->checksum[0] ? "present" : "missing", "present");
	CHECK_EQ(msg_check_binary(m), MSG_OK);
	CHECK_EQ(zip_unpack(&zip, kind, m->binary->data.data, m->binary->data.len, n, &data), 0);
	CHECK_EQ(data.len, n);
	CHECK(n == 0 || memcmp(data.data, p, n) == 0);
	buf_fini(&data);
	arena_fini(&arena);
	zip_fini(&zip);
	free(payload);
}

/* Makes what such a receiver would take, in steps of @step; the result of the last one. */
static int make_forms(struct frame *f, unsigned caps, enum deflate_window window,
		      struct frame_maker *m, size_t step)
{
	size_t n = frame_payload_len(f);
	uint8_t *payload = malloc(n + 1);
	Websocket__WebSocketMessage *msg = NULL;
	struct frame_forms w;
	struct arena arena;
	unsigned variants = 0;
	int r;

	if (f->flags & FRAME_CAN_PACK && caps & MSG_CAP_ZSTD)
		variants |= 1u << FRAME_VARIANT_PACKED;
	else if (!(f->flags & FRAME_IS_PACKED && msg_caps_read(caps, f->packed_with)))
		variants = (f->flags & FRAME_IS_PACKED ? 1u << FRAME_VARIANT_UNPACKED : 0) |
			   (window && f->flags & FRAME_CAN_DEFLATE
				    ? 1u << (FRAME_VARIANT_DEFLATED + window - 1)
				    : 0);
	arena_init(&arena, 4096, 65536);
	frame_copy_payload(f, payload);
	if (f->opcode == WS_BINARY)
		CHECK_EQ(msg_decode(&arena, payload, n, &msg), MSG_OK);
	frame_forms_init(&w, f, msg, &nothing, variants, m);
	do {
		size_t budget = step;

		r = frame_forms_run(&w, &budget);
		CHECK(frame_forms_bytes(&w) <= 40 * (n + m->max_message));
	} while (r == FRAME_FORMS_MORE);
	frame_forms_fini(&w);
	CHECK_EQ(m->n_packings, 0);
	arena_fini(&arena);
	free(payload);
	return r;
}

/* What is made for a receiver before a message is published, and then sent to it. */
static const struct frame_bytes *made_for(struct frame *f, unsigned caps,
					  enum deflate_window window, struct frame_maker *m)
{
	(void)make_forms(f, caps, window, m, 1000);
	return frame_variant_for(f, caps, window, m);
}

TEST(frame_that_does_not_vary_is_the_same_for_all)
{
	struct frame *f;
	struct msg_builder b;

	msg_init_heartbeat(&b);
	f = frame_from_msg(&b, 1000, &account);
	CHECK(f != NULL);
	CHECK(!frame_varies(f));
	for (unsigned caps = 0; caps <= MSG_CAPS_ALL; caps++)
		CHECK(frame_variant_for(f, caps, DEFLATE_NONE, NULL) == &f->body);
	f = frame_unref(f);
	CHECK_EQ(atomic_load(&account), 0);
}

/* The second call gets no maker: it must find the variant in its slot. */
TEST(frame_is_packed_once_and_only_for_those_who_read_zstd)
{
	static const size_t cuts[] = {SIZE_MAX, 100, 3000};
	uint8_t data[DATA_BYTES];

	fill(data, sizeof(data));
	for (size_t k = 0; k < ARRAY_LEN(cuts); k++) {
		struct frame *f = binary(data, sizeof(data), ZIP_NONE, cuts[k]);
		size_t charged = atomic_load(&account);
		const struct frame_bytes *packed;
		struct rig r;

		rig_init(&r, cuts[k], sizeof(data));
		for (unsigned caps = 0; caps <= MSG_CAPS_ALL; caps++)
			if (!(caps & MSG_CAP_ZSTD))
				CHECK(frame_variant_for(f, caps, DEFLATE_NONE, NULL) == &f->body);
		packed = made_for(f, MSG_CAP_ZSTD, DEFLATE_NONE, &r.m);
		CHECK(packed != NULL && packed != &f->body);
		CHECK(packed->len < f->body.len * 3 / 4);
		CHECK_EQ(atomic_load(&account), charged + sizeof(*packed) + packed->len);
		CHECK(frame_variant_for(f, MSG_CAPS_ALL, DEFLATE_NONE, NULL) == packed);
		CHECK_EQ(packed->piece == packed->len, cuts[k] == SIZE_MAX);
		check_variant(packed, ZIP_ZSTD, data, sizeof(data));
		check_variant(&f->body, ZIP_NONE, data, sizeof(data));
		CHECK_EQ(r.m.pack_in, sizeof(data));
		CHECK(r.m.pack_out > 0 && r.m.pack_out < packed->len);
		CHECK_EQ(r.m.unpack_in + r.m.unpack_out + r.m.failures, 0);
		f = frame_unref(f);
		CHECK_EQ(atomic_load(&account), 0);
		rig_fini(&r);
	}
}

TEST(frame_that_does_not_shrink_stays_and_is_not_tried_again)
{
	uint8_t data[DATA_BYTES];
	struct frame *f;
	struct rig r;

	fill_noise(data, sizeof(data));
	f = binary(data, sizeof(data), ZIP_NONE, SIZE_MAX);
	rig_init(&r, SIZE_MAX, sizeof(data));
	CHECK(made_for(f, MSG_CAP_ZSTD, DEFLATE_NONE, &r.m) == &f->body);
	CHECK(frame_variant_for(f, MSG_CAP_ZSTD, DEFLATE_NONE, NULL) == &f->body);
	CHECK_EQ(r.m.pack_in + r.m.pack_out + r.m.failures, 0);
	f = frame_unref(f);
	CHECK_EQ(atomic_load(&account), 0);
	rig_fini(&r);
}

/* Packing adds the field that names it. Around the point where data begins to shrink at all. */
TEST(frame_is_packed_only_when_the_whole_gets_smaller)
{
	uint8_t data[600];
	size_t kept = 0, packed = 0;
	struct rig r;

	rig_init(&r, SIZE_MAX, sizeof(data));
	for (size_t noise = 500; noise < 600; noise++) {
		const struct frame_bytes *b;
		struct frame *f;

		memset(data, 'x', sizeof(data));
		fill_noise(data, noise);
		f = binary(data, sizeof(data), ZIP_NONE, SIZE_MAX);
		b = made_for(f, MSG_CAP_ZSTD, DEFLATE_NONE, &r.m);
		CHECK(b == &f->body || b->len < f->body.len);
		kept += b == &f->body;
		packed += b != &f->body;
		f = frame_unref(f);
		CHECK_EQ(atomic_load(&account), 0);
	}
	CHECK(kept > 0 && packed > 0);
	rig_fini(&r);
}

/* Whole and cut, so that the payload has to be put together first. */
TEST(frame_is_unpacked_once_for_those_who_cannot_read_it)
{
	uint8_t data[DATA_BYTES];

	fill(data, sizeof(data));
	for (size_t k = 0; k < 2 * ARRAY_LEN(packed_kinds); k++) {
		enum zip_kind kind = packed_kinds[k / 2];
		size_t cut = k % 2 ? 500 : SIZE_MAX;
		struct frame *f = packed_binary(kind, data, sizeof(data), cut);
		const struct frame_bytes *plain;
		struct rig r;

		rig_init(&r, cut, sizeof(data));
		plain = made_for(f, MSG_CAPS_ALL & ~(1u << kind), DEFLATE_NONE, &r.m);
		CHECK(plain != NULL && plain != &f->body);
		for (unsigned caps = 0; caps <= MSG_CAPS_ALL; caps++)
			CHECK(frame_variant_for(f, caps, DEFLATE_NONE, NULL) ==
			      (caps & 1u << kind ? &f->body : plain));
		check_variant(plain, ZIP_NONE, data, sizeof(data));
		check_variant(&f->body, kind, data, sizeof(data));
		CHECK_EQ(r.m.unpack_out, sizeof(data));
		CHECK(r.m.unpack_in > 0 && r.m.unpack_in < f->body.len);
		CHECK_EQ(r.m.pack_in + r.m.pack_out + r.m.failures, 0);
		f = frame_unref(f);
		CHECK_EQ(atomic_load(&account), 0);
		rig_fini(&r);
	}
}

TEST(frame_of_empty_data_is_unpacked_to_empty_data)
{
	struct frame *f = binary("", 0, ZIP_GZIP, SIZE_MAX);
	struct rig r;

	rig_init(&r, SIZE_MAX, 100);
	CHECK(made_for(f, 0, DEFLATE_NONE, &r.m) != NULL);
	check_variant(frame_variant_for(f, 0, DEFLATE_NONE, NULL), ZIP_NONE, "", 0);
	f = frame_unref(f);
	CHECK_EQ(atomic_load(&account), 0);
	rig_fini(&r);
}

TEST(frame_that_is_broken_goes_only_to_those_who_would_unpack_it_themselves)
{
	uint8_t data[DATA_BYTES];

	fill_noise(data, sizeof(data));
	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++) {
		struct frame *f = binary(data, sizeof(data), packed_kinds[k], SIZE_MAX);
		unsigned bit = 1u << packed_kinds[k];
		struct rig r;

		rig_init(&r, SIZE_MAX, sizeof(data));
		CHECK_EQ(make_forms(f, MSG_CAPS_ALL & ~bit, DEFLATE_NONE, &r.m, 1000),
			 FRAME_FORMS_E_CORRUPT);
		CHECK(frame_variant_for(f, MSG_CAPS_ALL & ~bit, DEFLATE_NONE, &r.m) == NULL);
		CHECK_EQ(r.m.failures, 2);
		for (unsigned caps = 0; caps <= MSG_CAPS_ALL; caps++)
			CHECK(frame_variant_for(f, caps, DEFLATE_NONE, NULL) ==
			      (caps & bit ? &f->body : NULL));
		CHECK_EQ(r.m.unpack_in + r.m.unpack_out, 0);
		f = frame_unref(f);
		CHECK_EQ(atomic_load(&account), 0);
		rig_fini(&r);
	}
}

TEST(frame_is_unpacked_up_to_the_limit_and_not_past_it)
{
	static const size_t limits[] = {DATA_BYTES - 1, DATA_BYTES, DATA_BYTES + 1};
	uint8_t data[DATA_BYTES];

	fill(data, sizeof(data));
	for (size_t k = 0; k < ARRAY_LEN(packed_kinds); k++) {
		for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
			struct frame *f = packed_binary(packed_kinds[k], data, sizeof(data), 4000);
			struct rig r;

			rig_init(&r, 4000, limits[i]);
			/* When it is published, and late. */
			CHECK_EQ(make_forms(f, 0, DEFLATE_NONE, &r.m, 1000),
				 limits[i] >= sizeof(data) ? 0 : FRAME_FORMS_E_TOO_BIG);
			CHECK_EQ(frame_variant_for(f, 0, DEFLATE_NONE, &r.m) != NULL,
				 limits[i] >= sizeof(data));
			CHECK_EQ(r.m.failures, limits[i] < sizeof(data) ? 2 : 0);
			f = frame_unref(f);
			CHECK_EQ(atomic_load(&account), 0);
			rig_fini(&r);
		}
	}
}

/* What cannot be decoded for want of memory is sent as it is, or not at all. */
TEST(frame_whose_message_does_not_fit_the_arena)
{
	uint8_t data[DATA_BYTES];
	struct frame *plain, *packed;
	struct rig r;

	fill(data, sizeof(data));
	plain = binary(data, sizeof(data), ZIP_NONE, 1000);
	packed = packed_binary(ZIP_ZSTD, data, sizeof(data), 1000);
	rig_init(&r, 1000, sizeof(data));
	arena_init(&r.arena, 16, 16);
	CHECK(frame_variant_for(plain, MSG_CAPS_ALL, DEFLATE_NONE, &r.m) == &plain->body);
	CHECK(frame_variant_for(packed, MSG_CAPS_ALL, DEFLATE_NONE, &r.m) == &packed->body);
	CHECK(frame_variant_for(packed, 0, DEFLATE_NONE, &r.m) == NULL);
	plain = frame_unref(plain);
	packed = frame_unref(packed);
	CHECK_EQ(atomic_load(&account), 0);
	rig_fini(&r);
}

TEST(frame_maker_gives_back_what_a_large_message_made_grow)
{
	size_t n = 3 << 20;
	uint8_t *data = malloc(n);
	struct frame *f;
	struct rig r;

	fill(data, n);
	rig_init(&r, 1 << 20, n);
	f = packed_binary(ZIP_ZSTD, data, n, 1 << 20);
	CHECK(made_for(f, 0, DEFLATE_NONE, &r.m) != NULL);
	CHECK(buf_cap(&r.m.scratch) <= 1 << 20);
	CHECK(buf_cap(&r.m.copy) <= 1 << 20);
	f = frame_unref(f);
	CHECK_EQ(atomic_load(&account), 0);
	rig_fini(&r);
	free(data);
}

/* ---------------------------------------------------------- permessage-deflate */

/* @b must be @p deflated for a window of @bits: RSV1 on its first frame alone. */
static void check_deflated(const struct frame_bytes *b, int bits, const void *p, size_t n)
{
	uint8_t *payload = malloc(b->len + 4), *out = malloc(n + 1);
	size_t len = read_payload(b, payload, b->len);
	z_stream zs = {0};

	CHECK(b->bytes[0] & 0x40);
	memcpy(payload + len, "\x00\x00\xff\xff", 4);
	CHECK_EQ(inflateInit2(&zs, -bits), Z_OK);
	zs.next_in = payload;
	zs.avail_in = (uInt)(len + 4);
	zs.next_out = out;
	zs.avail_out = (uInt)(n + 1);
	CHECK_EQ(inflate(&zs, Z_SYNC_FLUSH), Z_OK);
	CHECK_EQ(zs.total_out, n);
	CHECK_MEM(out, p, n);
	inflateEnd(&zs);
	free(payload);
	free(out);
}

static struct frame *text_of(const void *p, size_t n, size_t max_frame)
{
	struct frame *f = frame_new(WS_TEXT, n, max_frame, &account);

	frame_write(f, 0, p, n);
	f->flags |= FRAME_CAN_DEFLATE;
	CHECK(frame_varies(f));
	return f;
}

TEST(frame_is_deflated_once_for_each_window)
{
	static const int bits[DEFLATE_N_WINDOWS] = {0, 9, 12, 15};
	static const size_t max_frames[] = {500, 1 << 20};
	uint8_t data[20000];
	struct rig r;

	fill(data, sizeof(data));
	for (size_t i = 0; i < ARRAY_LEN(max_frames); i++) {
		struct frame *f = text_of(data, sizeof(data), max_frames[i]);

		rig_init(&r, max_frames[i], 0);
		CHECK(frame_variant_for(f, MSG_CAPS_ALL, DEFLATE_NONE, NULL) == &f->body);
		for (enum deflate_window w = DEFLATE_512; w < DEFLATE_N_WINDOWS; w++) {
			const struct frame_bytes *b = made_for(f, 0, w, &r.m);

			CHECK(b != &f->body && b->len < f->body.len);
			check_deflated(b, bits[w], data, sizeof(data));
			CHECK(frame_variant_for(f, MSG_CAPS_ALL, w, NULL) == b);
			CHECK_EQ(r.m.deflate_in, w * sizeof(data));
		}
		CHECK(r.m.deflate_out < r.m.deflate_in);
		CHECK(atomic_load(&account) > f->body.len + sizeof(*f));
		frame_unref(f);
		CHECK_EQ(atomic_load(&account), 0);
		rig_fini(&r);
	}
}

TEST(frame_goes_as_it_is_when_deflating_is_not_worth_it)
{
	uint8_t noise[5000], text[5000];
	struct frame *f;
	struct rig r;

	rig_init(&r, 1 << 20, 0);
	fill_noise(noise, sizeof(noise));
	fill(text, sizeof(text));
	f = text_of(noise, sizeof(noise), 1 << 20);
	for (int again = 0; again < 2; again++)
		CHECK(frame_variant_for(f, 0, DEFLATE_32K, &r.m) == &f->body);
	frame_unref(f);
	f = frame_new(WS_TEXT, sizeof(text), 1 << 20, &account);
	frame_write(f, 0, text, sizeof(text));
	CHECK(frame_variant_for(f, 0, DEFLATE_32K, NULL) == &f->body); /* not flagged */
	frame_unref(f);
	CHECK_EQ(r.m.deflate_in, 0);
	CHECK_EQ(atomic_load(&account), 0);
	rig_fini(&r);
}

/*
 * Compressed data is never deflated again; what it is unpacked to, for those who can't read it,
 * is.
 */
TEST(frame_is_compressed_one_way_only)
{
	uint8_t data[8000], payload[9000];
	const struct frame_bytes *plain, *b;
	struct frame *f;
	struct rig r;
	size_t n;

	rig_init(&r, 1 << 20, 1 << 20);
	fill(data, sizeof(data));
	f = binary(data, sizeof(data), ZIP_NONE, 1 << 20);
	f->flags |= FRAME_CAN_DEFLATE;
	check_variant(made_for(f, MSG_CAP_ZSTD, DEFLATE_32K, &r.m), ZIP_ZSTD, data, sizeof(data));
	n = read_payload(&f->body, payload, sizeof(payload));
	check_deflated(made_for(f, MSG_CAP_GZIP, DEFLATE_32K, &r.m), 15, payload, n);
	frame_unref(f);
	for (size_t i = 0; i < ARRAY_LEN(packed_kinds); i++) {
		unsigned bit = 1u << packed_kinds[i];

		f = packed_binary(packed_kinds[i], data, sizeof(data), 1 << 20);
		f->flags |= FRAME_CAN_DEFLATE;
		CHECK(frame_variant_for(f, bit, DEFLATE_32K, NULL) == &f->body);
		b = made_for(f, 0, DEFLATE_4K, &r.m);
		plain = frame_variant_for(f, 0, DEFLATE_NONE, NULL);
		check_variant(plain, ZIP_NONE, data, sizeof(data));
		n = read_payload(plain, payload, sizeof(payload));
		check_deflated(b, 12, payload, n);
		frame_unref(f);
	}
	/* Too large to be deflated once it is unpacked: the unpacked variant serves both. */
	f = packed_binary(ZIP_GZIP, data, sizeof(data), 1 << 20);
	f->flags |= FRAME_CAN_DEFLATE;
	r.m.deflate_to = 5000;
	b = made_for(f, 0, DEFLATE_32K, &r.m);
	CHECK(b == frame_variant_for(f, 0, DEFLATE_NONE, NULL) && b != &f->body);
	frame_unref(f);
	/* One that can't be unpacked serves nobody else. */
	f = binary("no gzip at all", 14, ZIP_GZIP, 1 << 20);
	f->flags |= FRAME_CAN_DEFLATE;
	CHECK(frame_variant_for(f, 0, DEFLATE_32K, &r.m) == NULL);
	frame_unref(f);
	CHECK_EQ(atomic_load(&account), 0);
	rig_fini(&r);
}

TEST(frame_for_one_receiver_is_deflated_from_the_start)
{
	uint8_t data[5000], noise[100];
	struct frame *f;
	struct rig r;

	rig_init(&r, 400, 0);
	fill(data, sizeof(data));
	fill_noise(noise, sizeof(noise));
	f = frame_new_deflated(WS_BINARY, data, sizeof(data), DEFLATE_32K, &r.m, &account);
	CHECK(f != NULL);
	CHECK_EQ(f->opcode, WS_BINARY);
	check_deflated(&f->body, 15, data, sizeof(data));
	frame_unref(f);
	CHECK_EQ(frame_new_deflated(WS_TEXT, noise, sizeof(noise), DEFLATE_32K, &r.m, &account),
		 NULL);
	CHECK_EQ(atomic_load(&account), 0);
	rig_fini(&r);
}

#define RACES 400

struct racer {
	struct frame **frames;
	_Atomic size_t *arrived;
	unsigned caps;
	enum deflate_window window;
	size_t max_message;
	const struct frame_bytes *got[RACES];
	size_t sum;
};

/* Takes the variant of each frame at the same moment as the others, and reads it. */
static void *race(void *arg)
{
	struct racer *racer = arg;
	unsigned spins = 0;
	struct rig r;

	rig_init(&r, 700, racer->max_message);
	for (size_t i = 0; i < RACES; i++) {
		const struct frame_bytes *b;

		/*
		 * Not a barrier of pthread: the last to come would be far ahead of who sleeps
		 * there.
		 */
		atomic_fetch_add(racer->arrived, 1);
		while (atomic_load(racer->arrived) < 2 * (i + 1))
			if (++spins % 1000 == 0)
				sched_yield();
		b = frame_variant_for(racer->frames[i], racer->caps, racer->window, &r.m);
		for (size_t k = 0; b && k < b->len; k++)
			racer->sum += b->bytes[k];
		racer->got[i] = b;
		frame_unref(racer->frames[i]);
	}
	rig_fini(&r);
	return NULL;
}

static void run_race(struct frame **frames, unsigned caps, enum deflate_window window,
		     size_t max_message)
{
	static struct racer racers[2];
	_Atomic size_t arrived = 0;
	pthread_t threads[2];

	for (size_t i = 0; i < RACES; i++)
		frame_ref(frames[i]);
	for (size_t t = 0; t < 2; t++) {
		racers[t] = (struct racer){.frames = frames,
					   .arrived = &arrived,
					   .caps = caps,
					   .window = window,
					   .max_message = max_message};
		CHECK_EQ(pthread_create(&threads[t], NULL, race, &racers[t]), 0);
	}
	for (size_t t = 0; t < 2; t++)
		pthread_join(threads[t], NULL);
	CHECK(memcmp(racers[0].got, racers[1].got, sizeof(racers[0].got)) == 0);
	CHECK_EQ(racers[0].sum, racers[1].sum);
	CHECK_EQ(racers[0].got[0] != NULL, max_message > 0);
	CHECK_EQ(atomic_load(&account), 0);
}

TEST(frame_variant_is_one_for_all_threads_that_race_for_it)
{
	static struct frame *frames[RACES];
	uint8_t data[2000], noise[2000];

	fill(data, sizeof(data));
	for (size_t i = 0; i < RACES; i++)
		frames[i] = binary(data, sizeof(data), ZIP_NONE, 700);
	run_race(frames, MSG_CAPS_ALL, DEFLATE_NONE, sizeof(data));
	fill_noise(noise, sizeof(noise));
	for (size_t i = 0; i < RACES; i++)
		frames[i] = binary(noise, sizeof(noise), ZIP_NONE, 700);
	run_race(frames, MSG_CAPS_ALL, DEFLATE_NONE, sizeof(noise));
	for (size_t i = 0; i < RACES; i++)
		frames[i] = packed_binary(packed_kinds[i % ARRAY_LEN(packed_kinds)], data,
					  sizeof(data), 700);
	run_race(frames, MSG_CAP_ACK, DEFLATE_NONE, sizeof(data));
	for (size_t i = 0; i < RACES; i++)
		frames[i] = packed_binary(packed_kinds[i % ARRAY_LEN(packed_kinds)], data,
					  sizeof(data), 700);
	run_race(frames, MSG_CAP_ACK, DEFLATE_NONE, 0);
	for (size_t i = 0; i < RACES; i++) {
		frames[i] = i & 1 ? packed_binary(packed_kinds[i % ARRAY_LEN(packed_kinds)], data,
						  sizeof(data), 700)
				  : text_of(data, sizeof(data), 700);
		frames[i]->flags |= FRAME_CAN_DEFLATE;
	}
	run_race(frames, MSG_CAP_ACK, DEFLATE_4K, sizeof(data));
	for (size_t i = 0; i < RACES; i++)
		frames[i] = text_of(noise, sizeof(noise), 700);
	run_race(frames, MSG_CAP_ACK, DEFLATE_32K, sizeof(data));
}

/* 64 times what it was, or unpack_to if that is more, and never past max_message. */
TEST(frame_unpack_limit_follows_what_was_sent)
{
	const struct frame_maker m = {.max_message = 1000000, .unpack_to = 10000};

	CHECK_EQ(frame_unpack_limit(&m, 0), 10000);
	CHECK_EQ(frame_unpack_limit(&m, 156), 10000);
	CHECK_EQ(frame_unpack_limit(&m, 157), 157 * 64);
	CHECK_EQ(frame_unpack_limit(&m, 15625), 1000000);
	CHECK_EQ(frame_unpack_limit(&m, 15626), 1000000);
	CHECK_EQ(frame_unpack_limit(&m, SIZE_MAX), 1000000);
}

/* So many are packed at a time as have contexts; what only saves bytes is left out then. */
TEST(frame_forms_leave_out_what_would_need_one_context_more)
{
	struct frame_forms w[FRAME_PACKINGS_MAX + 1];
	struct frame *f[FRAME_PACKINGS_MAX + 1];
	uint8_t data[60000];
	struct rig r;

	rig_init(&r, 1 << 20, 1 << 20);
	fill(data, sizeof(data));
	for (size_t i = 0; i < ARRAY_LEN(f); i++) {
		size_t budget = 1;

		f[i] = text_of(data, sizeof(data), 1 << 20);
		frame_forms_init(&w[i], f[i], NULL, &nothing, 1u << FRAME_VARIANT_DEFLATED, &r.m);
		CHECK_EQ(frame_forms_run(&w[i], &budget),
			 i < FRAME_PACKINGS_MAX ? FRAME_FORMS_MORE : 0);
	}
	frame_forms_fini(&w[0]);
	CHECK_EQ(r.m.n_packings, FRAME_PACKINGS_MAX - 1);
	for (size_t i = 1; i < ARRAY_LEN(f); i++) {
		size_t budget = SIZE_MAX;

		CHECK_EQ(frame_forms_run(&w[i], &budget), 0);
		frame_forms_fini(&w[i]);
	}
	CHECK_EQ(r.m.n_packings, 0);
	for (size_t i = 0; i < ARRAY_LEN(f); i++) {
		CHECK_EQ(frame_variant_for(f[i], 0, DEFLATE_512, NULL) != &f[i]->body,
			 i > 0 && i < FRAME_PACKINGS_MAX);
		frame_unref(f[i]);
	}
	CHECK_EQ(atomic_load(&account), 0);
	rig_fini(&r);
}

/* ------------------------------------------------------------------------- numbers */

/* The message that a receiver decodes of @b, deflated or not, into @arena. */
static Websocket__WebSocketMessage *decode_form(const struct frame_bytes *b, bool is_deflated,
						struct arena *arena, uint8_t *out, size_t cap)
{
	static const uint8_t tail[] = {0, 0, 0xff, 0xff};
	uint8_t *payload = malloc(b->len + sizeof(tail));
	Websocket__WebSocketMessage *m = NULL;
	size_t n = read_payload(b, payload, b->len);
	z_stream zs = {.next_out = out, .avail_out = (uInt)cap};

	if (is_deflated) {
		/* RFC 7692 section 7.2.2. */
		memcpy(payload + n, tail, sizeof(tail));
		zs.next_in = payload;
		zs.avail_in = (uInt)(n + sizeof(tail));
		CHECK_EQ(inflateInit2(&zs, -15), Z_OK);
		CHECK_EQ(inflate(&zs, Z_SYNC_FLUSH), Z_OK);
		CHECK_EQ(zs.avail_in, 0);
		n = zs.total_out;
		inflateEnd(&zs);
	} else {
		memcpy(out, payload, n);
	}
	free(payload);
	CHECK_EQ(msg_decode(arena, out, n, &m), MSG_OK);
	return m;
}

static void check_said(const struct frame_bytes *b, bool is_deflated, uint64_t number)
{
	static uint8_t out[4 * DATA_BYTES];
	const Websocket__WebSocketMessage *m;
	struct arena arena;

	arena_init(&arena, 4096, 65536);
	m = decode_form(b, is_deflated, &arena, out, sizeof(out));
	CHECK_EQ(m->has_sequence_case, WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_SEQUENCE_SEQUENCE);
	CHECK_EQ(m->sequence, number);
	CHECK_STR(m->channel, "room");
	CHECK_EQ(m->sent_ms, 1234567890123);
	CHECK_EQ(m->sender.len, MSG_SENDER_BYTES);
	CHECK_MEM(m->sender.data, "fedcba9876543210", MSG_SENDER_BYTES);
	CHECK_EQ(msg_check_binary(m), MSG_OK);
	arena_fini(&arena);
}

/* Made before the number is known, in all forms; and one that somebody needs later. */
static void check_numbers(enum zip_kind kind, size_t max_frame)
{
	static const uint64_t numbers[] = {1, 255, 256, 0x0102030405060708, UINT64_MAX / 2};
	const struct msg_said said = {.channel = "room",
				      .sender = (const uint8_t *)"fedcba9876543210",
				      .sent_ms = 1234567890123,
				      .is_numbered = true};
	unsigned want = (1u << FRAME_N_VARIANTS) - (1u << FRAME_VARIANT_DEFLATED);
	uint8_t data[DATA_BYTES], suffix[MSG_SUFFIX_MAX];
	struct buf packed = {0};
	struct msg_builder b;
	struct frame_forms w;
	struct frame *f;
	struct rig r;

	rig_init(&r, max_frame, 1024 * 1024);
	fill(data, sizeof(data));
	if (kind)
		CHECK_EQ(zip_pack_kind(&r.zip, kind, 6, data, sizeof(data), &packed), 0);
	msg_init_binary(&b, kind ? packed.data : data, kind ? packed.len : sizeof(data), 0, true,
			(Websocket__CompressionType)kind);
	f = frame_from_msg_said(&b, suffix, msg_suffix(suffix, &said), max_frame, &account);
	f->flags |= FRAME_NUMBERED | FRAME_CAN_DEFLATE | (kind ? FRAME_IS_PACKED : FRAME_CAN_PACK);
	f->packed_with = (uint8_t)kind;
	want |= 1u << (kind ? FRAME_VARIANT_UNPACKED : FRAME_VARIANT_PACKED);
	frame_forms_init(&w, f, &b.m, &said, want, &r.m);
	for (int more = FRAME_FORMS_MORE; more == FRAME_FORMS_MORE;) {
		size_t budget = 1000;

		more = frame_forms_run(&w, &budget);
		CHECK(more == 0 || more == FRAME_FORMS_MORE);
	}
	frame_forms_fini(&w);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		frame_set_number(f, numbers[i]);
		check_said(&f->body, false, numbers[i]);
		for (unsigned v = 0; v < FRAME_N_VARIANTS; v++) {
			CHECK_EQ(f->variant[v] != NULL, (want >> v) & 1);
			if (f->variant[v])
				check_said(f->variant[v], v >= FRAME_VARIANT_DEFLATED, numbers[i]);
		}
	}
	frame_unref(f);
	buf_fini(&packed);
	rig_fini(&r);
}

TEST(frame_has_its_number_in_all_forms_though_they_were_made_before)
{
	for (size_t max_frame = 300; max_frame <= 1024 * 1024; max_frame *= 7) {
		check_numbers(ZIP_NONE, max_frame);
		for (size_t i = 0; i < ARRAY_LEN(packed_kinds); i++)
			check_numbers(packed_kinds[i], max_frame);
	}
	CHECK_EQ(account, 0);
}

TEST(frame_that_is_unpacked_late_has_its_number)
{
	const struct msg_said said = {.channel = "room",
				      .sender = (const uint8_t *)"fedcba9876543210",
				      .sent_ms = 1234567890123,
				      .is_numbered = true};
	uint8_t data[DATA_BYTES], suffix[MSG_SUFFIX_MAX];
	struct buf packed = {0};
	struct msg_builder b;
	struct frame *f;
	struct rig r;

	rig_init(&r, 1024 * 1024, 1024 * 1024);
	fill(data, sizeof(data));
	CHECK_EQ(zip_pack_kind(&r.zip, ZIP_ZSTD, 6, data, sizeof(data), &packed), 0);
	msg_init_binary(&b, packed.data, packed.len, 0, true, WEBSOCKET__COMPRESSION_TYPE__ZSTD);
	f = frame_from_msg_said(&b, suffix, msg_suffix(suffix, &said), 1024 * 1024, &account);
	f->flags |= FRAME_NUMBERED | FRAME_IS_PACKED;
	f->packed_with = ZIP_ZSTD;
	f->seq = 41;
	frame_set_number(f, f->seq + 1);
	check_said(frame_variant_for(f, 0, DEFLATE_NONE, &r.m), false, 42);
	frame_unref(f);
	buf_fini(&packed);
	rig_fini(&r);
}

TEST(frame_moves_to_another_account_with_all_that_it_was_charged_with)
{
	_Atomic size_t other = 0;
	struct rig r;
	uint8_t data[DATA_BYTES];
	struct frame *f;
	size_t before;

	rig_init(&r, 1024 * 1024, 1024 * 1024);
	fill(data, sizeof(data));
	f = binary(data, sizeof(data), ZIP_NONE, 1024 * 1024);
	before = account;
	frame_move_account(f, &other);
	CHECK_EQ(account, 0);
	CHECK_EQ(other, before);
	(void)made_for(f, MSG_CAP_ZSTD, DEFLATE_NONE, &r.m);
	CHECK(other > before);
	CHECK_EQ(other, frame_charged(f));
	frame_move_account(f, &account);
	CHECK_EQ(other, 0);
	frame_unref(f);
	CHECK_EQ(account, 0);
	rig_fini(&r);
}
