/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Configuration: one frozen, counted snapshot of all keys, made of the rows of
 * config_keys.h.
 *
 * A snapshot exists only if every line of every source was right and the values
 * agree with each other; so nobody else checks a setting again, and nobody
 * reads configuration text at run time. What was wrong is collected, all of it,
 * as lines of text that name file, line, key, value and what is allowed.
 *
 * Sources, later wins: defaults, the file, FILE.d/<any>.conf in name order, the
 * command line.
 */

#include <stdio.h>

#include "base/base.h"

enum config_slow_consumer { SLOW_DISCONNECT, SLOW_SKIP, SLOW_HISTORY };
enum config_rate_action { RATE_THROTTLE, RATE_CLOSE };
enum config_auth { AUTH_NONE, AUTH_JWT };
enum config_on_stop { ON_STOP_AUTO, ON_STOP_KEEP, ON_STOP_CLOSE };
enum config_stamp { STAMP_AUTO, STAMP_YES, STAMP_NO };
enum config_text_messages { TEXT_LOG, TEXT_RELAY, TEXT_REJECT };

/* What a key is in struct config, by kind. Texts are never NULL; "" when empty. */
#define CONFIG_MEMBER_ADDRESS char *
#define CONFIG_MEMBER_AUTH enum config_auth
#define CONFIG_MEMBER_BOOL bool
#define CONFIG_MEMBER_COUNT uint64_t
#define CONFIG_MEMBER_DURATION uint64_t /* ns */
#define CONFIG_MEMBER_LOG_LEVEL int     /* LOG_EMERG … LOG_DEBUG of syslog.h */
#define CONFIG_MEMBER_MODE uint64_t     /* permissions, as chmod(2) has them */
#define CONFIG_MEMBER_ON_STOP enum config_on_stop
#define CONFIG_MEMBER_ORIGINS char *
#define CONFIG_MEMBER_PERCENT uint64_t
#define CONFIG_MEMBER_PORT uint64_t /* or CONFIG_PORT_OFF */
#define CONFIG_MEMBER_PREFIXES char *
#define CONFIG_MEMBER_RATE_ACTION enum config_rate_action
#define CONFIG_MEMBER_REAL double
#define CONFIG_MEMBER_SIZE uint64_t /* bytes */
#define CONFIG_MEMBER_SLOW_CONSUMER enum config_slow_consumer
#define CONFIG_MEMBER_STAMP enum config_stamp
#define CONFIG_MEMBER_TEXT char *
#define CONFIG_MEMBER_TEXT_MESSAGES enum config_text_messages
#define CONFIG_MEMBER_URL_PATH char *
#define CONFIG_MEMBER_WORKERS uint64_t /* 0 = auto */

/* CONFIG_KEY_port, …: the index of a key in config_keys[] and in struct config's origin[]. */
enum config_key_index {
#define KEY(name, ...) CONFIG_KEY_##name,
#include "model/config_keys.h"
	CONFIG_N_KEYS
};

#define CONFIG_PORT_OFF 65536

#define CONFIG_DEFAULT_FILE "/etc/wsbind.conf"
#define CONFIG_MAX_FILE_BYTES (1024 * 1024)
#define CONFIG_MAX_LINE_BYTES 4096 /* of one line, its end not counted */
#define CONFIG_MAX_OVERRIDES 64
#define CONFIG_MAX_ERRORS 100

struct config_section; /* model/config_private.h */

/* A snapshot. Made by config_load(), read by every thread, freed by the last config_unref(). */
struct WB_FROZEN config {
#define KEY(name, kind, ...) CONFIG_MEMBER_##kind name;
#include "model/config_keys.h"

	char *origin[CONFIG_N_KEYS]; /* "FILE:LINE" or "command line"; NULL = default */
	struct config_file {
		char *path;
		bool is_empty; /* nothing but blanks stood in it */
	} * file;              /* those that were read, in their order */
	size_t n_files;
	struct config_section *section; /* in their order */
	size_t n_sections;
	_Atomic unsigned refs; /* the only member that changes */
};

enum config_reload { RELOAD_LIVE, RELOAD_NEW_CONN, RELOAD_RESTART };

struct config_kind; /* parser, formatter and bounds of a kind: model/config_kind.h */

/* A row of config_keys.h. */
struct WB_FROZEN config_key {
	const char *name;
	const struct config_kind *kind;
	size_t offset; /* of the member of struct config */
	const char *dflt;
	const char *min, *max;
	enum config_reload reload;
	const char *help;
};

extern const struct config_key config_keys[CONFIG_N_KEYS];

/* Keys of a channel: what holds for one. */
struct WB_VALUE config_channel {
#define KEY(...)
#define CHANNEL_KEY(name, kind, ...) CONFIG_MEMBER_##kind name;
#include "model/config_keys.h"
};

#define CONFIG_MAX_SECTIONS 1000

/*
 * What holds for the channel of that name: everyone's values, but those that sections have whose
 * pattern it has, the last of them each time. Thread: any. Cost: O(sections).
 */
WB_ANY_THREAD void config_for_channel(const struct config *c, const char *name,
				      struct config_channel *ret);

/* Whether any channel may have history. Thread: any. */
WB_ANY_THREAD bool config_keeps_history(const struct config *c);

/* One --KEY=VALUE of the command line. Both texts are borrowed from argv. */
struct WB_VALUE config_override {
	const char *key; /* as written, without the dashes in front; ends at '=' or NUL */
	const char *value;
};

/* Where to read from. All-zero: the default file if there is one, its drop-ins, no overrides. */
struct WB_VALUE config_source {
	const char *file; /* NULL = CONFIG_DEFAULT_FILE; one that is named must exist */
	struct config_override override[CONFIG_MAX_OVERRIDES];
	size_t n_overrides;
	/* What a reload is compared with: a file that was read for it has to be there. Or NULL. */
	const struct config *before;
};

/*
 * Diagnostics, in the order found. All-zero is empty. A line shows names and values
 * as they were found, cut to some length: whoever prints it escapes it, as the log does.
 */
struct WB_VALUE config_errors {
	char *line[CONFIG_MAX_ERRORS]; /* without newline */
	size_t n;                      /* entries of line[] */
	size_t n_lost;                 /* more, for which there was no room */
	size_t n_unread;               /* files and folders that could not be read */
	bool wrong[CONFIG_N_KEYS];     /* keys whose last value was no good */
};

enum config_result {
	CONFIG_E_INVALID = 1, /* something is wrong, config_errors says what: exit status 78 */
	CONFIG_E_USAGE,       /* an option lacks its value, or there are too many */
	CONFIG_E_NOT_MINE,    /* the argument is no option of the configuration */
};

/**
 * config_load() - read all sources and make a snapshot of them
 * @errors: all-zero or used before; gets what is wrong
 *
 * What is missing must not open what was closed. A folder of drop-ins that is none and a link
 * that leads nowhere are wrong at any time; beside @src->before, so is each file that was read
 * for it and is missing, empty, or no regular file now. A first reading takes a pipe, too.
 *
 * Return:  0 | CONFIG_E_INVALID, @errors has at least one line | -ENOMEM.
 * Owns:    *@ret is the caller's reference; @errors is to be emptied with config_errors_fini().
 * Thread:  any, but one at a time in the process (inih's options are global).
 */
int config_load(const struct config_source *src, struct config **ret, struct config_errors *errors)
	WB_NODISCARD;

/**
 * config_parse_text() - make a snapshot of the defaults and one text
 * @name:   stands for the file in diagnostics and origins
 * @text:   @n bytes, any bytes
 *
 * Return:  as config_load().
 * Owns:    as config_load().
 * Thread:  as config_load().
 */
int config_parse_text(const char *name, const char *text, size_t n, struct config **ret,
		      struct config_errors *errors) WB_NODISCARD;

/* One more reference. Thread: any. Return: @c. */
WB_ANY_THREAD struct config *config_ref(struct config *c);

/* One reference less; the last frees. NULL is fine. Thread: any. Return: NULL. */
WB_ANY_THREAD struct config *config_unref(struct config *c);

/* For WB_CLEANUP. */
void config_unrefp(struct config **c);

/* Adds a line; one that finds no room or memory is counted. Thread: the owner of @errors. */
void config_errors_add(struct config_errors *errors, const char *fmt, ...) WB_PRINTF(2, 3);

/* Frees the lines; the struct is empty again. */
void config_errors_fini(struct config_errors *errors);

/* Prints a line for each, escaped, with @prefix in front. Thread: any. */
void config_errors_print(const struct config_errors *errors, const char *prefix, FILE *out);

/**
 * config_source_take() - take an option of the configuration from the command line
 * @argv:   ends with NULL, as main() gets it
 * @i:      index of the argument to look at; moved past what was taken
 *
 * Takes --config FILE, --config=FILE, --KEY=VALUE, --KEY VALUE, and a bare --KEY of
 * a yes/no key, which means yes. A key may be written with dashes. Any --X=VALUE is
 * taken, and config_load() says so when there is no key X: a command looks for its
 * own options first.
 *
 * Return:  0, taken | CONFIG_E_NOT_MINE, left alone | CONFIG_E_USAGE, the value is missing
 *          or there are more than CONFIG_MAX_OVERRIDES.
 * Thread:  any.
 */
int config_source_take(struct config_source *src, char *const argv[], int *i) WB_NODISCARD;

/**
 * config_key_find() - a row by its name
 * @name:   @n bytes, with underscores or dashes
 *
 * Return:  the row, or NULL.
 * Thread:  any.
 */
WB_ANY_THREAD const struct config_key *config_key_find(const char *name, size_t n);

/**
 * config_format() - the value of a key, as it would be written in the file
 * @ret:    NUL-terminated text
 *
 * Return:  0 | -ENOMEM.
 * Owns:    *@ret is the caller's, by free().
 * Thread:  any.
 */
WB_ANY_THREAD int config_format(const struct config *c, const struct config_key *key, char **ret)
	WB_NODISCARD;

/* "default", "FILE:LINE" or "command line". Thread: any. */
WB_ANY_THREAD const char *config_origin(const struct config *c, const struct config_key *key);

/*
 * What config_diff() reports: a key, its name with that of its section, and its old and new value
 * as text; of a section that has no such key "not set".
 */
typedef void config_diff_fn(void *ctx, const struct config_key *key, const char *name,
			    const char *was, const char *is);

/**
 * config_diff() - call @fn for each key whose value differs
 *
 * In the order of config_keys.h. The texts are borrowed for the call.
 *
 * Return:  0 | -ENOMEM, after some calls perhaps.
 * Thread:  any.
 */
int config_diff(const struct config *was, const struct config *is, config_diff_fn *fn, void *ctx)
	WB_NODISCARD;

/**
 * config_opens() - whether a change of @key lets somebody in who was kept out
 *
 * Of the keys that say who may come in: auth, allowed_origins, the claims and certificates
 * that are asked for, the proxies that are believed.
 *
 * Thread:  any.
 */
bool config_opens(const struct config *was, const struct config *is, const struct config_key *key);

/**
 * config_keep_running() - take the values of RESTART keys from the running snapshot
 * @fresh:  not published yet; its RESTART keys become those of @running
 *
 * For a reload, between config_diff() and publishing: so that a snapshot always
 * says what is in force, and the next reload reports the pending change again.
 *
 * Return:  0 | -ENOMEM, @fresh is to be given up then.
 * Thread:  the owner of @fresh.
 */
int config_keep_running(struct config *fresh, const struct config *running) WB_NODISCARD;

/* "live", "new connections", "restart". */
const char *config_reload_text(enum config_reload reload);

/**
 * config_dump() - print every key: value, origin, reload class, in aligned columns
 *
 * Return:  0 | -ENOMEM | -EIO when @out failed.
 * Thread:  any.
 */
int config_dump(const struct config *c, FILE *out) WB_NODISCARD;

/**
 * config_save() - print what was set, as lines that config_parse_text() reads
 *
 * Return:  0 | -ENOMEM | -EIO when @out failed.
 * Thread:  any.
 */
int config_save(const struct config *c, FILE *out) WB_NODISCARD;

/**
 * config_template() - print a configuration file that has every key, commented out
 *
 * Return:  0 | -ENOMEM | -EIO when @out failed.
 * Thread:  any.
 */
int config_template(FILE *out) WB_NODISCARD;

/**
 * config_path_state() - a path of the configuration that lies under $STATE_DIRECTORY
 * config_path_runtime() - the same under $RUNTIME_DIRECTORY
 *
 * An absolute path, and any path when the variable is not set, comes back as it is.
 * Of several directories in the variable the first counts.
 *
 * Return:  0 | -ENOMEM.
 * Owns:    *@ret is the caller's, by free().
 * Thread:  any, while nobody changes the environment.
 */
int config_path_state(const char *path, char **ret) WB_NODISCARD;
int config_path_runtime(const char *path, char **ret) WB_NODISCARD;

/**
 * config_control_socket_path() - where the control socket is
 * @fallback_dir: for when $RUNTIME_DIRECTORY is not set: NULL for the daemon,
 *                "/run/wsbind" for the commands that talk to it
 * @ret:    NULL when there is to be no control socket
 *
 * Without the variable, a relative path counts from the working directory. With
 * @fallback_dir, a key that is empty means control.sock in it, and so does a relative
 * path that is there and not in the working directory.
 *
 * Return:  0 | -ENOMEM.
 * Owns:    *@ret is the caller's, by free().
 * Thread:  any, while nobody changes the environment.
 */
int config_control_socket_path(const struct config *c, const char *fallback_dir, char **ret)
	WB_NODISCARD;

/**
 * config_find_control_socket() - the same, from sources in which anything else may be wrong
 * @ret:    as of config_control_socket_path()
 * @errors: as of config_load(); has lines also when a path was found
 *
 * So that a daemon can be asked to reload a configuration that it won't take.
 *
 * Return:  0 | CONFIG_E_INVALID, the path cannot be known: what @src->file names could not be
 *          read, or the last value of the key is no good | -ENOMEM.
 * Owns:    *@ret is the caller's, by free().
 * Thread:  as config_load(), while nobody changes the environment.
 */
int config_find_control_socket(const struct config_source *src, const char *fallback_dir,
			       char **ret, struct config_errors *errors) WB_NODISCARD;
