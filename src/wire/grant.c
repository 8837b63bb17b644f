/* SPDX-License-Identifier: MIT */
#include "wire/grant.h"

#include <string.h>

#include "base/text.h"

bool grant_is_user_id(const char *text)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i++)
		if ((uint8_t)text[i] < ' ' || text[i] == 0x7f)
			return false;
	return n > 0 && n <= GRANT_USER_MAX && strcmp(text, "system") != 0;
}

struct grant *grant_new(const char *user_id, size_t n_patterns, size_t pattern_bytes)
{
	const size_t align = sizeof(char *);
	size_t user_n = strlen(user_id) + 1;
	/* The texts come first; the pointers to the patterns lie behind them, aligned. */
	size_t texts = sizeof(struct grant) + user_n + pattern_bytes;
	size_t offset = (texts + align - 1) / align * align;
	struct grant *g = calloc(1, offset + n_patterns * sizeof(char *));

	if (!g)
		return NULL;
	g->expires_s = UINT64_MAX;
	g->may_publish = true;
	g->any_channel = true;
	g->pattern = (const char **)(void *)((char *)g + offset);
	memcpy(g->text, user_id, user_n);
	g->user_id = g->text;
	g->end = g->text + user_n;
	return g;
}

void grant_add_pattern(struct grant *g, const char *pattern)
{
	size_t n = strlen(pattern) + 1;

	memcpy(g->end, pattern, n);
	g->pattern[g->n_patterns++] = g->end;
	g->end += n;
}

struct grant *grant_restore(const struct grant *like)
{
	struct grant *g;
	size_t bytes = 0;

	/* What it was made of comes from a state, which may be anybody's work. */
	if (!grant_is_user_id(like->user_id))
		return NULL;
	for (size_t i = 0; i < like->n_patterns; i++)
		bytes += strlen(like->pattern[i]) + 1;
	g = grant_new(like->user_id, like->n_patterns, bytes);
	if (!g)
		return NULL;
	g->expires_s = like->expires_s;
	g->key_id = like->key_id;
	g->may_publish = like->may_publish;
	g->any_channel = like->any_channel;
	for (size_t i = 0; i < like->n_patterns; i++)
		grant_add_pattern(g, like->pattern[i]);
	return g;
}

bool grant_allows(const struct grant *g, const char *channel)
{
	for (size_t i = 0; i < g->n_patterns; i++)
		if (text_matches(g->pattern[i], channel))
			return true;
	return g->any_channel;
}
