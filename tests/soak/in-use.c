/* SPDX-License-Identifier: MIT */
/*
 * Loaded into the daemon (LD_PRELOAD) by soak.py: whoever connects to the Unix socket that
 * IN_USE_SOCKET names is told how many bytes malloc has handed out, in all threads, and how
 * many it keeps. The first number has leaks in it and no fragmentation.
 */
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void *tell(void *arg)
{
	struct pollfd listener = {.fd = (int)(intptr_t)arg, .events = POLLIN};

	/*
	 * Accepting keeps the lowest free descriptor while it waits, which the daemon may
	 * need for what it leaves to the next process: so the waiting is poll's.
	 */
	while (poll(&listener, 1, -1) == 1) {
		int fd = accept4(listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		struct mallinfo2 m = mallinfo2();

		if (fd < 0)
			continue;
		dprintf(fd, "%zu %zu\n", m.uordblks + m.hblkhd, m.fordblks);
		close(fd);
	}
	return NULL;
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("IN_USE_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	sigset_t all, before;
	pthread_t thread;
	int fd;

	if (!path || strlen(path) >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, strlen(path));
	unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 8) < 0)
		abort();
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&thread, NULL, tell, (void *)(intptr_t)fd) != 0)
		abort();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
