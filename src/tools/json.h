/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Just enough JSON to read what GET /clients answers: walking over objects and
 * arrays, strings, numbers. It works on text that is not trusted: nothing is read
 * past the end, nesting is bounded, and a broken text ends the walk.
 *
 * A cursor that met an error stays at it: all later steps say "no more".
 *
 * Source: RFC 8259.
 */

#include "base/base.h"

#define JSON_MAX_DEPTH 16

struct WB_VALUE json {
	const char *p, *end;
	bool is_broken;
};

/* At the start of @n bytes of text, borrowed. */
struct json json_open(const char *text, size_t n);

/* Steps into an object or array: true when there is one of this kind. '{' or '['. */
bool json_enter(struct json *j, char bracket);

/**
 * json_next() - go to the next member of the object or array that was entered
 * @key:    of an object, its name (cut, NUL-terminated); NULL for an array
 * @cap:    of @key
 *
 * After true the cursor is at a value, which has to be taken or skipped.
 *
 * Return:  true | false at the end, the cursor is behind it, or when broken.
 */
bool json_next(struct json *j, char *key, size_t cap);

/* Skips the value at the cursor. */
void json_skip(struct json *j);

/* Takes a string as UTF-8, cut at @cap, or the text of any other scalar; "" when broken. */
void json_text(struct json *j, char *out, size_t cap);

/* Takes a number that is not negative; 0 for anything else. Fractions are cut. */
uint64_t json_number(struct json *j);
