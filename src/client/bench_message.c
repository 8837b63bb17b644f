/* SPDX-License-Identifier: MIT */
#include "client/bench_message.h"

#include <errno.h>
#include <string.h>

#include "wire/msg.h"

#define FIELD_BINARY 4 /* of WebSocketMessage */
#define FIELD_DATA 1   /* of BinaryData */

/* Of protobuf's encoding; 3 and 4, the groups, are no longer in use. */
enum wire_type { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 };

static bool varint_take(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
	uint64_t value = 0;

	/* Ten bytes of seven bits hold any 64; an eleventh would be no varint. */
	for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
		uint8_t byte = *(*p)++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret = value;
			return true;
		}
	}
	return false;
}

/* Moves past the value of a field; a LENGTH one began @ret_n bytes before where @p is then. */
static bool field_skip_value(const uint8_t **p, const uint8_t *end, unsigned type, size_t *ret_n)
{
	uint64_t n = 0;

	if (type == VARINT)
		return varint_take(p, end, &n);
	if (type == FIXED64)
		n = 8;
	else if (type == FIXED32)
		n = 4;
	else if (type != LENGTH || !varint_take(p, end, &n))
		return false;
	/* Compared, not added: a length near 2^64 must not wrap around the end. */
	if (n > (uint64_t)(end - *p))
		return false;
	*p += n;
	*ret_n = (size_t)n;
	return true;
}

/* The first field with this number, which has to be of type LENGTH. */
static bool field_find(const uint8_t *p, size_t n, uint64_t field, const uint8_t **ret,
		       size_t *ret_n)
{
	const uint8_t *end = p + n;
	uint64_t tag;

	while (p < end) {
		size_t length = 0;

		if (!varint_take(&p, end, &tag) || !field_skip_value(&p, end, tag & 7, &length))
			return false;
		if (tag == (field << 3 | LENGTH)) {
			*ret = p - length;
			*ret_n = length;
			return true;
		}
	}
	return false;
}

bool bench_scan(const uint8_t *p, size_t n, const uint8_t **ret, size_t *ret_n)
{
	const uint8_t *binary;
	size_t binary_n;

	return field_find(p, n, FIELD_BINARY, &binary, &binary_n) &&
	       field_find(binary, binary_n, FIELD_DATA, ret, ret_n);
}

/* Xorshift: nothing that a compressor could find a pattern in, at a few cycles for each byte. */
static void noise_fill(uint8_t *p, size_t n, uint64_t seed)
{
	uint64_t x = seed | 1;

	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = (uint8_t)(x >> 32);
	}
}

int bench_template_init(struct bench_template *t, size_t size, uint64_t seed)
{
	uint8_t *data = malloc(size);
	struct msg_builder b;
	const uint8_t *found;
	size_t found_n;
	int r;

	*t = (struct bench_template){0};
	if (!data)
		return -ENOMEM;
	noise_fill(data, size, seed);
	/*
	 * Packed once; what differs between messages is written over it, at a place that is known.
	 */
	msg_init_binary(&b, data, size, 0, true, WEBSOCKET__COMPRESSION_TYPE__NONE);
	b.checksum[0] = '\0'; /* is left out then: it would differ for each message */
	r = buf_reserve(&t->message, msg_size(&b), BUF_NO_LIMIT);
	if (r == 0) {
		t->message.len = msg_pack(&b, t->message.data);
		/* Found in the same way as a receiver will: so both mean the same place. */
		WB_ASSERT(bench_scan(t->message.data, t->message.len, &found, &found_n));
		t->data_offset = (size_t)(found - t->message.data);
	}
	free(data);
	return r;
}

void bench_template_set(struct bench_template *t, const struct bench_head *head)
{
	memcpy(t->message.data + t->data_offset, head, sizeof(*head));
}
