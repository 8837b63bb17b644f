/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Hashed timer wheel: arming and disarming are O(1) and allocate nothing, since the timer
 * lies inside its owner. No timer fires early; each fires less than two ticks late, if
 * wheel_advance() is called when wheel_next_ns() asks for it.
 *
 * The wheel has 1024 slots of one tick. A timer stands in the slot of its tick; one that
 * is further away than a turn stays there until its own turn comes. Beside each slot
 * stands the earliest tick in it, so that neither firing nor asking for the next deadline
 * walks through timers that are not due, and an idle loop sleeps as long as it may.
 *
 * Timers due in one call fire in no promised order.
 * Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 6.
 */

#include "base/base.h"
#include "containers/list.h"

#define WHEEL_SLOTS 1024

struct wheel_timer;

/* Called once for each time it was armed; the timer is disarmed by then. */
typedef void wheel_fn(struct wheel_timer *t);

/* Embedded in what it belongs to. All zero is disarmed, and has no fn to be armed with. */
struct WB_OWNER(worker) wheel_timer {
	struct list node;
	uint64_t deadline_ns; /* as given to wheel_add() */
	wheel_fn *fn;
};

struct WB_OWNER(worker) wheel {
	uint64_t tick;      /* every timer up to this tick has fired */
	uint64_t next;      /* no timer is due before this tick; UINT64_MAX: none at all */
	size_t armed;       /* timers in the wheel and in due */
	unsigned shift;     /* a tick has 1 << shift ns */
	bool next_is_exact; /* a timer is due at next */
	struct list due;    /* taken out of their slots, about to fire */
	uint64_t occupied[WHEEL_SLOTS / 64]; /* one bit for each slot that has timers */
	uint64_t slot_next[WHEEL_SLOTS];     /* no timer of the slot is due before this tick */
	struct list slot[WHEEL_SLOTS];
};

/**
 * wheel_init() - make a wheel without timers
 * @tick_ns: > 0; the largest power of two within it becomes the tick, so that no
 *           operation divides; "two ticks late" holds for either
 * @now_ns:  the present
 *
 * The wheel points into itself: it must not be moved. It needs no fini.
 */
void wheel_init(struct wheel *w, uint64_t tick_ns, uint64_t now_ns);

/* Makes @t a disarmed timer. Never on an armed one. */
void wheel_timer_init(struct wheel_timer *t, wheel_fn *fn);

/**
 * wheel_add() - arm a timer, or move it to another deadline
 * @deadline_ns: when it is due; one in the past is due at the next tick, UINT64_MAX never
 *
 * Thread: the wheel's owner. Legal in any callback of the wheel, which so never loops: what
 *         is armed there fires at a later tick.
 * Cost:   O(1), no allocation.
 */
void wheel_add(struct wheel *w, struct wheel_timer *t, uint64_t deadline_ns);

/*
 * Disarms a timer, if it is armed. Legal in any callback, also for another timer that is due
 * now: it does not fire then. O(1).
 */
void wheel_del(struct wheel *w, struct wheel_timer *t);

/* Whether wheel_add() came last, and neither its firing nor wheel_del(). */
static inline bool wheel_is_armed(const struct wheel_timer *t)
{
	return t->node.next && t->node.next != &t->node;
}

/* Timers that are armed. */
static inline size_t wheel_armed(const struct wheel *w)
{
	return w->armed;
}

/**
 * wheel_advance() - fire what is due
 * @now_ns: the present; one before the last is ignored
 *
 * Each callback may arm, disarm and free any timer, its own too. Not from a callback.
 *
 * Thread: the wheel's owner.
 * Cost:   O(occupied slots passed + timers fired), at most one turn of slots.
 */
void wheel_advance(struct wheel *w, uint64_t now_ns);

/**
 * wheel_next_ns() - when wheel_advance() has something to do
 *
 * Return: the first nanosecond at which a timer fires, exact to the tick, never later than
 *         that; UINT64_MAX when there is no timer.
 * Thread: the wheel's owner.
 * Cost:   O(1) unless the earliest timer fired or was disarmed since: then at most one look
 *         at each occupied slot.
 */
uint64_t wheel_next_ns(struct wheel *w);

/* Asserts the invariants. O(timers + slots), for tests. */
void wheel_check(const struct wheel *w);
