/* SPDX-License-Identifier: MIT */
/*
 * Messages; the input is the bytes of one. protobuf-c is the judge: what we take it
 * takes too, and both make the same of it. What was taken, packed again, is the same
 * message. Where the two differ by intent: repeated payloads are merged here and not
 * there, groups and fields of another wire type than theirs are passed over here and
 * refused there, and a NUL ends a text for whoever packs it. Read in steps the same comes out.
 */
#include "fuzz.h"

#include "base/text.h"
#include "containers/mem.h"
#include "wire/msg.h"

#define ROOMY ((size_t)64 << 20)
#define TIGHT 2048

typedef Websocket__WebSocketMessage message;

static uint8_t *pack(const message *m, size_t *ret_n)
{
	size_t n = websocket__web_socket_message__get_packed_size(m);
	uint8_t *p = malloc(n + 1);

	WB_ASSERT(p);
	*ret_n = websocket__web_socket_message__pack(m, p);
	WB_ASSERT(*ret_n == n);
	return p;
}

static bool read_varint(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
	*ret = 0;
	for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
		uint8_t byte = *(*p)++;

		*ret |= (uint64_t)(byte & 127) << shift;
		if (byte < 128)
			return true;
	}
	return false;
}

/* How many payloads an accepted message has on the wire. */
static unsigned count_payloads(const uint8_t *p, size_t n)
{
	const uint8_t *end = p + n;
	unsigned count = 0;
	uint64_t tag, len;

	while (p < end && read_varint(&p, end, &tag)) {
		switch (tag & 7) {
		case 0:
			(void)read_varint(&p, end, &len);
			break;
		case 1:
			p += 8;
			break;
		case 5:
			p += 4;
			break;
		default:
			(void)read_varint(&p, end, &len);
			p += len;
			count += (tag >> 3 >= 3 && tag >> 3 <= 5) || tag >> 3 == 20;
			break;
		}
	}
	WB_ASSERT(p == end);
	return count;
}

/* Whether something in a message was passed over that protobuf-c refuses, or reads otherwise. */
static bool is_laxer(const ProtobufCMessage *m)
{
	for (unsigned i = 0; i < m->n_unknown_fields; i++)
		if (m->unknown_fields[i].wire_type == 3 ||
		    protobuf_c_message_descriptor_get_field(m->descriptor,
							    m->unknown_fields[i].tag))
			return true;
	/* In lists of messages, too; a payload is the caller's to look at. */
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const char *base = (const char *)m;
		ProtobufCMessage *const *list;
		size_t count;

		if (f->type != PROTOBUF_C_TYPE_MESSAGE || f->label != PROTOBUF_C_LABEL_REPEATED)
			continue;
		memcpy(&count, base + f->quantifier_offset, sizeof(count));
		memcpy(&list, base + f->offset, sizeof(list));
		for (size_t k = 0; k < count; k++)
			if (is_laxer(list[k]))
				return true;
	}
	return false;
}

static const ProtobufCMessage *payload_of(const message *m)
{
	return m->payload_case ? &m->chat->base : NULL; /* a union of pointers to messages */
}

static void check_in_steps(const uint8_t *p, size_t n, const message *whole, enum msg_result result)
{
	struct msg_decoder d;
	struct arena arena;
	message *m = NULL;
	uint8_t *a, *b;
	size_t n_a, n_b, step = 1 + n % 50;
	enum msg_result r;

	arena_init(&arena, 4096, ROOMY);
	r = msg_decoder_begin(&d, &arena, p, n, SIZE_MAX);
	WB_ASSERT(r == MSG_OK);
	do {
		size_t budget = step;

		r = msg_decoder_run(&d, &budget, &m);
	} while (r == MSG_UNFINISHED);
	WB_ASSERT(r == result && !m == !whole);
	if (m) {
		a = pack(m, &n_a);
		b = pack(whole, &n_b);
		WB_ASSERT(n_a == n_b && memcmp(a, b, n_a) == 0);
		free(a);
		free(b);
	}
	arena_fini(&arena);
}

static void check_against_protobuf_c(const uint8_t *p, size_t n, const message *ours)
{
	const ProtobufCMessage *payload = payload_of(ours);
	message *theirs;
	uint8_t *a, *b;
	size_t n_a, n_b;

	if (is_laxer(&ours->base) || (payload && is_laxer(payload)))
		return;
	theirs = websocket__web_socket_message__unpack(NULL, n, p);
	/* Of payloads that were replaced by another one nothing is left to be looked at. */
	if (!theirs && count_payloads(p, n) > 1)
		return;
	WB_ASSERT(theirs);
	if (count_payloads(p, n) < 2) {
		a = pack(ours, &n_a);
		b = pack(theirs, &n_b);
		WB_ASSERT(n_a == n_b && memcmp(a, b, n_a) == 0);
		free(a);
		free(b);
	}
	websocket__web_socket_message__free_unpacked(theirs, NULL);
}

static void check_again(const message *m, enum msg_result result)
{
	struct arena arena;
	message *again = NULL;
	size_t n, n_again;
	uint8_t *p = pack(m, &n), *q;
	enum msg_result r;

	arena_init(&arena, 4096, ROOMY);
	r = msg_decode(&arena, p, n, &again);
	WB_ASSERT(again && (r == result || result == MSG_BAD_TEXT || result == MSG_BAD_UTF8 ||
			    result == MSG_TWO_PAYLOADS));
	q = pack(again, &n_again);
	WB_ASSERT(n == n_again && memcmp(p, q, n) == 0);
	free(q);
	arena_fini(&arena);
	free(p);
}

/* One text of a message, the nth where there are several, or NULL. */
static const char *text_of(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, size_t nth)
{
	const void *at = (const char *)m + f->offset;
	const void *quantifier = (const char *)m + f->quantifier_offset;

	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return nth < *(const size_t *)quantifier ? (*(char *const *const *)at)[nth] : NULL;
	if (nth > 0)
		return NULL;
	if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && *(const uint32_t *)quantifier != f->id)
		return NULL;
	return *(const char *const *)at;
}

/* What goes on to everybody has no text that somebody cannot read. */
static void check_texts(const ProtobufCMessage *m)
{
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const char *text;

		if (f->type != PROTOBUF_C_TYPE_STRING)
			continue;
		for (size_t nth = 0; (text = text_of(m, f, nth)); nth++)
			WB_ASSERT(utf8_valid(text, strlen(text)));
	}
}

/* With less memory the same comes out, or that it was too little. */
static void check_tight(const uint8_t *p, size_t n, enum msg_result result)
{
	struct arena arena;
	message *m = NULL;
	enum msg_result r;

	arena_init(&arena, 256, TIGHT);
	r = msg_decode(&arena, p, n, &m);
	WB_ASSERT(r == result || r == MSG_TOO_BIG);
	arena_fini(&arena);
}

/* The same payload with other data in it: what a variant for another reader is. */
static void check_repack(const message *m)
{
	static const uint8_t data[] = "other data";
	struct msg_builder b;
	struct arena arena;
	message *again = NULL;
	enum msg_result r;
	uint8_t *p;
	size_t n;

	msg_init_repack(&b, m, data, sizeof(data), WEBSOCKET__COMPRESSION_TYPE__NONE);
	n = msg_size(&b);
	p = malloc(n);
	WB_ASSERT(p && msg_pack(&b, p) == n);
	arena_init(&arena, 4096, ROOMY);
	r = msg_decode(&arena, p, n, &again);
	WB_ASSERT(r == MSG_OK && msg_check_binary(again) == MSG_OK);
	WB_ASSERT(again->binary->data.len == sizeof(data));
	WB_ASSERT(again->binary->sequence == m->binary->sequence);
	WB_ASSERT(again->base.n_unknown_fields == m->base.n_unknown_fields);
	WB_ASSERT(!again->binary->checksum[0] == !m->binary->checksum[0]);
	arena_fini(&arena);
	free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *p = fuzz_copy(data, size);
	struct arena arena;
	message *m = NULL;
	enum msg_result r;

	arena_init(&arena, 4096, ROOMY);
	r = msg_decode(&arena, p, size, &m);
	WB_ASSERT(r < MSG_N_RESULTS && msg_result_text(r) && r != MSG_TOO_BIG);
	WB_ASSERT((m != NULL) == (r != MSG_NOT_A_MESSAGE));
	check_tight(p, size, r);
	check_in_steps(p, size, m, r);
	if (m) {
		check_against_protobuf_c(p, size, m);
		check_again(m, r);
	}
	if (r == MSG_OK) {
		check_texts(&m->base);
		if (m->payload_case) /* which member of the union doesn't matter */
			check_texts(&m->chat->base);
		r = msg_check_chat(m);
		WB_ASSERT(r == MSG_OK || r == MSG_RESERVED_USER);
		r = msg_check_binary(m);
		WB_ASSERT(r == MSG_OK || r == MSG_BAD_CHECKSUM);
		if (m->payload_case == WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_BINARY &&
		    m->type == WEBSOCKET__MESSAGE_TYPE__BINARY_DATA)
			check_repack(m);
	}
	arena_fini(&arena);
	free(p);
	return 0;
}
