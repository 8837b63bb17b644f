/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A heap in a file in memory, which outlives the process that filled it: the next one that is
 * given the descriptor finds every slot where it was, whatever the other one died of.
 *
 * The file is sparse and has one length for ever, so it is mapped once and nothing in it moves; a
 * slot is known by its *place*, a number that is the same in all processes. It is divided into
 * spans. A span has slots of one size, or begins a run of spans that is one slot. A map in the file
 * says what each span is: one word for each, so that none is ever half written.
 *
 * Pages are taken (fallocate(2)) before they are touched: where there are none left, that is an
 * error of the one who asks and no SIGBUS. Spans without slots are given back.
 *
 * Each slot begins with a mark. 0: it is free. SHM_HELD: somebody in this process has it. All else
 * is its owner's, who sets it when what lies in the slot is complete, and takes it away before it
 * is changed. A process that takes over another one's heap looks at the slots with such a mark
 * (shm_heap_each()) and drops those that are no good; what was held and isn't any more is free.
 * What it finds may be anything: no word of the file reaches an assertion, or beyond its end.
 *
 * A span that came from another process is looked through when a slot of its size is wanted, not
 * before: taking over costs a word for each span, however many slots there are.
 *
 * Threads: any, but where it says otherwise. Slots of threads that differ come from different
 * spans; each span belongs to a shelf, which has a lock of its own.
 */

#include <assert.h>
#include <pthread.h>

#include "base/base.h"

#define SHM_BYTES ((uint64_t)1 << 34) /* of address space: memory is what lies in it */
#define SHM_SPAN_BYTES ((uint32_t)1 << 16)
#define SHM_N_SPANS ((uint32_t)(SHM_BYTES / SHM_SPAN_BYTES))
#define SHM_CLASSES 69
#define SHM_SHELVES 16
#define SHM_RUN_BINS 21
#define SHM_ROOT_BYTES 1024
#define SHM_STEP_BYTES ((size_t)256 << 10) /* of pages that are taken at once */

#define SHM_HELD 1 /* a mark: marks of owners are greater */

/* How every slot begins. */
struct WB_SHARED shm_slot {
	_Atomic uint64_t mark;
	uint32_t run;  /* of the process that has it */
	uint32_t link; /* the heap's */
};

static_assert(sizeof(struct shm_slot) == 16, "the layout of the file");

struct shm_file;
struct shm_span;

struct WB_SHARED shm_shelf {
	alignas(WB_CACHELINE) pthread_mutex_t lock;
	uint32_t partial[SHM_CLASSES]; /* spans that may have a free slot; 0: none */
};

struct WB_SHARED shm_heap {
	int fd WB_FROZEN; /* borrowed */
	uint8_t *base WB_FROZEN;
	struct shm_file *file WB_FROZEN; /* = base */
	uint32_t run WB_FROZEN;          /* counts processes, from 1 on */
	unsigned n_shelves WB_FROZEN;
	struct shm_span *spans WB_FROZEN; /* what each is, by number; under the lock of its shelf */
	_Atomic uint64_t bytes;           /* of pages */
	struct shm_shelf shelf[SHM_SHELVES];
	bool is_trusted WB_FROZEN;        /* as shm_heap_adopt() */
	bool is_left;                     /* shm_heap_leave() */
	pthread_mutex_t lock;             /* of what follows: spans that nobody has */
	uint32_t free_runs[SHM_RUN_BINS]; /* by log2 of their length; 0: none */
};

/**
 * shm_heap_create() - an empty heap in an empty file
 * @h:      all-zero
 * @fd:     of a file that can be mapped, of any length; borrowed. What was in it is gone
 * @shelves: threads that will use it, more or less
 *
 * Return:  0 | -errno.
 * Thread:  the only one that knows it.
 */
int shm_heap_create(struct shm_heap *h, int fd, unsigned shelves) WB_NODISCARD;

/**
 * shm_heap_open() - the heap that another process made
 *
 * Its root can be read; nothing else before shm_heap_adopt(). Or it is made anew.
 *
 * Return:  0 | -EINVAL it is none | -errno.
 */
int shm_heap_open(struct shm_heap *h, int fd, unsigned shelves) WB_NODISCARD;

/**
 * shm_heap_adopt() - its slots are where they were
 * @is_trusted: the other process has ended as it should: what the map says is so
 *
 * Behind this, before anything is allocated or freed, comes what has to be looked at and dropped.
 *
 * Return:  0 | -errno.
 * Cost:    a word for each span; where it isn't trusted, a call for each that has slots.
 */
int shm_heap_adopt(struct shm_heap *h, bool is_trusted) WB_NODISCARD;

/* From here on nothing that is given back is free: the next process finds it. */
void shm_heap_leave(struct shm_heap *h);

/* Unmaps it; the file stays as it is. All-zero is fine. */
void shm_heap_fini(struct shm_heap *h);

/* Bytes for what has to be found before anything else; zero in a new heap. */
void *shm_heap_root(const struct shm_heap *h);

/* The largest slot, its head included. */
#define SHM_SLOT_MAX ((size_t)2 << 30)

/**
 * shm_heap_alloc() - take a slot
 * @n:      bytes, with its head
 *
 * Of a large slot (SHM_STEP_BYTES and more) only the first page is there: shm_heap_commit().
 *
 * Return:  held, its bytes anything | NULL: there are no pages, or no spans.
 * Cost:    a lock; now and then pages for a span.
 */
struct shm_slot *shm_heap_alloc(struct shm_heap *h, size_t n) WB_NODISCARD;

/*
 * Takes the pages of a large slot up to @n bytes. Return: false: there are none. Thread: the only
 * one that knows the slot. Cost: about 1 µs for each page.
 */
bool shm_heap_commit(struct shm_heap *h, struct shm_slot *slot, size_t n) WB_NODISCARD;

/* Gives it back, whatever its mark is. */
void shm_heap_free(struct shm_heap *h, struct shm_slot *slot);

/* Bytes that there are from the slot's head on. */
size_t shm_heap_room(const struct shm_heap *h, const struct shm_slot *slot);

/* A slot's place: never 0. */
static inline uint32_t shm_heap_place(const struct shm_heap *h, const struct shm_slot *slot)
{
	return (uint32_t)((size_t)((const uint8_t *)slot - h->base) / 16);
}

/* The slot at a place that shm_heap_place() has given, in this process or another. */
static inline struct shm_slot *shm_heap_at(const struct shm_heap *h, uint32_t place)
{
	return (struct shm_slot *)(void *)(h->base + (size_t)place * 16);
}

/* Whether a slot may be at a place, free or not. It may be anything. */
bool shm_heap_may_be_slot(const struct shm_heap *h, uint32_t place);

/* Whether one is there that isn't free. Cost: it is looked at. */
bool shm_heap_is_slot(const struct shm_heap *h, uint32_t place);

/*
 * Calls @fn with each slot that has an owner's mark. It may set that to 0, which frees it. Thread:
 * the only one that knows the heap, before anything was allocated.
 */
void shm_heap_each(struct shm_heap *h, void (*fn)(void *ctx, struct shm_slot *slot), void *ctx);

/*
 * Gives back what is of nobody in spans that came from another process: slots that were dropped,
 * and those that were held and weren't taken over. Of small slots only where whole spans were
 * looked at and nothing is left in them. Thread: as shm_heap_each(), when all is taken over.
 */
void shm_heap_sweep(struct shm_heap *h);

/* Asserts that lists, counts and marks agree. While nobody else uses it. For tests. */
void shm_heap_check(struct shm_heap *h);
