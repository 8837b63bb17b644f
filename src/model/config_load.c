/* SPDX-License-Identifier: MIT */
#include "model/config_private.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "model/config_kind.h"

/*
 * Where values come from, and in which order: defaults, file, drop-ins by name, command line.
 * Each source is laid over the ones before it, in the same snapshot in the making; only when
 * the last one has been read are the keys compared with each other, since any may have been
 * set again. A snapshot of which anything is wrong is given up whole.
 */

/* A file or a folder from which nothing was read. @error: -errno, or 0. */
static void config_file_is_wrong(const char *path, const char *what, int error,
				 struct config_errors *errors)
{
	config_errors_add(errors, "%s: %s%s", path, error ? "cannot be read: " : "",
			  error ? strerror(-error) : what);
	errors->n_unread++;
}

/* Notes that a file was read. Return: 0 | -ENOMEM. */
static int config_add_file(struct config *c, const char *path, const char *text, size_t n)
{
	struct config_file *grown = reallocarray(c->file, c->n_files + 1, sizeof(*grown));
	char *copy = strdup(path);

	if (grown)
		c->file = grown;
	if (!grown || !copy) {
		free(copy);
		return -ENOMEM;
	}
	while (n > 0 && strchr(" \t\r\n", text[n - 1]) && text[n - 1])
		n--;
	c->file[c->n_files++] = (struct config_file){copy, n == 0};
	return 0;
}

static const char *config_file_flaw(int r, const struct config_source *src)
{
	if (r == FILE_E_KIND && src->before)
		return "is no regular file, which alone can be read again";
	if (r == FILE_E_TOO_LONG)
		return "too long; allowed: 1048576 bytes";
	return file_result_text(r);
}

enum config_file_role { FILE_DEFAULT, FILE_NAMED, FILE_DROP_IN };

/* Only a file that need not exist may be missing; whatever else is wrong becomes a diagnostic. */
static int config_load_file(const struct config_source *src, struct config *c, const char *path,
			    enum config_file_role role, struct config_errors *errors)
{
	WB_CLEANUP(ptr_freep) char *text = malloc(CONFIG_MAX_FILE_BYTES);
	size_t n = 0;
	int r;

	/* Before the file's own trouble: without memory there is nothing to say about it. */
	if (!text)
		return -ENOMEM;
	/* A pipe can be read once, and by whoever named it: not by a reload, nor as a drop-in. */
	r = role == FILE_NAMED && !src->before
		    ? file_read_any(path, text, CONFIG_MAX_FILE_BYTES, &n)
		    : file_read(path, text, CONFIG_MAX_FILE_BYTES, &n);
	if (r == -ENOENT && role == FILE_DEFAULT)
		return 0;
	if (r) {
		config_file_is_wrong(path, config_file_flaw(r, src), MIN(r, 0), errors);
		return 0;
	}
	r = config_add_file(c, path, text, n);
	return r ? r : config_parse_lines(c, path, text, n, errors);
}

static const struct config_file *config_find_file(const struct config *c, const char *path)
{
	for (size_t i = 0; i < c->n_files; i++)
		if (strcmp(c->file[i].path, path) == 0)
			return &c->file[i];
	return NULL;
}

/*
 * A file that is gone takes its settings with it, auth = jwt for one. Who means that says so
 * in the file: a comment is enough.
 */
static void config_compare_files(const struct config *before, const struct config *c,
				 struct config_errors *errors)
{
	for (size_t i = 0; i < before->n_files; i++) {
		const struct config_file *was = &before->file[i];
		const struct config_file *is = config_find_file(c, was->path);

		if (!is)
			config_file_is_wrong(was->path,
					     "was read before and is missing now; to go without it "
					     "leave a comment in it, or restart",
					     0, errors);
		else if (is->is_empty && !was->is_empty)
			config_file_is_wrong(was->path,
					     "is empty, and was not before; to drop its settings "
					     "leave a comment in it, or restart",
					     0, errors);
	}
}

/* Not what editors and package managers leave beside a file: x.conf~, x.conf.dpkg-old, .x.conf. */
static int is_drop_in(const struct dirent *entry)
{
	size_t n = strlen(entry->d_name);

	return entry->d_name[0] != '.' && n > 5 && strcmp(entry->d_name + n - 5, ".conf") == 0;
}

/* Bytes, not the locale's collation: the same order on every host. */
static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int config_load_entries(const struct config_source *src, struct config *c, const char *dir,
			       struct dirent **entry, size_t n, struct config_errors *errors)
{
	int r;

	/*
	 * What is wrong in one file doesn't keep the others from being read: all is told at once.
	 */
	for (size_t i = 0; i < n; i++) {
		WB_CLEANUP(ptr_freep) char *path = NULL;

		if (asprintf(&path, "%s/%s", dir, entry[i]->d_name) < 0)
			return -ENOMEM;
		r = config_load_file(src, c, path, FILE_DROP_IN, errors);
		if (r < 0)
			return r;
	}
	return 0;
}

/* There need not be such a folder; what is there instead of one, or leads to none, is a slip. */
static bool has_no_folder(const char *dir, int error)
{
	struct stat st;

	return error == ENOENT && lstat(dir, &st) < 0;
}

static int config_load_drop_ins(const struct config_source *src, struct config *c, const char *file,
				struct config_errors *errors)
{
	WB_CLEANUP(ptr_freep) char *dir = NULL;
	struct dirent **entry = NULL;
	int r, n;

	if (asprintf(&dir, "%s.d", file) < 0)
		return -ENOMEM;
	n = scandir(dir, &entry, is_drop_in, by_bytes);
	if (n < 0 && has_no_folder(dir, errno))
		return 0;
	if (n < 0 && errno == ENOMEM)
		return -ENOMEM;
	if (n < 0) {
		r = -errno;
		if (r == -ENOENT)
			config_file_is_wrong(dir, file_result_text(FILE_E_DANGLING), 0, errors);
		else if (r == -ENOTDIR)
			config_file_is_wrong(dir, "is no folder, which drop-ins could be in", 0,
					     errors);
		else
			config_file_is_wrong(dir, NULL, r, errors);
		return 0;
	}
	r = config_load_entries(src, c, dir, entry, (size_t)n, errors);
	for (int i = 0; i < n; i++)
		free(entry[i]);
	free(entry);
	return r;
}

/* Values that disagree are worth a word only when each of them is one. */
static int config_finish(struct config *c, struct config_errors *errors, size_t n_before)
{
	int r = 0;

	/* The caller's list may have had lines before: it is the difference that counts. */
	if (errors->n + errors->n_lost == n_before)
		r = config_check(c, errors);
	if (r < 0)
		return r;
	return errors->n + errors->n_lost == n_before ? 0 : CONFIG_E_INVALID;
}

/* All sources, in their order. */
static int config_load_sources(const struct config_source *src, struct config *c,
			       struct config_errors *errors)
{
	const char *file = src->file ? src->file : CONFIG_DEFAULT_FILE;
	int r;

	r = config_load_file(src, c, file, src->file ? FILE_NAMED : FILE_DEFAULT, errors);
	if (r < 0)
		return r;
	r = config_load_drop_ins(src, c, file, errors);
	if (r < 0)
		return r;
	if (src->before && !errors->n_unread)
		config_compare_files(src->before, c, errors);
	return config_parse_overrides(c, src->override, src->n_overrides, errors);
}

int config_load(const struct config_source *src, struct config **ret, struct config_errors *errors)
{
	WB_CLEANUP(config_unrefp) struct config *c = NULL;
	size_t n_before = errors->n + errors->n_lost;
	int r;

	r = config_new(&c);
	if (r < 0)
		return r;
	r = config_load_sources(src, c, errors);
	if (r < 0)
		return r;
	r = config_finish(c, errors, n_before);
	if (r == 0)
		*ret = TAKE_PTR(c);
	return r;
}

int config_find_control_socket(const struct config_source *src, const char *fallback_dir,
			       char **ret, struct config_errors *errors)
{
	WB_CLEANUP(config_unrefp) struct config *c = NULL;
	int r;

	r = config_new(&c);
	if (r < 0)
		return r;
	r = config_load_sources(src, c, errors);
	if (r < 0)
		return r;
	/* Any other key may be wrong: this is how one gets to the daemon to mend that. */
	if ((src->file && errors->n_unread) || errors->wrong[CONFIG_KEY_control_socket])
		return CONFIG_E_INVALID;
	return config_control_socket_path(c, fallback_dir, ret);
}

int config_parse_text(const char *name, const char *text, size_t n, struct config **ret,
		      struct config_errors *errors)
{
	WB_CLEANUP(config_unrefp) struct config *c = NULL;
	size_t n_before = errors->n + errors->n_lost;
	int r;

	r = config_new(&c);
	if (r < 0)
		return r;
	r = config_parse_lines(c, name, text, n, errors);
	if (r < 0)
		return r;
	r = config_finish(c, errors, n_before);
	if (r == 0)
		*ret = TAKE_PTR(c);
	return r;
}

static const char *after_equals(const char *arg)
{
	const char *equals = strchr(arg, '=');

	return equals ? equals + 1 : NULL;
}

int config_source_take(struct config_source *src, char *const argv[], int *i)
{
	const char *arg = argv[*i];
	const char *name, *value;
	const struct config_key *key;
	bool is_file;
	int next = *i + 1;

	if (strncmp(arg, "--", 2) != 0 || arg[2] == '\0' || arg[2] == '=')
		return CONFIG_E_NOT_MINE;
	/*
	 * "--X=VALUE" is taken whatever X is, for config_load() has better words for a key that is
	 * unknown. Of a bare "--X" nobody could tell whether the next argument is its value.
	 */
	name = arg + 2;
	value = after_equals(name);
	key = config_key_find(name, strcspn(name, "="));
	is_file = strncmp(name, "config", 6) == 0 && (name[6] == '=' || name[6] == '\0');
	if (!key && !value && !is_file)
		return CONFIG_E_NOT_MINE;
	/* A switch takes no argument behind it, which would be a file's name as often as not. */
	if (!value && key && key->kind == &config_kind_BOOL)
		value = "yes";
	else if (!value && argv[next] && strncmp(argv[next], "--", 2) != 0)
		value = argv[next++];
	if (!value || (!is_file && src->n_overrides == CONFIG_MAX_OVERRIDES))
		return CONFIG_E_USAGE;
	if (is_file)
		src->file = value;
	else
		src->override[src->n_overrides++] = (struct config_override){name, value};
	*i = next;
	return 0;
}
