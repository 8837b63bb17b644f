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

/*
 * One option: -X VALUE, --name VALUE or --name=VALUE. Parser and --help of a command follow from
 * its rows, and from --help its completion and the check of its man page.
 */
struct WB_FROZEN option_row {
	char letter; /* 0: none */
	const char *name;
	enum option_kind kind;
	size_t offset; /* of its member in the struct that is filled */
	uint64_t min, max;
	const char *value;    /* what its value is called; NULL: it takes none */
	const char *synopsis; /* with its brackets; NULL: made of the others */
	const char *help; /* what --help says of it, with line breaks; NULL: the synopsis is all */
};

/* A row of the struct @type_, which @member is in; @kind_ without its OPTION_. */
#define OPTION_ROW(type_, letter_, name_, kind_, member, min_, max_, value_, synopsis_, help_) \
	{                                                                                      \
		.letter = (letter_), .name = (name_), .kind = OPTION_##kind_,                  \
		.offset = offsetof(type_, member), .min = (min_), .max = (max_),               \
		.value = (value_), .synopsis = (synopsis_), .help = (help_)                    \
	}

#define OPTIONS_MAX_OPERANDS 64

/* Arguments that are no options, borrowed from argv. */
struct WB_FROZEN options_operands {
	const char *text[OPTIONS_MAX_OPERANDS];
	size_t n;
};

struct WB_FROZEN option_table {
	const char *command; /* "client" */
	const char *operand; /* "TEXT"; NULL: none */
	size_t operands;     /* offset of the struct options_operands that takes them; 0: none */
	const char *about; /* of its help, between the synopsis and the options; with line breaks */
	const char *ending; /* behind the options */
	const struct option_row *rows;
	size_t n_rows;
};

enum options_result {
	OPTIONS_E_HELP = 1, /* -h or --help */
	OPTIONS_E_USAGE,    /* what is wrong has been said */
};

/* What one argument turned out to be. */
enum option_outcome {
	OPTION_TAKEN,
	OPTION_IS_HELP,    /* -h or --help */
	OPTION_IS_OPERAND, /* no option: "-" alone, or without a dash */
	OPTION_IS_UNKNOWN,
	OPTION_LACKS_VALUE,
	OPTION_TAKES_NO_VALUE,
	OPTION_IS_WRONG, /* its value; what is wrong has been said */
};

/**
 * options_take() - read one option with its value
 * @i:      index in @argv, which is not at its end; moves past what was taken
 * @into:   the struct that the rows' offsets mean
 * @source: gets what concerns the configuration
 * @err:    gets a line for OPTION_IS_WRONG
 *
 * Return:  OPTION_TAKEN | another outcome: for the caller to word.
 * Thread:  any.
 */
enum option_outcome options_take(const struct option_table *table, char *const argv[], int *i,
				 void *into, struct config_source *source, FILE *err) WB_NODISCARD;

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

/* The lines "usage: wsbind …" that the rows make. */
void options_print_synopsis(const struct option_table *table, FILE *out);

/* All of --help: synopsis, about, a line or more for each row, ending. */
void options_print_help(const struct option_table *table, FILE *out);
