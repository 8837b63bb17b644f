/* SPDX-License-Identifier: MIT */
#include "channel/history_private.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <systemd/sd-id128.h>

#define AT_ONCE 64 /* messages that are dropped in one hold of a store's lock */
#define RING_MIN 8

/* Messages that a store has dropped: their references are given back without its lock. */
struct dropped {
	struct frame *frame[AT_ONCE];
	unsigned n;
};

static size_t by_slot_bytes(const struct history *h)
{
	return (size_t)h->directory->max * sizeof(*h->by_slot);
}

int history_init(struct history *h, struct directory *d, _Atomic size_t *account)
{
	int r = siphash_draw_key(&h->digest_key);

	if (r)
		return r;
	h->directory = d;
	h->frame_account = account;
	h->max_bytes = SIZE_MAX;
	list_init(&h->all);
	list_init(&h->idle);
	list_init(&h->giving);
	for (size_t i = 0; i < ARRAY_LEN(h->weights); i++)
		list_init(&h->weights[i]);
	/* Address space; a page costs memory once it is used. */
	h->by_slot = mmap(NULL, by_slot_bytes(h), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (h->by_slot == MAP_FAILED) {
		h->by_slot = NULL;
		h->directory = NULL;
		return -ENOMEM;
	}
	(void)pthread_mutex_init(&h->mutex, NULL); /* cannot fail without attributes */
	return 0;
}

void history_set_memory(struct history *h, uint64_t bytes)
{
	atomic_store_explicit(&h->max_bytes, bytes, memory_order_relaxed);
}

/* ---------------------------------------------------------------------- what is kept */

/* Under the store's lock, as all that begins with store_. */
static struct frame *store_oldest(const struct history_store *s)
{
	return s->kept[s->head];
}

static void store_set_earliest(struct history_store *s, uint64_t position)
{
	atomic_store_explicit(&s->earliest, position, memory_order_relaxed);
}

static void keys_went(struct history *h, size_t n)
{
	if (n > 0)
		atomic_fetch_sub_explicit(&h->bytes, n * HISTORY_KEY_BYTES, memory_order_relaxed);
}

static void store_drop_oldest(struct history *h, struct history_store *s, struct dropped *d)
{
	struct frame *f = store_oldest(s);

	keys_went(h, history_keys_drop(s->keys, f->seq));

	store_set_earliest(s, f->seq + 1);
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
static void store_take_all(struct history_store *s, struct history_store *ret)
{
	*ret = (struct history_store){
		.kept = s->kept, .head = s->head, .n = s->n, .cap = s->cap, .keys = s->keys};
	s->kept = NULL;
	s->keys = NULL;
	s->head = s->n = s->cap = 0;
	s->bytes = 0;
}

/* Whether its oldest is more than its bounds allow, when the number that comes next is @next. */
static bool store_is_past(const struct history_store *s, uint64_t next, uint64_t now_ns)
{
	const struct frame *f;

	if (s->n == 0)
		return false;
	f = store_oldest(s);
	return s->n > s->limits.messages || s->bytes > s->limits.bytes ||
	       now_ns - MIN(f->received_ns, now_ns) > s->limits.age_ns ||
	       next - f->seq > HISTORY_SPAN_MAX;
}

/* Drops what is past its bounds. True: there may be more of it. */
static bool store_trim(struct history *h, struct history_store *s, uint64_t now_ns,
		       struct dropped *d)
{
	uint64_t next = directory_next_seq(s->entry);

	while (store_is_past(s, next, now_ns)) {
		if (d->n == ARRAY_LEN(d->frame))
			return true;
		store_drop_oldest(h, s, d);
	}
	return false;
}

static int store_grow(struct history_store *s)
{
	uint32_t cap = MAX(s->cap * 2, (uint32_t)RING_MIN);
	struct frame **more = malloc(cap * sizeof(struct frame *));

	if (!more)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->n; i++)
		more[i] = history_kept(s, i);
	free(s->kept);
	s->kept = more;
	s->head = 0;
	s->cap = cap;
	return 0;
}

/*
 * Takes a reference, and has it on history's account: nobody else can drop it before that. False:
 * it isn't kept, for want of memory, or is too large.
 */
static bool store_keep(struct history *h, struct history_store *s, struct frame *f)
{
	if (f->body.len > s->limits.bytes || (s->n == s->cap && store_grow(s)))
		return false;
	frame_move_account(f, &h->bytes);
	s->kept[(s->head + s->n) & (s->cap - 1)] = frame_ref(f);
	s->n++;
	s->bytes += f->body.len;
	atomic_fetch_add_explicit(&h->n_messages, 1, memory_order_relaxed);
	return true;
}

/* The message at @seq, just kept, is known again by it. False: there is no memory. */
static bool store_add_key(struct history *h, struct history_store *s, struct history_keyed *keyed,
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
static void dropped_give_back(struct history *h, struct dropped *d)
{
	for (unsigned i = 0; i < d->n; i++) {
		frame_move_account(d->frame[i], h->frame_account);
		frame_unref(d->frame[i]);
	}
	if (d->n > 0)
		atomic_fetch_add_explicit(&h->evicted, d->n, memory_order_relaxed);
	d->n = 0;
}

static void taken_give_back(struct history *h, struct history_store *taken)
{
	struct dropped d = {.n = 0};

	while (taken->n > 0) {
		store_drop_oldest(h, taken, &d);
		if (d.n == ARRAY_LEN(d.frame) || taken->n == 0)
			dropped_give_back(h, &d);
	}
	keys_went(h, history_keys_free(TAKE_PTR(taken->keys)));
}

/* A message isn't kept: nobody who comes back can do with what is before that hole. */
static void store_begin_behind(struct history *h, struct history_store *s, const struct frame *f)
{
	struct history_store taken;

	store_take_all(s, &taken);
	store_set_earliest(s, f->seq + 1);
	taken_give_back(h, &taken);
}

void history_trim(struct history *h, struct history_store *s, uint64_t now_ns)
{
	struct dropped d = {.n = 0};
	bool has_more;

	do {
		pthread_mutex_lock(&s->lock);
		has_more = store_trim(h, s, now_ns, &d);
		pthread_mutex_unlock(&s->lock);
		dropped_give_back(h, &d);
	} while (has_more);
}

/* ----------------------------------------------------------------- who gives something up */

static unsigned weight_of(uint64_t bytes)
{
	unsigned weight = bytes ? 64 - (unsigned)__builtin_clzll(bytes) : 0;

	return MIN(weight, (unsigned)HISTORY_WEIGHTS - 1);
}

static bool is_past_memory(const struct history *h)
{
	return atomic_load_explicit(&h->bytes, memory_order_relaxed) >
	       atomic_load_explicit(&h->max_bytes, memory_order_relaxed);
}

/*
 * Under the mutex, as what follows up to the end of this part: where it stands, by what it
 * keeps.
 */
static void place_in_lists(struct history *h, struct history_store *s)
{
	uint64_t bytes;
	unsigned weight;

	pthread_mutex_lock(&s->lock);
	bytes = s->bytes;
	pthread_mutex_unlock(&s->lock);
	weight = weight_of(bytes);
	if (weight != atomic_load_explicit(&s->weight, memory_order_relaxed)) {
		atomic_store_explicit(&s->weight, (uint8_t)weight, memory_order_relaxed);
		list_del(&s->weight_node);
		list_add_tail(&h->weights[weight], &s->weight_node);
	}
	/* What has nothing left is not asked for more; it is still a place. */
	if (bytes == 0)
		list_del(&s->giving_node);
}

/* Nobody uses it. The entry goes with it, unless somebody holds that. */
static void store_free(struct history *h, struct history_store *s)
{
	WB_ASSERT(s->users == 0);
	list_del(&s->node);
	list_del(&s->weight_node);
	list_del(&s->idle_node);
	list_del(&s->giving_node);
	h->n_stores--;
	h->n_idle--;
	atomic_store_explicit(&h->by_slot[s->entry->slot], NULL, memory_order_release);
	taken_give_back(h, s);
	directory_unkeep(h->directory, s->entry);
	atomic_fetch_sub_explicit(&h->bytes, HISTORY_PLACE_BYTES, memory_order_relaxed);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

/* The one that was silent longest. NULL: all are used. */
static struct history_store *longest_idle(const struct history *h)
{
	struct list *first = list_first(&h->idle);

	return first ? CONTAINER_OF(first, struct history_store, idle_node) : NULL;
}

/* Who has to give up something now; NULL: nobody keeps anything. */
static struct history_store *victim_of(const struct history *h)
{
	struct list *first = list_first(&h->giving);

	if (first)
		return CONTAINER_OF(first, struct history_store, giving_node);
	for (unsigned i = HISTORY_WEIGHTS - 1; i > 0; i--) {
		first = list_first(&h->weights[i]);
		if (first)
			return CONTAINER_OF(first, struct history_store, weight_node);
	}
	return NULL;
}

static void give_up(struct history *h)
{
	while (is_past_memory(h)) {
		struct history_store *s = victim_of(h);
		struct dropped d = {.n = 0};

		if (!s)
			break;
		pthread_mutex_lock(&s->lock);
		/* One at a time: another one may have more then. */
		if (s->n > 0)
			store_drop_oldest(h, s, &d);
		pthread_mutex_unlock(&s->lock);
		dropped_give_back(h, &d);
		place_in_lists(h, s);
	}
	/* Then the places themselves. */
	while (is_past_memory(h) && !list_is_empty(&h->idle))
		store_free(h, longest_idle(h));
}

/* It keeps more, or less: nearly always nothing comes of that. Without any lock. */
static void note_change(struct history *h, struct history_store *s, uint64_t bytes)
{
	bool moves = weight_of(bytes) != atomic_load_explicit(&s->weight, memory_order_relaxed);

	if (WB_LIKELY(!moves && !is_past_memory(h)))
		return;
	pthread_mutex_lock(&h->mutex);
	place_in_lists(h, s);
	give_up(h);
	pthread_mutex_unlock(&h->mutex);
}

/* ------------------------------------------------------------------------ its stores */

static int draw_epoch(uint64_t *ret)
{
	sd_id128_t random;

	do {
		int r = sd_id128_randomize(&random);

		if (r < 0)
			return r;
		memcpy(ret, random.bytes, sizeof(*ret));
	} while (*ret == 0);
	return 0;
}

/* Under the mutex. NULL: there is no memory. */
static struct history_store *store_new(struct history *h, struct directory_entry *e, uint64_t epoch)
{
	struct history_store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	(void)pthread_mutex_init(&s->lock, NULL);
	s->entry = e;
	s->epoch = epoch;
	s->is_starting = h->is_reloading;
	list_add_tail(&h->all, &s->node);
	list_add_tail(&h->weights[0], &s->weight_node);
	list_init(&s->idle_node);
	list_init(&s->giving_node);
	h->n_stores++;
	directory_keep(h->directory, e);
	/* Whoever publishes from here on does so under the lock. */
	store_set_earliest(s, directory_next_seq(e));
	atomic_fetch_add_explicit(&h->bytes, HISTORY_PLACE_BYTES, memory_order_relaxed);
	atomic_store_explicit(&h->by_slot[e->slot], s, memory_order_release);
	atomic_store_explicit(&e->has_history, true, memory_order_release);
	return s;
}

/* Under the mutex. */
static void use_begin(struct history *h, struct history_store *s)
{
	if (s->users++ > 0)
		return;
	/* A new one is in neither list. */
	if (!list_is_empty(&s->idle_node))
		h->n_idle--;
	list_del(&s->idle_node);
	list_del(&s->giving_node);
}

static void use_end(struct history *h, struct history_store *s)
{
	if (--s->users > 0)
		return;
	list_add_tail(&h->idle, &s->idle_node);
	list_add_tail(&h->giving, &s->giving_node);
	place_in_lists(h, s); /* which takes it out again, if it has nothing to give */
	h->n_idle++;
	while (h->n_idle > h->directory->limit)
		store_free(h, longest_idle(h));
	/* It may be the last that could give something up. */
	give_up(h);
}

static void store_limit(struct history_store *s, const struct history_limits *limits)
{
	pthread_mutex_lock(&s->lock);
	s->limits = *limits;
	pthread_mutex_unlock(&s->lock);
}

int history_hold(struct history *h, struct directory_entry *e, const struct history_limits *limits)
{
	struct history_store *s;
	uint64_t epoch;
	int r = draw_epoch(&epoch);

	if (r)
		return r;
	pthread_mutex_lock(&h->mutex);
	s = history_of(h, e);
	if (!s)
		s = store_new(h, e, epoch);
	if (s) {
		use_begin(h, s);
		store_limit(s, limits);
	}
	pthread_mutex_unlock(&h->mutex);
	return s ? 0 : -ENOMEM;
}

void history_release(struct history *h, struct directory_entry *e)
{
	pthread_mutex_lock(&h->mutex);
	use_end(h, history_of(h, e));
	pthread_mutex_unlock(&h->mutex);
}

void history_end(struct history *h, struct directory_entry *e)
{
	struct history_store *s = history_of(h, e);

	atomic_store_explicit(&e->has_history, false, memory_order_release);
	pthread_mutex_lock(&s->lock);
	s->is_starting = true;
	pthread_mutex_unlock(&s->lock);
}

void history_begin_reload(struct history *h)
{
	pthread_mutex_lock(&h->mutex);
	h->is_reloading = true;
	pthread_mutex_unlock(&h->mutex);
}

/* Under the mutex. What it was told on the way means nothing any more. */
static void store_settle(struct history *h, struct history_store *s,
			 const struct history_limits *limits)
{
	if (!limits) {
		/* Workers that had it open have let go of it; the flag is no other's any more. */
		atomic_store_explicit(&s->entry->has_history, false, memory_order_release);
		if (s->users == 0)
			store_free(h, s);
		return;
	}
	pthread_mutex_lock(&s->lock);
	s->limits = *limits;
	if (s->is_starting)
		store_set_earliest(s, directory_next_seq(s->entry));
	s->is_starting = false;
	pthread_mutex_unlock(&s->lock);
}

void history_settle(struct history *h, uint64_t now_ns,
		    bool (*limits)(void *ctx, const char *name, struct history_limits *ret),
		    void *ctx)
{
	pthread_mutex_lock(&h->mutex);
	h->is_reloading = false;
	LIST_FOREACH_SAFE (node, next, &h->all) {
		struct history_store *s = CONTAINER_OF(node, struct history_store, node);
		struct history_limits l;

		store_settle(h, s, limits(ctx, s->entry->name, &l) ? &l : NULL);
	}
	LIST_FOREACH (node, &h->all) {
		struct history_store *s = CONTAINER_OF(node, struct history_store, node);

		history_trim(h, s, now_ns);
		place_in_lists(h, s);
	}
	give_up(h);
	pthread_mutex_unlock(&h->mutex);
}

/* Keys of messages that are kept here, too: bounds may have become narrower. */
static void restore_keys(struct history *h, struct history_store *s,
			 const struct history_saved *saved)
{
	for (size_t i = 0; i < saved->n_keys; i++) {
		const struct frame *f = saved->frames[saved->keyed[i]];
		uint64_t earliest = atomic_load_explicit(&s->earliest, memory_order_relaxed);
		struct history_keyed *keyed;

		if (f->seq < earliest)
			continue;
		keyed = history_keyed_new(&saved->keys[i]);
		if (!keyed || !store_add_key(h, s, keyed, f->seq)) {
			/* A resend of it would be published again: rather nobody knows any more. */
			free(keyed);
			store_begin_behind(h, s, f);
		}
	}
}

int history_restore(struct history *h, struct directory_entry *e,
		    const struct history_limits *limits, const struct history_saved *saved)
{
	struct history_store *s;

	pthread_mutex_lock(&h->mutex);
	s = store_new(h, e, saved->epoch);
	if (s) {
		s->limits = *limits;
		store_set_earliest(s, saved->earliest);
		for (size_t i = 0; i < saved->n; i++)
			if (!store_keep(h, s, saved->frames[i]))
				store_begin_behind(h, s, saved->frames[i]);
		restore_keys(h, s, saved);
		s->users = 1;
		place_in_lists(h, s);
		use_end(h, s);
	}
	pthread_mutex_unlock(&h->mutex);
	return s ? 0 : -ENOMEM;
}

void history_fini(struct history *h)
{
	if (!h->directory)
		return;
	LIST_FOREACH_SAFE (node, next, &h->all) {
		struct history_store *s = CONTAINER_OF(node, struct history_store, node);

		/* Workers are gone, and with them all that they used. */
		if (s->users > 0)
			h->n_idle++;
		s->users = 0;
		store_free(h, s);
	}
	(void)munmap((void *)(uintptr_t)h->by_slot, by_slot_bytes(h));
	(void)pthread_mutex_destroy(&h->mutex);
	h->by_slot = NULL;
	h->directory = NULL;
}

/* ------------------------------------------------------------------------- messages */

/*
 * Whether it may be published, under the lock. Return: the number of the first one, of a duplicate.
 */
static uint64_t store_look_for(const struct history_store *s, struct history_once *once)
{
	const struct history_keyed *found = history_keys_find(s->keys, &once->key);

	once->outcome = HISTORY_PUBLISHED;
	if (found)
		once->outcome = HISTORY_DUPLICATE;
	else if (once->is_resend &&
		 once->known < atomic_load_explicit(&s->earliest, memory_order_relaxed))
		once->outcome = HISTORY_UNKNOWN;
	return found ? found->seq + 1 : 0;
}

/* Under the lock. False: it isn't kept. @keyed: NULL, or taken over if it is. */
static bool store_publish(struct history *h, struct history_store *s, struct frame *f,
			  struct history_keyed **keyed, uint64_t *ret_workers)
{
	f->seq = directory_take(s->entry, ret_workers);
	frame_set_number(f, f->seq + 1);
	if (s->is_starting || !store_keep(h, s, f))
		return false;
	/* Else it could be published again. */
	if (*keyed && !store_add_key(h, s, *keyed, f->seq))
		return false;
	*keyed = NULL;
	return true;
}

uint64_t history_publish(struct history *h, struct history_store *s, struct frame *f,
			 struct history_once *once, uint64_t *ret_workers)
{
	struct history_keyed *keyed = once ? history_keyed_new(&once->key) : NULL;
	struct history_store taken = {.n = 0};
	struct dropped d = {.n = 0};
	uint64_t bytes, sequence;

	if (once && !keyed) {
		once->outcome = HISTORY_E_NO_MEMORY;
		return 0;
	}
	/* Nobody else knows it yet: that is done before the lock is taken. */
	frame_set_account(f, h->frame_account);
	pthread_mutex_lock(&s->lock);
	sequence = once ? store_look_for(s, once) : 0;
	if (once && once->outcome != HISTORY_PUBLISHED) {
		pthread_mutex_unlock(&s->lock);
		free(keyed);
		return sequence;
	}
	if (store_publish(h, s, f, &keyed, ret_workers)) {
		(void)store_trim(h, s, f->received_ns, &d);
	} else {
		/* Nobody who comes back can do with what is before a hole. */
		store_take_all(s, &taken);
		store_set_earliest(s, f->seq + 1);
	}
	sequence = s->is_starting ? 0 : f->seq + 1;
	bytes = s->bytes;
	pthread_mutex_unlock(&s->lock);
	free(keyed);
	taken_give_back(h, &taken);
	dropped_give_back(h, &d);
	note_change(h, s, bytes);
	return sequence;
}

void history_expire(struct history *h, uint64_t now_ns, unsigned max)
{
	pthread_mutex_lock(&h->mutex);
	for (unsigned n = MIN(max, h->n_stores); n > 0; n--) {
		struct list *node = list_pop(&h->all);
		struct history_store *s = CONTAINER_OF(node, struct history_store, node);

		list_add_tail(&h->all, node);
		history_trim(h, s, now_ns);
		place_in_lists(h, s);
	}
	pthread_mutex_unlock(&h->mutex);
}
