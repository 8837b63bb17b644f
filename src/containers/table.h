/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Hash table of nodes that lie in what they find, by hashes that the caller makes. Keys that
 * strangers choose want one with a secret: see containers/siphash.
 *
 * It grows and shrinks by one bucket at a time (Witold Litwin's linear hashing), so no insertion
 * pays for all that is there, and no loop turn stands still for it. Inserting cannot fail: the
 * first bucket lies in the table itself, and without memory for more the chains get longer until
 * there is some again.
 */

#include "base/base.h"

struct WB_OWNER(holder) table_node {
	struct table_node *next; /* in the chain of its bucket */
	uint64_t hash;
};

/* It must not move. */
struct WB_OWNER(holder) table {
	struct table_node **bucket; /* &first while there is room for one */
	struct table_node *first;
	size_t n;         /* nodes */
	size_t n_buckets; /* in use */
	size_t room;      /* for buckets; a power of two */
};

void table_init(struct table *t);

/* Frees the buckets, not what was in them. NULL and all zero are allowed. */
void table_fini(struct table *t);

/* @node is in no table. What is equal to it may be there already; it is found first. */
void table_insert(struct table *t, struct table_node *node, uint64_t hash);

/* @node is in the table. */
void table_remove(struct table *t, struct table_node *node);

/* The first node with this hash, and the next one behind a node; NULL: there is none. */
struct table_node *table_find(const struct table *t, uint64_t hash);
struct table_node *table_find_next(const struct table_node *node);

/* All nodes in no order: with NULL the first, then the one behind @node; NULL: that was all. */
struct table_node *table_next(const struct table *t, const struct table_node *node);

/* Asserts the invariants. For tests. O(n). */
void table_check(const struct table *t);
