/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "worker/worker_private.h"

/* Secrets that a process before has left with what its channels keep. */
static void inherit_keys(struct worker_pool *p)
{
	struct history *h = &p->shared.history;
	uint8_t resume[HISTORY_RESUME_KEY_BYTES];

	static_assert(sizeof(resume) == RESUME_KEY_BYTES, "as the registry's");
	/* The ids that it knew are gone: what is said of tokens counts from now on. */
	if (history_file_keys(&h->file, &h->digest_key, resume))
		registry_inherit(&p->shared.registry, resume, clock_now_ns());
}

void worker_pool_serve(struct worker_pool *p)
{
	const struct registry *registry = &p->shared.registry;
	struct history *h = &p->shared.history;

	/* What stands in the administrator's file is copied nowhere. */
	history_file_set_keys(&h->file, &h->digest_key,
			      registry->is_key_drawn ? registry->key.byte : NULL);
	history_serve(h);
}

static int make_workers(struct worker_pool *p, struct policy *policy, unsigned n, int history_fd)
{
	const struct config *config = policy->config;
	int r;

	r = directory_init(&p->shared.directory, (uint32_t)config->max_channels);
	if (!r)
		r = history_init(&p->shared.history, &p->shared.directory, &p->shared.frame_bytes,
				 history_fd, n);
	if (!r)
		history_set_memory(&p->shared.history, config->history_memory, config->log_memory);
	if (!r)
		r = registry_init(&p->shared.registry,
				  policy->has_resume_key ? &policy->resume_key : NULL,
				  clock_now_ns());
	if (!r)
		inherit_keys(p);
	if (!r)
		registry_configure(&p->shared.registry, config->resume_window,
				   config->max_connections);
	if (!r)
		r = admission_init(&p->shared.admission, config->max_connections);
	/* Counted one by one, so that an error leaves what worker_pool_free() can free. */
	for (; !r && p->n < n; p->n += !r) {
		r = worker_new(p, policy, p->n, &p->workers[p->n]);
		if (!r)
			p->shared.hubs[p->n] = &p->workers[p->n]->hub;
	}
	p->shared.n_hubs = p->n;
	return r;
}

int worker_pool_new(struct policy *policy, unsigned n, const struct worker_inherited *inherited,
		    struct reactor *main_reactor, struct worker_pool **ret, const char **ret_key)
{
	static const struct worker_inherited nothing = {.history_fd = -1};
	struct worker_pool *p = aligned_alloc(alignof(struct worker_pool), sizeof(*p));
	int r = -ENOMEM;

	*ret_key = NULL;
	inherited = inherited ? inherited : &nothing;
	/* aligned_alloc(3): its members that several threads write have lines of their own. */
	if (p) {
		memset(p, 0, sizeof(*p));
		p->main_reactor = main_reactor;
		r = make_workers(p, policy, n, inherited->history_fd);
	}
	if (!r)
		r = worker_pool_listen(p, policy->config, inherited->socket, inherited->n, ret_key);
	if (r) {
		worker_pool_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

static int start_threads(struct worker_pool *p)
{
	sigset_t all, before;
	int r = 0;

	/* Signals are main's. */
	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	for (unsigned i = 0; i < p->n && !r; i++) {
		struct worker *w = p->workers[i];

		r = -pthread_create(&w->thread, NULL, worker_main, w);
		w->has_thread = !r;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int worker_pool_start(struct worker_pool *p)
{
	int r = 0;

	/* All listen before the first one runs: connections are spread over the whole group. */
	for (unsigned i = 0; i < p->n && !r; i++)
		r = worker_listen(p->workers[i]);
	return r ? r : start_threads(p);
}

/* Gives each thread its last task, and joins it. */
static void end_threads(struct worker_pool *p, worker_task_fn *run)
{
	struct worker_task end[DIRECTORY_MAX_WORKERS] = {0};

	/* All are told before the first is waited for: they end at the same time. */
	for (unsigned i = 0; i < p->n; i++) {
		end[i].run = run;
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

void worker_pool_join(struct worker_pool *p)
{
	end_threads(p, worker_task_end_loop);
}

void worker_pool_freeze(struct worker_pool *p)
{
	bool any = true;

	end_threads(p, worker_task_freeze);
	/* What is on its way between workers may let somebody in, or end somebody. */
	worker_pool_finish_tasks(p);
	/*
	 * Whoever left in the last turns was announced to the others. One round may free room for
	 * what waits in outboxes, and so bring about another.
	 */
	while (any) {
		any = false;
		for (unsigned i = 0; i < p->n; i++)
			any |= hub_deliver_posts(&p->workers[i]->hub);
	}
}

int worker_pool_thaw(struct worker_pool *p)
{
	int r = 0;

	for (unsigned i = 0; i < p->n && !r; i++)
		r = worker_resume(p->workers[i]);
	return r ? r : start_threads(p);
}

void worker_pool_finish_tasks(struct worker_pool *p)
{
	bool any = true;

	/* What comes back may post once more: until nothing is left either way. */
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
	/* Tasks hold memory of whoever made them, so none may be dropped. */
	worker_pool_join(p);
	worker_pool_finish_tasks(p);
	for (unsigned i = 0; i < p->n; i++) {
		worker_free(p->workers[i]);
		p->workers[i] = NULL;
	}
	if (p->unix_path)
		(void)unlink(p->unix_path); /* perhaps somebody has removed it */
	free(p->unix_path);
	history_fini(&p->shared.history);
	directory_fini(&p->shared.directory);
	admission_fini(&p->shared.admission);
	registry_fini(&p->shared.registry);
	free(p);
	return NULL;
}
