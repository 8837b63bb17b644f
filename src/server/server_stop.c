/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <signal.h>

#include "io/log.h"
#include "server/server_private.h"
#include "service/systemd.h"

static void all_have_left(struct pool_task *t)
{
	CONTAINER_OF(t, struct server, stop.leaving)->phase = SERVER_STOPPED;
}

/*
 * What was read is in the logs of all workers now, so nothing that was accepted is lost when
 * each of them sends what waits and says goodbye.
 */
static void all_have_stopped_reading(struct pool_task *t)
{
	struct server *s = CONTAINER_OF(t, struct server, stop.leaving);

	pool_task_post(t, s->pool, worker_task_say_goodbye, all_have_left);
}

static void timeout_ends(struct wheel_timer *t)
{
	CONTAINER_OF(t, struct server, stop.timer)->phase = SERVER_STOPPED;
}

void server_stop_init(struct server *s)
{
	wheel_timer_init(&s->stop.timer, timeout_ends);
}

static void begin_to_stop(struct server *s, const char *why)
{
	uint64_t timeout = s->config->shutdown_timeout, timeout_s = timeout / NS_PER_S;

	s->phase = SERVER_STOPPING;
	(void)systemd_stopping();
	(void)systemd_status("Stopping: sending what waits, saying goodbye");
	log_event(LOG_INFO, EV_STOP, LOG_FIELDS(LOG_TEXT("REASON", why)),
		  "stopping (%s): %" PRIu64 " connections, at most %" PRIu64 " s", why,
		  SERVER_SUM(s, connections_active), timeout_s);
	if (timeout == 0) {
		s->phase = SERVER_STOPPED;
		return;
	}
	/* The manager's own limit must not be what ends us, so it hears of ours. */
	(void)systemd_extend_timeout(timeout + 5 * NS_PER_S);
	wheel_add(&s->reactor.wheel, &s->stop.timer, s->reactor.now_ns + timeout);
	pool_task_post(&s->stop.leaving, s->pool, worker_task_stop_reading,
		       all_have_stopped_reading);
}

void server_stop(struct server *s, const char *why)
{
	switch (s->phase) {
	case SERVER_SERVING:
		begin_to_stop(s, why);
		break;
	case SERVER_HANDING_OVER:
	case SERVER_HANDED_OVER:
		/* To the manager: that is its end already. */
		if (s->handover.successor == SERVER_TO_ITSELF)
			s->handover.pending_signal = SIGTERM;
		break;
	case SERVER_STOPPING:
		log_line(LOG_NOTICE, "told to stop again: not waiting for clients");
		s->phase = SERVER_STOPPED;
		break;
	case SERVER_STOPPED:
		break;
	}
}
