/* SPDX-License-Identifier: MIT */
#include "containers/table.h"

#define ROOM_AT_FIRST 64

void table_init(struct table *t)
{
	*t = (struct table){.n_buckets = 1, .room = 1};
	t->bucket = &t->first;
}

void table_fini(struct table *t)
{
	if (t && t->bucket != &t->first)
		free(t->bucket);
	if (t)
		*t = (struct table){0};
}

/* The buckets up to the last power of two: those behind it are split off from the first ones. */
static size_t round_of(const struct table *t)
{
	return (size_t)1 << (63 - __builtin_clzll(t->n_buckets));
}

static size_t bucket_of(const struct table *t, uint64_t hash)
{
	size_t round = round_of(t), at = hash & (2 * round - 1);

	return at < t->n_buckets ? at : at - round;
}

static bool table_set_room(struct table *t, size_t room)
{
	struct table_node **bucket = realloc(t->bucket == &t->first ? NULL : t->bucket,
					     room * sizeof(struct table_node *));

	if (!bucket)
		return false;
	if (t->bucket == &t->first)
		bucket[0] = t->first;
	t->bucket = bucket;
	t->room = room;
	return true;
}

/* One more bucket takes its part of the one that it belongs behind. */
static void table_split(struct table *t)
{
	size_t round = round_of(t), from = t->n_buckets - round;
	struct table_node **at, **to;

	if (t->n_buckets == t->room && !table_set_room(t, MAX(2 * t->room, (size_t)ROOM_AT_FIRST)))
		return;
	at = &t->bucket[from];
	to = &t->bucket[t->n_buckets++];
	while (*at) {
		struct table_node *node = *at;

		/* Either part keeps its order: what was inserted last is found first. */
		if (!(node->hash & round)) {
			at = &node->next;
			continue;
		}
		*at = node->next;
		*to = node;
		to = &node->next;
	}
	*to = NULL;
}

/* The last bucket goes back to the one that it came from. */
static void table_join(struct table *t)
{
	struct table_node *from = t->bucket[--t->n_buckets];
	struct table_node **to = &t->bucket[t->n_buckets - round_of(t)];

	while (*to)
		to = &(*to)->next;
	*to = from;
	/* Only far below, so that coming and going at a border doesn't move it each time. */
	if (t->room > ROOM_AT_FIRST && t->n_buckets <= t->room / 4)
		(void)table_set_room(t, t->room / 2); /* else it keeps the larger one */
}

void table_insert(struct table *t, struct table_node *node, uint64_t hash)
{
	struct table_node **at;

	/* Two, in case that there was no memory for one before. */
	for (int i = 0; i < 2 && t->n_buckets <= t->n; i++)
		table_split(t);
	at = &t->bucket[bucket_of(t, hash)];
	node->hash = hash;
	node->next = *at;
	*at = node;
	t->n++;
}

void table_remove(struct table *t, struct table_node *node)
{
	struct table_node **at = &t->bucket[bucket_of(t, node->hash)];

	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	node->next = NULL;
	t->n--;
	/* Two, to be through with as many as there were when as many nodes are gone. */
	for (int i = 0; i < 2 && t->n_buckets > 1 && t->n_buckets > 2 * t->n; i++)
		table_join(t);
}

static struct table_node *find_from(struct table_node *node, uint64_t hash)
{
	while (node && node->hash != hash)
		node = node->next;
	return node;
}

struct table_node *table_find(const struct table *t, uint64_t hash)
{
	return find_from(t->bucket[bucket_of(t, hash)], hash);
}

struct table_node *table_find_next(const struct table_node *node)
{
	return find_from(node->next, node->hash);
}

struct table_node *table_next(const struct table *t, const struct table_node *node)
{
	size_t at = node ? bucket_of(t, node->hash) + 1 : 0;

	if (node && node->next)
		return node->next;
	while (at < t->n_buckets && !t->bucket[at])
		at++;
	return at < t->n_buckets ? t->bucket[at] : NULL;
}

void table_check(const struct table *t)
{
	size_t n = 0;

	WB_ASSERT(t->n_buckets >= 1 && t->n_buckets <= t->room);
	WB_ASSERT((t->room & (t->room - 1)) == 0);
	WB_ASSERT((t->bucket == &t->first) == (t->room == 1));
	for (size_t i = 0; i < t->n_buckets; i++) {
		for (const struct table_node *node = t->bucket[i]; node; node = node->next, n++)
			WB_ASSERT(bucket_of(t, node->hash) == i);
	}
	WB_ASSERT(n == t->n);
}
