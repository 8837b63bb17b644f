/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of the protocol share. They form a ladder: protocol_send.c (what is
 * said to one client), protocol_publish.c (what goes to a channel), protocol_channels.c
 * (what a client asks about channels), protocol.c (all that a client says, and its coming
 * and going). Nobody else includes it.
 */

#include <string.h>

#include "conn/conn.h"
#include "wire/frame_variant.h"
#include "wire/msg.h"
#include "worker/hub.h"

typedef Websocket__WebSocketMessage message;

/* Whether a message says itself where it goes; else that is the channel of its sender's path. */
static inline bool message_names_channel(const message *m)
{
	return m->has_channel_case == WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL;
}

/* ------------------------------------------------------------------ protocol_send.c */

/*
 * @id, @user: its own; @home: where it begins in the channel of its path, which it is in;
 * @with_token: it gets a resume token.
 */
void protocol_send_welcome(struct conn *c, const char *id, const char *user);
void protocol_send_config(struct conn *c, const char *id, const char *user,
			  const struct hub_joined *home, bool with_token);

/* What an answer says of where a member begins. @ret borrows @channel. False: nothing. */
bool protocol_joined_position(const struct hub_joined *joined, const char *channel,
			      Websocket__Position *ret);
void protocol_send_heartbeat(struct conn *c, const message *request);
void protocol_send_ack(struct conn *c, const message *request);
/* The same with positions of channels that were joined. */
void protocol_send_positions(struct conn *c, const message *request, Websocket__Position **list,
			     size_t n);

/* ACKNOWLEDGE that says which capabilities are in force; with a resume token, or without. */
void protocol_send_capabilities(struct conn *c, const message *request, bool with_token);

/*
 * Each refuses a message with an ERROR, a line in the log and a count; @m may be NULL. The
 * connection stays, unless a result of wire/msg says how to close it.
 */
void protocol_refuse(struct conn *c, const message *m, uint32_t code, const char *reason);
/* Of a channel, which the ERROR names; NULL: of none. */
void protocol_refuse_in(struct conn *c, const message *m, uint32_t code, const char *reason,
			const char *channel);
/* The log has the reason, the client no more than @shown. */
void protocol_refuse_quietly(struct conn *c, const message *m, uint32_t code, const char *reason,
			     const char *shown);
void protocol_refuse_result(struct conn *c, const message *m, uint32_t code, enum msg_result r);
void protocol_refuse_for_limit(struct conn *c, const message *m, uint32_t code, const char *setting,
			       const char *channel);

/* --------------------------------------------------------------- protocol_publish.c */

#define PROTOCOL_AT_ONCE_BYTES ((size_t)128 * 1024) /* longer messages are for protocol_work() */

/* Where a message is made that will be kept. */
struct WB_OWNER(worker) publication_place {
	struct shm_heap *heap;
	struct shm_slot *slot; /* of a large one, until it is the frame's */
	size_t placed;         /* bytes of @slot that have pages */
	size_t sealed;         /* bytes of the frame that are in its checksum */
	bool has_key;          /* it is to be published once */
	bool is_done;          /* the slot has all its pages, or there is none */
};

/* A message on its way into a channel. */
struct WB_OWNER(worker) publication {
	struct frame *f;               /* what will be published */
	const struct msg_spots *spots; /* of the message, borrowed; NULL: of a text */
	unsigned n_pieces, at_piece;
	size_t copied; /* of that piece */
	size_t checked;
	uint32_t crc; /* of the first @checked bytes of its data */
	bool is_kept; /* it will be: @place is set */
	bool is_complete;
	bool is_digesting, is_once; /* @digest is under way; @once is set */
	/* What is copied of the message, borrowed, and where it goes. Not looked at before. */
	struct msg_piece piece[MSG_STAMP_PIECES];
	size_t digested; /* bytes of the message, with those that are left out … */
	unsigned at_cut; /* … the next of which is this */
	struct siphash digest;
	struct history_once once;
	struct publication_place place;
	struct msg_said said;     /* behind what its sender wrote; with @f */
	struct frame_forms forms; /* what others need instead */
};

/* Nothing of a message is done yet, or anything any more. */
static inline void publication_init(struct publication *pub)
{
	memset(pub, 0, offsetof(struct publication, piece));
	frame_forms_init_none(&pub->forms);
}

enum publication_result {
	PUBLICATION_DONE,    /* it is published */
	PUBLICATION_MORE,    /* the share is used up: go on in a later turn */
	PUBLICATION_REFUSED, /* and the client was told */
};

/**
 * protocol_publish_run() - publish what a client sent through its membership, or go on with it
 * @m:       NULL: a text
 * @p:       the bytes that @m was decoded from; the same in each call
 *
 * A message goes as it came, except that its channel's name is added, and the user id of who has
 * to be somebody is put in. Before that its checksum is looked at, and what members need
 * unpacked, packed or deflated is made. All of it is the client's work, and it is charged for
 * what was unpacked. After PUBLICATION_MORE nobody has seen anything of it.
 */
enum publication_result protocol_publish_run(struct conn *c, struct publication *pub,
					     const message *m, struct member *through,
					     const uint8_t *p, size_t n);

/* In any state; before it is used again comes publication_init(). */
void publication_fini(struct publication *pub);

/* Bytes that it holds beside the message, of which its frame is a copy that takes its place. */
size_t publication_bytes(const struct publication *pub);

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
void protocol_position(struct conn *c, const message *m);
