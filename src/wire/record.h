/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The records that one process hands over to the next: a head of fixed layout, then one record
 * behind the other, each a message of proto/record.proto behind its kind and length.
 *
 * Both ends are on one machine, so numbers of the head are in its byte order. The
 * format number is for what protobuf cannot bridge; a reader takes its own alone.
 * A checksum tells bytes that were cut or changed; what passes it is still read as
 * if it came from a stranger: no bytes reach an assertion.
 *
 * The head counts the attempts at reading: records whose reading kills the reader
 * are not read for ever.
 */

#include "base/base.h"
#include "record.pb-c.h"

#define RECORD_FORMAT 1
#define RECORD_HEAD_BYTES 32

/* Other kinds may follow: a reader passes over those that it doesn't know. */
enum record_kind {
	RECORD_HEAD = 1,
	RECORD_COUNTERS,
	RECORD_FRAME,
	RECORD_CHANNEL,
	RECORD_CONNECTION,
	RECORD_CONFIG,
	RECORD_HISTORY,
	RECORD_IDENTITY,
	RECORD_KEPT,
};

/* Where records go. grow() makes cap at least @need: 0 | -errno. All-zero but grow is empty. */
struct WB_VALUE record_writer {
	uint8_t *data;
	size_t len;
	size_t cap;
	int (*grow)(struct record_writer *w, size_t need);
};

/**
 * record_put() - append a record
 * @m: a message of proto/record.proto, of that kind
 *
 * Return: 0 | -EMSGSIZE: the record has more than 4 GiB | -errno of grow().
 */
int record_put(struct record_writer *w, enum record_kind kind, const ProtobufCMessage *m)
	WB_NODISCARD;

/* Writes the head: the records are complete now. Return: 0 | -errno of grow(). */
int record_finish(struct record_writer *w) WB_NODISCARD;

enum record_result {
	RECORD_OK,
	RECORD_E_FORMAT, /* of another format */
	RECORD_E_BROKEN, /* no records, or cut, or changed */
};

struct WB_VALUE record_reader {
	const uint8_t *at;
	const uint8_t *end;
};

/* One record; its bytes are in those that were opened. */
struct WB_VALUE record {
	uint32_t kind; /* enum record_kind, or one that a later version knows */
	const uint8_t *p;
	size_t n;
};

/* Checks the head and the checksum of all. @p must outlive the reader. */
enum record_result record_open(struct record_reader *r, const uint8_t *p, size_t n) WB_NODISCARD;

/* The next record; false at the end, and where one reaches beyond it. */
bool record_next(struct record_reader *r, struct record *ret) WB_NODISCARD;

/* Counts an attempt at reading, in the head. Return: how many there were before; 0 of no head. */
uint32_t record_count_attempt(uint8_t *p, size_t n);
