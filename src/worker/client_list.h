/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The clients of a worker for an administrator's eyes: listing them as JSON,
 * finding one by its id. Cold: every call walks through all connections.
 */

#include "containers/buf.h"
#include "worker/hub.h"

/**
 * client_list_append() - append clients as JSON objects, separated by commas
 * @offset:  open connections to pass over; counted down by those passed
 * @limit:   most to append; counted down by those appended
 * @out:     a comma goes before the first object when it isn't empty
 *
 * Return:   0 | -ENOMEM.
 * Thread:   the worker's.
 */
int client_list_append(struct hub *h, uint64_t *offset, uint64_t *limit, struct buf *out)
	WB_NODISCARD;

/* Open connections. */
uint64_t client_list_count(const struct hub *h);

/* The open connection with this client id, or NULL. */
struct conn *client_list_find(struct hub *h, const uint8_t id[16]);
