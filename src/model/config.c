/* SPDX-License-Identifier: MIT */
#include "model/config.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "model/config_kind.h"
#include "model/config_private.h"

/*
 * The rows of config_keys.h, three times: as members of struct config, as indices, and here as
 * a table that the rest of model/config walks. What a member's type is, only its kind knows;
 * so nothing here names a key, but for paths, which depend on the environment.
 */

const struct config_key config_keys[CONFIG_N_KEYS] = {
#define KEY(field, KIND, def, lo, hi, when, text)         \
	{                                                 \
		.name = #field,                           \
		.kind = &config_kind_##KIND,              \
		.offset = offsetof(struct config, field), \
		.dflt = (def),                            \
		.min = (lo),                              \
		.max = (hi),                              \
		.reload = RELOAD_##when,                  \
		.help = (text),                           \
	},
#include "model/config_keys.h"
};

static size_t config_key_index(const struct config_key *key)
{
	return (size_t)(key - config_keys);
}

int config_new(struct config **ret)
{
	WB_CLEANUP(config_unrefp) struct config *c = calloc(1, sizeof(*c));
	struct config_value v;
	int r;

	if (!c)
		return -ENOMEM;
	atomic_init(&c->refs, 1);
	/* Defaults are text like any other's, so that none can be one that a file may not have. */
	for (size_t i = 0; i < CONFIG_N_KEYS; i++) {
		WB_ASSERT(config_value_parse(&config_keys[i], config_keys[i].dflt, &v) == VALUE_OK);
		r = config_value_set(c, &config_keys[i], &v);
		if (r < 0)
			return r;
	}
	*ret = TAKE_PTR(c);
	return 0;
}

static void section_free(struct config_section *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->setting[i].origin);
	free(s->setting);
	free(s->pattern);
}

static void config_free(struct config *c)
{
	/* The members that are texts are the only ones that hold memory. */
	for (size_t i = 0; i < CONFIG_N_KEYS; i++) {
		if (config_keys[i].kind->storage == STORE_TEXT)
			free(*(char **)(void *)((char *)c + config_keys[i].offset));
		free(c->origin[i]);
	}
	for (size_t i = 0; i < c->n_files; i++)
		free(c->file[i].path);
	free(c->file);
	for (size_t i = 0; i < c->n_sections; i++)
		section_free(&c->section[i]);
	free(c->section);
	free(c);
}

struct config *config_ref(struct config *c)
{
	/* Whoever takes a reference has one, or was handed the snapshot by someone who has. */
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

struct config *config_unref(struct config *c)
{
	/* Release: this thread's reads come first. Acquire: pairs with those of all others. */
	if (c && atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1)
		config_free(c);
	return NULL;
}

void config_unrefp(struct config **c)
{
	*c = config_unref(*c);
}

void config_errors_add(struct config_errors *errors, const char *fmt, ...)
{
	va_list args;
	char *line = NULL;
	int r = -1;

	/* Without memory the line is lost but counted: the configuration is wrong all the same. */
	if (errors->n < CONFIG_MAX_ERRORS) {
		va_start(args, fmt);
		r = vasprintf(&line, fmt, args);
		va_end(args);
	}
	if (r < 0)
		errors->n_lost++;
	else
		errors->line[errors->n++] = line;
}

void config_errors_fini(struct config_errors *errors)
{
	for (size_t i = 0; i < errors->n; i++)
		free(errors->line[i]);
	*errors = (struct config_errors){0};
}

void config_errors_print(const struct config_errors *errors, const char *prefix, FILE *out)
{
	char shown[2 * PATH_MAX];

	/* Escaped, since a line shows what the file says, and a file may say anything. */
	for (size_t i = 0; i < errors->n; i++) {
		text_escape(shown, sizeof(shown), errors->line[i], strlen(errors->line[i]));
		fprintf(out, "%s%s\n", prefix, shown);
	}
	if (errors->n_lost)
		fprintf(out, "%sand %zu more\n", prefix, errors->n_lost);
}

const struct config_key *config_key_find(const char *name, size_t n)
{
	for (size_t i = 0; i < CONFIG_N_KEYS; i++) {
		const char *is = config_keys[i].name;
		size_t k = 0;

		/* Dashes are how options are written, underscores how files are. */
		while (k < n && is[k] && is[k] == (name[k] == '-' ? '_' : name[k]))
			k++;
		if (k == n && !is[k])
			return &config_keys[i];
	}
	return NULL;
}

int config_set_origin(struct config *c, const struct config_key *key, const char *name,
		      unsigned line)
{
	char *text = NULL;
	int r = line ? asprintf(&text, "%s:%u", name, line) : asprintf(&text, "%s", name);

	if (r < 0)
		return -ENOMEM;
	free(c->origin[config_key_index(key)]);
	c->origin[config_key_index(key)] = text;
	return 0;
}

const char *config_origin(const struct config *c, const struct config_key *key)
{
	const char *origin = c->origin[config_key_index(key)];

	return origin ? origin : "default";
}

static const char *config_choice_name(const struct config_kind *k, int value)
{
	const struct config_choice *c = k->choice;

	/* The first of its names; others are for reading alone. */
	while (c->name && c->value != value)
		c++;
	return c->name;
}

int config_format(const struct config *c, const struct config_key *key, char **ret)
{
	const struct config_value v = config_value_get(c, key);

	return config_format_value(key, &v, ret);
}

int config_format_value(const struct config_key *key, const struct config_value *v, char **ret)
{
	const struct config_kind *k = key->kind;
	char number[32];
	char *text;

	/* What config_value_parse() reads as the same value: --dump can be fed back. */
	if (k->storage == STORE_TEXT)
		text = strdup(v->text);
	else if (k->storage == STORE_BOOL)
		text = strdup(v->choice ? "yes" : "no");
	else if (k->storage == STORE_CHOICE)
		text = strdup(config_choice_name(k, v->choice));
	else if (k->storage == STORE_REAL)
		text = asprintf(&text, "%.15g", v->real) < 0 ? NULL : text;
	else if (k->zero && v->number == 0)
		text = strdup(k->zero);
	else if (k->format)
		text = strdup(k->format(number, sizeof(number), v->number));
	else
		text = asprintf(&text, "%" PRIu64, v->number) < 0 ? NULL : text;
	if (!text)
		return -ENOMEM;
	*ret = text;
	return 0;
}

int config_keep_running(struct config *fresh, const struct config *running)
{
	for (size_t i = 0; i < CONFIG_N_KEYS; i++) {
		const struct config_key *key = &config_keys[i];
		struct config_value v = config_value_get(running, key);
		char *origin = NULL;
		int r;

		if (key->reload != RELOAD_RESTART)
			continue;
		r = config_value_set(fresh, key, &v);
		if (r < 0)
			return r;
		/*
		 * The origin goes with the value: that line of the file says something else by now.
		 */
		if (running->origin[i]) {
			origin = strdup(running->origin[i]);
			if (!origin)
				return -ENOMEM;
		}
		free(fresh->origin[i]);
		fresh->origin[i] = origin;
	}
	return 0;
}

const char *config_reload_text(enum config_reload reload)
{
	static const char *const text[] = {
		[RELOAD_LIVE] = "live",
		[RELOAD_NEW_CONN] = "new connections",
		[RELOAD_RESTART] = "restart",
	};

	return text[reload];
}

/* systemd joins several directories with colons. */
static int config_path_under(const char *dirs, const char *path, char **ret)
{
	int n = dirs ? (int)strcspn(dirs, ":") : 0;
	char *text = NULL;

	if (path[0] == '/' || n == 0)
		text = strdup(path);
	else if (asprintf(&text, "%.*s/%s", n, dirs, path) < 0)
		text = NULL;
	if (!text)
		return -ENOMEM;
	*ret = text;
	return 0;
}

int config_path_state(const char *path, char **ret)
{
	return config_path_under(getenv("STATE_DIRECTORY"), path, ret);
}

int config_path_runtime(const char *path, char **ret)
{
	return config_path_under(getenv("RUNTIME_DIRECTORY"), path, ret);
}

/* What lies behind a folder that may not be entered is there, as far as one can tell. */
static bool is_there(const char *path)
{
	return access(path, F_OK) == 0 || errno == EACCES;
}

/* The path itself, or under @dir when it is only there. */
static int config_path_or_under(const char *dir, const char *path, char **ret)
{
	WB_CLEANUP(ptr_freep) char *under = NULL;
	int r = config_path_under(dir, path, &under);

	if (r < 0)
		return r;
	if (!is_there(path) && is_there(under)) {
		*ret = TAKE_PTR(under);
		return 0;
	}
	return config_path_under(NULL, path, ret);
}

int config_control_socket_path(const struct config *c, const char *fallback_dir, char **ret)
{
	const char *dirs = getenv("RUNTIME_DIRECTORY"), *path = c->control_socket;

	/* Empty is no directory: a path under it would be one at the root. */
	if (dirs && !*dirs)
		dirs = NULL;
	if (strcmp(path, "none") == 0 || (!*path && !dirs && !fallback_dir)) {
		*ret = NULL;
		return 0;
	}
	if (!*path)
		return config_path_under(dirs ? dirs : fallback_dir, "control.sock", ret);
	/*
	 * A command has not the daemon's environment, and the daemon may have been started by hand
	 * here, or by systemd there: where the socket is tells.
	 */
	if (!dirs && fallback_dir)
		return config_path_or_under(fallback_dir, path, ret);
	return config_path_under(dirs, path, ret);
}
