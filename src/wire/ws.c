/* SPDX-License-Identifier: MIT */
#include "wire/ws.h"

#include <errno.h>
#include <string.h>
#include <wslay/wslay.h>

#include "base/text.h"

#define WS_MASK_BIT 0x80u
#define WS_LENGTH_BITS 0x7fu
#define WS_SHORT_HEAD 2u

struct ws_decoder {
	wslay_frame_context_ptr wslay;
	struct wslay_frame_iocb frame; /* what wslay says of the current frame, once it is known */
	uint64_t offset;               /* payload bytes handed out */
	uint64_t told;                 /* payload bytes that wslay has counted */
	uint64_t credit;               /* payload bytes that it may be told of now */
	enum ws_role role;
	uint8_t allowed_rsv;
	uint8_t head[WS_MAX_HEAD]; /* as received */
	uint8_t head_len;
	uint8_t head_told; /* bytes of it that wslay has */
	bool known;        /* frame is filled in */
	bool broken;
};

/* What the head will have in all, as far as can be told from its first two bytes. */
static size_t ws_head_need(const struct ws_decoder *d, bool with_key)
{
	size_t need = WS_SHORT_HEAD;

	if (d->head_len < WS_SHORT_HEAD)
		return need;
	if ((d->head[1] & WS_LENGTH_BITS) == 126)
		need += 2;
	else if ((d->head[1] & WS_LENGTH_BITS) == 127)
		need += 8;
	if (with_key && d->role == WS_SERVER)
		need += 4;
	return need;
}

/*
 * What wslay reads from: the head without mask bit and key, then payload that
 * exists as a number alone. Its buffer keeps whatever was in it, since nobody
 * looks at the data it returns.
 */
static ssize_t ws_recv(uint8_t *buf, size_t len, int flags, void *arg)
{
	struct ws_decoder *d = arg;
	size_t plain = ws_head_need(d, false), n = 0, pay;

	(void)flags;
	if (d->head_told < plain) {
		n = MIN((size_t)d->head_len, plain) - d->head_told;
		n = MIN(n, len);
		memcpy(buf, d->head + d->head_told, n);
		/* The mask bit is in the second byte, wherever in the head this call begins. */
		if (d->head_told <= 1 && d->head_told + n > 1)
			buf[1 - d->head_told] &= WS_LENGTH_BITS;
		d->head_told = (uint8_t)(d->head_told + n);
		if (d->head_told < plain)
			return (ssize_t)n;
	}
	/* 0 tells wslay that nothing more is there now: it asks again in the next call. */
	pay = (size_t)MIN(d->credit, (uint64_t)(len - n));
	d->credit -= pay;
	return (ssize_t)(n + pay);
}

static int ws_decoder_renew(struct ws_decoder *d)
{
	static const struct wslay_frame_callbacks callbacks = {.recv_callback = ws_recv};

	if (d->wslay)
		wslay_frame_context_free(d->wslay);
	d->wslay = NULL;
	if (wslay_frame_context_init(&d->wslay, &callbacks, d) != 0) {
		d->wslay = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* To the frame boundary, for everything but wslay, which is there by itself. */
static void ws_decoder_rewind(struct ws_decoder *d)
{
	d->offset = 0;
	d->told = 0;
	d->credit = 0;
	d->head_len = 0;
	d->head_told = 0;
	d->known = false;
}

struct ws_decoder *ws_decoder_new(enum ws_role role, uint8_t allowed_rsv)
{
	struct ws_decoder *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->role = role;
	d->allowed_rsv = allowed_rsv;
	if (ws_decoder_renew(d) < 0)
		return ws_decoder_free(d);
	return d;
}

struct ws_decoder *ws_decoder_free(struct ws_decoder *d)
{
	if (d && d->wslay)
		wslay_frame_context_free(d->wslay);
	free(d);
	return NULL;
}

int ws_decoder_reset(struct ws_decoder *d, uint8_t allowed_rsv)
{
	/* wslay cannot be led back to a boundary: within a frame it gets a new context. */
	if (d->broken || !ws_decoder_is_idle(d)) {
		d->broken = true;
		if (ws_decoder_renew(d) < 0)
			return -ENOMEM;
		d->broken = false;
		ws_decoder_rewind(d);
	}
	d->allowed_rsv = allowed_rsv;
	return 0;
}

bool ws_decoder_is_idle(const struct ws_decoder *d)
{
	return d->head_len == 0 && !d->broken;
}

/* Takes what the head still lacks from @bytes; its second byte says how long it is. */
static size_t ws_head_take(struct ws_decoder *d, const uint8_t *bytes, size_t n)
{
	size_t used = 0;

	/* The usual: all of it is here, and copied in one step of a fixed size. */
	if (d->head_len == 0 && n >= WS_MAX_HEAD) {
		memcpy(d->head, bytes, WS_MAX_HEAD);
		d->head_len = WS_SHORT_HEAD;
		d->head_len = (uint8_t)ws_head_need(d, true);
		return d->head_len;
	}
	/* Twice at most: the need is known once two bytes are there. */
	while (used < n && d->head_len < ws_head_need(d, true)) {
		size_t take = MIN(n - used, ws_head_need(d, true) - d->head_len);

		memcpy(d->head + d->head_len, bytes + used, take);
		d->head_len = (uint8_t)(d->head_len + take);
		used += take;
	}
	return used;
}

/* The checks that wslay leaves to its user, on as much of the head as is there. */
static bool ws_head_is_sound(const struct ws_decoder *d)
{
	uint8_t opcode = d->head[0] & 0x0f;
	uint8_t rsv = (d->head[0] >> 4) & 7;

	if (d->head_len == 0)
		return true;
	/* RFC 6455 section 5.2: 3 to 7 and 11 to 15 are reserved. */
	if (opcode > WS_PONG || (opcode > WS_BINARY && opcode < WS_CLOSE))
		return false;
	if (rsv & ~d->allowed_rsv)
		return false;
	/* RFC 7692 section 6.1: of the first frame of a message, and of no other. */
	if ((rsv & WS_RSV1) && opcode != WS_TEXT && opcode != WS_BINARY)
		return false;
	if (d->head_len == 1)
		return true;
	/* Section 5.1: a client masks all that it sends, a server nothing. */
	return !!(d->head[1] & WS_MASK_BIT) == (d->role == WS_SERVER);
}

/*
 * Payload that wslay may be told of with the head, when @available bytes are there: of a
 * small frame all, so that one call does for it. It describes a frame only together with
 * some of its payload, so it is told of one byte also before that has come; from then on
 * it is ahead by that byte, until the frame's end.
 */
static size_t ws_first_credit(const struct ws_decoder *d, size_t available)
{
	size_t small = d->head[1] & WS_LENGTH_BITS;

	if (small > WS_MAX_CONTROL)
		return 1;
	return MIN(small, MAX(available, (size_t)1));
}

/* Shows wslay as much of the head as is there. */
static bool ws_tell_head(struct ws_decoder *d, size_t available)
{
	ssize_t r;

	if (d->known || d->head_told == d->head_len)
		return true;
	/* What is wrong with lengths, and with control frames, wslay finds itself. */
	d->credit = ws_first_credit(d, available);
	r = wslay_frame_recv(d->wslay, &d->frame);
	d->credit = 0;
	if (r >= 0) {
		d->known = true;
		d->told = (uint64_t)r;
	}
	return r >= 0 || r == WSLAY_ERR_WANT_READ;
}

/* Moves wslay on to where the payload is, 4 KiB a call. */
static bool ws_tell_payload(struct ws_decoder *d)
{
	while (d->told < d->offset) {
		ssize_t r;

		d->credit = d->offset - d->told;
		r = wslay_frame_recv(d->wslay, &d->frame);
		if (r <= 0)
			return false;
		d->told += (uint64_t)r;
	}
	return true;
}

static enum ws_result ws_decoder_break(struct ws_decoder *d, uint16_t *ret_close_code)
{
	d->broken = true;
	*ret_close_code = WS_CODE_PROTOCOL_ERROR;
	return WS_BROKEN;
}

enum ws_result ws_decoder_feed(struct ws_decoder *d, uint8_t *bytes, size_t n, size_t *ret_used,
			       struct ws_piece *ret, uint16_t *ret_close_code)
{
	bool begins = false;
	struct ws_piece piece;

	*ret_used = 0;
	if (d->broken)
		return ws_decoder_break(d, ret_close_code);
	if (d->head_len < ws_head_need(d, true)) {
		*ret_used = ws_head_take(d, bytes, n);
		/* At the first wrong byte: a peer that is no client isn't waited for. */
		if (!ws_head_is_sound(d) || !ws_tell_head(d, n - *ret_used))
			return ws_decoder_break(d, ret_close_code);
		if (d->head_len < ws_head_need(d, true))
			return WS_MORE;
		begins = true;
	}
	if (!begins && n == 0)
		return WS_MORE;

	/* The head is whole, and wslay was told all of it: d->frame says what it is. */
	piece = (struct ws_piece){
		.opcode = d->frame.opcode,
		.rsv = d->frame.rsv,
		.fin = d->frame.fin,
		.begins = begins,
		.frame_bytes = d->frame.payload_length,
		.data = bytes + *ret_used,
		.len = (size_t)MIN((uint64_t)(n - *ret_used), d->frame.payload_length - d->offset),
	};
	if (d->role == WS_SERVER)
		ws_mask(piece.data, piece.len, d->head + d->head_len - 4, d->offset);
	*ret_used += piece.len;
	d->offset += piece.len;
	if (!ws_tell_payload(d))
		return ws_decoder_break(d, ret_close_code);
	piece.ends = d->offset == d->frame.payload_length;
	if (piece.ends)
		ws_decoder_rewind(d);
	*ret = piece;
	return WS_PIECE;
}

void ws_decoder_save(const struct ws_decoder *d, struct ws_decoder_state *ret)
{
	*ret = (struct ws_decoder_state){
		.head_len = d->head_len,
		.allowed_rsv = d->allowed_rsv,
		.offset = d->offset,
	};
	memcpy(ret->head, d->head, d->head_len);
}

static bool ws_decoder_replay(struct ws_decoder *d, const struct ws_decoder_state *state)
{
	d->allowed_rsv = state->allowed_rsv;
	if (ws_head_take(d, state->head, state->head_len) != state->head_len)
		return false;
	/* As when it came, but without any payload: what was handed out is counted below. */
	if (!ws_head_is_sound(d) || !ws_tell_head(d, 0))
		return false;
	if (d->head_len == 0 || d->head_len < ws_head_need(d, true))
		return state->offset == 0;
	if (state->offset >= d->frame.payload_length)
		return false;
	d->offset = state->offset;
	return ws_tell_payload(d);
}

int ws_decoder_restore(struct ws_decoder *d, const struct ws_decoder_state *state)
{
	if (d->broken || !ws_decoder_is_idle(d) || !ws_decoder_replay(d, state)) {
		d->broken = true;
		return -EINVAL;
	}
	return 0;
}

size_t ws_encode_head(uint8_t out[WS_MAX_HEAD], bool fin, uint8_t rsv, uint8_t opcode, uint64_t len,
		      const uint8_t mask_key[4])
{
	size_t length_bytes = len > UINT16_MAX ? 8 : len > WS_MAX_CONTROL ? 2 : 0;
	size_t n = WS_SHORT_HEAD;

	WB_ASSERT(len <= INT64_MAX); /* RFC 6455 section 5.2: the highest bit has to be 0 */
	out[0] = (uint8_t)((fin ? 0x80 : 0) | rsv << 4 | opcode);
	out[1] = (uint8_t)(length_bytes == 8 ? 127 : length_bytes == 2 ? 126 : len);
	/* In network order. */
	for (size_t i = length_bytes; i > 0; i--)
		out[n++] = (uint8_t)(len >> 8 * (i - 1));
	if (mask_key) {
		out[1] |= WS_MASK_BIT;
		memcpy(out + n, mask_key, 4);
		n += 4;
	}
	return n;
}

/*
 * Four vectors of 16 bytes a step, written out: gcc 12 at -O2 vectorizes only loops
 * whose length it knows. Every x86-64 and arm64 has registers of this size.
 */
typedef uint32_t ws_wide __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint32_t ws_half __attribute__((vector_size(8), aligned(1), may_alias));
typedef uint32_t ws_word __attribute__((aligned(1), may_alias));

void ws_mask(uint8_t *p, size_t n, const uint8_t key[4], uint64_t offset)
{
	/* The key as it stands at this offset; from there on it repeats every four bytes. */
	const uint8_t turned[4] = {key[offset & 3], key[(offset + 1) & 3], key[(offset + 2) & 3],
				   key[(offset + 3) & 3]};
	uint32_t word;
	ws_wide mask;
	size_t i = 0;

	memcpy(&word, turned, sizeof(word));
	mask = (ws_wide){word, word, word, word};
	for (; n - i >= 4 * sizeof(mask); i += 4 * sizeof(mask)) {
		ws_wide *at = (ws_wide *)(void *)(p + i);

		at[0] ^= mask;
		at[1] ^= mask;
		at[2] ^= mask;
		at[3] ^= mask;
	}
	for (; n - i >= sizeof(mask); i += sizeof(mask))
		*(ws_wide *)(void *)(p + i) ^= mask;
	if (n - i >= sizeof(ws_half)) {
		*(ws_half *)(void *)(p + i) ^= (ws_half){word, word};
		i += sizeof(ws_half);
	}
	if (n - i >= sizeof(ws_word)) {
		*(ws_word *)(void *)(p + i) ^= word;
		i += sizeof(ws_word);
	}
	for (; i < n; i++)
		p[i] ^= turned[i & 3];
}

bool ws_close_code_is_valid(uint16_t code)
{
	/* RFC 6455 section 7.4.2: below 3000 only what is registered, and no 1004 to 1006, 1015. */
	if (code >= 3000)
		return code <= 4999;
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
}

enum ws_close_result ws_parse_close(const uint8_t *p, size_t n, uint16_t *ret_code,
				    const char **ret_reason, size_t *ret_len)
{
	uint16_t code = WS_CODE_NO_STATUS;
	size_t reason = MIN(n, (size_t)2);

	/* Section 5.5.1: nothing at all, or a code of two bytes first. */
	if (n == 1)
		return WS_CLOSE_BROKEN;
	if (n >= 2) {
		code = (uint16_t)(p[0] << 8 | p[1]);
		if (!ws_close_code_is_valid(code))
			return WS_CLOSE_BROKEN;
		if (!utf8_valid(p + reason, n - reason))
			return WS_CLOSE_BAD_UTF8;
	}
	*ret_code = code;
	*ret_reason = n > reason ? (const char *)p + reason : "";
	*ret_len = n - reason;
	return WS_CLOSE_OK;
}

size_t ws_format_close(uint8_t out[WS_MAX_CONTROL], uint16_t code, const char *reason)
{
	size_t n;

	if (!ws_close_code_is_valid(code))
		return 0;
	if (!reason)
		reason = close_code_find(code)->reason;
	n = strlen(reason);
	if (n > WS_MAX_CONTROL - 2) {
		n = WS_MAX_CONTROL - 2;
		/* Back to the first byte of the character that was cut: section 5.6 wants UTF-8. */
		while (n > 0 && ((uint8_t)reason[n] & 0xc0) == 0x80)
			n--;
	}
	out[0] = (uint8_t)(code >> 8);
	out[1] = (uint8_t)code;
	memcpy(out + 2, reason, n);
	return n + 2;
}
