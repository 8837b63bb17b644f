/* SPDX-License-Identifier: MIT */
#include "wire/frame.h"

#include <string.h>

#include "containers/buf.h"
#include "containers/mem.h"
#include "wire/ws.h"

/* A message cannot be unpacked for those who cannot read it: stands in a slot of variant[]. */
static struct frame_bytes broken = {.len = 0};

static size_t head_size(size_t payload)
{
	return payload < 126 ? 2 : payload < 65536 ? 4 : 10;
}

/* Bytes of a message of @payload bytes, all headers included. */
static size_t encoded_size(size_t payload, size_t max_frame)
{
	size_t cuts = payload > max_frame ? (payload - 1) / max_frame : 0;

	return cuts * (head_size(max_frame) + max_frame) + head_size(payload - cuts * max_frame) +
	       payload - cuts * max_frame;
}

/* @rsv: of the first WebSocket frame; the others have none. */
static void write_heads(struct frame_bytes *b, uint8_t rsv, uint8_t opcode, size_t payload,
			size_t max_frame)
{
	uint8_t *p = b->bytes;

	while (payload > max_frame) {
		p += ws_encode_head(p, false, rsv, opcode, max_frame, NULL);
		p += max_frame;
		payload -= max_frame;
		opcode = WS_CONTINUATION;
		rsv = 0;
	}
	ws_encode_head(p, true, rsv, opcode, payload, NULL);
}

static void lay_out(struct frame_bytes *b, uint8_t rsv, uint8_t opcode, size_t payload,
		    size_t max_frame)
{
	bool is_cut = payload > max_frame;

	b->len = encoded_size(payload, max_frame);
	b->piece = is_cut ? head_size(max_frame) + max_frame : b->len;
	write_heads(b, rsv, opcode, payload, max_frame);
}

static void charge(struct frame *f, size_t bytes)
{
	atomic_fetch_add_explicit(f->account, bytes, memory_order_relaxed);
}

static void discharge(struct frame *f, size_t bytes)
{
	atomic_fetch_sub_explicit(f->account, bytes, memory_order_relaxed);
}

static struct frame *allocate(size_t len, _Atomic size_t *account)
{
	struct frame *f = malloc(sizeof(*f) + len);

	if (!f)
		return NULL;
	memset(f, 0, sizeof(*f));
	atomic_init(&f->refs, 1);
	f->account = account;
	f->messages = 1;
	charge(f, sizeof(*f) + len);
	return f;
}

static struct frame *new_frame(uint8_t rsv, uint8_t opcode, size_t payload, size_t max_frame,
			       _Atomic size_t *account)
{
	size_t limit = opcode >= WS_CLOSE ? SIZE_MAX : max_frame;
	struct frame *f = allocate(encoded_size(payload, limit), account);

	if (!f)
		return NULL;
	f->opcode = opcode;
	f->flags = opcode >= WS_CLOSE ? FRAME_CONTROL : 0;
	lay_out(&f->body, rsv, opcode, payload, limit);
	return f;
}

struct frame *frame_new(uint8_t opcode, size_t payload, size_t max_frame, _Atomic size_t *account)
{
	return new_frame(0, opcode, payload, max_frame, account);
}

struct frame *frame_new_raw(const void *p, size_t n, _Atomic size_t *account)
{
	struct frame *f = allocate(n, account);

	if (!f)
		return NULL;
	f->flags = FRAME_CONTROL;
	f->body.len = f->body.piece = n;
	memcpy(f->body.bytes, p, n);
	return f;
}

struct frame *frame_new_joined(size_t room, _Atomic size_t *account)
{
	struct frame *f = allocate(room, account);

	if (!f)
		return NULL;
	f->opcode = WS_BINARY; /* any of a message */
	f->messages = 0;
	f->room = (uint32_t)room;
	return f;
}

bool frame_join(struct frame *f, uint8_t opcode, const void *p, size_t n)
{
	size_t total = head_size(n) + n;
	uint8_t *at = f->body.bytes + f->body.len;

	if (total > f->room)
		return false;
	at += ws_encode_head(at, true, 0, opcode, n, NULL);
	if (n > 0)
		memcpy(at, p, n);
	f->body.len += total;
	f->body.piece = f->body.len;
	f->room -= (uint32_t)total;
	f->messages++;
	return true;
}

/* A WebSocket frame of @total bytes: how many of them are its header. */
static size_t head_within(size_t total)
{
	return total <= 2 + 125 ? 2 : total <= 4 + 65535 ? 4 : 10;
}

/* The payload of the piece that starts at byte @start. */
static uint8_t *piece_payload(const struct frame_bytes *b, size_t start, size_t *ret_len)
{
	size_t total = MIN(b->piece, b->len - start);
	size_t head = head_within(total);

	*ret_len = total - head;
	return (uint8_t *)(uintptr_t)b->bytes + start + head;
}

static void write_at(struct frame_bytes *b, size_t offset, const uint8_t *from, size_t n)
{
	size_t len;

	for (size_t start = 0; n > 0; start += b->piece) {
		uint8_t *to = piece_payload(b, start, &len);

		if (offset >= len) {
			offset -= len;
			continue;
		}
		len = MIN(len - offset, n);
		memcpy(to + offset, from, len);
		from += len;
		n -= len;
		offset = 0;
	}
}

void frame_write(struct frame *f, size_t offset, const void *p, size_t n)
{
	write_at(&f->body, offset, p, n);
}

uint8_t *frame_payload(struct frame *f)
{
	size_t len;

	return f->body.piece == f->body.len ? piece_payload(&f->body, 0, &len) : NULL;
}

static size_t payload_len(const struct frame_bytes *b)
{
	size_t pieces = (b->len + b->piece - 1) / b->piece;
	size_t last;

	(void)piece_payload(b, (pieces - 1) * b->piece, &last);
	return (pieces - 1) * (b->piece - head_within(b->piece)) + last;
}

static void copy_payload(const struct frame_bytes *b, uint8_t *out)
{
	size_t len;

	for (size_t start = 0; start < b->len; start += b->piece) {
		const uint8_t *from = piece_payload(b, start, &len);

		memcpy(out, from, len);
		out += len;
	}
}

size_t frame_payload_len(const struct frame *f)
{
	return payload_len(&f->body);
}

void frame_copy_payload(const struct frame *f, uint8_t *out)
{
	copy_payload(&f->body, out);
}

struct frame *frame_from_msg(const struct msg_builder *b, size_t max_frame, _Atomic size_t *account)
{
	size_t size = msg_size(b);
	struct frame *f = frame_new(WS_BINARY, size, max_frame, account);
	uint8_t *whole;

	if (!f)
		return NULL;
	if (frame_payload(f)) {
		msg_pack(b, frame_payload(f));
		return f;
	}
	whole = malloc(size);
	if (!whole)
		return frame_unref(f);
	msg_pack(b, whole);
	frame_write(f, 0, whole, size);
	free(whole);
	return f;
}

/* Whether a slot has bytes of its own, and neither none nor those of another variant. */
static bool is_own(const struct frame *f, size_t variant, const struct frame_bytes *b)
{
	if (!b || b == &broken || b == &f->body)
		return false;
	return variant < FRAME_VARIANT_DEFLATED ||
	       b != atomic_load_explicit(&f->variant[FRAME_VARIANT_UNPACKED], memory_order_relaxed);
}

static void free_variant(struct frame *f, size_t variant, struct frame_bytes *b)
{
	if (!is_own(f, variant, b))
		return;
	discharge(f, sizeof(*b) + b->len);
	free(b);
}

struct frame *frame_unref(struct frame *f)
{
	if (!f || atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	/* From the last on: a deflated variant may be the unpacked one. */
	for (size_t i = FRAME_N_VARIANTS; i-- > 0;)
		free_variant(f, i, atomic_load_explicit(&f->variant[i], memory_order_relaxed));
	discharge(f, sizeof(*f) + f->body.len + f->room);
	free(f);
	return NULL;
}

/* Whether bytes can be split into WebSocket frames of @piece bytes and a last one. */
static bool is_sound(uint8_t opcode, size_t len, size_t piece)
{
	size_t last;

	if (len == 0 || piece == 0 || piece > len)
		return false;
	last = len % piece ? len % piece : piece;
	/* What is no message (the answer to a handshake) is never split. */
	return opcode == 0 ? piece == len
			   : last >= head_within(last) && piece >= head_within(piece);
}

struct frame *frame_new_saved(const struct frame_saved *s, _Atomic size_t *account)
{
	struct frame *f;

	if (!is_sound(s->opcode, s->len, s->piece) || s->packed_with >= ZIP_N_KINDS ||
	    s->messages == 0 || s->messages > s->len ||
	    (s->flags & FRAME_IS_PACKED && s->packed_with == ZIP_NONE))
		return NULL;
	f = allocate(s->len, account);
	if (!f)
		return NULL;
	f->flags = s->flags;
	f->opcode = s->opcode;
	f->packed_with = s->packed_with;
	f->messages = s->messages;
	f->seq = s->seq;
	f->sender = s->sender;
	f->received_ns = s->received_ns;
	f->body.len = s->len;
	f->body.piece = s->piece;
	memcpy(f->body.bytes, s->bytes, s->len);
	return f;
}

const struct frame_bytes *frame_set_variant(struct frame *f, size_t variant, const uint8_t *bytes,
					    size_t len, size_t piece)
{
	struct frame_bytes *b;

	if (variant >= FRAME_N_VARIANTS ||
	    atomic_load_explicit(&f->variant[variant], memory_order_relaxed) ||
	    !is_sound(WS_BINARY, len, piece))
		return NULL;
	b = malloc(sizeof(*b) + len);
	if (!b)
		return NULL;
	b->len = len;
	b->piece = piece;
	memcpy(b->bytes, bytes, len);
	charge(f, sizeof(*b) + len);
	atomic_store_explicit(&f->variant[variant], b, memory_order_relaxed);
	return b;
}

/* The payload of @b in one piece; NULL without memory. Lives until the next use of @m->copy. */
static const uint8_t *whole_payload(const struct frame_bytes *b, struct frame_maker *m)
{
	size_t n;

	if (b->piece == b->len)
		return piece_payload(b, 0, &n);
	n = payload_len(b);
	m->copy.len = 0;
	if (buf_reserve(&m->copy, n, n))
		return NULL;
	copy_payload(b, m->copy.data);
	return m->copy.data;
}

/* The BinaryData of @f, decoded; NULL without memory, or when it is none. What it points to lives
 * until the next use of @m. */
static Websocket__WebSocketMessage *decode(struct frame *f, struct frame_maker *m)
{
	Websocket__WebSocketMessage *msg = NULL;
	const uint8_t *p = whole_payload(&f->body, m);

	if (!p)
		return NULL;
	arena_reset(m->arena);
	if (msg_decode(m->arena, p, frame_payload_len(f), &msg) != MSG_OK ||
	    msg->payload_case != WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_BINARY)
		return NULL;
	return msg;
}

/* Encodes @b as a variant of @f. */
static struct frame_bytes *encode(struct frame *f, const struct msg_builder *b, size_t max_frame)
{
	size_t size = msg_size(b);
	size_t len = encoded_size(size, max_frame);
	struct frame_bytes *out = malloc(sizeof(*out) + len);
	size_t n;

	if (!out)
		return NULL;
	lay_out(out, 0, f->opcode, size, max_frame);
	if (out->piece == out->len) {
		msg_pack(b, piece_payload(out, 0, &n));
	} else {
		uint8_t *whole = malloc(size);

		if (!whole) {
			free(out);
			return NULL;
		}
		msg_pack(b, whole);
		write_at(out, 0, whole, size);
		free(whole);
	}
	charge(f, sizeof(*out) + len);
	return out;
}

static struct frame_bytes *make_packed(struct frame *f, size_t variant, struct frame_maker *m)
{
	Websocket__WebSocketMessage *msg = decode(f, m);
	struct frame_bytes *out;
	struct msg_builder b;

	(void)variant;
	if (!msg)
		return &f->body;
	m->scratch.len = 0;
	if (zip_pack(m->zip, (int)m->level, msg->binary->data.data, msg->binary->data.len,
		     &m->scratch))
		return &f->body;
	msg_init_repack(&b, msg, m->scratch.data, m->scratch.len,
			(Websocket__CompressionType)ZIP_PREFERRED);
	out = encode(f, &b, m->max_frame);
	if (!out)
		return &f->body;
	m->pack_in += msg->binary->data.len;
	m->pack_out += m->scratch.len;
	return out;
}

static struct frame_bytes *make_unpacked(struct frame *f, size_t variant, struct frame_maker *m)
{
	Websocket__WebSocketMessage *msg = decode(f, m);
	struct frame_bytes *out = NULL;
	struct msg_builder b;

	(void)variant;
	m->scratch.len = 0;
	if (msg && zip_unpack(m->zip, (enum zip_kind)f->packed_with, msg->binary->data.data,
			      msg->binary->data.len, m->max_message, &m->scratch) == 0) {
		msg_init_repack(&b, msg, m->scratch.data, m->scratch.len,
				WEBSOCKET__COMPRESSION_TYPE__NONE);
		out = encode(f, &b, m->max_frame);
	}
	if (!out) {
		m->failures++;
		return &broken;
	}
	m->unpack_in += msg->binary->data.len;
	m->unpack_out += m->scratch.len;
	return out;
}

/* Deflates into @m->scratch. Return: false when that would not make it smaller, or can't be done.
 */
static bool deflate_payload(const uint8_t *p, size_t n, enum deflate_window window,
			    struct frame_maker *m)
{
	m->scratch.len = 0;
	if (deflater_run(&m->deflater, window, (int)m->level, p, n, &m->scratch))
		return false;
	m->deflate_in += n;
	m->deflate_out += m->scratch.len;
	return true;
}

/* What there is to deflate: the message, or what it was unpacked to. */
static struct frame_bytes *make_deflated(struct frame *f, size_t variant, struct frame_maker *m)
{
	struct frame_bytes *base =
		f->flags & FRAME_IS_PACKED
			? atomic_load_explicit(&f->variant[FRAME_VARIANT_UNPACKED],
					       memory_order_acquire)
			: &f->body;
	enum deflate_window window = (enum deflate_window)(variant - FRAME_VARIANT_DEFLATED + 1);
	size_t n = payload_len(base), len;
	struct frame_bytes *out;
	const uint8_t *p;

	if (!frame_can_deflate(m, n))
		return base;
	p = whole_payload(base, m);
	if (!p || !deflate_payload(p, n, window, m))
		return base;
	len = encoded_size(m->scratch.len, m->max_frame);
	out = malloc(sizeof(*out) + len);
	if (!out)
		return base;
	lay_out(out, WS_RSV1, f->opcode, m->scratch.len, m->max_frame);
	write_at(out, 0, m->scratch.data, m->scratch.len);
	charge(f, sizeof(*out) + len);
	return out;
}

/* Gives back what one large message made grow. */
static void trim_buffers(struct frame_maker *m)
{
	const size_t keep = 1024 * 1024;

	if (m->scratch.cap > keep)
		buf_fini(&m->scratch);
	if (m->copy.cap > keep)
		buf_fini(&m->copy);
}

/* The variant in a slot, made by @make if nobody has done so yet. */
static const struct frame_bytes *variant_of(struct frame *f, size_t variant, struct frame_maker *m,
					    struct frame_bytes *(*make)(struct frame *, size_t,
									struct frame_maker *))
{
	struct frame_bytes *made, *there;

	there = atomic_load_explicit(&f->variant[variant], memory_order_acquire);
	if (there)
		return there;
	made = make(f, variant, m);
	trim_buffers(m);
	/* Pairs with the load above, on whichever worker meets the next such receiver. */
	if (atomic_compare_exchange_strong_explicit(&f->variant[variant], &there, made,
						    memory_order_acq_rel, memory_order_acquire))
		return made;
	free_variant(f, variant, made);
	return there;
}

struct frame *frame_new_deflated(uint8_t opcode, const void *p, size_t n,
				 enum deflate_window window, struct frame_maker *m,
				 _Atomic size_t *account)
{
	struct frame *f = NULL;

	if (deflate_payload(p, n, window, m))
		f = new_frame(WS_RSV1, opcode, m->scratch.len, m->max_frame, account);
	if (f)
		frame_write(f, 0, m->scratch.data, m->scratch.len);
	trim_buffers(m);
	return f;
}

const struct frame_bytes *frame_variant_for(struct frame *f, unsigned caps,
					    enum deflate_window window, struct frame_maker *m)
{
	const struct frame_bytes *b = &f->body;

	/* What is compressed already is not deflated on top of that. */
	if (f->flags & FRAME_CAN_PACK && msg_caps_read(caps, ZIP_PREFERRED))
		return variant_of(f, FRAME_VARIANT_PACKED, m, make_packed);
	if (f->flags & FRAME_IS_PACKED) {
		if (msg_caps_read(caps, (enum zip_kind)f->packed_with))
			return b;
		b = variant_of(f, FRAME_VARIANT_UNPACKED, m, make_unpacked);
		if (b == &broken)
			return NULL;
	}
	if (window != DEFLATE_NONE && f->flags & FRAME_CAN_DEFLATE)
		b = variant_of(f, FRAME_VARIANT_DEFLATED + window - 1, m, make_deflated);
	return b;
}
