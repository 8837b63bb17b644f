/* SPDX-License-Identifier: MIT */
#include "tools/arguments.h"

#include <string.h>

const char *arguments_parse(const struct option_table *table, char *const argv[], void *into,
			    struct config_source *source, const char **operand, bool *wants_help)
{
	bool only_operands = false, has_operand = false;
	int i = 1;

	while (argv[i]) {
		const char *arg = argv[i];
		enum option_outcome r = OPTION_IS_OPERAND;

		/* Behind it a text to publish may begin with a dash. */
		if (!only_operands && strcmp(arg, "--") == 0) {
			only_operands = true;
			i++;
			continue;
		}
		if (!only_operands)
			r = options_take(table, argv, &i, into, source, stderr);
		if (r == OPTION_TAKEN)
			continue;
		/* Help does not end the walk: what is wrong behind it is still wrong. */
		if (r == OPTION_IS_HELP)
			*wants_help = true;
		else if (r == OPTION_IS_OPERAND && table->operand && !has_operand)
			*operand = arg;
		else
			return arg;
		has_operand |= r == OPTION_IS_OPERAND;
		i++;
	}
	return NULL;
}
