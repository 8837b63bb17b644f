/* SPDX-License-Identifier: MIT */
#pragma once

/* What the files of model/config share beside config.h: a snapshot in the making. */

#include "model/config.h"

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
