/* SPDX-License-Identifier: MIT */
#include "channel/history_keys.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(struct history_keyed) <= HISTORY_KEY_BYTES, "with malloc's own word");

struct history_keyed *history_keyed_new(const struct history_key *key)
{
	struct history_keyed *keyed = calloc(1, sizeof(*keyed));

	if (keyed)
		keyed->key = *key;
	return keyed;
}

struct history_keys *history_keys_new(void)
{
	struct history_keys *k = calloc(1, sizeof(*k));

	if (k)
		table_init(&k->by_digest);
	return k;
}

size_t history_keys_free(struct history_keys *k)
{
	size_t n = history_keys_drop(k, UINT64_MAX);

	if (k)
		table_fini(&k->by_digest);
	free(k);
	return n;
}

const struct history_keyed *history_keys_find(const struct history_keys *k,
					      const struct history_key *key)
{
	struct table_node *node = k ? table_find(&k->by_digest, key->digest) : NULL;

	for (; node; node = table_find_next(node)) {
		const struct history_keyed *keyed = CONTAINER_OF(node, struct history_keyed, node);

		if (memcmp(keyed->key.id, key->id, sizeof(key->id)) == 0)
			return keyed;
	}
	return NULL;
}

void history_keys_add(struct history_keys *k, struct history_keyed *keyed, uint64_t seq)
{
	WB_ASSERT(!k->youngest || k->youngest->seq < seq);
	keyed->seq = seq;
	keyed->next = NULL;
	if (k->youngest)
		k->youngest->next = keyed;
	else
		k->oldest = keyed;
	k->youngest = keyed;
	k->n++;
	table_insert(&k->by_digest, &keyed->node, keyed->key.digest);
}

size_t history_keys_drop(struct history_keys *k, uint64_t seq)
{
	size_t n = 0;

	while (k && k->oldest && k->oldest->seq <= seq) {
		struct history_keyed *keyed = k->oldest;

		k->oldest = keyed->next;
		if (!k->oldest)
			k->youngest = NULL;
		table_remove(&k->by_digest, &keyed->node);
		free(keyed);
		k->n--;
		n++;
	}
	return n;
}
