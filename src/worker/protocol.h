/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What messages mean: the table of events of wsbind-protocol(7), row by row. Who
 * comes gets a welcome and is announced; what a client sends is checked and goes
 * to its channel, to the spool, or is answered.
 *
 * What can be delivered unchanged is: only the channel's name is appended where
 * the sender left it out (protobuf takes a field from wherever it stands).
 *
 * An ERROR carries a reason in words and a code that follows HTTP's: 400 no such
 * message, 403 not allowed, 404 not a member, 413 too large, 422 damaged, 429 too
 * many, 503 no room now.
 */

#include "worker/hub.h"

/* The protocol's version, among the capabilities of CONFIG; wsbind-protocol(7) has the number. */
#define PROTOCOL_VERSION "wsbind/2"

/* conn_ops.admit: joins the channel of its path. */
enum conn_refusal protocol_admit(struct conn *c, const struct upgrade *u);

/* conn_ops.opened: welcome, configuration, notice to the others. */
void protocol_opened(struct conn *c);

/* conn_ops.message: what is small, and can be published within a share of a turn. */
bool protocol_message(struct conn *c, uint8_t opcode, uint8_t *p, size_t n);

/* conn_ops.work: all others. */
bool protocol_work(struct conn *c, struct conn_work **w, uint8_t opcode, uint8_t *p, size_t n);

/* conn_ops.free_work. */
void protocol_free_work(struct conn_env *env, struct conn_work *w);

/* conn_ops.throttled: an ERROR that says so. */
void protocol_throttled(struct conn *c);

/* conn_ops.left: leaves everything. */
void protocol_left(struct conn *c);

/* Says goodbye because the daemon stops: DISCONNECT with when to come back, then Close 1012. */
void protocol_say_goodbye(struct conn *c);

/* What became of protocol_publish(). */
struct WB_VALUE protocol_published {
	unsigned status;    /* of HTTP: 200, 400, 404, 503 */
	const char *reason; /* a constant, unless 200 */
	uint32_t members;   /* that the message goes to */
};

/**
 * protocol_publish() - publish for the administrator
 * @channel: UTF-8, NUL-terminated
 * @is_text: @p is the content of a chat message from `system`; else a serialized
 *           WebSocketMessage, CHAT_MESSAGE or BINARY_DATA
 *
 * Thread:   the worker's.
 */
struct protocol_published protocol_publish(struct hub *h, const char *channel, bool is_text,
					   const uint8_t *p, size_t n);

/* Queues an ERROR; @request may be NULL. */
void protocol_send_error(struct conn *c, const Websocket__WebSocketMessage *request, uint32_t code,
			 const char *reason);

/* Name of the channel of its path, NULL for an echo connection; conn's until it changes. */
const char *protocol_path_channel(const struct conn *c);
