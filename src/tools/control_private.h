/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the files of control share. Each calls those before it: control_call.c asks and says
 * what went wrong, control_commands.c has what each command does, control.c the command line.
 */

#include "model/options.h"
#include "service/admin.h"
#include "tools/control.h"
#include "tools/control_http.h"

#define CONTROL_TIMEOUT_MS 5000
#define CONTROL_RELOAD_MS 30000 /* until the last worker uses the new settings */

struct control_call;

struct WB_FROZEN control_command {
	struct option_table options;
	const struct admin_route *route;
	int timeout_ms;
	int (*run)(struct control_call *c); /* Return: the exit status */
};

/* One invocation. */
struct WB_OWNER(main) control_call {
	const struct control_command *command;
	const struct control_streams *io;
	struct config_source source;
	const char *operand; /* NULL: none was given */
	const char *channel; /* NULL: none was given */
	const char *user;    /* likewise */
	const char *sort;    /* likewise */
	uint64_t limit;      /* most to be shown; 0: none was given */
	bool is_json;
	int timeout_ms;
	char *socket_path; /* the call's */
};

/* control_call.c */

/* Says on standard error what is wrong. Return: EXIT_FAILURE. */
int control_fail(const struct control_call *c, const char *format, ...) WB_PRINTF(2, 3);

/* The same for an argument, with the usage behind it. Return: OPTIONS_EXIT_USAGE. */
int control_fail_usage(const struct control_call *c, const char *what, const char *argument);

/* The daemon said no: prints its words. Return: EXIT_FAILURE. */
int control_fail_answer(const struct control_call *c, const struct control_answer *a);

/* An answer that is not what the route gives. Return: EXIT_FAILURE. */
int control_fail_nonsense(const struct control_call *c);

/**
 * control_ask() - send a request of the command and wait for its answer
 * @query:  what goes behind the route's path, encoded: "?id=…"; or ""
 * @body:   text/plain of @n bytes; NULL: none
 *
 * Return:  0 | the exit status, after what is wrong was said.
 * Owns:    the caller frees ret->body with buf_fini().
 */
int control_ask(const struct control_call *c, const struct admin_route *route, const char *query,
		const void *body, size_t n, struct control_answer *ret) WB_NODISCARD;

/* Finds socket_path. Return: 0 | the exit status, after what is wrong was said. */
int control_find_socket(struct control_call *c) WB_NODISCARD;

/* Ends the output. Return: EXIT_SUCCESS | EXIT_FAILURE, said. */
int control_finish(const struct control_call *c) WB_NODISCARD;

/* control_commands.c */

#define CONTROL(name, ...) int control_run_##name(struct control_call *c);
#include "tools/control_table.h"
