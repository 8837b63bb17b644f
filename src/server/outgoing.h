/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What this process leaves to the next one: records of all that the workers know, a parcel with
 * the sockets of their clients, and the listening sockets.
 *
 * outgoing_write() makes it while the workers stand still; then either the service manager
 * keeps it (outgoing_store()), or a program that is executed inherits it (server/exec_plan).
 * Where one of these fails, outgoing_discard(), and the workers go on.
 */

#include "handover/handover.h"
#include "io/memfile.h"

#define OUTGOING_MAX_LISTENERS (WORKER_MAX_LISTENERS * DIRECTORY_MAX_WORKERS)

/* All-zero is nothing yet. */
struct WB_OWNER(main) outgoing {
	struct worker_socket listener[OUTGOING_MAX_LISTENERS]; /* borrowed of the pool */
	unsigned n_listeners;
	struct parcel parcel;
	int history_fd; /* borrowed, too */
	struct memfile records;
	struct record_writer writer; /* of @records */
	struct handover_report report;
};

/**
 * outgoing_try() - whether there is room for what @connections take
 * @ret_capacity: how many connections there is room for; only with 0 and -ENOSPC
 *
 * Leaves nothing: to be asked before anybody is let go.
 *
 * Return:  0 | -ENOSPC | -errno of opening as many descriptors as outgoing_write() will.
 */
int outgoing_try(uint64_t connections, size_t *ret_capacity) WB_NODISCARD;

/**
 * outgoing_write() - write the records, and fill the parcel
 * @p:      stands still (worker_pool_freeze()); is not changed
 * @history_fd: the file with what its channels keep; borrowed
 *
 * report.frozen_ns is set before.
 *
 * Return:  0 | -errno of handover_save(), handover_fill_parcel() or of the memory file.
 */
int outgoing_write(struct outgoing *out, struct worker_pool *p, int history_fd) WB_NODISCARD;

/* Has the manager keep all of it for the next process. Return: 0 | -errno. */
int outgoing_store(struct outgoing *out) WB_NODISCARD;

/* There is no next process: closes what was made. */
void outgoing_discard(struct outgoing *out);

/* How many descriptors the manager's store must have room for, at most. */
unsigned outgoing_count_descriptors(const struct worker_pool *p);
