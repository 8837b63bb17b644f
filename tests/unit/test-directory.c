/* SPDX-License-Identifier: MIT */
#include "channel/directory.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "base/ip.h"
#include "test.h"

static struct directory_entry *join(struct directory *d, const char *name, unsigned worker,
				    uint64_t *ret_from)
{
	struct directory_entry *e = NULL;

	CHECK_EQ(directory_join(d, name, strlen(name), worker, &e, ret_from), 0);
	CHECK_STR(e->name, name);
	CHECK_EQ(e->name_len, strlen(name));
	CHECK(atomic_load(&e->workers) & 1ULL << worker);
	return e;
}

static struct directory_entry *pin(struct directory *d, const char *name)
{
	return directory_pin(d, name, strlen(name));
}

TEST(directory_entry_exists_while_a_worker_has_members)
{
	struct directory d = {0};
	struct directory_entry *e;
	uint64_t from = 99, workers;

	CHECK_EQ(directory_init(&d, 10), 0);
	CHECK(pin(&d, "room") == NULL);
	e = join(&d, "room", 3, &from);
	CHECK_EQ(from, 0);
	CHECK_EQ(atomic_load(&d.count), 1);
	CHECK_EQ(atomic_load(&e->workers), 1u << 3);
	CHECK(join(&d, "room", 63, &from) == e);
	CHECK_EQ(directory_take(e, &workers), 0);
	CHECK_EQ(workers, 1ULL << 63 | 1u << 3);
	directory_leave(&d, e, 3);
	CHECK_EQ(directory_next_seq(e), 1);
	CHECK_EQ(directory_take(e, &workers), 1);
	CHECK_EQ(workers, 1ULL << 63);
	CHECK_EQ(atomic_load(&d.count), 1);
	directory_leave(&d, e, 63);
	CHECK_EQ(atomic_load(&d.count), 0);
	CHECK(pin(&d, "room") == NULL);
	directory_fini(&d);
}

TEST(directory_join_starts_at_the_next_number)
{
	struct directory d = {0};
	struct directory_entry *e;
	uint64_t from, workers;

	CHECK_EQ(directory_init(&d, 10), 0);
	e = join(&d, "room", 0, &from);
	for (uint64_t i = 0; i < 5; i++) {
		CHECK_EQ(directory_next_seq(e), i);
		CHECK_EQ(directory_take(e, &workers), i);
	}
	join(&d, "room", 1, &from);
	CHECK_EQ(from, 5);
	directory_leave(&d, e, 1);
	CHECK_EQ(directory_take(e, &workers), 5);
	CHECK_EQ(workers, 1);
	join(&d, "room", 1, &from);
	CHECK_EQ(from, 6);
	directory_leave(&d, e, 0);
	directory_leave(&d, e, 1);
	directory_fini(&d);
}

TEST(directory_pin_holds_a_channel_without_being_a_member)
{
	struct directory d = {0};
	struct directory_entry *e;
	uint64_t from, workers;

	CHECK_EQ(directory_init(&d, 10), 0);
	e = join(&d, "room", 2, &from);
	CHECK(pin(&d, "room") == e);
	CHECK(pin(&d, "room") == e);
	directory_leave(&d, e, 2);
	CHECK_EQ(atomic_load(&d.count), 1);
	CHECK_EQ(directory_take(e, &workers), 0);
	CHECK_EQ(workers, 0);
	directory_unpin(&d, e);
	CHECK(join(&d, "room", 1, &from) == e);
	CHECK_EQ(from, 1);
	directory_unpin(&d, e);
	CHECK_EQ(atomic_load(&d.count), 1);
	directory_leave(&d, e, 1);
	CHECK_EQ(atomic_load(&d.count), 0);
	directory_fini(&d);
}

TEST(directory_slot_is_used_again_under_another_generation)
{
	struct directory d = {0};
	struct directory_entry *e;
	uint64_t from, workers;
	uint32_t last = 0;

	CHECK_EQ(directory_init(&d, 1), 0);
	for (int i = 0; i < 5; i++) {
		e = join(&d, i % 2 ? "odd" : "even", 0, &from);
		CHECK_EQ(e->slot, 0);
		CHECK_EQ(from, 0);
		CHECK(e->generation != last);
		last = e->generation;
		CHECK_EQ(directory_take(e, &workers), 0);
		directory_leave(&d, e, 0);
	}
	directory_fini(&d);
}

TEST(directory_says_when_it_is_full)
{
	struct directory d = {0};
	struct directory_entry *a, *b, *none = NULL;
	uint64_t from, untouched = 99;

	CHECK_EQ(directory_init(&d, 2), 0);
	a = join(&d, "a", 0, &from);
	b = join(&d, "b", 0, &from);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(directory_join(&d, "c", 1, 0, &none, &untouched), DIRECTORY_E_FULL);
	CHECK(none == NULL);
	CHECK_EQ(untouched, 99);
	CHECK_EQ(atomic_load(&d.count), 2);
	CHECK(pin(&d, "c") == NULL);
	CHECK(join(&d, "a", 1, &from) == a); /* one that exists has room for all workers */
	directory_leave(&d, b, 0);
	b = join(&d, "c", 0, &from);
	CHECK_EQ(directory_join(&d, "b", 1, 0, &none, &untouched), DIRECTORY_E_FULL);
	directory_leave(&d, a, 0);
	directory_leave(&d, a, 1);
	directory_leave(&d, b, 0);
	CHECK_EQ(atomic_load(&d.count), 0);
	directory_fini(&d);
}

TEST(directory_names_differ_by_every_byte_and_by_length)
{
	static const char *const names[] = {"", "a", "A", "b", "aa", "ab", "a ", "\xc3\xa4"};
	struct directory_entry *entries[ARRAY_LEN(names)], *longest, *longer;
	char name[DIRECTORY_NAME_MAX + 1];
	struct directory d = {0};
	uint64_t from;

	CHECK_EQ(directory_init(&d, 100), 0);
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		entries[i] = join(&d, names[i], 0, &from);
	CHECK_EQ(atomic_load(&d.count), ARRAY_LEN(names));
	memset(name, 'x', sizeof(name));
	name[DIRECTORY_NAME_MAX] = '\0';
	longest = join(&d, name, 0, &from);
	name[DIRECTORY_NAME_MAX - 1] = '\0';
	longer = join(&d, name, 0, &from);
	CHECK(longest != longer);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		CHECK(join(&d, names[i], 1, &from) == entries[i]);
		directory_leave(&d, entries[i], 0);
		directory_leave(&d, entries[i], 1);
	}
	CHECK(pin(&d, name) == longer);
	CHECK_EQ(atomic_load(&d.count), 2);
	directory_fini(&d); /* frees the names of those that still exist */
}

/* One address leaves a fifth for others, each of these a fifth of that; what it had it may use. */
TEST(directory_keeps_room_for_newcomers)
{
	static const uint8_t greedy[IP_BYTES] = {1}, other[IP_BYTES] = {2};
	struct directory d = {0};
	struct directory_entry *e[101], *again;
	uint64_t from;
	char name[8];
	unsigned n = 0;

	CHECK_EQ(directory_init(&d, 100), 0);
	for (; n < 101; n++) {
		size_t len = (size_t)snprintf(name, sizeof(name), "%u", n);

		if (directory_join_for(&d, greedy, name, len, 0, &e[n], &from))
			break;
	}
	CHECK_EQ(n, 80);
	/* It exists: nothing has to be made. */
	CHECK_EQ(directory_join_for(&d, greedy, "0", 1, 1, &again, &from), 0);
	CHECK_EQ(directory_join_for(&d, other, "new", 3, 0, &e[n], &from), 0);
	directory_leave(&d, e[n], 0);
	/* One that goes is one that it may make anew. */
	directory_leave(&d, e[1], 0);
	CHECK_EQ(directory_join_for(&d, greedy, "1", 1, 0, &e[1], &from), 0);
	CHECK_EQ(directory_join_for(&d, greedy, "more", 4, 0, &e[n], &from), DIRECTORY_E_FULL);
	/* Who comes from nowhere has no share to keep to. */
	CHECK_EQ(directory_join(&d, "more", 4, 0, &e[n], &from), 0);
	directory_leave(&d, e[n], 0);
	directory_leave(&d, again, 1);
	while (n-- > 0)
		directory_leave(&d, e[n], 0);
	for (unsigned i = 0; i < DIRECTORY_MAKERS; i++)
		CHECK_EQ(d.made[i], 0);
	directory_fini(&d);
}

/* More channels than hash buckets have room for without chains, taken out in another order. */
TEST(directory_finds_the_others_whichever_goes)
{
	enum { N = 1000 };
	static struct directory_entry *entries[N];
	struct directory d = {0};
	char name[20];
	uint64_t from;

	CHECK_EQ(directory_init(&d, N), 0);
	for (size_t i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "room-%zu", i);
		entries[i] = join(&d, name, 0, &from);
		CHECK_EQ(entries[i]->slot, i);
	}
	for (size_t k = 0; k < N; k++) {
		size_t i = k * 389 % N; /* each once, since 389 is prime to N */

		directory_leave(&d, entries[i], 0);
		entries[i] = NULL;
		CHECK_EQ(atomic_load(&d.count), N - k - 1);
		for (size_t j = k % 50; j < N; j += 50) {
			snprintf(name, sizeof(name), "room-%zu", j);
			CHECK(pin(&d, name) == entries[j]);
			if (entries[j])
				directory_unpin(&d, entries[j]);
		}
	}
	directory_fini(&d);
}

TEST(directory_of_the_largest_size_costs_nothing_and_fini_takes_all_zero)
{
	struct directory d = {0};
	struct directory_entry *e;
	uint64_t from;

	directory_fini(&d);
	CHECK_EQ(directory_init(&d, 10000000), 0);
	e = join(&d, "room", 0, &from);
	directory_leave(&d, e, 0);
	directory_fini(&d);
	directory_fini(&d);
}

/* ----- against a model */

#define M_NAMES 12
#define M_WORKERS 5
#define M_MAX 8

struct model {
	struct directory_entry *entry; /* NULL: does not exist */
	uint64_t workers;
	unsigned pins;
	uint64_t seq;
	uint32_t generation;
};

struct walk {
	struct directory d;
	struct model m[M_NAMES];
	size_t count;
	uint32_t newest; /* generation */
};

static void name_of(char *out, size_t i)
{
	snprintf(out, 20, "%.*s", (int)i, "channelnames");
}

static void walk_join(struct walk *w, size_t i, unsigned worker)
{
	struct model *m = &w->m[i];
	struct directory_entry *e = NULL;
	uint64_t from = 0;
	char name[20];
	int r;

	if (m->workers & 1u << worker)
		return;
	name_of(name, i);
	r = directory_join(&w->d, name, i, worker, &e, &from);
	CHECK_EQ(r, !m->entry && w->count == M_MAX ? DIRECTORY_E_FULL : 0);
	if (r)
		return;
	if (!m->entry) {
		CHECK(e->generation > w->newest);
		w->newest = e->generation;
		w->count++;
		*m = (struct model){.entry = e, .generation = e->generation};
	}
	m->workers |= 1u << worker;
	CHECK(e == m->entry);
	CHECK_EQ(from, m->seq);
}

static void walk_hold(struct walk *w, size_t i)
{
	struct model *m = &w->m[i];
	char name[20];

	name_of(name, i);
	CHECK(directory_pin(&w->d, name, i) == m->entry);
	m->pins += m->entry != NULL;
}

static void walk_let_go(struct walk *w, size_t i, unsigned worker, bool is_pin)
{
	struct model *m = &w->m[i];

	if (is_pin && m->pins) {
		m->pins--;
		directory_unpin(&w->d, m->entry);
	} else if (!is_pin && m->workers & 1u << worker) {
		m->workers &= ~(1u << worker);
		directory_leave(&w->d, m->entry, worker);
	} else {
		return;
	}
	if (m->workers || m->pins)
		return;
	m->entry = NULL;
	w->count--;
}

static void walk_take(struct walk *w, size_t i)
{
	struct model *m = &w->m[i];
	uint64_t workers;

	if (!m->entry)
		return;
	CHECK_EQ(directory_take(m->entry, &workers), m->seq++);
	CHECK_EQ(workers, m->workers);
}

static void walk_check(struct walk *w)
{
	char name[20];

	CHECK_EQ(atomic_load(&w->d.count), w->count);
	for (size_t i = 0; i < M_NAMES; i++) {
		const struct directory_entry *e = w->m[i].entry;

		if (!e)
			continue;
		name_of(name, i);
		CHECK_STR(e->name, name);
		CHECK_EQ(e->name_len, i);
		CHECK(e == &w->d.entries[e->slot] && e->slot < M_MAX);
		CHECK_EQ(e->generation, w->m[i].generation);
		CHECK_EQ(atomic_load(&e->workers), w->m[i].workers);
		CHECK_EQ(directory_next_seq(w->m[i].entry), w->m[i].seq);
	}
}

TEST(directory_against_a_model_at_random)
{
	uint64_t random = test_seed();
	static struct walk w;

	CHECK_EQ(directory_init(&w.d, M_MAX), 0);
	for (int step = 0; step < 20000; step++) {
		uint64_t x = test_random(&random) >> 32;
		size_t i = (x >> 3) % M_NAMES;
		unsigned worker = (x >> 16) % M_WORKERS;

		switch (x & 7) {
		case 0:
		case 1:
			walk_join(&w, i, worker);
			break;
		case 2:
			walk_hold(&w, i);
			break;
		case 3:
			walk_take(&w, i);
			break;
		default:
			walk_let_go(&w, i, worker, x & 4 && x & 1);
		}
		walk_check(&w);
	}
	directory_fini(&w.d);
}

/* ----- the promise of joining */

#define WORKERS 4 /* 0 and 1 publish, 2 and 3 join and leave while they do */
#define PUBLISHERS 2
#define MESSAGES 100000 /* of both publishers */

struct stage {
	struct directory d;
	struct directory_entry *entry;
	_Atomic bool delivered[WORKERS][MESSAGES]; /* by number */
	/* Messages of each publisher: about to get a number, and delivered. */
	_Atomic size_t begun[PUBLISHERS], done[PUBLISHERS];
	_Atomic size_t entered, joins, checked, missed, failures;
};

struct actor {
	struct stage *stage;
	unsigned worker;
	uint64_t random;
};

static void *publish_all(void *arg)
{
	struct actor *a = arg;
	struct stage *s = a->stage;

	for (int i = 0; i < MESSAGES / PUBLISHERS; i++) {
		uint64_t workers, seq;

		atomic_fetch_add(&s->begun[a->worker], 1);
		seq = directory_take(s->entry, &workers);
		for (unsigned w = 0; w < WORKERS; w++)
			if (workers & 1u << w)
				atomic_store_explicit(&s->delivered[w][seq], true,
						      memory_order_relaxed);
		atomic_fetch_add(&s->done[a->worker], 1);
		if (i % 256 == 0)
			sched_yield(); /* so that others come between on a single processor, too */
		while (i == MESSAGES / PUBLISHERS / 2 && atomic_load(&s->entered) == 0)
			sched_yield(); /* half of them for somebody */
	}
	return NULL;
}

/* Waits until all that has a number now is delivered; returns the number behind that. */
static uint64_t wait_for_deliveries(struct stage *s)
{
	uint64_t end = directory_next_seq(s->entry);

	for (size_t p = 0; p < PUBLISHERS; p++) {
		size_t begun = atomic_load(&s->begun[p]);

		while (atomic_load(&s->done[p]) < begun)
			sched_yield();
	}
	return end;
}

static void *join_and_leave(void *arg)
{
	struct actor *a = arg;
	struct stage *s = a->stage;

	while (directory_next_seq(s->entry) < MESSAGES) {
		struct directory_entry *e = NULL;
		uint64_t from = 0, end;

		if (directory_join(&s->d, "room", 4, a->worker, &e, &from) || e != s->entry)
			atomic_fetch_add(&s->failures, 1);
		atomic_fetch_add(&s->entered, 1);
		do
			end = directory_next_seq(s->entry);
		while (end == from && end < MESSAGES);
		for (uint64_t i = test_random(&a->random) >> 58; i > 0; i--)
			(void)directory_next_seq(s->entry);
		end = wait_for_deliveries(s);
		for (uint64_t seq = from; seq < end; seq++)
			if (!atomic_load_explicit(&s->delivered[a->worker][seq],
						  memory_order_relaxed))
				atomic_fetch_add(&s->missed, 1);
		atomic_fetch_add(&s->joins, 1);
		atomic_fetch_add(&s->checked, end - from);
		directory_leave(&s->d, s->entry, a->worker);
	}
	return NULL;
}

TEST(directory_joiner_gets_everything_from_its_number_on)
{
	static struct stage s;
	struct actor actors[WORKERS];
	pthread_t threads[WORKERS];
	uint64_t from;

	CHECK_EQ(directory_init(&s.d, 10), 0);
	s.entry = join(&s.d, "room", 0, &from);
	join(&s.d, "room", 1, &from);
	for (unsigned w = 0; w < WORKERS; w++) {
		actors[w] = (struct actor){&s, w, test_seed() ^ (w + 1)};
		actors[w].random += actors[w].random == 0;
		CHECK_EQ(pthread_create(&threads[w], NULL,
					w < PUBLISHERS ? publish_all : join_and_leave, &actors[w]),
			 0);
	}
	for (unsigned w = 0; w < WORKERS; w++)
		pthread_join(threads[w], NULL);
	CHECK_EQ(directory_next_seq(s.entry), MESSAGES);
	CHECK_EQ(s.missed, 0);
	CHECK_EQ(s.failures, 0);
	CHECK(s.joins > 0);
	CHECK(s.checked > 0); /* else nothing was tried */
	directory_fini(&s.d);
}

/* Each comes and goes on its own; two of them share each name, and two slots serve three names. */
static void *come_and_go(void *arg)
{
	static const char *const names[] = {"a", "b", "c"};
	struct actor *a = arg;
	struct directory *d = &a->stage->d;

	for (int i = 0; i < 3000; i++) {
		const char *name = names[(test_random(&a->random) >> 40) % ARRAY_LEN(names)];
		struct directory_entry *e, *pinned;
		uint64_t from, workers;

		if (directory_join(d, name, 1, a->worker, &e, &from) == 0) {
			uint64_t seq = directory_take(e, &workers);

			if (seq < from || !(workers & 1u << a->worker) ||
			    strcmp(e->name, name) != 0)
				atomic_fetch_add(&a->stage->failures, 1);
			directory_leave(d, e, a->worker);
		}
		pinned = directory_pin(d, name, 1);
		if (!pinned)
			continue;
		if (strcmp(pinned->name, name) != 0)
			atomic_fetch_add(&a->stage->failures, 1);
		directory_unpin(d, pinned);
	}
	return NULL;
}

TEST(directory_is_empty_again_after_many_threads)
{
	static struct stage s;
	struct actor actors[WORKERS];
	pthread_t threads[WORKERS];

	CHECK_EQ(directory_init(&s.d, 2), 0);
	for (unsigned w = 0; w < WORKERS; w++) {
		actors[w] = (struct actor){&s, w, test_seed() ^ (w + 1)};
		actors[w].random += actors[w].random == 0;
		CHECK_EQ(pthread_create(&threads[w], NULL, come_and_go, &actors[w]), 0);
	}
	for (unsigned w = 0; w < WORKERS; w++)
		pthread_join(threads[w], NULL);
	CHECK_EQ(atomic_load(&s.failures), 0);
	CHECK_EQ(atomic_load(&s.d.count), 0);
	for (const char *name = "abc"; *name; name++)
		CHECK(directory_pin(&s.d, name, 1) == NULL);
	directory_fini(&s.d);
}
