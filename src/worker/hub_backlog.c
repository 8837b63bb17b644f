/* SPDX-License-Identifier: MIT */
#include "worker/hub_private.h"

/*
 * Back-pressure of a channel. A worker whose backlog of it is at its bound says so in the
 * directory's entry; whoever publishes then isn't read until no worker says so any more.
 */

void hub_hold(struct hub *h, struct member *m)
{
	struct channel *ch = m->channel;

	if (m->is_held)
		return;
	METRIC_INC(h->env.metrics, channel_pauses);
	conn_log(
		m->conn, LOG_INFO, EV_CHANNEL_BEHIND, "log_memory",
		"publishes faster than its channel can be sent; not read until that has caught up");
	channel_hold(m);
	if (list_is_empty(&ch->held_node))
		list_add_tail(&h->held, &ch->held_node);
}

/*
 * Says to those that are behind that this hub waits for them. Pairs with the exchange in
 * hub_wake_held(): of the two one comes first. If it is this one, whoever clears its bit sees the
 * mark and wakes; if it is the other, the bit is seen to be clear behind it.
 */
static void mark_held(struct hub *h, uint64_t workers)
{
	for (; workers; workers &= workers - 1) {
		struct hub *target = h->shared->hubs[__builtin_ctzll(workers)];

		atomic_fetch_or_explicit(&target->held_by, 1ULL << h->index, memory_order_acq_rel);
	}
}

/* Whether no worker is behind with a channel; else each that is wakes this hub. */
static bool has_caught_up(struct hub *h, const struct directory_entry *e)
{
	uint64_t marked = 0, full;

	/* One that fell behind after the others were marked has to be marked as well. */
	while ((full = directory_full(e)) & ~marked) {
		mark_held(h, full & ~marked);
		marked |= full;
	}
	return full == 0;
}

void hub_release_held(struct hub *h)
{
	LIST_FOREACH_SAFE (node, next, &h->held) {
		struct channel *ch = CONTAINER_OF(node, struct channel, held_node);

		if (!has_caught_up(h, ch->entry))
			continue;
		list_del(&ch->held_node);
		channel_release(ch);
	}
}

void hub_wake_held(struct hub *h)
{
	uint64_t held_by;

	h->channels.has_caught_up = false;
	/* Behind the bits that were cleared, always an exchange: see mark_held(). */
	held_by = atomic_exchange_explicit(&h->held_by, 0, memory_order_acq_rel);
	for (; held_by; held_by &= held_by - 1)
		reactor_wake(h->shared->hubs[__builtin_ctzll(held_by)]->env.reactor);
}
