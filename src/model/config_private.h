/* SPDX-License-Identifier: MIT */
#pragma once

/* What the files of model/config share beside config.h: a snapshot in the making. */

#include "model/config.h"
#include "model/config_kind.h"

/* A key in a section. Its value is a number or a choice. */
struct WB_FROZEN config_setting {
	const struct config_key *key;
	struct config_value value;
	char *origin; /* "FILE:LINE" */
};

/* [channel PATTERN]: what holds for the channels that have it. */
struct WB_FROZEN config_section {
	char *pattern;                  /* without the slash in front; "": the lobby */
	struct config_setting *setting; /* in their order */
	size_t n;
};

/**
 * config_new() - a snapshot that holds the defaults
 *
 * Return:  0 | -ENOMEM.
 * Owns:    *@ret is the caller's reference.
 */
int config_new(struct config **ret) WB_NODISCARD;

/**
 * config_set_origin() - note where the value of a key came from
 * @line:   0 when @name is not a file
 *
 * Return:  0 | -ENOMEM.
 */
int config_set_origin(struct config *c, const struct config_key *key, const char *name,
		      unsigned line) WB_NODISCARD;

/**
 * config_check() - compare the values of different keys with each other
 *
 * Return:  0, what disagrees is in @errors | -ENOMEM.
 */
int config_check(const struct config *c, struct config_errors *errors) WB_NODISCARD;

/**
 * config_parse_lines() - read the text of a file into a snapshot in the making
 * config_parse_overrides() - the same with the settings of the command line
 *
 * Return:  0, what is wrong is in @errors | -ENOMEM.
 * Thread:  as config_load().
 */
int config_parse_lines(struct config *c, const char *name, const char *text, size_t n,
		       struct config_errors *errors) WB_NODISCARD;
int config_parse_overrides(struct config *c, const struct config_override *o, size_t n,
			   struct config_errors *errors) WB_NODISCARD;

/* Whether a section may have it; and the names of those that may be, as a list. */
bool config_key_is_of_channel(const struct config_key *key);
void config_channel_keys(char *out, size_t cap);

/* Another section, and a value in the last one. Return: 0 | -ENOMEM. */
int config_section_begin(struct config *c, const char *pattern) WB_NODISCARD;
int config_section_set(struct config *c, const struct config_key *key, const struct config_value *v,
		       const char *name, unsigned line) WB_NODISCARD;

/* The pattern as it is written: the lobby's is "/". */
const char *config_pattern_shown(const char *pattern);

/* What config_save() and config_dump() do with sections. Return: 0 | -ENOMEM. */
int config_sections_save(const struct config *c, FILE *out) WB_NODISCARD;
int config_sections_dump(const struct config *c, int key_columns, int value_columns,
			 int origin_columns, FILE *out) WB_NODISCARD;

/* One value as text that reads as the same. Return: 0 | -ENOMEM. */
int config_format_value(const struct config_key *key, const struct config_value *v, char **ret)
	WB_NODISCARD;
