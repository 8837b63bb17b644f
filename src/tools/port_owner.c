/* SPDX-License-Identifier: MIT */
#include "tools/port_owner.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MAX_INODES 256 /* a socket for each worker and port */
#define STATE_LISTEN 0x0a

struct inodes {
	unsigned long at[MAX_INODES];
	size_t n;
};

/* Lines of proc(5), /proc/net/tcp: "sl: LOCAL:PORT REMOTE:PORT STATE … uid timeout inode". */
static void inodes_read(struct inodes *s, const char *path, uint16_t wanted)
{
	FILE *f = fopen(path, "re");
	char line[512];

	while (f && s->n < MAX_INODES && fgets(line, sizeof(line), f)) {
		unsigned port, state;
		unsigned long inode;

		if (sscanf(line,
			   " %*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*u %*u "
			   "%lu",
			   &port, &state, &inode) == 3 &&
		    state == STATE_LISTEN && port == wanted)
			s->at[s->n++] = inode;
	}
	if (f)
		(void)fclose(f);
}

static bool inodes_have(const struct inodes *s, const char *link)
{
	unsigned long inode;

	if (sscanf(link, "socket:[%lu]", &inode) != 1)
		return false;
	for (size_t i = 0; i < s->n; i++)
		if (s->at[i] == inode)
			return true;
	return false;
}

enum owner { OWNER_NO, OWNER_YES, OWNER_UNKNOWN };

static enum owner process_owns(pid_t pid, const struct inodes *s)
{
	enum owner r = OWNER_NO;
	char path[64], link[64];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	if (!d)
		return errno == EACCES || errno == EPERM ? OWNER_UNKNOWN : OWNER_NO;
	while (r == OWNER_NO && (e = readdir(d))) {
		ssize_t n = isdigit((unsigned char)e->d_name[0])
				    ? readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1)
				    : -1;

		link[MAX(n, 0)] = '\0';
		if (inodes_have(s, link))
			r = OWNER_YES;
	}
	(void)closedir(d);
	return r;
}

/* Of the daemon; 0: there is none, or it may not be asked. */
static pid_t daemon_pid(const char *control_path)
{
	WB_CLEANUP(fd_closep)
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct ucred peer = {0};
	socklen_t n = sizeof(peer);

	if (fd < 0 || !control_path || strlen(control_path) >= sizeof(to.sun_path))
		return 0;
	strcpy(to.sun_path, control_path);
	/* Who listened there is told by the kernel, not by the other end. */
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
		return 0;
	return peer.pid;
}

bool port_is_owned(const char *control_path, uint16_t port)
{
	pid_t pid = daemon_pid(control_path);
	struct inodes s = {.n = 0};

	inodes_read(&s, "/proc/net/tcp", port);
	inodes_read(&s, "/proc/net/tcp6", port);
	return (pid > 0 && process_owns(pid, &s) != OWNER_NO) || process_owns(1, &s) == OWNER_YES;
}
