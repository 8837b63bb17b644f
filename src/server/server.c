/* SPDX-License-Identifier: MIT */
#include "server/server.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "base/version.h"
#include "io/log.h"
#include "server/server_private.h"
#include "service/systemd.h"
#include "wire/upgrade.h"

#define EXIT_USAGE 2
#define EXIT_CONFIG 78

#define HISTORY_LOOKS 2000 /* channels that are looked at, each time, for what is too old */

/* ---------------------------------------------------------------- once a second */

/* One line for `systemctl status`, with what has happened since the line before. */
static void show_status(struct server *s, uint64_t period_ns)
{
	struct server_status *last = &s->status;
	uint64_t n_in = SERVER_SUM(s, messages_received), n_out = SERVER_SUM(s, messages_sent);
	uint64_t in_per_s = (n_in - last->n_in) * NS_PER_S / period_ns;
	uint64_t out_per_s = (n_out - last->n_out) * NS_PER_S / period_ns;

	last->n_in = n_in;
	last->n_out = n_out;
	/* What stops or hands over has said so itself, and that is to stay. */
	if (s->phase != SERVER_SERVING)
		return;
	(void)systemd_status(
		"%" PRIu64 " connections, %u channels, %" PRIu64 " messages/s in, %" PRIu64
		" out, %" PRIu64 " slow consumers%s",
		SERVER_SUM(s, connections_active),
		atomic_load_explicit(&s->pool->shared.directory.count, memory_order_relaxed),
		in_per_s, out_per_s, SERVER_SUM(s, slow_disconnects) + SERVER_SUM(s, slow_skips),
		s->config_is_kept ? "; the configuration has errors, that of before is in use"
				  : "");
}

static void tick_due(struct wheel_timer *t)
{
	struct server *s = CONTAINER_OF(t, struct server, status.tick);
	uint64_t now = s->reactor.now_ns, period_ns = watchdog_period_ns(&s->watchdog);

	watchdog_run(&s->watchdog, now);
	show_status(s, period_ns);
	log_report_suppressed();
	history_expire(&s->pool->shared.history, now, HISTORY_LOOKS);
	registry_expire(&s->pool->shared.registry, now);
	wheel_add(&s->reactor.wheel, t, now + period_ns);
}

/* ----------------------------------------------------------------------- signals */

static void signal_ready(struct reactor_source *source, uint32_t events)
{
	struct server *s = CONTAINER_OF(source, struct server, signal_source);
	struct signalfd_siginfo info;
	bool is_terminated = false;

	(void)events;
	while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			server_reload(s, NULL);
		else if (info.ssi_signo == SIGUSR2)
			server_reexecute(s);
		else if (info.ssi_signo == SIGTERM)
			is_terminated = true;
		else if (info.ssi_signo == SIGINT)
			server_stop(s, "SIGINT");
		else
			server_restart_announced(s, info.ssi_int);
	}
	/* The kernel gives lower numbers first: what was announced before comes behind it. */
	if (is_terminated)
		server_terminate(s, "SIGTERM");
}

/* From here on signals are events of the loop; threads and children inherit them blocked. */
static int take_signals(struct server *s)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SYSTEMD_SIGNAL_RESTART);
	r = -pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (r)
		return r;
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return -errno;
	return reactor_add(&s->reactor, &s->signal_source, s->signal_fd, EPOLLIN, signal_ready);
}

/* --------------------------------------------------------------------- main loop */

static bool has_ended(const struct server *s)
{
	return s->phase == SERVER_STOPPED || s->phase == SERVER_HANDED_OVER;
}

static bool main_has_work(struct reactor *r)
{
	struct server *s = CONTAINER_OF(r, struct server, reactor);

	return has_ended(s) || (s->pool && worker_pool_has_done(s->pool));
}

static void main_work(struct reactor *r)
{
	struct server *s = CONTAINER_OF(r, struct server, reactor);

	/* Answers of workers come first: some of them are for the endpoints. */
	worker_pool_run_done(s->pool);
	server_admin_work(s);
}

static const struct reactor_ops main_ops = {.has_work = main_has_work, .work = main_work};

static int run_loop(struct server *s)
{
	while (!has_ended(s)) {
		int error = reactor_turn(&s->reactor, UINT64_MAX);

		if (error) {
			log_line(LOG_ERR, "epoll_wait: %s", strerror(-error));
			return EXIT_FAILURE;
		}
	}
	return s->exit_status;
}

/* ----------------------------------------------------------------- start and end */

/* What has to be there before anything can be started. */
static int server_prepare(struct server *s)
{
	int r;

	s->started_ms = clock_wall_ms();
	log_event(LOG_INFO, EV_START, LOG_NO_FIELDS, "wsbind %s starts", wb_version);
	server_fit_descriptors(s->config);
	server_fit_history(s->config);
	incoming_fit_channels(&s->incoming, s->config);
	server_warn(s);
	r = upgrade_prepare();
	if (r)
		return server_log_failure(s, "SHA-1 of the opening handshake", NULL, r);
	r = reactor_init(&s->reactor, &main_ops);
	if (r)
		return server_log_failure(s, "epoll", NULL, r);
	reactor_own(&s->reactor);
	wheel_timer_init(&s->status.tick, tick_due);
	server_stop_init(s);
	server_handover_init(s);
	/* Before the first thread: it inherits which signals are blocked. */
	r = take_signals(s);
	return r ? server_log_failure(s, "signals", NULL, r) : 0;
}

/* Everything stays as it is for the next process, and goes with this one. */
static int server_finish_handed_over(struct server *s)
{
	server_admin_stop(s);
	if (s->handover.successor == SERVER_TO_MANAGER) {
		/* Memory alone: its names are held where a search for leaks finds no pointers. */
		directory_fini(&s->pool->shared.directory);
		return EXIT_SUCCESS;
	}
	exec_plan_run(&s->exec_plan, s->handover.pending_signal);
	return EXIT_FAILURE;
}

static void server_finish(struct server *s)
{
	/* Workers end first: whoever still waits for an answer of theirs gets it. */
	if (s->pool) {
		worker_pool_join(s->pool);
		worker_pool_finish_tasks(s->pool);
	}
	server_admin_stop(s);
	/* The spool may still post to workers; freeing the pool runs that. */
	s->spool = spool_free(s->spool);
	s->pool = worker_pool_free(s->pool);
	/* It may not have come so far. */
	if (s->reactor.ops) {
		fd_closep(&s->signal_fd);
		reactor_fini(&s->reactor);
	}
	server_history_fini(s);
	free(s->admin.control_path);
	s->policy = policy_unref(s->policy);
	s->config = config_unref(s->config);
}

/* With a configuration. Return: the exit status. */
static int server_serve(struct server *s)
{
	int status = server_prepare(s);

	if (status == 0)
		status = server_start(s);
	if (status) {
		incoming_say_goodbye(&s->incoming, s->config);
		server_finish(s);
		return status;
	}
	wheel_add(&s->reactor.wheel, &s->status.tick, s->reactor.now_ns);
	status = run_loop(s);
	/* Nothing of what was handed over may be closed or said goodbye to. */
	if (s->phase == SERVER_HANDED_OVER)
		return server_finish_handed_over(s);
	server_finish(s);
	log_event(LOG_INFO, EV_STOPPED, LOG_NO_FIELDS, "stopped");
	return status;
}

/* --------------------------------------------------------------------- arguments */

static void print_usage(FILE *out)
{
	fputs("usage: wsbind server [--config FILE] [-p|--port N] [--max-connections N] "
	      "[--KEY=VALUE ...]\n"
	      "Every key of wsbind.conf(5) is an option; see wsbind(8).\n",
	      out);
}

/* Return: -1 to go on, else the exit status. */
static int parse_arguments(struct config_source *source, char **argv)
{
	for (int i = 1; argv[i];) {
		static char port_option[] = "--port";
		int r;

		if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
			print_usage(stdout);
			return EXIT_SUCCESS;
		}
		/* Put in its place for good: SIGUSR2 executes with the same arguments. */
		if (strcmp(argv[i], "-p") == 0)
			argv[i] = port_option;
		r = config_source_take(source, argv, &i);
		if (r) {
			fprintf(stderr, "wsbind server: %s: %s\n", argv[i],
				r == CONFIG_E_USAGE ? "needs a value" : "no such option");
			print_usage(stderr);
			return EXIT_USAGE;
		}
	}
	return -1;
}

/*
 * Small pieces go back to malloc at once. It would keep them apart by the ten thousands (fastbins)
 * and put all of them together at the next request for 1 KiB: a turn of milliseconds, long after
 * whoever had them has gone.
 */
static void settle_malloc(void)
{
	(void)mallopt(M_MXFAST, 0);
}

int server_main(int argc, char **argv)
{
	static struct server server;
	struct server *s = &server;
	int status;

	(void)argc;
	s->signal_fd = s->history.fd = -1;
	settle_malloc();
	/* Before the first line: who reads them may be gone, or a client at any call that sends. */
	(void)signal(SIGPIPE, SIG_IGN);
	/* A file may be larger than RLIMIT_FSIZE allows: that is an error of the call. */
	(void)signal(SIGXFSZ, SIG_IGN);
	/* Whoever mistypes an option reads it at the terminal, not in the journal. */
	status = parse_arguments(&s->source, argv);
	if (status >= 0)
		return status;
	if (log_init(LOG_TO_AUTO))
		fprintf(stderr,
			"wsbind: the journal cannot be reached; logging to standard error\n");
	/* Before anything else opens a descriptor, or reads the environment for a child. */
	exec_plan_init(&s->exec_plan, argv + 1);
	incoming_take(&s->incoming);
	/* Clients may have come with a configuration that has an error: they are told then. */
	if (server_load(s)) {
		incoming_say_goodbye(&s->incoming, s->config);
		log_fini();
		return EXIT_CONFIG;
	}
	atomic_store(&log_level, s->config->log_level);
	status = server_serve(s);
	log_fini();
	return status;
}
