/* SPDX-License-Identifier: MIT */
#include "service/admin_private.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "io/sock.h"

#define BACKLOG 64
#define CONTROL_MODE 0660

static void addrinfo_freep(struct addrinfo **list)
{
	if (*list)
		freeaddrinfo(*list);
}

/* Without SO_REUSEPORT, unlike the listeners of workers: a taken port has to be an error. */
int admin_listen_tcp(const char *host, uint16_t port, int *ret_fd)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				       .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
	WB_CLEANUP(addrinfo_freep) struct addrinfo *list = NULL;
	WB_CLEANUP(fd_closep) int fd = -1;
	const int on = 1;
	char service[8];
	int r;

	/* Numbers alone: a name might take minutes to resolve, on the thread of the watchdog. */
	snprintf(service, sizeof(service), "%u", port);
	r = getaddrinfo(host, service, &hints, &list);
	if (r)
		return r == EAI_MEMORY ? -ENOMEM : -EINVAL;
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Connections of the process before in TIME_WAIT are no reason not to start. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	if (bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int admin_listen_unix(const char *path, int *ret_fd, struct stat *ret_file)
{
	WB_CLEANUP(fd_closep) int fd = -1;
	int r = sock_listen_unix(path, CONTROL_MODE, BACKLOG, &fd);

	if (r < 0)
		return r;
	/*
	 * So that admin_free() can tell this file from one that another process put in its place.
	 */
	if (lstat(path, ret_file) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}
