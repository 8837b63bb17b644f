/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Whose a TCP port is that is taken: the daemon's that runs, or that of systemd's socket unit
 * for it. Told by what the processes have open, in /proc.
 */

#include "base/base.h"

/**
 * port_is_owned() - whether the daemon, or the service manager for it, listens on a port
 * @control_path: where the daemon's control socket is; NULL: it has none
 *
 * A daemon that is there, and whose descriptors this user may not see, counts as the owner.
 */
bool port_is_owned(const char *control_path, uint16_t port);
