/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * `wsbind benchmark`: measures a server from outside, and counts every delivery.
 *
 * One thread has all the connections. What it measures therefore includes its own work:
 * a receive, a frame's head and some comparisons for each delivery, well under a
 * microsecond beside the system call; it shares the machine with the server if it runs
 * there.
 */

/**
 * benchmark_main() - run the command
 * @argv:   argv[0] is the name of the command; ends with NULL
 *
 * Return:  the exit status: 0 everything arrived once and in order | 1 not so, or the
 *          server was lost | 2 wrong usage | 78 configuration.
 * Thread:  main.
 */
int benchmark_main(int argc, char **argv);
