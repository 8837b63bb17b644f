/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "model/config_private.h"

/* Keys of a channel, and where each lies in struct config_channel, + 1; 0: it is none. */
static const size_t channel_offset[CONFIG_N_KEYS] = {
#define KEY(...)
#define CHANNEL_KEY(name, ...) [CONFIG_KEY_##name] = offsetof(struct config_channel, name) + 1,
#include "model/config_keys.h"
};

static size_t offset_of(const struct config_key *key)
{
	return channel_offset[key - config_keys];
}

bool config_key_is_of_channel(const struct config_key *key)
{
	return offset_of(key) != 0;
}

void config_channel_keys(char *out, size_t cap)
{
	size_t n = 0;

	out[0] = '\0';
	for (size_t i = 0; i < CONFIG_N_KEYS && n < cap; i++)
		if (channel_offset[i])
			n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "",
					      config_keys[i].name);
}

/* --------------------------------------------------------------------------- in the making */

int config_section_begin(struct config *c, const char *pattern)
{
	struct config_section *grown = reallocarray(c->section, c->n_sections + 1, sizeof(*grown));
	char *copy = strdup(pattern);

	if (grown)
		c->section = grown;
	if (!grown || !copy) {
		free(copy);
		return -ENOMEM;
	}
	c->section[c->n_sections++] = (struct config_section){.pattern = copy};
	return 0;
}

int config_section_set(struct config *c, const struct config_key *key, const struct config_value *v,
		       const char *name, unsigned line)
{
	struct config_section *s = &c->section[c->n_sections - 1];
	struct config_setting *grown = reallocarray(s->setting, s->n + 1, sizeof(*grown));
	char *origin = NULL;

	if (grown)
		s->setting = grown;
	if (!grown || asprintf(&origin, "%s:%u", name, line) < 0)
		return -ENOMEM;
	s->setting[s->n++] = (struct config_setting){key, *v, origin};
	return 0;
}

/* --------------------------------------------------------------------------- what holds */

static void channel_take(struct config_channel *ret, const struct config_setting *s)
{
	char *at = (char *)ret + offset_of(s->key) - 1;

	/* Numbers and choices alone: CHANNEL_KEY says so. */
	if (s->key->kind->storage == STORE_NUMBER)
		memcpy(at, &s->value.number, sizeof(s->value.number));
	else
		memcpy(at, &s->value.choice, sizeof(s->value.choice));
}

void config_for_channel(const struct config *c, const char *name, struct config_channel *ret)
{
	*ret = (struct config_channel){
#define KEY(...)
#define CHANNEL_KEY(name, ...) .name = c->name,
#include "model/config_keys.h"
	};
	for (size_t i = 0; i < c->n_sections; i++) {
		const struct config_section *s = &c->section[i];

		if (!text_matches(s->pattern, name))
			continue;
		for (size_t k = 0; k < s->n; k++)
			channel_take(ret, &s->setting[k]);
	}
}

bool config_keeps_history(const struct config *c)
{
	const struct config_key *key = &config_keys[CONFIG_KEY_history_messages];

	for (size_t i = 0; i < c->n_sections; i++)
		for (size_t k = 0; k < c->section[i].n; k++)
			if (c->section[i].setting[k].key == key &&
			    c->section[i].setting[k].value.number > 0)
				return true;
	return c->history_messages > 0;
}

/* -------------------------------------------------------------------------- showing them */

const char *config_pattern_shown(const char *pattern)
{
	return pattern[0] ? pattern : "/";
}

int config_sections_save(const struct config *c, FILE *out)
{
	for (size_t i = 0; i < c->n_sections; i++) {
		const struct config_section *s = &c->section[i];

		/* With a slash in front, which is dropped: the pattern may begin with another. */
		fprintf(out, "[channel /%s]\n", s->pattern);
		for (size_t k = 0; k < s->n; k++) {
			WB_CLEANUP(ptr_freep) char *value = NULL;

			if (config_format_value(s->setting[k].key, &s->setting[k].value, &value))
				return -ENOMEM;
			fprintf(out, "%s = %s\n", s->setting[k].key->name, value);
		}
	}
	return 0;
}

int config_sections_dump(const struct config *c, int key_columns, int value_columns,
			 int origin_columns, FILE *out)
{
	for (size_t i = 0; i < c->n_sections; i++) {
		const struct config_section *s = &c->section[i];

		fprintf(out, "\n[channel %s]\n", config_pattern_shown(s->pattern));
		for (size_t k = 0; k < s->n; k++) {
			const struct config_setting *is = &s->setting[k];
			WB_CLEANUP(ptr_freep) char *value = NULL;

			if (config_format_value(is->key, &is->value, &value))
				return -ENOMEM;
			fprintf(out, "%-*s  %-*s  %-*s  %s\n", key_columns, is->key->name,
				value_columns, value, origin_columns, is->origin,
				config_reload_text(is->key->reload));
		}
	}
	return 0;
}

/* ---------------------------------------------------------------------------- comparing */

/* The last that sections with that very pattern say of a key; NULL: nothing. */
static const struct config_setting *last_setting(const struct config *c, const char *pattern,
						 const struct config_key *key)
{
	for (size_t i = c->n_sections; i-- > 0;) {
		const struct config_section *s = &c->section[i];

		for (size_t k = s->n; strcmp(s->pattern, pattern) == 0 && k-- > 0;)
			if (s->setting[k].key == key)
				return &s->setting[k];
	}
	return NULL;
}

static bool has_pattern(const struct config *c, size_t n, const char *pattern)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(c->section[i].pattern, pattern) == 0)
			return true;
	return false;
}

static int setting_text(const struct config_setting *s, char **ret)
{
	if (s)
		return config_format_value(s->key, &s->value, ret);
	*ret = strdup("not set");
	return *ret ? 0 : -ENOMEM;
}

static int diff_setting(const struct config *was, const struct config *is, const char *pattern,
			const struct config_key *key, config_diff_fn *fn, void *ctx)
{
	const struct config_setting *a = last_setting(was, pattern, key);
	const struct config_setting *b = last_setting(is, pattern, key);
	WB_CLEANUP(ptr_freep) char *was_text = NULL;
	WB_CLEANUP(ptr_freep) char *is_text = NULL;
	WB_CLEANUP(ptr_freep) char *name = NULL;

	if (!a == !b && (!a || config_value_equal(key, &a->value, &b->value)))
		return 0;
	if (setting_text(a, &was_text) || setting_text(b, &is_text) ||
	    asprintf(&name, "[channel %s] %s", config_pattern_shown(pattern), key->name) < 0)
		return -ENOMEM;
	fn(ctx, key, name, was_text, is_text);
	return 0;
}

static int diff_pattern(const struct config *was, const struct config *is, const char *pattern,
			config_diff_fn *fn, void *ctx)
{
	int r = 0;

	for (size_t i = 0; i < CONFIG_N_KEYS && r == 0; i++)
		if (channel_offset[i])
			r = diff_setting(was, is, pattern, &config_keys[i], fn, ctx);
	return r;
}

static int diff_sections(const struct config *was, const struct config *is, config_diff_fn *fn,
			 void *ctx)
{
	int r = 0;

	/* Each pattern once: those that there are, then those that are gone. */
	for (size_t i = 0; i < is->n_sections && r == 0; i++)
		if (!has_pattern(is, i, is->section[i].pattern))
			r = diff_pattern(was, is, is->section[i].pattern, fn, ctx);
	for (size_t i = 0; i < was->n_sections && r == 0; i++)
		if (!has_pattern(was, i, was->section[i].pattern) &&
		    !has_pattern(is, is->n_sections, was->section[i].pattern))
			r = diff_pattern(was, is, was->section[i].pattern, fn, ctx);
	return r;
}

int config_diff(const struct config *was, const struct config *is, config_diff_fn *fn, void *ctx)
{
	for (size_t i = 0; i < CONFIG_N_KEYS; i++) {
		const struct config_key *key = &config_keys[i];
		struct config_value a = config_value_get(was, key);
		struct config_value b = config_value_get(is, key);
		WB_CLEANUP(ptr_freep) char *was_text = NULL;
		WB_CLEANUP(ptr_freep) char *is_text = NULL;

		/* By value: a key that is now set to its default has not changed. */
		if (config_value_equal(key, &a, &b))
			continue;
		if (config_format(was, key, &was_text) < 0 || config_format(is, key, &is_text) < 0)
			return -ENOMEM;
		fn(ctx, key, key->name, was_text, is_text);
	}
	return diff_sections(was, is, fn, ctx);
}
