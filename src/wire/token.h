/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * JSON Web Tokens (RFC 7519) in their compact form, signed (RFC 7515): who may come in,
 * as whom, where to, until when.
 *
 * The algorithm is the key's, never what the token says: HS256 with a secret, RS256, ES256
 * or EdDSA (Ed25519, RFC 8037) with a public key; a token that names another one is refused
 * before anything is computed. `none` has no key, and so no token.
 *
 * OpenSSL verifies and jansson reads the JSON. Debian 12 has libraries for the whole, but
 * none that is still maintained knows EdDSA (libjwt 1.10, cjose 0.6, jose 11; rhonabwy has
 * been given up); they are made of these two, and what they would add is the splitting at
 * two dots. So it stands here, where it can be read at once.
 */

#include "base/base.h"

#define TOKEN_MAX 4096      /* bytes; a longer one is refused */
#define TOKEN_LEEWAY_S 60   /* that clocks may differ by */
#define TOKEN_SECRET_MIN 32 /* bytes of a secret: RFC 7518 section 3.2 */
#define TOKEN_USER_MAX 128  /* bytes of a user id */
#define TOKEN_WHY_MAX 400

/* What a token grants. One allocation; frozen. */
struct WB_FROZEN grant {
	uint64_t expires_s; /* Unix time; UINT64_MAX: never */
	bool may_publish;
	bool any_channel;    /* it names none */
	size_t n_patterns;   /* of channels that may be joined */
	const char *user_id; /* in text[], as the patterns are */
	const char **pattern;
	char text[];
};

enum token_result {
	TOKEN_OK,
	TOKEN_E_MALFORMED,
	TOKEN_E_ALGORITHM, /* of no key, or not that of the key it names */
	TOKEN_E_KEY,       /* kid of no key */
	TOKEN_E_SIGNATURE,
	TOKEN_E_EXPIRED,
	TOKEN_E_EARLY, /* nbf */
	TOKEN_E_CLAIMS,
	TOKEN_E_MEMORY,
};

struct token_keys;

/**
 * token_keys_new() - read keys
 * @files:  [KID=]FILE, several with spaces between. A file is a PEM public or private key, or
 *          holds a secret; one newline at its end is none of it. A key in another form (DER,
 *          JWK, SSH) is refused: as a secret it would be one that others know
 * @why:    on failure: which file, and what is wrong with it
 *
 * Return:  0 | -EINVAL | -ENOMEM.
 * Owns:    the caller, by token_keys_free(). Frozen; any thread may verify with it.
 */
int token_keys_new(const char *files, struct token_keys **ret, char why[TOKEN_WHY_MAX])
	WB_NODISCARD;
struct token_keys *token_keys_free(struct token_keys *keys);

/**
 * token_verify() - decide about a token
 * @now_s:  Unix time
 * @ret:    on TOKEN_OK
 *
 * A token with a kid is for the key of that name; one without is tried with every key of
 * its algorithm. Claims: sub (needed; the user id), exp, nbf, channels (patterns; none
 * given: all), publish (default true).
 *
 * Owns:    *@ret is the caller's, by free().
 * Thread:  any.
 */
WB_ANY_THREAD enum token_result token_verify(const struct token_keys *keys, const char *p, size_t n,
					     uint64_t now_s, struct grant **ret) WB_NODISCARD;

/* The result in words, for the log. */
WB_ANY_THREAD const char *token_result_text(enum token_result r);

/* What `wsbind token` puts into a token. */
struct WB_VALUE token_claims {
	const char *sub;
	const char *channels; /* patterns, spaces or commas between; NULL: none */
	uint64_t expires_s;   /* 0: never */
	bool may_publish;
};

/**
 * token_make() - sign a token with the first key
 *
 * Return:  its text, the caller's by free(); NULL: the key has no private part, or no memory.
 */
char *token_make(const struct token_keys *keys, const struct token_claims *claims) WB_NODISCARD;

/*
 * Whether somebody may be called so, whoever vouches for it: 1 to TOKEN_USER_MAX bytes without
 * control characters, and not "system", which is the daemon's own.
 */
WB_ANY_THREAD bool token_is_user_id(const char *text);

/**
 * grant_new() - what somebody may who was not asked for a token
 * @user_id: token_is_user_id()
 *
 * Return:  one that allows everything, the caller's by free(); NULL without memory.
 */
struct grant *grant_new(const char *user_id) WB_NODISCARD;

/**
 * grant_restore() - a grant as it was before
 * @like:   what it is to be; borrowed, text[] is not looked at
 *
 * Return:  NULL without memory, and when its user id could be of nobody.
 */
struct grant *grant_restore(const struct grant *like) WB_NODISCARD;

/**
 * grant_allows() - whether a channel may be joined
 *
 * In a pattern `*` stands for anything within a segment (up to the next "/"), `**` for
 * anything at all; everything else for itself.
 *
 * Cost:    O(channel * pattern).
 */
WB_ANY_THREAD bool grant_allows(const struct grant *g, const char *channel);
