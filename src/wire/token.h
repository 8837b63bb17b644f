/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * JSON Web Tokens (RFC 7519) in their compact form, signed (RFC 7515): who may come in,
 * as whom, where to, until when.
 *
 * A token that names another algorithm than the key has is refused before anything is
 * computed (RFC 8725 section 3.1); `none` has no key, and so no token.
 *
 * OpenSSL verifies and jansson reads the JSON. Debian 12 has libraries for the whole, but
 * none that is still maintained knows EdDSA (libjwt 1.10, cjose 0.6, jose 11; rhonabwy has
 * been given up); they are made of these two, and what they would add is the splitting at
 * two dots. So it stands here, where it can be read at once.
 */

#include "base/base.h"
#include "wire/grant.h"
#include "wire/token_keys.h"

#define TOKEN_MAX 8192    /* bytes; a longer one is refused */
#define TOKEN_LEEWAY_S 60 /* that clocks may differ by */

enum token_result {
	TOKEN_OK,
	TOKEN_E_MALFORMED,
	TOKEN_E_LONG,      /* more than TOKEN_MAX */
	TOKEN_E_ALGORITHM, /* of no key, or not that of the key it names */
	TOKEN_E_KEY,       /* kid of no key */
	TOKEN_E_SIGNATURE,
	TOKEN_E_EXPIRED,
	TOKEN_E_EARLY,  /* nbf */
	TOKEN_E_CLAIMS, /* no object of JSON */
	TOKEN_E_SUB,
	TOKEN_E_CHANNELS,
	TOKEN_E_PUBLISH,
	TOKEN_E_EXP,
	TOKEN_E_NBF,
	TOKEN_E_MILLISECONDS, /* exp or nbf, by their size */
	TOKEN_E_AUDIENCE,     /* aud does not hold the one that is asked for */
	TOKEN_E_AUDIENCE_UNASKED,
	TOKEN_E_ISSUER,
	TOKEN_E_MEMORY,
	TOKEN_N_RESULTS,
};

/* What is asked of a token beside its signature. */
struct WB_VALUE token_rules {
	const char *audience; /* that aud must hold; "": no token may have one */
	const char *issuer;   /* that iss must be; "": any */
};

/**
 * token_verify() - decide about a token
 * @now_s:  Unix time
 * @ret:    on TOKEN_OK
 *
 * A token with a kid is for the keys of that name, and for those that have none; one without
 * is tried with every key of its algorithm. Claims: sub (needed; the user id), exp, nbf, aud
 * (RFC 7519 section 4.1.3: a token for somebody else is refused), iss, channels (patterns;
 * none given: all), publish (default true).
 *
 * Owns:    *@ret is the caller's, by free().
 * Thread:  any.
 */
WB_ANY_THREAD enum token_result token_verify(const struct token_keys *keys,
					     const struct token_rules *rules, const char *p,
					     size_t n, uint64_t now_s, struct grant **ret)
	WB_NODISCARD;

/* The result in words, for the log. */
WB_ANY_THREAD const char *token_result_text(enum token_result r);

/* What `wsbind token` puts into a token. */
struct WB_VALUE token_claims {
	const char *sub;
	const char *channels; /* patterns, spaces or commas between; NULL: none */
	const char *audience; /* aud; "": none */
	const char *issuer;   /* iss; "": none */
	uint64_t expires_s;   /* 0: never */
	bool may_publish;
};

/**
 * token_make() - sign a token with the first key
 *
 * Return:  its text, the caller's by free(); NULL: the key has no private part, or no memory.
 */
char *token_make(const struct token_keys *keys, const struct token_claims *claims) WB_NODISCARD;
