/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The accounts of a benchmark: what every member got of every publisher's messages.
 * Exact: each delivery is new, late (its place was passed already: out of order) or a
 * duplicate, and what never came is lost. Beside it, a hash of each member's order.
 *
 * For each member and publisher it keeps the next number expected; a set of numbers that
 * are missing comes to be only with the first gap. So the usual delivery costs a
 * comparison and a store.
 *
 * Orders: nobody gets what he publishes himself, so two publishers' orders are compared
 * without the messages of either. One member, the last, is the reference; if it is a
 * publisher, the others leave its messages out. It keeps a hash for each publisher that
 * leaves out his. A lost or duplicated message counts as another order.
 *
 * Pure: no clock, no socket.
 */

#include "base/base.h"

enum bench_seen {
	BENCH_NEW,
	BENCH_LATE,
	BENCH_DUPLICATE,
	BENCH_NO_MEMORY, /* for the set of what is missing */
};

/* One publisher's messages at one member. */
struct WB_OWNER(loop) bench_track {
	uint32_t next;    /* all below came, or are in missing */
	uint8_t *missing; /* one bit for each number; NULL: none was ever missing */
};

struct WB_OWNER(loop) bench_stats {
	uint32_t n_members, n_publishers;
	uint32_t per_publisher;     /* numbers are below this */
	struct bench_track *tracks; /* [member * n_publishers + publisher] */
	uint64_t *order;            /* of each member but the reference */
	uint64_t *reference;        /* the reference's, without each publisher */
	uint64_t reference_all;
	uint64_t delivered; /* new and late ones */
	uint64_t missing;   /* passed over and not come yet */
	uint64_t late, duplicated;
};

/**
 * bench_stats_init() - open the accounts
 * @s:             all-zero
 * @n_publishers:  members 0 .. n_publishers - 1 publish
 * @per_publisher: messages that one publishes at most
 *
 * Return:  0 | -ENOMEM.
 * Owns:    the caller, until bench_stats_fini(), also after a failure.
 */
int bench_stats_init(struct bench_stats *s, uint32_t n_members, uint32_t n_publishers,
		     uint32_t per_publisher) WB_NODISCARD;

void bench_stats_fini(struct bench_stats *s);

/**
 * bench_stats_take() - book one delivery
 * @member, @publisher, @number: below the bounds given to bench_stats_init()
 * @ret_passed: numbers from here up to @number, if any, were passed over by this delivery
 *
 * Return:  BENCH_NEW, BENCH_LATE, BENCH_DUPLICATE; BENCH_NO_MEMORY, nothing was booked.
 * Cost:    O(1), and O(publishers) for the reference; O(gap) where something is missing.
 */
enum bench_seen bench_stats_take(struct bench_stats *s, uint32_t member, uint32_t publisher,
				 uint32_t number, uint32_t *ret_passed);

/**
 * bench_stats_orders() - how many different orders the members saw
 * @ret:    1 when all agree
 *
 * Return:  0 | -ENOMEM.
 * Cost:    O(members * log members).
 */
int bench_stats_orders(const struct bench_stats *s, uint64_t *ret) WB_NODISCARD;

/* How many of @total messages member @i of @n sends, so that all send the same or one more. */
static inline uint32_t bench_quota(uint64_t total, uint32_t n, uint32_t i)
{
	return (uint32_t)(total / n + (i < total % n));
}
