/* SPDX-License-Identifier: MIT */
#include "server/server_private.h"
#include "worker/transfer.h"

/*
 * Nobody who sends files needs more than this; who begins them for their number, or leaves them
 * lying, meets it. An address may be that of a proxy or of a whole office.
 */
#define CLIENT_FILES 100  /* begun in a second */
#define ADDRESS_FILES 250 /* likewise */
#define ADDRESS_OPEN 64   /* at a time; a quarter of all */

void server_spool_configure(struct server *s, const struct config *config)
{
	const struct spool_limits limits = {
		.max_bytes = config->spool_max_size,
		.max_file_bytes = config->spool_max_file_size,
		.min_free = config->spool_min_free,
		.client_files = CLIENT_FILES,
		.address_files = ADDRESS_FILES,
		.address_open = ADDRESS_OPEN,
	};

	if (s->spool)
		spool_set_limits(s->spool, &limits);
}

int server_spool_start(struct server *s, bool keep)
{
	WB_CLEANUP(ptr_freep) char *dir = NULL;
	int r;

	if (!s->config->spool_dir[0])
		return 0;
	/* Its thread may answer as soon as it runs, to workers that may not run yet. */
	s->spool_replies.pool = s->pool;
	r = config_path_state(s->config->spool_dir, &dir);
	if (!r)
		r = spool_new(dir, keep, &spool_replies_ops, &s->spool_replies, &s->spool);
	if (r)
		return server_log_failure(s, "spool", "spool_dir", r);
	server_spool_configure(s, s->config);
	s->pool->shared.transfers.spool = s->spool;
	return 0;
}

void server_spool_hand_over(struct server *s)
{
	/* Whoever looks for it from here on finds none: chunks wait with their connections. */
	s->pool->shared.transfers.spool = NULL;
	s->spool = spool_hand_over(s->spool, transfer_set_unfinished, &s->pool->shared.transfers);
	/* Its last replies were posted to workers whose threads have ended. */
	worker_pool_finish_tasks(s->pool);
}

int server_spool_resume(struct server *s)
{
	int r = server_spool_start(s, true);

	if (r || !s->spool)
		return r;
	/* The files are where they were; what no connection goes on with is removed then. */
	transfers_resume_all(&s->pool->shared.transfers);
	return spool_clean(s->spool);
}
