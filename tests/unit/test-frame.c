/* SPDX-License-Identifier: MIT */
#include "wire/frame.h"

#include "test.h"
#include "wire/ws.h"

/* What all frames of these tests are charged to; each test leaves it at 0. */
static _Atomic size_t account;

/* Around each change of a header's length, and around multiples of the cuts. */
static const size_t sizes[] = {0,   1,    2,    124,   125,   126,   127,   128,   129,   250,
			       999, 1000, 1001, 65534, 65535, 65536, 65537, 70000, 131072};
static const size_t cuts[] = {1, 2, 7, 125, 126, 127, 1000, 65535, 65536, 65537, SIZE_MAX};

/* More pieces than this say nothing new. */
#define MAX_PIECES 1000

static uint8_t *random_bytes(size_t n)
{
	uint64_t random = test_seed();
	uint8_t *p = malloc(n + 1);

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(test_random(&random) >> 56);
	return p;
}

/* A message as RFC 6455 section 5.2 draws it, byte by byte. */
struct naive {
	uint8_t *bytes;
	uint8_t *starts; /* 1 where a frame begins, or nothing more comes */
	size_t len;
};

static void naive_frame(struct naive *e, unsigned first, const uint8_t *p, size_t n)
{
	int bits = n < 126 ? 0 : n < 65536 ? 16 : 64;

	e->starts[e->len] = 1;
	e->bytes[e->len++] = (uint8_t)first;
	e->bytes[e->len++] = (uint8_t)(bits == 0 ? n : bits == 16 ? 126 : 127);
	for (int shift = bits - 8; shift >= 0; shift -= 8)
		e->bytes[e->len++] = (uint8_t)(n >> shift);
	for (size_t i = 0; i < n; i++)
		e->bytes[e->len++] = p[i];
}

static struct naive naive_encode(uint8_t opcode, const uint8_t *p, size_t n, size_t cut)
{
	size_t room = n + 10 * (n / cut + 2);
	struct naive e = {.bytes = malloc(room), .starts = calloc(1, room)};

	while (n > cut) {
		naive_frame(&e, opcode, p, cut);
		p += cut;
		n -= cut;
		opcode = WS_CONTINUATION;
	}
	naive_frame(&e, 0x80u | opcode, p, n);
	e.starts[e.len] = 1;
	return e;
}

static void naive_fini(struct naive *e)
{
	free(e->bytes);
	free(e->starts);
}

/* Everything that frame.h says of the bytes @b of a message. */
static void check_bytes(const struct frame_bytes *b, uint8_t opcode, const uint8_t *p, size_t n,
			size_t cut)
{
	struct naive e = naive_encode(opcode, p, n, cut);

	CHECK_EQ(b->len, e.len);
	CHECK_MEM(b->bytes, e.bytes, e.len);
	for (size_t i = 0; i <= e.len; i++)
		if (frame_bytes_is_boundary(b, i) != e.starts[i])
			CHECK_EQ(i, SIZE_MAX);
	naive_fini(&e);
}

static void check_payload(struct frame *f, const uint8_t *p, size_t n, size_t cut)
{
	uint8_t *copy = malloc(n + 1);

	copy[n] = 0xa5;
	CHECK_EQ(frame_payload_len(f), n);
	frame_copy_payload(f, copy);
	CHECK_EQ(copy[n], 0xa5);
	CHECK(n == 0 || memcmp(copy, p, n) == 0);
	free(copy);
	if (n > cut)
		CHECK(frame_payload(f) == NULL);
	else
		CHECK(frame_payload(f) == f->body.bytes + f->body.len - n);
}

TEST(frame_is_laid_out_as_by_a_naive_encoder)
{
	uint8_t *p = random_bytes(131072);

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		for (size_t k = 0; k < ARRAY_LEN(cuts); k++) {
			struct frame *f;

			if (sizes[i] / cuts[k] > MAX_PIECES)
				continue;
			f = frame_new(WS_BINARY, sizes[i], cuts[k], &account);
			CHECK(f != NULL);
			CHECK_EQ(f->opcode, WS_BINARY);
			CHECK_EQ(f->flags, 0);
			CHECK_EQ(atomic_load(&account), sizeof(*f) + f->body.len);
			frame_write(f, 0, p, sizes[i]);
			check_bytes(&f->body, WS_BINARY, p, sizes[i], cuts[k]);
			check_payload(f, p, sizes[i], cuts[k]);
			CHECK(frame_unref(f) == NULL);
			CHECK_EQ(atomic_load(&account), 0);
		}
	}
	free(p);
}

/* Reads bytes as a client does; returns how many frames there were. */
static size_t read_as_client(const struct frame_bytes *b, uint8_t opcode, uint8_t *out, size_t n)
{
	struct ws_decoder *d = ws_decoder_new(WS_CLIENT, 0);
	uint8_t *bytes = malloc(b->len);
	size_t at = 0, got = 0, frames = 0, used;
	struct ws_piece piece;
	uint16_t code = 0;
	bool fin = false;

	memcpy(bytes, b->bytes, b->len);
	while (ws_decoder_feed(d, bytes + at, b->len - at, &used, &piece, &code) == WS_PIECE) {
		CHECK(!fin || !piece.begins);
		CHECK(got + piece.len <= n);
		CHECK_EQ(piece.rsv, 0);
		if (piece.begins)
			CHECK_EQ(piece.opcode, frames++ == 0 ? opcode : WS_CONTINUATION);
		if (piece.len)
			memcpy(out + got, piece.data, piece.len);
		got += piece.len;
		at += used;
		fin = piece.fin;
		CHECK_EQ(frame_bytes_is_boundary(b, at), piece.ends);
	}
	CHECK_EQ(code, 0);
	CHECK(fin && ws_decoder_is_idle(d));
	CHECK_EQ(at, b->len);
	CHECK_EQ(got, n);
	ws_decoder_free(d);
	free(bytes);
	return frames;
}

TEST(frame_is_read_back_by_a_client)
{
	uint8_t *p = random_bytes(131072);
	uint8_t *out = malloc(131072);

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		for (size_t k = 0; k < ARRAY_LEN(cuts); k++) {
			size_t n = sizes[i], cut = cuts[k];
			size_t frames = n > cut ? n / cut + (n % cut > 0) : 1;
			struct frame *f;

			if (frames > MAX_PIECES)
				continue;
			f = frame_new(WS_TEXT, n, cut, &account);
			CHECK(f != NULL);
			frame_write(f, 0, p, n);
			CHECK_EQ(read_as_client(&f->body, WS_TEXT, out, n), frames);
			CHECK(n == 0 || memcmp(out, p, n) == 0);
			f = frame_unref(f);
		}
	}
	CHECK_EQ(atomic_load(&account), 0);
	free(out);
	free(p);
}

/* Parts of any length in any order: the last byte first, and pieces that parts begin and end in. */
TEST(frame_is_written_in_parts_at_any_offset)
{
	static const size_t lens[] = {300, 1000, 66000};
	uint64_t random = test_seed();
	uint8_t *p = random_bytes(66000);

	for (int round = 0; round < 200; round++) {
		size_t n = lens[round % ARRAY_LEN(lens)];
		size_t cut = 1 + test_random(&random) % (n + n / 4);
		struct frame *f = frame_new(WS_BINARY, n, cut, &account);

		CHECK(f != NULL);
		for (size_t end = n; end > 0;) {
			size_t part = 1 + test_random(&random) % MIN(end, n / 5);

			end -= part;
			frame_write(f, end, p + end, part);
		}
		frame_write(f, n / 2, p + n / 2, n - n / 2);
		frame_write(f, n, p, 0);
		check_bytes(&f->body, WS_BINARY, p, n, cut);
		f = frame_unref(f);
	}
	CHECK_EQ(atomic_load(&account), 0);
	free(p);
}

TEST(frame_of_control_is_never_cut)
{
	static const uint8_t opcodes[] = {WS_CLOSE, WS_PING, WS_PONG};
	uint8_t *p = random_bytes(WS_MAX_CONTROL);

	for (size_t i = 0; i < ARRAY_LEN(opcodes); i++) {
		struct frame *f = frame_new(opcodes[i], WS_MAX_CONTROL, 10, &account);

		CHECK(f != NULL);
		CHECK_EQ(f->flags, FRAME_CONTROL);
		frame_write(f, 0, p, WS_MAX_CONTROL);
		check_bytes(&f->body, opcodes[i], p, WS_MAX_CONTROL, SIZE_MAX);
		f = frame_unref(f);
	}
	CHECK_EQ(atomic_load(&account), 0);
	free(p);
}

TEST(frame_of_raw_bytes_has_no_header_and_no_boundary_within)
{
	static const char text[] = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
	struct frame *f = frame_new_raw(text, sizeof(text), &account);

	CHECK(f != NULL);
	CHECK_EQ(f->flags, FRAME_CONTROL);
	CHECK_EQ(f->body.len, sizeof(text));
	CHECK_MEM(f->body.bytes, text, sizeof(text));
	CHECK_EQ(atomic_load(&account), sizeof(*f) + sizeof(text));
	for (size_t i = 0; i <= sizeof(text); i++)
		CHECK_EQ(frame_bytes_is_boundary(&f->body, i), i == 0 || i == sizeof(text));
	CHECK(!frame_varies(f));
	f = frame_unref(f);
	CHECK_EQ(atomic_load(&account), 0);
}

TEST(frame_joins_messages_as_long_as_they_fit)
{
	static const size_t lengths[] = {0, 1, 125, 126, 1000, 70000, 17};
	uint8_t *p = malloc(70000), *at;
	size_t total = 0;

	CHECK(p != NULL);
	memset(p, 'j', 70000);
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		struct naive e = naive_encode(WS_TEXT, p, lengths[i], SIZE_MAX);

		total += e.len;
		naive_fini(&e);
	}
	for (size_t spare = 0; spare < 3; spare++) {
		struct frame *f = frame_new_joined(total + spare, &account);

		CHECK(f != NULL);
		CHECK_EQ(atomic_load(&account), sizeof(*f) + total + spare);
		at = f->body.bytes;
		for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
			struct naive e = naive_encode(WS_TEXT, p, lengths[i], SIZE_MAX);

			CHECK(frame_join(f, WS_TEXT, lengths[i] ? p : NULL, lengths[i]));
			CHECK_EQ(f->messages, i + 1);
			CHECK_MEM(at, e.bytes, e.len);
			at += e.len;
			naive_fini(&e);
		}
		CHECK_EQ(f->body.len, total);
		CHECK_EQ(frame_join(f, WS_TEXT, p, 0), spare == 2);
		CHECK(!frame_join(f, WS_TEXT, p, 1));
		for (size_t i = 0; i <= f->body.len; i++)
			CHECK_EQ(frame_bytes_is_boundary(&f->body, i), i == 0 || i == f->body.len);
		f = frame_unref(f);
		CHECK_EQ(atomic_load(&account), 0);
	}
	free(p);
}

TEST(frame_of_one_message_is_joined_by_none)
{
	struct frame *f = frame_new(WS_BINARY, 10, SIZE_MAX, &account);

	CHECK(f != NULL && f->messages == 1);
	CHECK(!frame_join(f, WS_BINARY, "", 0));
	f = frame_unref(f);
}

TEST(frame_lives_until_its_last_reference)
{
	struct frame *f = frame_new(WS_BINARY, 1000, 100, &account);
	size_t charged = atomic_load(&account);

	CHECK(f != NULL);
	for (int i = 0; i < 5; i++)
		CHECK(frame_ref(f) == f);
	for (int i = 0; i < 5; i++) {
		CHECK(frame_unref(f) == NULL);
		CHECK_EQ(atomic_load(&account), charged);
		frame_write(f, 0, "alive", 5);
	}
	CHECK(frame_unref(f) == NULL);
	CHECK_EQ(atomic_load(&account), 0);
	CHECK(frame_unref(NULL) == NULL);
}

TEST(frame_of_a_builders_message_whole_and_cut)
{
	uint8_t packed[2000], out[2000];
	char content[1501];
	struct msg_builder b;
	size_t n;

	memset(content, 'x', sizeof(content) - 1);
	content[sizeof(content) - 1] = '\0';
	msg_init_chat(&b, "id", "user", content, 1234567890);
	msg_set_channel(&b, "room");
	n = msg_size(&b);
	CHECK(n <= sizeof(packed));
	CHECK_EQ(msg_pack(&b, packed), n);
	for (size_t k = 0; k < ARRAY_LEN(cuts); k++) {
		struct frame *f = frame_from_msg(&b, cuts[k], &account);

		CHECK(f != NULL);
		CHECK_EQ(f->opcode, WS_BINARY);
		check_bytes(&f->body, WS_BINARY, packed, n, cuts[k]);
		check_payload(f, packed, n, cuts[k]);
		read_as_client(&f->body, WS_BINARY, out, n);
		CHECK_MEM(out, packed, n);
		f = frame_unref(f);
		CHECK_EQ(atomic_load(&account), 0);
	}
}

TEST(frame_without_memory_is_null_and_charges_nothing)
{
	struct msg_builder b;

	CHECK(frame_new(WS_BINARY, (size_t)1 << 60, SIZE_MAX, &account) == NULL);
	CHECK(frame_new(WS_BINARY, (size_t)1 << 60, (size_t)1 << 20, &account) == NULL);
	CHECK_EQ(atomic_load(&account), 0);
	msg_init_binary(&b, "x", 1, 0, true, WEBSOCKET__COMPRESSION_TYPE__NONE);
	b.binary.data.len = (size_t)1 << 60;
	CHECK(frame_from_msg(&b, 1000, &account) == NULL);
	CHECK(frame_from_msg(&b, SIZE_MAX, &account) == NULL);
	CHECK_EQ(atomic_load(&account), 0);
}
