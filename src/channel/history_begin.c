/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "channel/history_private.h"

/* The first of those kept at place @seq or behind it; its index, or their number. */
static uint32_t store_search(const struct history *h, const struct history_store *s, uint64_t seq)
{
	uint32_t from = 0, to = s->n;

	while (from < to) {
		uint32_t middle = from + (to - from) / 2;

		if (history_kept_at(h, s, middle)->frame.seq < seq)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

/* Where the last @rewind messages begin, or all that is kept. */
static uint64_t store_rewound(const struct history *h, const struct history_store *s,
			      uint32_t rewind, uint64_t earliest)
{
	return s->n >= rewind ? history_kept_at(h, s, s->n - rewind)->frame.seq : earliest;
}

/* Under the lock: position of the beginning. */
static void store_begin(const struct history *h, const struct history_store *s,
			const struct history_since *since, struct history_start *ret)
{
	uint64_t earliest = atomic_load_explicit(&s->earliest, memory_order_relaxed);

	ret->epoch = s->epoch;
	ret->last = directory_next_seq(s->entry);
	ret->earliest = earliest;
	ret->sequence = ret->last;
	if (since->has_position) {
		/* Equality included: nothing before the position has to be here. */
		bool is_known = since->epoch == s->epoch && since->sequence >= earliest &&
				since->sequence <= ret->last;

		ret->recovered = is_known ? HISTORY_RECOVERED : HISTORY_NOT_RECOVERED;
		ret->sequence = is_known ? since->sequence : earliest;
	}
	if (since->has_rewind && since->rewind > 0 && ret->recovered != HISTORY_RECOVERED)
		ret->sequence = store_rewound(h, s, since->rewind, earliest);
}

int history_begin(struct history *h, struct history_store *s, const struct history_since *since,
		  uint64_t before, uint64_t now_ns, struct history_start *ret)
{
	uint32_t at, end;
	int r = 0;

	*ret = (struct history_start){0};
	history_trim(h, s, now_ns);
	pthread_mutex_lock(&s->lock);
	if (s->is_starting) {
		pthread_mutex_unlock(&s->lock);
		return 0;
	}
	store_begin(h, s, since, ret);
	at = store_search(h, s, ret->sequence);
	end = store_search(h, s, before);
	if (at < end) {
		ret->frames = malloc((end - at) * sizeof(struct frame *));
		r = ret->frames ? 0 : -ENOMEM;
	}
	for (; r == 0 && at < end; at++)
		ret->frames[ret->n++] = frame_ref(history_store_frame(h, s, at));
	pthread_mutex_unlock(&s->lock);
	return r;
}

void history_start_fini(struct history_start *start)
{
	for (size_t i = 0; i < start->n; i++)
		frame_unref(start->frames[i]);
	free(start->frames);
	start->frames = NULL;
	start->n = 0;
}

struct history_figures history_look(struct history_store *s)
{
	struct history_figures f = {0};

	pthread_mutex_lock(&s->lock);
	if (!s->is_starting)
		f = (struct history_figures){
			.epoch = s->epoch,
			.sequence = directory_next_seq(s->entry),
			.earliest = atomic_load_explicit(&s->earliest, memory_order_relaxed),
			.messages = s->n,
			.bytes = s->bytes,
		};
	pthread_mutex_unlock(&s->lock);
	return f;
}
