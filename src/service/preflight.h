/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Whether everything that a configuration names can be opened: keys and certificates, the
 * folder of the spool, addresses, ports, the folders of sockets and their group. Asked before
 * anything is let go of: by `wsbind check-config`, and by a daemon that begins.
 *
 * Nothing stays open, nothing is made, nobody is accepted.
 */

#include <sys/types.h>

#include "conn/policy.h"
#include "model/config.h"

struct WB_VALUE preflight_options {
	bool has_sockets; /* of systemd's: `port` is not opened beside them */
	/* An address that this host does not have may come: the network is not up yet. */
	bool is_start;
	/* Whether a port that is taken is one that the daemon gives up or shares; NULL: no. */
	bool (*is_ours)(void *ctx, uint16_t port);
	void *ctx;
};

/**
 * preflight() - try what the daemon will open
 * @policy: made of the configuration: its files were read
 * @errors: gets a line for each thing that fails, with key, value and what to change
 *
 * metrics_port = 9090 may be taken: it is Prometheus' own default, and a daemon does without.
 *
 * Return:  0 | CONFIG_E_INVALID, @errors says what.
 * Thread:  main.
 */
int preflight(const struct policy *policy, const struct preflight_options *o,
	      struct config_errors *errors) WB_NODISCARD;

/* A group by its name, or number. Return: 0 | -ENOENT there is no such group | -errno. */
int preflight_find_group(const char *name, gid_t *ret) WB_NODISCARD;

/* The port that is also Prometheus' own. */
#define PREFLIGHT_METRICS_PORT 9090
