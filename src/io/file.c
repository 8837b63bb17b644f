/* SPDX-License-Identifier: MIT */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>

int file_read(const char *path, void *out, size_t cap, size_t *ret_n)
{
	WB_CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	uint8_t more;

	if (fd < 0)
		return -errno;
	/* No size is asked for: a pipe, or a file of /proc, has none to tell. */
	for (;;) {
		void *at = n < cap ? (uint8_t *)out + n : &more;
		ssize_t got = read(fd, at, n < cap ? cap - n : 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		/* This byte went into @more: there is no room for it. */
		if (n == cap)
			return -EFBIG;
		n += (size_t)got;
	}
	*ret_n = n;
	return 0;
}
