/* SPDX-License-Identifier: MIT */
#include "tools/json.h"

#include <string.h>

#include "base/text.h"

/* Where the bytes of a string go; what does not fit is left out from a character on. */
struct sink {
	char *out;
	size_t n, cap;
	bool is_full;
};

struct json json_open(const char *text, size_t n)
{
	return (struct json){.p = text, .end = text + n};
}

/* At its end the cursor finds nothing more, so that every loop over it ends, too. */
static void json_break(struct json *j)
{
	j->is_broken = true;
	j->p = j->end;
}

/* The next byte that is no white space, or NUL at the end. */
static char json_peek(struct json *j)
{
	while (j->p < j->end && strchr(" \t\r\n", *j->p) && *j->p)
		j->p++;
	return j->p < j->end ? *j->p : '\0';
}

static bool json_take(struct json *j, char c)
{
	if (json_peek(j) != c || j->p == j->end)
		return false;
	j->p++;
	return true;
}

bool json_enter(struct json *j, char bracket)
{
	return json_take(j, bracket);
}

static void sink_put(struct sink *s, const char *p, size_t n)
{
	/* Once full it stays so: a shorter character behind a cut would make another word. */
	if (s->cap == 0 || s->is_full || s->n + n >= s->cap) {
		s->is_full = true;
		return;
	}
	memcpy(s->out + s->n, p, n);
	s->n += n;
}

/* As UTF-8. */
static void sink_put_rune(struct sink *s, uint32_t c)
{
	char u[4];

	if (c < 0x80) {
		u[0] = (char)c;
		sink_put(s, u, 1);
	} else if (c < 0x800) {
		u[0] = (char)(0xc0 | c >> 6);
		u[1] = (char)(0x80 | (c & 0x3f));
		sink_put(s, u, 2);
	} else if (c < 0x10000) {
		u[0] = (char)(0xe0 | c >> 12);
		u[1] = (char)(0x80 | (c >> 6 & 0x3f));
		u[2] = (char)(0x80 | (c & 0x3f));
		sink_put(s, u, 3);
	} else {
		u[0] = (char)(0xf0 | c >> 18);
		u[1] = (char)(0x80 | (c >> 12 & 0x3f));
		u[2] = (char)(0x80 | (c >> 6 & 0x3f));
		u[3] = (char)(0x80 | (c & 0x3f));
		sink_put(s, u, 4);
	}
}

/* The four digits behind "\u"; 0 with a broken cursor when they are none. */
static uint32_t json_hex4(struct json *j)
{
	uint8_t b[2];

	if (j->end - j->p < 4 || hex_decode(b, j->p, 2) < 0) {
		json_break(j);
		return 0;
	}
	j->p += 4;
	return (uint32_t)b[0] << 8 | b[1];
}

/* Behind "\u". Half of a surrogate pair becomes U+FFFD, and so does NUL, which C can't carry. */
static void json_unicode(struct json *j, struct sink *s)
{
	uint32_t c = json_hex4(j);

	if (c >= 0xd800 && c < 0xdc00 && j->end - j->p >= 6 && memcmp(j->p, "\\u", 2) == 0) {
		const char *back = j->p;
		uint32_t low;

		j->p += 2;
		/*
		 * Another escape than a low half is a character of its own: the cursor goes back
		 * to it.
		 */
		low = json_hex4(j);
		if (low >= 0xdc00 && low < 0xe000) {
			sink_put_rune(s, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00));
			return;
		}
		if (!j->is_broken)
			j->p = back;
	}
	if (!j->is_broken)
		sink_put_rune(s, c == 0 || (c >= 0xd800 && c < 0xe000) ? 0xfffd : c);
}

static void json_escape(struct json *j, struct sink *s)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at;
	char c = j->p < j->end ? *j->p++ : '\0';

	if (c == 'u') {
		json_unicode(j, s);
		return;
	}
	at = c ? strchr(from, c) : NULL;
	if (!at) {
		json_break(j);
		return;
	}
	sink_put(s, to + (at - from), 1);
}

/* Behind the opening quote; goes behind the closing one. */
static void json_string(struct json *j, struct sink *s)
{
	/* Characters whole, so that a cut never falls inside of one. */
	while (j->p < j->end && *j->p != '"') {
		const char *from = j->p;

		if (*j->p == '\\') {
			j->p++;
			json_escape(j, s);
			continue;
		}
		j->p++;
		while (j->p < j->end && (*j->p & 0xc0) == 0x80)
			j->p++;
		sink_put(s, from, (size_t)(j->p - from));
	}
	if (j->p == j->end)
		json_break(j);
	else
		j->p++;
}

void json_text(struct json *j, char *out, size_t cap)
{
	struct sink s = {.out = out, .cap = cap};
	const char *from;

	/* true, null and numbers as they are written; what has brackets is passed over. */
	if (json_take(j, '"')) {
		json_string(j, &s);
	} else {
		json_peek(j);
		from = j->p;
		json_skip(j);
		if (!j->is_broken && *from != '{' && *from != '[')
			sink_put(&s, from, (size_t)(j->p - from));
	}
	/* Half a value is none: it would look like a whole one. */
	if (j->is_broken)
		s.n = 0;
	if (cap > 0)
		out[s.n] = '\0';
}

uint64_t json_number(struct json *j)
{
	char text[32];
	uint64_t n;

	json_text(j, text, sizeof(text));
	text[strcspn(text, ".")] = '\0';
	return text_parse_count(text, &n) < 0 ? 0 : n;
}

bool json_next(struct json *j, char *key, size_t cap)
{
	char c = json_peek(j);

	/* Where commas stand is not checked: the daemon's are right, and others do no harm. */
	if (c == ',') {
		j->p++;
		c = json_peek(j);
	}
	if (c == '}' || c == ']') {
		j->p++;
		return false;
	}
	if (c == '\0') {
		json_break(j);
		return false;
	}
	if (!key)
		return true;
	if (c != '"') {
		json_break(j);
		return false;
	}
	json_text(j, key, cap);
	if (!json_take(j, ':'))
		json_break(j);
	return !j->is_broken;
}

/* Counts brackets instead of recursing. Whether they match each other does not matter here. */
void json_skip(struct json *j)
{
	struct sink nowhere = {0};
	int depth = 0;

	/* A step for each token; at the depth where it began the value is over. */
	do {
		char c = json_peek(j);

		if (c == '\0' || depth > JSON_MAX_DEPTH) {
			json_break(j);
			return;
		}
		if (c == '"') {
			j->p++;
			json_string(j, &nowhere);
		} else if (c == '{' || c == '[') {
			j->p++;
			depth++;
		} else if (c == '}' || c == ']') {
			if (depth == 0) {
				json_break(j);
				return;
			}
			j->p++;
			depth--;
		} else if (c == ',' || c == ':') {
			j->p++;
		} else {
			while (j->p < j->end && !strchr("\"{}[],: \t\r\n", *j->p))
				j->p++;
		}
	} while (depth > 0 && !j->is_broken);
}
