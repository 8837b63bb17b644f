/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The channels of all workers for an administrator's eyes. Each worker adds what it knows of them,
 * in pieces, to an array by the slots of the directory; whoever asked then takes the busiest of
 * them. Nothing is kept for it, and a channel that nobody asks for costs nothing.
 */

#include "worker/hub.h"

enum channel_list_result { CHANNEL_LIST_E_MORE = 1 };

/* What there is in a slot; all zero: nothing. */
struct WB_OWNER(main) channel_cell {
	uint32_t generation;
	uint32_t members;          /* of all workers that were asked */
	uint32_t slow;             /* of those: with more than half of their limits waiting */
	uint32_t messages;         /* a second */
	uint64_t bytes;            /* a second */
	uint64_t kept, kept_bytes; /* messages in its history, and what they hold; 0: none */
};

struct WB_OWNER(main) channel_list {
	struct channel_cell *cells; /* the holder's to free */
	uint32_t n;                 /* slots that there were when it began */
	uint32_t at;                /* of the worker that is asked */
};

enum channel_order {
	CHANNELS_BUSIEST, /* by messages times members */
	CHANNELS_BY_BYTES,
	CHANNELS_BY_MEMBERS,
	CHANNELS_BY_LAGGING,
	CHANNELS_N_ORDERS,
};

/* By enum channel_order: as administrators call them. */
extern const char *const channel_order_name[CHANNELS_N_ORDERS];

/* @l: all-zero. Return: 0 | -ENOMEM. */
int channel_list_init(struct channel_list *l, struct directory *d) WB_NODISCARD;

/**
 * channel_list_add() - add what a worker has, or a piece of it
 *
 * To be called again, in a later turn of the same worker, while there is more; then for the next.
 *
 * Return:   0 this worker is done | CHANNEL_LIST_E_MORE.
 * Thread:   the worker's.
 * Cost:     4096 slots.
 */
int channel_list_add(struct hub *h, struct channel_list *l) WB_NODISCARD;

/**
 * channel_list_sort() - put the slots that have a channel into an order, the first first
 * @ret_slots: the caller's to free
 *
 * Return:  how many | -ENOMEM. Where two are equal the one in the lower slot comes first.
 * Thread:  any.
 */
int64_t channel_list_sort(const struct channel_list *l, enum channel_order order,
			  uint32_t **ret_slots) WB_NODISCARD;

/* What is said to members in a second: each message to all but who sent it. */
static inline uint64_t channel_cell_out(const struct channel_cell *cell, uint64_t in)
{
	return cell->members > 1 ? in * (cell->members - 1) : 0;
}
