/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How much memory the unit may have: MemoryMax= of systemd.resource-control(5), as the kernel
 * knows it.
 */

#include "base/base.h"

/**
 * memory_limit() - the least that any of the process's control groups allows
 * @list:   NULL: /proc/self/cgroup
 * @root:   NULL: /sys/fs/cgroup
 *
 * Of the unified hierarchy alone.
 *
 * Return:  bytes; UINT64_MAX: there is no limit, or none that can be read.
 * Thread:  main: it reads files.
 * Source:  cgroups(7), "memory.max".
 */
uint64_t memory_limit(const char *list, const char *root);
