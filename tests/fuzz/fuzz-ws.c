/* SPDX-License-Identifier: MIT */
/*
 * Frames. Input: a byte of what the decoder is (bit 0: client; bits 1 to 3: RSV bits
 * allowed), a byte that decides where the stream is cut, the stream.
 *
 * What is decoded is compared as a list of heads, payload bytes and ends: at once, cut
 * anywhere, and going on in another decoder at any cut must give the same list, which
 * is that of a small decoder of its own below. The frames that came are encoded again,
 * and must be the same frames then.
 */
#include "fuzz.h"

#include "base/text.h"
#include "wire/ws.h"

enum mark {
	MARK_HEAD = 1,
	MARK_END,
	MARK_BROKEN,
};

/* One entry of the list, before or behind payload bytes. */
struct WB_VALUE entry {
	uint64_t frame_bytes;
	uint16_t close_code;
	uint8_t mark;
	uint8_t opcode;
	uint8_t rsv;
	uint8_t fin;
	uint8_t spare[2];
};

static enum ws_role role;
static uint8_t allowed_rsv;

static void list_head(struct buf *list, bool fin, uint8_t rsv, uint8_t opcode, uint64_t n)
{
	const struct entry e = {
		.mark = MARK_HEAD, .fin = fin, .rsv = rsv, .opcode = opcode, .frame_bytes = n};

	fuzz_append(list, &e, sizeof(e));
}

static void list_mark(struct buf *list, enum mark mark, uint16_t code)
{
	const struct entry e = {.mark = (uint8_t)mark, .close_code = code};

	fuzz_append(list, &e, sizeof(e));
}

/* -------------------------------------------------------- the decoder under test */

static void list_piece(struct buf *list, const struct ws_piece *w, const uint8_t *p, size_t used)
{
	WB_ASSERT(w->len == 0 || (w->data >= p && w->data + w->len <= p + used));
	WB_ASSERT(w->len <= w->frame_bytes);
	if (w->begins)
		list_head(list, w->fin, w->rsv, w->opcode, w->frame_bytes);
	fuzz_append(list, w->data, w->len);
	if (w->ends)
		list_mark(list, MARK_END, 0);
}

/* Feeds one piece of the stream; false when the decoder said that it is broken. */
static bool feed(struct ws_decoder *d, const uint8_t *stream, size_t n, struct buf *list)
{
	uint8_t *bytes = fuzz_copy(stream, n);
	enum ws_result r = WS_PIECE;
	size_t at = 0;

	while (r == WS_PIECE) {
		struct ws_piece w = {0};
		uint16_t code = 0;
		size_t used = SIZE_MAX;

		r = ws_decoder_feed(d, bytes + at, n - at, &used, &w, &code);
		WB_ASSERT(used <= n - at && (r != WS_MORE || used == n - at));
		if (r == WS_PIECE)
			list_piece(list, &w, bytes + at, used);
		if (r == WS_PIECE && w.ends)
			WB_ASSERT(ws_decoder_is_idle(d));
		if (r == WS_BROKEN)
			list_mark(list, MARK_BROKEN, code);
		at += used;
	}
	free(bytes);
	return r == WS_MORE;
}

static struct ws_decoder *new_decoder(void)
{
	struct ws_decoder *d = ws_decoder_new(role, allowed_rsv);

	WB_ASSERT(d);
	return d;
}

/* Another decoder that goes on where @d stands; used ones are used again. */
static struct ws_decoder *move_on(struct ws_decoder *d)
{
	struct ws_decoder *other = new_decoder();
	struct ws_decoder_state state;
	bool was_idle = ws_decoder_is_idle(d);
	int r;

	ws_decoder_save(d, &state);
	r = ws_decoder_restore(other, &state);
	WB_ASSERT(r == 0 && ws_decoder_is_idle(other) == was_idle);
	r = ws_decoder_reset(d, allowed_rsv);
	WB_ASSERT(r == 0 && ws_decoder_is_idle(d));
	ws_decoder_free(other);
	r = ws_decoder_restore(d, &state);
	WB_ASSERT(r == 0);
	return d;
}

/* @random: 0 feeds all at once. */
static struct buf decode(const uint8_t *p, size_t n, uint64_t random, bool moves)
{
	struct ws_decoder *d = new_decoder();
	struct buf list = {0};
	bool goes_on = true;

	for (size_t at = 0, piece; at < n && goes_on; at += piece) {
		piece = random ? fuzz_cut(&random, n - at) : n;
		goes_on = feed(d, p + at, piece, &list);
		if (goes_on && moves)
			d = move_on(d);
	}
	if (!goes_on) {
		int r = ws_decoder_reset(d, allowed_rsv);

		WB_ASSERT(r == 0 && ws_decoder_is_idle(d));
	}
	ws_decoder_free(d);
	return list;
}

/* --------------------------------------------------------- the one it is held to */

/* A head as RFC 6455 section 5.2 draws it. */
struct head {
	uint64_t frame_bytes;
	size_t bytes;
	uint8_t mask[4];
	uint8_t opcode;
	uint8_t rsv;
	bool fin;
};

static bool is_reserved(uint8_t opcode)
{
	return (opcode > WS_BINARY && opcode < WS_CLOSE) || opcode > WS_PONG;
}

/* 0: complete, 1: more is needed, -1: wrong. */
static int read_head(const uint8_t *p, size_t n, struct head *h)
{
	size_t more;

	if (n < 1)
		return 1;
	*h = (struct head){.fin = p[0] >> 7, .rsv = p[0] >> 4 & 7, .opcode = p[0] & 15, .bytes = 2};
	if ((h->rsv & ~allowed_rsv) || is_reserved(h->opcode))
		return -1;
	if ((h->rsv & WS_RSV1) && h->opcode != WS_TEXT && h->opcode != WS_BINARY)
		return -1;
	if (n < 2)
		return 1;
	h->frame_bytes = p[1] & 127;
	if (p[1] >> 7 != (role == WS_SERVER))
		return -1;
	if (h->opcode >= WS_CLOSE && (!h->fin || h->frame_bytes > 125))
		return -1;
	more = h->frame_bytes < 126 ? 0 : h->frame_bytes == 126 ? 2 : 8;
	if (n < 2 + more)
		return 1;
	for (size_t i = 0; i < more; i++)
		h->frame_bytes = (i ? h->frame_bytes << 8 : 0) | p[2 + i];
	if (more && h->frame_bytes < (more == 2 ? 126 : 65536))
		return -1;
	if (h->frame_bytes >> 63)
		return -1;
	h->bytes = 2 + more + (role == WS_SERVER ? 4 : 0);
	if (n < h->bytes)
		return 1;
	if (role == WS_SERVER)
		memcpy(h->mask, p + 2 + more, 4);
	return 0;
}

static struct buf decode_plainly(const uint8_t *p, size_t n)
{
	struct buf list = {0};
	struct head h;
	int r = 0;

	while (n > 0 && (r = read_head(p, n, &h)) == 0) {
		size_t have = (size_t)MIN(h.frame_bytes, (uint64_t)(n - h.bytes));

		p += h.bytes;
		n -= h.bytes + have;
		list_head(&list, h.fin, h.rsv, h.opcode, h.frame_bytes);
		for (size_t i = 0; i < have; i++) {
			uint8_t byte = p[i] ^ h.mask[i % 4];

			fuzz_append(&list, &byte, 1);
		}
		if (have == h.frame_bytes)
			list_mark(&list, MARK_END, 0);
		p += have;
	}
	if (r < 0)
		list_mark(&list, MARK_BROKEN, WS_CODE_PROTOCOL_ERROR);
	return list;
}

/* ------------------------------------------------------------- encoding it again */

static void check_close(const uint8_t *p, size_t n)
{
	uint8_t again[WS_MAX_CONTROL];
	const char *reason;
	char *text;
	uint16_t code;
	size_t len;

	if (ws_parse_close(p, n, &code, &reason, &len) != WS_CLOSE_OK)
		return;
	WB_ASSERT(n == 0 ? code == WS_CODE_NO_STATUS && len == 0 : len == n - 2);
	WB_ASSERT(n == 0 || ws_close_code_is_valid(code));
	WB_ASSERT(utf8_valid(reason, len));
	text = fuzz_text(reason, len);
	if (strlen(text) == len) {
		len = ws_format_close(again, code, text);
		WB_ASSERT(len == n && memcmp(again, p, n) == 0);
	}
	free(text);
}

static void check_utf8(const uint8_t *p, size_t n, uint64_t random)
{
	uint32_t state = UTF8_ACCEPT;

	for (size_t at = 0, piece; at < n; at += piece) {
		piece = fuzz_cut(&random, n - at);
		state = utf8_feed(state, p + at, piece);
	}
	WB_ASSERT((state == UTF8_ACCEPT) == utf8_valid(p, n));
}

/* The frames of a list, as a peer would send them. */
static struct buf encode(const struct buf *list, uint64_t random)
{
	uint64_t k = fuzz_random(&random);
	const uint8_t *key = role == WS_SERVER ? (const uint8_t *)&k : NULL;
	struct buf stream = {0};
	struct entry e;

	for (size_t at = 0; at + sizeof(e) <= list->len;) {
		uint8_t *p, head[WS_MAX_HEAD];
		size_t n;

		memcpy(&e, list->data + at, sizeof(e));
		at += sizeof(e);
		if (e.mark != MARK_HEAD)
			continue;
		n = (size_t)MIN(e.frame_bytes, (uint64_t)(list->len - at));
		fuzz_append(&stream, head,
			    ws_encode_head(head, e.fin, e.rsv, e.opcode, e.frame_bytes, key));
		fuzz_append(&stream, list->data + at, n);
		p = fuzz_copy(list->data + at, n); /* masked in two steps */
		if (key)
			ws_mask(p, n / 3, key, 0);
		if (key)
			ws_mask(p + n / 3, n - n / 3, key, n / 3);
		if (n)
			memcpy(stream.data + stream.len - n, p, n);
		free(p);
		if (e.opcode == WS_CLOSE && n == e.frame_bytes)
			check_close(list->data + at, n);
		check_utf8(list->data + at, n, random);
		at += n;
	}
	return stream;
}

static void check_same(const struct buf *a, const struct buf *b)
{
	WB_ASSERT(a->len == b->len);
	WB_ASSERT(a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void check_again(const struct buf *list, uint64_t random)
{
	struct buf stream = encode(list, random);
	struct buf again = decode(stream.data, stream.len, random, false);

	/* Behind what broke there is nothing to encode. */
	WB_ASSERT(again.len <= list->len);
	WB_ASSERT(list->len - again.len == 0 || list->len - again.len == sizeof(struct entry));
	WB_ASSERT(again.len == 0 || memcmp(again.data, list->data, again.len) == 0);
	buf_fini(&again);
	buf_fini(&stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint8_t what = fuzz_byte(&in);
	uint64_t random = fuzz_byte(&in) + 1;
	struct buf expected, list;

	role = what & 1 ? WS_CLIENT : WS_SERVER;
	allowed_rsv = what >> 1 & 7;
	expected = decode_plainly(in.p, in.n);
	for (int i = 0; i < 3; i++) {
		list = decode(in.p, in.n, i ? random : 0, i == 2);
		check_same(&expected, &list);
		buf_fini(&list);
	}
	check_again(&expected, random);
	buf_fini(&expected);
	return 0;
}
