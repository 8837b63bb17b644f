/* SPDX-License-Identifier: MIT */
#include "spool/spool_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"

#define CLIENT_ID_MAX 40
#define PART_SUFFIX ".part"

/* Ours and no other's: a dot, a time as make_name() writes it, .part. */
static bool is_part_name(const char *name)
{
	static const char form[] = ".00000000T000000Z-";
	const size_t n = strlen(name);

	for (size_t i = 0; form[i]; i++) {
		bool fits = form[i] == '0' ? name[i] >= '0' && name[i] <= '9' : name[i] == form[i];

		if (!fits)
			return false;
	}
	return n >= strlen(form) + strlen(PART_SUFFIX) &&
	       strcmp(name + n - strlen(PART_SUFFIX), PART_SUFFIX) == 0;
}

/* To be read from its beginning; NULL: errno says why. closedir() is the caller's. */
static DIR *dir_open(int dir_fd)
{
	/* One of its own: reading moves a position that duplicates would share. */
	WB_CLEANUP(fd_closep) int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (dir)
		(void)TAKE_FD(fd); /* closedir() closes it */
	return dir;
}

static int dir_remove_parts(int dir_fd, spool_file_used_fn *is_used, void *ctx)
{
	const struct dirent *e;
	DIR *dir = dir_open(dir_fd);

	if (!dir)
		return -errno;
	while ((e = readdir(dir)))
		if (is_part_name(e->d_name) && (!is_used || !is_used(ctx, e->d_name)))
			(void)unlinkat(dir_fd, e->d_name,
				       0); /* if it stays, the next start tries */
	(void)closedir(dir);
	return 0;
}

int spool_file_sum_bytes(int dir_fd, uint64_t *ret)
{
	const struct dirent *e;
	DIR *dir = dir_open(dir_fd);
	uint64_t sum = 0;
	struct stat st;

	if (!dir)
		return -errno;
	/* What goes away meanwhile is not there any more. */
	while ((e = readdir(dir)))
		if (fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode) && st.st_size > 0)
			sum += (uint64_t)st.st_size;
	(void)closedir(dir);
	*ret = sum;
	return 0;
}

void spool_file_mark(int dir_fd)
{
	(void)flock(dir_fd, LOCK_SH | LOCK_NB); /* a file system without locks does without */
}

int spool_file_remove_parts(int dir_fd, spool_file_used_fn *is_used, void *ctx)
{
	int r = 0;

	/* Nobody else has the directory if this succeeds. Marking it leaves a shared lock. */
	if (flock(dir_fd, LOCK_EX | LOCK_NB) == 0)
		r = dir_remove_parts(dir_fd, is_used, ctx);
	spool_file_mark(dir_fd);
	return r;
}

static void make_name(char out[SPOOL_NAME_MAX], const char *client_id, uint64_t number)
{
	time_t now = (time_t)(clock_wall_ms() / 1000);
	char stamp[32] = "", id[CLIENT_ID_MAX + 1];
	struct tm tm;
	size_t i;

	if (gmtime_r(&now, &tm))
		(void)strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", &tm);
	/* The caller's word that it is plain is not relied on: a slash would lead elsewhere. */
	for (i = 0; i < CLIENT_ID_MAX && client_id[i]; i++) {
		char c = client_id[i];
		bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
				(c >= 'A' && c <= 'Z') || c == '-';

		id[i] = is_plain ? c : '_';
	}
	id[i] = '\0';
	(void)snprintf(out, SPOOL_NAME_MAX, "%.20s-%s-%" PRIu64, stamp, id, number);
}

int spool_file_open(struct spool_file *f, int dir_fd, const char *client_id, uint64_t number)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;

	/* Never an existing file, and no link that somebody has put there. */
	f->dir_fd = dir_fd;
	f->bytes = 0;
	make_name(f->name, client_id, number);
	(void)snprintf(f->part, sizeof(f->part), ".%.85s" PART_SUFFIX, f->name);
	f->fd = openat(dir_fd, f->part, flags, 0640);
	return f->fd < 0 ? -errno : 0;
}

static bool is_final_name(const char *name)
{
	return name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) < SPOOL_NAME_MAX;
}

static int cut_to(int fd, uint64_t bytes)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size < bytes)
		return -ENODATA;
	return ftruncate(fd, (off_t)bytes) < 0 ? -errno : 0;
}

int spool_file_reopen(struct spool_file *f, int dir_fd, const char *name, const char *part,
		      uint64_t bytes)
{
	int r;

	f->fd = -1;
	/* They come from a record of another process: they may not lead elsewhere. */
	if (!is_final_name(name) || !is_part_name(part) || strchr(part, '/') ||
	    strlen(part) >= sizeof(f->part))
		return -EINVAL;
	f->dir_fd = dir_fd;
	f->bytes = bytes;
	memcpy(f->name, name, strlen(name) + 1);
	memcpy(f->part, part, strlen(part) + 1);
	/* The process before may have written more than it had counted: that comes once more. */
	f->fd = openat(dir_fd, part, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
	if (f->fd < 0)
		return -errno;
	r = cut_to(f->fd, bytes);
	if (r < 0)
		fd_closep(&f->fd);
	return r;
}

int spool_file_write(struct spool_file *f, const void *p, size_t n)
{
	const uint8_t *at = p;

	while (n) {
		ssize_t done = write(f->fd, at, n);

		/* A full disk takes a part first, and says so with the next call. */
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		at += done;
		n -= (size_t)done;
		f->bytes += (uint64_t)done;
	}
	return 0;
}

/* Not every file system knows RENAME_NOREPLACE; names are unique enough to look before. */
static int rename_new(int dir_fd, const char *from, const char *to)
{
	if (renameat2(dir_fd, from, dir_fd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (faccessat(dir_fd, to, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(dir_fd, from, dir_fd, to) < 0 ? -errno : 0;
}

int spool_file_publish(struct spool_file *f)
{
	int r;

	/*
	 * The content before the name, or a crash could leave an empty file that has its final
	 * name; and the directory last, for the name itself.
	 */
	if (fsync(f->fd) < 0)
		return -errno;
	r = rename_new(f->dir_fd, f->part, f->name);
	if (r < 0)
		return r;
	if (fsync(f->dir_fd) < 0) {
		r = -errno;
		(void)unlinkat(f->dir_fd, f->name, 0); /* it is being reported as failed */
		return r;
	}
	fd_closep(&f->fd);
	return 0;
}

void spool_file_discard(struct spool_file *f)
{
	if (f->fd < 0)
		return;
	fd_closep(&f->fd);
	(void)unlinkat(f->dir_fd, f->part, 0); /* if it stays, the next start removes it */
}
