/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How far a client has got in a channel, and where it goes on after another connection: what
 * wsbind-protocol(7) says under Resuming, without sockets and clocks.
 *
 * It is set by the answer to a join, by the sequence of a message, by the second position of GAP
 * and by POSITION, and by nothing else: the ACKNOWLEDGE of what one has published has a place, too,
 * before which others may have said something that is still to come. What comes between leaving a
 * channel and the answer to the next join counts for nothing.
 */

#include "base/base.h"
#include "wire/msg.h"

#define POSITION_TEXT 42  /* "EPOCH.SEQUENCE", with its NUL */
#define POSITION_QUERY 72 /* "since=…&rewind=…", with its NUL */

/* A client's own, of one channel. All zero: the home, and nothing is known. */
struct WB_OWNER(holder) position {
	const char *channel; /* borrowed; NULL: there is the home alone, whatever it is called */
	uint64_t epoch;      /* 0: none is known */
	uint64_t sequence;   /* everything up to and with it is known */
	uint32_t rewind;     /* messages that are wanted first where that doesn't count; 0: none */
	bool is_joined;      /* the join was answered on this connection */
	bool has_missed;     /* something, which whoever reads has to fetch from elsewhere */
};

enum position_answer {
	POSITION_UNCHANGED, /* it was in the channel already */
	POSITION_BEGUN,     /* the first time, or there is no history and was none */
	POSITION_RECOVERED, /* nothing is missing */
	POSITION_LOST,      /* something is, or nobody knows: has_missed from here on */
};

/**
 * position_parse() - read "EPOCH.SEQUENCE"
 * @n:    bytes of @text
 *
 * Return:  0 | -EINVAL.
 * Thread:  any.
 */
WB_ANY_THREAD int position_parse(const char *text, size_t n, struct position *ret) WB_NODISCARD;

/* The same as a text; "" where none is known. Return: @out. */
char *position_format(char out[POSITION_TEXT], const struct position *p);

/* What the URL has to say of the home, without "?"; "" where there is nothing. Return: @out. */
char *position_format_query(char out[POSITION_QUERY], const struct position *p);

/* Whether SUBSCRIBE has to say more than the channel's name; then fills in what, all borrowed. */
bool position_fill(const struct position *p, Websocket__Position *ret);

/* The one of the channel that a message is of; NULL: none of these. */
struct position *position_find(struct position *list, size_t n,
			       const Websocket__WebSocketMessage *m);

/**
 * position_take_join() - the answer to a join has come
 * @said:   what CONFIG, or the ACKNOWLEDGE of SUBSCRIBE, has for this channel; NULL: nothing
 */
enum position_answer position_take_join(struct position *p, const Websocket__Position *said);

/* A message of the channel was delivered. */
void position_take_message(struct position *p, const Websocket__WebSocketMessage *m);

/* GAP: messages were passed over. False: it isn't one. */
bool position_take_gap(struct position *p, const Websocket__ControlMessage *control);

/* POSITION, of a replay's end or asked for; epoch 0: the channel has no history. */
void position_take(struct position *p, const Websocket__ControlMessage *control);

/* It is left, or the connection is gone. */
static inline void position_leave(struct position *p)
{
	p->is_joined = false;
}
