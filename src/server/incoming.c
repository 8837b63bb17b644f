/* SPDX-License-Identifier: MIT */
#include "server/incoming.h"

#include <inttypes.h>
#include <string.h>

#include <errno.h>

#include "handover/config_record.h"
#include "io/log.h"
#include "model/close_codes.h"
#include "server/store.h"
#include "service/systemd.h"

#define EXTEND_NS (60 * NS_PER_S)
#define MAX_ATTEMPTS 2 /* at reading the same records */
#define DEFAULT_WINDOW_NS (30 * NS_PER_S)

/* ------------------------------------------------------------------------ taking */

static void take_records(struct incoming *in, int fd)
{
	int r = -EEXIST;

	if (in->records.data)
		(void)close(fd);
	else
		r = memfile_open(&in->records, fd);
	if (r)
		log_line(LOG_WARNING, "the state of the process before cannot be read: %s",
			 strerror(-r));
	/* Even then: clients came with it, and they have to be told. */
	in->phase = INCOMING_WAITS;
}

static void take_descriptor(struct incoming *in, struct systemd_socket *s)
{
	if (strcmp(s->name, STORE_RECORDS) == 0) {
		take_records(in, TAKE_FD(s->fd));
	} else if (strcmp(s->name, STORE_PARCEL) == 0 &&
		   in->n_parcel_ends < ARRAY_LEN(in->parcel_end)) {
		in->parcel_end[in->n_parcel_ends++] = TAKE_FD(s->fd);
		in->phase = INCOMING_WAITS;
	} else if (strcmp(s->name, STORE_HISTORY) == 0 && in->history_fd < 0) {
		in->history_fd = TAKE_FD(s->fd);
	} else if (s->kind == SYSTEMD_UNFIT) {
		log_line(LOG_WARNING,
			 "socket %s handed over by systemd is no listening stream; "
			 "continuing without it",
			 s->name);
	} else if (in->n_listeners < ARRAY_LEN(in->listener)) {
		in->listener[in->n_listeners++] =
			(struct worker_socket){TAKE_FD(s->fd), store_listener_kind(s->name)};
	}
}

void incoming_take(struct incoming *in)
{
	struct systemd_sockets sockets = {0};

	in->records.fd = in->history_fd = -1;
	if (systemd_take_sockets(&sockets)) {
		log_line(LOG_WARNING,
			 "sockets handed over by systemd could not be taken; continuing without");
		return;
	}
	for (size_t i = 0; i < sockets.n; i++)
		take_descriptor(in, &sockets.socket[i]);
	systemd_sockets_fini(&sockets); /* closes those that nobody has taken */
}

int incoming_find_config(const struct incoming *in, struct config **ret, struct file_set *ret_files)
{
	if (in->phase != INCOMING_WAITS || !in->records.data)
		return -ENOENT;
	return config_record_find(in->records.data, in->records.bytes, ret, ret_files);
}

bool incoming_has_activated(const struct incoming *in)
{
	for (unsigned i = 0; i < in->n_listeners; i++)
		if (in->listener[i].kind == LISTENER_ACTIVATED)
			return true;
	return false;
}

/* --------------------------------------------------------------------- restoring */

void incoming_fit_channels(const struct incoming *in, struct config *config)
{
	const struct memfile *records = &in->records;
	uint64_t n_open =
		records->data ? handover_count_channels(records->data, records->bytes) : 0;

	/*
	 * Channels that don't fit would end the clients in them. The count comes from a file that
	 * may be damaged, so it is believed only as far as so many records fit into it.
	 */
	if (n_open <= config->max_channels || n_open > records->bytes / 8)
		return;
	log_event(LOG_WARNING, EV_LIMITS_LOW, LOG_FIELDS(LOG_TEXT("SETTING", "max_channels")),
		  "%" PRIu64 " channels are open from before the restart, max_channels = %" PRIu64
		  "; continuing with max_channels = %" PRIu64,
		  n_open, config->max_channels, n_open);
	config->max_channels = n_open;
}

static void open_parcels(struct incoming *in)
{
	/* Both ends of each pair came; from those that are written to nothing is read. */
	for (unsigned i = 0; i < in->n_parcel_ends; i++) {
		int r = handover_open_parcel(&in->clients, in->parcel_end[i]);

		if (r)
			log_event(LOG_ERR, EV_HANDOVER_FAILED, LOG_FIELDS(LOG_ERRNO(r)),
				  "not all connections could be taken over: %s", strerror(-r));
	}
	handover_sort_sockets(&in->clients);
}

static const char *describe_refusal(int r)
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

static int read_records(struct incoming *in, struct worker_pool *p)
{
	struct memfile *records = &in->records;

	/*
	 * The attempt is counted before the reading begins, in the file itself, which lives on in
	 * the manager's store: should reading be what kills us, the third process does without.
	 */
	if (!records->data || record_count_attempt(records->data, records->bytes) >= MAX_ATTEMPTS)
		return RECORD_E_BROKEN;
	return handover_restore(p, &handover_ops, &in->clients, records->data, records->bytes,
				&in->report);
}

void incoming_restore(struct incoming *in, struct worker_pool *p, struct spool *spool,
		      const struct config *config)
{
	struct metrics *m = &p->workers[0]->metrics;
	size_t n_came;
	int r;

	if (in->phase != INCOMING_WAITS)
		return;
	(void)systemd_extend_timeout(EXTEND_NS);
	/* Sockets first: a record is of use only when the socket that it is about is here. */
	open_parcels(in);
	n_came = in->clients.n;
	(void)systemd_status("Taking over %zu connections", n_came);
	in->records_bytes = in->records.bytes;
	r = read_records(in, p);
	if (in->report.failed > 0)
		log_event(LOG_WARNING, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
			  "%" PRIu32 " parts of what was left cannot be used; continuing without "
			  "them",
			  in->report.failed);
	if (r)
		log_event(LOG_WARNING, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
			  "%zu connections are not taken over: %s; "
			  "closing them with " WS_CODE_TEXT(SERVICE_RESTART),
			  n_came, describe_refusal(r));
	/* Only now is it known whose files go on; those of nobody are removed. */
	if (spool && spool_clean(spool))
		log_line(LOG_WARNING, "no memory to look for files that nobody finishes");
	/* What no record has claimed until here belongs to nobody. */
	(void)handover_say_goodbye(&in->clients, config->reconnect_window / NS_PER_MS);
	in->n_lost = n_came - MIN(n_came, (size_t)in->report.connections);
	in->phase = r ? INCOMING_REFUSED : INCOMING_RESTORED;
	METRIC_INC(m, handovers);
	METRIC_ADD(m, handover_kept, in->report.connections);
	METRIC_ADD(m, handover_lost, in->n_lost);
}

void incoming_report(struct incoming *in)
{
	const struct handover_report *r = &in->report;

	if (in->phase != INCOMING_RESTORED)
		return;
	/* CLOCK_MONOTONIC is the same in both processes; a record may say anything all the same. */
	in->pause_ns = clock_now_ns() - MIN(r->frozen_ns, clock_now_ns());
	log_event(LOG_INFO, EV_TAKEN_OVER,
		  LOG_FIELDS(LOG_NUM("CONNECTIONS", r->connections), LOG_NUM("LOST", in->n_lost),
			     LOG_NUM("STATE_BYTES", in->records_bytes),
			     LOG_NUM("PAUSE_USEC", in->pause_ns / 1000)),
		  "took over %" PRIu32 " connections and %" PRIu32
		  " channels from wsbind %s: %" PRIu32 " messages wait, %.1f MB of state, "
		  "%zu connections lost, a pause of %.1f ms",
		  r->connections, r->channels, r->version, r->frames,
		  (double)in->records_bytes / 1e6, in->n_lost, (double)in->pause_ns / NS_PER_MS);
}

/* ------------------------------------------------------------------------ the end */

static void close_all(struct incoming *in)
{
	handover_sockets_fini(&in->clients);
	for (unsigned i = 0; i < in->n_parcel_ends; i++)
		fd_closep(&in->parcel_end[i]);
	memfile_fini(&in->records);
	store_empty();
}

void incoming_forget(struct incoming *in)
{
	if (in->phase != INCOMING_NONE)
		close_all(in);
}

void incoming_say_goodbye(struct incoming *in, const struct config *config)
{
	uint64_t window_ns = config ? config->reconnect_window : DEFAULT_WINDOW_NS;
	size_t n;

	/* Nobody will accept there; who waits is refused, and tries the next process. */
	for (unsigned i = 0; i < in->n_listeners; i++)
		fd_closep(&in->listener[i].fd);
	if (in->phase != INCOMING_WAITS)
		return;
	open_parcels(in);
	n = handover_say_goodbye(&in->clients, window_ns / NS_PER_MS);
	/* Who connects again finds nobody here either; the journal says what has to be mended. */
	log_event(LOG_WARNING, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
		  "%zu connections of the process before are "
		  "closed with " WS_CODE_TEXT(SERVICE_RESTART),
		  n);
	close_all(in);
	in->phase = INCOMING_REFUSED;
}
