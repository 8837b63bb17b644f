/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * `wsbind subscribe`: prints what arrives in some channels, for people or as JSON, and misses
 * nothing of those that have history: each connection goes on where the one before ended.
 */

/**
 * subscribe_main() - run the command
 * @argv:   argv[0] is the name of the command; ends with NULL
 *
 * Return:  the exit status: 0 closed with 1000, or told to stop | 1 gave up, or nobody reads what
 *          is printed | 2 wrong usage | 78 configuration.
 * Thread:  main.
 */
int subscribe_main(int argc, char **argv);
