/* SPDX-License-Identifier: MIT */
#include "wire/token_keys.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

#define FILE_MAX 65536 /* bytes of a key */

/* Texts are "FILE: what is wrong with it". Return: -EINVAL. */
static int why_file(char why[TOKEN_KEYS_WHY_MAX], const char *file, const char *what)
{
	snprintf(why, TOKEN_KEYS_WHY_MAX, "%s: %s", file, what);
	return -EINVAL;
}

static int key_read(struct token_key *k, const char *file, token_keys_read_fn *read,
		    char why[TOKEN_KEYS_WHY_MAX])
{
	uint8_t *content = malloc(FILE_MAX);
	enum token_key_result r;
	size_t n;
	int error;

	if (!content)
		return -ENOMEM;
	/* The caller's function: what files are, and which may be read, is not known here. */
	error = read(file, content, FILE_MAX, &n);
	if (error) {
		free(content);
		return why_file(why, file, file_result_text(error));
	}
	/* Even where it's refused it may be a secret, of too few bytes for instance. */
	r = token_key_load(k, content, n);
	/* The key has its own copy: no secret stays in memory that is given back. */
	OPENSSL_cleanse(content, n);
	free(content);
	if (r == TOKEN_KEY_E_MEMORY)
		return -ENOMEM;
	return r == TOKEN_KEY_OK ? 0 : why_file(why, file, token_key_result_text(r));
}

/* Takes the kid off "[KID=]FILE"; a path that begins with "/" may have a "=" in it. */
static const char *word_split(char *word, const char **ret_kid)
{
	char *equals = word[0] == '/' ? NULL : strchr(word, '=');

	*ret_kid = "";
	if (!equals)
		return word;
	*equals = '\0';
	*ret_kid = word;
	return equals + 1;
}

/* Two keys of one name: which of them is meant, nobody could say. */
static bool keys_have(const struct token_keys *keys, const char *kid)
{
	for (size_t i = 0; i < keys->n; i++)
		if (strcmp(keys->at[i].kid, kid) == 0)
			return true;
	return false;
}

static int keys_add_word(struct token_keys *keys, const char *word, size_t n,
			 token_keys_read_fn *read, char why[TOKEN_KEYS_WHY_MAX])
{
	WB_CLEANUP(ptr_freep) char *text = strndup(word, n);
	struct token_named_key *k = &keys->at[keys->n];
	const char *file, *kid;

	if (!text)
		return -ENOMEM;
	if (keys->n == TOKEN_KEYS_MAX)
		return why_file(why, text, "more than 16 keys");
	file = word_split(text, &kid);
	if (strlen(kid) >= sizeof(k->kid))
		return why_file(why, file, "its kid is too long");
	if (kid[0] && keys_have(keys, kid))
		return why_file(why, file, "another key has this kid");
	/* It counts from here on: what key_read() makes of it in part is freed with the others. */
	keys->n++;
	strcpy(k->kid, kid);
	return key_read(&k->key, file, read, why);
}

int token_keys_new(const char *files, token_keys_read_fn *read, struct token_keys **ret,
		   char why[TOKEN_KEYS_WHY_MAX])
{
	struct token_keys *keys = calloc(1, sizeof(*keys));
	int r = keys ? 0 : -ENOMEM;
	size_t n;

	snprintf(why, TOKEN_KEYS_WHY_MAX, "out of memory");
	for (const char *at = files; r == 0 && (n = text_next_word(&at)) > 0;)
		r = keys_add_word(keys, at - n, n, read, why);
	/* Without a key nobody could come in: rather say so at the start. */
	if (r == 0 && keys->n == 0)
		r = why_file(why, "jwt_key_file", "names no file");
	if (r) {
		token_keys_free(keys);
		return r;
	}
	*ret = keys;
	return 0;
}

struct token_keys *token_keys_free(struct token_keys *keys)
{
	for (size_t i = 0; keys && i < keys->n; i++)
		token_key_fini(&keys->at[i].key);
	free(keys);
	return NULL;
}
