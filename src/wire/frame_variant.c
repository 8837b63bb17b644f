/* SPDX-License-Identifier: MIT */
#include "wire/frame_variant.h"

#include <errno.h>
#include <string.h>

#include "containers/mem.h"
#include "wire/ws.h"

#define KEEP_BUFFER ((size_t)1024 * 1024) /* of the maker's buffers, between messages */
#define COPY_STEP ((size_t)64 * 1024)     /* bytes that are copied at once … */
#define COPIED_PER_WORK 4                 /* … of which so many count as one that is worked on */

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

/* Gives back what one large message made grow. */
static void maker_trim(struct frame_maker *m)
{
	if (m->scratch.cap > KEEP_BUFFER)
		buf_fini(&m->scratch);
	if (m->copy.cap > KEEP_BUFFER)
		buf_fini(&m->copy);
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

/* ---------------------------------------------------------------------- being made */

void frame_forms_init(struct frame_forms *w, struct frame *f,
		      const Websocket__WebSocketMessage *msg, const struct msg_said *said,
		      unsigned variants, struct frame_maker *m)
{
	*w = (struct frame_forms){.f = f, .maker = m, .msg = msg, .said = said, .left = variants};
	/* Nearly always there is only one at work, and nothing is allocated for its output. */
	if (variants)
		w->out = m->scratch;
	if (variants)
		m->scratch = (struct buf){0};
	w->out.len = 0;
}

/* The variant is made, or isn't going to be: what it needed goes, but for the memory of @out. */
static void forms_end_variant(struct frame_forms *w)
{
	zip_unpacking_fini(&w->unpacking);
	zip_packing_fini(&w->packing);
	deflating_fini(&w->deflating);
	w->maker->n_packings -= w->is_packing;
	free(w->bytes);
	w->bytes = NULL;
	w->out.len = w->head.len = w->checked = w->at = 0;
	w->crc = 0;
	w->is_begun = w->is_packing = w->is_made = false;
}

void frame_forms_fini(struct frame_forms *w)
{
	if (!w->maker)
		return;
	forms_end_variant(w);
	buf_fini(&w->head);
	if (!w->maker->scratch.data && w->out.cap <= KEEP_BUFFER)
		w->maker->scratch = w->out;
	else
		buf_fini(&w->out);
	*w = (struct frame_forms){0};
}

size_t frame_forms_bytes(const struct frame_forms *w)
{
	return w->maker ? w->out.cap + w->head.cap + (w->bytes ? w->bytes->len : 0) : 0;
}

/* Whether one more may be packed, over several turns where need be. */
static bool forms_begin_packing(struct frame_forms *w)
{
	if (w->maker->n_packings >= FRAME_PACKINGS_MAX)
		return false;
	w->maker->n_packings++;
	w->is_packing = true;
	return true;
}

/* The checksum runs along with what comes out. */
static void forms_check_more(struct frame_forms *w)
{
	/* What fails leaves nothing to check. */
	if (!w->msg->binary->checksum[0] || w->checked >= w->out.len)
		return;
	w->crc = msg_crc32_on(w->crc, w->out.data + w->checked, w->out.len - w->checked);
	w->checked = w->out.len;
}

static int forms_unpack(struct frame_forms *w, size_t *budget)
{
	const ProtobufCBinaryData *data = &w->msg->binary->data;
	size_t before, limit = frame_unpack_limit(w->maker, data->len);
	int r;

	if (!w->is_begun)
		zip_unpacking_init(&w->unpacking, w->maker->zip, w->f->packed_with, &w->out);
	w->is_begun = true;
	before = *budget;
	r = zip_unpacking_run(&w->unpacking, data->data, data->len, limit, budget);
	w->unpacked += before - *budget;
	w->worked += before - *budget;
	forms_check_more(w);
	if (r == 0) {
		w->unpack_in = data->len;
		w->unpack_out = w->out.len;
		return 0;
	}
	if (r == ZIP_MORE)
		return FRAME_FORMS_MORE;
	w->maker->failures++;
	if (r < 0)
		return r;
	return r == ZIP_E_TOO_BIG ? FRAME_FORMS_E_TOO_BIG : FRAME_FORMS_E_CORRUPT;
}

static int forms_pack(struct frame_forms *w, size_t *budget)
{
	const ProtobufCBinaryData *data = &w->msg->binary->data;
	size_t at;
	int r;

	if (!w->is_begun) {
		if (!forms_begin_packing(w))
			return ZIP_E_NOT_SMALLER;
		zip_packing_init(&w->packing, w->maker->zip, (int)w->maker->level, &w->out);
	}
	w->is_begun = true;
	at = w->packing.at;
	r = zip_packing_run(&w->packing, data->data, data->len, budget);
	w->worked += w->packing.at - at;
	forms_check_more(w);
	if (r == 0) {
		w->pack_in = data->len;
		w->pack_out = w->out.len;
	}
	return r;
}

/* What there is to deflate: the message, or what was unpacked of it before. */
static const struct frame_bytes *forms_base(const struct frame_forms *w)
{
	const struct frame_bytes *unpacked =
		atomic_load_explicit(&w->f->variant[FRAME_VARIANT_UNPACKED], memory_order_relaxed);

	return w->f->flags & FRAME_IS_PACKED && unpacked ? unpacked : &w->f->body;
}

/* It is to be, or was when it was published. */
static bool forms_are_numbered(const struct frame_forms *w)
{
	return w->said->is_numbered || w->f->flags & FRAME_NUMBERED;
}

/* Behind what was deflated comes what is written later. Return: 0 | DEFLATE_E_ | -ENOMEM. */
static int forms_end_deflated(struct frame_forms *w, size_t n)
{
	uint8_t block[FRAME_NUMBER_BLOCK];

	if (w->out.len + sizeof(block) >= n)
		return DEFLATE_E_NOT_SMALLER;
	frame_number_block(block, w->f->seq + 1);
	return buf_append(&w->out, block, sizeof(block), BUF_NO_LIMIT);
}

static int forms_deflate(struct frame_forms *w, enum deflate_window window, size_t *budget)
{
	const struct frame_bytes *base = forms_base(w);
	bool is_numbered = forms_are_numbered(w);
	size_t n = frame_bytes_payload_len(base);
	const uint8_t *p = frame_bytes_whole(base);
	size_t at;
	int r;

	if (!w->is_begun) {
		if (!frame_can_deflate(w->maker, n) || !forms_begin_packing(w))
			return DEFLATE_E_NOT_SMALLER;
		deflating_init(&w->deflating, &w->maker->deflater, window, (int)w->maker->level,
			       &w->out);
	}
	w->is_begun = true;
	/* One that is cut is put together for each share: it has deflate_to bytes at most. */
	if (!p)
		p = maker_whole_payload(w->maker, base);
	if (!p)
		return -ENOMEM;
	at = w->deflating.at;
	r = deflating_run(&w->deflating, p, is_numbered ? n - MSG_NUMBER_FIELD : n, budget);
	w->worked += w->deflating.at - at;
	if (r == 0 && is_numbered)
		r = forms_end_deflated(w, n);
	if (r == 0) {
		w->deflate_in += n;
		w->deflate_out += w->out.len;
	}
	return r;
}

/* What the libraries' modules say, each with numbers of its own, in those of this one. */
static int forms_outcome(int r, int more)
{
	if (r == more)
		return FRAME_FORMS_MORE;
	return r > 0 ? FRAME_FORMS_E_NOT_SMALLER : r;
}

/* The lowest variant that is left is made by its codec. Return: 0 | FRAME_FORMS_ | -ENOMEM. */
static int forms_run_codec(struct frame_forms *w, unsigned variant, size_t *budget)
{
	enum deflate_window window;

	switch (variant) {
	case FRAME_VARIANT_PACKED:
		return forms_outcome(forms_pack(w, budget), ZIP_MORE);
	case FRAME_VARIANT_UNPACKED:
		return forms_unpack(w, budget);
	default:
		window = (enum deflate_window)(variant - FRAME_VARIANT_DEFLATED + 1);
		return forms_outcome(forms_deflate(w, window, budget), DEFLATE_MORE);
	}
}

/* Memory for the variant, and all of it but what the codec made. Return: 0 | -ENOMEM. */
static int forms_lay_out(struct frame_forms *w, unsigned variant)
{
	bool is_deflated = variant >= FRAME_VARIANT_DEFLATED;
	bool is_numbered = forms_are_numbered(w) && !is_deflated;
	uint8_t number[MSG_NUMBER_FIELD];
	Websocket__CompressionType compression = variant == FRAME_VARIANT_PACKED
							 ? (Websocket__CompressionType)ZIP_PREFERRED
							 : WEBSOCKET__COMPRESSION_TYPE__NONE;
	size_t n;

	if (!is_deflated &&
	    msg_pack_repacked(w->msg, w->said, w->out.len, w->crc, compression, &w->head))
		return -ENOMEM;
	n = w->head.len + w->out.len + (is_numbered ? sizeof(number) : 0);
	w->bytes = malloc(sizeof(*w->bytes) + frame_bytes_size(n, w->maker->max_frame));
	if (!w->bytes)
		return -ENOMEM;
	frame_bytes_lay_out(w->bytes, is_deflated ? WS_RSV1 : 0, w->f->opcode, n,
			    w->maker->max_frame);
	frame_bytes_write(w->bytes, 0, w->head.data, w->head.len);
	if (is_numbered) {
		msg_number_field(number, w->f->seq + 1);
		frame_bytes_write(w->bytes, n - sizeof(number), number, sizeof(number));
	}
	return 0;
}

/* What the codec made is copied to where it belongs. Return: 0 | FRAME_FORMS_MORE. */
static int forms_copy(struct frame_forms *w, size_t *budget)
{
	while (w->at < w->out.len) {
		size_t n = MIN(w->out.len - w->at, COPY_STEP);

		if (*budget == 0)
			return FRAME_FORMS_MORE;
		frame_bytes_write(w->bytes, w->head.len + w->at, w->out.data + w->at, n);
		w->at += n;
		w->worked += n / COPIED_PER_WORK;
		*budget -= MIN(n / COPIED_PER_WORK, *budget);
	}
	return 0;
}

static int forms_run_variant(struct frame_forms *w, unsigned variant, size_t *budget)
{
	int r = 0;

	if (!w->is_made)
		r = forms_run_codec(w, variant, budget);
	if (r == 0 && !w->bytes)
		r = forms_lay_out(w, variant);
	if (r)
		return r;
	w->is_made = true;
	/* The message may name what the data is packed with, where it had nothing to name. */
	if (variant == FRAME_VARIANT_PACKED && w->bytes->len >= w->f->body.len)
		return FRAME_FORMS_E_NOT_SMALLER;
	r = forms_copy(w, budget);
	if (r == 0)
		(void)frame_publish_variant(w->f, variant, TAKE_PTR(w->bytes));
	return r;
}

static void forms_count(const struct frame_forms *w)
{
	struct frame_maker *m = w->maker;

	m->pack_in += w->pack_in;
	m->pack_out += w->pack_out;
	m->unpack_in += w->unpack_in;
	m->unpack_out += w->unpack_out;
	m->deflate_in += w->deflate_in;
	m->deflate_out += w->deflate_out;
}

int frame_forms_run(struct frame_forms *w, size_t *budget)
{
	bool is_begun = w->left != 0;

	while (w->left) {
		unsigned variant = (unsigned)__builtin_ctz(w->left);
		int r = forms_run_variant(w, variant, budget);

		if (r == FRAME_FORMS_MORE)
			return r;
		forms_end_variant(w);
		w->left &= w->left - 1;
		/* Of all others the body does as well. */
		if (r && variant == FRAME_VARIANT_UNPACKED)
			return r;
	}
	if (is_begun)
		forms_count(w);
	return 0;
}

/* ------------------------------------------------------------------------ choosing */

/* Stands for the body in the place of a variant. */
#define NO_VARIANT FRAME_N_VARIANTS

/* The variants that a receiver would take: the first that is there. */
struct choice {
	unsigned first;  /* PACKED, UNPACKED or NO_VARIANT */
	unsigned second; /* DEFLATED of what the first is, or NO_VARIANT */
};

static struct choice choice_for(const struct frame *f, unsigned caps, enum deflate_window window)
{
	struct choice c = {NO_VARIANT, NO_VARIANT};

	/* What is compressed already is not deflated on top of that. */
	if (f->flags & FRAME_CAN_PACK && msg_caps_read(caps, ZIP_PREFERRED)) {
		c.first = FRAME_VARIANT_PACKED;
		return c;
	}
	if (f->flags & FRAME_IS_PACKED) {
		if (msg_caps_read(caps, (enum zip_kind)f->packed_with))
			return c;
		c.first = FRAME_VARIANT_UNPACKED;
	}
	if (window != DEFLATE_NONE && f->flags & FRAME_CAN_DEFLATE)
		c.second = (unsigned)FRAME_VARIANT_DEFLATED + window - 1;
	return c;
}

/* Pairs with frame_publish_variant(), on whichever worker made it. */
static const struct frame_bytes *variant_in_slot(const struct frame *f, unsigned variant)
{
	return variant == NO_VARIANT
		       ? NULL
		       : atomic_load_explicit(&f->variant[variant], memory_order_acquire);
}

/* Somebody needs it who was not there, or read otherwise, when the message was published. */
static const struct frame_bytes *variant_unpack_late(struct frame *f, struct frame_maker *m)
{
	const Websocket__WebSocketMessage *msg = maker_decode(m, f);
	static const struct msg_said nothing; /* it stands in the message itself */
	size_t budget = SIZE_MAX;             /* that is never used up */
	struct frame_forms w;
	int r = -ENOMEM;

	if (msg) {
		frame_forms_init(&w, f, msg, &nothing, 1u << FRAME_VARIANT_UNPACKED, m);
		r = frame_forms_run(&w, &budget);
		frame_forms_fini(&w);
	} else {
		m->failures++;
	}
	maker_trim(m);
	/* Nobody tries again. */
	if (r)
		return frame_publish_variant(f, FRAME_VARIANT_UNPACKED, &frame_unreadable);
	return variant_in_slot(f, FRAME_VARIANT_UNPACKED);
}

const struct frame_bytes *frame_variant_for(struct frame *f, unsigned caps,
					    enum deflate_window window, struct frame_maker *m)
{
	struct choice c = choice_for(f, caps, window);
	const struct frame_bytes *b = variant_in_slot(f, c.first);

	if (c.first == FRAME_VARIANT_UNPACKED) {
		if (!b)
			b = variant_unpack_late(f, m);
		if (b == &frame_unreadable)
			return NULL;
	}
	if (c.second != NO_VARIANT) {
		const struct frame_bytes *deflated = variant_in_slot(f, c.second);

		return deflated ? deflated : b ? b : &f->body;
	}
	return b ? b : &f->body;
}
