/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Before a program takes the place of this process it is asked whether it could start: it is
 * run as `wsbind check-config` with the arguments of the daemon, beside the daemon, which goes
 * on serving.
 */

#include "io/reactor.h"
#include "server/exec_plan.h"

/* Room for what program_check_fn is told. */
#define PROGRAM_CHECK_WHY_MAX 80

/* @why: NULL when the program is right; else what is wrong, which is valid during the call. */
typedef void program_check_fn(void *ctx, const char *why);

struct WB_OWNER(main) program_check {
	struct reactor *reactor;
	int fd; /* of the process that checks; -1: none */
	struct reactor_source source;
	struct wheel_timer timer; /* when it has to be done */
	program_check_fn *done;
	void *ctx;
};

/* @done: called with @ctx when a check has ended. */
void program_check_init(struct program_check *check, struct reactor *r, program_check_fn *done,
			void *ctx);

/* One is under way. */
static inline bool program_check_runs(const struct program_check *check)
{
	return check->fd >= 0;
}

/* Starts a check; none is under way. Return: 0 | -errno: @done is not called. */
int program_check_start(struct program_check *check, const struct exec_plan *plan) WB_NODISCARD;
