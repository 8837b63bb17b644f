/* SPDX-License-Identifier: MIT */
#include "handover/counters.h"

#include <string.h>

/* A record on its way; names are copied. */
struct counters_out {
	Record__Counters *record;
	struct arena *arena;
	size_t n_max;
	bool is_short; /* of memory */
};

/* For metrics_each(), like the next one. */
static void count_counter(void *ctx, const char *name, uint64_t value)
{
	struct counters_out *out = ctx;

	(void)name;
	(void)value;
	out->n_max++;
}

static void add_counter(void *ctx, const char *name, uint64_t value)
{
	struct counters_out *out = ctx;
	Record__Counters *s = out->record;
	size_t n = strlen(name) + 1;
	char *copy = arena_alloc(out->arena, n);

	/* The name is the caller's for the call alone; the lists have room for what was counted. */
	if (!copy || s->n_name == out->n_max) {
		out->is_short = true;
		return;
	}
	memcpy(copy, name, n);
	s->name[s->n_name++] = copy;
	s->value[s->n_value++] = value;
}

Record__Counters *counters_to_record(const struct metrics *m, struct arena *a)
{
	struct counters_out out = {.record = arena_alloc(a, sizeof(*out.record)), .arena = a};

	if (!out.record)
		return NULL;
	*out.record = (Record__Counters)RECORD__COUNTERS__INIT;
	/* Counted first: protobuf wants each of the two lists in one piece. */
	metrics_each(m, count_counter, &out);
	out.record->name = arena_alloc(a, out.n_max * sizeof(*out.record->name));
	out.record->value = arena_alloc(a, out.n_max * sizeof(*out.record->value));
	if (!out.record->name || !out.record->value)
		return NULL;
	metrics_each(m, add_counter, &out);
	return out.is_short ? NULL : out.record;
}

void counters_from_record(struct metrics *m, const Record__Counters *s)
{
	for (size_t i = 0; i < MIN(s->n_name, s->n_value); i++)
		(void)metrics_restore(m, s->name[i], s->value[i]);
}
