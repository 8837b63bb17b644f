/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * `wsbind client`: chat on a terminal, messages at an interval, or a file.
 *
 * One thread, one endpoint_loop, one session for each client. A session outlives its
 * connections: it connects again with backoff until its attempts are used up, the
 * server closes with 1000, or it is told to stop.
 */

/**
 * client_main() - run the command
 * @argv:   argv[0] is the name of the command; ends with NULL
 *
 * Return:  the exit status: 0 closed with 1000, told to stop, or the file is delivered
 *          | 1 gave up | 2 wrong usage | 78 configuration.
 * Thread:  main.
 */
int client_main(int argc, char **argv);
