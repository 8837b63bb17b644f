/* SPDX-License-Identifier: MIT */
#include "worker/channel_list.h"

#include <errno.h>
#include <stdlib.h>

#define SLOTS_AT_ONCE 4096

const char *const channel_order_name[CHANNELS_N_ORDERS] = {
	[CHANNELS_BUSIEST] = "busiest",
	[CHANNELS_BY_BYTES] = "bytes",
	[CHANNELS_BY_MEMBERS] = "members",
	[CHANNELS_BY_LAGGING] = "lagging",
};

int channel_list_init(struct channel_list *l, struct directory *d)
{
	l->n = directory_n_slots(d);
	l->cells = calloc(MAX(l->n, 1u), sizeof(*l->cells));
	return l->cells ? 0 : -ENOMEM;
}

/* All workers with members have the same messages; one may have been asked a moment later. */
static void cell_add(struct channel_cell *cell, const struct channel *ch)
{
	const struct channel_rate rate = channel_rate(ch);
	struct history_store *store = channel_store(ch);

	if (cell->generation != ch->generation)
		*cell = (struct channel_cell){.generation = ch->generation};
	cell->members += ch->n_members;
	cell->slow += ch->n_slow;
	cell->messages = MAX(cell->messages, (uint32_t)MIN(rate.messages, (uint64_t)UINT32_MAX));
	cell->bytes = MAX(cell->bytes, rate.bytes);
	/* One store for all workers, which lives as long as any of them has the channel open. */
	if (store) {
		const struct history_figures held = history_look(store);

		cell->kept = held.messages;
		cell->kept_bytes = held.bytes;
	}
}

int channel_list_add(struct hub *h, struct channel_list *l)
{
	uint32_t end = MIN(l->n, l->at + SLOTS_AT_ONCE);

	for (; l->at < end; l->at++)
		if (h->by_slot[l->at])
			cell_add(&l->cells[l->at], h->by_slot[l->at]);
	if (l->at < l->n)
		return CHANNEL_LIST_E_MORE;
	l->at = 0;
	return 0;
}

/* ---------------------------------------------------------------------------- order */

struct sorting {
	const struct channel_cell *cells;
	enum channel_order order;
};

static uint64_t cell_weight(const struct channel_cell *cell, enum channel_order order)
{
	switch (order) {
	case CHANNELS_BY_BYTES:
		return channel_cell_out(cell, cell->bytes);
	case CHANNELS_BY_MEMBERS:
		return cell->members;
	case CHANNELS_BY_LAGGING:
		return cell->slow;
	default:
		return channel_cell_out(cell, cell->messages);
	}
}

static int slot_compare(const void *a, const void *b, void *ctx)
{
	const struct sorting *s = ctx;
	uint32_t slot_a = *(const uint32_t *)a, slot_b = *(const uint32_t *)b;
	uint64_t weight_a = cell_weight(&s->cells[slot_a], s->order);
	uint64_t weight_b = cell_weight(&s->cells[slot_b], s->order);

	if (weight_a != weight_b)
		return weight_a > weight_b ? -1 : 1;
	return slot_a < slot_b ? -1 : 1;
}

int64_t channel_list_sort(const struct channel_list *l, enum channel_order order,
			  uint32_t **ret_slots)
{
	struct sorting s = {l->cells, order};
	uint32_t *slots = calloc(MAX(l->n, 1u), sizeof(*slots));
	uint32_t n = 0;

	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < l->n; i++)
		if (l->cells[i].members > 0)
			slots[n++] = i;
	qsort_r(slots, n, sizeof(*slots), slot_compare, &s);
	*ret_slots = slots;
	return n;
}
