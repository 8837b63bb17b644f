/* SPDX-License-Identifier: MIT */
#include "core/directory.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "test.h"

static struct directory_entry *join(struct directory *d, const char *name, unsigned worker,
				    uint64_t *ret_from)
{
	struct directory_entry *e = NULL;

	CHECK_EQ(directory_join(d, name, strlen(name), worker, &e, ret_from), 0);
	return e;
}

TEST(directory_entry_lives_from_the_first_holder_to_the_last)
{
	struct directory d = {0};
	struct directory_entry *a, *b;
	uint64_t from, workers;
	uint32_t generation;

	CHECK_EQ(directory_init(&d, 10), 0);
	CHECK(directory_pin(&d, "room", 4) == NULL);
	a = join(&d, "room", 3, &from);
	CHECK_STR(a->name, "room");
	CHECK_EQ(from, 0);
	CHECK_EQ(directory_take(a, &workers), 0);
	CHECK_EQ(workers, 1u << 3);
	CHECK(join(&d, "room", 63, &from) == a);
	CHECK_EQ(from, 1);
	CHECK_EQ(directory_take(a, &workers), 1);
	CHECK_EQ(workers, 1u << 3 | 1ULL << 63);
	CHECK_EQ(directory_next_seq(a), 2);
	b = join(&d, "", 3, &from); /* the lobby is a channel like others */
	CHECK(b != a);
	CHECK_EQ(d.count, 2);
	directory_leave(&d, a, 3);
	CHECK(directory_pin(&d, "room", 4) == a);
	directory_leave(&d, a, 63);
	CHECK_EQ(d.count, 2); /* the pin holds it */
	CHECK(join(&d, "room", 0, &from) == a);
	CHECK_EQ(from, 2);
	directory_unpin(&d, a);
	generation = a->generation;
	directory_leave(&d, a, 0);
	CHECK_EQ(d.count, 1);
	/* Its slot is used again, from the start and as another channel. */
	CHECK(join(&d, "other", 0, &from) == a);
	CHECK_EQ(from, 0);
	CHECK(a->generation != generation);
	CHECK(directory_pin(&d, "room", 4) == NULL);
	directory_leave(&d, a, 0);
	directory_leave(&d, b, 3);
	CHECK_EQ(d.count, 0);
	directory_fini(&d);
	directory_fini(&d);
}

TEST(directory_is_full_at_its_limit)
{
	struct directory d = {0};
	struct directory_entry *e[50], *refused = NULL;
	uint64_t from;
	char name[16];

	CHECK_EQ(directory_init(&d, 50), 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 50; i++) {
			snprintf(name, sizeof(name), "%d/%d", round, i);
			e[i] = join(&d, name, 1, &from);
		}
		CHECK_EQ(directory_join(&d, "more", 4, 1, &refused, &from), DIRECTORY_E_FULL);
		CHECK(refused == NULL);
		CHECK(join(&d, name, 2, &from) == e[49]); /* one that exists may be joined */
		directory_leave(&d, e[49], 2);
		for (int i = 0; i < 50; i++) {
			snprintf(name, sizeof(name), "%d/%d", round, i);
			CHECK(directory_pin(&d, name, strlen(name)) == e[i]);
			directory_unpin(&d, e[i]);
		}
		for (int i = 0; i < 50; i++)
			directory_leave(&d, e[(i * 7 + round) % 50], 1);
		CHECK_EQ(d.count, 0);
	}
	directory_fini(&d);
}

TEST(directory_takes_the_longest_names)
{
	struct directory d = {0};
	char name[DIRECTORY_NAME_MAX + 1];
	struct directory_entry *e;
	uint64_t from;

	memset(name, 'n', sizeof(name));
	name[DIRECTORY_NAME_MAX] = '\0';
	CHECK_EQ(directory_init(&d, 1), 0);
	e = join(&d, name, 0, &from);
	CHECK_EQ(e->name_len, DIRECTORY_NAME_MAX);
	CHECK(directory_pin(&d, name, DIRECTORY_NAME_MAX - 1) == NULL);
	directory_leave(&d, e, 0);
	directory_fini(&d);
	CHECK_EQ(directory_init(&d, UINT32_MAX / 2), -ENOMEM);
}

/* -------------------------------------------------- joining while others publish */

#define TAKES 200000
#define JOINS 2000

struct publisher {
	struct directory_entry *e;
	uint8_t *seen; /* by number: whether worker 1 was in the set */
	_Atomic bool stop;
};

static void *publish(void *arg)
{
	struct publisher *p = arg;
	uint64_t workers;

	for (int i = 0; i < TAKES && !atomic_load(&p->stop); i++) {
		uint64_t seq = directory_take(p->e, &workers);

		p->seen[seq] = workers >> 1 & 1;
	}
	return NULL;
}

struct span {
	uint64_t from, to; /* numbers that were taken for certain while the worker was in */
};

/* From the number that a joining worker is told, every publisher sees it, until it leaves. */
TEST(directory_joining_is_exact)
{
	struct directory d = {0};
	struct publisher p[2] = {0};
	struct span *spans = calloc(JOINS, sizeof(*spans));
	uint8_t *seen = calloc(2, TAKES);
	pthread_t threads[2];
	uint64_t from;

	CHECK_EQ(directory_init(&d, 10), 0);
	p[0].e = p[1].e = join(&d, "room", 0, &from);
	p[0].seen = p[1].seen = seen;
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, publish, &p[i]), 0);
	for (int i = 0; i < JOINS; i++) {
		struct directory_entry *e = join(&d, "room", 1, &spans[i].from);

		for (int k = 0; k < i % 50; k++)
			(void)directory_next_seq(e);
		/* The last number before leaving may have been taken and not looked yet: two publishers. */
		spans[i].to = directory_next_seq(e);
		spans[i].to -= MIN(spans[i].to, (uint64_t)2);
		directory_leave(&d, e, 1);
	}
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	for (int i = 0; i < JOINS; i++)
		for (uint64_t seq = spans[i].from; seq < spans[i].to; seq++)
			CHECK(seen[seq]);
	directory_leave(&d, p[0].e, 0);
	directory_fini(&d);
	free(spans);
	free(seen);
}
