/* SPDX-License-Identifier: MIT */
#pragma once

/* What arrived, for people: one line for each message, with the texts of others escaped. */

#include <stdio.h>

#include "base/base.h"
#include "wire/msg.h"

/**
 * client_show() - print a message
 * @own_id: our client id, or "": so that a DISCONNECT for us can be told from a notice
 *
 * An ACKNOWLEDGE or heartbeat prints nothing.
 *
 * Thread:  any.
 */
void client_show(FILE *out, const Websocket__WebSocketMessage *m, const char *own_id);

/* The same for a text message of @n bytes. */
void client_show_text(FILE *out, const char *text, size_t n);

/* Whether a DISCONNECT tells us to go, rather than that someone else left. */
bool client_is_own_disconnect(const Websocket__WebSocketMessage *m, const char *own_id);
