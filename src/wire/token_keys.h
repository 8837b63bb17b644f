/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The keys that tokens may be signed with, each perhaps with a name (kid) of its own:
 * jwt_key_file. The bytes of the files come from whoever calls; nothing here opens any.
 */

#include "base/base.h"
#include "base/file_set.h"
#include "wire/token_key.h"

#define TOKEN_KEYS_MAX 32
#define TOKEN_KID_MAX 256      /* of a kid, its NUL included */
#define TOKEN_KEYS_WHY_MAX 400 /* text of what is wrong, its NUL included */

/* Frozen once made: any thread may verify with it. */
struct WB_FROZEN token_keys {
	struct WB_FROZEN token_named_key {
		char kid[TOKEN_KID_MAX]; /* "": none */
		char *file;
		struct token_key key;
	} at[TOKEN_KEYS_MAX];
	size_t n;
};

/**
 * token_keys_new() - read keys
 * @files:  [KID=]FILE, several with spaces between; all keys of a file have its KID
 * @set:    where they are read from
 * @why:    on failure: which file, and what is wrong with it
 *
 * A KID ends at the last "=" that a "/" stands behind, else at the last "="; "%" and two
 * hexadecimal digits in it are the byte with that number. A word that begins with "/" has none
 * where a file has that name.
 *
 * Return:  0 | -EINVAL | -ENOMEM.
 * Owns:    the caller, by token_keys_free().
 */
int token_keys_new(const char *files, struct file_set *set, struct token_keys **ret,
		   char why[TOKEN_KEYS_WHY_MAX]) WB_NODISCARD;

/* Whether a key of this token_key.id is one of them. */
WB_ANY_THREAD bool token_keys_have(const struct token_keys *keys, uint64_t id);

/* NULL is fine. Returns NULL. */
struct token_keys *token_keys_free(struct token_keys *keys);
