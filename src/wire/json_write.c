/* SPDX-License-Identifier: MIT */
#include "wire/json_write.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "wire/msg.h"

#define NAME_MAX_BYTES 64

struct writer {
	struct buf *b;
	size_t limit;
	int error; /* the first one: nothing is written behind it */
};

static void put_bytes(struct writer *w, const void *p, size_t n)
{
	if (w->error == 0 && n > 0)
		w->error = buf_append(w->b, p, n, w->limit);
}

static void put_word(struct writer *w, const char *word)
{
	put_bytes(w, word, strlen(word));
}

/* ----------------------------------------------------------------------------- texts */

/* Control characters, and the two that end a line in JavaScript, are told by number. */
static void put_escape(struct writer *w, unsigned c)
{
	char text[8];

	switch (c) {
	case '"':
		put_word(w, "\\\"");
		break;
	case '\\':
		put_word(w, "\\\\");
		break;
	case '\n':
		put_word(w, "\\n");
		break;
	case '\r':
		put_word(w, "\\r");
		break;
	case '\t':
		put_word(w, "\\t");
		break;
	default:
		snprintf(text, sizeof(text), "\\u%04x", c);
		put_word(w, text);
	}
}

/* What has to be escaped at @p, which has @n bytes left; its length in bytes, or 0. */
static size_t escape_at(const char *p, size_t n, unsigned *ret)
{
	unsigned char c = (unsigned char)*p;

	*ret = c;
	if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
		return 1;
	/* U+2028 and U+2029. */
	if (c != 0xe2 || n < 3 || (unsigned char)p[1] != 0x80 ||
	    ((unsigned char)p[2] & 0xfe) != 0xa8)
		return 0;
	*ret = 0x2000 | ((unsigned char)p[2] & 0x3f);
	return 3;
}

static void put_text(struct writer *w, const char *p, size_t n)
{
	size_t from = 0;

	put_word(w, "\"");
	for (size_t at = 0; at < n && w->error == 0;) {
		unsigned c;
		size_t length = escape_at(p + at, n - at, &c);

		if (length == 0) {
			at++;
			continue;
		}
		put_bytes(w, p + from, at - from);
		put_escape(w, c);
		from = at += length;
	}
	put_bytes(w, p + from, n - from);
	put_word(w, "\"");
}

/* RFC 4648, section 4: with padding. */
static void put_base64(struct writer *w, const uint8_t *p, size_t n)
{
	static const char digit[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	put_word(w, "\"");
	for (size_t at = 0; at < n && w->error == 0; at += 3) {
		size_t left = MIN(n - at, (size_t)3);
		uint32_t bits = (uint32_t)p[at] << 16 | (left > 1 ? (uint32_t)p[at + 1] << 8 : 0) |
				(left > 2 ? p[at + 2] : 0);
		char out[4] = {digit[bits >> 18], digit[bits >> 12 & 63], '=', '='};

		if (left > 1)
			out[2] = digit[bits >> 6 & 63];
		if (left > 2)
			out[3] = digit[bits & 63];
		put_bytes(w, out, sizeof(out));
	}
	put_word(w, "\"");
}

/* user_id is "userId". */
static void put_name(struct writer *w, const char *name)
{
	char out[NAME_MAX_BYTES];
	size_t n = 0;

	for (const char *p = name; *p && n < sizeof(out); p++) {
		bool is_upper = p > name && p[-1] == '_' && *p >= 'a' && *p <= 'z';

		if (*p != '_')
			out[n++] = is_upper ? (char)(*p - 'a' + 'A') : *p;
	}
	put_word(w, "\"");
	put_bytes(w, out, n);
	put_word(w, "\":");
}

/* ---------------------------------------------------------------------------- values */

static void put_enum(struct writer *w, const ProtobufCEnumDescriptor *d, int value)
{
	const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(d, value);
	char text[16];

	if (v) {
		put_text(w, v->name, strlen(v->name));
		return;
	}
	/* One that a later version knows. */
	snprintf(text, sizeof(text), "%d", value);
	put_word(w, text);
}

static void put_number(struct writer *w, ProtobufCType type, const void *p)
{
	char text[32];

	switch (type) {
	case PROTOBUF_C_TYPE_BOOL:
		put_word(w, *(const protobuf_c_boolean *)p ? "true" : "false");
		return;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		snprintf(text, sizeof(text), "%" PRIu32, *(const uint32_t *)p);
		break;
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		snprintf(text, sizeof(text), "%" PRId32, *(const int32_t *)p);
		break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		snprintf(text, sizeof(text), "\"%" PRIu64 "\"", *(const uint64_t *)p);
		break;
	default:
		snprintf(text, sizeof(text), "\"%" PRId64 "\"", *(const int64_t *)p);
		break;
	}
	put_word(w, text);
}

static void put_message(struct writer *w, const ProtobufCMessage *m);

/* @p: where the value lies. */
static void put_value(struct writer *w, const ProtobufCFieldDescriptor *f, const void *p)
{
	const ProtobufCBinaryData *data = p;
	const char *text;

	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		text = *(char *const *)p;
		put_text(w, text ? text : "", text ? strlen(text) : 0);
		break;
	case PROTOBUF_C_TYPE_BYTES:
		put_base64(w, data->data, data->len);
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		put_message(w, *(ProtobufCMessage *const *)p);
		break;
	case PROTOBUF_C_TYPE_ENUM:
		put_enum(w, f->descriptor, *(const int *)p);
		break;
	default:
		put_number(w, f->type, p);
		break;
	}
}

/* Bytes of an element of a list. */
static size_t value_bytes(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_ENUM:
		return 4;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	default:
		return 8;
	}
}

static bool is_default(const ProtobufCFieldDescriptor *f, const void *p)
{
	const char *text;

	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		text = *(char *const *)p;
		return !text || !text[0];
	case PROTOBUF_C_TYPE_BYTES:
		return ((const ProtobufCBinaryData *)p)->len == 0;
	case PROTOBUF_C_TYPE_MESSAGE:
		return !*(ProtobufCMessage *const *)p;
	default:
		/* No number of this protocol is a negative zero. */
		for (size_t i = 0; i < value_bytes(f->type); i++)
			if (((const uint8_t *)p)[i])
				return false;
		return true;
	}
}

/* Whether it is said: what may be absent says itself whether it is there. */
static bool is_said(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	const uint8_t *at = (const uint8_t *)m;

	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return *(const size_t *)(const void *)(at + f->quantifier_offset) > 0;
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)(const void *)(at + f->quantifier_offset) == f->id;
	return strcmp(f->name, "type") == 0 || strcmp(f->name, "sequence") == 0 ||
	       !is_default(f, at + f->offset);
}

static void put_list(struct writer *w, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	const uint8_t *at = (const uint8_t *)m;
	size_t n = *(const size_t *)(const void *)(at + f->quantifier_offset);
	const uint8_t *list = *(uint8_t *const *)(const void *)(at + f->offset);

	put_word(w, "[");
	for (size_t i = 0; i < n && w->error == 0; i++) {
		if (i > 0)
			put_word(w, ",");
		put_value(w, f, list + i * value_bytes(f->type));
	}
	put_word(w, "]");
}

/* `sequence` of a chunk counts from 0, and 0 is its default: only places are always told. */
static bool is_left_out(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	return m->descriptor == &websocket__binary_data__descriptor &&
	       strcmp(f->name, "sequence") == 0 && is_default(f, (const uint8_t *)m + f->offset);
}

static void put_message(struct writer *w, const ProtobufCMessage *m)
{
	bool is_first = true;

	put_word(w, "{");
	for (unsigned i = 0; m && i < m->descriptor->n_fields && w->error == 0; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];

		if (!is_said(m, f) || is_left_out(m, f))
			continue;
		if (!is_first)
			put_word(w, ",");
		is_first = false;
		put_name(w, f->name);
		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			put_list(w, m, f);
		else
			put_value(w, f, (const uint8_t *)m + f->offset);
	}
	put_word(w, "}");
}

int json_write_message(struct buf *b, const ProtobufCMessage *m, size_t limit)
{
	struct writer w = {.b = b, .limit = limit};

	put_message(&w, m);
	return w.error;
}

int json_write_text(struct buf *b, const char *p, size_t n, size_t limit)
{
	struct writer w = {.b = b, .limit = limit};

	put_text(&w, p, n);
	return w.error;
}
