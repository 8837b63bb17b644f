/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "cmd/server_private.h"
#include "core/transfer.h"
#include "io/log.h"
#include "service/systemd.h"

#define BARRIER_NS (5 * NS_PER_S)
#define EXTEND_NS (60 * NS_PER_S)
#define CHECK_NS (10 * NS_PER_S) /* for the program to look at the configuration */
#define ATTEMPTS 2               /* at reading one state */

/* Names of descriptors, as the manager keeps them and as they come. */
#define NAME_STATE "wsbind-state"
#define NAME_BAG "wsbind-bag"

static const char *const listener_name[LISTENER_N_KINDS] = {
	[LISTENER_PLAIN] = "wsbind-plain",
	[LISTENER_TLS] = "wsbind-tls",
	[LISTENER_UNIX] = "wsbind-unix",
	[LISTENER_GIVEN] = "wsbind-given",
};

/* ------------------------------------------------------------------- inheriting */

/* The kind of listener that a name stands for; what has no name of ours was given. */
static enum worker_listener_kind kind_of(const char *name)
{
	for (size_t i = 0; i < LISTENER_N_KINDS; i++)
		if (strcmp(listener_name[i], name) == 0)
			return (enum worker_listener_kind)i;
	return LISTENER_GIVEN;
}

static void inherit_one(struct server_heritage *h, struct systemd_socket *s)
{
	if (strcmp(s->name, NAME_STATE) == 0) {
		int r = h->state.data ? -EEXIST : memfile_open(&h->state, TAKE_FD(s->fd));

		if (r)
			log_line(LOG_WARNING, "the state of the process before cannot be read: %s",
				 strerror(-r));
		h->is_there = true;
	} else if (strcmp(s->name, NAME_BAG) == 0 && h->n_bags < ARRAY_LEN(h->bag)) {
		h->bag[h->n_bags++] = TAKE_FD(s->fd);
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

/* The manager need not keep any of it any longer; nor do we. */
static void forget_heritage(struct server_heritage *h)
{
	handover_sockets_fini(&h->clients);
	for (unsigned i = 0; i < h->n_bags; i++)
		fd_closep(&h->bag[i]);
	memfile_fini(&h->state);
	(void)systemd_unstore(NAME_STATE);
	(void)systemd_unstore(NAME_BAG);
	for (size_t i = 0; i < LISTENER_GIVEN; i++)
		(void)systemd_unstore(listener_name[i]);
	h->is_there = false;
}

static void take_clients(struct server_heritage *h)
{
	for (unsigned i = 0; i < h->n_bags; i++) {
		int r = handover_take_bag(&h->clients, h->bag[i]);

		if (r)
			log_event(LOG_ERR, EV_HANDOVER_FAILED, LOG_FIELDS(LOG_ERRNO(r)),
				  "not all connections could be taken over: %s", strerror(-r));
	}
	handover_sort(&h->clients);
}

static const char *refusal(int r)
{
	switch (r) {
	case STATE_E_FORMAT:
		return "it was left by another version, in a form that this one does not know";
	case STATE_E_BROKEN:
		return "what was left is damaged";
	default:
		return strerror(-r);
	}
}

/* What was left is read at most so many times, should reading it be what kills us. */
static int restore(struct server *s)
{
	struct server_heritage *h = &s->heritage;

	if (!h->state.data || state_count_attempt(h->state.data, h->state.bytes) >= ATTEMPTS)
		return STATE_E_BROKEN;
	return handover_restore(s->pool, &handover_ops, &h->clients, h->state.data, h->state.bytes,
				&s->report);
}

void server_restore(struct server *s)
{
	struct server_heritage *h = &s->heritage;
	struct metrics *m = &s->pool->workers[0]->metrics;
	size_t dismissed;
	int r;

	if (!h->is_there)
		return;
	(void)systemd_extend_timeout(EXTEND_NS);
	take_clients(h);
	(void)systemd_status("Taking over %zu connections", h->clients.n);
	s->state_bytes = h->state.bytes;
	r = restore(s);
	if (r)
		log_event(LOG_WARNING, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
			  "%zu connections are not taken over: %s; closing them with 1012",
			  h->clients.n, refusal(r));
	if (s->spool && spool_clean(s->spool))
		log_line(LOG_WARNING, "no memory to look for files that nobody finishes");
	dismissed = handover_dismiss(&h->clients, s->config->reconnect_window / NS_PER_MS);
	METRIC_INC(m, handovers);
	METRIC_ADD(m, handover_kept, s->report.connections);
	METRIC_ADD(m, handover_lost, dismissed);
	s->report.failed = (uint32_t)dismissed;
	s->has_taken_over = r == 0;
	forget_heritage(h);
}

void server_report_taken_over(struct server *s)
{
	const struct handover_report *r = &s->report;

	if (!s->has_taken_over)
		return;
	s->pause_ns = clock_now_ns() - MIN(r->frozen_ns, clock_now_ns());
	log_event(LOG_INFO, EV_TAKEN_OVER,
		  LOG_FIELDS(LOG_NUM("CONNECTIONS", r->connections), LOG_NUM("LOST", r->failed),
			     LOG_NUM("STATE_BYTES", s->state_bytes),
			     LOG_NUM("PAUSE_USEC", s->pause_ns / 1000)),
		  "took over %" PRIu32 " connections and %" PRIu32
		  " channels from wsbind %s: %" PRIu32 " messages wait, %.1f MB of state, "
		  "%" PRIu32 " connections lost, a pause of %.1f ms",
		  r->connections, r->channels, r->version, r->frames, (double)s->state_bytes / 1e6,
		  r->failed, (double)s->pause_ns / NS_PER_MS);
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
		  "%zu connections of the process before are closed with 1012", n);
	forget_heritage(h);
}

/* ---------------------------------------------------------------- handing over */

static int grow_state(struct state_writer *w, size_t need)
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
	int r = memfile_create(&left->state, NAME_STATE);

	s->writer = (struct state_writer){.grow = grow_state};
	if (r == 0)
		r = handover_save(s->pool, &handover_ops, NULL, &s->writer, &s->report);
	if (r == 0)
		r = memfile_seal(&left->state, s->writer.len);
	if (r == 0)
		r = handover_fill_bag(s->pool, &left->bag);
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
	return store(listener_name[kind], fds, n);
}

/* What the manager gives to the next process. Sockets of activation it has itself. */
static int leave_to_manager(struct server *s)
{
	struct server_legacy *left = &s->left;
	int r = store(NAME_STATE, &left->state.fd, 1);

	if (r == 0)
		r = store(NAME_BAG, left->bag.end[0], 2 * left->bag.n);
	for (int kind = 0; kind < LISTENER_GIVEN && r == 0; kind++)
		r = store_listeners(left, (enum worker_listener_kind)kind);
	return r ? r : systemd_barrier(BARRIER_NS);
}

/* Something of it failed, and everything stands still: goes on, to the end that is left. */
static void go_back(struct server *s, int error)
{
	log_event(LOG_ERR, EV_HANDOVER_FAILED, LOG_FIELDS(LOG_ERRNO(error)),
		  "connections cannot be handed over: %s; closing them", strerror(-error));
	bag_fini(&s->left.bag);
	memfile_fini(&s->left.state);
	s->handover = SERVER_STAYS;
	error = worker_pool_thaw(s->pool);
	if (error) {
		log_line(LOG_ERR, "worker threads: %s", strerror(-error));
		s->is_done = true;
		return;
	}
	s->exit_status = EXIT_FAILURE;
	server_stop(s, "no hand-over");
}

static void all_paused(struct server *s)
{
	int r;

	worker_pool_freeze(s->pool);
	worker_pool_settle(s->pool);
	/* The files that are being received wait for the next process. */
	s->spool = spool_leave(s->spool, transfer_keep, s->pool);
	worker_pool_settle(s->pool);
	s->pool->shared.spool = NULL;
	r = write_state(s);
	if (r == 0 && s->handover == SERVER_LEAVES_TO_MANAGER)
		r = leave_to_manager(s);
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

static void hand_over(struct server *s, enum server_handover how, const char *why)
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
	if (s->access->tls)
		server_round(s, worker_task_leave_tls, tls_has_left);
	else
		tls_has_left(s);
}

/* ------------------------------------------------------------ which stop is a stop */

/* Descriptors that the store has to have room for. */
static unsigned count_needed(const struct server *s)
{
	struct worker_socket sockets[ARRAY_LEN(s->left.socket)];

	return worker_pool_sockets(s->pool, sockets, ARRAY_LEN(sockets)) + 2 * BAG_MAX_PAIRS + 1;
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

static bool wants_hand_over(const struct server *s)
{
	if (s->config->on_stop == ON_STOP_CLOSE || !systemd_is_there())
		return false;
	if (s->restart_announced)
		return has_room(s, s->restart_room);
	return s->config->on_stop == ON_STOP_KEEP;
}

void server_restart_announced(struct server *s, int room)
{
	s->restart_announced = true;
	s->restart_room = (unsigned)MAX(room, 0);
}

void server_terminate(struct server *s, const char *why)
{
	if (s->handover == SERVER_STAYS && !s->is_stopping && wants_hand_over(s))
		hand_over(s, SERVER_LEAVES_TO_MANAGER, "restart");
	else
		server_stop(s, why);
}

/* ------------------------------------------------------------ executing itself again */

static char **format_arguments(const struct server *s, const char *command)
{
	static char name[16];
	size_t n = 0;
	char **out;

	while (s->arguments[n])
		n++;
	out = calloc(n + 3, sizeof(*out));
	if (!out)
		return NULL;
	snprintf(name, sizeof(name), "%s", command);
	out[0] = program_invocation_name;
	out[1] = name;
	for (size_t i = 0; i < n; i++)
		out[i + 2] = s->arguments[i];
	return out;
}

/* Descriptors for the next process, and what they are called. */
struct passing {
	int fd[LISTENER_N_KINDS * WORKER_MAX_LISTENERS * DIRECTORY_MAX_WORKERS / 2 +
	       2 * BAG_MAX_PAIRS + 1];
	unsigned n;
	struct buf names;
};

static bool pass(struct passing *p, int fd, const char *name)
{
	if (fd < 0 || p->n == ARRAY_LEN(p->fd))
		return false;
	p->fd[p->n++] = fd;
	return buf_printf(&p->names, "%s%s", p->n > 1 ? ":" : "", name) == 0;
}

static bool collect(const struct server_legacy *left, struct passing *p)
{
	bool is_all = pass(p, left->state.fd, NAME_STATE);

	for (unsigned i = 0; i < 2 * left->bag.n; i++)
		is_all &= pass(p, left->bag.end[i / 2][i % 2], NAME_BAG);
	for (unsigned i = 0; i < left->n_sockets; i++)
		is_all &= pass(p, left->socket[i].fd, listener_name[left->socket[i].kind]);
	return is_all;
}

/* They come to lie from 3 on, as sd_listen_fds(3) has them. Whatever was there is closed. */
static bool arrange(struct passing *p)
{
	const int first = 3;
	char pid[16], n[16];

	for (unsigned i = 0; i < p->n; i++) {
		p->fd[i] = fcntl(p->fd[i], F_DUPFD_CLOEXEC, first + (int)p->n);
		if (p->fd[i] < 0)
			return false;
	}
	for (unsigned i = 0; i < p->n; i++)
		if (dup2(p->fd[i], first + (int)i) < 0)
			return false;
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(n, sizeof(n), "%u", p->n);
	return setenv("LISTEN_PID", pid, 1) == 0 && setenv("LISTEN_FDS", n, 1) == 0 &&
	       setenv("LISTEN_FDNAMES", (const char *)p->names.data, 1) == 0;
}

void server_execute(struct server *s)
{
	struct passing p = {0};
	char **arguments = format_arguments(s, "server");
	/* Should the new program not even start, the one that runs now goes on. */
	int self = fcntl(s->program_fd, F_DUPFD_CLOEXEC, (int)ARRAY_LEN(p.fd) + 3);

	if (!arguments || !collect(&s->left, &p) || self < 0 || !arrange(&p)) {
		fprintf(stderr, "wsbind: cannot hand over: %s\n", strerror(errno));
		return;
	}
	if (s->signal_after)
		(void)raise(s->signal_after); /* blocked, and still pending for the next */
	(void)execve(s->program, arguments, environ);
	fprintf(stderr, "wsbind: %s: %s; going on with the same program\n", s->program,
		strerror(errno));
	(void)fexecve(self, arguments, environ);
	fprintf(stderr, "wsbind: cannot execute itself: %s\n", strerror(errno));
}

void server_find_program(struct server *s)
{
	ssize_t n = readlink("/proc/self/exe", s->program, sizeof(s->program) - 1);

	s->program[MAX(n, 0)] = '\0';
	s->program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
}

static void check_failed(struct server *s, const char *why)
{
	log_event(LOG_ERR, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
		  "%s is not executed: %s; going on as before", s->program, why);
}

static void check_done(struct reactor_source *source, uint32_t events)
{
	struct server *s = CONTAINER_OF(source, struct server, check_source);
	siginfo_t info = {0};
	char why[80];

	(void)events;
	if (waitid(P_PIDFD, (id_t)s->check_fd, &info, WEXITED) < 0)
		info.si_status = errno;
	reactor_del(&s->reactor, source, s->check_fd);
	fd_closep(&s->check_fd);
	wheel_del(&s->reactor.wheel, &s->check_timer);
	if (info.si_code == CLD_EXITED && info.si_status == 0) {
		if (!s->is_stopping && s->handover == SERVER_STAYS)
			hand_over(s, SERVER_LEAVES_TO_ITSELF, "SIGUSR2");
		return;
	}
	snprintf(why, sizeof(why), "its check of the configuration ended with %s %d",
		 info.si_code == CLD_EXITED ? "status" : "signal", info.si_status);
	check_failed(s, why);
}

static void check_due(struct wheel_timer *t)
{
	struct server *s = CONTAINER_OF(t, struct server, check_timer);

	(void)pidfd_send_signal(s->check_fd, SIGKILL, NULL, 0); /* check_done() sees it end */
}

/* The program that will be executed says whether it could start. Return: 0 | -errno. */
static int start_check(struct server *s, char **arguments)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	pid_t pid;
	int r;

	sigemptyset(&none);
	(void)posix_spawnattr_init(&attr);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	r = posix_spawn(&pid, s->program, &actions, &attr, arguments, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attr);
	if (r)
		return -r;
	s->check_fd = pidfd_open(pid, 0);
	if (s->check_fd < 0)
		return -errno;
	wheel_timer_init(&s->check_timer, check_due);
	wheel_add(&s->reactor.wheel, &s->check_timer, s->reactor.now_ns + CHECK_NS);
	return reactor_add(&s->reactor, &s->check_source, s->check_fd, EPOLLIN, check_done);
}

void server_reexecute(struct server *s)
{
	WB_CLEANUP(freep) char **arguments = format_arguments(s, "check-config");
	int r;

	if (s->is_stopping || s->handover != SERVER_STAYS || s->check_fd >= 0)
		return;
	log_event(LOG_INFO, EV_STOP, LOG_FIELDS(LOG_TEXT("REASON", "SIGUSR2")),
		  "SIGUSR2: %s is executed again", s->program);
	r = arguments ? start_check(s, arguments) : -ENOMEM;
	if (r)
		check_failed(s, strerror(-r));
}
