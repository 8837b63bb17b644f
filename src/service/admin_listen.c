/* SPDX-License-Identifier: MIT */
#include "service/admin_private.h"

#include <errno.h>
#include <sys/stat.h>

#include "io/sock.h"

#define BACKLOG 64
#define CONTROL_MODE 0660

int admin_listen_tcp(const char *host, uint16_t port, int *ret_fd)
{
	return sock_listen(host, port, BACKLOG, true, ret_fd);
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
