/* SPDX-License-Identifier: MIT */
#include "client/bench_stats.h"

#include <errno.h>

int bench_stats_init(struct bench_stats *s, uint32_t n_members, uint32_t n_publishers,
		     uint32_t per_publisher)
{
	*s = (struct bench_stats){
		.n_members = n_members,
		.n_publishers = n_publishers,
		.per_publisher = per_publisher,
		.tracks = calloc((size_t)n_members * n_publishers, sizeof(*s->tracks)),
		.order = calloc(n_members, sizeof(*s->order)),
		.reference = calloc(n_publishers, sizeof(*s->reference)),
	};
	return s->tracks && s->order && s->reference ? 0 : -ENOMEM;
}

void bench_stats_fini(struct bench_stats *s)
{
	for (size_t i = 0; s->tracks && i < (size_t)s->n_members * s->n_publishers; i++)
		free(s->tracks[i].missing);
	free(s->tracks);
	free(s->order);
	free(s->reference);
	*s = (struct bench_stats){0};
}

/* Any change of order changes it: each step depends on all before it. */
static uint64_t order_hash_add(uint64_t hash, uint32_t publisher, uint32_t number)
{
	hash ^= ((uint64_t)publisher << 32 | number) + 0x9e3779b97f4a7c15;
	hash *= 0xff51afd7ed558ccd;
	return hash ^ hash >> 29;
}

static void bench_stats_add_order(struct bench_stats *s, uint32_t member, uint32_t publisher,
				  uint32_t number)
{
	uint32_t reference = s->n_members - 1;

	/* What the reference publishes it does not get itself, so nobody's order may hold it. */
	if (member != reference) {
		if (publisher != reference)
			s->order[member] = order_hash_add(s->order[member], publisher, number);
		return;
	}
	/* A publisher lacks its own messages: for each there is an order that leaves them out. */
	s->reference_all = order_hash_add(s->reference_all, publisher, number);
	for (uint32_t i = 0; i < s->n_publishers; i++)
		if (i != publisher)
			s->reference[i] = order_hash_add(s->reference[i], publisher, number);
}

/* Notes as missing what lies between the number expected and the one that came. */
static bool bench_track_mark_gap(struct bench_stats *s, struct bench_track *t, uint32_t number)
{
	/* Made with the first gap: in a run where all goes well there is none, for any member. */
	if (!t->missing)
		t->missing = calloc((size_t)s->per_publisher / 8 + 1, 1);
	if (!t->missing)
		return false;
	for (uint32_t i = t->next; i < number; i++)
		t->missing[i / 8] |= (uint8_t)(1u << i % 8);
	s->missing += number - t->next;
	return true;
}

/* A number below the one expected: was it missing? */
static enum bench_seen bench_track_take_old(struct bench_stats *s, struct bench_track *t,
					    uint32_t number)
{
	uint8_t bit = (uint8_t)(1u << number % 8);

	/* Without a gap before it, or once the gap is filled, it can only be the same one again. */
	if (!t->missing || !(t->missing[number / 8] & bit)) {
		s->duplicated++;
		return BENCH_DUPLICATE;
	}
	t->missing[number / 8] &= (uint8_t)~bit;
	s->missing--;
	s->late++;
	s->delivered++;
	return BENCH_LATE;
}

enum bench_seen bench_stats_take(struct bench_stats *s, uint32_t member, uint32_t publisher,
				 uint32_t number, uint32_t *ret_passed)
{
	struct bench_track *t = &s->tracks[(size_t)member * s->n_publishers + publisher];

	*ret_passed = number;
	/* The set comes first: when there is no memory for it, nothing has been booked yet. */
	if (WB_UNLIKELY(number > t->next)) {
		*ret_passed = t->next;
		if (!bench_track_mark_gap(s, t, number))
			return BENCH_NO_MEMORY;
	}
	bench_stats_add_order(s, member, publisher, number);
	if (WB_UNLIKELY(number < t->next))
		return bench_track_take_old(s, t, number);
	t->next = number + 1;
	s->delivered++;
	return BENCH_NEW;
}

static int compare_orders(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int bench_stats_orders(const struct bench_stats *s, uint64_t *ret)
{
	uint64_t *different = malloc((size_t)s->n_members * sizeof(*different));
	size_t n = 0;

	if (!different)
		return -ENOMEM;
	/* Only those that differ from the reference are kept, and told apart by sorting. */
	for (uint32_t i = 0; i + 1 < s->n_members; i++) {
		uint64_t same = i < s->n_publishers ? s->reference[i] : s->reference_all;

		if (s->order[i] != same)
			different[n++] = s->order[i];
	}
	qsort(different, n, sizeof(*different), compare_orders);
	*ret = 1;
	for (size_t i = 0; i < n; i++)
		*ret += i == 0 || different[i] != different[i - 1];
	free(different);
	return 0;
}
