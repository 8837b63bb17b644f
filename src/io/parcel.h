/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A parcel of descriptors that outlives the process which filled it: socket pairs whose
 * messages carry descriptors (SCM_RIGHTS) and are not read. The kernel keeps what is
 * in a message for as long as somebody holds both ends of the pair; so whoever is
 * given these few descriptors keeps thousands of connections open.
 *
 * What is inside is taken out as copies (MSG_PEEK): the parcel stays full until the last
 * of its ends is closed, so that a taker that dies on the way has lost nothing.
 *
 * Each descriptor has one byte of its own beside it, its mark, which its taker sees even when
 * it understands nothing else of what it was left.
 *
 * Bounds: descriptors on their way count against RLIMIT_NOFILE of who sends them, and
 * each pair holds as many messages as its send buffer does, so there are as many pairs
 * as are needed, up to PARCEL_MAX_PAIRS.
 *
 * Source: unix(7), socket(7).
 */

#include "base/base.h"

#define PARCEL_MAX_PAIRS 8
#define PARCEL_BATCH 253 /* descriptors of one message: SCM_MAX_FD of the kernel */

/* All-zero is empty. */
struct WB_VALUE parcel {
	int end[PARCEL_MAX_PAIRS][2]; /* the first is written to, the second read from */
	unsigned n_pairs;
	int put_fd[PARCEL_BATCH]; /* put, and not sent yet: borrowed */
	uint8_t put_mark[PARCEL_BATCH];
	unsigned n_put;
};

/**
 * parcel_put() - put a copy of a descriptor into the parcel
 * @fd:   borrowed, to stay open until parcel_seal()
 *
 * Return: 0 | -ETOOMANYREFS past RLIMIT_NOFILE | -ENOSPC all pairs are full | -errno.
 */
int parcel_put(struct parcel *p, int fd, uint8_t mark) WB_NODISCARD;

/* Sends what was put and not sent yet. Return: as parcel_put(). */
int parcel_seal(struct parcel *p) WB_NODISCARD;

/* Closes the ends; what is inside lives on if somebody else holds them. */
void parcel_fini(struct parcel *p);

/**
 * parcel_try() - whether a parcel for that many descriptors could be made now
 * @n:            of them
 * @ret_capacity: how many go into one parcel; only with 0 and -ENOSPC
 *
 * Opens the pairs that it takes, all at once, and closes them. How much a pair holds is tried
 * with messages like those of a parcel, so that it is true whatever a kernel counts and
 * net.core.wmem_max allows. Cost: about a millisecond.
 *
 * Return: 0 | -ENOSPC they are too many for PARCEL_MAX_PAIRS | -errno.
 */
int parcel_try(size_t n, size_t *ret_capacity) WB_NODISCARD;

typedef int parcel_fn(void *ctx, int fd, uint8_t mark);

/**
 * parcel_look() - see copies of what is inside
 * @end: of a parcel, either one: of those that are written to nothing comes
 * @fn:  called for each; the descriptor, close-on-exec, is its own. Other than 0 ends it
 *
 * Return: 0 | what @fn returned | -errno.
 */
int parcel_look(int end, parcel_fn *fn, void *ctx) WB_NODISCARD;
