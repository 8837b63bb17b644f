/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of the heap share: shm_heap.c (slots and spans), shm_heap_open.c (a whole heap,
 * made, or taken over from another process). Nobody else includes it.
 */

#include "containers/shm_heap.h"

#define SHM_PAGE ((uint32_t)4096)
#define SHM_MAP_OFFSET SHM_PAGE
#define SHM_MAP_PER_PAGE (SHM_PAGE / sizeof(uint32_t)) /* words */

/* What a word of the map says. 0: nobody has the span. */
#define SHM_MAP_RUN ((uint32_t)1 << 31) /* its length, and pages; else its class + 1 */
#define SHM_MAP_LAST_BITS 5
#define SHM_SPAN_PAGES (SHM_SPAN_BYTES / SHM_PAGE)

/* The head and the map take those before it, so 0 is no span. */
#define SHM_FIRST_SPAN \
	((uint32_t)((SHM_MAP_OFFSET + SHM_N_SPANS * sizeof(uint32_t)) / SHM_SPAN_BYTES + 1))

/* The first page. */
struct WB_SHARED shm_file {
	char magic[8];
	uint32_t run;
	_Atomic uint32_t n_fresh; /* spans from here on were never used */
	uint64_t unused[6];
	uint8_t root[SHM_ROOT_BYTES];
};

enum shm_span_kind {
	SHM_SPAN_FREE, /* the first or last of a free run, or within one */
	SHM_SPAN_SMALL,
	SHM_SPAN_RUN, /* of one that is a slot */
};

/* What this process knows of a span. Under the lock of its shelf, or of the heap if it is free. */
struct WB_SHARED shm_span {
	uint32_t next, prev; /* in partial[] or in free_runs[] */
	uint32_t length;     /* of a run, at both of its ends */
	uint32_t pages;      /* of the first of SHM_SPAN_RUN, that were taken */
	uint16_t n_used;
	uint16_t free;        /* slot + 1 */
	_Atomic uint8_t kind; /* its neighbours look at it, too */
	uint8_t class;
	uint8_t shelf;
	bool is_listed;
	bool is_known; /* its slots were looked through, or are of this process */
};

/*
 * The word of the first span of a run: its length, and the pages of its last span. @pages: of all
 * of it; fewer than it will have are none, since nothing in it is whole then.
 */
static inline uint32_t shm_map_run(uint32_t length, uint32_t pages)
{
	uint32_t before = (length - 1) * SHM_SPAN_PAGES;

	return SHM_MAP_RUN | length << SHM_MAP_LAST_BITS | (pages > before ? pages - before : 0);
}

static inline uint32_t shm_map_length(uint32_t word)
{
	return (word & ~SHM_MAP_RUN) >> SHM_MAP_LAST_BITS;
}

/* 0: not all were taken. */
static inline uint32_t shm_map_pages(uint32_t word)
{
	uint32_t last = word & ((1u << SHM_MAP_LAST_BITS) - 1);

	return last ? (shm_map_length(word) - 1) * SHM_SPAN_PAGES + last : 0;
}

static inline _Atomic uint32_t *shm_map_word(const struct shm_heap *h, uint32_t at)
{
	return (_Atomic uint32_t *)(void *)(h->base + SHM_MAP_OFFSET) + at;
}

static inline enum shm_span_kind shm_span_kind(const struct shm_heap *h, uint32_t at)
{
	return (enum shm_span_kind)atomic_load_explicit(&h->spans[at].kind, memory_order_relaxed);
}

static inline void shm_span_become(struct shm_heap *h, uint32_t at, enum shm_span_kind kind)
{
	atomic_store_explicit(&h->spans[at].kind, (uint8_t)kind, memory_order_relaxed);
}

static inline uint8_t *shm_span_start(const struct shm_heap *h, uint32_t at)
{
	return h->base + (size_t)at * SHM_SPAN_BYTES;
}

static inline uint32_t shm_n_fresh(const struct shm_heap *h)
{
	return atomic_load_explicit(&h->file->n_fresh, memory_order_relaxed);
}

/* Whether somebody has a slot of which nothing else is known. */
static inline bool shm_slot_is_used(const struct shm_heap *h, const struct shm_slot *slot)
{
	uint64_t mark = atomic_load_explicit(&slot->mark, memory_order_acquire);

	return mark > SHM_HELD || (mark == SHM_HELD && slot->run == h->run);
}

/* A span of small slots in which nothing is left is nobody's. While nobody else uses the heap. */
void shm_small_give(struct shm_heap *h, uint32_t at);

unsigned shm_class_slots(unsigned class);
struct shm_slot *shm_span_slot(const struct shm_heap *h, uint32_t at, unsigned i);

/* Pages from an offset on. Return: 0 | -errno. Cost: about 0.5 µs for each, if it is new. */
int shm_take_pages(struct shm_heap *h, uint64_t from, uint64_t n) WB_NODISCARD;

/* All pages of spans that nobody has. @taken: bytes of them. */
void shm_give_pages(struct shm_heap *h, uint32_t at, uint32_t length, uint64_t taken);

/* Under the heap's lock: spans that nobody has. */
void shm_free_run_add(struct shm_heap *h, uint32_t at, uint32_t length);

/* Under its lock: the span may have a free slot. */
void shm_shelf_list(struct shm_heap *h, struct shm_shelf *shelf, uint32_t at);
