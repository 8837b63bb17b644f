/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the spool thread tells the workers: how a transfer ended, that there is room
 * again. The end of a transfer is a task of its own. Room, and the rare case that
 * there is no memory for that task, are standing tasks that each worker has, so that
 * no worker waits for ever. In that case who has a transfer loses the connection, for
 * nobody could say what became of it.
 */

#include "spool/spool.h"
#include "worker/worker.h"

/* A task that needs no memory: it is posted at most once until it runs. */
struct WB_SHARED spool_standing_reply {
	struct worker_task task;
	_Atomic bool is_posted; /* and has not begun to run */
};

struct WB_SHARED spool_replies {
	struct worker_pool *pool WB_FROZEN;
	struct WB_SHARED spool_standing_replies {
		struct spool_standing_reply has_room;
		struct spool_standing_reply end_is_unknown;
	} standing[SPOOL_MAX_WORKERS];
};

/* For spool_new(), with a spool_replies as context that outlives the pool's last task. */
extern const struct spool_ops spool_replies_ops;
