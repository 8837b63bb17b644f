/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The keys that tokens may be signed with, each perhaps with a name (kid) of its own:
 * jwt_key_file. The bytes of the files come from whoever calls; nothing here opens any.
 */

#include "base/base.h"
#include "wire/token_key.h"

#define TOKEN_KEYS_MAX 16
#define TOKEN_KID_MAX 128      /* of a kid, its NUL included */
#define TOKEN_KEYS_WHY_MAX 400 /* text of what is wrong, its NUL included */

/* Frozen once made: any thread may verify with it. */
struct WB_FROZEN token_keys {
	struct WB_FROZEN token_named_key {
		char kid[TOKEN_KID_MAX]; /* "": none */
		struct token_key key;
	} at[TOKEN_KEYS_MAX];
	size_t n;
};

/* file_read(), or one like it. */
typedef int token_keys_read_fn(const char *path, void *out, size_t cap, size_t *ret_n);

/**
 * token_keys_new() - read keys
 * @files:  [KID=]FILE, several with spaces between
 * @read:   gives what a file holds, for token_key_load()
 * @why:    on failure: which file, and what is wrong with it
 *
 * Return:  0 | -EINVAL | -ENOMEM.
 * Owns:    the caller, by token_keys_free().
 */
int token_keys_new(const char *files, token_keys_read_fn *read, struct token_keys **ret,
		   char why[TOKEN_KEYS_WHY_MAX]) WB_NODISCARD;

/* NULL is fine. Returns NULL. */
struct token_keys *token_keys_free(struct token_keys *keys);
