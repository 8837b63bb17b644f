/* SPDX-License-Identifier: MIT */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/clock.h"

#define PATIENCE_NS (5 * NS_PER_S)

static bool is_regular(const struct stat *st)
{
	/* The usual way to name no file at all: it is there, and has no byte. */
	return S_ISREG(st->st_mode) || (S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3));
}

/* The type of what is behind an open descriptor. Return: 0 | enum file_result | -errno. */
static int file_look(int fd, bool *ret_is_regular)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	*ret_is_regular = is_regular(&st);
	return 0;
}

/* Why open() failed. */
static int file_not_opened(const char *path, int error)
{
	struct stat st;

	if (error == ENOENT && lstat(path, &st) == 0)
		return FILE_E_DANGLING;
	return error == ENXIO ? FILE_E_KIND : -error; /* of a socket */
}

/* Waits until more can be read. Return: 0 | FILE_E_SILENT. */
static int file_wait(int fd, uint64_t deadline_ns)
{
	uint64_t now = clock_now_ns();
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (now >= deadline_ns)
		return FILE_E_SILENT;
	/* A signal is no reason to give up: whether there is something shows the next read. */
	return poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) == 0 ? FILE_E_SILENT : 0;
}

static int file_read_all(int fd, uint8_t *out, size_t cap, size_t *ret_n)
{
	uint64_t deadline_ns = clock_now_ns() + PATIENCE_NS;
	size_t n = 0;
	uint8_t more;

	/* By reading, not by size: a file of /proc has none to tell, and others grow meanwhile. */
	for (;;) {
		ssize_t got = read(fd, n < cap ? out + n : &more, n < cap ? cap - n : 1);

		if (got < 0 && errno == EAGAIN) {
			int r = file_wait(fd, deadline_ns);

			if (r)
				return r;
			continue;
		}
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		/* This byte went into @more: there is no room for it. */
		if (n == cap)
			return FILE_E_TOO_LONG;
		n += (size_t)got;
	}
	*ret_n = n;
	return 0;
}

static int file_read_kind(const char *path, bool any, void *out, size_t cap, size_t *ret_n)
{
	/*
	 * Without O_NONBLOCK a FIFO waits for a writer, for ever. A device is opened before it
	 * is known to be one: no terminal may become ours by that.
	 */
	WB_CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	bool regular = false;
	int r = fd < 0 ? file_not_opened(path, errno) : file_look(fd, &regular);

	if (r == 0 && !regular && !any)
		return FILE_E_KIND;
	if (r == 0)
		r = file_read_all(fd, out, cap, ret_n);
	/* A FIFO without a writer ends at once. */
	return r == 0 && !regular && *ret_n == 0 ? FILE_E_SILENT : r;
}

int file_read(const char *path, void *out, size_t cap, size_t *ret_n)
{
	return file_read_kind(path, false, out, cap, ret_n);
}

int file_read_any(const char *path, void *out, size_t cap, size_t *ret_n)
{
	return file_read_kind(path, true, out, cap, ret_n);
}

const char *file_result_text(int result)
{
	switch (result) {
	case FILE_E_KIND:
		return "is no regular file";
	case FILE_E_DANGLING:
		return "is a link that leads nowhere";
	case FILE_E_TOO_LONG:
		return "is too long";
	case FILE_E_SILENT:
		return "is no regular file, and nothing comes from it, or no end";
	case -EACCES:
		return "may not be read by this user: see its permissions and its folders', or "
		       "SupplementaryGroups= and LoadCredential= of the unit";
	default:
		return strerror(-result);
	}
}
