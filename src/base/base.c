/* SPDX-License-Identifier: MIT */
#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void wb_assert_failed(const char *condition, const char *file, int line)
{
	char text[512];
	int n;

	n = snprintf(text, sizeof(text), "wsbind: %s:%d: assertion failed: %s\n", file, line,
		     condition);
	if (n > 0)
		(void)!write(STDERR_FILENO, text, MIN((size_t)n, sizeof(text) - 1));
	abort();
}

void fd_closep(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
	errno = saved;
}
