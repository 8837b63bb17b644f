/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "containers/buf.h"
#include "io/log.h"
#include "server/server_private.h"
#include "service/systemd.h"

/* One reload: from reading the files until the last worker uses what they say. */
struct reload {
	struct server *server;
	struct admin_request *req; /* NULL: nobody waits for an answer */
	struct config *config;     /* fresh; main's reference */
	struct policy *policy;     /* the same */
	struct buf report;
	bool is_cut; /* a line of the report is missing */
	unsigned open;
	struct reload_task {
		struct worker_task task;
		struct reload *reload;
		struct policy *policy; /* the worker's reference */
	} tasks[DIRECTORY_MAX_WORKERS];
};

/* Adds a line to the answer; without memory the journal still has it. */
WB_PRINTF(2, 3) static void reload_report(struct reload *r, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	r->is_cut |= buf_vprintf(&r->report, fmt, args) != 0;
	va_end(args);
}

static void reload_free(struct reload *r)
{
	buf_fini(&r->report);
	config_unref(r->config);
	policy_unref(r->policy);
	free(r);
}

static void reload_answer(struct reload *r, unsigned status)
{
	if (r->is_cut)
		log_line(LOG_WARNING, "out of memory; the answer to the reload is cut");
	if (r->req && buf_append(&r->report, "", 1, BUF_NO_LIMIT) == 0)
		admin_reply(r->req, status, NULL, (const char *)r->report.data);
	else if (r->req)
		admin_reply(r->req, 500, NULL, "out of memory\n");
}

static void reload_failed(struct reload *r, const struct config_errors *errors, int error)
{
	/* To the journal in any case: SIGHUP has nobody who waits for an answer. */
	for (size_t i = 0; i < errors->n; i++) {
		log_event(LOG_ERR, EV_RELOAD_FAILED, LOG_NO_FIELDS, "%s", errors->line[i]);
		reload_report(r, "%s\n", errors->line[i]);
	}
	if (errors->n == 0)
		reload_report(r, "%s\n", strerror(-error));
	log_event(LOG_ERR, EV_RELOAD_FAILED, LOG_NO_FIELDS,
		  "not reloaded: going on with the settings as they were");
	reload_answer(r, error < 0 ? 500 : 422);
	reload_free(r);
}

static void report_change(void *ctx, const struct config_key *key, const char *name,
			  const char *was, const char *is)
{
	struct reload *r = ctx;
	/* What cannot follow is no error: the file is right for the next start. */
	const char *when = key->reload == RELOAD_RESTART    ? " (needs a restart)"
			   : key->reload == RELOAD_NEW_CONN ? " (for new connections)"
							    : "";
	bool opens = config_opens(r->server->config, r->config, key);
	const char *more = opens ? "; this lets in who was kept out" : "";

	log_event(key->reload == RELOAD_RESTART || opens ? LOG_WARNING : LOG_INFO, EV_RELOAD,
		  LOG_FIELDS(LOG_TEXT("SETTING", key->name)), "%s: %s, was %s%s%s", name, is, was,
		  when, more);
	reload_report(r, "%s: %s, was %s%s%s\n", name, is, was, when, more);
}

static void configure_run(struct worker *w, struct worker_task *t)
{
	struct reload_task *task = CONTAINER_OF(t, struct reload_task, task);

	worker_configure(w, TAKE_PTR(task->policy));
	worker_task_answer(w, t);
}

static void reload_is_over(struct server *s)
{
	bool again = s->reload == SERVER_RELOADING_AGAIN;

	s->reload = SERVER_NO_RELOAD;
	if (server_is_ending(s))
		return;
	(void)systemd_ready("Reloaded");
	/* The files may have changed after this reload had read them. */
	if (again)
		server_reload(s, NULL);
}

static bool history_limits(void *ctx, const char *name, struct history_limits *ret)
{
	return hub_history_limits(ctx, name, ret);
}

static void configure_done(struct worker_task *t)
{
	struct reload *r = CONTAINER_OF(t, struct reload_task, task)->reload;
	struct server *s = r->server;

	if (--r->open > 0)
		return;
	/* Main is the last to take it into use: until now some workers had the old one. */
	config_unref(s->config);
	s->config = TAKE_PTR(r->config);
	s->config_is_kept = false;
	policy_unref(s->policy);
	s->policy = TAKE_PTR(r->policy);
	history_set_memory(&s->pool->shared.history, s->config->history_memory,
			   s->config->log_memory);
	registry_configure(&s->pool->shared.registry, s->config->resume_window,
			   s->config->max_connections);
	/* No message is on its way any more that was made for a channel as it was before. */
	history_settle(&s->pool->shared.history, s->reactor.now_ns, history_limits, s->config);
	server_history_keep(s);
	atomic_store(&log_level, s->config->log_level);
	server_spool_configure(s, s->config);
	if (s->admin.http)
		admin_set_max_body(s->admin.http, s->config->max_message_size);
	log_event(LOG_NOTICE, EV_RELOAD, LOG_NO_FIELDS, "configuration reloaded%s",
		  r->report.len ? "" : ": nothing has changed");
	if (r->report.len == 0)
		reload_report(r, "nothing has changed\n");
	reload_answer(r, 200);
	reload_free(r);
	reload_is_over(s);
}

static void reload_distribute(struct reload *r)
{
	struct server *s = r->server;

	r->open = s->pool->n;
	history_begin_reload(&s->pool->shared.history);
	/*
	 * Each task carries a reference of its own: the worker keeps it, however long it takes for
	 * the others to have theirs.
	 */
	for (unsigned i = 0; i < s->pool->n; i++) {
		struct reload_task *t = &r->tasks[i];

		t->reload = r;
		t->policy = policy_ref(r->policy);
		t->task = (struct worker_task){.run = configure_run, .done = configure_done};
		worker_post(s->pool->workers[i], &t->task);
	}
}

/* Reads the files that the configuration names: also when no key has changed, they may have. */
static int reload_policy(struct reload *r, struct config_errors *errors)
{
	char why[POLICY_WHY_MAX];
	const char *key, *note;
	int error = policy_new(r->config, r->server->policy, NULL, &r->policy, &key, why);

	server_log_notes(r->policy);
	for (size_t at = 0; r->policy && (note = policy_next_note(r->policy, &at));)
		reload_report(r, "%s\n", note);
	if (error == -EINVAL && asprintf(&errors->line[errors->n], "%s: %s", key, why) > 0)
		errors->n++;
	return error == -EINVAL ? CONFIG_E_INVALID : error;
}

/* Reads all files, and compares. Nothing is in use of what it has read. Return: 0 | why not. */
static int reload_read(struct reload *r, struct config_errors *errors)
{
	struct server *s = r->server;
	int error = server_read_config(s, &r->config, errors);

	if (error)
		return error;
	server_fit_descriptors(r->config);
	server_fit_history(r->config);
	/* Compared as it was read: what needs a restart is told, and only then put back. */
	error = config_diff(s->config, r->config, report_change, r);
	if (!error)
		error = config_keep_running(r->config, s->config);
	return error ? error : reload_policy(r, errors);
}

static void refuse_reload(struct server *s, struct admin_request *req)
{
	if (req)
		admin_reply(req, 503, NULL,
			    server_is_ending(s) ? "stopping\n" : "another reload is under way\n");
	else if (!server_is_ending(s))
		s->reload = SERVER_RELOADING_AGAIN;
}

void server_reload(struct server *s, struct admin_request *req)
{
	struct config_errors errors = {0};
	struct reload *r;
	int error;

	if (server_is_ending(s) || s->reload != SERVER_NO_RELOAD) {
		refuse_reload(s, req);
		return;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		log_event(LOG_ERR, EV_RELOAD_FAILED, LOG_NO_FIELDS,
			  "not reloaded: out of memory; going on with the settings as they were");
		if (req)
			admin_reply(req, 500, NULL, "out of memory\n");
		return;
	}
	/* From here on it frees itself, whatever becomes of it. */
	r->server = s;
	r->req = req;
	(void)systemd_reloading();
	error = reload_read(r, &errors);
	if (error) {
		reload_failed(r, &errors, error);
		(void)systemd_ready("Reload failed: going on with the settings as they were");
	} else {
		s->reload = SERVER_RELOADING;
		reload_distribute(r);
	}
	config_errors_fini(&errors);
}
