/* SPDX-License-Identifier: MIT */
#include "service/admin_private.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

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

	snprintf(service, sizeof(service), "%u", port);
	r = getaddrinfo(host, service, &hints, &list);
	if (r)
		return r == EAI_MEMORY ? -ENOMEM : -EINVAL;
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	if (bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* 0: a socket file that nobody listens on is out of the way; else what is in the way. */
static int unix_remove_stale(const struct sockaddr_un *to)
{
	WB_CLEANUP(fd_closep) int fd = -1;
	struct stat st;

	if (lstat(to->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Only a refusal says that nobody is there; a full backlog (EAGAIN) says someone is. */
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0 || errno != ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(to->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

/*
 * The mode is set on the socket before it has a name, so that the file never has a
 * wider one; the umask is applied to that, hence once more by name.
 */
static int unix_bind(int fd, const struct sockaddr_un *to)
{
	if (fchmod(fd, CONTROL_MODE) < 0)
		return -errno;
	return bind(fd, (const struct sockaddr *)to, sizeof(*to)) < 0 ? -errno : 0;
}

int admin_listen_unix(const char *path, int *ret_fd, struct stat *ret_file)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	WB_CLEANUP(fd_closep) int fd = -1;
	struct stat st;
	int r;

	if (strlen(path) >= sizeof(to.sun_path))
		return -ENAMETOOLONG;
	memcpy(to.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = unix_bind(fd, &to);
	if (r == -EADDRINUSE) {
		r = unix_remove_stale(&to);
		if (r == 0)
			r = unix_bind(fd, &to);
	}
	if (r < 0)
		return r;
	if (chmod(path, CONTROL_MODE) < 0 || lstat(path, &st) < 0 || listen(fd, BACKLOG) < 0) {
		r = -errno;
		(void)unlink(path); /* the first error is the one to tell */
		return r;
	}
	*ret_file = st;
	*ret_fd = TAKE_FD(fd);
	return 0;
}
