/* SPDX-License-Identifier: MIT */
#include "model/config_kind.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <syslog.h>

#include "base/ip.h"
#include "base/origin.h"
#include "base/text.h"

/*
 * A value goes through here in three steps. The parser of its kind makes a struct config_value
 * of the text; the bounds of the key, themselves read by that parser, are held against it; the
 * storage of the kind says what type the member of struct config has that it is put into. So
 * a new kind is a parser, a row below, and a CONFIG_MEMBER_ in config.h.
 */

/* ----------------------------------------------------------------------- parsers */

/*
 * What a text of a kind is, whatever the bounds of its key. Return: 0 | -EINVAL it is none |
 * -ERANGE it is one that no key could take.
 */
static int parse_size(const struct config_kind *k, const char *text, struct config_value *ret)
{
	(void)k;
	return text_parse_size(text, &ret->number);
}

static int parse_duration(const struct config_kind *k, const char *text, struct config_value *ret)
{
	(void)k;
	return text_parse_duration(text, &ret->number);
}

static int parse_count(const struct config_kind *k, const char *text, struct config_value *ret)
{
	(void)k;
	return text_parse_count(text, &ret->number);
}

static int parse_port(const struct config_kind *k, const char *text, struct config_value *ret)
{
	int r;

	(void)k;
	if (strcasecmp(text, "off") == 0) {
		ret->number = CONFIG_PORT_OFF;
		return 0;
	}
	r = text_parse_count(text, &ret->number);
	return r == 0 && ret->number > UINT16_MAX ? -ERANGE : r;
}

static char *format_port(char *out, size_t cap, uint64_t number)
{
	if (number == CONFIG_PORT_OFF)
		snprintf(out, cap, "off");
	else
		snprintf(out, cap, "%" PRIu64, number);
	return out;
}

/* "5%", "5 %" or "5". */
static int parse_percent(const struct config_kind *k, const char *text, struct config_value *ret)
{
	size_t n = strlen(text);
	char digits[24];

	(void)k;
	if (n > 0 && text[n - 1] == '%')
		n--;
	if (n < strlen(text) && n > 0 && text[n - 1] == ' ')
		n--;
	if (n == 0 || n >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, text, n);
	digits[n] = '\0';
	return text_parse_count(digits, &ret->number);
}

static char *format_percent(char *out, size_t cap, uint64_t number)
{
	snprintf(out, cap, "%" PRIu64 "%%", number);
	return out;
}

/* Three or four octal digits. */
static int parse_mode(const struct config_kind *k, const char *text, struct config_value *ret)
{
	size_t n = strlen(text);

	/* "660" is octal, with the zero in front and without: chmod(1) reads it so, too. */
	(void)k;
	if (n < 1 || n > 4 || strspn(text, "01234567") != n)
		return -EINVAL;
	ret->number = strtoul(text, NULL, 8);
	return 0;
}

static char *format_mode(char *out, size_t cap, uint64_t number)
{
	snprintf(out, cap, "0%03o", (unsigned)number);
	return out;
}

static int parse_real(const struct config_kind *k, const char *text, struct config_value *ret)
{
	(void)k;
	return text_parse_real(text, &ret->real);
}

static int parse_bool(const struct config_kind *k, const char *text, struct config_value *ret)
{
	bool yes = false;
	int r = text_parse_bool(text, &yes);

	(void)k;
	ret->choice = yes;
	return r;
}

static int parse_choice(const struct config_kind *k, const char *text, struct config_value *ret)
{
	for (const struct config_choice *c = k->choice; c->name; c++) {
		if (strcasecmp(c->name, text) == 0) {
			ret->choice = c->value;
			return 0;
		}
	}
	return -EINVAL;
}

/* A control character in a setting is a slip of the editor, and would end up in log lines. */
static int parse_text(const struct config_kind *k, const char *text, struct config_value *ret)
{
	(void)k;
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return -EINVAL;
	ret->text = text;
	ret->number = strlen(text);
	return utf8_valid(text, ret->number) ? 0 : -EINVAL;
}

static int parse_address(const struct config_kind *k, const char *text, struct config_value *ret)
{
	struct in6_addr any;

	if (inet_pton(AF_INET, text, &any) != 1 && inet_pton(AF_INET6, text, &any) != 1)
		return -EINVAL;
	return parse_text(k, text, ret);
}

static int parse_prefixes(const struct config_kind *k, const char *text, struct config_value *ret)
{
	struct ip_prefix ignored;
	size_t n;

	for (const char *at = text; (n = text_next_word(&at)) > 0;)
		if (ip_prefix_parse(at - n, n, &ignored) < 0)
			return -EINVAL;
	return parse_text(k, text, ret);
}

/* Every word has to be one that a browser's Origin can match. */
static int parse_origins(const struct config_kind *k, const char *text, struct config_value *ret)
{
	const char *why = "";
	size_t n;

	for (const char *at = text; (n = text_next_word(&at)) > 0;) {
		why = origin_flaw(at - n, n);
		if (why) {
			ret->part = at - n;
			ret->part_n = n;
			ret->part_why = why;
			return -EINVAL;
		}
	}
	/* Nothing at all is a template without its variable, and no way to say "any". */
	return why ? -EINVAL : parse_text(k, text, ret);
}

static int parse_url_path(const struct config_kind *k, const char *text, struct config_value *ret)
{
	/* It is compared with the path of a request, which has no query any more by then. */
	if (*text && (*text != '/' || strpbrk(text, "?# ")))
		return -EINVAL;
	return parse_text(k, text, ret);
}

/*
 * ------------------------------------------------------------------------- choices
 *
 * The first name of a value is the one that is shown; what follows with the same value is
 * read as well.
 */
static const struct config_choice auths[] = {
	{"none", AUTH_NONE},
	{"jwt", AUTH_JWT},
	{NULL, 0},
};

static const struct config_choice log_levels[] = {
	{"emerg", LOG_EMERG},
	{"alert", LOG_ALERT},
	{"crit", LOG_CRIT},
	{"err", LOG_ERR},
	{"error", LOG_ERR},
	{"warning", LOG_WARNING},
	{"warn", LOG_WARNING},
	{"notice", LOG_NOTICE},
	{"info", LOG_INFO},
	{"debug", LOG_DEBUG},
	{NULL, 0},
};

static const struct config_choice on_stops[] = {
	{"auto", ON_STOP_AUTO},
	{"keep", ON_STOP_KEEP},
	{"close", ON_STOP_CLOSE},
	{NULL, 0},
};

static const struct config_choice rate_actions[] = {
	{"throttle", RATE_THROTTLE},
	{"close", RATE_CLOSE},
	{NULL, 0},
};

static const struct config_choice slow_consumers[] = {
	{"disconnect", SLOW_DISCONNECT},
	{"skip", SLOW_SKIP},
	{"history", SLOW_HISTORY},
	{NULL, 0},
};

static const struct config_choice stamps[] = {
	{"auto", STAMP_AUTO},
	{"yes", STAMP_YES},
	{"no", STAMP_NO},
	{NULL, 0},
};

static const struct config_choice text_messages[] = {
	{"log", TEXT_LOG},
	{"relay", TEXT_RELAY},
	{"reject", TEXT_REJECT},
	{NULL, 0},
};

/*
 * --------------------------------------------------------------------------- kinds
 *
 * Noun and syntax are for diagnostics, the template and the man page: "not NOUN; allowed:
 * SYNTAX". A kind of choices needs no syntax, for its names are that.
 */
const struct config_kind config_kind_ADDRESS = {
	.storage = STORE_TEXT,
	.noun = "an address",
	.syntax = "an IPv4 or IPv6 address in numbers",
	.parse = parse_address,
};

const struct config_kind config_kind_AUTH = {
	.storage = STORE_CHOICE,
	.noun = "a known kind of authentication",
	.choice = auths,
	.parse = parse_choice,
};

const struct config_kind config_kind_BOOL = {
	.storage = STORE_BOOL,
	.noun = "yes or no",
	.syntax = "yes, no, true, false, on, off, 1, 0",
	.parse = parse_bool,
};

const struct config_kind config_kind_COUNT = {
	.storage = STORE_NUMBER,
	.noun = "a number",
	.syntax = "%s",
	.parse = parse_count,
};

const struct config_kind config_kind_DURATION = {
	.storage = STORE_NUMBER,
	.noun = "a duration",
	.syntax = "%s (seconds, or with ms, s, m, h)",
	.parse = parse_duration,
	.format = text_format_duration,
};

const struct config_kind config_kind_LOG_LEVEL = {
	.storage = STORE_CHOICE,
	.noun = "a log level",
	.choice = log_levels,
	.parse = parse_choice,
};

const struct config_kind config_kind_MODE = {
	.storage = STORE_NUMBER,
	.noun = "permissions",
	.syntax = "octal digits, %s",
	.parse = parse_mode,
	.format = format_mode,
};

const struct config_kind config_kind_ON_STOP = {
	.storage = STORE_CHOICE,
	.noun = "a known action",
	.choice = on_stops,
	.parse = parse_choice,
};

const struct config_kind config_kind_ORIGINS = {
	.storage = STORE_TEXT,
	.noun = "a list of origins",
	.syntax = "* for any, or origins as browsers send them, with spaces between: "
		  "https://example.org, https://example.org:8443, *.example.org; %s bytes",
	.parse = parse_origins,
};

const struct config_kind config_kind_PERCENT = {
	.storage = STORE_NUMBER,
	.noun = "a percentage",
	.syntax = "%s, with or without %",
	.parse = parse_percent,
	.format = format_percent,
};

const struct config_kind config_kind_PORT = {
	.storage = STORE_NUMBER,
	.noun = "a number",
	.syntax = "off, or 0 to 65535",
	.parse = parse_port,
	.format = format_port,
};

const struct config_kind config_kind_PREFIXES = {
	.storage = STORE_TEXT,
	.noun = "a list of addresses and prefixes",
	.syntax =
		"addresses in numbers and prefixes like 10.0.0.0/8, with spaces between; %s bytes",
	.parse = parse_prefixes,
};

const struct config_kind config_kind_RATE_ACTION = {
	.storage = STORE_CHOICE,
	.noun = "a known action",
	.choice = rate_actions,
	.parse = parse_choice,
};

const struct config_kind config_kind_REAL = {
	.storage = STORE_REAL,
	.noun = "a number",
	.syntax = "%s, with fractions",
	.parse = parse_real,
};

const struct config_kind config_kind_SIZE = {
	.storage = STORE_NUMBER,
	.noun = "a size",
	.syntax = "%s (bytes, or with K, M, G)",
	.parse = parse_size,
	.format = text_format_size,
};

const struct config_kind config_kind_SLOW_CONSUMER = {
	.storage = STORE_CHOICE,
	.noun = "a known action",
	.choice = slow_consumers,
	.parse = parse_choice,
};

const struct config_kind config_kind_STAMP = {
	.storage = STORE_CHOICE,
	.noun = "auto, yes or no",
	.choice = stamps,
	.parse = parse_choice,
};

const struct config_kind config_kind_TEXT = {
	.storage = STORE_TEXT,
	.noun = "a text in UTF-8 without control characters",
	.syntax = "%s bytes of UTF-8",
	.parse = parse_text,
};

const struct config_kind config_kind_TEXT_MESSAGES = {
	.storage = STORE_CHOICE,
	.noun = "a known action",
	.choice = text_messages,
	.parse = parse_choice,
};

const struct config_kind config_kind_URL_PATH = {
	.storage = STORE_TEXT,
	.noun = "a path",
	.syntax = "empty, or a path that begins with \"/\" and has no \"?\", \"#\" or space; "
		  "%s bytes",
	.parse = parse_url_path,
};

const struct config_kind config_kind_WORKERS = {
	.storage = STORE_NUMBER,
	.noun = "a number",
	.syntax = "auto, or %s",
	.zero = "auto",
	.parse = parse_count,
};

/* -------------------------------------------------------------------------- bounds */

/*
 * A bound of a row, through the parser of its kind, so that the table has "64K" where a file
 * would; except that the bounds of a text are lengths. "0|" says that 0 is good beside them.
 */
static uint64_t config_bound(const struct config_key *key, const char *text,
			     struct config_value *ret)
{
	int r;

	if (strncmp(text, "0|", 2) == 0)
		text += 2;
	r = key->kind->storage == STORE_TEXT ? text_parse_count(text, &ret->number)
					     : key->kind->parse(key->kind, text, ret);
	WB_ASSERT(r == 0);
	return ret->number;
}

static bool config_value_in_range(const struct config_key *key, const struct config_value *v)
{
	struct config_value lo = {0}, hi = {0};

	if (!*key->max) /* a kind of which every value is good: yes or no, a choice */
		return true;
	(void)config_bound(key, key->min, &lo);
	(void)config_bound(key, key->max, &hi);
	if (key->kind->storage == STORE_REAL)
		return v->real >= lo.real && v->real <= hi.real;
	if (v->number == 0 && strncmp(key->min, "0|", 2) == 0)
		return true;
	return v->number >= lo.number && v->number <= hi.number;
}

enum config_value_result config_value_parse(const struct config_key *key, const char *text,
					    struct config_value *ret)
{
	struct config_value v = {0};
	int r;

	/* Its word for 0 is good whatever the bounds, and to the parser it is no number. */
	if (!key->kind->zero || strcasecmp(text, key->kind->zero) != 0) {
		r = key->kind->parse(key->kind, text, &v);
		if (r == -ERANGE)
			return VALUE_E_RANGE;
		if (r < 0) {
			*ret = v;
			return VALUE_E_KIND;
		}
		if (!config_value_in_range(key, &v))
			return VALUE_E_RANGE;
	}
	*ret = v;
	return VALUE_OK;
}

static void config_range_text(const struct config_key *key, char *out, size_t cap)
{
	bool zero = strncmp(key->min, "0|", 2) == 0;
	bool is_length = key->kind->storage == STORE_TEXT;

	/* The words of the table, not the numbers that were read from them: "64K" says more. */
	if (is_length && strcmp(key->min, "0") == 0)
		snprintf(out, cap, "at most %s", key->max);
	else
		snprintf(out, cap, "%s%s to %s", zero ? "0, or " : "",
			 zero ? key->min + 2 : key->min, key->max);
}

void config_value_allowed(const struct config_key *key, char *out, size_t cap)
{
	const struct config_kind *k = key->kind;
	const char *at = k->syntax ? strstr(k->syntax, "%s") : NULL;
	char range[64];
	size_t n = 0;

	/* The range is put in by hand: a format that is no literal is nothing for printf(). */
	out[0] = '\0';
	if (at) {
		config_range_text(key, range, sizeof(range));
		snprintf(out, cap, "%.*s%s%s", (int)(at - k->syntax), k->syntax, range, at + 2);
		return;
	}
	if (k->syntax) {
		snprintf(out, cap, "%s", k->syntax);
		return;
	}
	for (const struct config_choice *c = k->choice; c->name && n < cap; c++)
		n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "", c->name);
}

/* -------------------------------------------------------------------------- members */

int config_value_set(struct config *c, const struct config_key *key, const struct config_value *v)
{
	void *at = (char *)c + key->offset;
	char *copy;

	/* Each kind's storage is the type of its members: config.h, CONFIG_MEMBER_*. */
	switch (key->kind->storage) {
	case STORE_NUMBER:
		*(uint64_t *)at = v->number;
		break;
	case STORE_REAL:
		*(double *)at = v->real;
		break;
	case STORE_BOOL:
		*(bool *)at = v->choice;
		break;
	case STORE_CHOICE:
		*(int *)at = v->choice;
		break;
	case STORE_TEXT:
		/* The new one first: without memory for it the old one stays. */
		copy = strdup(v->text);
		if (!copy)
			return -ENOMEM;
		free(*(char **)at);
		*(char **)at = copy;
		break;
	}
	return 0;
}

struct config_value config_value_get(const struct config *c, const struct config_key *key)
{
	const void *at = (const char *)c + key->offset;
	struct config_value v = {0};

	switch (key->kind->storage) {
	case STORE_NUMBER:
		v.number = *(const uint64_t *)at;
		break;
	case STORE_REAL:
		v.real = *(const double *)at;
		break;
	case STORE_BOOL:
		v.choice = *(const bool *)at;
		break;
	case STORE_CHOICE:
		v.choice = *(const int *)at;
		break;
	case STORE_TEXT:
		v.text = *(char *const *)at;
		break;
	}
	return v;
}

bool config_value_equal(const struct config_key *key, const struct config_value *a,
			const struct config_value *b)
{
	switch (key->kind->storage) {
	case STORE_NUMBER:
		return a->number == b->number;
	case STORE_REAL: /* the very same bits, said so that no compiler warns of "==" */
		return a->real >= b->real && a->real <= b->real;
	case STORE_BOOL:
	case STORE_CHOICE:
		return a->choice == b->choice;
	case STORE_TEXT:
		return strcmp(a->text, b->text) == 0;
	}
	return false;
}
