/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Lines about connections that come and go (log_connections): all workers together
 * write no more than CONNECTION_LOG_LINES a second, each the same part of them. What
 * is more is counted, and said in one line when the second is over.
 */

#include "conn/conn.h"
#include "io/log.h"

#define CONNECTION_LOG_LINES 1000 /* a second, of all workers together */

struct WB_OWNER(worker) connection_log {
	uint64_t second_began_ns;
	uint64_t n_left_out; /* in this second */
	unsigned n_written;  /* in this second */
};

/* "PEER @text (client ID)", where log_connections is on and there is room among @n_workers. */
void connection_log_write(struct connection_log *l, const struct conn *c, unsigned n_workers,
			  enum log_event_id event, const char *text);

/* Says how many lines were left out, once their second is over. At least once a second. */
void connection_log_tick(struct connection_log *l, uint64_t now_ns);
