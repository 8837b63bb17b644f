/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "io/log.h"
#include "server/server_private.h"
#include "server/store.h"
#include "service/systemd.h"

#define EXTEND_NS (60 * NS_PER_S)
#define SPOOL_LOOK_NS REACTOR_TICK_NS
#define SPOOL_PATIENCE_NS (30 * NS_PER_S) /* for files that are being written */

/*
 * Everything goes to the next process in steps, each of which begins when the one before is
 * done everywhere; the functions below stand in the opposite order:
 *
 *   hand_over()         says so; the spool takes nothing new
 *   wait_for_spool()    until no file is being written, while clients are served
 *   say_goodbye_tls()   to those whose TLS is bound to this process
 *   pause_workers()     nobody reads or accepts any more
 *   finish_hand_over()  the threads end; records and parcel are written, and left
 *
 * Until the threads end, clients are served. Where anything fails after that, go_back().
 */

/* There is no next process. Systemd ends this one all the same; else it goes on. */
static void keep_serving(struct server *s)
{
	s->phase = SERVER_SERVING;
	s->reactor.now_ns = clock_now_ns(); /* what failed may have taken its time */
	if (s->handover.successor == SERVER_TO_MANAGER) {
		s->exit_status = EXIT_FAILURE;
		server_stop(s, "no hand-over");
		return;
	}
	(void)systemd_ready("Going on");
	if (!s->handover.pending_signal)
		return;
	/* It came while systemd believed in a reload: nobody could say what it is a part of. */
	s->handover.pending_signal = 0;
	if (s->handover.notice == SERVER_NOT_TOLD)
		s->handover.notice = SERVER_TOLD_EARLY;
	server_terminate(s, "SIGTERM");
}

static const char *what_follows(enum server_successor successor)
{
	return successor == SERVER_TO_MANAGER ? "closing them" : "going on as before";
}

static void log_no_hand_over(enum server_successor successor, const char *why)
{
	log_event(LOG_ERR, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
		  "connections cannot be handed over: %s; %s", why, what_follows(successor));
}

/* Something of it failed, and everything stands still. */
static void go_back(struct server *s, int error)
{
	log_no_hand_over(s->handover.successor, strerror(-error));
	outgoing_discard(&s->outgoing);
	/* What the manager has of it already would be given to whatever it starts next. */
	if (s->handover.successor == SERVER_TO_MANAGER)
		store_empty();
	/* The spool before the workers: they hand chunks to it as soon as they turn. */
	error = server_spool_resume(s);
	server_history_take_back(s);
	if (error == 0)
		error = worker_pool_thaw(s->pool);
	if (error) {
		log_line(LOG_ERR, "cannot go on: %s", strerror(-error));
		s->exit_status = EXIT_FAILURE;
		s->phase = SERVER_STOPPED;
		return;
	}
	keep_serving(s);
}

static int leave_outgoing(struct server *s)
{
	return s->handover.successor == SERVER_TO_MANAGER
		       ? outgoing_store(&s->outgoing)
		       : exec_plan_make(&s->exec_plan, &s->outgoing);
}

/*
 * All workers stand still, so what they have read is processed, and nothing is on its way
 * between them but posts, which freezing puts into the logs. The spool leaves its unfinished
 * files with their connections. Only then is everything in one place, and can be written.
 */
static void finish_hand_over(struct pool_task *t)
{
	struct server *s = CONTAINER_OF(t, struct server, handover.pausing);
	const struct handover_report *report = &s->outgoing.report;
	int r;

	worker_pool_freeze(s->pool);
	server_spool_hand_over(s);
	r = outgoing_write(&s->outgoing, s->pool, s->history.fd);
	if (r == 0)
		r = leave_outgoing(s);
	if (r) {
		go_back(s, r);
		return;
	}
	log_event(LOG_INFO, EV_HANDED_OVER,
		  LOG_FIELDS(LOG_NUM("CONNECTIONS", report->connections),
			     LOG_NUM("STATE_BYTES", s->outgoing.writer.len)),
		  "handed over %" PRIu32 " connections, %" PRIu32 " channels, %" PRIu32
		  " messages that wait: %.1f MB of state",
		  report->connections, report->channels, report->frames,
		  (double)s->outgoing.writer.len / 1e6);
	s->phase = SERVER_HANDED_OVER;
}

static void pause_workers(struct server *s)
{
	/* From here on clients wait; the next process tells for how long. */
	s->outgoing.report.frozen_ns = clock_now_ns();
	pool_task_post(&s->handover.pausing, s->pool, worker_task_stand_still, finish_hand_over);
}

static void tls_has_left(struct pool_task *t)
{
	pause_workers(CONTAINER_OF(t, struct server, handover.pausing));
}

/* The keys of their sessions are in this process alone, inside of OpenSSL. */
static void say_goodbye_tls(struct server *s)
{
	(void)systemd_extend_timeout(EXTEND_NS);
	if (s->policy->tls)
		pool_task_post(&s->handover.pausing, s->pool, worker_task_say_goodbye_tls,
			       tls_has_left);
	else
		pause_workers(s);
}

static void spool_has_room(struct pool_task *t)
{
	keep_serving(CONTAINER_OF(t, struct server, handover.pausing));
}

/* The disk is gone, or as good as: nothing is handed over, since files would be torn. */
static void give_up_on_spool(struct server *s)
{
	log_no_hand_over(s->handover.successor, "the disk under spool_dir does not answer");
	spool_open(s->spool);
	if (spool_clean(s->spool))
		log_line(LOG_WARNING, "no memory to look for files that nobody finishes");
	/* The spool tells nobody that it takes chunks again: who waits is told by us. */
	pool_task_post(&s->handover.pausing, s->pool, worker_task_spool_room, spool_has_room);
}

/*
 * Clients are served until the spool has nothing in hand, however long its disk takes; those
 * that send files wait. After the pause there is nothing that it could wait for.
 */
static void wait_for_spool(struct wheel_timer *t)
{
	struct server *s = CONTAINER_OF(t, struct server, handover.spool_timer);
	uint64_t now = s->reactor.now_ns;

	if (spool_is_idle(s->spool))
		say_goodbye_tls(s);
	else if (now < s->handover.spool_deadline_ns)
		wheel_add(&s->reactor.wheel, t, now + SPOOL_LOOK_NS);
	else
		give_up_on_spool(s);
}

static void hand_over(struct server *s, enum server_successor successor, const char *why)
{
	s->phase = SERVER_HANDING_OVER;
	s->handover.successor = successor;
	log_event(LOG_INFO, EV_STOP, LOG_FIELDS(LOG_TEXT("REASON", why)),
		  "handing over (%s): %" PRIu64 " connections", why,
		  SERVER_SUM(s, connections_active));
	/* For systemd a program that executes itself is one that reloads: its process stays. */
	if (successor == SERVER_TO_MANAGER)
		(void)systemd_stopping();
	else
		(void)systemd_reloading();
	(void)systemd_extend_timeout(EXTEND_NS);
	(void)systemd_status("Handing over %" PRIu64 " connections",
			     SERVER_SUM(s, connections_active));
	if (!s->spool) {
		say_goodbye_tls(s);
		return;
	}
	spool_close(s->spool);
	s->handover.spool_deadline_ns = s->reactor.now_ns + SPOOL_PATIENCE_NS;
	wait_for_spool(&s->handover.spool_timer);
}

/* ------------------------------------------------------------ which stop is a stop */

static bool store_has_room(const struct server *s)
{
	unsigned needed = outgoing_count_descriptors(s->pool);

	if (s->handover.store_room >= needed)
		return true;
	log_event(LOG_WARNING, EV_HANDOVER_FAILED,
		  LOG_FIELDS(LOG_TEXT("SETTING", "FileDescriptorStoreMax")),
		  "connections are not handed over: systemd keeps %u descriptors, %u are needed; "
		  "closing them, set FileDescriptorStoreMax=%u in the unit",
		  s->handover.store_room, needed, needed);
	return false;
}

/*
 * Before anything is let go of, TLS clients among it. Those count here, too, though they don't
 * travel: who has so many of them that it matters raises what has to be raised for the others.
 */
static bool outgoing_has_room(const struct server *s, enum server_successor successor)
{
	uint64_t connections = SERVER_SUM(s, connections_active);
	size_t capacity;
	int r = outgoing_try(connections, &capacity);

	if (r == -ENOSPC)
		log_event(LOG_WARNING, EV_HANDOVER_FAILED,
			  LOG_FIELDS(LOG_TEXT("SETTING", "net.core.wmem_max")),
			  "connections are not handed over: %" PRIu64 " are open, and sockets that "
			  "carry them have room for %zu; %s, set the sysctl net.core.wmem_max to "
			  "%" PRIu64 " times what it is",
			  connections, capacity, what_follows(successor),
			  connections / MAX(capacity, (size_t)1) + 1);
	else if (r)
		log_no_hand_over(successor, strerror(-r));
	return r == 0;
}

/*
 * ExecStop=, which announces, isn't run for a service that systemd believes to be starting or
 * reloading. What ends it then is hardly ever a stop; if it is one, systemd drops what it keeps,
 * and connections end without a goodbye.
 */
static bool is_unannounced(const struct server *s)
{
	return s->handover.notice == SERVER_TOLD_EARLY || s->reload != SERVER_NO_RELOAD;
}

static bool wants_hand_over(const struct server *s)
{
	if (s->config->on_stop == ON_STOP_CLOSE || !systemd_is_there())
		return false;
	if (s->handover.notice == SERVER_TOLD_RESTART)
		return store_has_room(s) && outgoing_has_room(s, SERVER_TO_MANAGER);
	return (s->config->on_stop == ON_STOP_KEEP || is_unannounced(s)) &&
	       outgoing_has_room(s, SERVER_TO_MANAGER);
}

void server_restart_announced(struct server *s, int room)
{
	s->handover.notice = SERVER_TOLD_RESTART;
	s->handover.store_room = (unsigned)MAX(room, 0);
}

void server_terminate(struct server *s, const char *why)
{
	if (s->phase == SERVER_SERVING && wants_hand_over(s))
		hand_over(s, SERVER_TO_MANAGER, "restart");
	else
		server_stop(s, why);
}

/* ----------------------------------------------------------------- the program again */

static void log_not_executed(const struct server *s, const char *why)
{
	log_event(LOG_ERR, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
		  "%s is not executed: %s; going on as before", s->exec_plan.program, why);
}

static void program_checked(void *ctx, const char *why)
{
	struct server *s = ctx;

	if (why)
		log_not_executed(s, why);
	else if (s->phase == SERVER_SERVING && /* and not told to stop meanwhile */
		 outgoing_has_room(s, SERVER_TO_ITSELF))
		hand_over(s, SERVER_TO_ITSELF, "SIGUSR2");
}

/*
 * The next program knows nothing of the files that this one has read, and would do without
 * those that are gone. Return: whether it may begin; else it has been logged.
 */
static bool configuration_is_there(const struct server *s)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	WB_CLEANUP(config_unrefp) struct config *config = NULL;
	int r = server_read_config(s, &config, &errors);

	for (size_t i = 0; i < errors.n; i++)
		log_event(LOG_ERR, EV_CONFIG_ERROR, LOG_NO_FIELDS, "%s", errors.line[i]);
	if (r)
		log_not_executed(s, r < 0 ? strerror(-r) : "the configuration has errors");
	return r == 0;
}

void server_reexecute(struct server *s)
{
	int r;

	if (s->phase != SERVER_SERVING || program_check_runs(&s->program_check))
		return;
	log_event(LOG_INFO, EV_STOP, LOG_FIELDS(LOG_TEXT("REASON", "SIGUSR2")),
		  "SIGUSR2: %s is executed again", s->exec_plan.program);
	if (!configuration_is_there(s))
		return;
	r = program_check_start(&s->program_check, &s->exec_plan);
	if (r)
		log_not_executed(s, strerror(-r));
}

void server_handover_init(struct server *s)
{
	wheel_timer_init(&s->handover.spool_timer, wait_for_spool);
	program_check_init(&s->program_check, &s->reactor, program_checked, s);
}
