/* SPDX-License-Identifier: MIT */
#include "server/server.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "io/log.h"
#include "server/server_private.h"
#include "service/systemd.h"
#include "wire/upgrade.h"
#include "worker/transfer.h"

#define EXIT_USAGE 2
#define EXIT_CONFIG 78
#define SPARE_DESCRIPTORS 64 /* beside connections: listeners, epoll, admin, spool */
#define STALLED_NS (5 * NS_PER_S)

/* --------------------------------------------------------------- rounds of tasks */

static void round_done(struct worker_task *t)
{
	struct server_rounds *round = CONTAINER_OF(t, struct server_round_task, task)->round;

	if (--round->open == 0)
		round->then(round->server);
}

void server_round(struct server *s, worker_task_fn *run, void (*then)(struct server *s))
{
	struct server_rounds *round = &s->round;

	round->server = s;
	round->then = then;
	round->open = s->pool->n;
	for (unsigned i = 0; i < s->pool->n; i++) {
		round->tasks[i].round = round;
		round->tasks[i].task = (struct worker_task){.run = run, .done = round_done};
		worker_post(s->pool->workers[i], &round->tasks[i].task);
	}
}

/* ------------------------------------------------------------------------- stop */

static void all_left(struct server *s)
{
	s->is_done = true;
}

static void all_quiet(struct server *s)
{
	server_round(s, worker_task_say_goodbye, all_left);
}

static void stop_due(struct wheel_timer *t)
{
	CONTAINER_OF(t, struct server, stop_timer)->is_done = true;
}

void server_stop(struct server *s, const char *why)
{
	if (s->handover == SERVER_LEAVES_TO_MANAGER)
		return; /* that is its end already */
	if (s->handover == SERVER_LEAVES_TO_ITSELF) {
		s->signal_after = SIGTERM;
		return;
	}
	if (s->is_stopping) {
		log_line(LOG_NOTICE, "told to stop again: not waiting for clients");
		s->is_done = true;
		return;
	}
	s->is_stopping = true;
	(void)systemd_stopping();
	(void)systemd_status("Stopping: sending what waits, saying goodbye");
	log_event(LOG_INFO, EV_STOP, LOG_FIELDS(LOG_TEXT("REASON", why)),
		  "stopping (%s): %llu connections, at most %llu s", why,
		  (unsigned long long)SERVER_SUM(s, connections_active),
		  (unsigned long long)(s->config->shutdown_timeout / NS_PER_S));
	if (s->config->shutdown_timeout == 0) {
		s->is_done = true;
		return;
	}
	(void)systemd_extend_timeout(s->config->shutdown_timeout + 5 * NS_PER_S);
	wheel_add(&s->reactor.wheel, &s->stop_timer,
		  s->reactor.now_ns + s->config->shutdown_timeout);
	server_round(s, worker_task_stop_reading, all_quiet);
}

/* ---------------------------------------------------------------- once a second */

uint64_t server_sum(const struct server *s, size_t offset)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < s->pool->n; i++) {
		const char *shard = (const char *)&s->pool->workers[i]->metrics;

		sum += atomic_load_explicit(
			(const _Atomic uint64_t *)(const void *)(shard + offset),
			memory_order_relaxed);
	}
	return sum;
}

static void ping_done(struct worker_task *t)
{
	CONTAINER_OF(t, struct server_ping, task)->is_out = false;
}

/* True when every worker has answered the last ping; then the next ones go out. */
static bool ping_workers(struct server *s)
{
	bool all = true;

	for (unsigned i = 0; i < s->pool->n; i++) {
		struct server_ping *p = &s->pings[i];

		all &= !p->is_out;
		if (p->is_out && s->reactor.now_ns - p->since_ns > STALLED_NS)
			log_event_limited(
				LOG_WARNING, EV_WORKER_STALLED,
				LOG_FIELDS(LOG_NUM("WORKER_INDEX", i)),
				"worker %u has not answered for %llu s", i,
				(unsigned long long)((s->reactor.now_ns - p->since_ns) / NS_PER_S));
	}
	for (unsigned i = 0; i < s->pool->n; i++) {
		struct server_ping *p = &s->pings[i];

		if (p->is_out)
			continue;
		p->server = s;
		p->is_out = true;
		p->since_ns = s->reactor.now_ns;
		p->task = (struct worker_task){.run = worker_task_ping, .done = ping_done};
		worker_post(s->pool->workers[i], &p->task);
	}
	return all;
}

static void tick_due(struct wheel_timer *t)
{
	struct server *s = CONTAINER_OF(t, struct server, tick);
	uint64_t now = s->reactor.now_ns, period = NS_PER_S;
	uint64_t in = SERVER_SUM(s, messages_received), out = SERVER_SUM(s, messages_sent);

	if (ping_workers(s) && s->watchdog_ns)
		(void)systemd_watchdog();
	if (s->watchdog_ns)
		period = MIN(period, s->watchdog_ns / 3);
	if (!s->is_stopping && s->handover == SERVER_STAYS)
		(void)systemd_status("%llu connections, %u channels, %llu messages/s in, %llu out, "
				     "%llu slow consumers",
				     (unsigned long long)SERVER_SUM(s, connections_active),
				     atomic_load_explicit(&s->pool->shared.directory.count,
							  memory_order_relaxed),
				     (unsigned long long)((in - s->last_in) * NS_PER_S / period),
				     (unsigned long long)((out - s->last_out) * NS_PER_S / period),
				     (unsigned long long)(SERVER_SUM(s, slow_disconnects) +
							  SERVER_SUM(s, slow_skips)));
	s->last_in = in;
	s->last_out = out;
	log_report_suppressed();
	wheel_add(&s->reactor.wheel, t, now + period);
}

/* --------------------------------------------------------------------- main loop */

void server_arm_admin(struct server *s)
{
	int ms = s->admin ? admin_timeout_ms(s->admin) : -1;

	if (ms < 0)
		wheel_del(&s->reactor.wheel, &s->admin_timer);
	else
		wheel_add(&s->reactor.wheel, &s->admin_timer,
			  s->reactor.now_ns + (uint64_t)ms * NS_PER_MS);
}

static void admin_timer_due(struct wheel_timer *t)
{
	struct server *s = CONTAINER_OF(t, struct server, admin_timer);

	admin_run(s->admin);
}

static void admin_ready(struct reactor_source *source, uint32_t events)
{
	struct server *s = CONTAINER_OF(source, struct server, admin_source);

	(void)events;
	admin_run(s->admin);
}

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

static bool main_has_work(struct reactor *r)
{
	struct server *s = CONTAINER_OF(r, struct server, reactor);

	return s->is_done || (s->pool && worker_pool_has_done(s->pool));
}

static void main_work(struct reactor *r)
{
	struct server *s = CONTAINER_OF(r, struct server, reactor);

	worker_pool_run_done(s->pool);
	if (s->admin && admin_timeout_ms(s->admin) == 0)
		admin_run(s->admin); /* what workers have answered goes out in this turn */
	server_arm_admin(s);
}

static const struct reactor_ops main_ops = {.has_work = main_has_work, .work = main_work};

static int run(struct server *s)
{
	while (!s->is_done) {
		int error = reactor_turn(&s->reactor, UINT64_MAX);

		if (error) {
			log_line(LOG_ERR, "epoll_wait: %s", strerror(-error));
			return EXIT_FAILURE;
		}
	}
	return s->exit_status;
}

/* ------------------------------------------------------------------------ start */

static unsigned count_workers(const struct config *config)
{
	cpu_set_t set;
	int n;

	if (config->worker_threads)
		return (unsigned)config->worker_threads;
	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 1;
	n = CPU_COUNT(&set);
	return (unsigned)MIN(MAX(n, 1), DIRECTORY_MAX_WORKERS);
}

void server_fit_descriptors(struct config *config)
{
	uint64_t wanted = config->max_connections + SPARE_DESCRIPTORS;
	uint64_t usable;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return;
	usable = limit.rlim_cur > SPARE_DESCRIPTORS ? limit.rlim_cur - SPARE_DESCRIPTORS : 1;
	log_event(LOG_WARNING, EV_LIMITS_LOW,
		  LOG_FIELDS(LOG_TEXT("SETTING", "LimitNOFILE"), LOG_NUM("LIMIT", limit.rlim_cur)),
		  "at most %llu files may be open, max_connections = %llu needs %llu; continuing "
		  "with max_connections = %llu, set LimitNOFILE=%llu in the unit (or ulimit -n)",
		  (unsigned long long)limit.rlim_cur, (unsigned long long)config->max_connections,
		  (unsigned long long)wanted, (unsigned long long)usable,
		  (unsigned long long)wanted);
	config->max_connections = usable;
}

static void check_backlog(void)
{
	WB_CLEANUP(ptr_freep) char *line = NULL;
	FILE *f = fopen("/proc/sys/net/core/somaxconn", "re");
	size_t cap = 0;

	if (!f)
		return; /* hidden by ProcSubset=pid: cannot be told */
	if (getline(&line, &cap, f) > 0 && atoi(line) < 1024)
		log_event(
			LOG_WARNING, EV_LIMITS_LOW,
			LOG_FIELDS(LOG_TEXT("SETTING", "net.core.somaxconn")),
			"net.core.somaxconn is %d: many clients that connect at once are dropped; "
			"continuing, set it with: sysctl -w net.core.somaxconn=4096",
			atoi(line));
	(void)fclose(f);
}

/* Whether clients come without TLS: by port, or by a socket of the service manager's. */
static bool has_plain_port(const struct server *s)
{
	for (unsigned i = 0; i < s->heritage.n_sockets; i++)
		if (s->heritage.socket[i].kind == LISTENER_ACTIVATED)
			return true;
	return s->config->port != CONFIG_PORT_OFF;
}

static void warn_if_open(const struct server *s)
{
	const struct config *config = s->config;
	bool is_plain = has_plain_port(s);

	if (config->auth != AUTH_NONE)
		return;
	if (config->tls_client_ca[0] && is_plain)
		log_event(LOG_WARNING, EV_NO_CERTIFICATE_NEEDED,
			  LOG_FIELDS(LOG_TEXT("SETTING", "tls_client_ca")),
			  "tls_client_ca asks for certificates on tls_port alone: clients of port "
			  "need none and may send with any user_id; set port = off or auth = jwt");
	if ((strcmp(config->host, "0.0.0.0") != 0 && strcmp(config->host, "::") != 0) ||
	    (config->tls_client_ca[0] && !is_plain) || config->proxy_protocol ||
	    strcmp(config->allowed_origins, "*") != 0)
		return;
	log_event(
		LOG_WARNING, EV_OPEN_TO_ALL, LOG_FIELDS(LOG_TEXT("SETTING", "host")),
		"open to everyone: listening on every address (host = %s), without authentication "
		"(auth = none), for pages of any origin (allowed_origins = *)",
		config->host);
}

static int block_signals(struct server *s)
{
	sigset_t set;
	int error;

	(void)signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SYSTEMD_SIGNAL_RESTART);
	error = -pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (error)
		return error;
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return -errno;
	return reactor_add(&s->reactor, &s->signal_source, s->signal_fd, EPOLLIN, signal_ready);
}

/* Says why it does not start; @name: the key that is to blame, or NULL. */
static int fail(const struct server *s, const char *what, const char *name, int error)
{
	const struct config_key *key = name ? config_key_find(name, strlen(name)) : NULL;
	WB_CLEANUP(ptr_freep) char *value = NULL;

	if (key && config_format(s->config, key, &value) == 0)
		log_event(LOG_ERR, EV_CONFIG_ERROR,
			  LOG_FIELDS(LOG_TEXT("SETTING", name), LOG_ERRNO(error)),
			  "not started: %s: %s; change %s = %s", what, strerror(-error), name,
			  value);
	else
		log_line(LOG_ERR, "not started: %s: %s", what, strerror(-error));
	return EXIT_FAILURE;
}

int server_start_spool(struct server *s, bool keep)
{
	WB_CLEANUP(ptr_freep) char *dir = NULL;
	int error;

	if (!s->config->spool_dir[0])
		return 0;
	s->spool_replies.pool = s->pool;
	error = config_path_state(s->config->spool_dir, &dir);
	if (!error)
		error = spool_new(dir, keep, &spool_replies_ops, &s->spool_replies, &s->spool);
	if (error)
		return fail(s, "spool", "spool_dir", error);
	s->pool->shared.spool = s->spool;
	return 0;
}

static const char *listener_key(enum admin_listener failed, int error)
{
	if (failed == ADMIN_CONTROL)
		return "control_socket";
	return error == -EINVAL || error == -EADDRNOTAVAIL ? "metrics_host" : "metrics_port";
}

static int start_admin(struct server *s)
{
	struct admin_options options = {
		.metrics_host = s->config->enable_metrics ? s->config->metrics_host : NULL,
		.metrics_port = (uint16_t)s->config->metrics_port,
		.max_body = s->config->max_message_size,
		.ops = &server_admin_ops,
		.ctx = s,
	};
	enum admin_listener failed = ADMIN_METRICS;
	int error;

	error = config_control_socket_path(s->config, NULL, &s->control_path);
	options.control_path = s->control_path;
	if (error || (!options.metrics_host && !options.control_path))
		return error ? fail(s, "control socket", NULL, error) : 0;
	error = admin_new(&options, &failed, &s->admin);
	if (error)
		return fail(s, failed == ADMIN_CONTROL ? "control socket" : "metrics",
			    listener_key(failed, error), error);
	error = reactor_add(&s->reactor, &s->admin_source, admin_fd(s->admin), EPOLLIN,
			    admin_ready);
	return error ? fail(s, "epoll", NULL, error) : 0;
}

static int start_pool(struct server *s)
{
	struct server_heritage *h = &s->heritage;
	const char *key;
	int error;

	error = worker_pool_new(s->policy, count_workers(s->config), h->socket, h->n_sockets,
				&s->reactor, &s->pool, &key);
	return error ? fail(s, "listening", key, error) : 0;
}

/* Where clients find it: "ws://0.0.0.0:8080/ wss://0.0.0.0:8443/". */
static char *format_urls(const struct server *s, char *out, size_t cap)
{
	const char *host = s->config->host;
	bool is_v6 = strchr(host, ':') != NULL;
	const struct {
		const char *scheme;
		uint16_t port;
	} url[] = {{"ws", s->pool->port}, {"wss", s->pool->tls_port}};
	size_t n = 0;

	out[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(url); i++)
		if (url[i].port)
			n += (size_t)snprintf(out + n, cap - n,
					      is_v6 ? "%s%s://[%s]:%u/" : "%s%s://%s:%u/",
					      n ? " " : "", url[i].scheme, host, url[i].port);
	if (s->pool->unix_path)
		snprintf(out + n, cap - n, "%sunix:%s", n ? " " : "", s->pool->unix_path);
	return out;
}

static void announce(struct server *s)
{
	const struct config *config = s->config;
	uint64_t bound = config->max_connections * sizeof(struct conn) + config->log_memory +
			 config->reassembly_memory * s->pool->n;
	char metrics[100] = "", urls[320];

	if (s->admin && admin_port(s->admin))
		snprintf(metrics, sizeof(metrics),
			 strchr(config->metrics_host, ':') ? " metrics http://[%s]:%u/"
							   : " metrics http://%s:%u/",
			 config->metrics_host, admin_port(s->admin));
	if (s->control_path)
		log_line(LOG_INFO, "control socket: %s", s->control_path);
	format_urls(s, urls, sizeof(urls));
	log_event(LOG_INFO, EV_READY, LOG_FIELDS(LOG_NUM("PORT", s->pool->port)),
		  "ready: %s%s workers %u, at most %llu MiB of memory", urls, metrics, s->pool->n,
		  (unsigned long long)(bound >> 20));
	(void)systemd_ready("Listening on %s", urls);
}

static bool is_pending(int number)
{
	sigset_t set;

	return sigpending(&set) == 0 && sigismember(&set, number) == 1;
}

static int start(struct server *s)
{
	int error;

	s->started_ms = clock_wall_ms();
	s->watchdog_ns = systemd_watchdog_ns();
	log_event(LOG_INFO, EV_START, LOG_NO_FIELDS, "wsbind %s starts", WB_VERSION);
	server_fit_descriptors(s->config);
	server_fit_channels(s);
	check_backlog();
	warn_if_open(s);
	error = upgrade_prepare();
	if (error)
		return fail(s, "SHA-1 of the opening handshake", NULL, error);
	error = reactor_init(&s->reactor, &main_ops);
	if (error)
		return fail(s, "epoll", NULL, error);
	reactor_own(&s->reactor);
	wheel_timer_init(&s->tick, tick_due);
	wheel_timer_init(&s->admin_timer, admin_timer_due);
	wheel_timer_init(&s->stop_timer, stop_due);
	error = block_signals(s);
	if (error)
		return fail(s, "signals", NULL, error);
	error = start_pool(s);
	if (!error)
		error = server_start_spool(s, s->heritage.is_there);
	if (!error)
		error = start_admin(s);
	if (error)
		return error;
	server_restore(s);
	/* Their serials come behind those of the clients that were there before. */
	worker_pool_drain(s->pool, s->heritage.socket, s->heritage.n_sockets);
	/* Once clients are served, what was left to this process is of the past. */
	server_forget_heritage(s);
	error = worker_pool_start(s->pool);
	if (error)
		return fail(s, "worker threads", NULL, error);
	server_report_taken_over(s);
	wheel_add(&s->reactor.wheel, &s->tick, s->reactor.now_ns);
	s->was_told_early = is_pending(SIGTERM);
	announce(s);
	return 0;
}

/* Everything stays as it is for the next process, and goes with this one. */
static int finish_handed_over(struct server *s)
{
	s->admin = admin_free(s->admin);
	if (s->handover == SERVER_LEAVES_TO_MANAGER)
		return EXIT_SUCCESS;
	server_execute(s);
	return EXIT_FAILURE;
}

static void finish(struct server *s)
{
	/* Workers first: whoever still waits for an answer of theirs gets it. */
	if (s->pool) {
		worker_pool_join(s->pool);
		worker_pool_finish_tasks(s->pool);
	}
	s->admin = admin_free(s->admin);
	/* The spool may still post to workers; freeing the pool runs that. */
	s->spool = spool_free(s->spool);
	s->pool = worker_pool_free(s->pool);
	if (s->reactor.ops) {
		fd_closep(&s->signal_fd);
		reactor_fini(&s->reactor);
	}
	free(s->control_path);
	s->policy = policy_unref(s->policy);
	s->config = config_unref(s->config);
}

/* --------------------------------------------------------------------- arguments */

static void usage(FILE *out)
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
			usage(stdout);
			return EXIT_SUCCESS;
		}
		if (strcmp(argv[i], "-p") == 0)
			argv[i] = port_option;
		r = config_source_take(source, argv, &i);
		if (r) {
			fprintf(stderr, "wsbind server: %s: %s\n", argv[i],
				r == CONFIG_E_USAGE ? "needs a value" : "no such option");
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	return -1;
}

/* The files that the configuration names. */
static int load_policy(struct server *s)
{
	char why[POLICY_WHY_MAX];
	const char *key;
	int r = policy_new(s->config, NULL, &s->policy, &key, why);

	if (r)
		log_event(LOG_ERR, EV_CONFIG_ERROR, LOG_FIELDS(LOG_TEXT("SETTING", key)),
			  "not started: %s%s%s", key ? key : "", key ? ": " : "", why);
	return r;
}

static int load(struct server *s)
{
	struct config_errors errors = {0};
	int r = config_load(&s->source, &s->config, &errors);

	for (size_t i = 0; i < errors.n; i++)
		log_event(LOG_ERR, EV_CONFIG_ERROR, LOG_NO_FIELDS, "%s", errors.line[i]);
	if (r)
		log_line(LOG_ERR, "not started: %s",
			 r == CONFIG_E_INVALID ? "the configuration has errors" : strerror(-r));
	config_errors_fini(&errors);
	return r ? r : load_policy(s);
}

int server_main(int argc, char **argv)
{
	static struct server server;
	struct server *s = &server;
	int status;

	s->signal_fd = s->check_fd = -1;
	s->arguments = argv + 1;

	(void)argc;
	status = parse_arguments(&s->source, argv);
	if (status >= 0)
		return status;
	if (log_init(LOG_TO_AUTO))
		fprintf(stderr,
			"wsbind: the journal cannot be reached; logging to standard error\n");
	server_find_program(s);
	server_inherit(s);
	if (load(s)) {
		server_disinherit(s);
		log_fini();
		return EXIT_CONFIG;
	}
	atomic_store(&log_level, s->config->log_level);
	status = start(s);
	if (status == 0) {
		status = run(s);
		if (s->handover != SERVER_STAYS) {
			status = finish_handed_over(s);
		} else {
			finish(s);
			log_event(LOG_INFO, EV_STOPPED, LOG_NO_FIELDS, "stopped");
		}
	} else {
		server_disinherit(s);
		finish(s);
	}
	log_fini();
	return status;
}
