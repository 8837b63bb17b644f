/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Small files that an administrator names, read whole: configuration, keys, certificates.
 * None of them can make who reads it wait for somebody: what is no regular file is refused,
 * or given a few seconds, and nothing is opened in a way that blocks.
 */

#include "base/base.h"

/* Why a file was not read, beside -errno. */
enum file_result {
	FILE_E_KIND = 1, /* a FIFO, a socket, a device: no regular file */
	FILE_E_DANGLING, /* a link that leads nowhere */
	FILE_E_TOO_LONG, /* it has more than the room */
	FILE_E_SILENT,   /* no regular file, and it says nothing or has no end */
};

/**
 * file_read() - read a regular file whole
 * file_read_any() - the same of whatever can be read: a pipe or a terminal, too
 * @cap:    most bytes that it may have; @out has room for them
 *
 * /dev/null counts as a regular file that is empty.
 *
 * Return:  0 | enum file_result | -errno. Behind a failure there may be bytes in @out.
 * Thread:  any; waits for the disk, and for what is no file five seconds at most.
 */
int file_read(const char *path, void *out, size_t cap, size_t *ret_n) WB_NODISCARD;
int file_read_any(const char *path, void *out, size_t cap, size_t *ret_n) WB_NODISCARD;

/* What either of them returned, for an administrator: behind "FILE: ". Thread: any. */
const char *file_result_text(int result);
