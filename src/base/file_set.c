/* SPDX-License-Identifier: MIT */
#include "base/file_set.h"

#include <errno.h>
#include <string.h>

#include "base/file.h"

int file_set_add(struct file_set *s, const char *path, const void *data, size_t n)
{
	struct file_entry *grown = reallocarray(s->at, s->count + 1, sizeof(*grown));
	struct file_entry e = {.path = strdup(path), .data = malloc(n + 1), .n = n};

	if (grown)
		s->at = grown;
	if (!grown || !e.path || !e.data) {
		free(e.path);
		free(e.data);
		return -ENOMEM;
	}
	if (n > 0)
		memcpy(e.data, data, n);
	e.data[n] = '\0';
	s->at[s->count++] = e;
	return 0;
}

static const struct file_entry *file_set_find(const struct file_set *s, const char *path)
{
	for (size_t i = 0; i < s->count; i++)
		if (strcmp(s->at[i].path, path) == 0)
			return &s->at[i];
	return NULL;
}

static int file_set_fill(struct file_set *s, const char *path)
{
	uint8_t *data = malloc(FILE_SET_MAX_BYTES);
	size_t n = 0;
	int r;

	if (!data)
		return -ENOMEM;
	r = s->takes_any ? file_read_any(path, data, FILE_SET_MAX_BYTES, &n)
			 : file_read(path, data, FILE_SET_MAX_BYTES, &n);
	if (r == 0)
		r = file_set_add(s, path, data, n);
	explicit_bzero(data, n);
	free(data);
	return r;
}

int file_set_read(struct file_set *s, const char *path, const uint8_t **ret, size_t *ret_n)
{
	const struct file_entry *e = file_set_find(s, path);
	int r;

	if (!e && s->is_closed)
		return -ENOENT;
	if (!e) {
		r = file_set_fill(s, path);
		if (r)
			return r;
		e = &s->at[s->count - 1];
	}
	*ret = e->data;
	*ret_n = e->n;
	return 0;
}

void file_set_fini(struct file_set *s)
{
	for (size_t i = 0; i < s->count; i++) {
		explicit_bzero(s->at[i].data, s->at[i].n);
		free(s->at[i].data);
		free(s->at[i].path);
	}
	free(s->at);
	*s = (struct file_set){.takes_any = s->takes_any, .is_closed = s->is_closed};
}
