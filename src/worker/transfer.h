/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Between a worker and the spool: the chunks of BINARY_DATA on their way to files,
 * and what became of them on its way back to the client. It knows connections and
 * the spool, and nothing of channels.
 *
 * The queue of the spool is bounded. A client whose chunk finds it full is not
 * read until there is room; the others don't notice.
 */

#include "channel/directory.h"
#include "conn/conn.h"
#include "spool/spool.h"
#include "worker/acks.h"

static_assert(SPOOL_MAX_WORKERS == DIRECTORY_MAX_WORKERS, "a worker may have transfers");

struct transfer;
struct transfers;

/* What the transfers of all workers share. */
struct WB_SHARED transfer_shared {
	struct spool *spool WB_FROZEN; /* NULL without spool_dir */
	struct transfers *of_worker[DIRECTORY_MAX_WORKERS] WB_FROZEN;
	unsigned n_workers WB_FROZEN;
};

/* Those of the connections of one worker. */
struct WB_OWNER(worker) transfers {
	struct transfer_shared *shared WB_FROZEN;
	struct metrics *metrics;
	struct transfer *by_serial; /* uthash, by the serials of the connections */
	struct acks *acks;          /* the worker's */
	struct list waiting;        /* chunks for which the spool had no room, oldest first */
	unsigned worker WB_FROZEN;
};

/* @ts: all-zero; entered into @shared. Before any worker starts. */
void transfers_init(struct transfers *ts, struct transfer_shared *shared, struct acks *acks,
		    unsigned worker, struct metrics *metrics);

/* Whether what clients send goes to files. */
static inline bool transfers_are_on(const struct transfers *ts)
{
	return ts->shared->spool != NULL;
}

/*
 * Hands a chunk over, or holds the client until there is room; closes with 1011 when there is no
 * memory for it. The spool is on.
 */
void transfer_take_chunk(struct transfers *ts, struct conn *c,
			 const Websocket__WebSocketMessage *m);

/* The connection ended: its transfer leaves nothing behind. */
void transfer_drop(struct transfers *ts, struct conn *c);

/* A transfer of this worker ended: answers ACKNOWLEDGE or ERROR. */
void transfer_answer(struct transfers *ts, const struct spool_result *result);

/*
 * How a transfer of this worker ended is not known for want of memory: closes with 1011 whoever
 * has one.
 */
void transfers_close_all(struct transfers *ts);

/* The spool has room again: it takes what waits, as far as the room goes. */
void transfers_hand_over_waiting(struct transfers *ts);

/*
 * From one process to the next. The spool leaves unfinished transfers (transfer_set_unfinished();
 * @shared: struct transfer_shared); beside them a chunk may wait that the spool had no room for.
 * Thread of all of these: main, while the workers stand still.
 */
void transfer_set_unfinished(void *shared, const struct spool_unfinished *u);

/* That of a connection, or NULL; and the chunk that waits, or NULL. */
const struct spool_unfinished *transfer_unfinished(const struct transfers *ts,
						   const struct conn *c);
const struct spool_chunk *transfer_waiting_chunk(const struct transfers *ts, const struct conn *c);

/* The spool of this process goes on with them. @like is copied. Return: 0 | -ENOMEM. */
int transfer_resume(struct transfers *ts, struct conn *c, const struct spool_unfinished *u)
	WB_NODISCARD;
int transfer_resume_waiting(struct transfers *ts, struct conn *c, const struct spool_chunk *like)
	WB_NODISCARD;

/* There is no next process: the spool in force goes on with all that was unfinished. */
void transfers_resume_all(struct transfer_shared *shared);
