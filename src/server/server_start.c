/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/log.h"
#include "server/server_private.h"
#include "service/systemd.h"

#define TLS_CONN_BYTES ((uint64_t)48 * 1024) /* 14 idle, and a record each way */

static int start_pool(struct server *s)
{
	struct incoming *in = &s->incoming;
	const struct worker_inherited inherited = {in->listener, in->n_listeners, s->history.fd};
	const char *key;
	int r;

	r = worker_pool_new(s->policy, server_count_workers(s->config), &inherited, &s->reactor,
			    &s->pool, &key);
	return r ? server_log_failure(s, "listening", key, r) : 0;
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

	/* A port that is off is 0; sockets that came by activation are known to their unit. */
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

/* What the process has already: libraries, tables, the workers' buffers. Bytes. */
static uint64_t resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	uint64_t pages = 0;

	if (f && fscanf(f, "%*u %" SCNu64, &pages) != 1)
		pages = 0;
	if (f)
		(void)fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/*
 * What clients can make it use, so that MemoryMax= can be set above it. A message under work
 * counts once in reassembly_memory, but is there twice until it is published.
 */
static uint64_t memory_bound(const struct server *s)
{
	const struct config *config = s->config;
	uint64_t each = sizeof(struct conn) + (s->policy->tls ? TLS_CONN_BYTES : 0);

	return resident_bytes() + config->max_connections * each + config->log_memory +
	       2 * config->reassembly_memory * s->pool->n + (s->spool ? SPOOL_MAX_BYTES : 0) +
	       (config_keeps_history(config) ? history_file_most(config->history_memory) : 0);
}

static void announce_ready(struct server *s)
{
	const struct config *config = s->config;
	uint64_t bound = memory_bound(s);
	char metrics[100] = "", urls[320];

	if (s->admin.http && admin_port(s->admin.http))
		snprintf(metrics, sizeof(metrics),
			 strchr(config->metrics_host, ':') ? " metrics http://[%s]:%u/"
							   : " metrics http://%s:%u/",
			 config->metrics_host, admin_port(s->admin.http));
	if (s->admin.control_path)
		log_line(LOG_INFO, "control socket: %s", s->admin.control_path);
	format_urls(s, urls, sizeof(urls));
	log_event(LOG_INFO, EV_READY, LOG_FIELDS(LOG_NUM("PORT", s->pool->port)),
		  "ready: %s%s workers %u, at most %" PRIu64 " MiB of memory", urls, metrics,
		  s->pool->n, bound >> 20);
	(void)systemd_ready("Listening on %s", urls);
}

static bool is_pending(int number)
{
	sigset_t set;

	return sigpending(&set) == 0 && sigismember(&set, number) == 1;
}

/* What needs the loop, and makes it possible to fail with a line about the key to change. */
static int open_everything(struct server *s)
{
	int r = server_history_open(s);

	if (r)
		return server_log_failure(s, "memory for what channels keep", NULL, r);
	r = start_pool(s);
	/* Unfinished files of the process before stay until it is known whose they are. */
	if (!r)
		r = server_spool_start(s, s->incoming.phase == INCOMING_WAITS);
	if (!r)
		r = server_admin_start(s);
	return r;
}

int server_start(struct server *s)
{
	struct incoming *in = &s->incoming;
	int r = open_everything(s);

	if (r)
		return r;
	/*
	 * The clients from before come first. Those who wait at listeners that are not used any
	 * more have serials behind theirs; and once the workers serve, what was left to this
	 * process is of the past.
	 */
	incoming_restore(in, s->pool, s->spool, s->config);
	r = server_history_take_over(s);
	if (r)
		return server_log_failure(s, "memory for what channels keep", NULL, r);
	worker_pool_drain(s->pool, in->listener, in->n_listeners);
	incoming_forget(in);
	worker_pool_serve(s->pool);
	server_history_keep(s);
	r = worker_pool_start(s->pool);
	if (r)
		return server_log_failure(s, "worker threads", NULL, r);
	incoming_report(in);
	watchdog_init(&s->watchdog, s->pool);
	/* It came before the loop could look: systemd still believed us to be starting. */
	if (is_pending(SIGTERM))
		s->handover.notice = SERVER_TOLD_EARLY;
	announce_ready(s);
	return 0;
}
