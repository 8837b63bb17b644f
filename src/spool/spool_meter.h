/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The bounds on what a spool keeps (struct spool_limits), held against what there is: bytes in
 * the directory, bytes free on its disk, files that clients and addresses began in this second.
 *
 * Files in the directory are counted by reading it: once, and again when a limit is met, since
 * others take files away; but not for more than a tenth of the time. In between what is written
 * is added. All functions may block on the disk: for the spool thread.
 */

#include "spool/spool.h"

#define SPOOL_RATE_CELLS 4096

/* Files that somebody began in a second. */
struct WB_VALUE spool_rate {
	uint64_t whom; /* 0: nobody */
	uint32_t second;
	uint32_t files;
};

struct WB_OWNER(spool) spool_meter {
	struct spool_limits limits;
	int dir_fd;          /* borrowed */
	bool is_counted;     /* @bytes is what the directory has */
	uint64_t bytes;      /* in files of the directory */
	uint64_t recount_ns; /* not before it is read again */
	uint64_t unlooked;   /* written since the disk's free space was looked at */
	struct spool_rate rate[SPOOL_RATE_CELLS];
};

/**
 * spool_meter_begin() - may a file begin?
 * @announced: its size as its client says, 0: it doesn't
 *
 * Counts it for its client and address, also when it is refused.
 *
 * Return: SPOOL_NOT_REFUSED | why not.
 */
enum spool_refusal spool_meter_begin(struct spool_meter *m, struct spool_owner owner,
				     uint64_t announced);

/* May a file of @bytes become @n bytes larger? Counts them when it may. Return: as above. */
enum spool_refusal spool_meter_grow(struct spool_meter *m, uint64_t bytes, uint64_t n);

/* A file of @bytes was removed. */
void spool_meter_shrink(struct spool_meter *m, uint64_t bytes);
