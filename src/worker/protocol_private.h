/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of the protocol share. They form a ladder: protocol_send.c (what is
 * said to one client), protocol_publish.c (what goes to a channel), protocol_channels.c
 * (what a client asks about channels), protocol.c (all that a client says, and its coming
 * and going). Nobody else includes it.
 */

#include "conn/conn.h"
#include "wire/msg.h"

typedef Websocket__WebSocketMessage message;

/* Whether a message says itself where it goes; else that is the channel of its sender's path. */
static inline bool message_names_channel(const message *m)
{
	return m->has_channel_case == WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL;
}

/* ------------------------------------------------------------------ protocol_send.c */

void protocol_send_welcome(struct conn *c, const char *id);
void protocol_send_config(struct conn *c, const char *id);
void protocol_send_ack(struct conn *c, const message *request);

/* ACKNOWLEDGE that says which capabilities are in force. */
void protocol_send_capabilities(struct conn *c, const message *request);

/*
 * Each refuses a message with an ERROR, a line in the log and a count; @m may be NULL. The
 * connection stays, unless a result of wire/msg says how to close it.
 */
void protocol_refuse(struct conn *c, const message *m, uint32_t code, const char *reason);
void protocol_refuse_result(struct conn *c, const message *m, uint32_t code, enum msg_result r);
void protocol_refuse_for_limit(struct conn *c, const message *m, uint32_t code,
			       const char *setting);

/* --------------------------------------------------------------- protocol_publish.c */

/*
 * Publish what a client sent through its membership; false when that was refused for want of
 * memory. A message goes as it came, except that its channel's name is added, and the user id
 * of who has to be somebody is put in.
 */
bool protocol_publish_message(struct conn *c, const message *m, struct member *through,
			      const uint8_t *p, size_t n);
bool protocol_publish_text(struct conn *c, struct member *through, const uint8_t *p, size_t n);

/* -------------------------------------------------------------- protocol_channels.c */

/* Longest list that is read of what a client sends: those of channels have a bound of their own. */
#define PROTOCOL_LIST_MIN 64 /* there is room for every capability */

static inline size_t protocol_max_list(const struct conn *c)
{
	return MAX(c->env->config->max_channels_per_client, (uint64_t)PROTOCOL_LIST_MIN);
}

/* The membership of its path's channel, which may have been left and joined again, or NULL. */
struct member *protocol_path_membership(struct conn *c);

void protocol_subscribe(struct conn *c, const message *m);
void protocol_unsubscribe(struct conn *c, const message *m);
