/* SPDX-License-Identifier: MIT */
#include "model/config.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "model/config_kind.h"
#include "model/config_private.h"

/*
 * Two pages that are made of the table of keys alone, so that neither can say anything that
 * isn't so: what is in force and where it comes from, and a file to begin with.
 */

#define TEMPLATE_COLUMNS 92
#define MAX_VALUE_COLUMNS 44 /* a longer value pushes the rest of its line aside */

/* One line of the dump; the texts are its own. */
struct dump_row {
	const struct config_key *key;
	char *value;
};

/* A full disk shows when the last bytes are written, or never. */
static int dump_finish(FILE *out)
{
	return fflush(out) == 0 && !ferror(out) ? 0 : -EIO;
}

/* The value as it is shown: on one line, and never nothing. */
static char *config_shown(const struct config *c, const struct config_key *key)
{
	static const char empty[] = "(empty)";
	WB_CLEANUP(ptr_freep) char *value = NULL;
	size_t cap;
	char *shown;

	if (config_format(c, key, &value) < 0)
		return NULL;
	/* Each byte may become \xNN. */
	cap = MAX(4 * strlen(value) + 1, sizeof(empty));
	shown = malloc(cap);
	if (!shown)
		return NULL;
	if (*value)
		text_escape(shown, cap, value, strlen(value));
	else
		memcpy(shown, empty, sizeof(empty));
	return shown;
}

static int dump_print(const struct config *c, const struct dump_row *row, FILE *out)
{
	size_t key_columns = strlen("KEY"), value_columns = strlen("VALUE");
	size_t origin_columns = strlen("ORIGIN");

	/* As wide as their longest text, but one long value shall not push all others away. */
	for (size_t i = 0; i < CONFIG_N_KEYS; i++) {
		key_columns = MAX(key_columns, strlen(row[i].key->name));
		value_columns = MAX(value_columns, strlen(row[i].value));
		origin_columns = MAX(origin_columns, strlen(config_origin(c, row[i].key)));
	}
	value_columns = MIN(value_columns, (size_t)MAX_VALUE_COLUMNS);
	fprintf(out, "%-*s  %-*s  %-*s  RELOAD\n", (int)key_columns, "KEY", (int)value_columns,
		"VALUE", (int)origin_columns, "ORIGIN");
	for (size_t i = 0; i < CONFIG_N_KEYS; i++)
		fprintf(out, "%-*s  %-*s  %-*s  %s\n", (int)key_columns, row[i].key->name,
			(int)value_columns, row[i].value, (int)origin_columns,
			config_origin(c, row[i].key), config_reload_text(row[i].key->reload));
	return config_sections_dump(c, (int)key_columns, (int)value_columns, (int)origin_columns,
				    out);
}

int config_dump(const struct config *c, FILE *out)
{
	struct dump_row row[CONFIG_N_KEYS] = {0};
	int r = 0;

	/* All texts first: their widths are those of the columns, and a half dump helps nobody. */
	for (size_t i = 0; i < CONFIG_N_KEYS && r == 0; i++) {
		row[i].key = &config_keys[i];
		row[i].value = config_shown(c, row[i].key);
		if (!row[i].value)
			r = -ENOMEM;
	}
	if (r == 0)
		r = dump_print(c, row, out);
	if (r == 0)
		r = dump_finish(out);
	for (size_t i = 0; i < CONFIG_N_KEYS; i++)
		free(row[i].value);
	return r;
}

int config_save(const struct config *c, FILE *out)
{
	for (size_t i = 0; i < CONFIG_N_KEYS; i++) {
		WB_CLEANUP(ptr_freep) char *value = NULL;

		/*
		 * A default is left out, so that it is still none: it never stands against a key.
		 */
		if (!c->origin[i])
			continue;
		if (config_format(c, &config_keys[i], &value) < 0)
			return -ENOMEM;
		fprintf(out, "%s = %s\n", config_keys[i].name, value);
	}
	return config_sections_save(c, out) ? -ENOMEM : dump_finish(out);
}

/* Prints words in lines that begin with "# ". */
static void template_wrap(const char *text, FILE *out)
{
	size_t column = 0;

	/* Word by word; one that is wider than a line stands alone on it and sticks out. */
	while (*text) {
		size_t n = strcspn(text, " ");

		if (column > 0 && column + 1 + n > TEMPLATE_COLUMNS) {
			fputc('\n', out);
			column = 0;
		}
		column += (size_t)fprintf(out, "%s%.*s", column ? " " : "# ", (int)n, text);
		text += n + strspn(text + n, " ");
	}
	fputc('\n', out);
}

static void template_key(const struct config_key *key, FILE *out)
{
	static const char *const reload[] = {
		[RELOAD_LIVE] = "A reload applies it",
		[RELOAD_NEW_CONN] = "A reload applies it to new connections",
		[RELOAD_RESTART] = "Needs a restart",
	};
	char allowed[200], line[300];

	/* tests/lint/man-keys.sh reads this form, and compares it with wsbind.conf(5). */
	config_value_allowed(key, allowed, sizeof(allowed));
	snprintf(line, sizeof(line), "Allowed: %s. %s.", allowed, reload[key->reload]);
	/*
	 * Commented out: a key that is set would stay so when a later version has another default.
	 */
	fputc('\n', out);
	template_wrap(key->help, out);
	template_wrap(line, out);
	fprintf(out, "#%s =%s%s\n", key->name, *key->dflt ? " " : "", key->dflt);
}

int config_template(FILE *out)
{
	/* Headings stand among the keys in the table; each row here has one of the two. */
	static const struct {
		const char *heading;
		const struct config_key *key;
	} row[] = {
#define GROUP(text) {.heading = (text)},
#define KEY(name, ...) {.key = &config_keys[CONFIG_KEY_##name]},
#include "model/config_keys.h"
	};

	fputs("# Configuration of wsbind, with the default of every key. See wsbind.conf(5).\n"
	      "#\n"
	      "# A line is \"key = value\", or a comment that begins with \"#\". Files in\n"
	      "# /etc/wsbind.conf.d whose names end in .conf are read after this one, and\n"
	      "# options of the command line (--key=value) come last; later wins.\n"
	      "# \"wsbind check-config\" tells what is wrong, \"wsbind reload\" applies changes.\n"
	      "#\n"
	      "# Some keys may be set for some channels alone, at the end of a file:\n"
	      "#\n"
	      "# [channel market/**]\n"
	      "# slow_consumer = skip\n",
	      out);
	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		if (row[i].heading)
			fprintf(out, "\n\n## %s\n", row[i].heading);
		else
			template_key(row[i].key, out);
	}
	return dump_finish(out);
}
