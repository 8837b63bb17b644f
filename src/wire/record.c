/* SPDX-License-Identifier: MIT */
#include "wire/record.h"

#include <errno.h>
#include <libdeflate.h>
#include <string.h>

/* What stands before the first record. */
struct file_head {
	char magic[8];
	uint32_t format;
	uint32_t crc; /* CRC-32 of all behind the head */
	uint64_t bytes;
	uint32_t attempts; /* at reading; counted after the checksum was made */
	uint32_t reserved;
};
static_assert(sizeof(struct file_head) == RECORD_HEAD_BYTES, "no padding");

/* What stands before each record. */
struct record_head {
	uint32_t kind;
	uint32_t n;
};

static const char magic[8] = "wsbindST";

/* ---------------------------------------------------------------------- writing */

static int writer_reserve(struct record_writer *w, size_t more)
{
	return w->cap - w->len >= more ? 0 : w->grow(w, w->len + more);
}

/* Leaves room for the head, which is written last: only a complete file has a magic. */
static int writer_begin(struct record_writer *w)
{
	int r = w->len ? 0 : writer_reserve(w, sizeof(struct file_head));

	if (r == 0 && w->len == 0)
		w->len = sizeof(struct file_head);
	return r;
}

int record_put(struct record_writer *w, enum record_kind kind, const ProtobufCMessage *m)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	const struct record_head head = {kind, (uint32_t)n};
	int r = writer_begin(w);

	if (n > UINT32_MAX)
		return -EMSGSIZE;
	if (r == 0)
		r = writer_reserve(w, sizeof(head) + n);
	if (r)
		return r;
	/* Packed where it stays: a large record is never there twice. */
	memcpy(w->data + w->len, &head, sizeof(head));
	protobuf_c_message_pack(m, w->data + w->len + sizeof(head));
	w->len += sizeof(head) + n;
	return 0;
}

/* Of all behind the head, so that counting attempts in it changes nothing. */
static uint32_t checksum_of(const uint8_t *p, size_t n)
{
	return libdeflate_crc32(0, p + sizeof(struct file_head), n - sizeof(struct file_head));
}

int record_finish(struct record_writer *w)
{
	struct file_head head = {.format = RECORD_FORMAT};
	int r = writer_begin(w);

	if (r)
		return r;
	memcpy(head.magic, magic, sizeof(magic));
	head.bytes = w->len;
	head.crc = checksum_of(w->data, w->len);
	memcpy(w->data, &head, sizeof(head));
	return 0;
}

/* ---------------------------------------------------------------------- reading */

enum record_result record_open(struct record_reader *r, const uint8_t *p, size_t n)
{
	struct file_head head;

	if (n < sizeof(head))
		return RECORD_E_BROKEN;
	memcpy(&head, p, sizeof(head));
	if (memcmp(head.magic, magic, sizeof(magic)) != 0)
		return RECORD_E_BROKEN;
	/* Before anything else is believed: another format may mean other things by the rest. */
	if (head.format != RECORD_FORMAT)
		return RECORD_E_FORMAT;
	/* The file may be longer: it grows in steps. */
	if (head.bytes < sizeof(head) || head.bytes > n ||
	    head.crc != checksum_of(p, (size_t)head.bytes))
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
	/* One that reaches beyond the end is the last that is looked at. */
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
	struct file_head head;

	if (n < sizeof(head))
		return 0;
	memcpy(&head, p, sizeof(head));
	head.attempts++;
	memcpy(p, &head, sizeof(head));
	return head.attempts - 1;
}
