/* SPDX-License-Identifier: MIT */
#pragma once

/* Small files that are read whole: keys, lists. */

#include "base/base.h"

/**
 * file_read() - read a file whole
 * @cap:    most bytes that it may have; @out has room for them
 *
 * Return:  0 | -EFBIG it has more | -errno. Behind an error there may be bytes in @out.
 * Thread:  any; waits for the disk.
 */
int file_read(const char *path, void *out, size_t cap, size_t *ret_n) WB_NODISCARD;
