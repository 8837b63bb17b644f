/* SPDX-License-Identifier: MIT */
#include "wire/frame_variant.h"

#include <string.h>

#include "containers/mem.h"
#include "wire/ws.h"

#define KEEP_BUFFER ((size_t)1024 * 1024) /* of the maker's buffers, between messages */

/* Makes a variant: bytes by malloc(), others that do as well, or frame_unreadable. */
typedef const struct frame_bytes *variant_make_fn(struct frame *f, size_t variant,
						  struct frame_maker *m);

/* The payload of @b in one piece; NULL without memory. Lives until the next use of @m->copy. */
static const uint8_t *maker_whole_payload(struct frame_maker *m, const struct frame_bytes *b)
{
	const uint8_t *whole = frame_bytes_whole(b);
	size_t n;

	if (whole)
		return whole;
	n = frame_bytes_payload_len(b);
	m->copy.len = 0;
	if (buf_reserve(&m->copy, n, n))
		return NULL;
	frame_bytes_copy_payload(b, m->copy.data);
	return m->copy.data;
}

/*
 * The BinaryData of @f, decoded; NULL without memory, or when it is none. What it points to
 * lives until the next use of @m.
 */
static Websocket__WebSocketMessage *maker_decode(struct frame_maker *m, struct frame *f)
{
	Websocket__WebSocketMessage *msg = NULL;
	const uint8_t *p = maker_whole_payload(m, &f->body);

	if (!p)
		return NULL;
	arena_reset(m->arena);
	if (msg_decode(m->arena, p, frame_payload_len(f), &msg) != MSG_OK ||
	    msg->payload_case != WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_BINARY)
		return NULL;
	return msg;
}

/* Encodes @b in pieces of the size that holds for this worker now. NULL without memory. */
static struct frame_bytes *maker_encode(const struct frame_maker *m, uint8_t opcode,
					const struct msg_builder *b)
{
	size_t size = msg_size(b);
	struct frame_bytes *out = malloc(sizeof(*out) + frame_bytes_size(size, m->max_frame));
	uint8_t *whole;

	if (!out)
		return NULL;
	frame_bytes_lay_out(out, 0, opcode, size, m->max_frame);
	if (frame_bytes_whole(out)) {
		msg_pack(b, frame_bytes_whole(out));
		return out;
	}
	/* protobuf-c writes to one place alone; what it wrote is then cut. */
	whole = malloc(size);
	if (!whole) {
		free(out);
		return NULL;
	}
	msg_pack(b, whole);
	frame_bytes_write(out, 0, whole, size);
	free(whole);
	return out;
}

/* Without memory, or where packing doesn't make it smaller, the original does as well. */
static const struct frame_bytes *variant_make_packed(struct frame *f, size_t variant,
						     struct frame_maker *m)
{
	Websocket__WebSocketMessage *msg = maker_decode(m, f);
	struct frame_bytes *out;
	struct msg_builder b;

	(void)variant;
	if (!msg)
		return &f->body;
	/* Below what the message has now, or not at all. */
	m->scratch.len = 0;
	if (zip_pack(m->zip, (int)m->level, msg->binary->data.data, msg->binary->data.len,
		     &m->scratch))
		return &f->body;
	msg_init_repack(&b, msg, m->scratch.data, m->scratch.len,
			(Websocket__CompressionType)ZIP_PREFERRED);
	out = maker_encode(m, f->opcode, &b);
	if (!out)
		return &f->body;
	m->pack_in += msg->binary->data.len;
	m->pack_out += m->scratch.len;
	return out;
}

/* Here nothing else does: who cannot read the codec gets the data unpacked, or not at all. */
static const struct frame_bytes *variant_make_unpacked(struct frame *f, size_t variant,
						       struct frame_maker *m)
{
	Websocket__WebSocketMessage *msg = maker_decode(m, f);
	struct frame_bytes *out = NULL;
	struct msg_builder b;

	(void)variant;
	/* Bounded like what a client sends: no small message may become a large one here. */
	m->scratch.len = 0;
	if (msg && zip_unpack(m->zip, (enum zip_kind)f->packed_with, msg->binary->data.data,
			      msg->binary->data.len, m->max_message, &m->scratch) == 0) {
		msg_init_repack(&b, msg, m->scratch.data, m->scratch.len,
				WEBSOCKET__COMPRESSION_TYPE__NONE);
		out = maker_encode(m, f->opcode, &b);
	}
	if (!out) {
		m->failures++;
		return &frame_unreadable;
	}
	m->unpack_in += msg->binary->data.len;
	m->unpack_out += m->scratch.len;
	return out;
}

/* Deflates into @m->scratch. False: that would not make it smaller, or can't be done. */
static bool maker_deflate(struct frame_maker *m, const uint8_t *p, size_t n,
			  enum deflate_window window)
{
	m->scratch.len = 0;
	if (deflater_run(&m->deflater, window, (int)m->level, p, n, &m->scratch))
		return false;
	m->deflate_in += n;
	m->deflate_out += m->scratch.len;
	return true;
}

static const struct frame_bytes *variant_make_deflated(struct frame *f, size_t variant,
						       struct frame_maker *m)
{
	enum deflate_window window = (enum deflate_window)(variant - FRAME_VARIANT_DEFLATED + 1);
	const struct frame_bytes *base = &f->body;
	struct frame_bytes *out;
	const uint8_t *p;
	size_t n;

	/* The message, or what frame_variant_for() had unpacked before. */
	if (f->flags & FRAME_IS_PACKED)
		base = atomic_load_explicit(&f->variant[FRAME_VARIANT_UNPACKED],
					    memory_order_acquire);
	n = frame_bytes_payload_len(base);
	if (!frame_can_deflate(m, n))
		return base;
	p = maker_whole_payload(m, base);
	if (!p || !maker_deflate(m, p, n, window))
		return base;
	out = malloc(sizeof(*out) + frame_bytes_size(m->scratch.len, m->max_frame));
	if (!out)
		return base;
	frame_bytes_lay_out(out, WS_RSV1, f->opcode, m->scratch.len, m->max_frame);
	frame_bytes_write(out, 0, m->scratch.data, m->scratch.len);
	return out;
}

/* Gives back what one large message made grow. */
static void maker_trim(struct frame_maker *m)
{
	if (m->scratch.cap > KEEP_BUFFER)
		buf_fini(&m->scratch);
	if (m->copy.cap > KEEP_BUFFER)
		buf_fini(&m->copy);
}

/* The variant in a slot, made by @make if nobody has done so yet. */
static const struct frame_bytes *variant_find(struct frame *f, size_t variant,
					      struct frame_maker *m, variant_make_fn *make)
{
	/* Pairs with frame_publish_variant(), on whichever worker met the first such receiver. */
	const struct frame_bytes *b =
		atomic_load_explicit(&f->variant[variant], memory_order_acquire);

	if (b)
		return b;
	b = make(f, variant, m);
	maker_trim(m);
	return frame_publish_variant(f, variant, b);
}

struct frame *frame_new_deflated(uint8_t opcode, const void *p, size_t n,
				 enum deflate_window window, struct frame_maker *m,
				 _Atomic size_t *account)
{
	struct frame *f = NULL;

	if (maker_deflate(m, p, n, window))
		f = frame_new_extended(WS_RSV1, opcode, m->scratch.len, m->max_frame, account);
	if (f)
		frame_write(f, 0, m->scratch.data, m->scratch.len);
	maker_trim(m);
	return f;
}

const struct frame_bytes *frame_variant_for(struct frame *f, unsigned caps,
					    enum deflate_window window, struct frame_maker *m)
{
	const struct frame_bytes *b = &f->body;

	/* What is compressed already is not deflated on top of that. */
	if (f->flags & FRAME_CAN_PACK && msg_caps_read(caps, ZIP_PREFERRED))
		return variant_find(f, FRAME_VARIANT_PACKED, m, variant_make_packed);
	if (f->flags & FRAME_IS_PACKED) {
		if (msg_caps_read(caps, (enum zip_kind)f->packed_with))
			return b;
		b = variant_find(f, FRAME_VARIANT_UNPACKED, m, variant_make_unpacked);
		if (b == &frame_unreadable)
			return NULL;
	}
	/* Behind the unpacking, whose result it takes. */
	if (window != DEFLATE_NONE && f->flags & FRAME_CAN_DEFLATE)
		b = variant_find(f, (size_t)FRAME_VARIANT_DEFLATED + window - 1, m,
				 variant_make_deflated);
	return b;
}
