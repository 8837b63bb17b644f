/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * `wsbind check-config`: says what the daemon would say about its configuration,
 * without starting it. Changes nothing and needs no privileges but reading.
 */

#include <stdio.h>

/**
 * check_config_main() - run the command
 * @argv:   argv[0] is the name of the command; ends with NULL
 *
 * Return:  the exit status: 0, all is well | 78, the configuration is wrong |
 *          2, wrong usage | 1, no memory, or output failed.
 * Thread:  main.
 */
int check_config_main(int argc, char **argv);

/* The same with the output elsewhere. */
int check_config_run(char **argv, FILE *out, FILE *err);
