/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "base/text.h"
#include "containers/mem.h"
#include "wire/msg.h"

/*
 * A decoder guided by the descriptors that protoc-c generated, which stops wherever its budget is
 * used up: between two fields, or in the middle of a long string. Where protobuf-c and the others
 * differ it does what the others do: what it doesn't know, and a field that it knows with another
 * wire type, are passed over and kept.
 */

#define FIRST_SLOTS 4  /* of a repeated field */
#define CHAT_USER_ID 2 /* numbers of fields */
#define CHAT_CONTENT 3
#define KEPT_MAX 4096       /* bytes of a content that is there in any case */
#define FIELD_COST 16       /* of the budget, beside the bytes of a string */
#define ENVELOPE_OWN 17     /* from here on the envelope's fields are hardly ever a client's … */
#define ENVELOPE_EVENT 20   /* … but for this one, which is a payload … */
#define ENVELOPE_OWN_END 22 /* … and what follows is nobody's yet */

#define CHAT (&websocket__chat_message__descriptor)
#define BINARY (&websocket__binary_data__descriptor)
#define CONTROL (&websocket__control_message__descriptor)
#define ENVELOPE (&websocket__web_socket_message__descriptor)

/* protobuf's own numbers; protobuf-c has no names for those of groups. */
enum { WIRE_GROUP_BEGINS = 3, WIRE_GROUP_ENDS = 4 };

struct bytes {
	const uint8_t *p;
	const uint8_t *end;
};

/* One field as it stands on the wire; of a group its beginning, or its end. */
struct field {
	uint32_t id;
	unsigned wire_type;
	const uint8_t *start; /* behind the tag */
	uint64_t number;      /* of a varint or of a fixed width */
	struct bytes body;    /* of a length-delimited one */
};

/* -------------------------------------------------------------------------- the wire */

static bool read_long_varint(struct bytes *in, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 70 && in->p < in->end; shift += 7) {
		uint8_t byte = *in->p++;

		/* The tenth byte has one bit left: others refuse more, protobuf-c drops it. */
		if (shift == 63 && byte > 1)
			return false;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*ret = value;
			return true;
		}
	}
	return false;
}

/* Nearly all have one byte. */
static inline bool read_varint(struct bytes *in, uint64_t *ret)
{
	if (WB_UNLIKELY(in->p == in->end || *in->p > 0x7f))
		return read_long_varint(in, ret);
	*ret = *in->p++;
	return true;
}

/* Tags and lengths: padded with zeroes past five bytes, others refuse them. */
static inline bool read_short_varint(struct bytes *in, uint64_t *ret)
{
	const uint8_t *start = in->p;

	return read_varint(in, ret) && in->p - start <= 5;
}

static bool read_fixed(struct bytes *in, unsigned n, uint64_t *ret)
{
	*ret = 0;
	if ((size_t)(in->end - in->p) < n)
		return false;
	/* The lowest byte comes first. */
	for (unsigned i = 0; i < n; i++)
		*ret |= (uint64_t)*in->p++ << (8 * i);
	return true;
}

static bool read_field(struct bytes *in, struct field *ret)
{
	uint64_t tag, n;

	if (!read_short_varint(in, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
		return false;
	/* A tag is the field's number and the wire type, in three bits. */
	ret->id = (uint32_t)(tag >> 3);
	ret->wire_type = tag & 7;
	ret->start = in->p;
	ret->number = 0;
	ret->body = (struct bytes){NULL, NULL};
	switch (ret->wire_type) {
	case PROTOBUF_C_WIRE_TYPE_VARINT:
		return read_varint(in, &ret->number);
	case PROTOBUF_C_WIRE_TYPE_64BIT:
		return read_fixed(in, 8, &ret->number);
	case PROTOBUF_C_WIRE_TYPE_32BIT:
		return read_fixed(in, 4, &ret->number);
	case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
		if (!read_short_varint(in, &n) || n > (uint64_t)(in->end - in->p))
			return false;
		ret->body = (struct bytes){in->p, in->p + n};
		in->p += n;
		return true;
	case WIRE_GROUP_BEGINS:
	case WIRE_GROUP_ENDS:
		return true;
	default:
		return false;
	}
}

/* ------------------------------------------------------------------------ what is kept */

/* Of several complaints the one counts that comes first in enum msg_result. */
static void decoder_complain(struct msg_decoder *d, enum msg_result result)
{
	if (d->complaint == MSG_OK || result < d->complaint)
		d->complaint = result;
}

/*
 * Makes room for one more element behind @n. The generated structs have no capacity, so it
 * follows from @n: powers of two from FIRST_SLOTS up.
 */
static bool array_grow(struct msg_decoder *d, void **array, size_t n, size_t element_bytes)
{
	size_t slots = n ? 2 * n : FIRST_SLOTS;
	void *larger;

	/* It is full at FIRST_SLOTS and at each power of two above. */
	if (n && (n < FIRST_SLOTS || (n & (n - 1))))
		return true;
	larger = arena_alloc(d->arena, slots * element_bytes);
	if (!larger)
		return false;
	if (n)
		memcpy(larger, *array, n * element_bytes);
	*array = larger;
	return true;
}

/* Strings that the daemon compares or stores: what a NUL hides in one would deceive it. */
static bool forbids_nul(const ProtobufCMessageDescriptor *desc, uint32_t id)
{
	if (desc == CHAT)
		return id == 2; /* user_id */
	if (desc == ENVELOPE)
		return id == 16; /* channel */
	if (desc == CONTROL)
		return id == 2 || id == 18 || id == 20; /* session_id, channels, user_id */
	if (desc == BINARY)
		return id == 2 || id == 16;                         /* checksum, name */
	return desc == &websocket__position__descriptor && id == 1; /* channel */
}

/* Not protobuf-c's own constant, which in a oneof is left out when it is packed again. */
static const char empty[1] = "";

/* Reading goes on: the answer repeats the request_id, which may stand behind this. */
static void judge_string(struct msg_decoder *d, bool is_utf8, bool has_nul)
{
	if (!is_utf8)
		decoder_complain(d, MSG_BAD_UTF8);
	else if (has_nul)
		decoder_complain(d, MSG_BAD_TEXT);
}

/* The next piece of a string is checked and copied. */
static void string_on(struct msg_decoder *d)
{
	struct msg_string *s = &d->string;
	size_t n = MIN(s->left, d->budget);

	s->utf8 = utf8_feed(s->utf8, s->from, n);
	s->has_nul |= s->forbids_nul && memchr(s->from, '\0', n);
	if (s->to) {
		memcpy(s->to, s->from, n);
		s->to += n;
		*s->to = '\0';
	}
	s->from += n;
	s->left -= n;
	d->budget -= n;
	if (s->left > 0)
		return;
	judge_string(d, s->utf8 == UTF8_ACCEPT, s->has_nul);
}

/* A long one is there at once, though its bytes come in later steps. */
static enum msg_result put_string(struct msg_decoder *d, const ProtobufCMessageDescriptor *desc,
				  const struct field *f, char **ret)
{
	size_t n = (size_t)(f->body.end - f->body.p);
	bool is_plain, is_dropped;
	char *text;

	if (n == 0) {
		*ret = (char *)(uintptr_t)empty;
		return MSG_OK;
	}
	is_dropped = d->drops_content && n > KEPT_MAX && desc == CHAT && f->id == CHAT_CONTENT;
	text = is_dropped ? (char *)(uintptr_t)empty : arena_alloc(d->arena, n + 1);
	if (!text)
		return MSG_TOO_BIG;
	*ret = text;
	is_plain = forbids_nul(desc, f->id);
	if (n > d->budget || is_dropped) {
		d->string = (struct msg_string){
			.to = is_dropped ? NULL : text,
			.from = f->body.p,
			.left = n,
			.utf8 = UTF8_ACCEPT,
			.forbids_nul = is_plain,
		};
		return MSG_OK;
	}
	d->budget -= n;
	memcpy(text, f->body.p, n);
	text[n] = '\0';
	judge_string(d, utf8_valid(f->body.p, n), is_plain && memchr(f->body.p, '\0', n));
	return MSG_OK;
}

/* Of the envelope, and not a client's to say: whatever its wire type is. */
static void note_cut(struct msg_spots *s, uint32_t id, const uint8_t *tag, const uint8_t *end)
{
	if (id == ENVELOPE_EVENT || id >= ENVELOPE_OWN_END)
		return;
	if (s->n_cuts < ARRAY_LEN(s->cut))
		s->cut[s->n_cuts] = (struct msg_cut){tag, end};
	s->n_cuts++;
}

/* Kept, so that what a later version sends is whole when it is packed again. */
static enum msg_result put_unknown(struct msg_decoder *d, ProtobufCMessage *m, uint32_t id,
				   unsigned wire_type, struct bytes data)
{
	void *array = m->unknown_fields;

	if (!array_grow(d, &array, m->n_unknown_fields, sizeof(*m->unknown_fields)))
		return MSG_TOO_BIG;
	m->unknown_fields = array;
	m->unknown_fields[m->n_unknown_fields++] = (ProtobufCMessageUnknownField){
		.tag = id,
		.wire_type = (ProtobufCWireType)wire_type,
		.len = (size_t)(data.end - data.p),
		.data = (uint8_t *)(uintptr_t)data.p,
	};
	return MSG_OK;
}

/* --------------------------------------------------------------------- what is known */

/* How a field of a type comes; what comes otherwise is not known. */
static const uint8_t wire_type_of[] = {
	[PROTOBUF_C_TYPE_INT32] = PROTOBUF_C_WIRE_TYPE_VARINT,
	[PROTOBUF_C_TYPE_INT64] = PROTOBUF_C_WIRE_TYPE_VARINT,
	[PROTOBUF_C_TYPE_UINT32] = PROTOBUF_C_WIRE_TYPE_VARINT,
	[PROTOBUF_C_TYPE_UINT64] = PROTOBUF_C_WIRE_TYPE_VARINT,
	[PROTOBUF_C_TYPE_BOOL] = PROTOBUF_C_WIRE_TYPE_VARINT,
	[PROTOBUF_C_TYPE_ENUM] = PROTOBUF_C_WIRE_TYPE_VARINT,
	[PROTOBUF_C_TYPE_FIXED32] = PROTOBUF_C_WIRE_TYPE_32BIT,
	[PROTOBUF_C_TYPE_FIXED64] = PROTOBUF_C_WIRE_TYPE_64BIT,
	[PROTOBUF_C_TYPE_STRING] = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
	[PROTOBUF_C_TYPE_BYTES] = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
	[PROTOBUF_C_TYPE_MESSAGE] = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
};

/* Numbers: cut to the width of the field, as every protobuf implementation does. */
static void put_number(const ProtobufCFieldDescriptor *what, uint64_t number, void *member)
{
	switch (what->type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		*(uint64_t *)member = number;
		break;
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)member = number != 0;
		break;
	default:
		*(uint32_t *)member = (uint32_t)number;
		break;
	}
}

static inline enum msg_result begin_message(struct msg_decoder *d,
					    const ProtobufCFieldDescriptor *what,
					    const struct field *f, ProtobufCMessage **member)
{
	const ProtobufCMessageDescriptor *desc = what->descriptor;

	/* NULL also where choose_in_oneof() has taken the place from another kind of payload. */
	if (!*member) {
		ProtobufCMessage *m = arena_alloc(d->arena, desc->sizeof_message);

		if (!m)
			return MSG_TOO_BIG;
		protobuf_c_message_init(desc, m);
		*member = m;
	}
	WB_ASSERT(d->depth < ARRAY_LEN(d->level)); /* as deep as message.proto is */
	d->level[d->depth++] = (struct msg_level){*member, f->body.p, f->body.end};
	return MSG_OK;
}

/* One of a list, which is hardly ever there: kept apart from what every message has. */
__attribute__((noinline)) static enum msg_result put_element(struct msg_decoder *d,
							     const ProtobufCFieldDescriptor *what,
							     const struct field *f,
							     ProtobufCMessage **member)
{
	return begin_message(d, what, f, member);
}

/* A payload that is there already is added to, not replaced: protobuf merges repetitions. */
static inline enum msg_result put_message(struct msg_decoder *d,
					  const ProtobufCFieldDescriptor *what,
					  const struct field *f, ProtobufCMessage **member)
{
	if (d->depth == 1) {
		d->spots.length = f->start;
		d->spots.body = f->body.p;
		d->spots.end = f->body.end;
		d->spots.n_payloads++;
	}
	return begin_message(d, what, f, member);
}

/* Lists of texts and of messages: both are pointers. */
static enum msg_result put_repeated(struct msg_decoder *d, const ProtobufCMessageDescriptor *desc,
				    const ProtobufCFieldDescriptor *what, const struct field *f,
				    size_t *count, void **array)
{
	enum msg_result r;

	/* Of mentions others read as many as a message has room for. */
	if (*count >= d->max_list && desc != CHAT)
		return MSG_LONG_LIST;
	if (!array_grow(d, array, *count, sizeof(void *)))
		return MSG_TOO_BIG;
	((void **)*array)[*count] = NULL; /* a new one, not one to be merged with */
	if (what->type == PROTOBUF_C_TYPE_MESSAGE)
		r = put_element(d, what, f, (ProtobufCMessage **)*array + *count);
	else
		r = put_string(d, desc, f, (char **)*array + *count);
	*count += r == MSG_OK;
	return r;
}

/* The other members of a oneof lose their value; pointers are looked at later, numbers never. */
static void choose_in_oneof(struct msg_decoder *d, const ProtobufCFieldDescriptor *what,
			    uint32_t *chosen, void *member)
{
	if (*chosen == what->id)
		return;
	/* No writer makes two payloads, and some readers show the first one, some both. */
	if (*chosen != 0)
		decoder_complain(d, MSG_TWO_PAYLOADS);
	*chosen = what->id;
	if (what->type == PROTOBUF_C_TYPE_MESSAGE)
		*(ProtobufCMessage **)member = NULL;
}

static void note_user_id(struct msg_spots *s, const uint8_t *tag, const uint8_t *end)
{
	if (s->n_user_ids < ARRAY_LEN(s->user_id)) {
		s->user_id[s->n_user_ids].p = tag;
		s->user_id[s->n_user_ids].end = end;
	}
	s->n_user_ids++;
}

static enum msg_result put_field(struct msg_decoder *d, ProtobufCMessage *m,
				 const ProtobufCFieldDescriptor *what, const struct field *f)
{
	char *member = (char *)m + what->offset;
	char *quantifier = (char *)m + what->quantifier_offset;

	/* First of all: the last member on the wire is the one that counts. */
	if (what->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		choose_in_oneof(d, what, (uint32_t *)(void *)quantifier, member);
	if (what->label == PROTOBUF_C_LABEL_REPEATED)
		return put_repeated(d, m->descriptor, what, f, (size_t *)(void *)quantifier,
				    (void **)(void *)member);
	switch (what->type) {
	case PROTOBUF_C_TYPE_STRING:
		return put_string(d, m->descriptor, f, (char **)(void *)member);
	case PROTOBUF_C_TYPE_BYTES:
		*(ProtobufCBinaryData *)(void *)member = (ProtobufCBinaryData){
			.len = (size_t)(f->body.end - f->body.p),
			.data = (uint8_t *)(uintptr_t)f->body.p,
		};
		return MSG_OK;
	case PROTOBUF_C_TYPE_MESSAGE:
		return put_message(d, what, f, (ProtobufCMessage **)(void *)member);
	default:
		put_number(what, f->number, member);
		return MSG_OK;
	}
}

/* Most known fields are numbered without a gap: the first guess is nearly always right. */
static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *desc,
						  uint32_t id)
{
	if (id <= desc->n_fields && desc->fields[id - 1].id == id)
		return &desc->fields[id - 1];
	for (unsigned i = 0; i < desc->n_fields; i++)
		if (desc->fields[i].id == id)
			return &desc->fields[i];
	return NULL;
}

/* ------------------------------------------------------------------------------ groups */

/* proto3 has none, so none is known: it is passed over, field by field, up to its own end. */
static enum msg_result group_on(struct msg_decoder *d, ProtobufCMessage *m, const struct field *f,
				const uint8_t *tag, const uint8_t *end)
{
	if (f->wire_type == WIRE_GROUP_BEGINS) {
		if (d->n_groups == MSG_GROUPS_MAX)
			return MSG_NOT_A_MESSAGE;
		if (d->n_groups == 0) {
			d->group_tag = tag;
			d->group_start = f->start;
		}
		d->group[d->n_groups++] = f->id;
		return MSG_OK;
	}
	if (f->wire_type != WIRE_GROUP_ENDS)
		return MSG_OK;
	if (d->n_groups == 0 || d->group[d->n_groups - 1] != f->id)
		return MSG_NOT_A_MESSAGE;
	if (--d->n_groups > 0)
		return MSG_OK;
	if (f->id >= ENVELOPE_OWN && m->descriptor == ENVELOPE)
		note_cut(&d->spots, f->id, d->group_tag, end);
	return put_unknown(d, m, f->id, WIRE_GROUP_BEGINS, (struct bytes){d->group_start, end});
}

static bool is_of_group(const struct msg_decoder *d, const struct field *f)
{
	return d->n_groups > 0 || f->wire_type == WIRE_GROUP_BEGINS ||
	       f->wire_type == WIRE_GROUP_ENDS;
}

/* ------------------------------------------------------------------------- in steps */

/* @tag: where it began; @end: behind it. */
static enum msg_result decode_field(struct msg_decoder *d, ProtobufCMessage *m,
				    const struct field *f, const uint8_t *tag, const uint8_t *end)
{
	const ProtobufCFieldDescriptor *what;

	if (WB_UNLIKELY(is_of_group(d, f)))
		return group_on(d, m, f, tag, end);
	if (WB_UNLIKELY(f->id >= ENVELOPE_OWN && m->descriptor == ENVELOPE))
		note_cut(&d->spots, f->id, tag, end);
	/* Of a field that isn't repeated the last one counts, as everywhere in protobuf. */
	what = find_field(m->descriptor, f->id);
	if (WB_UNLIKELY(!what || wire_type_of[what->type] != f->wire_type))
		return put_unknown(d, m, f->id, f->wire_type, (struct bytes){f->start, end});
	if (f->id == CHAT_USER_ID && m->descriptor == CHAT)
		note_user_id(&d->spots, tag, end);
	return put_field(d, m, what, f);
}

/* The fields of one message, up to the next one inside it or where something has to wait. */
static enum msg_result decode_fields(struct msg_decoder *d, struct msg_level *level)
{
	struct bytes in = {level->p, level->end};
	const unsigned depth = d->depth;
	enum msg_result r = MSG_OK;

	while (r == MSG_OK && in.p < in.end && d->depth == depth && d->budget > 0 &&
	       d->string.left == 0) {
		const uint8_t *tag = in.p;
		struct field f;

		r = read_field(&in, &f) ? decode_field(d, level->m, &f, tag, in.p)
					: MSG_NOT_A_MESSAGE;
		d->budget -= MIN(d->budget, (size_t)FIELD_COST);
	}
	/* The rest of the payload isn't read, but the request_id may stand behind it. */
	if (r == MSG_LONG_LIST) {
		decoder_complain(d, r);
		in.p = in.end;
		r = MSG_OK;
	}
	level->p = in.p;
	return r;
}

/* Whether the payload is of the kind that the type says; an ERROR may answer it otherwise. */
static enum msg_result check_kind(const Websocket__WebSocketMessage *m)
{
	/* HEARTBEAT needs none, and whatever comes with it is passed over. */
	switch (m->type) {
	case WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE:
		return m->payload_case == WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CHAT
			       ? MSG_OK
			       : MSG_WRONG_PAYLOAD;
	case WEBSOCKET__MESSAGE_TYPE__BINARY_DATA:
		return m->payload_case == WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_BINARY
			       ? MSG_OK
			       : MSG_WRONG_PAYLOAD;
	case WEBSOCKET__MESSAGE_TYPE__CONTROL:
		if (m->payload_case != WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CONTROL)
			return MSG_WRONG_PAYLOAD;
		if (!protobuf_c_enum_descriptor_get_value(&websocket__control_type__descriptor,
							  (int)m->control->type))
			return MSG_UNKNOWN_TYPE;
		return MSG_OK;
	case WEBSOCKET__MESSAGE_TYPE__HEARTBEAT:
		return MSG_OK;
	default:
		return MSG_UNKNOWN_TYPE;
	}
}

enum msg_result msg_decoder_begin(struct msg_decoder *d, struct arena *a, const uint8_t *p,
				  size_t n, size_t max_list)
{
	Websocket__WebSocketMessage *m = arena_alloc(a, sizeof(*m));

	d->m = m;
	d->arena = a;
	d->max_list = max_list;
	d->drops_content = false;
	d->complaint = MSG_OK;
	d->depth = 0;
	d->n_groups = 0;
	d->string.left = 0;
	d->spots.n_payloads = d->spots.n_user_ids = d->spots.n_cuts = 0;
	d->spots.is_resend = false;
	d->spots.known = 0;
	if (!m)
		return MSG_TOO_BIG;
	websocket__web_socket_message__init(m);
	if (n > 0)
		d->level[d->depth++] = (struct msg_level){&m->base, p, p + n};
	return MSG_OK;
}

enum msg_result msg_decoder_run(struct msg_decoder *d, size_t *budget,
				Websocket__WebSocketMessage **ret)
{
	enum msg_result r = MSG_OK;

	d->budget = *budget;
	while (r == MSG_OK && (d->depth > 0 || d->string.left > 0)) {
		struct msg_level *level = &d->level[d->depth - 1];

		if (d->budget == 0) {
			r = MSG_UNFINISHED;
		} else if (d->string.left > 0) {
			string_on(d);
		} else if (level->p == level->end) {
			if (d->n_groups > 0)
				r = MSG_NOT_A_MESSAGE;
			d->depth--;
		} else {
			r = decode_fields(d, level);
		}
	}
	*budget = d->budget;
	if (r != MSG_OK)
		return r;
	/* From here on it is a message, be its content as it may: the caller can answer it. */
	*ret = d->m;
	return d->complaint != MSG_OK ? d->complaint : check_kind(d->m);
}

enum msg_result msg_decode_bounded(struct arena *a, const uint8_t *p, size_t n, size_t max_list,
				   Websocket__WebSocketMessage **ret)
{
	struct msg_decoder d;
	size_t budget = SIZE_MAX; /* that no message uses up */
	enum msg_result r = msg_decoder_begin(&d, a, p, n, max_list);

	return r == MSG_OK ? msg_decoder_run(&d, &budget, ret) : r;
}

enum msg_result msg_decode(struct arena *a, const uint8_t *p, size_t n,
			   Websocket__WebSocketMessage **ret)
{
	return msg_decode_bounded(a, p, n, SIZE_MAX, ret);
}
