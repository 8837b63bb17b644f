/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What waits to be written, a line for each client. Lines are served in turn (deficit round
 * robin): each time that one comes round it may have so many more bytes written, and a job goes
 * when its cost is covered. So who sends little is served in the next round, however much waits
 * of others, and whatever their chunks unpack to.
 *
 * A line is the jobs of one client in their order. Its state lies in the first of them and moves
 * on to the next, so that putting a job in allocates nothing and cannot fail.
 *
 * Nothing here locks: the spool does.
 */

#include "containers/list.h"
#include "spool/spool.h"

#define SPOOL_QUEUE_BUCKETS 1024

enum spool_job_kind {
	SPOOL_JOB_CHUNK,
	SPOOL_JOB_ABORT, /* the end of its owner's connection */
	SPOOL_JOB_RESUME,
	SPOOL_JOB_CLEAN,
};

/* State of a line; in use in its first job alone. */
struct WB_VALUE spool_line {
	struct list turn;       /* in queue.lines */
	struct list bucket;     /* in queue.bucket[] */
	struct spool_job *last; /* of the line */
	uint64_t credit;        /* bytes that it may have written */
	size_t n_chunks;
	size_t n_bytes;
	bool was_refused; /* a chunk found no room in it */
};

struct WB_VALUE spool_job {
	struct spool_line line;
	struct spool_job *next; /* of the same client */
	enum spool_job_kind kind;
	struct spool_chunk chunk;            /* of a chunk; else its owner alone */
	struct spool_unfinished *unfinished; /* of SPOOL_JOB_RESUME */
};

struct WB_VALUE spool_queue {
	struct list lines; /* whose turn is next comes first */
	struct list bucket[SPOOL_QUEUE_BUCKETS];
	size_t n_chunks; /* in all lines */
	size_t n_bytes;  /* of their data */
};

void spool_queue_init(struct spool_queue *q);

static inline bool spool_queue_is_empty(const struct spool_queue *q)
{
	return list_is_empty(&q->lines);
}

/* Puts a job at the end of its owner's line; bounds are the caller's. Owns: the job. */
void spool_queue_put(struct spool_queue *q, struct spool_job *job);

/**
 * spool_queue_take() - the next job in turn, or NULL
 * @ret_room: set when its client had met a line that was full, and there is room in it now
 *
 * Owns: the job is the caller's.
 * Cost: a few steps for each line, however long they are.
 */
struct spool_job *spool_queue_take(struct spool_queue *q, bool *ret_room);

/**
 * spool_queue_has_room() - whether a chunk of @n bytes may go in
 *
 * A client with nothing in the queue finds room as long as its chunk is small, also when others
 * have filled it; one with a line has a share of it at most. Notes that it was refused.
 */
bool spool_queue_has_room(struct spool_queue *q, struct spool_owner owner, size_t n);

/* Half of it is free. */
bool spool_queue_is_half_free(const struct spool_queue *q);
