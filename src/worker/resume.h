/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Clients that come back as themselves: with the client id and user id that they had, so that what
 * they said before is left out of what they missed, and nobody is told that they were away.
 *
 * Who brings a token and is believed (worker/registry) takes the id over. While another connection
 * has it still, that one ends first, on whichever worker it is, and nothing of the newcomer is read
 * or answered before: it is a member of nothing until then.
 */

#include "wire/http.h"
#include "worker/hub.h"

/* What a handshake says of it. */
struct WB_VALUE resume_asked {
	bool wants_token;
	struct http_text token; /* of an earlier connection; empty: none */
	uint32_t attempt;
};

enum resume_coming {
	RESUME_NEWCOMER,
	RESUME_AT_ONCE, /* it is the client that it says */
	RESUME_WAITS,   /* so it is, once another connection has ended: resume_wait() comes next */
};

/**
 * resume_begin() - who somebody is whose handshake is let in
 * @c: gets the id, serial and name of the client that it is
 *
 * Another connection of this worker that it takes over from is closed here.
 */
enum resume_coming resume_begin(struct hub *h, struct conn *c, const struct resume_asked *asked);

/**
 * resume_wait() - the channel that it will join when it may
 * @c: RESUME_WAITS; it is not read from here on
 *
 * Return: 0 | -ENOMEM.
 */
int resume_wait(struct hub *h, struct conn *c, const char *channel,
		const struct history_since *since) WB_NODISCARD;

/*
 * It is open: the other connection is asked to end. @fn is called on this worker when it has; not
 * if @c ends before.
 */
void resume_take_over(struct conn *c, void (*fn)(struct conn *c, const char *channel,
						 const struct history_since *since));

/*
 * A token for it, from here on; @out has room for RESUME_TOKEN_TEXT bytes. Return: its length; 0:
 * there is no memory for it.
 */
size_t resume_issue(struct conn *c, char *out);

/* It ends, whatever it had of all this. */
void resume_left(struct conn *c);
