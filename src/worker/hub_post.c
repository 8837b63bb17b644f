/* SPDX-License-Identifier: MIT */
#include "worker/hub_private.h"

/*
 * Puts a message into the log of this worker. Where it cannot be kept, its number
 * stays a gap that nothing fills: the members here are closed at the end of the
 * turn, from where no other work on them is under way.
 */
static void append_to_log(struct channel *ch, struct frame *f)
{
	if (ch->is_lost || channel_append(ch, f) == 0)
		return;
	ch->is_lost = true;
	channel_want_flush(ch);
}

/* ---------------------------------------------------------------- posts to others */

static bool outbox_push(struct hub *h, unsigned to)
{
	struct hub *target = h->shared->hubs[to];

	if (!ring_push(&target->inbox, h->outbox.post[to]))
		return false;
	h->outbox.post[to] = NULL;
	h->outbox.set &= ~(1ULL << to);
	reactor_wake(target->env.reactor);
	return true;
}

/*
 * Says that this hub waits for room, and tries once more. Pairs with the exchange
 * in wake_waiting(): of the two one comes first. If it is this one, the consumer
 * sees the mark and wakes; if it is the consumer's, what it drained before is seen
 * here, and the second try finds room.
 */
static void mark_waiting(struct hub *h, unsigned to)
{
	struct hub *target = h->shared->hubs[to];

	atomic_fetch_or_explicit(&target->waiting, 1ULL << h->index, memory_order_acq_rel);
	(void)outbox_push(h, to);
}

/* The ring's owner holds a reference of its own from here on. */
static void post_to(struct hub *h, unsigned to, struct frame *f)
{
	struct hub *target = h->shared->hubs[to];

	METRIC_INC(h->env.metrics, ring_posts);
	if (ring_push(&target->inbox, frame_ref(f))) {
		reactor_wake(target->env.reactor);
		return;
	}
	WB_ASSERT(!h->outbox.post[to]); /* a congested hub publishes nothing */
	METRIC_INC(h->env.metrics, ring_overflows);
	h->outbox.post[to] = f;
	h->outbox.set |= 1ULL << to;
	/* Before the mark: should the second try succeed, the next turn ends the congestion. */
	conn_env_pause(&h->env, CONN_PAUSE_CONGESTED);
	mark_waiting(h, to);
}

void hub_reserve_number(struct hub *h, struct directory_entry *e)
{
	if (atomic_load_explicit(&e->has_history, memory_order_relaxed))
		history_reserve(&h->shared->history, e);
}

/* The number of a message that is to be kept. False: it is not to be published. */
WB_COLD static bool take_kept_number(struct hub *h, struct directory_entry *e, struct frame *f,
				     struct history_once *once, uint64_t *ret_workers)
{
	struct history_store *s = history_of(&h->shared->history, e);

	h->sequence = 0;
	if (s && atomic_load_explicit(&e->has_history, memory_order_acquire)) {
		h->sequence = history_publish(&h->shared->history, s, f, once, ret_workers);
		return !once || once->outcome == HISTORY_PUBLISHED;
	}
	/* It was made for a history that is gone meanwhile. */
	f->seq = directory_take(e, ret_workers);
	frame_set_account(f, h->env.frame_account);
	frame_set_number(f, f->seq + 1);
	return true;
}

bool hub_publish(struct hub *h, struct directory_entry *e, struct frame *f, struct member *sender,
		 struct history_once *once)
{
	uint64_t workers;
	struct channel *ch;

	/*
	 * The frame is complete before the first post: from there on other threads read it. The
	 * set of workers is read behind the number, never before: see directory_take().
	 */
	f->slot = e->slot;
	f->generation = e->generation;
	f->received_ns = h->env.reactor->now_ns;
	f->sender = sender ? sender->conn->serial : 0;
	if (WB_LIKELY(!(f->flags & FRAME_NUMBERED))) {
		f->seq = directory_take(e, &workers);
	} else if (!take_kept_number(h, e, f, once, &workers)) {
		frame_unref(f);
		return false;
	}
	if (sender)
		channel_note_own(sender, f);
	workers &= ~(1ULL << h->index);
	while (workers) {
		unsigned to = (unsigned)__builtin_ctzll(workers);

		workers &= workers - 1;
		post_to(h, to, f);
	}
	/* This worker may have no members: the administrator publishes on any. */
	ch = hub_channel_at(h, e->slot, e->generation);
	if (ch)
		append_to_log(ch, f);
	/* Behind its own log, which may have come to its bound with this one. */
	if (WB_UNLIKELY(directory_full(e)) && sender && !(f->flags & FRAME_NOTICE))
		hub_hold(h, sender);
	frame_unref(f);
	return true;
}

int hub_outlet_init(struct hub *h, const char *name, size_t n, struct hub_outlet *ret)
{
	struct directory_entry *e = directory_pin(&h->shared->directory, name, n);
	struct history_limits limits;
	int r = 0;

	if (!e)
		return HUB_E_NO_CHANNEL;
	*ret = (struct hub_outlet){.entry = e};
	/* Held like a worker's own: it may have no members, and then might go meanwhile. */
	if (atomic_load_explicit(&e->has_history, memory_order_acquire) &&
	    hub_history_limits(h->env.config, e->name, &limits)) {
		r = history_hold(&h->shared->history, e, &limits);
		ret->has_history = r == 0;
	}
	if (r)
		directory_unpin(&h->shared->directory, e);
	return r;
}

void hub_outlet_fini(struct hub *h, struct hub_outlet *o)
{
	if (o->has_history)
		history_release(&h->shared->history, o->entry);
	directory_unpin(&h->shared->directory, o->entry);
}

int hub_outlet_publish(struct hub *h, const struct hub_outlet *o, struct frame *f,
		       uint32_t *ret_members)
{
	struct directory_entry *e = o->entry;

	if (conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED) || directory_full(e))
		return HUB_E_CONGESTED;
	/* How many there are just now; some may come or go before the message has its number. */
	*ret_members = atomic_load_explicit(&e->members, memory_order_relaxed);
	(void)hub_publish(h, e, f, NULL, NULL);
	return 0;
}

/*
 * Congested, and it may be over: the consumer has taken our mark, so there is room
 * and a wake-up is behind us that found this loop awake.
 */
bool hub_outbox_may_go(const struct hub *h)
{
	uint64_t left = h->outbox.set;

	if (!conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED))
		return false;
	while (left) {
		struct hub *target = h->shared->hubs[__builtin_ctzll(left)];

		left &= left - 1;
		if (!(atomic_load_explicit(&target->waiting, memory_order_acquire) &
		      1ULL << h->index))
			return true;
	}
	return h->outbox.set == 0;
}

bool hub_outbox_send(struct hub *h)
{
	uint64_t left = h->outbox.set;

	while (left) {
		unsigned to = (unsigned)__builtin_ctzll(left);

		left &= left - 1;
		/* Still full: the mark may have been taken by a wake-up that came too early. */
		if (!outbox_push(h, to))
			mark_waiting(h, to);
	}
	return h->outbox.set == 0;
}

/* -------------------------------------------------------------- posts from others */

/* Tells producers that found the inbox full that there is room again. */
static void wake_waiting(struct hub *h)
{
	/* Always an exchange, also where nobody waits: see mark_waiting(). */
	uint64_t waiting = atomic_exchange_explicit(&h->waiting, 0, memory_order_acq_rel);

	while (waiting) {
		struct hub *producer = h->shared->hubs[__builtin_ctzll(waiting)];

		waiting &= waiting - 1;
		reactor_wake(producer->env.reactor);
	}
}

bool hub_take_posts(struct hub *h)
{
	struct frame *f = ring_pop(&h->inbox);
	struct turn *turn = &h->env.turn;

	if (!f)
		return false;
	/*
	 * Once around the ring is enough for a turn, and what there is time for: producers may be
	 * as fast as this loop. What is left is work of the next turn.
	 */
	turn_begin_phase(turn, TURN_POSTS_NS);
	for (unsigned n = 1; f; n++) {
		/* A channel that went meanwhile, or is another one's slot now, gets nothing. */
		struct channel *ch = hub_channel_at(h, f->slot, f->generation);

		if (ch)
			append_to_log(ch, f);
		frame_unref(f);
		turn_charge(turn, TURN_POST);
		f = n < HUB_INBOX_SLOTS && !turn_is_over(turn) ? ring_pop(&h->inbox) : NULL;
	}
	wake_waiting(h);
	return true;
}
