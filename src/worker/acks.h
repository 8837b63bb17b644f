/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * ACKNOWLEDGE of what was published, at once or later. That of a chunk waits while a member of
 * its channel, on whichever worker, has more than half of its send limits waiting: so who keeps a
 * window of unacknowledged chunks goes at the pace of the slowest that keeps within them. It waits
 * for slow_consumer_grace at most, and what is acknowledged behind it in the same channel keeps
 * its place.
 *
 * Acknowledgements that wait belong to their sender: with more than ACKS_WAITING_MAX of them, or
 * half of message_queue_size, it is not read. They are sent at once where a membership ends, at a
 * goodbye, and before everything is handed over to another process.
 */

#include "channel/channel.h"
#include "containers/table.h"

#define ACKS_WAITING_MAX 64 /* of one client: for more than one needs, and 10 KB at most */

/* What one says of where the message stands in its channel. */
struct WB_VALUE acks_place {
	uint64_t sequence; /* 0: nothing */
	bool is_duplicate; /* it stood there before */
};

/* Those of the connections of a worker. */
struct WB_OWNER(worker) acks {
	struct table senders; /* by serial */
};

void acks_init(struct acks *a);

/* All connections are gone. */
void acks_fini(struct acks *a);

/* ACKNOWLEDGE with this request_id, at most MSG_REQUEST_ID_MAX bytes of which are repeated. */
void acks_send(struct conn *c, const void *id, size_t n);

/* Whether some of what this client said in a channel waits. */
bool acks_has(const struct acks *a, const struct member *through);

/* The same of what went through a membership into its channel. */
void acks_send_through(struct member *through, const void *id, size_t n, struct acks_place place);

/* Waits from now on; without memory for that the connection is closed with 1011. */
void acks_wait(struct acks *a, struct member *through, const void *id, size_t n,
	       struct acks_place place);

/* The same for one whose channel is not known any more: behind all of its sender, or at once. */
void acks_send_behind(struct acks *a, struct conn *c, const void *id, size_t n);

/*
 * Nobody is waited for in a channel any more: sends, while the turn has time. True: that's all.
 * The channel stays meanwhile: the caller sees to that.
 */
bool acks_release_channel(struct acks *a, struct channel *ch);

/* A membership ends: what waits there goes out, or with the connection, which may end by that. */
void acks_release_member(struct acks *a, struct member *m);

/* Sends those of a connection that have waited for the grace. Return: when to look again. */
uint64_t acks_release_due(struct acks *a, struct conn *c, uint64_t now);

/* All of one connection, or of all. */
void acks_release_conn(struct acks *a, struct conn *c);
void acks_release_all(struct acks *a);
