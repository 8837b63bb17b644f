/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * By what a message is known again: its request_id, and a digest of the bytes that its sender
 * wrote. Each channel with history has a set of those that asked for it; a key goes with its
 * message. Whoever holds the set has a lock for it.
 *
 * Two messages are the same where both are: request_ids are drawn at random, and who knows that of
 * another's message, which all members see, and sends other bytes with it would have to find some
 * with the same digest, whose secret the server never tells.
 */

#include "base/base.h"
#include "containers/table.h"

#define HISTORY_KEY_BYTES 64 /* what each takes of history_memory, with what malloc adds */

struct WB_VALUE history_key {
	uint8_t id[16];  /* request_id */
	uint64_t digest; /* of the whole message but for what marks a resend */
};

struct WB_OWNER(holder) history_keyed {
	struct table_node node;     /* by the digest */
	struct history_keyed *next; /* younger */
	struct history_key key;
	uint64_t seq; /* of the message */
};

struct WB_OWNER(holder) history_keys {
	struct table by_digest;
	struct history_keyed *oldest, *youngest;
	size_t n;
};

/* Return: NULL without memory. Owns: the caller's, until history_keys_add() or free(). */
struct history_keyed *history_keyed_new(const struct history_key *key);

/* An empty set. Return: NULL without memory. */
struct history_keys *history_keys_new(void);

/* With all that is in it; NULL is fine. Return: how many there were. */
size_t history_keys_free(struct history_keys *k);

/* The message with this key; NULL: none. @k may be NULL. */
const struct history_keyed *history_keys_find(const struct history_keys *k,
					      const struct history_key *key);

/* @keyed becomes the set's, for the message at @seq, which is younger than all in it. */
void history_keys_add(struct history_keys *k, struct history_keyed *keyed, uint64_t seq);

/* Those of messages up to @seq go. @k may be NULL. Return: how many. */
size_t history_keys_drop(struct history_keys *k, uint64_t seq);
