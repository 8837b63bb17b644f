/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/log.h"
#include "server/server_private.h"
#include "service/systemd.h"
#include "worker/transfer.h"

#define BARRIER_NS (5 * NS_PER_S)
#define EXTEND_NS (60 * NS_PER_S)
#define ATTEMPTS 2 /* at reading one state */
#define SPOOL_LOOK_NS REACTOR_TICK_NS
#define SPOOL_PATIENCE_NS (30 * NS_PER_S) /* for files that are being written */

const char *const server_listener_name[LISTENER_N_KINDS] = {
	[LISTENER_PLAIN] = "wsbind-plain",
	[LISTENER_TLS] = "wsbind-tls",
	[LISTENER_UNIX] = "wsbind-unix",
	[LISTENER_ACTIVATED] = "wsbind-given",
};

/* ------------------------------------------------------------------- inheriting */

/* The kind of listener that a name stands for; what has no name of ours was given. */
static enum worker_listener_kind kind_of(const char *name)
{
	for (size_t i = 0; i < LISTENER_N_KINDS; i++)
		if (strcmp(server_listener_name[i], name) == 0)
			return (enum worker_listener_kind)i;
	return LISTENER_ACTIVATED;
}

static void inherit_one(struct server_heritage *h, struct systemd_socket *s)
{
	if (strcmp(s->name, SERVER_NAME_STATE) == 0) {
		int r = h->state.data ? -EEXIST : memfile_open(&h->state, TAKE_FD(s->fd));

		if (r)
			log_line(LOG_WARNING, "the state of the process before cannot be read: %s",
				 strerror(-r));
		h->is_there = true;
	} else if (strcmp(s->name, SERVER_NAME_PARCEL) == 0 && h->n_ends < ARRAY_LEN(h->end)) {
		h->end[h->n_ends++] = TAKE_FD(s->fd);
		h->is_there = true;
	} else if (s->kind == SYSTEMD_UNFIT) {
		log_line(LOG_WARNING,
			 "socket %s handed over by systemd is no listening stream; "
			 "continuing without it",
			 s->name);
	} else if (h->n_sockets < ARRAY_LEN(h->socket)) {
		h->socket[h->n_sockets++] =
			(struct worker_socket){TAKE_FD(s->fd), kind_of(s->name)};
	}
}

void server_inherit(struct server *s)
{
	struct systemd_sockets sockets = {0};

	s->heritage.state.fd = -1;
	if (systemd_take_sockets(&sockets)) {
		log_line(LOG_WARNING,
			 "sockets handed over by systemd could not be taken; continuing without");
		return;
	}
	for (size_t i = 0; i < sockets.n; i++)
		inherit_one(&s->heritage, &sockets.socket[i]);
	systemd_sockets_fini(&sockets);
}

/* The manager need not keep any of it (any longer). */
static void empty_store(void)
{
	(void)systemd_unstore(SERVER_NAME_STATE);
	(void)systemd_unstore(SERVER_NAME_PARCEL);
	for (size_t i = 0; i < LISTENER_ACTIVATED; i++)
		(void)systemd_unstore(server_listener_name[i]);
}

static void forget_heritage(struct server_heritage *h)
{
	handover_sockets_fini(&h->clients);
	for (unsigned i = 0; i < h->n_ends; i++)
		fd_closep(&h->end[i]);
	memfile_fini(&h->state);
	empty_store();
	h->is_there = false;
}

static void take_clients(struct server_heritage *h)
{
	for (unsigned i = 0; i < h->n_ends; i++) {
		int r = handover_take_parcel(&h->clients, h->end[i]);

		if (r)
			log_event(LOG_ERR, EV_HANDOVER_FAILED, LOG_FIELDS(LOG_ERRNO(r)),
				  "not all connections could be taken over: %s", strerror(-r));
	}
	handover_sort(&h->clients);
}

static const char *refusal(int r)
{
	switch (r) {
	case RECORD_E_FORMAT:
		return "it was left by another version, in a form that this one does not know";
	case RECORD_E_BROKEN:
		return "what was left is damaged";
	default:
		return strerror(-r);
	}
}

/* What was left is read at most so many times, should reading it be what kills us. */
static int restore(struct server *s)
{
	struct server_heritage *h = &s->heritage;

	if (!h->state.data || record_count_attempt(h->state.data, h->state.bytes) >= ATTEMPTS)
		return RECORD_E_BROKEN;
	return handover_restore(s->pool, &handover_ops, &h->clients, h->state.data, h->state.bytes,
				&s->report);
}

void server_fit_channels(struct server *s)
{
	const struct server_heritage *h = &s->heritage;
	uint64_t there = h->state.data ? handover_count_channels(h->state.data, h->state.bytes) : 0;

	/* No more than there can be records. */
	if (there <= s->config->max_channels || there > h->state.bytes / 8)
		return;
	log_event(LOG_WARNING, EV_LIMITS_LOW, LOG_FIELDS(LOG_TEXT("SETTING", "max_channels")),
		  "%" PRIu64 " channels are open from before the restart, max_channels = %" PRIu64
		  "; continuing with max_channels = %" PRIu64,
		  there, s->config->max_channels, there);
	s->config->max_channels = there;
}

void server_restore(struct server *s)
{
	struct server_heritage *h = &s->heritage;
	struct metrics *m = &s->pool->workers[0]->metrics;
	size_t came;
	int r;

	if (!h->is_there)
		return;
	(void)systemd_extend_timeout(EXTEND_NS);
	take_clients(h);
	came = h->clients.n;
	(void)systemd_status("Taking over %zu connections", came);
	s->state_bytes = h->state.bytes;
	r = restore(s);
	if (s->report.failed > 0)
		log_event(LOG_WARNING, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
			  "%" PRIu32 " parts of what was left cannot be used; continuing without "
			  "them",
			  s->report.failed);
	if (r)
		log_event(LOG_WARNING, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
			  "%zu connections are not taken over: %s; "
			  "closing them with " WS_CODE_TEXT(SERVICE_RESTART),
			  came, refusal(r));
	if (s->spool && spool_clean(s->spool))
		log_line(LOG_WARNING, "no memory to look for files that nobody finishes");
	(void)handover_dismiss(&h->clients, s->config->reconnect_window / NS_PER_MS);
	s->n_lost = came - MIN(came, (size_t)s->report.connections);
	METRIC_INC(m, handovers);
	METRIC_ADD(m, handover_kept, s->report.connections);
	METRIC_ADD(m, handover_lost, s->n_lost);
	s->has_taken_over = r == 0;
}

void server_forget_heritage(struct server *s)
{
	if (s->heritage.is_there)
		forget_heritage(&s->heritage);
}

void server_report_taken_over(struct server *s)
{
	const struct handover_report *r = &s->report;

	if (!s->has_taken_over)
		return;
	s->pause_ns = clock_now_ns() - MIN(r->frozen_ns, clock_now_ns());
	log_event(LOG_INFO, EV_TAKEN_OVER,
		  LOG_FIELDS(LOG_NUM("CONNECTIONS", r->connections), LOG_NUM("LOST", s->n_lost),
			     LOG_NUM("STATE_BYTES", s->state_bytes),
			     LOG_NUM("PAUSE_USEC", s->pause_ns / 1000)),
		  "took over %" PRIu32 " connections and %" PRIu32
		  " channels from wsbind %s: %" PRIu32 " messages wait, %.1f MB of state, "
		  "%zu connections lost, a pause of %.1f ms",
		  r->connections, r->channels, r->version, r->frames, (double)s->state_bytes / 1e6,
		  s->n_lost, (double)s->pause_ns / NS_PER_MS);
}

void server_disinherit(struct server *s)
{
	struct server_heritage *h = &s->heritage;
	const uint64_t window_ms =
		(s->config ? s->config->reconnect_window : 30 * NS_PER_S) / NS_PER_MS;
	size_t n;

	for (unsigned i = 0; i < h->n_sockets; i++)
		fd_closep(&h->socket[i].fd);
	if (!h->is_there)
		return;
	take_clients(h);
	n = handover_dismiss(&h->clients, window_ms);
	log_event(LOG_WARNING, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
		  "%zu connections of the process before are "
		  "closed with " WS_CODE_TEXT(SERVICE_RESTART),
		  n);
	forget_heritage(h);
}

/* ---------------------------------------------------------------- handing over */

static int grow_state(struct record_writer *w, size_t need)
{
	struct server *s = CONTAINER_OF(w, struct server, writer);
	int r = memfile_grow(&s->left.state, need);

	w->data = s->left.state.data;
	w->cap = s->left.state.bytes;
	return r;
}

static int write_state(struct server *s)
{
	struct server_legacy *left = &s->left;
	int r = memfile_create(&left->state, SERVER_NAME_STATE);

	s->writer = (struct record_writer){.grow = grow_state};
	if (r == 0)
		r = handover_save(s->pool, &handover_ops, NULL, &s->writer, &s->report);
	if (r == 0)
		r = memfile_seal(&left->state, s->writer.len);
	if (r == 0)
		r = handover_fill_parcel(s->pool, &left->parcel);
	left->n_sockets = worker_pool_sockets(s->pool, left->socket, ARRAY_LEN(left->socket));
	return r;
}

/* Descriptors of one name, in messages that the manager takes. */
static int store(const char *name, const int *fds, unsigned n)
{
	int r = 0;

	for (unsigned at = 0; at < n && r == 0; at += SYSTEMD_STORE_BATCH)
		r = systemd_store(name, fds + at, MIN(n - at, (unsigned)SYSTEMD_STORE_BATCH));
	return r;
}

static int store_listeners(const struct server_legacy *left, enum worker_listener_kind kind)
{
	int fds[ARRAY_LEN(left->socket)];
	unsigned n = 0;

	for (unsigned i = 0; i < left->n_sockets; i++)
		if (left->socket[i].kind == kind)
			fds[n++] = left->socket[i].fd;
	return store(server_listener_name[kind], fds, n);
}

/* What the manager gives to the next process. Sockets of activation it has itself. */
static int leave_to_manager(struct server *s)
{
	struct server_legacy *left = &s->left;
	int r = store(SERVER_NAME_STATE, &left->state.fd, 1);

	if (r == 0)
		r = store(SERVER_NAME_PARCEL, left->parcel.end[0], 2 * left->parcel.n);
	for (int kind = 0; kind < LISTENER_ACTIVATED && r == 0; kind++)
		r = store_listeners(left, (enum worker_listener_kind)kind);
	return r ? r : systemd_barrier(BARRIER_NS);
}

/* The spool has left what it had; without a next process it takes that up itself. */
static int resume_spool(struct server *s)
{
	int r = server_start_spool(s, true);

	if (r == 0 && s->spool)
		transfer_resume_all(s->pool, s->spool);
	return r ? r : s->spool ? spool_clean(s->spool) : 0;
}

/* There is no next process. Systemd ends this one all the same; else it goes on. */
static void stay(struct server *s)
{
	bool has_to_end = s->handover == SERVER_LEAVES_TO_MANAGER;

	s->handover = SERVER_STAYS;
	s->reactor.now_ns = clock_now_ns(); /* what failed may have taken its time */
	if (has_to_end) {
		s->exit_status = EXIT_FAILURE;
		server_stop(s, "no hand-over");
		return;
	}
	(void)systemd_ready("Going on");
	if (!s->signal_after)
		return;
	/* It came while systemd believed in a reload. */
	s->signal_after = 0;
	s->was_told_early = true;
	server_terminate(s, "SIGTERM");
}

static void log_failure(const struct server *s, const char *why)
{
	log_event(LOG_ERR, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
		  "connections cannot be handed over: %s; %s", why,
		  s->handover == SERVER_LEAVES_TO_MANAGER ? "closing them" : "going on as before");
}

/* Something of it failed, and everything stands still. */
static void go_back(struct server *s, int error)
{
	log_failure(s, strerror(-error));
	parcel_fini(&s->left.parcel);
	memfile_fini(&s->left.state);
	if (s->handover == SERVER_LEAVES_TO_MANAGER)
		empty_store();
	error = resume_spool(s);
	if (error == 0)
		error = worker_pool_thaw(s->pool);
	if (error) {
		log_line(LOG_ERR, "cannot go on: %s", strerror(-error));
		s->exit_status = EXIT_FAILURE;
		s->is_done = true;
		s->handover = SERVER_STAYS;
		return;
	}
	stay(s);
}

static void all_paused(struct server *s)
{
	int r;

	worker_pool_freeze(s->pool);
	worker_pool_finish_tasks(s->pool);
	/* The files that are being received wait for the next process. */
	s->pool->shared.spool = NULL;
	s->spool = spool_hand_over(s->spool, transfer_set_unfinished, s->pool);
	worker_pool_finish_tasks(s->pool);
	r = write_state(s);
	if (r == 0)
		r = s->handover == SERVER_LEAVES_TO_MANAGER ? leave_to_manager(s)
							    : server_prepare_execution(s);
	if (r) {
		go_back(s, r);
		return;
	}
	log_event(LOG_INFO, EV_HANDED_OVER,
		  LOG_FIELDS(LOG_NUM("CONNECTIONS", s->report.connections),
			     LOG_NUM("STATE_BYTES", s->writer.len)),
		  "handed over %" PRIu32 " connections, %" PRIu32 " channels, %" PRIu32
		  " messages that wait: %.1f MB of state",
		  s->report.connections, s->report.channels, s->report.frames,
		  (double)s->writer.len / 1e6);
	s->is_done = true;
}

static void tls_has_left(struct server *s)
{
	s->report.frozen_ns = clock_now_ns();
	server_round(s, worker_task_pause, all_paused);
}

static void files_are_written(struct server *s)
{
	(void)systemd_extend_timeout(EXTEND_NS);
	if (s->policy->tls)
		server_round(s, worker_task_say_goodbye_tls, tls_has_left);
	else
		tls_has_left(s);
}

/*
 * Clients are served until the spool has nothing in hand, however long its disk takes; those
 * that send files wait. After the pause there is nothing that it could wait for.
 */
static void spool_due(struct wheel_timer *t)
{
	struct server *s = CONTAINER_OF(t, struct server, spool_timer);
	uint64_t now = s->reactor.now_ns;

	if (spool_is_idle(s->spool)) {
		files_are_written(s);
		return;
	}
	if (now < s->spool_deadline_ns) {
		wheel_add(&s->reactor.wheel, t, now + SPOOL_LOOK_NS);
		return;
	}
	log_failure(s, "the disk under spool_dir does not answer");
	spool_open(s->spool);
	if (spool_clean(s->spool))
		log_line(LOG_WARNING, "no memory to look for files that nobody finishes");
	server_round(s, worker_task_spool_room, stay);
}

void server_hand_over(struct server *s, enum server_handover how, const char *why)
{
	s->handover = how;
	log_event(LOG_INFO, EV_STOP, LOG_FIELDS(LOG_TEXT("REASON", why)),
		  "handing over (%s): %" PRIu64 " connections", why,
		  SERVER_SUM(s, connections_active));
	if (how == SERVER_LEAVES_TO_MANAGER)
		(void)systemd_stopping();
	else
		(void)systemd_reloading();
	(void)systemd_extend_timeout(EXTEND_NS);
	(void)systemd_status("Handing over %" PRIu64 " connections",
			     SERVER_SUM(s, connections_active));
	if (!s->spool) {
		files_are_written(s);
		return;
	}
	spool_close(s->spool);
	s->spool_deadline_ns = s->reactor.now_ns + SPOOL_PATIENCE_NS;
	wheel_timer_init(&s->spool_timer, spool_due);
	spool_due(&s->spool_timer);
}

/* ------------------------------------------------------------ which stop is a stop */

/* Descriptors that the store has to have room for. */
static unsigned count_needed(const struct server *s)
{
	struct worker_socket sockets[ARRAY_LEN(s->left.socket)];

	return worker_pool_sockets(s->pool, sockets, ARRAY_LEN(sockets)) + 2 * PARCEL_MAX_PAIRS + 1;
}

static bool has_room(const struct server *s, unsigned room)
{
	unsigned needed = count_needed(s);

	if (room >= needed)
		return true;
	log_event(LOG_WARNING, EV_HANDOVER_FAILED,
		  LOG_FIELDS(LOG_TEXT("SETTING", "FileDescriptorStoreMax")),
		  "connections are not handed over: systemd keeps %u descriptors, %u are needed; "
		  "closing them, set FileDescriptorStoreMax=%u in the unit",
		  room, needed, needed);
	return false;
}

/*
 * ExecStop=, which announces, isn't run for a service that systemd believes to be starting or
 * reloading. What ends it then is hardly ever a stop; if it is one, systemd drops what it keeps,
 * and connections end without a goodbye.
 */
static bool is_unannounced(const struct server *s)
{
	return s->was_told_early || s->reloads > 0;
}

static bool wants_hand_over(const struct server *s)
{
	if (s->config->on_stop == ON_STOP_CLOSE || !systemd_is_there())
		return false;
	if (s->restart_announced)
		return has_room(s, s->restart_room);
	return s->config->on_stop == ON_STOP_KEEP || is_unannounced(s);
}

void server_restart_announced(struct server *s, int room)
{
	s->restart_announced = true;
	s->restart_room = (unsigned)MAX(room, 0);
}

void server_terminate(struct server *s, const char *why)
{
	if (s->handover == SERVER_STAYS && !s->is_stopping && wants_hand_over(s))
		server_hand_over(s, SERVER_LEAVES_TO_MANAGER, "restart");
	else
		server_stop(s, why);
}
