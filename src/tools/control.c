/* SPDX-License-Identifier: MIT */
#include "tools/control.h"

#include <string.h>

#include "tools/arguments.h"
#include "tools/control_private.h"

/* clang-format off */
#define OPTION(...) OPTION_ROW(struct control_call, __VA_ARGS__)
static const struct option_row no_options[] = {};
static const struct option_row client_options[] = {
	OPTION(0, "json", FLAG, is_json, 0, 0, NULL, NULL, NULL),
	OPTION('c', "channel", TEXT, channel, 0, 0, "CHANNEL", "[-c|--channel CHANNEL]", NULL),
	OPTION(0, "user", TEXT, user, 0, 0, "USER", NULL, NULL),
	OPTION(0, "sort", TEXT, sort, 0, 0, "connected_at|last_heartbeat|queued_bytes|queued_messages|messages_in|messages_out", NULL, NULL),
	OPTION(0, "limit", COUNT, limit, 1, UINT32_MAX, "N", NULL, NULL),
};
static const struct option_row channels_options[] = {
	OPTION(0, "json", FLAG, is_json, 0, 0, NULL, NULL, NULL),
	OPTION(0, "sort", TEXT, sort, 0, 0, "busiest|bytes|members|lagging", NULL, NULL),
	OPTION(0, "limit", COUNT, limit, 1, UINT32_MAX, "N", NULL, NULL),
};
static const struct option_row user_options[] = {
	OPTION(0, "user", TEXT, user, 0, 0, "USER", NULL, NULL),
};
static const struct option_row channel_options[] = {
	OPTION('c', "channel", TEXT, channel, 0, 0, "CHANNEL", "[-c|--channel CHANNEL]", NULL),
};
#undef OPTION
/* clang-format on */

static const struct control_command commands[] = {
#define CONTROL(name, help, operand_, options_, route_, timeout_) \
	{.options = {.command = #name,                            \
		     .operand = (operand_),                       \
		     .rows = (options_),                          \
		     .n_rows = ARRAY_LEN(options_)},              \
	 .route = &admin_routes[ADMIN_ROUTE_##route_],            \
	 .timeout_ms = (timeout_),                                \
	 .run = control_run_##name},
#include "tools/control_table.h"
};

/* NULL: none of the rows has that name. */
static const struct control_command *control_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].options.command, name) == 0)
			return &commands[i];
	return NULL;
}

int control_run(char **argv, const struct control_streams *streams)
{
	struct control_call c = {.command = control_find(argv[0]), .io = streams};
	bool wants_help = false;
	const char *wrong;
	int r;

	WB_ASSERT(c.command);
	/* main.c has the names of the same rows: no other comes here. */
	c.timeout_ms = streams->timeout_ms ? streams->timeout_ms : c.command->timeout_ms;
	wrong = arguments_parse(&c.command->options, argv, &c, &c.source, &c.operand, &wants_help);
	/* What happens most: several words, each of which is an argument of its own. */
	if (wrong && c.command->run == control_run_publish && c.operand && wrong[0] != '-')
		return control_fail_usage(&c, "one TEXT only: put it in quotes: ", wrong);
	if (wrong)
		return control_fail_usage(&c, "not understood, or its value is missing: ", wrong);
	if (wants_help) {
		options_print_synopsis(&c.command->options, streams->out);
		return control_finish(&c);
	}
	if (c.command->options.operand && c.command->options.operand[0] != '[' && !c.operand)
		return control_fail_usage(&c, "an argument is missing", "");
	/*
	 * The command line is right: from here on what goes wrong is the configuration's or the
	 * daemon's.
	 */
	r = control_find_socket(&c);
	if (r == 0)
		r = c.command->run(&c);
	free(c.socket_path);
	return r;
}

int control_main(int argc, char **argv)
{
	const struct control_streams streams = {.in = stdin, .out = stdout, .err = stderr};

	(void)argc;
	return control_run(argv, &streams);
}
