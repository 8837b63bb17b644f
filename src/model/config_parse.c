/* SPDX-License-Identifier: MIT */
#include "model/config_private.h"

#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <string.h>

#include "base/text.h"
#include "model/config_kind.h"

/*
 * From text to values. A source is walked line by line; each line is looked at for what inih
 * would not see or would read as something else, then inih takes it apart, then its key is
 * looked up and its value set. Whatever is wrong becomes one diagnostic, "WHERE: KEY = VALUE:
 * what is wrong", and reading goes on: an administrator mends all of it in one go. The settings
 * of the command line come to the same two functions without inih.
 */

/* A key that differs from the nearest known one by more than this gets no suggestion. */
#define MAX_TYPOS 3
#define MAX_NAME 40
#define SHOWN_BYTES 120 /* of a wrong name or value, in a diagnostic */
#define CONFIG_PATTERN_MAX 255
#define BLANKS " \t\v\f\r"

/* Where in which source we are. The callback of inih gets it. */
struct config_parser {
	struct config *c;
	struct config_errors *errors;
	const char *name; /* of the file, or "command line" */
	unsigned line;    /* 0 on the command line */
	int result;       /* 0 | -ENOMEM */
	bool in_section;  /* keys are of the last section … */
	bool skips;       /* … or of one that is none: they were refused with it */
};

/* As much as a diagnostic shows, as it is; a cut is between characters. */
static char *text_shorten(char out[SHOWN_BYTES], const char *in)
{
	size_t n = strlen(in);

	if (n < SHOWN_BYTES)
		return strcpy(out, in);
	n = SHOWN_BYTES - sizeof("...");
	/* Back to where a character begins: half of one would be escaped, and look like rubbish. */
	while (n > 0 && ((unsigned char)in[n] & 0xc0) == 0x80)
		n--;
	memcpy(out, in, n);
	strcpy(out + n, "...");
	return out;
}

static const char *config_where(const struct config_parser *p, char *out, size_t cap)
{
	if (p->line)
		snprintf(out, cap, "%s:%u", p->name, p->line);
	else
		snprintf(out, cap, "%s", p->name);
	return out;
}

/* Edit distance between two names (Levenshtein), row by row. */
static size_t name_distance(const char *a, const char *b)
{
	size_t row[MAX_NAME + 1], n = strlen(b);

	/*
	 * Before the step of @i, row[j] is what the first i - 1 of @a are away from the first j of
	 * @b.
	 */
	WB_ASSERT(n <= MAX_NAME);
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t change = diagonal + (a[i - 1] != b[j - 1]);
			size_t add_or_drop = MIN(row[j], row[j - 1]) + 1;

			diagonal = row[j];
			row[j] = MIN(change, add_or_drop);
		}
	}
	return row[n];
}

static const struct config_key *config_key_nearest(const char *name)
{
	const struct config_key *nearest = NULL;
	/* Half of a name that is short may be anything: "mode" is no slip of "port". */
	size_t best = MIN((size_t)MAX_TYPOS, strlen(name) / 2) + 1;

	if (strlen(name) > MAX_NAME)
		return NULL;
	for (size_t i = 0; i < CONFIG_N_KEYS; i++) {
		size_t d = name_distance(name, config_keys[i].name);

		if (d < best) {
			best = d;
			nearest = &config_keys[i];
		}
	}
	return nearest;
}

static void config_unknown_key(struct config_parser *p, const char *where, const char *name,
			       const char *value)
{
	const struct config_key *key = config_key_find(name, strlen(name));
	char name_shown[SHOWN_BYTES], shown[SHOWN_BYTES];

	text_shorten(name_shown, name);
	text_shorten(shown, value);
	/* A key that is known all the same was written with dashes, in a file. */
	if (!key)
		key = config_key_nearest(name);
	if (key)
		config_errors_add(p->errors, "%s: %s = %s: unknown key; did you mean %s?", where,
				  name_shown, shown, key->name);
	else
		config_errors_add(p->errors,
				  "%s: %s = %s: unknown key; wsbind.conf(5) lists those there are",
				  where, name_shown, shown);
}

/* A value with a comment behind it is the likeliest reason for a bad one. */
static const char *config_hint(const struct config_key *key, const char *value)
{
	if (key->kind->storage == STORE_TEXT && key->kind != &config_kind_ADDRESS)
		return "";
	return strpbrk(value, "#;") ? "; a comment needs a line of its own" : "";
}

static void config_bad_value(struct config_parser *p, const char *where,
			     const struct config_key *key, const char *value,
			     enum config_value_result result, const struct config_value *v)
{
	char allowed[260], shown[SHOWN_BYTES], wrong[300];

	text_shorten(shown, value);
	config_value_allowed(key, allowed, sizeof(allowed));
	snprintf(wrong, sizeof(wrong), "not %s", key->kind->noun);
	if (v->part)
		snprintf(wrong, sizeof(wrong), "not %s: %.*s %s", key->kind->noun,
			 (int)MIN(v->part_n, (size_t)100), v->part, v->part_why);
	if (result == VALUE_E_RANGE)
		snprintf(wrong, sizeof(wrong), "%s",
			 key->kind->storage == STORE_TEXT ? "too long" : "out of range");
	config_errors_add(p->errors, "%s: %s = %s: %s; allowed: %s%s", where, key->name, shown,
			  wrong, allowed, config_hint(key, value));
}

static void config_assign(struct config_parser *p, const struct config_key *key, const char *value)
{
	char where[PATH_MAX + 16];
	struct config_value v = {0};
	enum config_value_result result = config_value_parse(key, value, &v);

	/* Later wins in this, too: a good value further on makes up for a bad one. */
	if (!p->in_section)
		p->errors->wrong[key - config_keys] = result != VALUE_OK;
	if (result != VALUE_OK) {
		config_bad_value(p, config_where(p, where, sizeof(where)), key, value, result, &v);
		return;
	}
	if (p->in_section) {
		p->result = config_section_set(p->c, key, &v, p->name, p->line);
		return;
	}
	p->result = config_value_set(p->c, key, &v);
	if (p->result == 0)
		p->result = config_set_origin(p->c, key, p->name, p->line);
}

/* A key that holds for all stands in a section: it would not do what it seems to say. */
static void config_not_of_channel(struct config_parser *p, const struct config_key *key,
				  const char *value)
{
	char where[PATH_MAX + 16], shown[SHOWN_BYTES], allowed[300];

	config_channel_keys(allowed, sizeof(allowed));
	config_errors_add(p->errors,
			  "%s: %s = %s: no key of a channel, so it belongs before the first "
			  "section; allowed here: %s",
			  config_where(p, where, sizeof(where)), key->name,
			  text_shorten(shown, value), allowed);
}

/* inih's callback: one key and its value. Keys of a file are written as they are named. */
static int config_on_pair(void *user, const char *section, const char *name, const char *value)
{
	struct config_parser *p = user;
	const struct config_key *key =
		strchr(name, '-') ? NULL : config_key_find(name, strlen(name));
	char where[PATH_MAX + 16];

	(void)section; /* each line is a document of its own: inih has none */
	if (p->skips)
		return 1;
	if (key && p->in_section && !config_key_is_of_channel(key))
		config_not_of_channel(p, key, value);
	else if (key)
		config_assign(p, key, value);
	else
		config_unknown_key(p, config_where(p, where, sizeof(where)), name, value);
	return 1;
}

/* inih's reader: hands out one line and then the end. */
static char *config_read_line(char *out, int cap, void *stream)
{
	char **line = stream;

	if (!*line) /* handed out before: the document ends */
		return NULL;
	snprintf(out, (size_t)cap, "%s", *line);
	*line = NULL;
	return out;
}

/*
 * inih gets each line as a document of its own. So every wrong line is found, and by its
 * number, where inih tells only the first; an indented line cannot continue the one before;
 * and a section holds for nothing. Inline comments are off: ';' and '#' are good in a value.
 * These are variables in the library of Debian (version 55).
 */
static int config_parse_pair(struct config_parser *p, char *line)
{
	int r;

	ini_allow_inline_comments = false;
	ini_allow_multiline = false;
	ini_allow_bom = false;
	ini_allow_no_value = false;
	ini_use_stack = false;
	ini_initial_alloc = CONFIG_MAX_LINE_BYTES + 3;
	r = ini_parse_stream(config_read_line, &line, config_on_pair, p);
	/* Every flaw was found before; what is left is want of memory. */
	WB_ASSERT(r == 0 || r == -2);
	return r < 0 ? -ENOMEM : p->result;
}

/* What inih would let pass, or would not tell from something else. NULL: nothing. */
static const char *config_line_flaw(const char *line, size_t n)
{
	/* What isspace() takes for a blank: inih sees what stands behind it. */
	const char *text = line + strspn(line, BLANKS);
	size_t key_bytes = strcspn(text, "=:");

	/* In the order in which one hides the next: what is too long was cut, a NUL ends a text. */
	if (n > CONFIG_MAX_LINE_BYTES)
		return "line too long; allowed: 4096 bytes";
	if (memchr(line, '\0', n))
		return "a NUL byte; allowed: text in UTF-8";
	/* Lines that end with it alone are one line, which is nothing when it begins with "#". */
	if (memchr(line, '\r', n))
		return "a carriage return in a line; allowed: lines that end with LF, or CR LF";
	if (*text == '\0' || *text == '#' || *text == ';' || *text == '[')
		return NULL;
	/* inih takes "key: value", too; the manual doesn't, and a URL would be cut at its colon. */
	if (text[key_bytes] != '=' || key_bytes == 0)
		return "no key and value; allowed: key = value";
	return NULL;
}

static bool is_pattern(const char *text)
{
	size_t n = strlen(text);

	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return false;
	return n <= CONFIG_PATTERN_MAX && utf8_valid(text, n);
}

/*
 * "[channel PATTERN]", up to its end. Return: NULL, keys are of that from here on; or what is
 * wrong, and they are of none.
 */
static const char *config_parse_section(struct config_parser *p, char *line)
{
	size_t n = strlen(line);
	char *pattern;

	p->in_section = false;
	p->skips = true;
	while (n > 0 && strchr(BLANKS, line[n - 1]))
		n--;
	if (line[n - 1] != ']')
		return "a section without its end; allowed: [channel PATTERN]";
	for (line[--n] = '\0'; n > 0 && strchr(BLANKS, line[n - 1]);)
		line[--n] = '\0';
	line++;
	line += strspn(line, BLANKS);
	if (strncmp(line, "channel", 7) != 0 || (line[7] && !strchr(BLANKS, line[7])))
		return "no such section; allowed: [channel PATTERN]";
	pattern = line + 7 + strspn(line + 7, BLANKS);
	if (!*pattern)
		return "a section needs a pattern, as in [channel room/**]; that of the lobby is /";
	/* As a path has it. */
	pattern += *pattern == '/';
	if (!is_pattern(pattern))
		return "no pattern of channels; allowed: at most 255 bytes of UTF-8 without "
		       "control characters";
	if (p->c->n_sections == CONFIG_MAX_SECTIONS)
		return "too many sections; allowed: 1000";
	p->result = config_section_begin(p->c, pattern);
	p->in_section = p->result == 0;
	p->skips = false;
	return NULL;
}

static int config_parse_line(struct config_parser *p, const char *text, size_t n)
{
	char line[CONFIG_MAX_LINE_BYTES + 1], where[PATH_MAX + 16], shown[SHOWN_BYTES];
	size_t copied = MIN(n, sizeof(line) - 1);
	const char *flaw;

	memcpy(line, text, copied);
	line[copied] = '\0';
	text_shorten(shown, line);
	flaw = config_line_flaw(line, n > CONFIG_MAX_LINE_BYTES ? n : copied);
	if (!flaw && line[strspn(line, BLANKS)] == '[')
		flaw = config_parse_section(p, line + strspn(line, BLANKS));
	else if (!flaw)
		return config_parse_pair(p, line);
	if (!flaw)
		return p->result;
	config_errors_add(p->errors, "%s: %s: %s", config_where(p, where, sizeof(where)), shown,
			  flaw);
	return 0;
}

int config_parse_lines(struct config *c, const char *name, const char *text, size_t n,
		       struct config_errors *errors)
{
	struct config_parser p = {.c = c, .errors = errors, .name = name};
	const char *end = text + n;
	int r;

	/* The mark of byte order that some editors begin a file of UTF-8 with. */
	if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		text += 3;
	while (text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		size_t length = (size_t)((newline ? newline : end) - text);

		p.line++;
		/* Lines may end as Windows ends them; a CR anywhere else is a control character. */
		if (length > 0 && text[length - 1] == '\r')
			length--;
		r = config_parse_line(&p, text, length);
		if (r < 0)
			return r;
		text = newline ? newline + 1 : end;
	}
	return 0;
}

int config_parse_overrides(struct config *c, const struct config_override *o, size_t n,
			   struct config_errors *errors)
{
	struct config_parser p = {.c = c, .errors = errors, .name = "command line"};
	char name[SHOWN_BYTES];

	for (size_t i = 0; i < n && p.result == 0; i++) {
		size_t key_bytes = strcspn(o[i].key, "=");
		const struct config_key *key = config_key_find(o[i].key, key_bytes);

		if (key) {
			config_assign(&p, key, o[i].value);
			continue;
		}
		/* As it would be named in a file, so that the nearest key is found. */
		snprintf(name, sizeof(name), "%.*s", (int)MIN(key_bytes, sizeof(name)), o[i].key);
		for (char *dash = name; (dash = strchr(dash, '-'));)
			*dash = '_';
		config_unknown_key(&p, p.name, name, o[i].value);
	}
	return p.result;
}
