/* SPDX-License-Identifier: MIT */
#include "wire/token_keys.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

/* Texts are "FILE: what is wrong with it". Return: -EINVAL. */
static int why_file(char why[TOKEN_KEYS_WHY_MAX], const char *file, const char *what)
{
	snprintf(why, TOKEN_KEYS_WHY_MAX, "%s: %s", file, what);
	return -EINVAL;
}

/* Makes keys of what the file holds, behind those that there are, and counts them. */
static int keys_load(struct token_keys *keys, const struct token_named_key *like, const uint8_t *p,
		     size_t n, char why[TOKEN_KEYS_WHY_MAX])
{
	struct token_key loaded[TOKEN_KEYS_MAX] = {0};
	size_t room = TOKEN_KEYS_MAX - keys->n, n_loaded = 0;
	enum token_key_result r = token_key_load(loaded, room, p, n, &n_loaded);

	/* It counts from here on: what was made of it in part is freed with the others. */
	for (size_t i = 0; i < n_loaded; i++) {
		struct token_named_key *k = &keys->at[keys->n++];

		strcpy(k->kid, like->kid);
		k->key = loaded[i];
		k->file = strdup(like->file);
		if (!k->file)
			r = TOKEN_KEY_E_MEMORY;
	}
	if (r == TOKEN_KEY_E_MEMORY)
		return -ENOMEM;
	return r == TOKEN_KEY_OK ? 0 : why_file(why, like->file, token_key_result_text(r));
}

static int keys_read(struct token_keys *keys, const struct token_named_key *like,
		     struct file_set *set, char why[TOKEN_KEYS_WHY_MAX])
{
	const uint8_t *content;
	size_t n;
	int r = file_set_read(set, like->file, &content, &n);

	if (r)
		return r == -ENOMEM ? r : why_file(why, like->file, file_result_text(r));
	return keys_load(keys, like, content, n, why);
}

/* Where the file begins in "[KID=]FILE". */
static char *word_file(char *word, struct file_set *set)
{
	char *equals = NULL, *last = strrchr(word, '=');
	const uint8_t *content;
	size_t n;

	/* A kid may have any character, in base64 "=" and "/" too; files begin with "/" mostly. */
	for (char *at = word; (at = strstr(at, "=/")); at++)
		equals = at;
	if (!last)
		return word;
	/* A path with "=" in it, and no kid before: that of a file that is there. */
	if (word[0] == '/' && (!equals || file_set_read(set, word, &content, &n) != -ENOENT))
		return word;
	return (equals ? equals : last) + 1;
}

/* "%2C" is a comma. False: it has no room. */
static bool kid_decode(const char *text, size_t n, char out[TOKEN_KID_MAX])
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned byte;
		int used = 0;

		if (len + 1 >= TOKEN_KID_MAX)
			return false;
		if (text[i] == '%' && i + 2 < n && isxdigit((unsigned char)text[i + 1]) &&
		    isxdigit((unsigned char)text[i + 2]) &&
		    sscanf(text + i + 1, "%2x%n", &byte, &used) == 1 && byte) {
			out[len++] = (char)byte;
			i += (size_t)used;
		} else {
			out[len++] = text[i];
		}
	}
	out[len] = '\0';
	return true;
}

/* Two files of one name: which of them is meant, nobody could say. */
static bool keys_have_kid(const struct token_keys *keys, const char *kid)
{
	for (size_t i = 0; i < keys->n; i++)
		if (strcmp(keys->at[i].kid, kid) == 0)
			return true;
	return false;
}

static int keys_add_word(struct token_keys *keys, const char *word, size_t n, struct file_set *set,
			 char why[TOKEN_KEYS_WHY_MAX])
{
	WB_CLEANUP(ptr_freep) char *text = strndup(word, n);
	struct token_named_key like = {0};

	if (!text)
		return -ENOMEM;
	like.file = word_file(text, set);
	if (like.file > text && !kid_decode(text, (size_t)(like.file - text) - 1, like.kid))
		return why_file(why, like.file, "its kid is too long");
	if (like.kid[0] && keys_have_kid(keys, like.kid))
		return why_file(why, like.file, "another key has this kid");
	return keys_read(keys, &like, set, why);
}

int token_keys_new(const char *files, struct file_set *set, struct token_keys **ret,
		   char why[TOKEN_KEYS_WHY_MAX])
{
	struct token_keys *keys = calloc(1, sizeof(*keys));
	int r = keys ? 0 : -ENOMEM;
	size_t n;

	snprintf(why, TOKEN_KEYS_WHY_MAX, "out of memory");
	for (const char *at = files; r == 0 && (n = text_next_word(&at)) > 0;)
		r = keys_add_word(keys, at - n, n, set, why);
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

bool token_keys_have(const struct token_keys *keys, uint64_t id)
{
	for (size_t i = 0; i < keys->n; i++)
		if (keys->at[i].key.id == id)
			return true;
	return false;
}

struct token_keys *token_keys_free(struct token_keys *keys)
{
	for (size_t i = 0; keys && i < keys->n; i++) {
		token_key_fini(&keys->at[i].key);
		free(keys->at[i].file);
	}
	free(keys);
	return NULL;
}
