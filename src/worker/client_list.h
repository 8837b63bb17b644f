/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The clients of a worker for an administrator's eyes: listing them as JSON,
 * finding one by its id. A list is made in pieces, each in a turn of its own.
 *
 * One in an order takes two walks over all workers: the first notes what they are ordered by, the
 * second shows those that were picked. Who has gone between the two is left out.
 */

#include "containers/buf.h"
#include "worker/hub.h"

#define CLIENT_LIST_BYTES ((size_t)1 << 20) /* a list that has as many ends with that client */

enum client_list_result { CLIENT_LIST_E_MORE = 1 };

enum client_order {
	CLIENTS_IN_NO_ORDER, /* a page is found without looking at those behind it */
	CLIENTS_BY_CONNECTED_AT,
	CLIENTS_BY_LAST_HEARTBEAT, /* the one that is silent longest comes first */
	CLIENTS_BY_QUEUED_BYTES,   /* the largest comes first */
	CLIENTS_BY_QUEUED_MESSAGES,
	CLIENTS_BY_MESSAGES_IN,
	CLIENTS_BY_MESSAGES_OUT,
	CLIENTS_N_ORDERS,
};

/* By enum client_order: the member of the JSON object that it goes by; NULL: none. */
extern const char *const client_order_name[CLIENTS_N_ORDERS];

struct WB_VALUE client_key {
	uint64_t weight; /* the highest comes first */
	uint8_t id[16];
};

/* One that is shown: its place in the order, and its text in the list's. */
struct WB_VALUE client_pick {
	uint8_t id[16];
	uint32_t rank;
	size_t at, n;
};

/* What is to be listed, and how far it has got. All zero but for what is asked for. */
struct WB_OWNER(worker) client_list {
	struct conn_walker place; /* while it is begun on a worker */
	bool is_begun;
	const char *channel; /* only its members; NULL: all */
	const char *user;    /* only who is called so; NULL: all */
	uint64_t offset;     /* of those, to pass over; counted down by those passed */
	uint64_t limit;      /* most to append; counted down, and 0 also when it has enough bytes */
	enum client_order order;
	struct buf keys;           /* of struct client_key: of all, in the first walk of an order */
	struct client_pick *picks; /* by id; NULL: it is the first walk, or the only one */
	uint32_t n_picks, n_shown; /* of them */
	uint64_t listed;
	uint64_t total; /* that there are, once this worker is done */
	struct buf out; /* JSON objects, separated by commas; the holder's to free */
};

/**
 * client_list_append() - append a piece of a worker's clients
 *
 * To be called again, in a later turn of the same worker, while there is more; then for the
 * next worker. Of a client in very many channels only some are named.
 *
 * Return:   0 this worker is done | CLIENT_LIST_E_MORE | -ENOMEM, and it is done.
 * Thread:   the worker's.
 * Cost:     some 256 connections, or 16 KiB of text and one client.
 */
int client_list_append(struct hub *h, struct client_list *l) WB_NODISCARD;

/**
 * client_list_pick() - after the first walk of an order: choose those of the page
 *
 * Return:  0: now comes the second walk | -ENOMEM.
 * Thread:  any.
 */
int client_list_pick(struct client_list *l) WB_NODISCARD;

/* After the second: what was found, in its order. Return: 0 | -ENOMEM. Thread: any. */
int client_list_arrange(struct client_list *l) WB_NODISCARD;

void client_list_fini(struct client_list *l);

/* Open connections. Cost: O(1). */
static inline uint64_t client_list_count(const struct hub *h)
{
	return METRIC_GET(h->env.metrics, connections_active);
}

/* All of one user, on their way out. All zero but for @user. */
struct WB_OWNER(worker) client_ending {
	struct conn_walker place; /* while it is begun on a worker */
	bool is_begun;
	const char *user;
	uint64_t n; /* that were closed */
};

/**
 * client_list_end_user() - close a piece of a worker's clients, those of one user
 *
 * As client_list_append(). Return: 0 this worker is done | CLIENT_LIST_E_MORE.
 */
int client_list_end_user(struct hub *h, struct client_ending *e) WB_NODISCARD;

/* Closes it as the administrator does. */
void client_list_end(struct conn *c);

/* The open connection with this client id, or NULL. Walks through all connections. */
struct conn *client_list_find(struct hub *h, const uint8_t id[16]);
