/* SPDX-License-Identifier: MIT */
#include "worker/hub_private.h"

/*
 * Back-pressure of a channel, in two degrees. A worker whose backlog of it is at its bound says so
 * in the directory's entry; whoever publishes then isn't read until no worker says so any more. A
 * worker with a member that is slow says that, too; chunks are then acknowledged later.
 */

/* Until no worker is in the way any more: each turn looks. */
static void hub_wait_for(struct hub *h, struct channel *ch)
{
	if (list_is_empty(&ch->held_node))
		list_add_tail(&h->held, &ch->held_node);
}

void hub_hold(struct hub *h, struct member *m)
{
	if (m->is_held)
		return;
	METRIC_INC(h->env.metrics, channel_pauses);
	conn_log(
		m->conn, LOG_INFO, EV_CHANNEL_BEHIND, "log_memory",
		"publishes faster than its channel can be sent; not read until that has caught up");
	channel_hold(m);
	hub_wait_for(h, m->channel);
}

void hub_acknowledge(struct hub *h, struct member *through, const void *id, size_t n, bool is_chunk,
		     struct acks_place place)
{
	bool waits = is_chunk && directory_lagging(through->channel->entry);

	if (!waits && !(through->conn->has_late_acks && acks_has(&h->acks, through))) {
		acks_send_through(through, id, n, place);
		return;
	}
	hub_wait_for(h, through->channel);
	acks_wait(&h->acks, through, id, n, place);
}

uint64_t hub_check_acks(struct conn *c, uint64_t now)
{
	return acks_release_due(&hub_of(c)->acks, c, now);
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

/* Whether a set of an entry is empty; else each worker that is in it wakes this hub. */
static bool hub_sees_none(struct hub *h, const struct directory_entry *e,
			  uint64_t (*read_set)(const struct directory_entry *))
{
	uint64_t marked = 0, set;

	/* One that came into it after the others were marked has to be marked as well. */
	while ((set = read_set(e)) & ~marked) {
		mark_held(h, set & ~marked);
		marked |= set;
	}
	return set == 0;
}

/* One channel of them. False: the turn had no time for all of it. */
static bool hub_release_channel(struct hub *h, struct channel *ch)
{
	bool is_all = true;

	if (ch->n_held > 0 && hub_sees_none(h, ch->entry, directory_full))
		channel_release(ch);
	if (list_is_empty(&ch->late_acks) || !hub_sees_none(h, ch->entry, directory_lagging))
		return true;
	ch->is_flushing = true; /* keeps it, even if its last member ends by that */
	is_all = acks_release_channel(&h->acks, ch);
	ch->is_flushing = false;
	return is_all;
}

bool hub_release_held(struct hub *h)
{
	bool is_all = true;
	struct list now;

	/* A client that ends meanwhile may take other channels out of the list. */
	list_init(&now);
	list_splice_tail(&now, &h->held);
	while (!list_is_empty(&now)) {
		struct channel *ch = CONTAINER_OF(list_pop(&now), struct channel, held_node);

		is_all &= hub_release_channel(h, ch);
		if (ch->n_held > 0 || !list_is_empty(&ch->late_acks))
			hub_wait_for(h, ch);
		hub_close_channel_if_empty(h, ch);
	}
	return is_all;
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
