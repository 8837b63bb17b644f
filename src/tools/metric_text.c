/* SPDX-License-Identifier: MIT */
#include "tools/metric_text.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* The next line that begins with @name and a blank or labels, from @line on; NULL: none. */
static const char *metric_find(const char *line, const char *name)
{
	size_t n = strlen(name);

	while (line) {
		/* A longer name begins in the same way, and a comment holds it, too. */
		if (strncmp(line, name, n) == 0 && (line[n] == ' ' || line[n] == '{'))
			return line;
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return NULL;
}

double metric_sum(const char *text, const char *name)
{
	double sum = 0;

	for (const char *line = text; (line = metric_find(line, name));) {
		const char *end = line + strcspn(line, "\n"), *value = end;

		/* A label's value may hold a blank, but nothing follows the number. */
		while (value > line && value[-1] != ' ')
			value--;
		sum += strtod(value, NULL);
		line = end;
	}
	return sum;
}

bool metric_is_there(const char *text, const char *series)
{
	return metric_find(text, series);
}

void metric_label(const char *text, const char *name, const char *label, char *out, size_t cap)
{
	const char *line = metric_find(text, name);
	char at[100];

	out[0] = '\0';
	if (!line)
		return;
	/* The labels that are asked for stand first, as the daemon writes them. */
	line += strlen(name);
	snprintf(at, sizeof(at), "{%s=\"", label);
	if (strncmp(line, at, strlen(at)) != 0)
		return;
	line += strlen(at);
	text_escape(out, cap, line, strcspn(line, "\"\n"));
}
