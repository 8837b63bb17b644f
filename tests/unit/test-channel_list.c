/* SPDX-License-Identifier: MIT */
/* Channels of several workers as one list, in an order. */
#include "rig.h"

#include <stdlib.h>

#include "worker/channel_list.h"

#define QUIET "notice_limit = 0\nmax_incoming_frames_per_second = 0\n"

static void add_all(struct rig *r, struct channel_list *l)
{
	CHECK_EQ(channel_list_init(l, &r->pool->shared.directory), 0);
	for (unsigned i = 0; i < r->n; i++)
		while (channel_list_add(&r->w[i]->hub, l) == CHANNEL_LIST_E_MORE)
			;
}

static void expect_order(struct rig *r, const struct channel_list *l, enum channel_order order,
			 const char *names)
{
	char name[DIRECTORY_NAME_MAX + 1], all[256] = "";
	uint32_t *slots = NULL;
	int64_t n = channel_list_sort(l, order, &slots);

	CHECK(n >= 0);
	for (int64_t i = 0; i < n; i++) {
		CHECK(directory_name(&r->pool->shared.directory, slots[i],
				     l->cells[slots[i]].generation, name) >= 0);
		strcat(strcat(all, name), " ");
	}
	CHECK_STR(all, names);
	free(slots);
}

TEST(channel_list_adds_up_what_workers_have)
{
	struct rig *r = rig_new(2, QUIET "message_queue_size = 100\n");
	struct guest *many = guest_open(r, 0, "/many"), *busy = guest_open(r, 1, "/busy");
	struct guest *slow = guest_open(r, 1, "/slow"), *fast = guest_open(r, 0, "/slow");
	struct channel_list l = {0};

	for (unsigned i = 0; i < 5; i++)
		guest_open(r, i % 2, "/many");
	guest_open(r, 0, "/busy");
	guest_set_room(slow, 0);
	for (unsigned i = 0; i < 40; i++) {
		guest_chat(busy, "hello", NULL);
		guest_chat(busy, "hello", NULL);
		guest_chat(fast, "hello", NULL);
		guest_chat(fast, "hello", NULL);
		if (i % 10 == 0)
			guest_chat(many, "hello", NULL);
		rig_pass(r, NS_PER_S / 20);
	}
	guest_chat(busy, "hello", NULL);
	rig_settle(r);
	add_all(r, &l);
	expect_order(r, &l, CHANNELS_BY_MEMBERS, "many busy slow ");
	expect_order(r, &l, CHANNELS_BUSIEST, "busy slow many ");
	expect_order(r, &l, CHANNELS_BY_LAGGING, "slow many busy ");
	free(l.cells);
	rig_free(r);
}

/* A slot that another channel has by now shows that one alone, and names of old ones are gone. */
TEST(channel_list_knows_the_channel_from_the_slot)
{
	struct rig *r = rig_new(2, QUIET);
	struct guest *first = guest_open(r, 0, "/first");
	uint32_t slot = rig_channel(r, 0, "first")->entry->slot;
	uint32_t generation = rig_channel(r, 0, "first")->generation;
	char name[DIRECTORY_NAME_MAX + 1];
	struct channel_list l = {0};

	CHECK_EQ(channel_list_init(&l, &r->pool->shared.directory), 0);
	CHECK_EQ(channel_list_add(&r->w[0]->hub, &l), 0);
	guest_end(first);
	rig_settle(r);
	CHECK_EQ(directory_name(&r->pool->shared.directory, slot, generation, name), -ENOENT);
	guest_open(r, 1, "/second");
	guest_open(r, 1, "/second");
	CHECK_EQ(rig_channel(r, 1, "second")->entry->slot, slot);
	CHECK_EQ(channel_list_add(&r->w[1]->hub, &l), 0);
	CHECK_EQ(l.cells[slot].members, 2);
	expect_order(r, &l, CHANNELS_BY_MEMBERS, "second ");
	free(l.cells);
	rig_free(r);
}

/* Of many it takes several turns. */
TEST(channel_list_goes_in_pieces)
{
	struct rig *r = rig_new(1, QUIET "max_channels_per_client = 5000\nmax_channels = 100000\n");
	struct guest *g = guest_open(r, 0, "/");
	struct channel_list l = {0};
	char name[16];
	unsigned turns = 1;

	for (unsigned i = 0; i < 4500; i++) {
		snprintf(name, sizeof(name), "c/%u", i);
		guest_subscribe(g, name);
	}
	rig_settle(r);
	CHECK_EQ(channel_list_init(&l, &r->pool->shared.directory), 0);
	while (channel_list_add(&r->w[0]->hub, &l) == CHANNEL_LIST_E_MORE)
		turns++;
	CHECK_EQ(turns, 2);
	for (uint32_t i = 0; i < l.n; i++)
		CHECK_EQ(l.cells[i].members, 1);
	CHECK_EQ(l.n, 4501);
	free(l.cells);
	rig_free(r);
}

/* What a channel keeps is one store of all workers: it counts once, and 0 where there is none. */
TEST(channel_list_tells_what_channels_keep)
{
	struct rig *r = rig_new(2, QUIET "history_messages = 3\n[channel none]\n"
					 "history_messages = 0\n");
	struct guest *a = guest_open(r, 0, "/kept"), *none = guest_open(r, 0, "/none");
	struct channel_list l = {0};
	const struct channel_cell *kept;

	guest_open(r, 1, "/kept");
	guest_open(r, 1, "/none");
	for (unsigned i = 0; i < 5; i++) {
		guest_chat(a, "hello", NULL);
		guest_chat(none, "hello", NULL);
	}
	rig_settle(r);
	add_all(r, &l);
	kept = &l.cells[rig_channel(r, 0, "kept")->entry->slot];
	CHECK_EQ(kept->members, 2);
	CHECK_EQ(kept->kept, 3);
	CHECK_EQ(kept->kept_bytes, history_look(channel_store(rig_channel(r, 0, "kept"))).bytes);
	CHECK(kept->kept_bytes > 0);
	kept = &l.cells[rig_channel(r, 0, "none")->entry->slot];
	CHECK_EQ(kept->members, 2);
	CHECK_EQ(kept->kept + kept->kept_bytes, 0);
	free(l.cells);
	rig_free(r);
}
