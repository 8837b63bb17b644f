/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Intrusive doubly linked list. The node lies inside the object that is listed, so that
 * putting something into a list allocates nothing and taking it out needs no search.
 * The head is a node as well; it closes the circle, so no operation has a special case.
 *
 * A node that is in no list points to itself, and taking it out once more does no harm.
 * Everything is the owner's of the list, O(1) but for list_check(), and allocates nothing.
 */

#include "base/base.h"

/* A head, or the link inside a member. A head all zero is not yet one: list_init() first. */
struct WB_VALUE list {
	struct list *next;
	struct list *prev;
};

/* Makes an empty head, or a node that is in no list. */
static inline void list_init(struct list *l)
{
	l->next = l;
	l->prev = l;
}

/* For a head: has it no members? For a node: is it in no list? */
static inline bool list_is_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_link_between(struct list *node, struct list *prev, struct list *next)
{
	node->prev = prev;
	node->next = next;
	prev->next = node;
	next->prev = node;
}

/* Puts @node, which is in no list, behind all others. */
static inline void list_add_tail(struct list *head, struct list *node)
{
	list_link_between(node, head->prev, head);
}

/* Puts @node, which is in no list, before all others. */
static inline void list_add_head(struct list *head, struct list *node)
{
	list_link_between(node, head, head->next);
}

/* Takes @node out of its list, if it is in one. */
static inline void list_del(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

/* The first member, or NULL. */
static inline struct list *list_first(const struct list *head)
{
	return head->next == head ? NULL : head->next;
}

/* Takes the first member out and returns it, or NULL. */
static inline struct list *list_pop(struct list *head)
{
	struct list *node = list_first(head);

	if (node)
		list_del(node);
	return node;
}

/* Moves all members of @from, in their order, behind those of @to. */
static inline void list_splice_tail(struct list *to, struct list *from)
{
	if (list_is_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

/* Walks the nodes (struct list *); the list must not change meanwhile. */
#define LIST_FOREACH(node, head) \
	for (struct list *node = (head)->next; node != (head); node = node->next)

/* The same; the body may take @node out, or free what it lies in, but not its successor. */
#define LIST_FOREACH_SAFE(node, tmp, head)                                        \
	for (struct list *node = (head)->next, *tmp = node->next; node != (head); \
	     node = tmp, tmp = node->next)

/* Asserts that the links agree in both directions; returns the number of members. O(n), tests. */
static inline size_t list_check(const struct list *head)
{
	const struct list *l = head;
	size_t n = 0;

	do {
		WB_ASSERT(l->next && l->next->prev == l);
		l = l->next;
		n++;
	} while (l != head);
	return n - 1;
}
