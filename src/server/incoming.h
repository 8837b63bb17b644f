/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What came to this process: listening sockets, by socket activation or from the process
 * before, and the connections of that process with all that it knew of them.
 *
 * In this order: incoming_take() before anything else reads the environment; listeners are
 * offered to the workers; incoming_restore() fills the workers that don't run yet;
 * incoming_forget() once clients are served; incoming_report() when that is so. A process that
 * doesn't get so far calls incoming_say_goodbye() instead.
 */

#include "handover/handover.h"
#include "io/memfile.h"
#include "model/config.h"
#include "spool/spool.h"

#define INCOMING_MAX_LISTENERS (WORKER_MAX_LISTENERS * DIRECTORY_MAX_WORKERS)

enum incoming_phase {
	INCOMING_NONE,    /* nobody was there before */
	INCOMING_WAITS,   /* clients came, and nobody has looked at them */
	INCOMING_REFUSED, /* they could not be taken over */
	INCOMING_RESTORED,
};

struct WB_OWNER(main) incoming {
	struct worker_socket listener[INCOMING_MAX_LISTENERS];
	unsigned n_listeners;
	enum incoming_phase phase;
	int parcel_end[2 * PARCEL_MAX_PAIRS];
	unsigned n_parcel_ends;
	struct memfile records;
	int history_fd; /* the file with what channels keep; -1: none */
	struct handover_sockets clients;
	struct handover_report report; /* of INCOMING_RESTORED */
	size_t n_lost;                 /* clients that came and are not here */
	uint64_t records_bytes;        /* for metrics */
	uint64_t pause_ns;             /* for which nobody was served; for metrics */
};

/* Takes what was handed over, by systemd or by the process before. @in: all-zero. */
void incoming_take(struct incoming *in);

/**
 * incoming_find_config() - what the process before was set to, where it left clients
 *
 * Return:  as config_record_find(), and owned alike.
 */
int incoming_find_config(const struct incoming *in, struct config **ret, struct file_set *ret_files)
	WB_NODISCARD;

/* Whether a listener came by socket activation. */
bool incoming_has_activated(const struct incoming *in);

/*
 * Where more channels are open from before than max_channels allows, that becomes what fits.
 * Nobody else has @config yet.
 */
void incoming_fit_channels(const struct incoming *in, struct config *config);

/**
 * incoming_restore() - fill the workers with what the process before knew of its clients
 * @p:      not started yet
 * @spool:  NULL: none. What nobody goes on with of its files is removed
 *
 * Clients that cannot be taken over are told to come back, and closed.
 */
void incoming_restore(struct incoming *in, struct worker_pool *p, struct spool *spool,
		      const struct config *config);

/* Clients are served: nothing of it is needed any more, neither here nor by the manager. */
void incoming_forget(struct incoming *in);

/* The workers go on: says so, and for how long they didn't. */
void incoming_report(struct incoming *in);

/*
 * This process does not start: clients that were handed over are told, and everything is
 * closed. @config: NULL when it cannot be read. Does nothing once they were taken over.
 */
void incoming_say_goodbye(struct incoming *in, const struct config *config);
