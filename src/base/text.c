/* SPDX-License-Identifier: MIT */
#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"

/*
 * UTF-8. A state is the offset of its six bits in a row; a row belongs to a byte and says
 * for each state which one follows. So a step is one look-up and one shift, and the only
 * thing that waits for the step before is the shift.
 */
enum {
	IN_1 = 12, /* one continuation byte to come */
	IN_2 = 18,
	IN_3 = 24,
	IN_E0 = 30, /* behind E0: A0..BF, else overlong */
	IN_ED = 36, /* behind ED: 80..9F, else a surrogate */
	IN_F0 = 42, /* behind F0: 90..BF, else overlong */
	IN_F4 = 48, /* behind F4: 80..8F, else past U+10FFFF */
	BAD = UTF8_REJECT,
	STATE_MASK = 63,
};

#define ROW(at_start, in_1, in_2, in_3, in_e0, in_ed, in_f0, in_f4)                              \
	((uint64_t)(at_start) << UTF8_ACCEPT | (uint64_t)BAD << BAD | (uint64_t)(in_1) << IN_1 | \
	 (uint64_t)(in_2) << IN_2 | (uint64_t)(in_3) << IN_3 | (uint64_t)(in_e0) << IN_E0 |      \
	 (uint64_t)(in_ed) << IN_ED | (uint64_t)(in_f0) << IN_F0 | (uint64_t)(in_f4) << IN_F4)
#define LEAD(next) ROW(next, BAD, BAD, BAD, BAD, BAD, BAD, BAD)

static const uint64_t utf8_row[256] = {
	[0x00 ... 0x7f] = LEAD(UTF8_ACCEPT),
	[0x80 ... 0x8f] = ROW(BAD, UTF8_ACCEPT, IN_1, IN_2, BAD, IN_1, BAD, IN_2),
	[0x90 ... 0x9f] = ROW(BAD, UTF8_ACCEPT, IN_1, IN_2, BAD, IN_1, IN_2, BAD),
	[0xa0 ... 0xbf] = ROW(BAD, UTF8_ACCEPT, IN_1, IN_2, IN_1, BAD, IN_2, BAD),
	[0xc0 ... 0xc1] = LEAD(BAD),
	[0xc2 ... 0xdf] = LEAD(IN_1),
	[0xe0] = LEAD(IN_E0),
	[0xe1 ... 0xec] = LEAD(IN_2),
	[0xed] = LEAD(IN_ED),
	[0xee ... 0xef] = LEAD(IN_2),
	[0xf0] = LEAD(IN_F0),
	[0xf1 ... 0xf3] = LEAD(IN_3),
	[0xf4] = LEAD(IN_F4),
	[0xf5 ... 0xff] = LEAD(BAD),
};

#define ASCII_STEP 16

static bool is_ascii_step(const uint8_t *p)
{
	uint64_t a, b;

	/* Copied, for @p is aligned to nothing; compilers make one load of it. */
	memcpy(&a, p, sizeof(a));
	memcpy(&b, p + sizeof(a), sizeof(b));
	return !((a | b) & 0x8080808080808080ULL);
}

uint32_t utf8_feed(uint32_t state, const void *text, size_t n)
{
	const uint8_t *p = text;
	uint64_t s = state;

	while (n) {
		size_t step;

		while (s == UTF8_ACCEPT && n >= ASCII_STEP && is_ascii_step(p)) {
			p += ASCII_STEP;
			n -= ASCII_STEP;
		}
		/*
		 * What isn't all ASCII goes byte by byte, and only then is looked at: a branch on
		 * each byte would cost more than the bytes behind an error do.
		 */
		step = MIN(n, (size_t)ASCII_STEP);
		for (size_t i = 0; i < step; i++)
			s = utf8_row[p[i]] >> (s & STATE_MASK);
		/* The upper bits are what is left of the row. */
		s &= STATE_MASK;
		if (WB_UNLIKELY(s == UTF8_REJECT))
			break;
		p += step;
		n -= step;
	}
	return (uint32_t)s;
}

bool utf8_valid(const void *p, size_t n)
{
	return utf8_feed(UTF8_ACCEPT, p, n) == UTF8_ACCEPT;
}

#define NOT_A_CHARACTER UINT32_MAX

/*
 * Bytes of the character at @p, at least 1, and its code point; or of what has to be
 * replaced as one, and NOT_A_CHARACTER.
 */
static size_t utf8_next(const uint8_t *p, size_t n, uint32_t *ret_code)
{
	uint32_t state = UTF8_ACCEPT;
	size_t len = 0;
	uint32_t code;

	*ret_code = NOT_A_CHARACTER;
	do {
		state = (utf8_row[p[len]] >> state) & STATE_MASK;
		/* The byte that cannot follow may begin a character of its own: it stays. */
		if (state == UTF8_REJECT)
			return MAX(len, (size_t)1);
		len++;
		if (state != UTF8_ACCEPT && len == n)
			return len;
	} while (state != UTF8_ACCEPT);

	/* The lead byte has as many ones as the character has bytes, and a zero behind them. */
	code = len == 1 ? p[0] : p[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++)
		code = code << 6 | (p[i] & 0x3fu);
	*ret_code = code;
	return len;
}

static const char hex_digits[] = "0123456789abcdef";

void hex_encode(char *out, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n; i++) {
		*out++ = hex_digits[p[i] >> 4];
		*out++ = hex_digits[p[i] & 15];
	}
	*out = '\0';
}

int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The byte that two digits stand for, or -1; does not read past a first character that is none. */
static int hex_byte(const char *s)
{
	int high = hex_value(s[0]);
	int low = high < 0 ? -1 : hex_value(s[1]);

	return low < 0 ? -1 : high << 4 | low;
}

int hex_decode(void *out, const char *hex, size_t n)
{
	uint8_t *p = out;

	for (size_t i = 0; i < n; i++) {
		int byte = hex_byte(hex + 2 * i);

		if (byte < 0)
			return -EINVAL;
		p[i] = (uint8_t)byte;
	}
	return 0;
}

int percent_decode(char *out, size_t cap, const char *in, size_t n, size_t *ret_n)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		int byte = (uint8_t)in[i];

		/* @out may be @in: what is written never gets ahead of what was read. */
		if (byte == '%') {
			byte = n - i > 2 ? hex_byte(in + i + 1) : -1;
			if (byte < 0)
				return -EINVAL;
			i += 2;
		}
		if (len == cap)
			return -ENOBUFS;
		out[len++] = (char)byte;
	}
	*ret_n = len;
	return 0;
}

/*
 * Reads digits at *@s up to the first other character, where *@s is left; not by strtoull(3),
 * which takes a sign, space and the locale's opinion. Return: 0 | -EINVAL no digit | -ERANGE.
 */
static int parse_digits(const char **s, uint64_t *ret_value)
{
	const char *at = *s;
	uint64_t value = 0;

	if (*at < '0' || *at > '9')
		return -EINVAL;
	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(value, 10u, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
			return -ERANGE;
	*s = at;
	*ret_value = value;
	return 0;
}

/* Digits after a point: @digits / @scale, a part of one. */
struct fraction {
	uint64_t digits;
	uint64_t scale; /* a power of ten up to 10^18; further digits are too small to count */
};

/* Reads a point and digits at *@s, if there is a point. 0 | -EINVAL for a point without digits. */
static int parse_fraction(const char **s, struct fraction *ret)
{
	struct fraction f = {.scale = 1};
	const char *at = *s;

	if (*at == '.') {
		if (at[1] < '0' || at[1] > '9')
			return -EINVAL;
		for (at++; *at >= '0' && *at <= '9'; at++) {
			if (f.scale == 1000000000000000000ULL)
				continue;
			f.digits = f.digits * 10 + (uint64_t)(*at - '0');
			f.scale *= 10;
		}
	}
	*s = at;
	*ret = f;
	return 0;
}

/*
 * The rows stand in the order in which they are tried for output, the largest first; what is
 * read but never written stands behind them.
 */
struct unit {
	const char *name;
	uint64_t value;
};

static const struct unit size_units[] = {
	{"T", 1ULL << 40}, {"G", 1ULL << 30}, {"M", 1ULL << 20}, {"K", 1ULL << 10}, {"", 1},
};

static const struct unit duration_units[] = {
	{"h", 3600 * NS_PER_S}, {"m", 60 * NS_PER_S},    {"s", NS_PER_S},
	{"ms", NS_PER_MS},      {"us", NS_PER_US},       {"ns", 1},
	{"", NS_PER_S},         {"d", 86400 * NS_PER_S},
};

#define DURATION_UNITS_SHOWN 6 /* those up to "ns" */

static const struct unit *find_unit(const struct unit *units, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(units[i].name, name) == 0)
			return &units[i];
	return NULL;
}

/* The largest of the first @n_shown units that divides @value; the last of them is 1. */
static char *format_unit(char *out, size_t cap, const struct unit *units, size_t n_shown,
			 uint64_t value)
{
	size_t i = 0;

	while (i < n_shown - 1 && value % units[i].value != 0)
		i++;
	(void)snprintf(out, cap, "%" PRIu64 "%s", value / units[i].value, units[i].name);
	return out;
}

int text_parse_size(const char *s, uint64_t *ret_bytes)
{
	const struct unit *unit;
	uint64_t value;
	int r = parse_digits(&s, &value);

	if (r)
		return r;
	unit = find_unit(size_units, ARRAY_LEN(size_units), s);
	if (!unit)
		return -EINVAL;
	if (__builtin_mul_overflow(value, unit->value, &value))
		return -ERANGE;
	*ret_bytes = value;
	return 0;
}

int text_parse_duration(const char *s, uint64_t *ret_ns)
{
	const struct unit *unit;
	struct fraction f;
	uint64_t value, part;
	int r = parse_digits(&s, &value);

	if (!r)
		r = parse_fraction(&s, &f);
	if (r)
		return r;
	unit = find_unit(duration_units, ARRAY_LEN(duration_units), s);
	if (!unit)
		return -EINVAL;
	/* 10^18 of a day in nanoseconds need 107 bits. A part of one unit fits 64 again. */
	part = (uint64_t)((unsigned __int128)f.digits * unit->value / f.scale);
	if (__builtin_mul_overflow(value, unit->value, &value) ||
	    __builtin_add_overflow(value, part, &value))
		return -ERANGE;
	*ret_ns = value;
	return 0;
}

int text_parse_count(const char *s, uint64_t *ret_count)
{
	uint64_t value;
	int r = parse_digits(&s, &value);

	if (r)
		return r;
	if (*s)
		return -EINVAL;
	*ret_count = value;
	return 0;
}

int text_parse_bool(const char *s, bool *ret_value)
{
	/* Each yes stands behind its no, at an odd index. */
	static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strcasecmp(s, words[i]) == 0) {
			*ret_value = i & 1;
			return 0;
		}
	return -EINVAL;
}

int text_parse_real(const char *s, double *ret_value)
{
	struct fraction f;
	uint64_t whole, scaled;
	int r = parse_digits(&s, &whole);

	if (!r)
		r = parse_fraction(&s, &f);
	if (r)
		return r;
	if (*s)
		return -EINVAL;
	/* One rounding where it fits: "0.3" and "10.1" are what a compiler makes of them. */
	if (!__builtin_mul_overflow(whole, f.scale, &scaled) &&
	    !__builtin_add_overflow(scaled, f.digits, &scaled))
		*ret_value = (double)scaled / (double)f.scale;
	else
		*ret_value = (double)whole + (double)f.digits / (double)f.scale;
	return 0;
}

char *text_format_size(char *out, size_t cap, uint64_t bytes)
{
	/* Every unit divides 0, and "0T" would be right and odd: so the last one alone. */
	return format_unit(out, cap, bytes ? size_units : &size_units[ARRAY_LEN(size_units) - 1],
			   bytes ? ARRAY_LEN(size_units) : 1, bytes);
}

char *text_format_duration(char *out, size_t cap, uint64_t ns)
{
	if (ns)
		return format_unit(out, cap, duration_units, DURATION_UNITS_SHOWN, ns);
	(void)snprintf(out, cap, "0s");
	return out;
}

/*
 * Whether a character may stand in a line that people read: no control of either range, no
 * backslash, which begins an escape, and nothing that ends a line or turns its direction.
 */
static bool is_printable(uint32_t code)
{
	return code != NOT_A_CHARACTER && code >= 0x20 && code != '\\' &&
	       !(code >= 0x7f && code <= 0x9f) && !(code >= 0x2028 && code <= 0x202e) &&
	       !(code >= 0x2066 && code <= 0x2069);
}

/* Writes @n bytes as \xNN each; returns 4 * @n. */
static size_t escape_bytes(char *out, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		*out++ = '\\';
		*out++ = 'x';
		*out++ = hex_digits[p[i] >> 4];
		*out++ = hex_digits[p[i] & 15];
	}
	return 4 * n;
}

static size_t copy_bytes(char *out, const uint8_t *p, size_t n)
{
	memcpy(out, p, n);
	return n;
}

size_t text_escape(char *out, size_t cap, const char *in, size_t n)
{
	const uint8_t *p = (const uint8_t *)in;
	size_t len = 0, cut = 0; /* cut: the last place from which "..." still fits */

	if (cap == 0)
		return 0;
	for (size_t i = 0, used; i < n; i += used) {
		char piece[16];
		uint32_t code;
		size_t add;

		used = utf8_next(p + i, n - i, &code);
		add = is_printable(code) ? copy_bytes(piece, p + i, used)
					 : escape_bytes(piece, p + i, used);
		if (len + 3 < cap)
			cut = len;
		/* No room: go back to where the dots fit, put them there, and end the walk. */
		if (add >= cap - len) {
			len = cut;
			add = MIN(cap - 1 - len, (size_t)3);
			memcpy(piece, "...", 3);
			used = n - i;
		}
		memcpy(out + len, piece, add);
		len += add;
	}
	out[len] = '\0';
	return len;
}

/* Writes what stands for @code, whose bytes are @p, in a JSON string; returns its length. */
static size_t json_piece(char out[8], uint32_t code, const uint8_t *p, size_t n)
{
	static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
	const char *at;

	if (code == NOT_A_CHARACTER) {
		memcpy(out, "\xef\xbf\xbd", 3); /* U+FFFD */
		return 3;
	}
	/* Not for 0, which strchr() finds at the end of any text. */
	at = code && code < 0x80 ? strchr(plain, (int)code) : NULL;
	if (at) {
		out[0] = '\\';
		out[1] = letter[at - plain];
		return 2;
	}
	if (code < 0x20) {
		memcpy(out, "\\u00", 4);
		out[4] = hex_digits[code >> 4];
		out[5] = hex_digits[code & 15];
		return 6;
	}
	return copy_bytes(out, p, n);
}

size_t text_json(char *out, size_t cap, const char *in, size_t n)
{
	const uint8_t *p = (const uint8_t *)in;
	size_t len = 0;

	if (cap == 0)
		return 0;
	for (size_t i = 0, used; i < n; i += used) {
		char piece[8];
		uint32_t code;
		size_t add;

		used = utf8_next(p + i, n - i, &code);
		add = json_piece(piece, code, p + i, used);
		/* Half an escape would make the whole document unreadable. */
		if (add >= cap - len)
			break;
		memcpy(out + len, piece, add);
		len += add;
	}
	out[len] = '\0';
	return len;
}

/* Bytes between the hyphens of a UUID. */
static const uint8_t uuid_groups[] = {4, 2, 2, 2, 6};

void uuid4_format(char out[37], const uint8_t id[16])
{
	uint8_t bytes[16];
	const uint8_t *p = bytes;

	memcpy(bytes, id, sizeof(bytes));
	bytes[6] = (bytes[6] & 0x0f) | 0x40; /* version 4 */
	bytes[8] = (bytes[8] & 0x3f) | 0x80; /* variant 10 */
	/* hex_encode() ends each group with a NUL, where its hyphen goes. */
	for (size_t i = 0; i < ARRAY_LEN(uuid_groups); i++) {
		hex_encode(out, p, uuid_groups[i]);
		p += uuid_groups[i];
		out += 2 * uuid_groups[i];
		*out++ = '-';
	}
	out[-1] = '\0';
}

int uuid_parse(const char *s, uint8_t ret_id[16])
{
	uint8_t bytes[16];
	uint8_t *p = bytes;

	for (size_t i = 0; i < ARRAY_LEN(uuid_groups); i++) {
		char end = i + 1 < ARRAY_LEN(uuid_groups) ? '-' : '\0';

		/* Stops at a NUL, so a text that is too short is never read past its end. */
		if (hex_decode(p, s, uuid_groups[i]))
			return -EINVAL;
		p += uuid_groups[i];
		s += 2 * uuid_groups[i];
		if (*s++ != end)
			return -EINVAL;
	}
	memcpy(ret_id, bytes, sizeof(bytes));
	return 0;
}

size_t text_next_word(const char **at)
{
	size_t n;

	*at += strspn(*at, " ,\t");
	n = strcspn(*at, " ,\t");
	*at += n;
	return n;
}

/* --------------------------------------------------------------------- patterns */

/*
 * Without recursion: where a star took too little, it takes one character more and the rest
 * is tried again. The last star of each width is enough for that: what an earlier one could
 * take beside, the later one may take as well. A `*` cannot pass a "/"; then the last `**`
 * before it takes more, and the `*` behind that begins anew.
 */
bool text_matches(const char *pattern, const char *text)
{
	const char *star = NULL, *star_text = NULL; /* behind the last `*`, and what it took */
	const char *wide = NULL, *wide_text = NULL; /* the same of the last `**` */

	for (;;) {
		if (pattern[0] == '*' && pattern[1] == '*') {
			wide = pattern += 2;
			wide_text = text;
			star = NULL;
		} else if (pattern[0] == '*') {
			star = ++pattern;
			star_text = text;
		} else if (*pattern == *text) {
			if (!*text)
				return true;
			pattern++;
			text++;
		} else if (star && *star_text && *star_text != '/') {
			pattern = star;
			text = ++star_text;
		} else if (wide && *wide_text) {
			pattern = wide;
			text = ++wide_text;
			star = NULL;
		} else {
			return false;
		}
	}
}
