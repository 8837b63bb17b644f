/* SPDX-License-Identifier: MIT */
#include "client/lines.h"

#include <stdio.h>

#include "base/text.h"
#include "containers/buf.h"
#include "test.h"

struct collected {
	struct buf text; /* each line with a "|" behind it */
	size_t n, longest;
	bool is_utf8;
};

static void collect(void *ctx, const char *line, size_t n)
{
	struct collected *c = ctx;

	CHECK_EQ(line[n], '\0');
	CHECK_EQ(buf_append(&c->text, line, n, BUF_NO_LIMIT), 0);
	CHECK_EQ(buf_append(&c->text, "|", 1, BUF_NO_LIMIT), 0);
	c->n++;
	c->longest = MAX(c->longest, n);
	c->is_utf8 = c->is_utf8 && utf8_valid(line, n);
}

static const char typed[] = "one\ntwo words\r\n\n\r\nü\nlast";
static const char expected[] = "one|two words|||ü|last|";

TEST(lines_come_out_whole_however_they_are_cut)
{
	for (size_t step = 1; step <= sizeof(typed); step++) {
		struct lines *l = calloc(1, sizeof(*l));
		struct collected c = {.is_utf8 = true};

		for (size_t at = 0; at < strlen(typed); at += step)
			lines_feed(l, typed + at, MIN(step, strlen(typed) - at), collect, &c);
		CHECK_EQ(c.n, 5);
		lines_end(l, collect, &c);
		lines_end(l, collect, &c);
		CHECK_EQ(c.n, 6);
		CHECK_EQ(c.text.len, strlen(expected));
		CHECK_MEM(c.text.data, expected, strlen(expected));
		buf_fini(&c.text);
		free(l);
	}
}

TEST(lines_end_of_nothing_reports_nothing)
{
	struct lines *l = calloc(1, sizeof(*l));
	struct collected c = {0};

	lines_end(l, collect, &c);
	lines_feed(l, "a\n", 2, collect, &c);
	lines_end(l, collect, &c);
	CHECK_EQ(c.n, 1);
	buf_fini(&c.text);
	free(l);
}

/* Lengths around the limit; characters of one to four bytes, so that cuts fall into them. */
TEST(lines_that_are_too_long_are_cut_between_characters)
{
	static const char *const character[] = {"x", "é", "€", "😀"};

	for (size_t k = 0; k < ARRAY_LEN(character); k++) {
		size_t width = strlen(character[k]), many = 3 * LINES_MAX / width;
		struct lines *l = calloc(1, sizeof(*l));
		struct collected c = {.is_utf8 = true};

		lines_feed(l, "xyz", k, collect, &c); /* shifts the cut */
		if (k == 3)
			lines_feed(l, "\n", 1, collect, &c);
		for (size_t i = 0; i < many; i++)
			lines_feed(l, character[k], width, collect, &c);
		lines_feed(l, "\n", 1, collect, &c);
		CHECK(c.longest <= LINES_MAX && c.longest > LINES_MAX - 5);
		CHECK(c.is_utf8);
		CHECK(c.text.len - c.n >= many * width);
		buf_fini(&c.text);
		free(l);
	}
}
