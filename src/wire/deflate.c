/* SPDX-License-Identifier: MIT */
#include "wire/deflate.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "base/text.h"

#define MEM_LEVEL 8             /* zlib's default: 128 KiB of hash tables */
#define INPUT_STEP (2 * 1024)   /* most bytes given to inflate() at once */
#define OUTPUT_STEP (16 * 1024) /* most bytes taken from it at once */
#define DEFLATE_STEP (8 * 1024) /* most bytes given to deflate() at once */
#define FIRST_OUTPUT (4 * 1024)
#define RESET_COST 512           /* what another stream within a message counts as [bytes] */
#define KEEP_OUTPUT (256 * 1024) /* of the buffer, between messages */

/* What a sender leaves out at the end of a message, and a receiver puts back. */
static const uint8_t tail[4] = {0x00, 0x00, 0xff, 0xff};

/* ---------------------------------------------------------------- negotiation */

/* Parameters of one offer. */
struct offer {
	unsigned seen;        /* PARAM_ bits */
	unsigned server_bits; /* 0: no bound */
	unsigned client_bits; /* 0: named without a value, or not at all */
	bool is_acceptable;
};

enum {
	PARAM_SERVER_TAKEOVER = 1 << 0,
	PARAM_CLIENT_TAKEOVER = 1 << 1,
	PARAM_SERVER_BITS = 1 << 2,
	PARAM_CLIENT_BITS = 1 << 3,
};

static const char *const param_names[] = {
	"server_no_context_takeover",
	"client_no_context_takeover",
	"server_max_window_bits",
	"client_max_window_bits",
};

/* 8 to 15 without leading zeros; 0 for anything else. */
static unsigned window_bits(struct http_text t)
{
	if (t.n == 1 && (t.p[0] == '8' || t.p[0] == '9'))
		return (unsigned)(t.p[0] - '0');
	if (t.n == 2 && t.p[0] == '1' && t.p[1] >= '0' && t.p[1] <= '5')
		return 10 + (unsigned)(t.p[1] - '0');
	return 0;
}

/* @value: p is NULL when the parameter has none. */
static void take_param(struct offer *o, struct http_text name, struct http_text value)
{
	unsigned bit = 0, bits = window_bits(value);

	for (size_t i = 0; i < ARRAY_LEN(param_names); i++)
		if (http_text_is_nocase(name, param_names[i]))
			bit = 1u << i;
	if (!bit || o->seen & bit) {
		o->is_acceptable = false;
		return;
	}
	/* RFC 7692 section 7.1: of what an offer says wrongly, the offer is declined, no more. */
	o->seen |= bit;
	switch (bit) {
	case PARAM_SERVER_BITS:
		o->server_bits = bits;
		o->is_acceptable &= bits > 8;
		break;
	case PARAM_CLIENT_BITS:
		o->client_bits = bits;
		o->is_acceptable &= bits || !value.p;
		break;
	default:
		o->is_acceptable &= !value.p;
		break;
	}
}

/* A quoted string that has to be a token inside (RFC 6455 section 9.1): without its quotes. */
static bool value_unquote(struct http_text *value)
{
	if (value->n < 2 || value->p[0] != '"')
		return true;
	if (value->p[value->n - 1] != '"')
		return false;
	value->p++;
	value->n -= 2;
	return true;
}

/* One parameter of an extension: name, or name=value. False when it is neither. */
static bool parse_param(struct http_text text, struct offer *o)
{
	struct http_text name = text, value = {0};

	/* RFC 6455 section 9.1 has the implied white space of RFC 2616 in its grammar. */
	if (http_cut(&text, '=', &name)) {
		name = http_trim(name);
		value = http_trim(text);
		if (!value_unquote(&value) || !http_text_is_token(value))
			return false;
	}
	if (!http_text_is_token(name))
		return false;
	take_param(o, name, value);
	return true;
}

/* One element of the header. False when it isn't an extension by its grammar. */
static bool parse_extension(struct http_text text, struct offer *o)
{
	struct http_text part = text;
	bool goes_on = http_cut(&text, ';', &part);
	struct http_text name = http_trim(part);

	/* Of another extension the grammar alone is looked at. */
	*o = (struct offer){.is_acceptable = http_text_is_nocase(name, "permessage-deflate")};
	if (!http_text_is_token(name))
		return false;
	while (goes_on) {
		part = text;
		goes_on = http_cut(&text, ';', &part);
		if (!parse_param(http_trim(part), o))
			return false;
	}
	return true;
}

static enum deflate_window window_for(const struct offer *o)
{
	if (!o->server_bits || o->server_bits == 15)
		return DEFLATE_32K;
	return o->server_bits >= 12 ? DEFLATE_4K : DEFLATE_512;
}

static int bits_of(enum deflate_window window)
{
	static const int bits[DEFLATE_N_WINDOWS] = {0, 9, 12, 15};

	return bits[window];
}

static void format_answer(char *answer, const struct offer *o)
{
	char server[40] = "", client[40] = "";

	if (o->server_bits)
		snprintf(server, sizeof(server), "; server_max_window_bits=%d",
			 bits_of(window_for(o)));
	if (o->client_bits)
		snprintf(client, sizeof(client), "; client_max_window_bits=%u", o->client_bits);
	snprintf(answer, DEFLATE_ANSWER_MAX,
		 "permessage-deflate; server_no_context_takeover; client_no_context_takeover%s%s",
		 server, client);
}

int deflate_negotiate(const struct http_headers *h, char answer[DEFLATE_ANSWER_MAX],
		      enum deflate_window *ret)
{
	struct http_list pos = {0};
	struct http_text element;
	struct offer offer;

	answer[0] = '\0';
	*ret = DEFLATE_NONE;
	while (http_list_next(h, "Sec-WebSocket-Extensions", &pos, &element)) {
		if (!parse_extension(element, &offer)) {
			answer[0] = '\0';
			*ret = DEFLATE_NONE;
			return 400;
		}
		/* Offers stand in the order of the client's preference: RFC 7692 section 5.1. */
		if (!offer.is_acceptable || *ret)
			continue;
		*ret = window_for(&offer);
		format_answer(answer, &offer);
	}
	return 0;
}

/* ------------------------------------------------------------------ deflating */

/* NULL is fine. Return: NULL. */
static z_stream *stream_free(z_stream *zs)
{
	if (zs)
		(void)deflateEnd(zs); /* tells of data that was discarded, no more */
	free(zs);
	return NULL;
}

void deflater_fini(struct deflater *d)
{
	for (enum deflate_window w = 0; w < DEFLATE_N_WINDOWS; w++)
		d->stream[w] = stream_free(d->stream[w]);
}

/* Takes a stream that nothing went through yet; NULL without memory. */
static z_stream *deflater_take(struct deflater *d, enum deflate_window w, int level)
{
	z_stream *zs = TAKE_PTR(d->stream[w]);

	if (zs && d->level[w] == level && deflateReset(zs) == Z_OK)
		return zs;
	(void)stream_free(zs);
	zs = calloc(1, sizeof(*zs));
	if (!zs)
		return NULL;
	if (deflateInit2(zs, level, Z_DEFLATED, -bits_of(w), MEM_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK)
		return zs;
	free(zs);
	return NULL;
}

static void deflater_give(struct deflater *d, enum deflate_window w, int level, z_stream *zs)
{
	(void)stream_free(d->stream[w]);
	d->stream[w] = zs;
	d->level[w] = level;
}

void deflating_init(struct deflating *k, struct deflater *d, enum deflate_window window, int level,
		    struct buf *out)
{
	*k = (struct deflating){
		.from = d, .window = window, .level = level, .out = out, .start = out->len};
}

void deflating_fini(struct deflating *k)
{
	if (k->stream)
		deflater_give(k->from, k->window, k->level, k->stream);
	*k = (struct deflating){0};
}

static int deflating_begin(struct deflating *k, size_t n)
{
	/*
	 * The tail has to fit, though it is cut off; a byte that stays free shows that all is out.
	 */
	if (buf_reserve(k->out, n + sizeof(tail), BUF_NO_LIMIT))
		return -ENOMEM;
	k->stream = deflater_take(k->from, k->window, k->level);
	return k->stream ? 0 : -ENOMEM;
}

/* One step of input. Return: 0 | DEFLATE_E_NOT_SMALLER. */
static int deflating_step(struct deflating *k, const uint8_t *p, size_t n)
{
	size_t room = k->start + n + sizeof(tail) - k->out->len;
	size_t in = MIN(n - k->at, (size_t)DEFLATE_STEP);
	bool is_last = k->at + in == n;

	k->stream->next_in = (Bytef *)(uintptr_t)p + k->at;
	k->stream->avail_in = (uInt)in;
	k->stream->next_out = k->out->data + k->out->len;
	k->stream->avail_out = (uInt)room;
	if (deflate(k->stream, is_last ? Z_SYNC_FLUSH : Z_NO_FLUSH) != Z_OK ||
	    k->stream->avail_out == 0)
		return DEFLATE_E_NOT_SMALLER;
	k->at += in;
	k->out->len += room - k->stream->avail_out;
	return 0;
}

int deflating_run(struct deflating *k, const void *p, size_t n, size_t *budget)
{
	int r = 0;

	if (n < 2 || n > INT_MAX)
		return DEFLATE_E_NOT_SMALLER;
	if (!k->stream)
		r = deflating_begin(k, n);
	while (r == 0 && k->at < n) {
		size_t before = k->at;

		if (*budget == 0)
			return DEFLATE_MORE;
		r = deflating_step(k, p, n);
		*budget -= MIN(k->at - before, *budget);
	}
	if (r) {
		k->out->len = k->start;
		return r;
	}
	WB_ASSERT(k->out->len - k->start > sizeof(tail) &&
		  memcmp(k->out->data + k->out->len - sizeof(tail), tail, sizeof(tail)) == 0);
	k->out->len -= sizeof(tail);
	return 0;
}

int deflater_run(struct deflater *d, enum deflate_window window, int level, const void *p, size_t n,
		 struct buf *out)
{
	size_t budget = SIZE_MAX; /* that is never used up */
	struct deflating k;
	int r;

	deflating_init(&k, d, window, level, out);
	r = deflating_run(&k, p, n, &budget);
	deflating_fini(&k);
	return r;
}

/* ------------------------------------------------------------------ inflating */

struct WB_OWNER(user) inflater {
	z_stream zs;
	struct buf out;
	size_t at;       /* bytes that zlib has taken, of the payload and the tail behind it */
	size_t came;     /* bytes that came out of the payload, once all of it went in */
	size_t looked;   /* bytes of @out that inflater_look_at_text() has seen … */
	uint32_t utf8;   /* … and the state that they led to */
	bool is_drained; /* @came is known: the tail may follow */
	bool is_at_end;  /* of a stream: another begins with the next byte */
};

struct inflater *inflater_new(void)
{
	struct inflater *z = calloc(1, sizeof(*z));

	if (z && inflateInit2(&z->zs, -MAX_WBITS) == Z_OK)
		return z;
	free(z);
	return NULL;
}

struct inflater *inflater_free(struct inflater *z)
{
	if (!z)
		return NULL;
	(void)inflateEnd(&z->zs); /* cannot fail for a stream that was set up */
	buf_fini(&z->out);
	free(z);
	return NULL;
}

void inflater_reset(struct inflater *z)
{
	(void)inflateReset(&z->zs); /* likewise */
	z->at = z->came = z->looked = 0;
	z->utf8 = UTF8_ACCEPT;
	z->is_drained = z->is_at_end = false;
	z->out.len = 0;
	if (z->out.cap > KEEP_OUTPUT)
		buf_fini(&z->out);
}

void inflater_look_at_text(struct inflater *z)
{
	if (z->looked < z->out.len)
		z->utf8 = utf8_feed(z->utf8, z->out.data + z->looked, z->out.len - z->looked);
	z->looked = z->out.len;
}

bool inflater_is_text(const struct inflater *z)
{
	return z->looked == z->out.len && z->utf8 == UTF8_ACCEPT;
}

struct buf *inflater_output(struct inflater *z)
{
	return &z->out;
}

/* What zlib reads next: a part of the payload; nothing until all of it came out; the tail. */
static void set_input(struct inflater *z, const uint8_t *p, size_t n)
{
	const uint8_t *from = z->is_drained ? tail + (z->at - n) : p + z->at;
	size_t left = z->is_drained ? n + sizeof(tail) - z->at : n - z->at;

	z->zs.next_in = (Bytef *)(uintptr_t)from;
	z->zs.avail_in = (uInt)MIN(left, (size_t)INPUT_STEP);
}

/* Room for what comes out next; one byte past @limit, to tell reaching it from passing it. */
static int set_output(struct inflater *z, size_t limit, size_t budget)
{
	size_t left = limit + 1 - z->out.len, room;

	if (z->out.len == z->out.cap &&
	    buf_reserve(&z->out, MIN(MAX(z->out.len, (size_t)FIRST_OUTPUT), left), limit + 1))
		return -ENOMEM;
	room = MIN(z->out.cap - z->out.len, left);
	z->zs.next_out = z->out.data + z->out.len;
	room = MIN(room, budget);
	z->zs.avail_out = (uInt)MIN(room, (size_t)OUTPUT_STEP);
	return 0;
}

/* One call of zlib. Return: 0 | -ENOMEM | INFLATE_E_CORRUPT | INFLATE_E_TOO_BIG. */
static int inflate_step(struct inflater *z, const uint8_t *p, size_t n, size_t limit,
			size_t *budget)
{
	size_t cost = 0;
	uInt in, out;
	int r;

	if (set_output(z, limit, *budget))
		return -ENOMEM;
	set_input(z, p, n);
	if (z->is_at_end) {
		(void)inflateReset(&z->zs); /* cannot fail for a stream that was set up */
		z->is_at_end = false;
		cost = RESET_COST;
	}
	in = z->zs.avail_in;
	out = z->zs.avail_out;
	r = inflate(&z->zs, Z_SYNC_FLUSH);
	if (r == Z_MEM_ERROR)
		return -ENOMEM;
	if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
		return INFLATE_E_CORRUPT;
	in -= z->zs.avail_in;
	out -= z->zs.avail_out;
	z->is_at_end = r == Z_STREAM_END;
	z->at += in;
	z->out.len += out;
	cost += in + out;
	*budget -= MIN(cost, *budget);
	if (z->at == n && !z->is_drained && z->zs.avail_out > 0) {
		z->is_drained = true;
		z->came = z->out.len;
	}
	return z->out.len > limit ? INFLATE_E_TOO_BIG : 0;
}

/*
 * All of the message went in: zlib stands between two blocks, at a byte's end, and took the
 * tail for the empty block that it is. Where something came out of it, it filled up a block
 * that was cut off.
 */
static bool is_whole(const struct inflater *z)
{
	return (z->zs.data_type & (128 | 63)) == 128 && z->out.len == z->came;
}

int inflater_run(struct inflater *z, const uint8_t *p, size_t n, size_t limit, size_t *budget)
{
	int r;

	if (n == 0)
		return 0;
	while (z->at < n + sizeof(tail)) {
		if (*budget == 0)
			return INFLATE_MORE;
		if (z->is_at_end && z->at == n)
			return 0; /* the tail is none of a stream that has ended */
		r = inflate_step(z, p, n, limit, budget);
		if (r)
			return r;
	}
	return is_whole(z) ? 0 : INFLATE_E_CORRUPT;
}
