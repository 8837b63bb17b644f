/* SPDX-License-Identifier: MIT */
#include "server/watchdog.h"

#include "io/log.h"
#include "service/systemd.h"
#include <inttypes.h>

void watchdog_init(struct watchdog *w, struct worker_pool *p)
{
	w->pool = p;
	w->interval_ns = systemd_watchdog_ns();
}

uint64_t watchdog_period_ns(const struct watchdog *w)
{
	/* One that is late by a turn of the loop must not be too late for the manager. */
	return w->interval_ns ? MIN(NS_PER_S, w->interval_ns / 3) : NS_PER_S;
}

bool watchdog_is_stalled(const struct watchdog *w, unsigned worker, uint64_t now_ns)
{
	const struct watchdog_ping *p = &w->pings[worker];
	const struct reactor *r = w->pool->main_reactor;

	/* When the whole process stood still, it is not the worker that has not answered. */
	return p->sent_ns && !r->catch_up_by_ns &&
	       now_ns - MAX(p->sent_ns, r->stall_ns) > WATCHDOG_STALLED_NS;
}

static void ping_answered(struct worker_task *t)
{
	CONTAINER_OF(t, struct watchdog_ping, task)->sent_ns = 0;
}

/* True when every worker has answered the last ping. */
static bool check_answers(const struct watchdog *w, uint64_t now_ns)
{
	bool all = true;

	/* Late is not stalled: the manager hears of the first, the journal of the second. */
	for (unsigned i = 0; i < w->pool->n; i++) {
		const struct watchdog_ping *p = &w->pings[i];

		all &= p->sent_ns == 0;
		if (watchdog_is_stalled(w, i, now_ns))
			log_event_limited(LOG_WARNING, EV_WORKER_STALLED,
					  LOG_FIELDS(LOG_NUM("WORKER_INDEX", i)),
					  "worker %u has not answered for %" PRIu64 " s", i,
					  (now_ns - p->sent_ns) / NS_PER_S);
	}
	return all;
}

void watchdog_run(struct watchdog *w, uint64_t now_ns)
{
	/* The answers are looked at before new pings go out, which nobody can have answered yet. */
	if (check_answers(w, now_ns) && w->interval_ns)
		(void)systemd_watchdog();
	for (unsigned i = 0; i < w->pool->n; i++) {
		struct watchdog_ping *p = &w->pings[i];

		/* Its task is out still, and there is but one. */
		if (p->sent_ns)
			continue;
		p->sent_ns = now_ns;
		p->task = (struct worker_task){.run = worker_task_ping, .done = ping_answered};
		worker_post(w->pool->workers[i], &p->task);
	}
}
