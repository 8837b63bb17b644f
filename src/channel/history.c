/* SPDX-License-Identifier: MIT */
#include "channel/history_private.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <systemd/sd-id128.h>

#define HISTORY_SLACK_BYTES ((uint64_t)16 << 20) /* of spans that nobody uses, or a few do */
#define HISTORY_ROOM_BYTES ((uint64_t)256 << 10) /* of older messages, beside as much as comes */

/* By slots of the directory: the stores, and the numbers that are noted. */
static size_t tables_bytes(const struct history *h)
{
	return (size_t)h->directory->max * (sizeof(*h->by_slot) + sizeof(*h->reserved));
}

int history_init(struct history *h, struct directory *d, _Atomic size_t *account, int fd,
		 unsigned shelves)
{
	int r = siphash_draw_key(&h->digest_key);
	void *tables;

	if (r == 0)
		r = history_file_init(&h->file, fd, shelves);
	if (r)
		return r;
	h->directory = d;
	h->frame_account = account;
	h->max_bytes = h->max_pages = SIZE_MAX;
	list_init(&h->all);
	list_init(&h->idle);
	list_init(&h->giving);
	for (size_t i = 0; i < ARRAY_LEN(h->weights); i++)
		list_init(&h->weights[i]);
	/* Address space; a page costs memory once it is used. */
	tables = mmap(NULL, tables_bytes(h), PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (tables == MAP_FAILED) {
		history_file_fini(&h->file);
		h->directory = NULL;
		return -ENOMEM;
	}
	h->by_slot = tables;
	h->reserved = (_Atomic uint64_t *)(h->by_slot + d->max);
	(void)pthread_mutex_init(&h->mutex, NULL); /* cannot fail without attributes */
	return 0;
}

uint64_t history_file_most(uint64_t memory)
{
	return memory + memory / 4 + HISTORY_SLACK_BYTES;
}

void history_set_memory(struct history *h, uint64_t bytes, uint64_t waiting)
{
	atomic_store_explicit(&h->max_bytes, bytes, memory_order_relaxed);
	/* What is no message is in a span beside others that stay, or waits for the next one. */
	atomic_store_explicit(&h->max_pages, history_file_most(bytes) + waiting,
			      memory_order_relaxed);
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
		       atomic_load_explicit(&h->max_bytes, memory_order_relaxed) ||
	       atomic_load_explicit(&h->file.heap.bytes, memory_order_relaxed) >
		       atomic_load_explicit(&h->max_pages, memory_order_relaxed);
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
	/* First the place: nothing that follows is missed where there is none. */
	history_head_free(&h->file, TAKE_PTR(s->noted));
	history_taken_give_back(h, s);
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
		struct history_dropped d = {.n = 0};

		if (!s)
			break;
		pthread_mutex_lock(&s->lock);
		/* One at a time: another one may have more then. */
		if (s->n > 0)
			history_store_drop_oldest(h, s, &d);
		history_store_unlock(h, s);
		history_dropped_give_back(h, &d);
		place_in_lists(h, s);
	}
	/* Then the places themselves. */
	while (is_past_memory(h) && !list_is_empty(&h->idle))
		store_free(h, longest_idle(h));
}

/*
 * The system has no pages left, before history_memory is used up: a step towards room for @n bytes.
 * What it came to is added to @dropped. False: nobody keeps anything.
 */
static bool make_room(struct history *h, uint64_t n, uint64_t *dropped)
{
	const uint64_t until = *dropped + n;
	struct history_dropped d = {.n = 0};
	struct history_store *s;

	pthread_mutex_lock(&h->mutex);
	s = victim_of(h);
	if (s) {
		pthread_mutex_lock(&s->lock);
		while (s->n > 0 && d.n < ARRAY_LEN(d.frame) && *dropped < until) {
			history_store_drop_oldest(h, s, &d);
			*dropped += d.frame[d.n - 1]->body.len;
		}
		history_store_unlock(h, s);
		history_dropped_give_back(h, &d);
		place_in_lists(h, s);
	}
	pthread_mutex_unlock(&h->mutex);
	return s != NULL;
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

/* So that the next process finds its place. Where that cannot be, it begins anew there. */
static void store_begin_notes(struct history *h, struct history_store *s)
{
	struct history_note note;

	pthread_mutex_lock(&s->lock);
	history_store_reserve(s, directory_next_seq(s->entry));
	note = history_store_note(s);
	if (!s->noted)
		s->noted = history_head_new(&h->file, s->epoch, s->entry->name, s->entry->name_len,
					    &note);
	history_store_unlock(h, s);
}

/* Under the mutex. NULL: there is no memory. */
struct history_store *history_store_new(struct history *h, struct directory_entry *e,
					uint64_t epoch)
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
	history_store_set_earliest(s, directory_next_seq(e));
	atomic_store_explicit(&h->reserved[e->slot], 0, memory_order_relaxed);
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
	if (!s) {
		s = history_store_new(h, e, epoch);
		if (s)
			store_begin_notes(h, s);
	}
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
	struct history_head *head;

	pthread_mutex_lock(&s->lock);
	s->is_starting = true;
	head = TAKE_PTR(s->noted);
	pthread_mutex_unlock(&s->lock);
	/* Before numbers are given that nobody notes: to the next process it is no place. */
	history_head_free(&h->file, head);
	atomic_store_explicit(&e->has_history, false, memory_order_release);
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
	/* Until here numbers were taken as in a channel without history: nobody has noted them. */
	if (s->is_starting) {
		history_store_set_earliest(s, directory_next_seq(s->entry));
		history_store_reserve(s, directory_next_seq(s->entry));
	}
	s->is_starting = false;
	history_store_unlock(h, s);
}

void history_settle(struct history *h, uint64_t now_ns, history_limits_fn *limits, void *ctx)
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

void history_store_restored(struct history *h, struct history_store *s)
{
	store_begin_notes(h, s);
	s->users = 1;
	place_in_lists(h, s);
	use_end(h, s);
}

void history_fini(struct history *h)
{
	if (!h->directory)
		return;
	/* What is somebody else's file stays there, for whoever comes next. */
	if (h->file.own_fd < 0) {
		shm_heap_leave(&h->file.heap);
		h->file.root->crashes = 0;
		h->file.root->taken_ns = 0;
		h->file.root->nonce =
			0; /* also of one that was left for us, who didn't come to serve */
	}
	LIST_FOREACH_SAFE (node, next, &h->all) {
		struct history_store *s = CONTAINER_OF(node, struct history_store, node);

		/* Workers are gone, and with them all that they used. */
		if (s->users > 0)
			h->n_idle++;
		s->users = 0;
		store_free(h, s);
	}
	(void)munmap((void *)(uintptr_t)h->by_slot, tables_bytes(h));
	history_file_fini(&h->file);
	(void)pthread_mutex_destroy(&h->mutex);
	h->by_slot = NULL;
	h->directory = NULL;
}

/* ------------------------------------------------------------------------- messages */

/*
 * Whether it may be published, under the lock. Return: the number of the first one, of a duplicate.
 */
static uint64_t store_look_for(struct history *h, struct history_store *s,
			       struct history_once *once)
{
	const struct history_keyed *found;

	if (WB_UNLIKELY(s->has_keys_unread))
		history_store_read_keys(h, s);
	found = history_keys_find(s->keys, &once->key);
	once->outcome = HISTORY_PUBLISHED;
	if (found)
		once->outcome = HISTORY_DUPLICATE;
	else if (once->is_resend &&
		 once->known < atomic_load_explicit(&s->earliest, memory_order_relaxed))
		once->outcome = HISTORY_UNKNOWN;
	return found ? found->seq + 1 : 0;
}

/* A message that is published, and where it is kept. */
struct publishing {
	struct frame *f;
	struct frame *kept;          /* with a reference for the store; NULL: there is no memory */
	struct history_keyed *keyed; /* or NULL; the store's, once it is kept */
};

/* Under the lock. False: it isn't kept. */
static bool store_publish(struct history *h, struct history_store *s, struct publishing *p,
			  uint64_t *ret_workers)
{
	p->f->seq = directory_take(s->entry, ret_workers);
	frame_set_number(p->f, p->f->seq + 1);
	if (p->kept && p->kept != p->f) {
		p->kept->seq = p->f->seq;
		frame_set_number(p->kept, p->f->seq + 1);
	}
	history_store_reserve(s, p->f->seq + 1);
	/* A key without its message, or the other way round, could be published again. */
	if (s->is_starting || !history_store_keep(h, s, p->kept, p->keyed ? &p->keyed->key : NULL))
		return false;
	p->kept = NULL;
	if (p->keyed && !history_store_add_key(h, s, p->keyed, p->f->seq))
		return false;
	p->keyed = NULL;
	return true;
}

/* NULL: there are no pages, though older messages of about its size were given up for it. */
static struct frame *copy_to_keep(struct history *h, const struct frame *f, bool has_key)
{
	/* What is small lies in a span with others, all of which have to go. */
	const uint64_t enough = 2 * f->body.len + HISTORY_ROOM_BYTES;
	struct frame *copy;
	uint64_t dropped = 0;

	do
		copy = frame_kept_copy(&h->file.heap, f, has_key, h->frame_account);
	while (!copy && dropped < enough && make_room(h, f->body.len, &dropped));
	return copy;
}

/*
 * Nobody else knows it yet: all that doesn't need its number is done before the lock is taken. What
 * was not made in a slot (there was no room, or it is an administrator's) is kept as a copy.
 */
static bool publishing_begin(struct history *h, struct publishing *p,
			     const struct history_once *once)
{
	size_t done = 0;

	if (once) {
		p->keyed = history_keyed_new(&once->key);
		if (!p->keyed)
			return false;
	}
	frame_set_account(p->f, h->frame_account);
	p->kept = frame_is_kept(p->f) ? frame_ref(p->f) : copy_to_keep(h, p->f, once != NULL);
	if (p->kept)
		(void)frame_kept_seal(p->kept, &done, SIZE_MAX);
	return true;
}

uint64_t history_publish(struct history *h, struct history_store *s, struct frame *f,
			 struct history_once *once, uint64_t *ret_workers)
{
	struct publishing p = {.f = f};
	struct history_store taken = {.n = 0};
	struct history_dropped d = {.n = 0};
	uint64_t bytes, sequence;

	if (!publishing_begin(h, &p, once)) {
		once->outcome = HISTORY_E_NO_MEMORY;
		return 0;
	}
	pthread_mutex_lock(&s->lock);
	sequence = once ? store_look_for(h, s, once) : 0;
	if (once && once->outcome != HISTORY_PUBLISHED) {
		history_store_unlock(h, s);
		free(p.keyed);
		frame_unref(p.kept);
		return sequence;
	}
	if (store_publish(h, s, &p, ret_workers)) {
		(void)history_store_trim(h, s, f->received_ns, &d);
	} else {
		/* Nobody who comes back can do with what is before a hole. */
		history_store_take_all(s, &taken);
		history_store_set_earliest(s, f->seq + 1);
	}
	sequence = s->is_starting ? 0 : f->seq + 1;
	bytes = s->bytes;
	history_store_unlock(h, s);
	free(p.keyed);
	frame_unref(p.kept);
	history_taken_give_back(h, &taken);
	history_dropped_give_back(h, &d);
	note_change(h, s, bytes);
	return sequence;
}

void history_reserve(struct history *h, struct directory_entry *e)
{
	const _Atomic uint64_t *reserved = &h->reserved[e->slot];
	/* Whoever takes one has looked before: of those that look now none is behind that. */
	uint64_t ahead = directory_next_seq(e) + 2 * DIRECTORY_MAX_WORKERS;
	struct history_store *s;

	if (WB_LIKELY(ahead < atomic_load_explicit(reserved, memory_order_acquire)))
		return;
	/* Its worker may have let go of the store; under the mutex it stays. */
	pthread_mutex_lock(&h->mutex);
	s = history_of(h, e);
	if (s) {
		pthread_mutex_lock(&s->lock);
		history_store_reserve(s, ahead);
		history_store_unlock(h, s);
	}
	pthread_mutex_unlock(&h->mutex);
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
