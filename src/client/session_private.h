/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the files of a session call of each other. Each calls those above it in this list:
 * session_end.c, session_resume.c, session_once.c, session.c.
 */

#include "client/session.h"

/* session_end.c */

/* The last call of a session: done(), once. */
void session_finish(struct session *s, int status);

/* session_resume.c */

/* The request_ids of a session begin with the same bytes, whichever connection sends them. */
void session_init_id(struct session *s);
void session_next_id(struct session *s, uint8_t ret[16]);
bool session_is_own(const struct session *s, const Websocket__WebSocketMessage *m);

/* Whether a message answers the request with that id. */
bool session_is_answer_to(const Websocket__WebSocketMessage *m, const uint8_t id[16]);

/* A session begins: its positions are the group's. Return: 0 | -ENOMEM. */
int session_init_positions(struct session *s) WB_NODISCARD;

/* What the next connection says of the home, and who it is. */
void session_bring_position(struct session *s);

/* CONFIG or the answer to CONNECT: brings the next resume token, or none. */
void session_take_token(struct session *s, const Websocket__ControlMessage *control);

/* Another connection has its token: the next one comes as a newcomer. */
void session_drop_token(struct session *s);

/* A connection is open: joins the channels beside the home. Return: 0 | -ENOMEM. */
int session_subscribe(struct session *s) WB_NODISCARD;

/* The connection is gone. */
void session_leave_all(struct session *s);

/* CONFIG, which answers the join of the home. */
void session_take_config(struct session *s, const Websocket__WebSocketMessage *m);

/* An ACKNOWLEDGE or ERROR. False: it answers something else than a SUBSCRIBE of this file. */
bool session_take_join(struct session *s, const Websocket__WebSocketMessage *m);

/* GAP and POSITION. */
void session_take_gap(struct session *s, const Websocket__WebSocketMessage *m);
void session_take_position(struct session *s, const Websocket__WebSocketMessage *m);

/* A message of others, or one's own of an earlier connection: moves the position of its channel. */
void session_take_sequence(struct session *s, const Websocket__WebSocketMessage *m);

/* session_once.c */

/* A message is on its way; kept until it is answered, where it can be sent again. */
void session_note_said(struct session *s, const struct msg_builder *b, const uint8_t id[16]);

/* An ACKNOWLEDGE or ERROR. False: it answers none of these. */
bool session_take_said(struct session *s, const Websocket__WebSocketMessage *m);

/* The home is joined again: sends what was not answered. Return: 0 | -ENOMEM. */
int session_say_again(struct session *s);

void session_forget_said(struct session *s);
