/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The sub-commands that talk to a running daemon through its control socket:
 * status, clients, reload, publish, disconnect.
 *
 * They find the socket as the daemon does, from the same configuration and the same
 * options, with /run/wsbind for $RUNTIME_DIRECTORY. A configuration with errors is
 * no obstacle (reload is there to report them): the socket is then looked for at
 * its default, or where --control-socket says.
 */

#include <stdio.h>

#include "base/base.h"

/*
 * *_main() - run a command
 * @argv:   argv[0] is the name of the command; ends with NULL
 *
 * Return:  the exit status: 0 | 1, the daemon is not there, may not be asked, refused,
 *          or output failed | 2, wrong usage.
 * Thread:  main.
 */
int status_main(int argc, char **argv);
int clients_main(int argc, char **argv);
int reload_main(int argc, char **argv);
int publish_main(int argc, char **argv);
int disconnect_main(int argc, char **argv);

/* Where a command reads and writes. */
struct WB_VALUE status_streams {
	FILE *in, *out, *err;
	int timeout_ms; /* of the daemon, without progress */
};

/* The same with other streams; argv[0] is the name of one of the five commands. */
int status_run(char **argv, const struct status_streams *streams);
