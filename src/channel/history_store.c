/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "channel/history_private.h"

#define RING_MIN 8

struct frame *history_store_frame(struct history *h, const struct history_store *s, uint32_t i)
{
	struct frame_kept *k = history_kept_at(h, s, i);

	/* One that another process has left: until now nobody has looked at it. */
	if (WB_UNLIKELY(!frame_kept_is_adopted(&h->file.heap, k))) {
		(void)frame_kept_adopt(&h->file.heap, k, &h->bytes);
		k->frame.slot = s->entry->slot;
		k->frame.generation = s->entry->generation;
	}
	return &k->frame;
}

/* Under the store's lock, as all that begins with store_. */
void history_store_set_earliest(struct history_store *s, uint64_t position)
{
	atomic_store_explicit(&s->earliest, position, memory_order_relaxed);
	s->is_changed = true;
}

/* Numbers up to @number are given: they have to be noted before anybody sees one of them. */
void history_store_reserve(struct history_store *s, uint64_t number)
{
	s->is_changed = true;
	/* Many at once: notices take theirs without this lock. */
	if (number > s->reserved)
		s->reserved = number + HISTORY_RESERVED;
}

struct history_note history_store_note(const struct history_store *s)
{
	return (struct history_note){
		.newest = s->newest,
		.earliest = atomic_load_explicit(&s->earliest, memory_order_relaxed),
		.reserved = s->reserved,
	};
}

/* What has changed is noted: before messages that were dropped are given back. */
void history_store_unlock(struct history *h, struct history_store *s)
{
	if (s->is_changed && s->noted && !h->file.heap.is_left) {
		const struct history_note note = history_store_note(s);

		history_head_note(s->noted, &note);
	}
	/* Only now: who takes one without the lock must find it noted. */
	if (s->is_changed)
		atomic_store_explicit(&h->reserved[s->entry->slot], s->reserved,
				      memory_order_release);
	s->is_changed = false;
	pthread_mutex_unlock(&s->lock);
}

static void keys_went(struct history *h, size_t n)
{
	if (n > 0)
		atomic_fetch_sub_explicit(&h->bytes, n * HISTORY_KEY_BYTES, memory_order_relaxed);
}

/* Of messages that another process kept, before the first one is looked for or goes. */
void history_store_read_keys(struct history *h, struct history_store *s)
{
	s->has_keys_unread = false;
	for (uint32_t i = 0; i < s->n; i++) {
		const struct frame_kept *k = history_kept_at(h, s, i);
		const uint8_t *key = frame_kept_key(k);
		struct history_keyed *keyed;
		struct history_key read;

		if (!key)
			continue;
		memcpy(read.id, key, sizeof(read.id));
		memcpy(&read.digest, key + sizeof(read.id), sizeof(read.digest));
		keyed = history_keyed_new(&read);
		/* A resend of it would be published again: rather nobody knows any more. */
		if (keyed && history_store_add_key(h, s, keyed, k->frame.seq))
			continue;
		free(keyed);
		history_store_set_earliest(s, k->frame.seq + 1);
	}
}

void history_store_drop_oldest(struct history *h, struct history_store *s,
			       struct history_dropped *d)
{
	struct frame *f = history_store_frame(h, s, 0);

	if (WB_UNLIKELY(s->has_keys_unread))
		history_store_read_keys(h, s);
	keys_went(h, history_keys_drop(s->keys, f->seq));
	history_store_set_earliest(
		s, MAX(f->seq + 1, atomic_load_explicit(&s->earliest, memory_order_relaxed)));
	s->head = (s->head + 1) & (s->cap - 1);
	s->n--;
	s->bytes -= f->body.len;
	d->frame[d->n++] = f;
	atomic_fetch_sub_explicit(&h->n_messages, 1, memory_order_relaxed);
	if (s->n > 0)
		return;
	free(s->kept);
	s->kept = NULL;
	s->head = s->cap = 0;
}

/* All that it keeps, in @ret, which has nothing of it but that. O(1), however much it is. */
void history_store_take_all(struct history_store *s, struct history_store *ret)
{
	*ret = (struct history_store){
		.entry = s->entry,
		.kept = s->kept,
		.head = s->head,
		.n = s->n,
		.cap = s->cap,
		.keys = s->keys,
		.has_keys_unread = s->has_keys_unread,
	};
	s->has_keys_unread = false;
	s->kept = NULL;
	s->keys = NULL;
	s->head = s->n = s->cap = 0;
	s->bytes = 0;
}

/* Whether its oldest is more than its bounds allow, when the number that comes next is @next. */
static bool store_is_past(const struct history *h, const struct history_store *s, uint64_t next,
			  uint64_t now_ns)
{
	const struct frame *f;

	if (s->n == 0)
		return false;
	f = &history_kept_at(h, s, 0)->frame;
	return s->n > s->limits.messages || s->bytes > s->limits.bytes ||
	       now_ns - MIN(f->received_ns, now_ns) > s->limits.age_ns ||
	       next - f->seq > HISTORY_SPAN_MAX;
}

/* Drops what is past its bounds. True: there may be more of it. */
bool history_store_trim(struct history *h, struct history_store *s, uint64_t now_ns,
			struct history_dropped *d)
{
	uint64_t next = directory_next_seq(s->entry);

	while (store_is_past(h, s, next, now_ns)) {
		if (d->n == ARRAY_LEN(d->frame))
			return true;
		history_store_drop_oldest(h, s, d);
	}
	return false;
}

static int store_grow(struct history_store *s)
{
	uint32_t cap = MAX(s->cap * 2, (uint32_t)RING_MIN);
	uint32_t *more = malloc(cap * sizeof(*more));

	if (!more)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->n; i++)
		more[i] = s->kept[(s->head + i) & (s->cap - 1)];
	free(s->kept);
	s->kept = more;
	s->head = 0;
	s->cap = cap;
	return 0;
}

/*
 * Takes the reference, and has it on history's account: nobody else can drop it before that. False:
 * it isn't kept, for want of memory, or is too large.
 */
bool history_store_keep(struct history *h, struct history_store *s, struct frame *f,
			const struct history_key *key)
{
	if (!f || (key && !frame_kept_has_room(f)) || f->body.len > s->limits.bytes ||
	    (s->n == s->cap && store_grow(s)))
		return false;
	frame_move_account(f, &h->bytes);
	frame_kept_commit(f, s->epoch, s->newest, key);
	s->kept[(s->head + s->n) & (s->cap - 1)] =
		shm_heap_place(&h->file.heap, frame_kept_slot(f));
	s->n++;
	s->bytes += f->body.len;
	s->newest = f->seq + 1;
	s->is_changed = true;
	atomic_fetch_add_explicit(&h->n_messages, 1, memory_order_relaxed);
	return true;
}

/* The message at @seq, just kept, is known again by it. False: there is no memory. */
bool history_store_add_key(struct history *h, struct history_store *s, struct history_keyed *keyed,
			   uint64_t seq)
{
	if (!s->keys)
		s->keys = history_keys_new();
	if (!s->keys)
		return false;
	history_keys_add(s->keys, keyed, seq);
	atomic_fetch_add_explicit(&h->bytes, HISTORY_KEY_BYTES, memory_order_relaxed);
	return true;
}

/* Without any lock: whoever still waits for one has it on the account of what waits. */
void history_dropped_give_back(struct history *h, struct history_dropped *d)
{
	for (unsigned i = 0; i < d->n; i++) {
		frame_kept_withdraw(d->frame[i]);
		frame_move_account(d->frame[i], h->frame_account);
		frame_unref(d->frame[i]);
	}
	if (d->n > 0)
		atomic_fetch_add_explicit(&h->evicted, d->n, memory_order_relaxed);
	d->n = 0;
}

void history_taken_give_back(struct history *h, struct history_store *taken)
{
	struct history_dropped d = {.n = 0};

	/* Keys that nobody has read are charged to nobody. */
	taken->has_keys_unread = false;
	while (taken->n > 0) {
		history_store_drop_oldest(h, taken, &d);
		if (d.n == ARRAY_LEN(d.frame) || taken->n == 0)
			history_dropped_give_back(h, &d);
	}
	keys_went(h, history_keys_free(TAKE_PTR(taken->keys)));
}

/* A message isn't kept: nobody who comes back can do with what is before that hole. */
void history_store_begin_behind(struct history *h, struct history_store *s, const struct frame *f)
{
	struct history_store taken;

	history_store_take_all(s, &taken);
	history_store_set_earliest(s, f->seq + 1);
	history_taken_give_back(h, &taken);
}

void history_trim(struct history *h, struct history_store *s, uint64_t now_ns)
{
	struct history_dropped d = {.n = 0};
	bool has_more;

	do {
		pthread_mutex_lock(&s->lock);
		has_more = history_store_trim(h, s, now_ns, &d);
		history_store_unlock(h, s);
		history_dropped_give_back(h, &d);
	} while (has_more);
}
