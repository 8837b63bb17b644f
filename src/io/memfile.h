/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A file in memory (memfd_create(2)) that is written through a mapping, sealed, and
 * read by another process that is given its descriptor.
 */

#include "base/base.h"

/* All-zero but fd = -1 is none. */
struct WB_VALUE memfile {
	int fd;
	uint8_t *data; /* mapping, shared */
	size_t bytes;  /* of the file and the mapping */
};

/* Makes an empty one; @name is for /proc alone. Return: 0 | -errno. */
int memfile_create(struct memfile *m, const char *name) WB_NODISCARD;

/* Makes it at least @need bytes long, with room to spare. Return: 0 | -errno; unchanged then. */
int memfile_grow(struct memfile *m, size_t need) WB_NODISCARD;

/* Cuts it to @bytes; from then on nobody can change its size. Return: 0 | -errno. */
int memfile_seal(struct memfile *m, size_t bytes) WB_NODISCARD;

/**
 * memfile_open() - map what another process made
 * @fd: becomes the memfile's, also when it fails
 *
 * Return: 0 | -EINVAL it is not sealed against shrinking: reading could fault | -errno.
 */
int memfile_open(struct memfile *m, int fd) WB_NODISCARD;

/* Unmaps and closes. */
void memfile_fini(struct memfile *m);
