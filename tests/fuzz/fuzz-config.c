/* SPDX-License-Identifier: MIT */
/*
 * Configuration files; the input is the text of one. It is refused with lines that
 * can be shown and name lines that there are, or makes a snapshot; then that snapshot's keys and
 * values, written down, make an equal one, and the dump shows exactly these values.
 */
#include "fuzz.h"

#include <stdio.h>

#include "base/text.h"
#include "model/config.h"

static void differs(void *ctx, const struct config_key *key, const char *name, const char *was,
		    const char *is)
{
	(void)ctx;
	(void)key;
	fprintf(stderr, "%s: was '%s', is '%s'\n", name, was, is);
	abort();
}

/* What is printed is text of one line for each error, whatever the file had. */
static void check_errors(const struct config_errors *errors)
{
	size_t n = 0, lines = errors->n + (errors->n_lost > 0);
	char *text = NULL;
	FILE *out = open_memstream(&text, &n);

	WB_ASSERT(errors->n > 0 && errors->n <= CONFIG_MAX_ERRORS && out);
	config_errors_print(errors, "wsbind: ", out);
	WB_ASSERT(fclose(out) == 0 && utf8_valid(text, n));
	for (size_t i = 0; i < n; i++) {
		lines -= text[i] == '\n';
		WB_ASSERT(text[i] == '\n' || ((unsigned char)text[i] >= ' ' && text[i] != 0x7f));
	}
	WB_ASSERT(lines == 0);
	free(text);
}

static char *format(const struct config *c, const struct config_key *key)
{
	char *value = NULL;
	int r = config_format(c, key, &value);

	WB_ASSERT(r == 0 && value && utf8_valid(value, strlen(value)));
	return value;
}

static bool is_default(const struct config *c, size_t i)
{
	return strcmp(config_origin(c, &config_keys[i]), "default") == 0;
}

static void check_again(const struct config *c)
{
	struct config_errors errors = {0};
	struct config *again = NULL;
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	int r;

	/*
	 * Defaults are left out: one may stand beside a value that it could not be written beside.
	 */
	WB_ASSERT(out);
	r = config_save(c, out);
	WB_ASSERT(r == 0 && fclose(out) == 0);
	r = config_parse_text("again", text, n, &again, &errors);
	if (r && errors.n)
		fprintf(stderr, "%s\n", errors.line[0]);
	WB_ASSERT(r == 0 && errors.n == 0);
	r = config_diff(c, again, differs, NULL);
	WB_ASSERT(r == 0);
	for (size_t i = 0; i < CONFIG_N_KEYS; i++)
		WB_ASSERT(is_default(c, i) == is_default(again, i));
	r = config_keep_running(again, c);
	WB_ASSERT(r == 0);
	WB_ASSERT(again->n_sections == c->n_sections);
	config_unref(again);
	free(text);
}

/* One line for each key behind the heading, which begins with the key and has its value. */
static void check_dump(const struct config *c)
{
	char *dump = NULL, *line, *rest = NULL;
	size_t n = 0, i = 0;
	FILE *out = open_memstream(&dump, &n);
	int r;

	WB_ASSERT(out);
	r = config_dump(c, out);
	WB_ASSERT(r == 0 && fclose(out) == 0);
	line = strtok_r(dump, "\n", &rest);
	/* Sections come behind all of them. */
	for (line = strtok_r(NULL, "\n", &rest); line && i < CONFIG_N_KEYS;
	     line = strtok_r(NULL, "\n", &rest), i++) {
		size_t key_bytes = strlen(config_keys[i].name);
		char *value = format(c, &config_keys[i]);
		char shown[4 * CONFIG_MAX_LINE_BYTES + 1];

		text_escape(shown, sizeof(shown), *value ? value : "(empty)",
			    strlen(*value ? value : "(empty)"));
		WB_ASSERT(strncmp(line, config_keys[i].name, key_bytes) == 0);
		line += key_bytes + strspn(line + key_bytes, " ");
		WB_ASSERT(strncmp(line, shown + strspn(shown, " "), strlen(shown)) == 0);
		free(value);
	}
	WB_ASSERT(i == CONFIG_N_KEYS);
	free(dump);
}

/* Takes the lines out of a text that its errors name. Return: true when there were any. */
static bool drop_named_lines(char *text, size_t n, const struct config_errors *errors)
{
	bool dropped = false;

	for (size_t i = 0; i < errors->n; i++) {
		char *line = text, *end = text + n;
		unsigned number = 0;

		if (sscanf(errors->line[i], "fuzz:%u:", &number) != 1)
			continue;
		while (--number && line < end) {
			line = memchr(line, '\n', (size_t)(end - line));
			WB_ASSERT(line); /* there is such a line */
			line++;
		}
		WB_ASSERT(line < end);
		dropped |= *line != '#';
		while (line < end && *line != '\n')
			*line++ = '#';
	}
	return dropped;
}

/*
 * Refuses or takes one text. Where it is refused, the lines that are to blame are
 * dropped, so that what stands beside a mistake is looked at as well.
 */
static bool try_text(char *text, size_t n)
{
	struct config_errors errors = {0};
	struct config *config = NULL;
	int r = config_parse_text("fuzz", text, n, &config, &errors);
	bool again = false;

	WB_ASSERT(r == 0 || r == CONFIG_E_INVALID);
	WB_ASSERT((r == 0) == (config != NULL) && (r == 0) == (errors.n == 0));
	if (r) {
		check_errors(&errors);
		again = drop_named_lines(text, n, &errors);
	} else {
		check_again(config);
		check_dump(config);
		config_unref(config);
	}
	config_errors_fini(&errors);
	return again;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_copy(data, size);

	for (int i = 0; i < 3 && try_text(text, size); i++)
		;
	free(text);
	return 0;
}
