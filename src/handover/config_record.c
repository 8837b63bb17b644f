/* SPDX-License-Identifier: MIT */
#include "handover/config_record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int config_record_write(struct record_writer *out, const struct policy *policy, char *text)
{
	const struct file_set *files = &policy->files;
	Record__File *file = calloc(MAX(files->count, (size_t)1), sizeof(*file));
	Record__File **pointer = calloc(MAX(files->count, (size_t)1), sizeof(*pointer));
	Record__Config record;
	int r = -ENOMEM;

	if (file && pointer) {
		for (size_t i = 0; i < files->count; i++) {
			record__file__init(&file[i]);
			file[i].path = files->at[i].path;
			file[i].data = (ProtobufCBinaryData){files->at[i].n, files->at[i].data};
			pointer[i] = &file[i];
		}
		record__config__init(&record);
		record.text = text;
		record.file = pointer;
		record.n_file = files->count;
		r = record_put(out, RECORD_CONFIG, &record.base);
	}
	free(pointer);
	free(file);
	return r;
}

int config_record_put(struct record_writer *out, const struct policy *policy)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);
	int r = f ? config_save(policy->config, f) : -ENOMEM;

	if (f && fclose(f) != 0)
		r = -ENOMEM;
	if (r == 0)
		r = config_record_write(out, policy, text);
	free(text);
	return r;
}

static int config_record_read(const Record__Config *s, struct config **ret,
			      struct file_set *ret_files)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	int r = 0;

	*ret_files = (struct file_set){.is_closed = true};
	for (size_t i = 0; i < s->n_file && r == 0; i++)
		r = file_set_add(ret_files, s->file[i]->path, s->file[i]->data.data,
				 s->file[i]->data.len);
	/* What an older process wrote may be no good to this one: a key may be gone. */
	if (r == 0)
		r = config_parse_text("the process before", s->text, strlen(s->text), ret, &errors);
	if (r)
		file_set_fini(ret_files);
	return r > 0 ? -ENOENT : r;
}

/* Whether a record says that nobody was left: then nothing speaks for going on. */
static bool says_no_connections(const struct record *record)
{
	Record__Head *head = NULL;
	bool is_so;

	if (record->kind == RECORD_HEAD)
		head = record__head__unpack(NULL, record->n, record->p);
	is_so = head && head->connections == 0;
	record__head__free_unpacked(head, NULL);
	return is_so;
}

int config_record_find(const uint8_t *records, size_t n, struct config **ret,
		       struct file_set *ret_files)
{
	struct record_reader reader;
	struct record record;
	Record__Config *s = NULL;
	int r = -ENOENT;

	if (record_open(&reader, records, n) != RECORD_OK)
		return -ENOENT;
	/* The head is the first of them. */
	while (!s && record_next(&reader, &record) && !says_no_connections(&record))
		if (record.kind == RECORD_CONFIG)
			s = record__config__unpack(NULL, record.n, record.p);
	if (s)
		r = config_record_read(s, ret, ret_files);
	record__config__free_unpacked(s, NULL);
	return r;
}
