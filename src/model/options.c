/* SPDX-License-Identifier: MIT */
#include "model/options.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/text.h"

#define SYNOPSIS_WIDTH 86
#define HELP_GAP 2 /* between the longest option and what is said of it */

/* What is being parsed, so that the helpers can say what is wrong with it. */
struct options_call {
	const struct option_table *table;
	void *into;
	FILE *err;
};

static void *options_member(const struct options_call *c, const struct option_row *row)
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
	*(uint64_t *)options_member(c, row) = n;
	return 0;
}

static int options_store(const struct options_call *c, const struct option_row *row,
			 const char *value)
{
	switch (row->kind) {
	case OPTION_FLAG:
		*(bool *)options_member(c, row) = true;
		return 0;
	case OPTION_TEXT:
		*(const char **)options_member(c, row) = value;
		return 0;
	default:
		return options_store_number(c, row, value);
	}
}

/* The row that an argument names, and the value that is part of the same argument, or NULL. */
static const struct option_row *options_find(const struct option_table *t, const char *arg,
					     const char **ret_value)
{
	for (size_t i = 0; i < t->n_rows; i++) {
		const struct option_row *row = &t->rows[i];
		size_t n = strlen(row->name);

		/* "-n5" has its value in it, while "-qv" is no flag and not two either. */
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

enum option_outcome options_take(const struct option_table *table, char *const argv[], int *i,
				 void *into, struct config_source *source, FILE *err)
{
	const struct options_call c = {.table = table, .into = into, .err = err};
	const char *arg = argv[*i], *value;
	const struct option_row *row;
	int r;

	if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0)
		return OPTION_IS_HELP;
	if (arg[0] != '-' || !arg[1])
		return OPTION_IS_OPERAND;
	row = options_find(table, arg, &value);
	/* The command's own options come first: a key of the configuration can't hide them. */
	if (!row) {
		r = config_source_take(source, argv, i);
		return r == 0                ? OPTION_TAKEN
		       : r == CONFIG_E_USAGE ? OPTION_LACKS_VALUE
					     : OPTION_IS_UNKNOWN;
	}
	if (row->kind == OPTION_FLAG && value)
		return OPTION_TAKES_NO_VALUE;
	if (row->kind != OPTION_FLAG && !value) {
		value = argv[*i + 1];
		if (!value)
			return OPTION_LACKS_VALUE;
		(*i)++;
	}
	(*i)++;
	return options_store(&c, row, value) == 0 ? OPTION_TAKEN : OPTION_IS_WRONG;
}

/* False: it takes none, or no more of them. */
static bool take_operand(const struct option_table *table, const char *arg, void *into)
{
	struct options_operands *o = (void *)((uint8_t *)into + table->operands);

	if (!table->operands || o->n == OPTIONS_MAX_OPERANDS)
		return false;
	o->text[o->n++] = arg;
	return true;
}

int options_parse(const struct option_table *table, char *const argv[], void *into,
		  struct config_source *source, FILE *err)
{
	static const char *const words[] = {
		[OPTION_IS_OPERAND] = "an argument is not expected",
		[OPTION_IS_UNKNOWN] = "no such option",
		[OPTION_LACKS_VALUE] = "its value is missing",
		[OPTION_TAKES_NO_VALUE] = "takes no value",
	};
	int i = 1;

	while (argv[i]) {
		const char *arg = argv[i];
		enum option_outcome r = options_take(table, argv, &i, into, source, err);

		if (r == OPTION_IS_OPERAND && take_operand(table, arg, into)) {
			i++;
			continue;
		}
		if (r == OPTION_TAKEN)
			continue;
		if (r == OPTION_IS_HELP)
			return OPTIONS_E_HELP;
		if (r != OPTION_IS_WRONG)
			fprintf(err, "wsbind %s: %s: %s; see wsbind %s --help\n", table->command,
				arg, words[r], table->command);
		return OPTIONS_E_USAGE;
	}
	return 0;
}

int options_load(const struct option_table *table, const struct config_source *source, FILE *err,
		 struct config **ret)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	WB_CLEANUP(config_errors_fini) struct config_errors again = {0};
	struct config_source without_file = *source;
	char shown[1024], prefix[64];
	int r = config_load(source, ret, &errors);

	/* The daemon's file is not the user's, who may not even be allowed to read it. */
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

/* ------------------------------------------------------------------------- help */

static void option_row_format_synopsis(const struct option_row *row, char *out, size_t cap)
{
	if (row->synopsis)
		snprintf(out, cap, "%s", row->synopsis);
	else if (row->letter && row->value)
		snprintf(out, cap, "[-%c %s]", row->letter, row->value);
	else
		snprintf(out, cap, "[--%s%s%s]", row->name, row->value ? " " : "",
			 row->value ? row->value : "");
}

/* Writes a part of the synopsis, on a line below the first part where it doesn't fit. */
static void synopsis_add(FILE *out, const char *part, int indent, int *column)
{
	int n = (int)strlen(part) + 1;

	if (*column + n > SYNOPSIS_WIDTH) {
		fprintf(out, "\n%*s", indent, "");
		*column = indent;
	}
	*column += n;
	fprintf(out, " %s", part);
}

void options_print_synopsis(const struct option_table *table, FILE *out)
{
	int indent = fprintf(out, "usage: wsbind %s", table->command);
	int column = indent;
	char part[80];

	for (size_t i = 0; i < table->n_rows; i++) {
		option_row_format_synopsis(&table->rows[i], part, sizeof(part));
		synopsis_add(out, part, indent, &column);
	}
	if (table->operand)
		synopsis_add(out, table->operand, indent, &column);
	synopsis_add(out, "[--config FILE]", indent, &column);
	synopsis_add(out, "[--KEY=VALUE ...]", indent, &column);
	fputc('\n', out);
}

static void option_row_format_name(const struct option_row *row, char *out, size_t cap)
{
	char letter[4] = "   ";

	if (row->letter)
		snprintf(letter, sizeof(letter), "-%c,", row->letter);
	snprintf(out, cap, "  %s --%s%s%s", letter, row->name, row->value ? " " : "",
		 row->value ? row->value : "");
}

/* The lines of one row: its name, and from @column on what it is. */
static void option_row_print(const struct option_row *row, int column, FILE *out)
{
	char name[80];
	const char *line = row->help;

	option_row_format_name(row, name, sizeof(name));
	while (line) {
		int n = (int)strcspn(line, "\n");

		fprintf(out, "%-*s%.*s\n", column, name, n, line);
		name[0] = '\0'; /* other lines have nothing before the column */
		line = line[n] ? line + n + 1 : NULL;
	}
}

void options_print_help(const struct option_table *table, FILE *out)
{
	static const struct option_row help = {.name = "help", .help = "print this text"};
	char name[80];
	int column = 0;

	options_print_synopsis(table, out);
	if (table->about)
		fprintf(out, "\n%s\n", table->about);
	for (size_t i = 0; i < table->n_rows; i++) {
		option_row_format_name(&table->rows[i], name, sizeof(name));
		column = MAX(column, (int)strlen(name) + HELP_GAP);
	}
	for (size_t i = 0; i < table->n_rows; i++)
		option_row_print(&table->rows[i], column, out);
	option_row_print(&help, column, out);
	if (table->ending)
		fprintf(out, "\n%s", table->ending);
}
