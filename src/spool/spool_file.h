/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One file of the spool directory, from its first byte under a temporary name to its final name
 * on disk. Final name: UTC time, client id, counter (20240131T120000Z-CLIENT-7); temporary name:
 * a dot, the final name, ".part". All functions may block on the disk: for the spool thread, and
 * for main before that runs.
 */

#include "base/base.h"
#include "spool/spool.h"

/* fd == -1: there is no temporary file. All other members are then left over or unset. */
struct WB_OWNER(spool) spool_file {
	int fd;
	int dir_fd; /* borrowed */
	uint64_t bytes;
	char name[SPOOL_NAME_MAX];
	char part[SPOOL_NAME_MAX];
};

/* Whether a temporary file is in use after all. */
typedef bool spool_file_used_fn(void *ctx, const char *name);

/**
 * spool_file_remove_parts() - remove what an earlier run left unfinished, and mark the directory
 * @is_used: NULL: none is
 *
 * Every process that uses a directory holds a shared lock on @dir_fd from here on. The exclusive
 * one, without which nothing is removed, is to be had only when there is no such process.
 *
 * Return: 0 | -errno of reading the directory.
 */
int spool_file_remove_parts(int dir_fd, spool_file_used_fn *is_used, void *ctx) WB_NODISCARD;

/* Marks the directory alone. */
void spool_file_mark(int dir_fd);

/* The sizes of all files in the directory itself, together. Return: 0 | -errno. */
int spool_file_sum_bytes(int dir_fd, uint64_t *ret) WB_NODISCARD;

/**
 * spool_file_open() - begin a file
 * @client_id:  goes into the name; other characters than [0-9A-Za-z-] become '_', cut to 40
 * @number:     different for each file of this process
 *
 * Return: 0 | -errno, @f->fd is -1 then.
 */
int spool_file_open(struct spool_file *f, int dir_fd, const char *client_id, uint64_t number)
	WB_NODISCARD;

/**
 * spool_file_reopen() - go on with a file that another process began
 * @bytes:  that it had written: what is behind them is cut off
 *
 * Return: 0 | -EINVAL those are no names of such a file | -ENODATA it is shorter | -errno; @f->fd
 *         is -1 then.
 */
int spool_file_reopen(struct spool_file *f, int dir_fd, const char *name, const char *part,
		      uint64_t bytes) WB_NODISCARD;

/* Appends all of it. Return: 0 | -errno; the file is then to be discarded. */
int spool_file_write(struct spool_file *f, const void *p, size_t n) WB_NODISCARD;

/**
 * spool_file_publish() - sync, give the final name, sync the directory
 *
 * Never replaces a file.
 *
 * Return: 0, f->fd is -1 then | -errno: nothing has the final name, and it is to be discarded.
 */
int spool_file_publish(struct spool_file *f) WB_NODISCARD;

/* Closes and removes the temporary file, if there is one. */
void spool_file_discard(struct spool_file *f);
