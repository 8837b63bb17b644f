/* SPDX-License-Identifier: MIT */
#include "containers/ring.h"

#include <errno.h>

int ring_init(struct ring *r, size_t slots)
{
	struct ring_cell *cells;

	WB_ASSERT(slots >= 2 && (slots & (slots - 1)) == 0);
	WB_ASSERT(slots <= SIZE_MAX / 2 / sizeof(*cells));
	/* No line of the cells is shared with anything else that happens to lie beside them. */
	cells = aligned_alloc(WB_CACHELINE, MAX(slots * sizeof(*cells), (size_t)WB_CACHELINE));
	if (!cells)
		return -ENOMEM;
	/* Each cell waits for the ticket of its own number: the first turn may be written. */
	for (size_t i = 0; i < slots; i++) {
		atomic_init(&cells[i].turn, i);
		cells[i].item = NULL;
	}
	atomic_init(&r->tail, 0);
	atomic_init(&r->head, 0);
	r->cells = cells;
	r->mask = slots - 1;
	return 0;
}

void ring_fini(struct ring *r)
{
	if (!r)
		return;
	free(r->cells);
	r->cells = NULL;
	r->mask = 0;
}

bool ring_push(struct ring *r, void *item)
{
	size_t ticket = atomic_load_explicit(&r->tail, memory_order_relaxed);
	struct ring_cell *cell;

	for (;;) {
		size_t turn;

		cell = &r->cells[ticket & r->mask];
		/* Pairs with the release in ring_pop(): the consumer is done with the cell. */
		turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
		if (turn == ticket) {
			/* Hands out tickets only; the cell's turn is what publishes. */
			if (atomic_compare_exchange_weak_explicit(&r->tail, &ticket, ticket + 1,
								  memory_order_relaxed,
								  memory_order_relaxed))
				break;
			continue;
		}
		/* Signed, since tickets wrap. Behind: the item of a turn ago is still in there. */
		if ((ptrdiff_t)(turn - ticket) < 0)
			return false;
		/* Ahead: another producer has had this ticket since it was read. */
		ticket = atomic_load_explicit(&r->tail, memory_order_relaxed);
	}
	cell->item = item;
	/* Pairs with the acquire in ring_pop() and ring_is_empty(). */
	atomic_store_explicit(&cell->turn, ticket + 1, memory_order_release);
	return true;
}

void *ring_pop(struct ring *r)
{
	size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	struct ring_cell *cell = &r->cells[head & r->mask];
	void *item;

	/* Pairs with the release in ring_push(). */
	if (atomic_load_explicit(&cell->turn, memory_order_acquire) != head + 1)
		return NULL;
	item = cell->item;
	/* Pairs with the acquire in ring_push(): the cell is free for the next turn. */
	atomic_store_explicit(&cell->turn, head + r->mask + 1, memory_order_release);
	/* Pairs with the acquire in ring_depth(). */
	atomic_store_explicit(&r->head, head + 1, memory_order_release);
	return item;
}

size_t ring_depth(struct ring *r)
{
	/* Pairs with the release in ring_pop(): a tail read later is never behind this head. */
	size_t head = atomic_load_explicit(&r->head, memory_order_acquire);
	size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

	/* The head may be old by now, and the difference so more than there ever was. */
	return MIN(tail - head, r->mask + 1);
}

void ring_check(struct ring *r)
{
	size_t head = atomic_load(&r->head);
	size_t tail = atomic_load(&r->tail);

	WB_ASSERT(tail - head <= r->mask + 1);
	for (size_t ticket = head; ticket != head + r->mask + 1; ticket++) {
		size_t turn = atomic_load(&r->cells[ticket & r->mask].turn);
		bool is_full = ticket - head < tail - head;

		WB_ASSERT(turn == ticket + is_full);
	}
}
