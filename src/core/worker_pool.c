/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "core/worker_private.h"

bool worker_pool_has_done(struct worker_pool *p)
{
	return worker_tasks_wait(&p->done);
}

void worker_pool_run_done(struct worker_pool *p)
{
	struct worker_task *t = worker_tasks_take(&p->done);

	while (t) {
		struct worker_task *next = t->next;

		t->done(t);
		t = next;
	}
}

/* Listeners that exist: one is shared by all workers, several are spread. */
static int spread_listeners(struct worker_pool *p, const int *fds, unsigned n_fds)
{
	unsigned n = MAX(n_fds, p->n);

	for (unsigned i = 0; i < n; i++) {
		struct worker *w = p->workers[i % p->n];
		int fd = fcntl(fds[i % n_fds], F_DUPFD_CLOEXEC, 0);

		if (fd < 0)
			return -errno;
		if (w->n_listeners == WORKER_MAX_LISTENERS) {
			fd_closep(&fd);
			return -E2BIG;
		}
		worker_add_listener(w, fd, false);
	}
	return 0;
}

/* A listener for each worker, all on one port. */
static int open_listeners(struct worker_pool *p, const char *host, uint64_t wanted, bool is_tls,
			  uint16_t *ret_port)
{
	uint16_t port = (uint16_t)wanted;

	for (unsigned i = 0; i < p->n; i++) {
		int fd, error;

		error = sock_listen(host, port, SOMAXCONN, i == 0, &fd);
		if (error)
			return error;
		port = sock_port(fd);
		worker_add_listener(p->workers[i], fd, is_tls);
	}
	*ret_port = port;
	return 0;
}

static int open_unix(struct worker_pool *p, const struct config *config)
{
	WB_CLEANUP(freep) char *path = NULL;
	int fd, error = config_path_runtime(config->listen_unix, &path);

	if (!error)
		error = sock_listen_unix(path, (mode_t)config->listen_unix_mode, SOMAXCONN, &fd);
	if (error)
		return error;
	p->unix_path = TAKE_PTR(path);
	error = spread_listeners(p, &fd, 1);
	fd_closep(&fd);
	return error;
}

static const char *key_to_blame(int error, const char *port_key)
{
	return error == -EINVAL || error == -EADDRNOTAVAIL ? "host" : port_key;
}

/* All that the configuration and systemd say; @ret_key: what is to blame for a failure. */
static int listen_everywhere(struct worker_pool *p, const struct config *config, const int *fds,
			     unsigned n_fds, const char **ret_key)
{
	int error = 0;

	if (n_fds > 0) {
		error = spread_listeners(p, fds, n_fds);
		p->port = sock_port(fds[0]);
	} else if (config->port != CONFIG_PORT_OFF) {
		error = open_listeners(p, config->host, config->port, false, &p->port);
		*ret_key = error ? key_to_blame(error, "port") : NULL;
	}
	if (!error && config->tls_port != CONFIG_PORT_OFF) {
		error = open_listeners(p, config->host, config->tls_port, true, &p->tls_port);
		*ret_key = error ? key_to_blame(error, "tls_port") : NULL;
	}
	if (!error && config->listen_unix[0]) {
		error = open_unix(p, config);
		*ret_key = error ? "listen_unix" : NULL;
	}
	return error;
}

static int make_workers(struct worker_pool *p, struct access *access, unsigned n)
{
	const struct config *config = access->config;
	int error;

	error = directory_init(&p->shared.directory, (uint32_t)config->max_channels);
	if (!error)
		error = admission_init(&p->shared.admission, config->max_connections);
	for (; !error && p->n < n; p->n += !error) {
		error = worker_new(p, access, p->n, &p->workers[p->n]);
		if (!error)
			p->shared.hubs[p->n] = &p->workers[p->n]->hub;
	}
	p->shared.n_hubs = p->n;
	return error;
}

int worker_pool_new(struct access *access, unsigned n, const int *fds, unsigned n_fds,
		    struct reactor *main_reactor, struct worker_pool **ret, const char **ret_key)
{
	struct worker_pool *p = aligned_alloc(alignof(struct worker_pool), sizeof(*p));
	int error = -ENOMEM;

	*ret_key = NULL;
	if (p) {
		memset(p, 0, sizeof(*p));
		p->main_reactor = main_reactor;
		error = make_workers(p, access, n);
	}
	if (!error)
		error = listen_everywhere(p, access->config, fds, n_fds, ret_key);
	for (unsigned i = 0; i < n_fds; i++)
		(void)close(fds[i]);
	if (error) {
		worker_pool_free(p);
		return error;
	}
	*ret = p;
	return 0;
}

int worker_pool_start(struct worker_pool *p)
{
	sigset_t all, before;
	int error = 0;

	for (unsigned i = 0; i < p->n && !error; i++)
		error = worker_listen(p->workers[i]);
	/* Signals are main's. */
	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	for (unsigned i = 0; i < p->n && !error; i++) {
		struct worker *w = p->workers[i];

		error = -pthread_create(&w->thread, NULL, worker_main, w);
		w->has_thread = !error;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

void worker_pool_join(struct worker_pool *p)
{
	struct worker_task end[DIRECTORY_MAX_WORKERS] = {0};

	for (unsigned i = 0; i < p->n; i++) {
		end[i].run = worker_task_end;
		if (p->workers[i]->has_thread)
			worker_post(p->workers[i], &end[i]);
	}
	for (unsigned i = 0; i < p->n; i++) {
		struct worker *w = p->workers[i];

		if (!w->has_thread)
			continue;
		(void)pthread_join(w->thread, NULL);
		w->has_thread = false;
		reactor_own(&w->reactor); /* what is left of it is main's now */
	}
}

void worker_pool_settle(struct worker_pool *p)
{
	bool any = true;

	while (any) {
		any = worker_pool_has_done(p);
		worker_pool_run_done(p);
		for (unsigned i = 0; i < p->n; i++) {
			any |= worker_tasks_wait(&p->workers[i]->inbox);
			worker_run_tasks(p->workers[i]);
		}
	}
}

struct worker_pool *worker_pool_free(struct worker_pool *p)
{
	if (!p)
		return NULL;
	worker_pool_join(p);
	worker_pool_settle(p);
	for (unsigned i = 0; i < p->n; i++) {
		worker_free(p->workers[i]);
		p->workers[i] = NULL;
	}
	if (p->unix_path)
		(void)unlink(p->unix_path); /* perhaps somebody has removed it */
	free(p->unix_path);
	directory_fini(&p->shared.directory);
	admission_fini(&p->shared.admission);
	free(p);
	return NULL;
}
