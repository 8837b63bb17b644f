/* SPDX-License-Identifier: MIT */
#include "containers/wheel.h"

#include <string.h>

/*
 * Invariants, all in ticks: tick < next <= slot_next[i] <= every timer of slot i. A timer
 * that was overdue when it was armed counts as one of the tick after that moment.
 * Disarming leaves the two lower bounds as they are; wheel_next_ns() makes them exact
 * again where it matters, so each disarming causes at most one more look at a slot.
 */

#define SLOT_OF(tick) ((unsigned)((tick) & (WHEEL_SLOTS - 1)))

void wheel_init(struct wheel *w, uint64_t tick_ns, uint64_t now_ns)
{
	WB_ASSERT(tick_ns > 0);
	/* Not a compound literal, which may pass the stack: it is larger than a frame may be. */
	memset(w, 0, sizeof(*w));
	w->next = UINT64_MAX;
	w->next_is_exact = true;
	w->shift = 63 - (unsigned)__builtin_clzll(tick_ns);
	w->tick = now_ns >> w->shift;
	list_init(&w->due);
	for (size_t i = 0; i < WHEEL_SLOTS; i++)
		list_init(&w->slot[i]);
}

void wheel_timer_init(struct wheel_timer *t, wheel_fn *fn)
{
	*t = (struct wheel_timer){.fn = fn};
	list_init(&t->node);
}

/* The first tick that begins at or after a time: firing there is never early. */
static uint64_t tick_at_or_after(const struct wheel *w, uint64_t ns)
{
	uint64_t whole = ns >> w->shift;

	return whole + (whole << w->shift != ns);
}

static struct wheel_timer *timer_of(struct list *node)
{
	return CONTAINER_OF(node, struct wheel_timer, node);
}

/* The tick at which a timer has to fire, as long as it has not. */
static uint64_t timer_tick(const struct wheel *w, const struct wheel_timer *t)
{
	return MAX(tick_at_or_after(w, t->deadline_ns), w->tick + 1);
}

static bool slot_is_occupied(const struct wheel *w, unsigned i)
{
	return w->occupied[i / 64] >> (i % 64) & 1;
}

static void slot_set_occupied(struct wheel *w, unsigned i)
{
	w->occupied[i / 64] |= 1ULL << (i % 64);
}

static void slot_set_empty(struct wheel *w, unsigned i)
{
	w->occupied[i / 64] &= ~(1ULL << (i % 64));
}

void wheel_add(struct wheel *w, struct wheel_timer *t, uint64_t deadline_ns)
{
	uint64_t tick;
	unsigned i;

	WB_ASSERT(t->fn);
	wheel_del(w, t);
	t->deadline_ns = deadline_ns;
	tick = timer_tick(w, t);
	i = SLOT_OF(tick);
	/* What an empty slot's bound says is of timers that are gone. */
	if (!slot_is_occupied(w, i)) {
		slot_set_occupied(w, i);
		w->slot_next[i] = tick;
	} else if (tick < w->slot_next[i]) {
		w->slot_next[i] = tick;
	}
	list_add_tail(&w->slot[i], &t->node);
	w->armed++;
	if (tick <= w->next) {
		w->next = tick;
		w->next_is_exact = true;
	}
}

void wheel_del(struct wheel *w, struct wheel_timer *t)
{
	struct list *neighbour = t->node.next;

	if (!wheel_is_armed(t))
		return;
	/*
	 * Alone in its list: its neighbour is the head, whose place tells the slot. The tick would
	 * not: it is another one by now if the timer was overdue when it was armed.
	 */
	if (neighbour == t->node.prev && neighbour != &w->due)
		slot_set_empty(w, (unsigned)(neighbour - w->slot));
	list_del(&t->node);
	w->armed--;
	if (timer_tick(w, t) <= w->next)
		w->next_is_exact = false;
}

/*
 * Distance from slot @i to the first occupied one at or behind it, around the end; @n if there
 * is none within @n slots.
 */
static unsigned slots_to_occupied(const struct wheel *w, unsigned i, unsigned n)
{
	unsigned distance = 0;

	while (distance < n) {
		unsigned at = (i + distance) % WHEEL_SLOTS;
		/* 64 slots a look. The first word may be entered in its middle, the others not. */
		uint64_t bits = w->occupied[at / 64] >> (at % 64);

		if (bits)
			return MIN(distance + (unsigned)__builtin_ctzll(bits), n);
		distance += 64 - at % 64;
	}
	return n;
}

/* The earliest tick of a slot; stops looking where it meets @known, which nothing is before. */
static uint64_t slot_earliest(const struct wheel *w, unsigned i, uint64_t known)
{
	uint64_t earliest = UINT64_MAX;

	LIST_FOREACH (node, &w->slot[i]) {
		uint64_t tick = timer_tick(w, timer_of(node));

		if (tick == known)
			return known;
		earliest = MIN(earliest, tick);
	}
	return earliest;
}

/* Nothing fires here: a callback may change the very list that is walked. */
static void slot_collect_due(struct wheel *w, unsigned i, uint64_t now)
{
	uint64_t earliest = UINT64_MAX;

	LIST_FOREACH_SAFE (node, tmp, &w->slot[i]) {
		uint64_t tick = timer_tick(w, timer_of(node));

		if (tick <= now) {
			list_del(node);
			list_add_tail(&w->due, node);
		} else {
			earliest = MIN(earliest, tick);
		}
	}
	w->slot_next[i] = earliest;
	if (list_is_empty(&w->slot[i]))
		slot_set_empty(w, i);
}

/* Takes what is due up to tick @now out of the slots that the wheel passes on its way there. */
static void wheel_collect_due(struct wheel *w, uint64_t now)
{
	/* After a long sleep the wheel has turned more than once: each slot is passed once. */
	unsigned left = (unsigned)MIN(now - w->tick, (uint64_t)WHEEL_SLOTS);
	unsigned i = SLOT_OF(w->tick + 1);

	while (left) {
		unsigned skip = slots_to_occupied(w, i, left);

		i = (i + skip) % WHEEL_SLOTS;
		left -= skip;
		if (!left)
			break;
		if (w->slot_next[i] <= now)
			slot_collect_due(w, i, now);
		i = (i + 1) % WHEEL_SLOTS;
		left--;
	}
}

void wheel_advance(struct wheel *w, uint64_t now_ns)
{
	uint64_t now = now_ns >> w->shift;
	struct list *node;

	if (now <= w->tick)
		return;
	if (now < w->next) {
		w->tick = now;
		return;
	}
	/* The time is set before anything fires: what a callback arms counts from now. */
	wheel_collect_due(w, now);
	w->tick = now;
	w->next = now + 1;
	w->next_is_exact = false;
	/* A callback may take others out of this list; what it arms goes to a slot. */
	while ((node = list_pop(&w->due))) {
		struct wheel_timer *t = timer_of(node);

		w->armed--;
		t->fn(t);
	}
}

/* The slot with the smallest lower bound; false when no slot is occupied. */
static bool wheel_find_slot(const struct wheel *w, unsigned *ret_slot)
{
	uint64_t best = UINT64_MAX;
	unsigned best_slot = WHEEL_SLOTS;

	for (unsigned n = 0; n < WHEEL_SLOTS; n++) {
		unsigned i = SLOT_OF(w->tick + 1 + n);
		unsigned skip = slots_to_occupied(w, i, WHEEL_SLOTS - n);

		n += skip;
		if (n == WHEEL_SLOTS)
			break;
		i = (i + skip) % WHEEL_SLOTS;
		if (best_slot == WHEEL_SLOTS || w->slot_next[i] < best) {
			best = w->slot_next[i];
			best_slot = i;
		}
		/* Slots further on hold ticks further on. */
		if (best <= w->tick + 1 + n)
			break;
	}
	if (best_slot == WHEEL_SLOTS)
		return false;
	*ret_slot = best_slot;
	return true;
}

/*
 * Takes the slot of the smallest lower bound and makes that exact, until a bound that was exact
 * already is the smallest: that is when the next timer is due.
 */
static void wheel_find_next(struct wheel *w)
{
	unsigned i;

	w->next = UINT64_MAX;
	while (wheel_find_slot(w, &i)) {
		uint64_t bound = w->slot_next[i];

		w->slot_next[i] = slot_earliest(w, i, bound);
		if (w->slot_next[i] == bound) {
			w->next = bound;
			break;
		}
	}
	w->next_is_exact = true;
}

uint64_t wheel_next_ns(struct wheel *w)
{
	if (!w->next_is_exact)
		wheel_find_next(w);
	/* What lies past the last representable nanosecond is never due; neither is UINT64_MAX. */
	if (w->next > UINT64_MAX >> w->shift)
		return UINT64_MAX;
	return w->next << w->shift;
}

void wheel_check(const struct wheel *w)
{
	size_t armed = list_check(&w->due);
	uint64_t earliest = UINT64_MAX;

	WB_ASSERT(w->tick < w->next);
	for (unsigned i = 0; i < WHEEL_SLOTS; i++) {
		armed += list_check(&w->slot[i]);
		WB_ASSERT(slot_is_occupied(w, i) == !list_is_empty(&w->slot[i]));
		if (!slot_is_occupied(w, i))
			continue;
		WB_ASSERT(w->next <= w->slot_next[i] && SLOT_OF(w->slot_next[i]) == i);
		WB_ASSERT(w->slot_next[i] <= slot_earliest(w, i, UINT64_MAX));
		LIST_FOREACH (node, &w->slot[i])
			WB_ASSERT(SLOT_OF(timer_tick(w, timer_of(node))) == i);
		earliest = MIN(earliest, slot_earliest(w, i, UINT64_MAX));
	}
	WB_ASSERT(armed == w->armed);
	WB_ASSERT(!w->next_is_exact || w->next == earliest);
}
