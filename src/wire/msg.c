/* SPDX-License-Identifier: MIT */
#include "wire/msg.h"

#include <string.h>

#include "base/text.h"
#include "containers/mem.h"
#include "model/close_codes.h"

#define RESERVED_USER "system"
#define FIRST_SLOTS 4 /* of a repeated field */

#define CHAT (&websocket__chat_message__descriptor)
#define BINARY (&websocket__binary_data__descriptor)
#define CONTROL (&websocket__control_message__descriptor)
#define ENVELOPE (&websocket__web_socket_message__descriptor)

struct decoder {
	struct arena *arena;
	enum msg_result complaint; /* about the content so far, of what is well formed */
	size_t max_list;           /* of each list but mentions */
};

struct bytes {
	const uint8_t *p;
	const uint8_t *end;
};

/* One field as it stands on the wire. */
struct field {
	uint32_t id;
	unsigned wire_type;
	const uint8_t *start; /* behind the tag */
	uint64_t number;      /* of a varint */
	struct bytes body;    /* of a length-delimited one */
};

static bool read_varint(struct bytes *in, uint64_t *ret)
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

/* Tags and lengths: padded with zeroes past five bytes, others refuse them. */
static bool read_short_varint(struct bytes *in, uint64_t *ret)
{
	const uint8_t *start = in->p;

	return read_varint(in, ret) && in->p - start <= 5;
}

static bool bytes_skip(struct bytes *in, uint64_t n)
{
	if ((uint64_t)(in->end - in->p) < n)
		return false;
	in->p += n;
	return true;
}

/* Groups, which proto3 does not have, are refused like any other wire type that is not known. */
static bool read_field(struct bytes *in, struct field *ret)
{
	uint64_t tag, n;

	if (!read_short_varint(in, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
		return false;
	/* A tag is the field's number and the wire type, in three bits. */
	ret->id = (uint32_t)(tag >> 3);
	ret->wire_type = tag & 7;
	ret->start = in->p;
	switch (ret->wire_type) {
	case PROTOBUF_C_WIRE_TYPE_VARINT:
		return read_varint(in, &ret->number);
	case PROTOBUF_C_WIRE_TYPE_64BIT:
		return bytes_skip(in, 8);
	case PROTOBUF_C_WIRE_TYPE_32BIT:
		return bytes_skip(in, 4);
	case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
		if (!read_short_varint(in, &n) || n > INT32_MAX)
			return false;
		ret->body.p = in->p;
		if (!bytes_skip(in, n))
			return false;
		ret->body.end = in->p;
		return true;
	default:
		return false;
	}
}

/* Of several complaints the one counts that comes first in enum msg_result. */
static void decoder_complain(struct decoder *d, enum msg_result result)
{
	if (d->complaint == MSG_OK || result < d->complaint)
		d->complaint = result;
}

/*
 * Makes room for one more element behind @n. The generated structs have no capacity, so it
 * follows from @n: powers of two from FIRST_SLOTS up.
 */
static bool array_grow(struct decoder *d, void **array, size_t n, size_t element_bytes)
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
	if (desc == ENVELOPE)
		return id == 16; /* channel */
	if (desc == CONTROL)
		return id == 2 || id == 18; /* session_id, channels */
	return id == 2 || id == 16;         /* user_id; checksum, name */
}

/* Not protobuf-c's own constant, which in a oneof is left out when it is packed again. */
static const char empty[1] = "";

static enum msg_result put_string(struct decoder *d, const ProtobufCMessageDescriptor *desc,
				  const struct field *f, char **ret)
{
	size_t n = (size_t)(f->body.end - f->body.p);
	char *text;

	if (n == 0) {
		*ret = (char *)(uintptr_t)empty;
		return MSG_OK;
	}
	/* Reading goes on: the answer repeats the request_id, which may stand behind this. */
	if (!utf8_valid(f->body.p, n))
		decoder_complain(d, MSG_BAD_UTF8);
	else if (forbids_nul(desc, f->id) && memchr(f->body.p, '\0', n))
		decoder_complain(d, MSG_BAD_TEXT);
	text = arena_alloc(d->arena, n + 1);
	if (!text)
		return MSG_TOO_BIG;
	memcpy(text, f->body.p, n);
	text[n] = '\0';
	*ret = text;
	return MSG_OK;
}

static enum msg_result put_unknown(struct decoder *d, ProtobufCMessage *m, const struct field *f,
				   const uint8_t *end)
{
	void *array = m->unknown_fields;

	/* Kept, so that what a later version sends is whole when it is packed again. */
	if (!array_grow(d, &array, m->n_unknown_fields, sizeof(*m->unknown_fields)))
		return MSG_TOO_BIG;
	m->unknown_fields = array;
	m->unknown_fields[m->n_unknown_fields++] = (ProtobufCMessageUnknownField){
		.tag = f->id,
		.wire_type = (ProtobufCWireType)f->wire_type,
		.len = (size_t)(end - f->start),
		.data = (uint8_t *)(uintptr_t)f->start,
	};
	return MSG_OK;
}

/* Numbers: cut to the width of the field, as every protobuf implementation does. */
static bool put_number(const ProtobufCFieldDescriptor *what, uint64_t number, void *member)
{
	/* No field of the protocol is of a fixed width or zigzag: these are of a wrong type. */
	switch (what->type) {
	case PROTOBUF_C_TYPE_ENUM:
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_UINT32:
		*(uint32_t *)member = (uint32_t)number;
		return true;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64:
		*(uint64_t *)member = number;
		return true;
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)member = number != 0;
		return true;
	default:
		return false;
	}
}

static enum msg_result decode_fields(struct decoder *d, ProtobufCMessage *m, struct bytes in);

/* A payload that is there already is added to, not replaced: protobuf merges repetitions. */
static enum msg_result put_message(struct decoder *d, const ProtobufCFieldDescriptor *what,
				   const struct field *f, ProtobufCMessage **member)
{
	const ProtobufCMessageDescriptor *desc = what->descriptor;
	enum msg_result r;

	/* NULL also where choose_in_oneof() has taken the place from another kind of payload. */
	if (!*member) {
		ProtobufCMessage *m = arena_alloc(d->arena, desc->sizeof_message);

		if (!m)
			return MSG_TOO_BIG;
		protobuf_c_message_init(desc, m);
		*member = m;
	}
	r = decode_fields(d, *member, f->body);
	if (r != MSG_LONG_LIST)
		return r;
	/* The rest of the payload isn't read, but the request_id may stand behind it. */
	decoder_complain(d, r);
	return MSG_OK;
}

static enum msg_result put_repeated(struct decoder *d, const ProtobufCMessageDescriptor *desc,
				    const struct field *f, size_t *count, void **array)
{
	enum msg_result r;

	/* Of mentions others read as many as a message has room for. */
	if (*count >= d->max_list && desc != CHAT)
		return MSG_LONG_LIST;
	if (!array_grow(d, array, *count, sizeof(char *)))
		return MSG_TOO_BIG;
	r = put_string(d, desc, f, (char **)*array + *count);
	*count += r == MSG_OK;
	return r;
}

/* The other members of a oneof lose their value; pointers are looked at later, numbers never. */
static void choose_in_oneof(const ProtobufCFieldDescriptor *what, uint32_t *chosen, void *member)
{
	if (*chosen == what->id)
		return;
	*chosen = what->id;
	if (what->type == PROTOBUF_C_TYPE_MESSAGE)
		*(ProtobufCMessage **)member = NULL;
}

static enum msg_result put_field(struct decoder *d, ProtobufCMessage *m,
				 const ProtobufCFieldDescriptor *what, const struct field *f)
{
	char *member = (char *)m + what->offset;
	char *quantifier = (char *)m + what->quantifier_offset;

	/* First of all: the last member on the wire is the one that counts. */
	if (what->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		choose_in_oneof(what, (uint32_t *)(void *)quantifier, member);
	if (f->wire_type == PROTOBUF_C_WIRE_TYPE_VARINT)
		return put_number(what, f->number, member) ? MSG_OK : MSG_NOT_A_MESSAGE;
	if (f->wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
		return MSG_NOT_A_MESSAGE;

	switch (what->type) {
	case PROTOBUF_C_TYPE_STRING:
		if (what->label == PROTOBUF_C_LABEL_REPEATED)
			return put_repeated(d, m->descriptor, f, (size_t *)(void *)quantifier,
					    (void **)(void *)member);
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
		return MSG_NOT_A_MESSAGE;
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

/* Recursion ends with the descriptors: a payload has no field of a message type. */
static enum msg_result decode_fields(struct decoder *d, ProtobufCMessage *m, struct bytes in)
{
	while (in.p < in.end) {
		const ProtobufCFieldDescriptor *what;
		struct field f = {0};
		enum msg_result r;

		if (!read_field(&in, &f))
			return MSG_NOT_A_MESSAGE;
		/* Of a field that isn't repeated the last one counts, as everywhere in protobuf. */
		what = find_field(m->descriptor, f.id);
		r = what ? put_field(d, m, what, &f) : put_unknown(d, m, &f, in.p);
		if (r != MSG_OK)
			return r;
	}
	return MSG_OK;
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

enum msg_result msg_decode(struct arena *a, const uint8_t *p, size_t n,
			   Websocket__WebSocketMessage **ret)
{
	return msg_decode_bounded(a, p, n, SIZE_MAX, ret);
}

enum msg_result msg_decode_bounded(struct arena *a, const uint8_t *p, size_t n, size_t max_list,
				   Websocket__WebSocketMessage **ret)
{
	struct decoder d = {.arena = a, .max_list = max_list};
	Websocket__WebSocketMessage *m;
	enum msg_result r;

	m = arena_alloc(a, sizeof(*m));
	if (!m)
		return MSG_TOO_BIG;
	websocket__web_socket_message__init(m);
	if (n) {
		r = decode_fields(&d, &m->base, (struct bytes){p, p + n});
		if (r != MSG_OK)
			return r;
	}
	/* From here on it is a message, be its content as it may: the caller can answer it. */
	*ret = m;
	return d.complaint != MSG_OK ? d.complaint : check_kind(m);
}

enum msg_result msg_check_chat(const Websocket__WebSocketMessage *m)
{
	if (m->payload_case == WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CHAT &&
	    strcmp(m->chat->user_id, RESERVED_USER) == 0)
		return MSG_RESERVED_USER;
	return MSG_OK;
}

enum msg_result msg_check_binary(const Websocket__WebSocketMessage *m)
{
	const Websocket__BinaryData *b;

	if (m->payload_case != WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_BINARY)
		return MSG_OK;
	b = m->binary;
	/* Of the data as it was carried, packed or not: nothing has to be unpacked for it. */
	if (b->checksum[0] &&
	    !msg_checksum_matches(b->checksum, msg_crc32(b->data.data, b->data.len)))
		return MSG_BAD_CHECKSUM;
	return MSG_OK;
}

/* The outcomes: what an ERROR says, and the Close that follows it; 0: the connection stays. */
static const struct {
	const char *text;
	uint16_t close_code;
} result_row[MSG_N_RESULTS] = {
	[MSG_OK] = {"ok", 0},
	/* RFC 6455 section 7.4.1: data that is not consistent with the type of the message. */
	[MSG_NOT_A_MESSAGE] = {"not a WebSocketMessage", WS_CODE_INVALID_DATA},
	[MSG_BAD_UTF8] = {"a text field is not valid UTF-8", WS_CODE_INVALID_DATA},
	[MSG_BAD_TEXT] = {"a name, id or checksum contains a NUL character", 0},
	[MSG_LONG_LIST] = {"a list is too long", 0},
	[MSG_UNKNOWN_TYPE] = {"unknown message type", 0},
	[MSG_WRONG_PAYLOAD] = {"payload missing or not of the message's type", 0},
	[MSG_BAD_CHECKSUM] = {"checksum does not match the data", 0},
	[MSG_RESERVED_USER] = {"user_id \"" RESERVED_USER "\" is reserved", 0},
	[MSG_TOO_BIG] = {"message needs too much memory", WS_CODE_TOO_BIG},
};

const char *msg_result_text(enum msg_result result)
{
	return (unsigned)result < MSG_N_RESULTS ? result_row[result].text : "unknown error";
}

uint16_t msg_result_close_code(enum msg_result result)
{
	return (unsigned)result < MSG_N_RESULTS ? result_row[result].close_code : 0;
}
