/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Kinds of configuration values: how the text of each kind is read, written,
 * bounded and explained. Internal to model/config*; nobody else needs values
 * apart from their snapshot.
 */

#include "model/config.h"

/* The type of the member in struct config. */
enum config_storage {
	STORE_NUMBER, /* uint64_t */
	STORE_REAL,
	STORE_BOOL,
	STORE_CHOICE, /* int, or an enum, which has the size of one */
	STORE_TEXT,
};

/* One value on its way into or out of a snapshot. A text is borrowed. */
struct WB_VALUE config_value {
	uint64_t number; /* of STORE_NUMBER; of STORE_TEXT its length, for the bounds */
	double real;
	int choice; /* of STORE_BOOL too */
	const char *text;
	/* Of a list, where its parser says -EINVAL: a part of it, and why that is none. Or NULL. */
	const char *part;
	size_t part_n;
	const char *part_why;
};

struct WB_VALUE config_choice {
	const char *name;
	int value;
};

struct WB_FROZEN config_kind {
	enum config_storage storage;
	const char *noun;   /* "a size", as in "not a size" */
	const char *syntax; /* what is allowed, with %s where the range goes */
	const char *zero;   /* a word that stands for 0, whatever the bounds; or NULL */
	const struct config_choice *choice; /* ends with a NULL name; aliases behind the name */
	int (*parse)(const struct config_kind *k, const char *text, struct config_value *ret);
	char *(*format)(char *out, size_t cap, uint64_t number); /* NULL: plain digits */
};

extern const struct config_kind config_kind_ADDRESS, config_kind_AUTH, config_kind_BOOL,
	config_kind_COUNT, config_kind_DURATION, config_kind_LOG_LEVEL, config_kind_MODE,
	config_kind_ON_STOP, config_kind_ORIGINS, config_kind_PERCENT, config_kind_PORT,
	config_kind_PREFIXES, config_kind_RATE_ACTION, config_kind_REAL, config_kind_SIZE,
	config_kind_SLOW_CONSUMER, config_kind_STAMP, config_kind_TEXT, config_kind_TEXT_MESSAGES,
	config_kind_URL_PATH, config_kind_WORKERS;

enum config_value_result {
	VALUE_OK,
	VALUE_E_KIND = 1, /* not of this kind at all */
	VALUE_E_RANGE,    /* out of the key's bounds */
};

/**
 * config_value_parse() - read the value of a key and check its bounds
 * @text:   without space around it
 * @ret:    on success; a text in it points into @text. With VALUE_E_KIND the part alone
 *
 * Thread:  any.
 */
enum config_value_result config_value_parse(const struct config_key *key, const char *text,
					    struct config_value *ret) WB_NODISCARD;

/* Describes what the key takes, its range included, cut at @cap. Thread: any. */
void config_value_allowed(const struct config_key *key, char *out, size_t cap);

/**
 * config_value_set() - put a value into a snapshot that nobody else sees yet
 *
 * Return:  0 | -ENOMEM, nothing changed.
 * Owns:    a text is copied; the one before it is freed.
 * Thread:  the snapshot's owner.
 */
int config_value_set(struct config *c, const struct config_key *key, const struct config_value *v)
	WB_NODISCARD;

/* The value of a key; a text in it is borrowed from @c. Thread: any. */
struct config_value config_value_get(const struct config *c, const struct config_key *key);

/* Thread: any. */
bool config_value_equal(const struct config_key *key, const struct config_value *a,
			const struct config_value *b);
