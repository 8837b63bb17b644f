/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Between a worker and the spool: the chunks of BINARY_DATA on their way to files,
 * and what became of them on its way back to the client.
 *
 * The queue of the spool is bounded. A client whose chunk finds it full is not
 * read until there is room; the others don't notice.
 */

#include "worker/hub.h"

struct worker_pool;

/*
 * Hands a chunk over, or holds the client until there is room; closes with 1011 when there is no
 * memory for it. The spool is on.
 */
void transfer_chunk(struct conn *c, const Websocket__WebSocketMessage *m);

/* The connection ended: its transfer leaves nothing behind. */
void transfer_drop(struct conn *c);

/* A transfer of this worker ended: answers ACKNOWLEDGE or ERROR. Thread: the worker's. */
void transfer_done(struct hub *h, const struct spool_result *result);

/*
 * How a transfer of this worker ended is not known for want of memory: closes with 1011 whoever
 * has one. Thread: the worker's.
 */
void transfer_lost(struct hub *h);

/*
 * From one process to the next. The spool leaves transfers (transfer_set_unfinished(); @pool:
 * struct worker_pool); beside them a chunk may wait that the spool had no room for.
 */
void transfer_set_unfinished(void *pool, const struct spool_unfinished *k);

/* That of a connection, or NULL; and the chunk that waits, or NULL. */
const struct spool_unfinished *transfer_unfinished(const struct conn *c);
const struct spool_chunk *transfer_waiting_chunk(const struct conn *c);

/* The spool of this process goes on with them. @like is copied. Return: 0 | -ENOMEM. */
int transfer_resume(struct conn *c, const struct spool_unfinished *k) WB_NODISCARD;
int transfer_resume_waiting(struct conn *c, const struct spool_chunk *like) WB_NODISCARD;

/* There is no next process: @spool goes on with all that was kept. Its workers stand still. */
void transfer_resume_all(struct worker_pool *p, struct spool *spool);

/* The spool has room again. Thread: the worker's. */
void transfer_room(struct hub *h);
