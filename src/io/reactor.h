/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * An epoll loop that one thread owns.
 *
 * A source is embedded in its owner, has one callback and is found back by
 * CONTAINER_OF. One turn: wait, read the clock once, dispatch what is ready, fire
 * due timers, let the owner do its collected work, and only then let die what was
 * deferred. So a callback may free anything: an object that epoll still names in
 * this turn is dead (its callback NULL) but not gone.
 *
 * Time that was not seen: a process may stand still (SIGSTOP, a frozen cgroup, a machine
 * that swaps), and find on waking that every deadline has passed, with all that came
 * meanwhile unread. A turn that comes much later than it was to come tells. Timers don't
 * fire then until everything that waits has been looked at, and @stall_ns says from
 * when on silence is the other end's again.
 *
 * Sleeping and waking: reactor_wake() costs another thread a system call only when
 * the loop sleeps. The loop announces that it will sleep, *then* looks once more
 * for work; the waker hands over its work, *then* looks whether the loop sleeps.
 * Both put a sequentially consistent fence between the two, so that at least one
 * of them sees the other. This pair is the one place with stand-alone fences:
 * they order atomics only (ThreadSanitizer doesn't see fences, and needn't here).
 */

#include <pthread.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/base.h"
#include "base/clock.h"
#include "containers/list.h"
#include "containers/wheel.h"

#define REACTOR_TICK_NS (50 * NS_PER_MS)
#define REACTOR_LATE_NS (250 * NS_PER_MS)  /* a turn that comes later than this stood still */
#define REACTOR_CATCH_UP_NS (5 * NS_PER_S) /* timers wait no longer for what was not read */

struct reactor;
struct reactor_source;
struct reactor_deferred;

typedef void reactor_source_fn(struct reactor_source *s, uint32_t events);
typedef void reactor_deferred_fn(struct reactor_deferred *d);

/* What epoll reports to. Its fn is NULL once it was removed: late events are dropped. */
struct WB_OWNER(loop) reactor_source {
	reactor_source_fn *fn;
};

/* A function to be called at the end of the turn, once. */
struct WB_OWNER(loop) reactor_deferred {
	struct list node;
	reactor_deferred_fn *fn;
};

/* What the owner of a loop adds to each turn. Any of them may be NULL. */
struct WB_FROZEN reactor_ops {
	/* True when the loop must not sleep. Called between announcing sleep and sleeping. */
	bool (*has_work)(struct reactor *r);
	/* Before the events of each turn, its clock read. */
	void (*begin)(struct reactor *r);
	/* Behind the events of a turn: something that came is still not looked at. */
	bool (*is_behind)(struct reactor *r);
	/* After events and timers of each turn. */
	void (*work)(struct reactor *r);
};

struct WB_OWNER(loop) reactor {
	uint64_t now_ns;    /* read once at the start of each turn */
	uint64_t busy_ns;   /* time spent outside epoll_wait since the start */
	uint64_t turns;     /* turns since the start */
	uint64_t worked_ns; /* the turn before this one; 0: there was none */
	uint64_t stall_ns;  /* when all was read again behind the last standstill; 0: none was */
	uint64_t catch_up_by_ns; /* timers wait until then at most; 0: it didn't stand still */
	bool is_late;            /* this turn is the first behind a standstill */
	struct wheel wheel;
	struct list deferred; /* of reactor_deferred */
	uint64_t wake_ns; /* the owner's: not to be slept past; 0: none. Exact, unlike a timer */
	const struct reactor_ops *ops WB_FROZEN;
	int epoll_fd WB_FROZEN;
	int wake_fd WB_FROZEN;
	struct reactor_source wake_source;
	pthread_t thread;
	bool has_thread;
	alignas(WB_CACHELINE) _Atomic bool asleep; /* any thread; true from before the last look */
};

/**
 * reactor_init() - make a loop that nobody runs yet
 * @r:      all-zero memory
 * @ops:    borrowed for the life of the loop
 *
 * Return:  0 | -errno of epoll_create1, eventfd or epoll_ctl.
 * Thread:  any, before the owner starts.
 */
int reactor_init(struct reactor *r, const struct reactor_ops *ops) WB_NODISCARD;

/* Closes the loop's descriptors; an all-zero object is fine. Deferred work is run first. */
void reactor_fini(struct reactor *r);

/* Makes the calling thread the owner: reactor_assert_here() holds for it alone from then on. */
void reactor_own(struct reactor *r);

/**
 * reactor_assert_here() - this loop's own thread is calling
 *
 * Before reactor_own() anyone may: a loop is built before its thread starts.
 */
static inline void reactor_assert_here(const struct reactor *r)
{
	WB_ASSERT(!r->has_thread || pthread_equal(r->thread, pthread_self()));
}

/**
 * reactor_add() - report events of a descriptor to a source
 * @fd:     stays the caller's; remove the source before closing it
 * @events: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET as in epoll_ctl(2)
 *
 * Return:  0 | -errno of epoll_ctl (-ENOMEM and -ENOSPC are load, not mistakes).
 * Thread:  the loop's, or before it starts.
 */
int reactor_add(struct reactor *r, struct reactor_source *s, int fd, uint32_t events,
		reactor_source_fn *fn) WB_NODISCARD;

/* Reports nothing more to @s, not even what epoll returned already in this turn. The loop's. */
void reactor_del(struct reactor *r, struct reactor_source *s, int fd);

/**
 * reactor_defer() - call @fn at the end of this turn
 * @d:      all-zero or done; must live until the call; a second defer before it is ignored
 *
 * Thread:  the loop's.
 */
void reactor_defer(struct reactor *r, struct reactor_deferred *d, reactor_deferred_fn *fn);

/**
 * reactor_turn() - one turn
 * @longest_ns: how long to sleep at most when nothing happens; UINT64_MAX for no bound
 *
 * Return:  0 | -errno of epoll_wait other than -EINTR.
 * Thread:  the loop's.
 */
int reactor_turn(struct reactor *r, uint64_t longest_ns) WB_NODISCARD;

/**
 * reactor_wake() - make the loop look for work
 *
 * Call after the work was handed over (pushed to a ring that has_work() reads).
 *
 * Thread:  any.
 * Cost:    a fence and a load; a system call only when the loop sleeps.
 */
WB_ANY_THREAD void reactor_wake(struct reactor *r);
