/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How this process becomes the next one: which program is executed, with which arguments, and
 * which descriptors it finds where sd_listen_fds(3) looks for them.
 *
 * All that may fail is done by exec_plan_make(), while the workers can still go on; exec_plan_run()
 * then only moves descriptors and executes.
 */

#include <limits.h>

#include "containers/buf.h"
#include "server/outgoing.h"

/* The file of records, the ends of the parcels, the listeners. */
#define EXEC_PLAN_MAX_FDS (OUTGOING_MAX_LISTENERS + 2 * PARCEL_MAX_PAIRS + 1)

struct WB_OWNER(main) exec_plan {
	char program[PATH_MAX];  /* executed: what lies there now, perhaps another version */
	int program_fd;          /* this program, should the other one not even start */
	char **server_arguments; /* behind "server"; borrowed */
	char **arguments;        /* of the program; made by exec_plan_make() */
	int fd[EXEC_PLAN_MAX_FDS];
	unsigned n_fds;
	struct buf names; /* of @fd, as LISTEN_FDNAMES has them */
};

/* Remembers which program this is. @arguments: behind "server", ends with NULL; borrowed. */
void exec_plan_init(struct exec_plan *plan, char **arguments);

/**
 * exec_plan_arguments() - the program's arguments for another command of it
 * @command: the first argument
 *
 * Return:  ends with NULL; the array alone is the caller's, by free(). NULL without memory.
 */
char **exec_plan_arguments(const struct exec_plan *plan, const char *command) WB_NODISCARD;

/**
 * exec_plan_make() - get ready to execute
 * @out:    what is left to the program; stays the caller's
 *
 * Return:  0 | -errno; nothing has changed then but LISTEN_… in the environment.
 */
int exec_plan_make(struct exec_plan *plan, const struct outgoing *out) WB_NODISCARD;

/*
 * Executes the program. @pending: a signal that it shall find, or 0. Returns when neither that
 * nor this program can be executed; descriptors are not what they were then.
 */
void exec_plan_run(struct exec_plan *plan, int pending);
