/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What a client brings that was connected before: who it was, signed by the server. Whoever has
 * the key can read it without having seen the client: another process, or one that comes after a
 * crash. It is a text of base64url (RFC 4648 section 5), so that it stands in a URL or among
 * subprotocols as it is.
 *
 * Layout, before base64url: a byte for version and flags, client id (16), number (8, big endian),
 * user id, HMAC-SHA-256 (32) of all before it.
 */

#include "base/base.h"
#include "wire/grant.h"

#define RESUME_KEY_BYTES 32
/* Digits of the longest, with a NUL: three bytes make four. */
#define RESUME_TOKEN_TEXT ((1 + 16 + 8 + GRANT_USER_MAX + 32 + 2) / 3 * 4 + 1)

/* A secret, of the process or of all that share a file. */
struct WB_VALUE resume_key {
	uint8_t byte[RESUME_KEY_BYTES];
};

struct WB_VALUE resume_token {
	uint8_t id[16];  /* client id */
	uint64_t number; /* grows with each token of that id, from 1 */
	bool is_subject; /* somebody vouched for the user id: a token, a certificate */
	char user_id[GRANT_USER_MAX + 1]; /* what others knew it by */
};

/* Draws a new secret. Return: 0 | -errno: the kernel gives no random numbers. Thread: any. */
int resume_key_draw(struct resume_key *ret) WB_NODISCARD;

/*
 * The key that a secret of any length makes. Return: false: SHA-256 is not to be had. Thread:
 * any.
 */
bool resume_key_from(struct resume_key *ret, const void *secret, size_t n) WB_NODISCARD;

/* The text of a token. Return: its length; 0: it cannot be signed. Thread: any. */
WB_ANY_THREAD size_t resume_token_write(const struct resume_key *key, const struct resume_token *t,
					char out[RESUME_TOKEN_TEXT]);

/**
 * resume_token_read() - what a token says, if it is one of this key
 * @p:      @n bytes, whatever they are
 *
 * Return:  false: it is not.
 * Thread:  any.
 */
WB_ANY_THREAD bool resume_token_read(const struct resume_key *key, const char *p, size_t n,
				     struct resume_token *ret) WB_NODISCARD;
