/* SPDX-License-Identifier: MIT */
#include "model/options.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/text.h"

/* What is being parsed, so that the helpers can say what is wrong with it. */
struct options_call {
	const struct option_table *table;
	void *into;
	FILE *err;
};

static void *member_of(const struct options_call *c, const struct option_row *row)
{
	return (char *)c->into + row->offset;
}

static int options_store_number(const struct options_call *c, const struct option_row *row,
				const char *value)
{
	uint64_t n;
	int r = row->kind == OPTION_SIZE ? text_parse_size(value, &n) : text_parse_count(value, &n);

	if (r < 0 || n < row->min || n > row->max) {
		fprintf(c->err,
			"wsbind %s: --%s %s: not allowed; a whole number from %" PRIu64
			" to %" PRIu64 "\n",
			c->table->command, row->name, value, row->min, row->max);
		return OPTIONS_E_USAGE;
	}
	*(uint64_t *)member_of(c, row) = n;
	return 0;
}

static int options_store(const struct options_call *c, const struct option_row *row,
			 const char *value)
{
	if (row->kind == OPTION_TEXT) {
		*(const char **)member_of(c, row) = value;
		return 0;
	}
	return options_store_number(c, row, value);
}

/* The row that an argument names, and the value that is part of the same argument, or NULL. */
static const struct option_row *options_find(const struct option_table *t, const char *arg,
					     const char **ret_value)
{
	for (size_t i = 0; i < t->n_rows; i++) {
		const struct option_row *row = &t->rows[i];
		size_t n = strlen(row->name);

		*ret_value = NULL;
		if (arg[1] != '-' && row->letter && arg[1] == row->letter) {
			if (arg[2])
				*ret_value = arg + 2;
			if (!arg[2] || row->kind != OPTION_FLAG)
				return row;
		}
		if (arg[1] == '-' && strncmp(arg + 2, row->name, n) == 0 &&
		    (arg[n + 2] == '\0' || arg[n + 2] == '=')) {
			if (arg[n + 2])
				*ret_value = arg + n + 3;
			return row;
		}
	}
	return NULL;
}

static int options_complain(const struct options_call *c, const char *arg, const char *what)
{
	fprintf(c->err, "wsbind %s: %s: %s; see wsbind %s --help\n", c->table->command, arg, what,
		c->table->command);
	return OPTIONS_E_USAGE;
}

/* One option of the table; @i moves past it. */
static int options_take(const struct options_call *c, const struct option_row *row,
			const char *value, char *const argv[], int *i)
{
	const char *arg = argv[(*i)++];

	if (row->kind == OPTION_FLAG) {
		if (value)
			return options_complain(c, arg, "takes no value");
		*(bool *)member_of(c, row) = true;
		return 0;
	}
	if (!value)
		value = argv[*i] ? argv[(*i)++] : NULL;
	if (!value)
		return options_complain(c, arg, "its value is missing");
	return options_store(c, row, value);
}

int options_parse(const struct option_table *table, char *const argv[], void *into,
		  struct config_source *source, FILE *err)
{
	const struct options_call c = {.table = table, .into = into, .err = err};
	int i = 1, r = 0;

	while (r == 0 && argv[i]) {
		const char *arg = argv[i], *value;
		const struct option_row *row;

		if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0)
			return OPTIONS_E_HELP;
		if (arg[0] != '-' || !arg[1])
			return options_complain(&c, arg, "an argument is not expected");
		row = options_find(table, arg, &value);
		if (row) {
			r = options_take(&c, row, value, argv, &i);
			continue;
		}
		r = config_source_take(source, argv, &i);
		if (r != 0)
			return options_complain(&c, arg,
						r == CONFIG_E_USAGE ? "its value is missing"
								    : "no such option");
	}
	return r;
}

int options_load(const struct option_table *table, const struct config_source *source, FILE *err,
		 struct config **ret)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	WB_CLEANUP(config_errors_fini) struct config_errors again = {0};
	struct config_source without_file = *source;
	char shown[1024], prefix[64];
	int r = config_load(source, ret, &errors);

	if (r == CONFIG_E_INVALID && !source->file) {
		without_file.file = "/dev/null";
		if (config_load(&without_file, ret, &again) == 0) {
			text_escape(shown, sizeof(shown), errors.line[0], strlen(errors.line[0]));
			fprintf(err, "wsbind %s: %s is not used: %s\n", table->command,
				CONFIG_DEFAULT_FILE, shown);
			return 0;
		}
	}
	snprintf(prefix, sizeof(prefix), "wsbind %s: ", table->command);
	config_errors_print(&errors, prefix, err);
	if (r < 0)
		fprintf(err, "wsbind %s: %s\n", table->command, strerror(-r));
	return r == 0 ? 0 : r < 0 ? EXIT_FAILURE : OPTIONS_EXIT_CONFIG;
}
