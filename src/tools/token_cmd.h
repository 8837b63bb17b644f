/* SPDX-License-Identifier: MIT */
#pragma once

/* `wsbind token`: makes a token, for first steps and tests. */

/**
 * token_main() - run the command
 * @argv:   argv[0] is the name of the command; ends with NULL
 *
 * Return:  the exit status: 0 | 1 no key that can sign | 2 wrong usage | 78 configuration.
 * Thread:  main.
 */
int token_main(int argc, char **argv);
