/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * `wsbind server`: the daemon. Brings up the workers, the spool, the admin HTTP
 * and what systemd wants to know, looks after them on the main thread, and takes
 * them down again in order.
 */

/**
 * server_main() - run the daemon until it is told to stop
 * @argv:   argv[0] is the name of the command; ends with NULL
 *
 * Return:  the exit status: 0 after SIGTERM or SIGINT | 78 configuration | 2 usage | 1 otherwise.
 * Thread:  main.
 */
int server_main(int argc, char **argv);
