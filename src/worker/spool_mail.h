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

struct WB_SHARED spool_mail_task {
	struct worker_task task;
	_Atomic bool is_out; /* posted, and not begun */
};

struct WB_SHARED spool_mail {
	struct worker_pool *pool WB_FROZEN;
	struct spool_mail_box {
		struct spool_mail_task room;
		struct spool_mail_task lost;
	} boxes[SPOOL_MAX_WORKERS];
};

/* For spool_new(), with a spool_mail as context that outlives the pool's last task. */
extern const struct spool_ops spool_mail_ops;
