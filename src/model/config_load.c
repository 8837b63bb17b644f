/* SPDX-License-Identifier: MIT */
#include "model/config_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "model/config_kind.h"

/*
 * Where values come from, and in which order: defaults, file, drop-ins by name, command line.
 * Each source is laid over the ones before it, in the same snapshot in the making; only when
 * the last one has been read are the keys compared with each other, since any may have been
 * set again. A snapshot of which anything is wrong is given up whole.
 */

/* Bytes of a file, and one more, by which a file that is too long is known. */
static int read_all(int fd, char *out, size_t cap, size_t *ret_n)
{
	size_t n = 0;
	ssize_t got;

	/* By reading, not by size: what is named may be a pipe, or grow meanwhile. */
	while (n < cap) {
		got = read(fd, out + n, cap - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	*ret_n = n;
	return 0;
}

/* Only a file that need not exist may be missing; whatever else is wrong becomes a diagnostic. */
static int config_load_file(struct config *c, const char *path, bool may_miss,
			    struct config_errors *errors)
{
	WB_CLEANUP(fd_closep) int fd = -1;
	WB_CLEANUP(ptr_freep) char *text = NULL;
	size_t n = 0;
	int r;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	r = fd < 0 ? -errno : 0;
	if (r == -ENOENT && may_miss)
		return 0;
	/* Before the file's own trouble: without memory there is nothing to say about it. */
	text = malloc(CONFIG_MAX_FILE_BYTES + 1);
	if (!text)
		return -ENOMEM;
	if (r == 0)
		r = read_all(fd, text, CONFIG_MAX_FILE_BYTES + 1, &n);
	if (r < 0) {
		config_errors_add(errors, "%s: cannot be read: %s", path, strerror(-r));
		errors->n_unread++;
		return 0;
	}
	if (n > CONFIG_MAX_FILE_BYTES) {
		config_errors_add(errors, "%s: too long; allowed: %d bytes", path,
				  CONFIG_MAX_FILE_BYTES);
		errors->n_unread++;
		return 0;
	}
	return config_parse_lines(c, path, text, n, errors);
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

static int config_load_entries(struct config *c, const char *dir, struct dirent **entry, size_t n,
			       struct config_errors *errors)
{
	int r;

	/*
	 * What is wrong in one file doesn't keep the others from being read: all is told at once.
	 */
	for (size_t i = 0; i < n; i++) {
		WB_CLEANUP(ptr_freep) char *path = NULL;

		if (asprintf(&path, "%s/%s", dir, entry[i]->d_name) < 0)
			return -ENOMEM;
		r = config_load_file(c, path, false, errors);
		if (r < 0)
			return r;
	}
	return 0;
}

static int config_load_drop_ins(struct config *c, const char *file, struct config_errors *errors)
{
	WB_CLEANUP(ptr_freep) char *dir = NULL;
	struct dirent **entry = NULL;
	int r, n;

	if (asprintf(&dir, "%s.d", file) < 0)
		return -ENOMEM;
	n = scandir(dir, &entry, is_drop_in, by_bytes);
	/* There need not be such a folder; ENOTDIR is what /dev/null.d gives. */
	if (n < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (n < 0 && errno == ENOMEM)
		return -ENOMEM;
	if (n < 0) {
		config_errors_add(errors, "%s: cannot be read: %s", dir, strerror(errno));
		errors->n_unread++;
		return 0;
	}
	r = config_load_entries(c, dir, entry, (size_t)n, errors);
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

	r = config_load_file(c, file, !src->file, errors);
	if (r < 0)
		return r;
	r = config_load_drop_ins(c, file, errors);
	if (r < 0)
		return r;
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
