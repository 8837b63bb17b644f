/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The state that one process hands over to the next: a head of fixed layout, then
 * records, each a message of proto/state.proto behind its kind and length.
 *
 * Both ends are on one machine, so numbers of the head are in its byte order. The
 * format number is for what protobuf cannot bridge; a reader takes its own alone.
 * A checksum tells bytes that were cut or changed; what passes it is still read as
 * if it came from a stranger: no bytes reach an assertion.
 *
 * The head counts the attempts at reading: a state whose reading kills the reader
 * is not read for ever.
 */

#include "base/base.h"
#include "state.pb-c.h"

#define STATE_FORMAT 1
#define STATE_HEAD_BYTES 32

enum state_kind {
	STATE_HEAD = 1,
	STATE_COUNTERS,
	STATE_FRAME,
	STATE_CHANNEL,
	STATE_CONNECTION,
};

/* Where records go. grow() makes cap at least @need: 0 | -errno. All-zero but grow is empty. */
struct WB_VALUE state_writer {
	uint8_t *data;
	size_t len;
	size_t cap;
	int (*grow)(struct state_writer *w, size_t need);
};

/**
 * state_put() - append a record
 * @m: a message of proto/state.proto, of that kind
 *
 * Return: 0 | -EMSGSIZE: the record has more than 4 GiB | -errno of grow().
 */
int state_put(struct state_writer *w, enum state_kind kind, const ProtobufCMessage *m) WB_NODISCARD;

/* Writes the head: complete now. Return: 0 | -errno of grow(). */
int state_finish(struct state_writer *w) WB_NODISCARD;

enum state_result {
	STATE_OK,
	STATE_E_FORMAT, /* of another format */
	STATE_E_BROKEN, /* not a state, cut, or changed */
};

struct WB_VALUE state_reader {
	const uint8_t *at;
	const uint8_t *end;
};

/* One record; its bytes are in those that were opened. */
struct WB_VALUE state_record {
	uint32_t kind; /* enum state_kind, or one that a later version knows */
	const uint8_t *p;
	size_t n;
};

/* Checks the head and the checksum of all. @p must outlive the reader. */
enum state_result state_open(struct state_reader *r, const uint8_t *p, size_t n) WB_NODISCARD;

/* The next record; false at the end, and where records don't fit their frame. */
bool state_next(struct state_reader *r, struct state_record *ret) WB_NODISCARD;

/* Counts an attempt at reading, in the head. Return: how many there were before; 0 of no head. */
uint32_t state_count_attempt(uint8_t *p, size_t n);
