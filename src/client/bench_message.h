/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The messages of a benchmark: BINARY_DATA without a checksum, whose data begins with
 * who sent it, its number and when. The rest of the data is noise, so that nothing on
 * the way can make it smaller.
 */

#include "base/base.h"
#include "containers/buf.h"

/* The beginning of the data; in the byte order of this machine, since it reads its own. */
struct WB_VALUE bench_head {
	uint64_t run;       /* tells this run's messages from those of any other */
	uint64_t sent_ns;   /* clock_now_ns() */
	uint32_t publisher; /* index */
	uint32_t number;    /* from 0, for each publisher */
};

#define BENCH_MIN_SIZE sizeof(struct bench_head)

/* A message of which only the head changes. */
struct WB_VALUE bench_template {
	struct buf message; /* serialized WebSocketMessage */
	size_t data_offset; /* of the head in it */
};

/**
 * bench_template_init() - make a message
 * @size:   of its data; at least BENCH_MIN_SIZE
 * @seed:   of the noise
 *
 * Return:  0 | -ENOMEM.
 * Owns:    t->message is to be emptied with buf_fini().
 */
int bench_template_init(struct bench_template *t, size_t size, uint64_t seed) WB_NODISCARD;

/* Writes the head into the message. */
void bench_template_set(struct bench_template *t, const struct bench_head *head);

/**
 * bench_scan() - find the data of a BINARY_DATA message
 * @p:      a serialized WebSocketMessage, or any bytes
 * @ret:    points into @p
 *
 * Looks at no more than the way there: what a receiver of a million messages a second
 * can afford. A message of wsbind has been checked by the server.
 *
 * Return:  true | false: there is none.
 * Cost:    some ten nanoseconds, whatever the size.
 */
bool bench_scan(const uint8_t *p, size_t n, const uint8_t **ret, size_t *ret_n) WB_NODISCARD;
