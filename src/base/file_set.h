/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Files that belong together, each read once and kept: what a configuration names. So it can be
 * told later what something was made of, and made again where the files have changed.
 *
 * They hold keys: memory that is given back is overwritten.
 */

#include "base/base.h"

#define FILE_SET_MAX_BYTES (1024 * 1024) /* of one file: a system's list of authorities fits */

/* All-zero is empty, and reads regular files. */
struct WB_VALUE file_set {
	struct file_entry {
		char *path;
		uint8_t *data; /* a NUL stands behind it */
		size_t n;
	} * at;
	size_t count;
	bool takes_any; /* pipes, too: file_read_any() */
	bool is_closed; /* what is in it is all there is: no file is read */
};

/**
 * file_set_read() - the bytes of a file
 * @ret:    lives as long as the set
 *
 * Return:  0 | enum file_result | -errno, -ENOENT also where a closed set hasn't got it.
 * Thread:  one at a time; as file_read().
 */
int file_set_read(struct file_set *s, const char *path, const uint8_t **ret, size_t *ret_n)
	WB_NODISCARD;

/* Adds a copy of what a file had. Return: 0 | -ENOMEM. */
int file_set_add(struct file_set *s, const char *path, const void *data, size_t n) WB_NODISCARD;

/* Empties it. */
void file_set_fini(struct file_set *s);
