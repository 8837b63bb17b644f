/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The command line of a command that is no daemon: options of a table, and beside
 * them --config and --KEY=VALUE of every key of the configuration.
 */

#include <stdio.h>

#include "base/base.h"
#include "model/config.h"

#define OPTIONS_EXIT_USAGE 2
#define OPTIONS_EXIT_CONFIG 78 /* as sysexits.h has it */

enum option_kind {
	OPTION_FLAG,  /* bool */
	OPTION_TEXT,  /* const char *, borrowed from argv */
	OPTION_COUNT, /* uint64_t */
	OPTION_SIZE,  /* uint64_t, with K, M, G */
};

/* One option: -X VALUE, --name VALUE or --name=VALUE. */
struct WB_FROZEN option_row {
	char letter; /* 0: none */
	const char *name;
	enum option_kind kind;
	size_t offset; /* of its member in the struct that is filled */
	uint64_t min, max;
};

struct WB_FROZEN option_table {
	const char *command; /* "client" */
	const char *usage;
	const struct option_row *rows;
	size_t n_rows;
};

enum options_result {
	OPTIONS_E_HELP = 1, /* -h or --help */
	OPTIONS_E_USAGE,    /* what is wrong has been said */
};

/**
 * options_parse() - read a command line
 * @argv:   argv[0] is the command; ends with NULL
 * @into:   the struct that the rows' offsets mean; members of options not given stay
 * @source: gets what concerns the configuration
 * @err:    gets one line when something is wrong
 *
 * Return:  0 | OPTIONS_E_HELP | OPTIONS_E_USAGE.
 * Thread:  any.
 */
int options_parse(const struct option_table *table, char *const argv[], void *into,
		  struct config_source *source, FILE *err) WB_NODISCARD;

/**
 * options_load() - make a snapshot of the configuration for a command that is no daemon
 *
 * The default file may be wrong or not for this user to read: then it is left out and
 * @err says so. One that was named, and what the command line says, has to be right.
 *
 * Return:  0 | OPTIONS_EXIT_CONFIG | 1 out of memory; said to @err.
 * Owns:    *@ret is the caller's reference.
 * Thread:  any, but one at a time.
 */
int options_load(const struct option_table *table, const struct config_source *source, FILE *err,
		 struct config **ret) WB_NODISCARD;
