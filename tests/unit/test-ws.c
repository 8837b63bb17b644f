/* SPDX-License-Identifier: MIT */
#include "wire/ws.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "test.h"

static const uint8_t KEY[4] = {0x37, 0xfa, 0x21, 0x3d};

/* Collects what a decoder reports and checks that pieces follow each other as they must. */
struct sink {
	bool in_frame;
	unsigned begun, ended;
	uint8_t opcode, rsv;
	bool fin;
	uint64_t frame_bytes, got;
	uint8_t *data; /* payloads of all frames, one behind the other */
	size_t len, cap;
	char trace[256]; /* one letter for each frame: opcode, "." where not final */
};

static void sink_take(struct sink *s, const struct ws_piece *p)
{
	size_t used = strlen(s->trace);

	CHECK_EQ(p->begins, !s->in_frame);
	if (p->begins) {
		s->begun++;
		s->opcode = p->opcode;
		s->rsv = p->rsv;
		s->fin = p->fin;
		s->frame_bytes = p->frame_bytes;
		s->got = 0;
		s->in_frame = true;
		snprintf(s->trace + used, sizeof(s->trace) - used, "%x%s", p->opcode,
			 p->fin ? "" : ".");
	}
	CHECK_EQ(p->opcode, s->opcode);
	CHECK_EQ(p->rsv, s->rsv);
	CHECK_EQ(p->fin, s->fin);
	CHECK_EQ(p->frame_bytes, s->frame_bytes);
	CHECK(p->begins || p->len > 0);
	CHECK(s->len + p->len <= s->cap);
	memcpy(s->data + s->len, p->data, p->len);
	s->len += p->len;
	s->got += p->len;
	CHECK(s->got <= s->frame_bytes);
	CHECK_EQ(p->ends, s->got == s->frame_bytes);
	if (p->ends) {
		s->ended++;
		s->in_frame = false;
	}
}

/* Feeds all of @bytes; returns the close code, or 0. */
static uint16_t feed_all(struct ws_decoder *d, uint8_t *bytes, size_t n, struct sink *s)
{
	for (;;) {
		struct ws_piece piece;
		uint16_t code = 0;
		size_t used = SIZE_MAX;
		enum ws_result r = ws_decoder_feed(d, bytes, n, &used, &piece, &code);

		CHECK(used <= n);
		if (r == WS_BROKEN)
			return code;
		if (r == WS_MORE) {
			CHECK_EQ(used, n);
			return 0;
		}
		CHECK(piece.data >= bytes && piece.data + piece.len == bytes + used);
		sink_take(s, &piece);
		bytes += used;
		n -= used;
		if (n == 0)
			return 0;
	}
}

static struct sink sink_new(size_t cap)
{
	return (struct sink){.data = malloc(cap + 1), .cap = cap};
}

/* Appends a frame to @out as the peer of @role would send it; returns the new length. */
static size_t put_frame(uint8_t *out, size_t at, enum ws_role role, bool fin, uint8_t rsv,
			uint8_t opcode, const uint8_t *payload, size_t n)
{
	at += ws_encode_head(out + at, fin, rsv, opcode, n, role == WS_SERVER ? KEY : NULL);
	if (n)
		memcpy(out + at, payload, n);
	if (role == WS_SERVER)
		ws_mask(out + at, n, KEY, 0);
	return at + n;
}

static void fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i * 7 + (i >> 8) + 3);
}

/* A message in three fragments with a ping and a pong between, empty frames, a long one. */
static size_t put_conversation(uint8_t *out, enum ws_role role, const uint8_t *payload)
{
	size_t n = 0;

	n = put_frame(out, n, role, false, 0, WS_TEXT, payload, 5);
	n = put_frame(out, n, role, true, 0, WS_PING, payload, 0);
	n = put_frame(out, n, role, false, 0, WS_CONTINUATION, payload + 5, 0);
	n = put_frame(out, n, role, true, 0, WS_PONG, payload + 5, 125);
	n = put_frame(out, n, role, true, 0, WS_CONTINUATION, payload + 130, 1);
	n = put_frame(out, n, role, true, 0, WS_BINARY, payload + 131, 300);
	n = put_frame(out, n, role, true, 0, WS_BINARY, payload + 431, 0);
	return put_frame(out, n, role, true, 0, WS_CLOSE, payload + 431, 2);
}

#define CONVERSATION_TRACE "1.90.a0228"
#define CONVERSATION_PAYLOAD 433
#define CONVERSATION_FRAMES 8
#define CONVERSATION_MAX 600

TEST(ws_head_has_the_shortest_form)
{
	static const struct {
		uint64_t len;
		size_t head;
		uint8_t bytes[10];
	} row[] = {
		{0, 2, {0x82, 0}},
		{125, 2, {0x82, 125}},
		{126, 4, {0x82, 126, 0, 126}},
		{65535, 4, {0x82, 126, 0xff, 0xff}},
		{65536, 10, {0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
		{INT64_MAX, 10, {0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
	};
	uint8_t out[WS_MAX_HEAD];

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		CHECK_EQ(ws_encode_head(out, true, 0, WS_BINARY, row[i].len, NULL), row[i].head);
		CHECK_MEM(out, row[i].bytes, row[i].head);
		CHECK_EQ(ws_encode_head(out, true, 0, WS_BINARY, row[i].len, KEY), row[i].head + 4);
		CHECK_EQ(out[1], row[i].bytes[1] | 0x80);
		CHECK_MEM(out + row[i].head, KEY, 4);
	}
	CHECK_EQ(ws_encode_head(out, false, WS_RSV1, WS_TEXT, 1, NULL), 2);
	CHECK_EQ(out[0], 0x41);
}

TEST(ws_mask_is_the_key_repeated_from_any_offset_at_any_address)
{
	uint8_t want[300], got[320];

	for (size_t n = 0; n <= 200; n++) {
		for (uint64_t offset = 0; offset < 5; offset++) {
			size_t at = (n + offset) % 17;

			fill(want, n);
			memset(got, 0xee, sizeof(got));
			memcpy(got + at, want, n);
			for (size_t i = 0; i < n; i++)
				want[i] ^= KEY[(offset + i) % 4];
			ws_mask(got + at, n, KEY, offset);
			CHECK_MEM(got + at, want, n);
			CHECK_EQ(got[at + n], 0xee);
			CHECK(at == 0 || got[at - 1] == 0xee);
		}
	}
}

TEST(ws_mask_in_parts_is_the_mask_of_the_whole)
{
	uint64_t seed = test_seed();
	uint8_t whole[1000], parts[1000];

	fill(whole, sizeof(whole));
	memcpy(parts, whole, sizeof(parts));
	ws_mask(whole, sizeof(whole), KEY, 0);
	for (size_t at = 0; at < sizeof(parts);) {
		size_t n = MIN((size_t)(test_random(&seed) % 150), sizeof(parts) - at);

		ws_mask(parts + at, n, KEY, at);
		at += n;
	}
	CHECK_MEM(whole, parts, sizeof(whole));
}

TEST(ws_decoder_returns_frames_of_every_length_however_they_are_chopped)
{
	static const size_t length[] = {0,    1,     2,     124,   125,   126,
					127,  128,   4095,  4096,  4097,  8191,
					8193, 65535, 65536, 65537, 70000, 1 << 20};
	uint64_t seed = test_seed();

	for (size_t i = 0; i < ARRAY_LEN(length) * 4; i++) {
		size_t n = length[i / 4];
		enum ws_role role = i & 1 ? WS_CLIENT : WS_SERVER;
		size_t chop = i & 2 ? 1 + n / 3 : SIZE_MAX;
		struct ws_decoder *d = ws_decoder_new(role, 0);
		struct sink s = sink_new(2 * n);
		uint8_t *payload = malloc(n + 1), *bytes = malloc(2 * (n + WS_MAX_HEAD));
		size_t total;

		fill(payload, n);
		total = put_frame(bytes, 0, role, false, 0, WS_BINARY, payload, n);
		total = put_frame(bytes, total, role, true, 0, WS_CONTINUATION, payload, n);
		for (size_t at = 0; at < total;) {
			size_t part = chop == SIZE_MAX ? total : 1 + test_random(&seed) % chop;

			part = MIN(part, total - at);
			CHECK_EQ(feed_all(d, bytes + at, part, &s), 0);
			at += part;
		}
		CHECK_STR(s.trace, "2.0");
		CHECK_EQ(s.ended, 2);
		CHECK_EQ(s.len, 2 * n);
		CHECK_MEM(s.data, payload, n);
		CHECK_MEM(s.data + n, payload, n);
		CHECK(ws_decoder_is_idle(d));
		free(s.data);
		free(payload);
		free(bytes);
		ws_decoder_free(d);
	}
}

/* Heads, keys and payloads cut at each byte, control frames between fragments, both roles. */
TEST(ws_decoder_understands_a_conversation_split_at_every_byte)
{
	uint8_t payload[CONVERSATION_PAYLOAD], bytes[CONVERSATION_MAX];

	fill(payload, sizeof(payload));
	for (int role = WS_SERVER; role <= WS_CLIENT; role++) {
		struct ws_decoder *d = ws_decoder_new(role, 0);
		size_t total = put_conversation(bytes, role, payload);

		for (size_t cut = 0; cut <= total; cut++) {
			struct sink s = sink_new(CONVERSATION_PAYLOAD);

			total = put_conversation(bytes, role, payload);
			CHECK_EQ(feed_all(d, bytes, cut, &s), 0);
			CHECK_EQ(feed_all(d, bytes + cut, total - cut, &s), 0);
			CHECK_STR(s.trace, CONVERSATION_TRACE);
			CHECK_EQ(s.ended, CONVERSATION_FRAMES);
			CHECK_EQ(s.len, sizeof(payload));
			CHECK_MEM(s.data, payload, sizeof(payload));
			CHECK(ws_decoder_is_idle(d));
			free(s.data);
		}
		ws_decoder_free(d);
	}
}

TEST(ws_decoder_understands_a_conversation_byte_by_byte)
{
	uint8_t payload[CONVERSATION_PAYLOAD], bytes[CONVERSATION_MAX];
	struct ws_decoder *d = ws_decoder_new(WS_SERVER, 0);
	struct sink s = sink_new(CONVERSATION_PAYLOAD);
	size_t total;

	fill(payload, sizeof(payload));
	total = put_conversation(bytes, WS_SERVER, payload);
	for (size_t i = 0; i < total; i++)
		CHECK_EQ(feed_all(d, bytes + i, 1, &s), 0);
	CHECK_STR(s.trace, CONVERSATION_TRACE);
	CHECK_MEM(s.data, payload, sizeof(payload));
	free(s.data);
	ws_decoder_free(d);
}

TEST(ws_decoder_reports_a_head_before_its_payload_comes)
{
	struct ws_decoder *d = ws_decoder_new(WS_SERVER, 0);
	uint8_t bytes[WS_MAX_HEAD + 3];
	size_t head = ws_encode_head(bytes, true, 0, WS_BINARY, 1ULL << 40, KEY);
	struct ws_piece piece;
	uint16_t code;
	size_t used;

	CHECK_EQ(ws_decoder_feed(d, bytes, head - 1, &used, &piece, &code), WS_MORE);
	CHECK_EQ(used, head - 1);
	CHECK_EQ(ws_decoder_feed(d, bytes + head - 1, 1, &used, &piece, &code), WS_PIECE);
	CHECK_EQ(used, 1);
	CHECK(piece.begins && !piece.ends && piece.fin);
	CHECK_EQ(piece.len, 0);
	CHECK_EQ(piece.frame_bytes, 1ULL << 40);
	CHECK_EQ(ws_decoder_feed(d, bytes, 0, &used, &piece, &code), WS_MORE);
	CHECK(!ws_decoder_is_idle(d));
	CHECK_EQ(ws_decoder_feed(d, bytes + head, 3, &used, &piece, &code), WS_PIECE);
	CHECK(!piece.begins && !piece.ends);
	CHECK_EQ(piece.len, 3);
	ws_decoder_free(d);
}

TEST(ws_decoder_takes_one_byte_of_payload_only_when_it_is_there)
{
	struct ws_decoder *d = ws_decoder_new(WS_CLIENT, 0);
	uint8_t bytes[] = {0x82, 1, 'x'};
	struct ws_piece piece;
	uint16_t code;
	size_t used;

	CHECK_EQ(ws_decoder_feed(d, bytes, 2, &used, &piece, &code), WS_PIECE);
	CHECK(piece.begins && !piece.ends);
	CHECK(!ws_decoder_is_idle(d));
	CHECK_EQ(ws_decoder_feed(d, bytes + 2, 1, &used, &piece, &code), WS_PIECE);
	CHECK(!piece.begins && piece.ends);
	CHECK(ws_decoder_is_idle(d));
	ws_decoder_free(d);
}

/* What breaks the protocol, and the byte that shows it. */
static const struct {
	enum ws_role role;
	uint8_t allowed;
	uint8_t n;
	uint8_t bytes[10];
} broken[] = {
	{WS_SERVER, 0, 2, {0x82, 0x05}}, /* no mask */
	{WS_CLIENT, 0, 2, {0x82, 0x85}}, /* masked */
	{WS_SERVER, 0, 1, {0xc2}},       /* RSV1 */
	{WS_SERVER, 0, 1, {0xa2}},       /* RSV2 */
	{WS_SERVER, 0, 1, {0x92}},       /* RSV3 */
	{WS_SERVER, WS_RSV1, 1, {0xe2}}, /* RSV2 beside an allowed one */
	{WS_SERVER, WS_RSV1, 1, {0xc0}}, /* RSV1 on a continuation */
	{WS_SERVER, WS_RSV1, 1, {0xc8}}, /* RSV1 on a close */
	{WS_SERVER, WS_RSV1, 1, {0xc9}}, /* RSV1 on a ping */
	{WS_SERVER, WS_RSV1, 1, {0xca}}, /* RSV1 on a pong */
	{WS_SERVER, 0, 1, {0x83}},       /* reserved opcodes */
	{WS_SERVER, 0, 1, {0x84}},
	{WS_SERVER, 0, 1, {0x85}},
	{WS_SERVER, 0, 1, {0x86}},
	{WS_SERVER, 0, 1, {0x87}},
	{WS_SERVER, 0, 1, {0x8b}},
	{WS_SERVER, 0, 1, {0x8c}},
	{WS_SERVER, 0, 1, {0x8d}},
	{WS_SERVER, 0, 1, {0x8e}},
	{WS_SERVER, 0, 1, {0x8f}},
	{WS_SERVER, 0, 2, {0x08, 0x80}},         /* fragmented close */
	{WS_SERVER, 0, 2, {0x09, 0x80}},         /* fragmented ping */
	{WS_SERVER, 0, 2, {0x89, 0xfe}},         /* ping longer than 125 */
	{WS_SERVER, 0, 2, {0x8a, 0xff}},         /* pong longer than 125 */
	{WS_SERVER, 0, 4, {0x82, 0xfe, 0, 125}}, /* length not in its shortest form */
	{WS_SERVER, 0, 10, {0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff}},
	{WS_CLIENT, 0, 10, {0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0}}, /* 64 bits */
	{WS_CLIENT, 0, 4, {0x82, 0x7e, 0, 0}},
};

TEST(ws_decoder_refuses_a_broken_head_at_the_byte_that_is_wrong)
{
	for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
		for (int split = 0; split < 2; split++) {
			struct ws_decoder *d = ws_decoder_new(broken[i].role, broken[i].allowed);
			struct sink s = sink_new(10);
			uint8_t bytes[10];
			size_t n = broken[i].n;
			uint16_t code = 0;

			memcpy(bytes, broken[i].bytes, n);
			if (!split)
				code = feed_all(d, bytes, n, &s);
			for (size_t at = 0; split && at < n; at++) {
				CHECK_EQ(code, 0);
				code = feed_all(d, bytes + at, 1, &s);
			}
			CHECK_EQ(code, 1002);
			CHECK_EQ(s.begun, 0);
			CHECK_EQ(feed_all(d, bytes, n, &s), 1002); /* and stays broken */
			CHECK(!ws_decoder_is_idle(d));
			free(s.data);
			ws_decoder_free(d);
		}
	}
}

TEST(ws_decoder_takes_the_longest_control_frame_and_the_longest_length)
{
	struct ws_decoder *d = ws_decoder_new(WS_CLIENT, 0);
	struct sink s = sink_new(200);
	uint8_t payload[WS_MAX_CONTROL] = {0}, bytes[200];
	size_t n = put_frame(bytes, 0, WS_CLIENT, true, 0, WS_PING, payload, sizeof(payload));

	n += ws_encode_head(bytes + n, true, 0, WS_BINARY, INT64_MAX, NULL);
	CHECK_EQ(feed_all(d, bytes, n, &s), 0);
	CHECK_STR(s.trace, "92");
	CHECK_EQ(s.frame_bytes, INT64_MAX);
	free(s.data);
	ws_decoder_free(d);
}

TEST(ws_decoder_lets_through_the_rsv_bits_that_were_granted)
{
	struct ws_decoder *d = ws_decoder_new(WS_CLIENT, WS_RSV1);
	struct sink s = sink_new(10);
	uint8_t bytes[] = {0x41, 1, 'x', 0x80, 1, 'y'};

	CHECK_EQ(feed_all(d, bytes, 3, &s), 0);
	CHECK_EQ(s.rsv, WS_RSV1);
	CHECK_EQ(feed_all(d, bytes + 3, 3, &s), 0);
	CHECK_EQ(s.rsv, 0);
	CHECK_EQ(ws_decoder_reset(d, 0), 0);
	CHECK_EQ(feed_all(d, bytes, 3, &s), 1002);
	free(s.data);
	ws_decoder_free(d);
}

/* Left in mid-frame at each byte, or broken: the next connection finds it as new. */
TEST(ws_decoder_serves_another_connection_after_a_reset)
{
	struct ws_decoder *d = ws_decoder_new(WS_SERVER, 0);
	uint8_t payload[CONVERSATION_PAYLOAD], bytes[CONVERSATION_MAX];
	uint8_t bad[] = {0x83};
	size_t total;

	fill(payload, sizeof(payload));
	total = put_conversation(bytes, WS_SERVER, payload);
	for (size_t cut = 0; cut <= total; cut++) {
		struct sink s = sink_new(CONVERSATION_PAYLOAD), left = sink_new(1000);

		CHECK_EQ(feed_all(d, bytes, cut, &left), 0);
		if (cut % 3 == 0)
			(void)feed_all(d, bad, 1, &left);
		CHECK_EQ(ws_decoder_reset(d, 0), 0);
		CHECK(ws_decoder_is_idle(d));
		put_conversation(bytes, WS_SERVER, payload);
		CHECK_EQ(feed_all(d, bytes, total, &s), 0);
		CHECK_STR(s.trace, CONVERSATION_TRACE);
		CHECK_MEM(s.data, payload, sizeof(payload));
		put_conversation(bytes, WS_SERVER, payload);
		free(s.data);
		free(left.data);
	}
	ws_decoder_free(d);
}

TEST(ws_decoder_goes_on_in_another_object_from_every_byte)
{
	uint8_t payload[CONVERSATION_PAYLOAD], bytes[CONVERSATION_MAX];
	size_t total;

	fill(payload, sizeof(payload));
	total = put_conversation(bytes, WS_SERVER, payload);
	for (size_t cut = 0; cut <= total; cut++) {
		struct ws_decoder *d = ws_decoder_new(WS_SERVER, WS_RSV1);
		struct ws_decoder *next = ws_decoder_new(WS_SERVER, 0);
		struct sink s = sink_new(CONVERSATION_PAYLOAD);
		struct ws_decoder_state state, again;

		put_conversation(bytes, WS_SERVER, payload);
		CHECK_EQ(feed_all(d, bytes, cut, &s), 0);
		ws_decoder_save(d, &state);
		CHECK_EQ(state.head_len == 0, ws_decoder_is_idle(d));
		CHECK_EQ(ws_decoder_restore(next, &state), 0);
		ws_decoder_save(next, &again);
		CHECK_MEM(&state, &again, sizeof(state));
		CHECK_EQ(feed_all(next, bytes + cut, total - cut, &s), 0);
		CHECK_STR(s.trace, CONVERSATION_TRACE);
		CHECK_MEM(s.data, payload, sizeof(payload));
		free(s.data);
		ws_decoder_free(d);
		ws_decoder_free(next);
	}
}

TEST(ws_decoder_goes_on_far_into_a_long_frame)
{
	struct ws_decoder *d = ws_decoder_new(WS_CLIENT, 0);
	struct ws_decoder_state state = {.offset = (16 << 20) - 2};
	struct sink s = {.in_frame = true, .frame_bytes = 16 << 20, .got = (16 << 20) - 2};
	uint8_t bytes[] = {1, 2}, out[2];

	state.head_len = (uint8_t)ws_encode_head(state.head, true, 0, WS_BINARY, 16 << 20, NULL);
	s.opcode = WS_BINARY;
	s.fin = true;
	s.data = out;
	s.cap = sizeof(out);
	CHECK_EQ(ws_decoder_restore(d, &state), 0);
	CHECK_EQ(feed_all(d, bytes, 2, &s), 0);
	CHECK_EQ(s.ended, 1);
	CHECK(ws_decoder_is_idle(d));
	ws_decoder_free(d);
}

TEST(ws_decoder_refuses_a_state_that_cannot_be)
{
	static const struct ws_decoder_state state[] = {
		{.offset = 1},
		{.head = {0x82}, .head_len = 1, .offset = 1},
		{.head = {0x83}, .head_len = 1},
		{.head = {0x82, 0x85}, .head_len = 2},
		{.head = {0x82, 0x05, 'x'}, .head_len = 3},
		{.head = {0x82, 0x05}, .head_len = 2, .offset = 5},
		{.head = {0x82, 0x00}, .head_len = 2},
		{.head = {0x82, 0x05}, .head_len = 15},
		{.head = {0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0}, .head_len = 255},
	};

	for (size_t i = 0; i < ARRAY_LEN(state); i++) {
		struct ws_decoder *d = ws_decoder_new(WS_CLIENT, 0);
		struct sink s = sink_new(10);
		uint8_t bytes[] = {0x82, 1, 'x'};

		CHECK_EQ(ws_decoder_restore(d, &state[i]), -EINVAL);
		CHECK(!ws_decoder_is_idle(d));
		CHECK_EQ(feed_all(d, bytes, 3, &s), 1002);
		CHECK_EQ(ws_decoder_reset(d, 0), 0);
		CHECK_EQ(feed_all(d, bytes, 3, &s), 0);
		CHECK_EQ(s.ended, 1);
		CHECK_EQ(feed_all(d, bytes, 1, &s), 0);
		CHECK_EQ(ws_decoder_restore(d, &(struct ws_decoder_state){0}), -EINVAL);
		free(s.data);
		ws_decoder_free(d);
	}
	CHECK(!ws_decoder_free(NULL));
}

TEST(ws_decoder_survives_any_bytes)
{
	uint64_t seed = test_seed();
	struct ws_decoder *d = ws_decoder_new(WS_SERVER, WS_RSV1);

	for (int round = 0; round < 20000; round++) {
		struct sink s = sink_new(64);
		uint8_t bytes[64];

		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)test_random(&seed);
		bytes[0] &= 0x8f; /* so that some heads are sound */
		bytes[1] |= 0x80;
		if (round & 1)
			bytes[1] &= 0x87;
		for (size_t at = 0; at < sizeof(bytes);) {
			size_t n = 1 + test_random(&seed) % (sizeof(bytes) - at);

			if (feed_all(d, bytes + at, n, &s))
				break;
			at += n;
		}
		free(s.data);
		CHECK_EQ(ws_decoder_reset(d, WS_RSV1), 0);
	}
	ws_decoder_free(d);
}

TEST(ws_close_code_validity_follows_the_registry)
{
	for (unsigned code = 0; code <= UINT16_MAX; code++) {
		bool want = (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 &&
			     code != 1006) ||
			    (code >= 3000 && code <= 4999);

		CHECK_EQ(ws_close_code_is_valid((uint16_t)code), want);
	}
}

TEST(ws_parse_close_reads_code_and_reason)
{
	static const struct {
		enum ws_close_result want;
		uint16_t code;
		const char *reason;
		size_t n;
		uint8_t bytes[8];
	} row[] = {
		{WS_CLOSE_OK, 1005, "", 0, {0}},
		{WS_CLOSE_BROKEN, 0, "", 1, {3}},
		{WS_CLOSE_OK, 1000, "", 2, {3, 232}},
		{WS_CLOSE_OK, 4999, "bye", 5, {19, 135, 'b', 'y', 'e'}},
		{WS_CLOSE_OK, 1001, "\303\244", 4, {3, 233, 0xc3, 0xa4}},
		{WS_CLOSE_BROKEN, 0, "", 2, {3, 237}}, /* 1005 */
		{WS_CLOSE_BROKEN, 0, "", 2, {3, 247}}, /* 1015 */
		{WS_CLOSE_BROKEN, 0, "", 4, {0, 0, 0xff, 0xff}},
		{WS_CLOSE_BAD_UTF8, 0, "", 3, {3, 232, 0xc3}},             /* cut character */
		{WS_CLOSE_BAD_UTF8, 0, "", 5, {3, 232, 0xed, 0xa0, 0x80}}, /* surrogate */
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		const char *reason = "untouched";
		uint16_t code = 7;
		size_t len = 7;

		CHECK_EQ(ws_parse_close(row[i].n ? row[i].bytes : NULL, row[i].n, &code, &reason,
					&len),
			 row[i].want);
		if (row[i].want != WS_CLOSE_OK) {
			CHECK(code == 7 && len == 7);
			CHECK_STR(reason, "untouched");
			continue;
		}
		CHECK_EQ(code, row[i].code);
		CHECK_EQ(len, strlen(row[i].reason));
		CHECK_MEM(reason, row[i].reason, len);
	}
}

TEST(ws_format_close_cuts_a_long_reason_between_characters)
{
	uint8_t out[WS_MAX_CONTROL];
	char reason[200];
	const char *text;
	uint16_t code;
	size_t len;

	CHECK_EQ(ws_format_close(out, 1005, "never sent"), 0);
	CHECK_EQ(ws_format_close(out, 1006, ""), 0);
	CHECK_EQ(ws_format_close(out, 1013, ""), 2);
	CHECK_EQ(ws_format_close(out, 1013, "slow consumer"), 15);
	CHECK_MEM(out, "\003\365slow consumer", 15);

	memset(reason, 'a', sizeof(reason));
	reason[123] = '\0';
	CHECK_EQ(ws_format_close(out, 1000, reason), 125);
	reason[123] = 'a';
	reason[sizeof(reason) - 1] = '\0';
	CHECK_EQ(ws_format_close(out, 1000, reason), 125);
	memcpy(reason + 121, "\342\202\254", 3);
	CHECK_EQ(ws_format_close(out, 1000, reason), 123);
	CHECK_EQ(ws_parse_close(out, 123, &code, &text, &len), WS_CLOSE_OK);
	CHECK_EQ(len, 121);
}
