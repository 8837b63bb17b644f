/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What somebody may: who it is, which channels it may join, whether it may publish, until
 * when. A token grants it, or a certificate; where nobody is asked for either, there is none.
 */

#include "base/base.h"

#define GRANT_USER_MAX 128 /* bytes of a user id */

/* One allocation; frozen once its patterns are in. */
struct WB_FROZEN grant {
	uint64_t expires_s; /* Unix time; UINT64_MAX: never */
	uint64_t key_id;    /* of the key that signed the token; 0: none did, or it isn't known */
	bool may_publish;
	bool any_channel;    /* it names none */
	size_t n_patterns;   /* of channels that may be joined */
	const char *user_id; /* in text[], as the patterns are */
	const char **pattern;
	char *end; /* of what text[] holds */
	char text[];
};

/*
 * Whether somebody may be called so, whoever vouches for it: 1 to GRANT_USER_MAX bytes without
 * control characters, and not "system", which is the daemon's own.
 */
WB_ANY_THREAD bool grant_is_user_id(const char *text);

/**
 * grant_new() - a grant that allows everything, to be limited
 * @user_id:       grant_is_user_id()
 * @n_patterns:    that grant_add_pattern() may add
 * @pattern_bytes: of all of them, their NULs included
 *
 * Return:  the caller's, by free(); NULL without memory.
 */
struct grant *grant_new(const char *user_id, size_t n_patterns, size_t pattern_bytes) WB_NODISCARD;

/* Adds a pattern, for which grant_new() made room. any_channel stays what it is. */
void grant_add_pattern(struct grant *g, const char *pattern);

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
