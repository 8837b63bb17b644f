/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The transfers that the spool thread writes: which ones there are, and the course of
 * each from its first chunk to its end. A transfer that broke is still tracked, without a
 * file, so that what still comes of it is dropped and not taken for another one.
 *
 * All functions may block on the disk, and report ends by spool_ops.done.
 */

#include "containers/buf.h"
#include "containers/list.h"
#include "spool/spool_meter.h"
#include "wire/zip.h"

#define SPOOL_BUCKETS 1024

struct spool_transfer;

struct WB_OWNER(spool) spool_transfers {
	const struct spool_ops *ops;
	void *ctx;
	struct spool_counters *counters;
	const _Atomic bool *is_closed; /* nothing may wait for the disk any more */
	int dir_fd;                    /* owned; -1: none */
	uint64_t next_number;          /* for names */
	size_t n;
	struct list by_age; /* longest silent first */
	struct list open;   /* those with a file, likewise */
	struct spool_transfer *bucket[SPOOL_BUCKETS];
	struct spool_meter meter; /* its dir_fd is set by the caller, too */
	struct zip zip;
	struct buf scratch; /* what a chunk unpacks to */
};

/* @ts: all-zero; ops, ctx, counters, is_closed and dir_fd are set by the caller. */
void spool_transfers_init(struct spool_transfers *ts);

/* There are no transfers any more. Closes the directory. */
void spool_transfers_fini(struct spool_transfers *ts);

void spool_transfers_take_chunk(struct spool_transfers *ts, const struct spool_chunk *chunk);

/* The connection ended: nothing is kept, and nobody told. */
void spool_transfers_abort(struct spool_transfers *ts, struct spool_owner owner);

void spool_transfers_resume(struct spool_transfers *ts, const struct spool_unfinished *u);

/* Removes partial files that belong to no transfer. */
void spool_transfers_clean(struct spool_transfers *ts);

/*
 * Ends what was silent since @before_ns. A client that lags behind a slow disk is not silent: its
 * chunks are in the queue, so this is called only when that is empty.
 */
void spool_transfers_expire(struct spool_transfers *ts, uint64_t before_ns, int error,
			    const char *reason);

/* Gives back the memory that only transfers need. */
void spool_transfers_trim(struct spool_transfers *ts);

/* Takes one out, whose file stays as it is. False: there is none. */
bool spool_transfers_take_out(struct spool_transfers *ts, struct spool_unfinished *ret);
