/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the spool thread tells the workers: how a transfer ended, that there is room
 * again. Each worker has a box. Room, and the rare case that there is no memory for
 * the news of one transfer, are standing tasks in it, so that no worker waits for
 * ever: who has a transfer then loses the connection, for nobody could say what
 * became of it.
 */

#include "spool/spool.h"
#include "worker/worker.h"

struct WB_SHARED spool_standing_reply {
	struct worker_task task;
	_Atomic bool is_out; /* posted, and not begun */
};

struct WB_SHARED spool_replies {
	struct worker_pool *pool WB_FROZEN;
	struct spool_reply_slots {
		struct spool_standing_reply room;
		struct spool_standing_reply lost;
	} boxes[SPOOL_MAX_WORKERS];
};

/* For spool_new(), with a spool_replies as context that outlives the pool's last task. */
extern const struct spool_ops spool_replies_ops;
