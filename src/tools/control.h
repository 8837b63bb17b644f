/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The commands that talk to a running daemon through its control socket; control_table.h
 * has them.
 *
 * They find the socket as the daemon does, from the same configuration and the same
 * options, with /run/wsbind for $RUNTIME_DIRECTORY. A configuration with errors is
 * no obstacle (reload is there to report them): the socket is then looked for at
 * its default, or where --control-socket says.
 */

#include <stdio.h>

#include "base/base.h"

/**
 * control_main() - run one of the commands
 * @argv:   argv[0] is the name of the command; ends with NULL
 *
 * Return:  the exit status: 0 | 1, the daemon is not there, may not be asked, refused,
 *          or output failed | 2, wrong usage | 78, control_socket cannot be known.
 * Thread:  main.
 */
int control_main(int argc, char **argv);

/* Where a command reads and writes. */
struct WB_VALUE control_streams {
	FILE *in, *out, *err;
	int timeout_ms; /* of the daemon, without progress; 0: the command's own */
};

/* The same with other streams. */
int control_run(char **argv, const struct control_streams *streams);
