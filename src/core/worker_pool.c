/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

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

/* Sockets handed over: one is shared by all workers, several are spread. */
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
		worker_add_listener(w, fd);
	}
	p->port = sock_port(fds[0]);
	return 0;
}

static int open_listeners(struct worker_pool *p, const struct config *config)
{
	uint16_t port = (uint16_t)config->port;

	for (unsigned i = 0; i < p->n; i++) {
		int fd, error;

		error = sock_listen(config->host, port, SOMAXCONN, i == 0, &fd);
		if (error)
			return error;
		port = sock_port(fd);
		worker_add_listener(p->workers[i], fd);
	}
	p->port = port;
	return 0;
}

static int make_workers(struct worker_pool *p, struct config *config, unsigned n)
{
	int error;

	error = directory_init(&p->shared.directory, (uint32_t)config->max_channels);
	if (!error)
		error = admission_init(&p->shared.admission, config->max_connections);
	for (; !error && p->n < n; p->n += !error) {
		error = worker_new(p, config, p->n, &p->workers[p->n]);
		if (!error)
			p->shared.hubs[p->n] = &p->workers[p->n]->hub;
	}
	p->shared.n_hubs = p->n;
	return error;
}

int worker_pool_new(struct config *config, unsigned n, const int *fds, unsigned n_fds,
		    struct reactor *main_reactor, struct worker_pool **ret, const char **ret_key)
{
	struct worker_pool *p = aligned_alloc(alignof(struct worker_pool), sizeof(*p));
	int error = -ENOMEM;

	*ret_key = NULL;
	if (p) {
		memset(p, 0, sizeof(*p));
		p->main_reactor = main_reactor;
		error = make_workers(p, config, n);
	}
	if (!error && n_fds > 0) {
		error = spread_listeners(p, fds, n_fds);
	} else if (!error) {
		error = open_listeners(p, config);
		if (error)
			*ret_key = error == -EINVAL || error == -EADDRNOTAVAIL ? "host" : "port";
	}
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
	directory_fini(&p->shared.directory);
	admission_fini(&p->shared.admission);
	free(p);
	return NULL;
}
