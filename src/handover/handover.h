/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Connections that live through a restart: everything that the workers know of their
 * clients is written as records (wire/record), and the workers of the next process are
 * made to know it.
 *
 * What travels: connections in every state but those that TLS in user space binds to
 * this process, with bytes received and not yet understood, bytes half sent, private
 * queues, memberships and how far each has got; channels with their numbers and the
 * messages that somebody still waits for; files that are being received; counters.
 * A message that many wait for is written once, by reference.
 *
 * The logs of one channel on several workers are parts of one order and become one;
 * so the next process may have fewer workers, or more. Times are of CLOCK_MONOTONIC
 * and stay as they are. Serials of connections stay too, since messages that wait
 * name their sender by it.
 *
 * Saving reads what belongs to threads that have ended; restoring fills workers that
 * haven't begun. Both are main's.
 */

#include "io/parcel.h"
#include "wire/record.h"
#include "worker/worker.h"

/* The mark beside each descriptor in a parcel: whether anybody may say goodbye to it. */
#define HANDOVER_CLEAN 'c' /* yes: it is open, and nothing is half sent */
#define HANDOVER_OTHER 'x'

/* How connections and their sockets are found. Tests have their own. */
struct WB_FROZEN handover_ops {
	/* What a socket is known by in both processes; 0: it can't travel. */
	uint64_t (*cookie)(void *ctx, const struct conn *c);
	/* The transport of a cookie, which is the caller's from here on; false: there is none. */
	bool (*claim)(void *ctx, uint64_t cookie, struct transport *ret);
	/* The connection is complete; from here on its events count. Return: 0 | -errno. */
	int (*attach)(void *ctx, struct worker *w, struct conn *c);
};

/* What was written, or what became of it. */
struct WB_VALUE handover_report {
	uint32_t connections; /* that were written, or are here again */
	uint32_t channels;
	uint32_t frames;
	uint32_t failed;        /* records that are of no use: connections, or what they need */
	uint64_t frozen_ns;     /* when clients were served last */
	char version[32];       /* of who wrote it */
	enum history_past past; /* what became of the file with what channels keep … */
	struct history_recovery recovery; /* … where that wasn't handed over */
};

/**
 * handover_save() - write what all workers know
 * @p:      its threads have ended, by worker_pool_freeze()
 * @ctx:    for @ops
 * @ret:    frozen_ns is set before; version and failed stay what they are
 *
 * Nothing is changed: after a failure the workers can go on.
 *
 * Return:  0 | -ENOMEM | -errno of @out's grow().
 */
int handover_save(struct worker_pool *p, const struct handover_ops *ops, void *ctx,
		  struct record_writer *out, struct handover_report *ret) WB_NODISCARD;

/**
 * handover_restore() - let workers know what others did
 * @p:      not started yet, and without connections
 * @records: @n bytes, read only
 *
 * A connection that cannot be made again (its record is broken, or there is no memory) ends:
 * with a goodbye where it is open and nothing is half sent. Where its record can be read and its
 * socket is there, the members of its channels are told, like by any other end. Nothing of
 * theirs is lost.
 *
 * Return:  0 | RECORD_E_FORMAT | RECORD_E_BROKEN: nothing was done.
 */
int handover_restore(struct worker_pool *p, const struct handover_ops *ops, void *ctx,
		     const uint8_t *records, size_t n, struct handover_report *ret) WB_NODISCARD;

/* How many channels there are in records, by their own account; 0: they cannot be read. */
uint32_t handover_count_channels(const uint8_t *records, size_t n);

/* With real sockets: cookies are SO_COOKIE, @ctx is a struct handover_sockets for claiming. */
extern const struct handover_ops handover_ops;

/* Sockets that came in parcels. All-zero is none. */
struct WB_OWNER(main) handover_sockets {
	struct handover_socket *socket; /* by cookie */
	size_t n;
	size_t cap;
};

/* Takes copies of what is in a parcel, by one of its ends. Return: 0 | -errno. */
int handover_open_parcel(struct handover_sockets *s, int end) WB_NODISCARD;

/* So that they can be claimed. */
void handover_sort_sockets(struct handover_sockets *s);

/*
 * Says goodbye to those that nobody claimed, as far as their marks allow, and closes them.
 * Return: how many.
 */
size_t handover_say_goodbye(struct handover_sockets *s, uint64_t reconnect_window_ms);

void handover_sockets_fini(struct handover_sockets *s);

/* Puts the sockets of all connections that travel into a parcel. Return: as parcel_put(). */
int handover_fill_parcel(struct worker_pool *p, struct parcel *parcel) WB_NODISCARD;
