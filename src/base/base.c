/* SPDX-License-Identifier: MIT */
#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void wb_assert_failed(const char *condition, const char *file, int line)
{
	char text[512];
	int n;

	/* Not to stderr: whoever failed may hold the lock of the stream, or the heap's. */
	n = snprintf(text, sizeof(text), "wsbind: %s:%d: assertion failed: %s\n", file, line,
		     condition);
	if (n > 0)
		(void)!write(STDERR_FILENO, text, MIN((size_t)n, sizeof(text) - 1));
	abort();
}

void fd_closep(int *fd)
{
	int saved = errno;

	/*
	 * Runs between a call that failed and the caller's look at errno. Not tried again after
	 * EINTR: Linux has closed the descriptor by then, and its number may be someone else's.
	 */
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
	errno = saved;
}
