/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>

#include "containers/mem.h"
#include "containers/shm_heap_private.h"

#define SMALL_MAX ((size_t)32 << 10) /* larger ones are runs */
#define EXACT_CLASSES 13             /* 64 to 256 by 16; from there on eight for each doubling */
#define LOOKS 4 /* spans of another process that are looked through for one slot */

/* The size of a class: its slots are as large as that, and begin at multiples of it. */
static uint32_t class_bytes(unsigned class)
{
	unsigned doubling, step;

	if (class < EXACT_CLASSES)
		return 64 + 16 * class;
	doubling = (class - EXACT_CLASSES) / 8;
	step = (class - EXACT_CLASSES) % 8 + 1;
	return (256u << doubling) + step * (32u << doubling);
}

/* The smallest class for so many bytes. */
static unsigned class_of(size_t n)
{
	unsigned log2, shift;

	if (n <= 64)
		return 0;
	if (n <= 256)
		return (unsigned)((n - 64 + 15) / 16);
	/* Up to the next of eight steps between this power of two and the next. */
	log2 = 63 - (unsigned)__builtin_clzll(n - 1);
	shift = log2 - 3;
	return EXACT_CLASSES + (log2 - 8) * 8 + (unsigned)(((n - 1) >> shift) - 8);
}

unsigned shm_class_slots(unsigned class)
{
	return SHM_SPAN_BYTES / class_bytes(class);
}

struct shm_slot *shm_span_slot(const struct shm_heap *h, uint32_t at, unsigned i)
{
	return (struct shm_slot *)(void *)(shm_span_start(h, at) +
					   (size_t)i * class_bytes(h->spans[at].class));
}

/* The number of the span that a slot lies in. */
static uint32_t span_of(const struct shm_heap *h, const struct shm_slot *slot)
{
	return (uint32_t)((size_t)((const uint8_t *)slot - h->base) / SHM_SPAN_BYTES);
}

/* ---------------------------------------------------------------------------- pages */

int shm_take_pages(struct shm_heap *h, uint64_t from, uint64_t n)
{
	if (fallocate(h->fd, 0, (off_t)from, (off_t)n) < 0)
		return -errno;
	atomic_fetch_add_explicit(&h->bytes, n, memory_order_relaxed);
	return 0;
}

/* Of spans that nobody has, so nobody touches them meanwhile. */
void shm_give_pages(struct shm_heap *h, uint32_t at, uint32_t length, uint64_t taken)
{
	/* Where it cannot punch holes, the pages stay, and are taken again later for nothing. */
	(void)fallocate(h->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)at * SHM_SPAN_BYTES, (off_t)length * SHM_SPAN_BYTES);
	atomic_fetch_sub_explicit(&h->bytes, taken, memory_order_relaxed);
}

/* ------------------------------------------------------------- spans that nobody has */

/* Which list of free runs one is in. */
static unsigned run_bin(uint32_t length)
{
	return MIN(31 - (unsigned)__builtin_clz(length), (unsigned)SHM_RUN_BINS - 1);
}

/* Under the heap's lock, as what follows up to the end of this part. */
void shm_free_run_add(struct shm_heap *h, uint32_t at, uint32_t length)
{
	struct shm_span *first = &h->spans[at], *last = &h->spans[at + length - 1];
	uint32_t *list = &h->free_runs[run_bin(length)];

	shm_span_become(h, at, SHM_SPAN_FREE);
	shm_span_become(h, at + length - 1, SHM_SPAN_FREE);
	first->length = last->length = length;
	first->is_listed = true;
	first->prev = 0;
	first->next = *list;
	if (*list)
		h->spans[*list].prev = at;
	*list = at;
}

/* Of either kind of list: of free runs, or of spans with free slots. */
static void list_take_out(struct shm_heap *h, uint32_t *list, uint32_t at)
{
	struct shm_span *s = &h->spans[at];

	if (s->prev)
		h->spans[s->prev].next = s->next;
	else
		*list = s->next;
	if (s->next)
		h->spans[s->next].prev = s->prev;
	s->next = s->prev = 0;
	s->is_listed = false;
}

static void free_run_remove(struct shm_heap *h, uint32_t at)
{
	list_take_out(h, &h->free_runs[run_bin(h->spans[at].length)], at);
}

/* One run with those on both sides of it, if they are free as well. */
static void free_run_join(struct shm_heap *h, uint32_t at, uint32_t length)
{
	uint32_t behind = at + length;

	if (at > SHM_FIRST_SPAN && shm_span_kind(h, at - 1) == SHM_SPAN_FREE) {
		uint32_t before = h->spans[at - 1].length;

		free_run_remove(h, at - before);
		at -= before;
		length += before;
	}
	if (behind < shm_n_fresh(h) && shm_span_kind(h, behind) == SHM_SPAN_FREE) {
		length += h->spans[behind].length;
		free_run_remove(h, behind);
	}
	shm_free_run_add(h, at, length);
}

/* 0: there is none. */
static uint32_t free_run_find(const struct shm_heap *h, uint32_t length)
{
	/* The first that is long enough; those of its own bin may be too short. */
	for (unsigned bin = run_bin(length); bin < SHM_RUN_BINS; bin++)
		for (uint32_t at = h->free_runs[bin]; at; at = h->spans[at].next)
			if (h->spans[at].length >= length)
				return at;
	return 0;
}

/* The map has words for spans up to there. */
static bool map_reach(struct shm_heap *h, uint32_t from, uint32_t to)
{
	for (uint32_t at = from; at < to; at++) {
		if ((at == SHM_FIRST_SPAN || at % SHM_MAP_PER_PAGE == 0) &&
		    shm_take_pages(h, SHM_MAP_OFFSET + (uint64_t)(at / SHM_MAP_PER_PAGE) * SHM_PAGE,
				   SHM_PAGE))
			return false;
		atomic_store_explicit(shm_map_word(h, at), 0, memory_order_relaxed);
	}
	return true;
}

/* Spans that were never used; they have no pages either. */
static uint32_t fresh_take(struct shm_heap *h, uint32_t length)
{
	uint32_t at = shm_n_fresh(h);

	/* The words first: what is counted as used is read by the next process. */
	if (length > SHM_N_SPANS - at || !map_reach(h, at, at + length))
		return 0;
	atomic_store_explicit(&h->file->n_fresh, at + length, memory_order_relaxed);
	return at;
}

/* Takes @length spans, without pages. Return: the first; 0: there are not so many. */
static uint32_t spans_take(struct shm_heap *h, uint32_t length)
{
	uint32_t at, rest;

	pthread_mutex_lock(&h->lock);
	at = free_run_find(h, length);
	if (at) {
		rest = h->spans[at].length - length;
		free_run_remove(h, at);
		if (rest)
			shm_free_run_add(h, at + length, rest);
	} else {
		at = fresh_take(h, length);
	}
	/* Nobody joins a neighbour with it from here on, nor takes what is within for a slot. */
	for (uint32_t i = at; at && i < at + length; i++) {
		shm_span_become(h, i, SHM_SPAN_RUN);
		h->spans[i].pages = 0;
	}
	pthread_mutex_unlock(&h->lock);
	return at;
}

/* Back to those that nobody has. Their pages are gone. */
static void spans_give(struct shm_heap *h, uint32_t at, uint32_t length)
{
	pthread_mutex_lock(&h->lock);
	free_run_join(h, at, length);
	pthread_mutex_unlock(&h->lock);
}

/* --------------------------------------------------------------------- small slots */

/* Under the shelf's lock, as what follows up to the end of this part. */
void shm_shelf_list(struct shm_heap *h, struct shm_shelf *shelf, uint32_t at)
{
	struct shm_span *s = &h->spans[at];
	uint32_t *list = &shelf->partial[s->class];

	s->is_listed = true;
	s->prev = 0;
	s->next = *list;
	if (*list)
		h->spans[*list].prev = at;
	*list = at;
}

static void shelf_unlist(struct shm_heap *h, struct shm_shelf *shelf, uint32_t at)
{
	list_take_out(h, &shelf->partial[h->spans[at].class], at);
}

/* Free from here on, and the next that is handed out. */
static void slot_put(struct shm_span *s, struct shm_slot *slot, unsigned i)
{
	atomic_store_explicit(&slot->mark, 0, memory_order_relaxed);
	slot->link = s->free;
	s->free = (uint16_t)(i + 1);
}

/* Which slots of a span are free. Of one that was never used the pages are zero: all are. */
static void span_learn(struct shm_heap *h, uint32_t at)
{
	struct shm_span *s = &h->spans[at];

	s->free = s->n_used = 0;
	s->is_known = true;
	/* From the last on, so that the first is handed out first. */
	for (unsigned i = shm_class_slots(s->class); i-- > 0;) {
		struct shm_slot *slot = shm_span_slot(h, at, i);

		if (shm_slot_is_used(h, slot))
			s->n_used++;
		else
			slot_put(s, slot, i);
	}
}

/* A span more for slots of this class. Return: 0: there is none, or no pages. */
static uint32_t shelf_grow(struct shm_heap *h, unsigned number, unsigned class)
{
	uint32_t at = spans_take(h, 1);
	struct shm_span *s = &h->spans[at];

	if (!at)
		return 0;
	if (shm_take_pages(h, (uint64_t)at * SHM_SPAN_BYTES, SHM_SPAN_BYTES)) {
		spans_give(h, at, 1);
		return 0;
	}
	shm_span_become(h, at, SHM_SPAN_SMALL);
	s->class = (uint8_t) class;
	s->shelf = (uint8_t)number;
	span_learn(h, at);
	/* Release: who reads the map finds marks of its slots. */
	atomic_store_explicit(shm_map_word(h, at), class + 1, memory_order_release);
	shm_shelf_list(h, &h->shelf[number], at);
	return at;
}

/* A span with a free slot. 0: there is none. */
static uint32_t shelf_find(struct shm_heap *h, unsigned number, unsigned class)
{
	struct shm_shelf *shelf = &h->shelf[number];

	for (unsigned looks = 0; shelf->partial[class] && looks < LOOKS;) {
		uint32_t at = shelf->partial[class];
		struct shm_span *s = &h->spans[at];

		if (!s->is_known) {
			span_learn(h, at);
			looks++;
		}
		if (s->free)
			return at;
		shelf_unlist(h, shelf, at);
	}
	return shelf_grow(h, number, class);
}

/* A slot of a class, of a span of this shelf. */
static struct shm_slot *small_alloc(struct shm_heap *h, unsigned number, unsigned class)
{
	uint32_t at = shelf_find(h, number, class);
	struct shm_span *s = &h->spans[at];
	struct shm_slot *slot;

	if (!at)
		return NULL;
	slot = shm_span_slot(h, at, s->free - 1u);
	MEM_UNPOISON(slot, class_bytes(class));
	/* What stands in a free slot is of this process, which has looked through the span. */
	s->free = slot->link <= shm_class_slots(class) ? (uint16_t)slot->link : 0;
	s->n_used++;
	if (!s->free)
		shelf_unlist(h, &h->shelf[number], at);
	return slot;
}

/* True: nothing is left in the span, which is the caller's to give back. */
static bool small_free(struct shm_heap *h, uint32_t at, struct shm_slot *slot)
{
	struct shm_span *s = &h->spans[at];
	struct shm_shelf *shelf = &h->shelf[s->shelf];
	unsigned i = (unsigned)((size_t)((uint8_t *)slot - shm_span_start(h, at)) /
				class_bytes(s->class));

	/* With this one still in use: it is counted. */
	if (!s->is_known)
		span_learn(h, at);
	slot_put(s, slot, i);
	mem_poison(slot + 1, class_bytes(s->class) - sizeof(*slot));
	s->n_used--;
	if (!s->is_listed)
		shm_shelf_list(h, shelf, at);
	/* The last one of its kind stays, for what comes next. */
	if (s->n_used > 0 || (shelf->partial[s->class] == at && !s->next))
		return false;
	shelf_unlist(h, shelf, at);
	MEM_UNPOISON(shm_span_start(h, at), SHM_SPAN_BYTES);
	atomic_store_explicit(shm_map_word(h, at), 0, memory_order_release);
	return true;
}

void shm_small_give(struct shm_heap *h, uint32_t at)
{
	shelf_unlist(h, &h->shelf[h->spans[at].shelf], at);
	atomic_store_explicit(shm_map_word(h, at), 0, memory_order_release);
	shm_give_pages(h, at, 1, SHM_SPAN_BYTES);
	spans_give(h, at, 1);
}

/* Each thread takes from one shelf; which doesn't matter. */
static unsigned shelf_of_thread(const struct shm_heap *h)
{
	static _Atomic unsigned n_threads;
	static _Thread_local unsigned number;

	if (!number)
		number = atomic_fetch_add_explicit(&n_threads, 1, memory_order_relaxed) + 1;
	return number % h->n_shelves;
}

/* ----------------------------------------------------------------------- large ones */

/* A slot of spans of its own, with its pages if they are few, else with the first. */
static struct shm_slot *run_alloc(struct shm_heap *h, size_t n)
{
	uint32_t length = (uint32_t)((n + SHM_SPAN_BYTES - 1) / SHM_SPAN_BYTES);
	size_t first = n < SHM_STEP_BYTES ? (n + SHM_PAGE - 1) / SHM_PAGE * SHM_PAGE : SHM_PAGE;
	uint32_t at = spans_take(h, length);
	struct shm_span *s = &h->spans[at];
	struct shm_slot *slot;

	if (!at)
		return NULL;
	if (shm_take_pages(h, (uint64_t)at * SHM_SPAN_BYTES, first)) {
		spans_give(h, at, length);
		return NULL;
	}
	s->length = length;
	s->pages = (uint32_t)(first / SHM_PAGE);
	slot = (struct shm_slot *)(void *)shm_span_start(h, at);
	atomic_store_explicit(shm_map_word(h, at), shm_map_run(length, s->pages),
			      memory_order_release);
	return slot;
}

/* All of it, pages and spans. */
static void run_free(struct shm_heap *h, uint32_t at)
{
	struct shm_span *s = &h->spans[at];
	uint32_t length = s->length;

	/* The map first: a process that dies here has left spans of nobody, with pages. */
	atomic_store_explicit(shm_map_word(h, at), 0, memory_order_release);
	shm_give_pages(h, at, length, (uint64_t)s->pages * SHM_PAGE);
	spans_give(h, at, length);
}

bool shm_heap_commit(struct shm_heap *h, struct shm_slot *slot, size_t n)
{
	uint32_t at = span_of(h, slot);
	struct shm_span *s = &h->spans[at];
	uint32_t pages = (uint32_t)((n + SHM_PAGE - 1) / SHM_PAGE);

	if (shm_span_kind(h, at) != SHM_SPAN_RUN || pages <= s->pages)
		return true;
	WB_ASSERT(n <= (size_t)s->length * SHM_SPAN_BYTES);
	if (shm_take_pages(h, (uint64_t)at * SHM_SPAN_BYTES + (uint64_t)s->pages * SHM_PAGE,
			   (uint64_t)(pages - s->pages) * SHM_PAGE))
		return false;
	s->pages = pages;
	atomic_store_explicit(shm_map_word(h, at), shm_map_run(s->length, pages),
			      memory_order_release);
	return true;
}

/* ------------------------------------------------------------------------- all slots */

struct shm_slot *shm_heap_alloc(struct shm_heap *h, size_t n)
{
	unsigned number = shelf_of_thread(h);
	struct shm_slot *slot;

	if (n > SHM_SLOT_MAX)
		return NULL;
	if (n <= SMALL_MAX) {
		pthread_mutex_lock(&h->shelf[number].lock);
		slot = small_alloc(h, number, class_of(n));
		pthread_mutex_unlock(&h->shelf[number].lock);
	} else {
		slot = run_alloc(h, n);
	}
	if (!slot)
		return NULL;
	slot->run = h->run;
	atomic_store_explicit(&slot->mark, SHM_HELD, memory_order_relaxed);
	return slot;
}

void shm_heap_free(struct shm_heap *h, struct shm_slot *slot)
{
	uint32_t at = span_of(h, slot);
	struct shm_span *s = &h->spans[at];
	struct shm_shelf *shelf = &h->shelf[s->shelf];
	bool is_empty;

	/* For the next process it is there. */
	if (h->is_left)
		return;
	if (shm_span_kind(h, at) == SHM_SPAN_RUN) {
		atomic_store_explicit(&slot->mark, 0, memory_order_relaxed);
		run_free(h, at);
		return;
	}
	pthread_mutex_lock(&shelf->lock);
	is_empty = small_free(h, at, slot);
	pthread_mutex_unlock(&shelf->lock);
	if (!is_empty)
		return;
	shm_give_pages(h, at, 1, SHM_SPAN_BYTES);
	spans_give(h, at, 1);
}

size_t shm_heap_room(const struct shm_heap *h, const struct shm_slot *slot)
{
	uint32_t at = span_of(h, slot);
	const struct shm_span *s = &h->spans[at];

	return shm_span_kind(h, at) == SHM_SPAN_RUN ? (size_t)s->pages * SHM_PAGE
						    : class_bytes(s->class);
}

bool shm_heap_may_be_slot(const struct shm_heap *h, uint32_t place)
{
	uint32_t at = place / (SHM_SPAN_BYTES / 16);
	uint32_t offset = place % (SHM_SPAN_BYTES / 16) * 16;
	const struct shm_span *s = &h->spans[at];

	if (at < SHM_FIRST_SPAN || at >= shm_n_fresh(h))
		return false;
	if (shm_span_kind(h, at) == SHM_SPAN_RUN)
		return offset == 0 && s->pages > 0;
	return shm_span_kind(h, at) == SHM_SPAN_SMALL && offset % class_bytes(s->class) == 0 &&
	       offset / class_bytes(s->class) < shm_class_slots(s->class);
}

bool shm_heap_is_slot(const struct shm_heap *h, uint32_t place)
{
	return shm_heap_may_be_slot(h, place) &&
	       atomic_load_explicit(&shm_heap_at(h, place)->mark, memory_order_relaxed) != 0;
}
