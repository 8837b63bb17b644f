/* SPDX-License-Identifier: MIT */
#include "containers/list.h"

#include "test.h"

struct item {
	int number;
	struct list node;
};

static void make(struct item *items, size_t n, struct list *head)
{
	for (size_t i = 0; i < n; i++) {
		items[i].number = (int)i;
		list_add_tail(head, &items[i].node);
	}
}

/* Checks that a list holds the numbers of @text, "" none, "021" three. */
static void check_order(const struct list *head, const char *text)
{
	CHECK_EQ(list_check(head), strlen(text));
	LIST_FOREACH (node, head)
		CHECK_EQ(CONTAINER_OF(node, struct item, node)->number, *text++ - '0');
	CHECK_EQ(*text, 0);
}

TEST(list_is_empty_at_first)
{
	struct list head;

	list_init(&head);
	CHECK(list_is_empty(&head));
	CHECK(list_first(&head) == NULL);
	CHECK(list_pop(&head) == NULL);
	check_order(&head, "");
}

TEST(list_adds_at_both_ends)
{
	struct item items[3];
	struct list head;

	list_init(&head);
	make(items, 2, &head);
	check_order(&head, "01");
	items[2].number = 2;
	list_add_head(&head, &items[2].node);
	check_order(&head, "201");
	CHECK(!list_is_empty(&head));
	CHECK(list_first(&head) == &items[2].node);
}

TEST(list_del_takes_out_any_member_and_may_be_repeated)
{
	struct item items[4];
	struct list head;

	list_init(&head);
	make(items, 4, &head);
	list_del(&items[1].node);
	check_order(&head, "023");
	CHECK(list_is_empty(&items[1].node));
	list_del(&items[1].node);
	check_order(&head, "023");
	list_del(&items[3].node);
	list_del(&items[0].node);
	check_order(&head, "2");
	list_del(&items[2].node);
	check_order(&head, "");
	list_add_tail(&head, &items[2].node);
	check_order(&head, "2");
}

TEST(list_pop_takes_from_the_front)
{
	struct item items[2];
	struct list head;

	list_init(&head);
	make(items, 2, &head);
	CHECK(list_pop(&head) == &items[0].node);
	CHECK(list_is_empty(&items[0].node));
	CHECK(list_pop(&head) == &items[1].node);
	CHECK(list_pop(&head) == NULL);
}

TEST(list_splice_keeps_the_order_and_empties_the_source)
{
	struct item a[2], b[2];
	struct list to, from;

	list_init(&to);
	list_init(&from);
	list_splice_tail(&to, &from);
	check_order(&to, "");

	make(b, 2, &from);
	list_splice_tail(&to, &from);
	check_order(&to, "01");
	check_order(&from, "");

	make(a, 2, &from);
	list_splice_tail(&to, &from);
	check_order(&to, "0101");
	check_order(&from, "");
	list_splice_tail(&to, &from);
	check_order(&to, "0101");
}

TEST(list_safe_walk_survives_the_removal_of_its_node)
{
	struct item *items[5];
	struct list head;
	int sum = 0;

	list_init(&head);
	for (int i = 0; i < 5; i++) {
		items[i] = malloc(sizeof(*items[i]));
		items[i]->number = i;
		list_add_tail(&head, &items[i]->node);
	}
	LIST_FOREACH_SAFE (node, tmp, &head) {
		struct item *item = CONTAINER_OF(node, struct item, node);

		sum += item->number;
		if (item->number != 3) {
			list_del(node);
			free(item);
		}
	}
	CHECK_EQ(sum, 10);
	check_order(&head, "3");
	free(items[3]);
}
