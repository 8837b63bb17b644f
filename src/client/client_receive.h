/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Keeping the files that others send: BINARY_DATA with consecutive sequence numbers
 * from 0 to is_last. Each is written to a temporary file in one directory, synced, and only then
 * given its name; whatever breaks it (a gap, damaged data, another length than was announced, the
 * end of the connection) removes it and is said.
 *
 * The name is the sender's wish: its last part alone, without what could lead elsewhere, hide the
 * file or act on a terminal. It never replaces a file: where it is taken, a number is put in.
 *
 * Several transfers go on at once, told apart by their `transfer`; a chunk without one goes to
 * the transfer that waits for its number. Bounds: RECEIVE_MAX of them, the one silent longest
 * goes for a new one; and the size of a file.
 */

#include "base/base.h"
#include "wire/msg.h"

#define RECEIVE_MAX 64
#define RECEIVE_NAME_MAX 200 /* bytes of a file's name */

struct client_receive;

/* What became of a transfer; texts are valid during the call. */
struct WB_VALUE receive_end {
	const char *name; /* that it has, or would have had */
	const char *why;  /* NULL: it is there; else why not, in words */
	uint64_t bytes;
};

typedef void receive_end_fn(void *ctx, const struct receive_end *end);

/**
 * client_receive_open() - get ready
 * @dir:        there already
 * @max_bytes:  of one file; 0: no limit
 * @fn:         called for each transfer that ends; must not call any of these functions
 *
 * Return:  0 | -errno of opening it, or it cannot be written to | -ENOMEM.
 * Owns:    *@ret is the caller's, by client_receive_free().
 */
int client_receive_open(const char *dir, uint64_t max_bytes, receive_end_fn *fn, void *ctx,
			struct client_receive **ret) WB_NODISCARD;

/* Removes what is not complete. Accepts NULL. Return: NULL. */
struct client_receive *client_receive_free(struct client_receive *r);

/* Takes a BINARY_DATA message. May block on the disk. */
void client_receive_take(struct client_receive *r, const Websocket__WebSocketMessage *m);

/* The connection is gone: what is not complete never will be. */
void client_receive_drop_all(struct client_receive *r, const char *why);

/* A name for a file, made of what a peer has sent: never empty, NUL included in @out. */
void client_receive_safe_name(char out[RECEIVE_NAME_MAX + 1], const char *name);
