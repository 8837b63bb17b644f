/* SPDX-License-Identifier: MIT */
#pragma once

/* What a command with many connections asks of the system: chance, and room for descriptors. */

#include "base/base.h"

/*
 * Random bytes from the system; ends the process with a message when there are none. Thread: any.
 */
void system_random_bytes(void *out, size_t n);

/**
 * system_raise_descriptors() - allow as many connections as may be
 * @wanted: connections
 *
 * Raises the soft limit of open files to the hard one where that is needed.
 *
 * Return:  connections that are possible, @wanted or fewer.
 * Thread:  any.
 */
size_t system_raise_descriptors(size_t wanted) WB_NODISCARD;
