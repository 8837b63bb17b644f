/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What `wsbind status`, `clients` and `channels` show, made of what the daemon answers.
 *
 * What clients chose themselves (names, channels, capabilities) is escaped, so that
 * none of them can write to the administrator's terminal.
 */

#include <stdio.h>

#include "base/base.h"

/* What comes in pages. */
enum control_list { CONTROL_CLIENTS, CONTROL_CHANNELS, CONTROL_N_LISTS };

/* The name of the array in the answer. */
extern const char *const control_list_name[CONTROL_N_LISTS];

/* A page of such a list, borrowed from its text. */
struct WB_VALUE control_page {
	const char *objects; /* inside of the array: objects, separated by commas */
	size_t objects_n;    /* bytes */
	uint64_t n;          /* objects */
	uint64_t total;
	uint64_t next;
	bool has_next;
};

/* The overview. @not_ready: why the daemon is not ready, NULL when it is. */
void control_print_status(FILE *out, const char *metrics, const char *not_ready,
			  uint64_t now_wall_ms);

/* Takes a page apart; false when it is none. */
bool control_page_read(const char *text, size_t n, enum control_list list, struct control_page *ret)
	WB_NODISCARD;

/* The line above the table, and the lines of one page. */
void control_print_head(FILE *out, enum control_list list);
void control_print_page(FILE *out, enum control_list list, const struct control_page *page,
			uint64_t now_wall_ms);

/* A text of the daemon's, its line breaks kept and other control characters replaced. */
void control_print_text(FILE *out, const char *text);
