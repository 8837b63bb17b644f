/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Sending a file: chunks of 16 KiB, each with a request_id that ends in its number,
 * and not more of them on their way than CLIENT_WINDOW.
 *
 * What moves the window is the server's ACKNOWLEDGE of a chunk, which waits for members that
 * read slowly: so a file goes at the pace of the slowest that reads on. Done is the file only with
 * the ACKNOWLEDGE of the last chunk, which a server that spools sends once the file stands under
 * its name.
 */

#include "base/base.h"
#include "client/session.h"

#define CLIENT_CHUNK 16384
#define CLIENT_WINDOW 16 /* chunks on their way */

struct client_file;

/**
 * client_file_open() - get ready to send a file
 * @path:   borrowed for its life
 *
 * Return:  0 | -errno of open or fstat | -EINVAL no regular file | -EFBIG too many chunks |
 *          -ENOMEM.
 * Owns:    *@ret is the caller's, by client_file_free().
 */
int client_file_open(const char *path, struct client_file **ret) WB_NODISCARD;

/* Accepts NULL. Return: NULL. */
struct client_file *client_file_free(struct client_file *f);

/* Sends from the first chunk on; again after another connection. */
void client_file_start(struct client_file *f, struct session *s);

/* Sends what the window allows. */
void client_file_send(struct client_file *f, struct session *s);

/* Takes an ACKNOWLEDGE or ERROR of the server; one that is not about the file is left alone. */
void client_file_take_answer(struct client_file *f, struct session *s,
			     const Websocket__WebSocketMessage *m);

/* Somebody left the channel: said at the end. */
void client_file_note_left(struct client_file *f, const char *client_id);

/* Whether the last chunk was acknowledged. */
bool client_file_is_done(const struct client_file *f);
