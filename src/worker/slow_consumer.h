/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The one place where loss is decided: what happens to a client that reads too
 * slowly. Looked at only for connections for which something waits, from running
 * totals, so the others cost nothing.
 *
 * Past a limit (message_queue_size, max_send_buffer) for slow_consumer_grace, or
 * at once at four times a limit: disconnect with 1013, or skip the oldest waiting
 * channel messages down to half the limit. The message in transit counts in
 * neither limit, and bytes alone are no excess while one message waits: so a
 * message larger than max_send_buffer reaches a client for which nothing else
 * waits. What is addressed to the client alone is never skipped; when that alone
 * is past a limit, the client is disconnected in either case.
 */

#include "channel/channel.h"
#include "channel/directory.h"
#include "conn/conn.h"

/* While log_memory is exceeded: what waits for the connection of each worker that lags most. */
struct WB_SHARED slow_consumer_lags {
	alignas(WB_CACHELINE) _Atomic uint64_t worst_bytes[DIRECTORY_MAX_WORKERS];
};

/* conn_ops.check_limits: looks at one connection's limits and acts. */
void slow_consumer_check(struct conn *c);

/**
 * slow_consumer_enforce_memory() - while all frames exceed log_memory, those that lag most give way
 * @channels: of the worker
 *
 * What its channels have not been flushed of is nobody's lag: those who publish it wait for that.
 * A worker acts only on a lag that is at least half of the worst of any worker, a few times a
 * turn.
 */
void slow_consumer_enforce_memory(const struct channel_env *channels,
				  struct slow_consumer_lags *lags);
