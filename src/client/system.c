/* SPDX-License-Identifier: MIT */
#include "client/system.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/resource.h>

#define OTHER_DESCRIPTORS 16 /* standard streams, epoll, signals, the file to send, … */

void system_random_bytes(void *out, size_t n)
{
	uint8_t *at = out;

	while (n > 0) {
		ssize_t got = getrandom(at, n, 0);

		/* Keys that could be predicted would be worse than no connection at all. */
		if (got < 0 && errno != EINTR) {
			perror("wsbind: no random numbers");
			exit(EXIT_FAILURE);
		}
		if (got > 0) {
			at += got;
			n -= (size_t)got;
		}
	}
}

size_t system_raise_descriptors(size_t wanted)
{
	struct rlimit limit;
	rlim_t need = wanted + OTHER_DESCRIPTORS;

	/* A limit that cannot be read is met, if at all, when a socket is opened. */
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return wanted;
	if (limit.rlim_cur < need) {
		limit.rlim_cur = limit.rlim_max;
		/* When it stays as it was, what counts is the limit as it stands. */
		if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
			(void)getrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur >= need)
		return wanted;
	return limit.rlim_cur > OTHER_DESCRIPTORS ? limit.rlim_cur - OTHER_DESCRIPTORS : 0;
}
