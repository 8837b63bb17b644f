/* SPDX-License-Identifier: MIT */
#include "io/reactor.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/clock.h"

#define EVENTS_PER_TURN 512

static void wake_seen(struct reactor_source *s, uint32_t events)
{
	/*
	 * Edge-triggered, so that the counter need not be read back: each write
	 * is one event, and the turn that it starts is all that was asked for.
	 */
	(void)s;
	(void)events;
}

int reactor_init(struct reactor *r, const struct reactor_ops *ops)
{
	WB_CLEANUP(fd_closep) int epoll_fd = -1;
	WB_CLEANUP(fd_closep) int wake_fd = -1;
	int error;

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		return -errno;
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake_fd < 0)
		return -errno;

	r->epoll_fd = epoll_fd;
	error = reactor_add(r, &r->wake_source, wake_fd, EPOLLIN | EPOLLET, wake_seen);
	if (error)
		return error;
	r->now_ns = clock_now_ns();
	wheel_init(&r->wheel, REACTOR_TICK_NS, r->now_ns);
	list_init(&r->deferred);
	/* Last, where nothing can fail any more: by its ops reactor_fini() knows a loop. */
	r->ops = ops;
	r->wake_fd = TAKE_FD(wake_fd);
	(void)TAKE_FD(epoll_fd);
	return 0;
}

static void run_deferred(struct reactor *r)
{
	while (!list_is_empty(&r->deferred)) {
		struct reactor_deferred *d =
			CONTAINER_OF(list_first(&r->deferred), struct reactor_deferred, node);
		reactor_deferred_fn *fn = d->fn;

		/* All before the call, which may free it, or defer it once more. */
		list_del(&d->node);
		d->fn = NULL;
		fn(d);
	}
}

void reactor_fini(struct reactor *r)
{
	if (!r->ops)
		return;
	run_deferred(r); /* what waits to be freed is freed, though no turn comes any more */
	fd_closep(&r->wake_fd);
	fd_closep(&r->epoll_fd);
	r->ops = NULL;
}

void reactor_own(struct reactor *r)
{
	r->thread = pthread_self();
	r->has_thread = true;
}

int reactor_add(struct reactor *r, struct reactor_source *s, int fd, uint32_t events,
		reactor_source_fn *fn)
{
	struct epoll_event event = {.events = events, .data.ptr = s};

	if (epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	s->fn = fn;
	return 0;
}

void reactor_del(struct reactor *r, struct reactor_source *s, int fd)
{
	reactor_assert_here(r);
	if (!s->fn)
		return;
	(void)epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	s->fn = NULL; /* of this turn's events some may still name it */
}

void reactor_defer(struct reactor *r, struct reactor_deferred *d, reactor_deferred_fn *fn)
{
	reactor_assert_here(r);
	if (d->fn)
		return;
	d->fn = fn;
	list_add_tail(&r->deferred, &d->node);
}

/* How long nothing is due; UINT64_MAX: until something happens. */
static uint64_t sleep_ns(struct reactor *r, uint64_t longest_ns)
{
	uint64_t next = wheel_next_ns(&r->wheel);

	if (r->wake_ns)
		next = MIN(next, r->wake_ns);
	/* The turn's own time is old by now: what it worked would be slept too long. */
	if (next != UINT64_MAX) {
		uint64_t now = clock_now_ns();

		longest_ns = MIN(longest_ns, next > now ? next - now : 0);
	}
	return longest_ns;
}

/* epoll_wait() knows milliseconds; what wake_ns asks for is finer. */
static int sleep_exactly(const struct reactor *r, struct epoll_event *events, uint64_t ns)
{
	const struct timespec wait = {.tv_sec = (time_t)(ns / NS_PER_S),
				      .tv_nsec = (long)(ns % NS_PER_S)};

	return epoll_pwait2(r->epoll_fd, events, EVENTS_PER_TURN, &wait, NULL);
}

static int sleep_about(const struct reactor *r, struct epoll_event *events, uint64_t ns)
{
	int ms = -1;

	/* Rounded up: waking before a timer is due would be a turn for nothing. */
	if (ns != UINT64_MAX)
		ms = (int)MIN((ns + NS_PER_MS - 1) / NS_PER_MS, (uint64_t)INT32_MAX);
	return epoll_wait(r->epoll_fd, events, EVENTS_PER_TURN, ms);
}

/* @ret_ns: for how long it may have slept. */
static int wait_for_events(struct reactor *r, struct epoll_event *events, uint64_t longest_ns,
			   uint64_t *ret_ns)
{
	uint64_t ns = 0;
	int n;

	/*
	 * The announcement before the look. Pairs with the fence of reactor_wake(); see the note.
	 */
	atomic_store_explicit(&r->asleep, true, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	if (longest_ns > 0 && list_is_empty(&r->deferred) &&
	    (!r->ops->has_work || !r->ops->has_work(r)))
		ns = sleep_ns(r, longest_ns);
	n = r->wake_ns && ns ? sleep_exactly(r, events, ns) : sleep_about(r, events, ns);
	if (n < 0)
		n = -errno;
	atomic_store_explicit(&r->asleep, false, memory_order_relaxed);
	*ret_ns = ns;
	return n;
}

/*
 * By the clock this loop stood still: in the turn before, or longer than it slept. What epoll
 * says just then may be as old: only the turns to come have seen all.
 */
static void reactor_note_stall(struct reactor *r, uint64_t worked, uint64_t slept,
			       uint64_t may_sleep)
{
	if (worked <= REACTOR_LATE_NS &&
	    (slept <= REACTOR_LATE_NS || slept - REACTOR_LATE_NS <= may_sleep))
		return;
	r->is_late = true;
	r->catch_up_by_ns = r->now_ns + REACTOR_CATCH_UP_NS;
}

/* Waits, and reads the clock before and after. */
static int reactor_wait(struct reactor *r, struct epoll_event *events, uint64_t longest_ns)
{
	uint64_t before = clock_now_ns(), now, may_sleep;
	uint64_t worked = r->turns > 0 ? before - r->now_ns : 0;
	int n = wait_for_events(r, events, longest_ns, &may_sleep);

	now = clock_now_ns();
	r->busy_ns += worked;
	r->worked_ns = worked;
	r->now_ns = now;
	if (WB_UNLIKELY(MAX(worked, now - before) > REACTOR_LATE_NS))
		reactor_note_stall(r, worked, now - before, may_sleep);
	return n;
}

/* Whether all that came while the loop stood still has been looked at, behind @n events. */
static bool reactor_is_caught_up(struct reactor *r, int n)
{
	bool is_late = r->is_late;

	r->is_late = false;
	if (r->now_ns < r->catch_up_by_ns && (is_late || n < 0 || n == EVENTS_PER_TURN ||
					      (r->ops->is_behind && r->ops->is_behind(r))))
		return false;
	r->catch_up_by_ns = 0;
	r->stall_ns = r->now_ns;
	return true;
}

int reactor_turn(struct reactor *r, uint64_t longest_ns)
{
	struct epoll_event events[EVENTS_PER_TURN];
	int n;

	reactor_assert_here(r);
	n = reactor_wait(r, events, longest_ns);
	/* A signal is no event, but the turn is had all the same: it may be what was waited for. */
	if (n < 0 && n != -EINTR)
		return n;
	r->turns++;
	if (r->ops->begin)
		r->ops->begin(r);

	/*
	 * A callback may remove the source of a later event, but what it lies in stays till below.
	 */
	for (int i = 0; i < n; i++) {
		struct reactor_source *s = events[i].data.ptr;

		if (s->fn)
			s->fn(s, events[i].events);
	}
	if (WB_LIKELY(!r->catch_up_by_ns) || reactor_is_caught_up(r, n))
		wheel_advance(&r->wheel, r->now_ns);
	if (r->ops->work)
		r->ops->work(r);
	run_deferred(r);
	return 0;
}

void reactor_wake(struct reactor *r)
{
	const uint64_t one = 1;

	/* The push before the look. Pairs with the fence of wait_for_events(); see the note. */
	atomic_thread_fence(memory_order_seq_cst);
	/* Of many that wake it at once one takes the mark, and makes the system call. */
	if (atomic_load_explicit(&r->asleep, memory_order_relaxed) &&
	    atomic_exchange_explicit(&r->asleep, false, memory_order_relaxed))
		(void)!write(r->wake_fd, &one, sizeof(one)); /* EAGAIN: it is awake as can be */
}
