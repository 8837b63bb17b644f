/* SPDX-License-Identifier: MIT */
#include "client/lines.h"

#include <string.h>

/* Reports the first @n bytes as a line, and moves what is behind them to the front. */
static void lines_report(struct lines *l, size_t n, lines_fn *fn, void *ctx)
{
	size_t shown = n > 0 && l->text[n - 1] == '\r' ? n - 1 : n;
	char next = l->text[shown];

	/* The NUL that the caller is promised may fall on the next line's first byte: put back. */
	l->text[shown] = '\0';
	fn(ctx, l->text, shown);
	l->text[shown] = next;
	memmove(l->text, l->text + n, l->n - n);
	l->n -= n;
}

/* Where a line that is too long may be cut: not before a continuation byte of UTF-8. */
static size_t lines_cut(const struct lines *l)
{
	size_t n = l->n - 1;

	while (n > l->n - 4 && ((uint8_t)l->text[n] & 0xc0) == 0x80)
		n--;
	return n;
}

void lines_feed(struct lines *l, const char *bytes, size_t n, lines_fn *fn, void *ctx)
{
	while (n > 0) {
		const char *end = memchr(bytes, '\n', n);
		size_t take = MIN(end ? (size_t)(end - bytes) : n, LINES_MAX - l->n);

		/* Never more than fits: a line without an end is reported in parts as it comes. */
		memcpy(l->text + l->n, bytes, take);
		l->n += take;
		bytes += take;
		n -= take;
		if (end && bytes == end) {
			lines_report(l, l->n, fn, ctx);
			bytes++;
			n--;
		} else if (l->n == LINES_MAX) {
			lines_report(l, lines_cut(l), fn, ctx);
		}
	}
}

void lines_end(struct lines *l, lines_fn *fn, void *ctx)
{
	if (l->n > 0)
		lines_report(l, l->n, fn, ctx);
}
