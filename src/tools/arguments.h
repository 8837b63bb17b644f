/* SPDX-License-Identifier: MIT */
#pragma once

/* The command line of a command that may have one operand: options of a table around it. */

#include "base/base.h"
#include "model/options.h"

/**
 * arguments_parse() - read a command line
 * @table:      its rows are flags and texts
 * @argv:       argv[0] is the command; ends with NULL; "--" ends the options
 * @into:       the struct that the rows' offsets mean
 * @source:     gets what concerns the configuration
 * @operand:    gets the argument that is no option; where the table has none, one is wrong
 * @wants_help: gets whether -h or --help was there
 *
 * Return:  NULL, all was understood | the first argument that was not.
 * Thread:  any.
 */
const char *arguments_parse(const struct option_table *table, char *const argv[], void *into,
			    struct config_source *source, const char **operand, bool *wants_help)
	WB_NODISCARD;
