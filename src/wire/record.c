/* SPDX-License-Identifier: MIT */
#include "wire/record.h"

#include <errno.h>
#include <libdeflate.h>
#include <string.h>

struct head {
	char magic[8];
	uint32_t format;
	uint32_t crc; /* CRC-32 of all behind the head */
	uint64_t bytes;
	uint32_t attempts;
	uint32_t reserved;
};
static_assert(sizeof(struct head) == RECORD_HEAD_BYTES, "no padding");

struct record_head {
	uint32_t kind;
	uint32_t n;
};

static const char magic[8] = "wsbindST";

static int room(struct record_writer *w, size_t more)
{
	return w->cap - w->len >= more ? 0 : w->grow(w, w->len + more);
}

/* Room for the head, which comes last. */
static int begin(struct record_writer *w)
{
	int r = w->len ? 0 : room(w, sizeof(struct head));

	if (r == 0 && w->len == 0)
		w->len = sizeof(struct head);
	return r;
}

int record_put(struct record_writer *w, enum record_kind kind, const ProtobufCMessage *m)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	const struct record_head head = {kind, (uint32_t)n};
	int r = begin(w);

	if (n > UINT32_MAX)
		return -EMSGSIZE;
	if (r == 0)
		r = room(w, sizeof(head) + n);
	if (r)
		return r;
	memcpy(w->data + w->len, &head, sizeof(head));
	protobuf_c_message_pack(m, w->data + w->len + sizeof(head));
	w->len += sizeof(head) + n;
	return 0;
}

static uint32_t checksum(const uint8_t *p, size_t n)
{
	return libdeflate_crc32(0, p + sizeof(struct head), n - sizeof(struct head));
}

int record_finish(struct record_writer *w)
{
	struct head head = {.format = RECORD_FORMAT};
	int r = begin(w);

	if (r)
		return r;
	memcpy(head.magic, magic, sizeof(magic));
	head.bytes = w->len;
	head.crc = checksum(w->data, w->len);
	memcpy(w->data, &head, sizeof(head));
	return 0;
}

enum record_result record_open(struct record_reader *r, const uint8_t *p, size_t n)
{
	struct head head;

	if (n < sizeof(head))
		return RECORD_E_BROKEN;
	memcpy(&head, p, sizeof(head));
	if (memcmp(head.magic, magic, sizeof(magic)) != 0)
		return RECORD_E_BROKEN;
	if (head.format != RECORD_FORMAT)
		return RECORD_E_FORMAT;
	/* The file may be longer: it grows in steps. */
	if (head.bytes < sizeof(head) || head.bytes > n ||
	    head.crc != checksum(p, (size_t)head.bytes))
		return RECORD_E_BROKEN;
	*r = (struct record_reader){p + sizeof(head), p + head.bytes};
	return RECORD_OK;
}

bool record_next(struct record_reader *r, struct record *ret)
{
	struct record_head head;

	if ((size_t)(r->end - r->at) < sizeof(head))
		return false;
	memcpy(&head, r->at, sizeof(head));
	r->at += sizeof(head);
	if ((size_t)(r->end - r->at) < head.n) {
		r->at = r->end;
		return false;
	}
	*ret = (struct record){head.kind, r->at, head.n};
	r->at += head.n;
	return true;
}

uint32_t record_count_attempt(uint8_t *p, size_t n)
{
	struct head head;

	if (n < sizeof(head))
		return 0;
	memcpy(&head, p, sizeof(head));
	head.attempts++;
	memcpy(p, &head, sizeof(head));
	return head.attempts - 1;
}
