/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Bytes in, lines out: what was typed, whichever way the reads cut it. A line longer
 * than LINES_MAX comes in several, cut between characters.
 */

#include "base/base.h"

#define LINES_MAX 65536

/* All zero is valid and empty. */
struct WB_VALUE lines {
	size_t n;
	char text[LINES_MAX + 1];
};

/* Gets a line without its line break (LF or CR LF), with a NUL behind it; borrowed for the call. */
typedef void lines_fn(void *ctx, const char *line, size_t n);

/* Takes @n bytes and reports each line that is complete. Thread: any. */
void lines_feed(struct lines *l, const char *bytes, size_t n, lines_fn *fn, void *ctx);

/* Reports what is left without a line break, if anything. Thread: any. */
void lines_end(struct lines *l, lines_fn *fn, void *ctx);
