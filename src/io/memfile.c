/* SPDX-License-Identifier: MIT */
#include "io/memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define FIRST_BYTES ((size_t)1 << 20)
#define SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

int memfile_create(struct memfile *m, const char *name)
{
	/* Without this flag memfd_create(2) makes it sealed against seals. */
	*m = (struct memfile){.fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)};
	return m->fd < 0 ? -errno : 0;
}

int memfile_grow(struct memfile *m, size_t need)
{
	size_t bytes = MAX(m->bytes, FIRST_BYTES);
	void *data;

	/* In doubling steps, since each may move the mapping. Pages not written cost nothing. */
	while (bytes < need)
		bytes *= 2;
	if (bytes == m->bytes)
		return 0;
	if (ftruncate(m->fd, (off_t)bytes) < 0)
		return -errno;
	data = m->data ? mremap(m->data, m->bytes, bytes, MREMAP_MAYMOVE)
		       : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	if (data == MAP_FAILED)
		return -errno;
	m->data = data;
	m->bytes = bytes;
	return 0;
}

int memfile_seal(struct memfile *m, size_t bytes)
{
	if (ftruncate(m->fd, (off_t)bytes) < 0 || fcntl(m->fd, F_ADD_SEALS, SIZE_SEALS) < 0)
		return -errno;
	return 0;
}

int memfile_open(struct memfile *m, int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *data;

	*m = (struct memfile){.fd = fd};
	if (seals < 0 || fstat(fd, &st) < 0)
		return -errno;
	/* A file that shrinks under its mapping kills who reads it (SIGBUS). */
	if (!(seals & F_SEAL_SHRINK) || st.st_size <= 0)
		return -EINVAL;
	/* Written to as well, and seen by whoever maps it next: attempts at reading are counted. */
	data = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (data == MAP_FAILED)
		return -errno;
	m->data = data;
	m->bytes = (size_t)st.st_size;
	return 0;
}

void memfile_fini(struct memfile *m)
{
	if (m->data)
		(void)munmap(m->data, m->bytes);
	fd_closep(&m->fd);
	*m = (struct memfile){.fd = -1};
}
