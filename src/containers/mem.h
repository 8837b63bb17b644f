/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Two allocators for what a worker handles by the thousand.
 *
 * A slab hands out objects of one size. It grows by chunks that come straight from mmap:
 * a page no object of which was ever handed out costs no memory, so a chunk may be large.
 * Free objects are chained through their own first bytes, so an object costs its size and
 * nothing else; the one put back last is handed out first, since it is warm. Chunks stay
 * until slab_fini().
 *
 * An arena hands out bytes of any size that all go at once: it decodes one message and is
 * reset. It is bounded, so that a message cannot unfold into more than its limit. Between
 * resets its first block stays, so that ordinary messages cost no malloc at all.
 *
 * Under AddressSanitizer both poison what is not handed out, and leak detection looks into
 * chunks. Everything here is one thread's: the owner of the slab or arena.
 */

#include <protobuf-c/protobuf-c.h>

#include "base/base.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEM_SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define MEM_SANITIZED 1
#endif

#ifdef MEM_SANITIZED
#include <sanitizer/asan_interface.h>
#define MEM_UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
#else
#define MEM_UNPOISON(p, n) ((void)(p), (void)(n))
#endif

/* Nobody may touch it until MEM_UNPOISON(); without a sanitizer nothing. */
void mem_poison(void *p, size_t n);

struct slab_chunk;

/* Valid after slab_init(); all zero is only good for slab_fini(). */
struct WB_OWNER(creator) slab {
	void *free;                /* objects that were put back, chained by their first word */
	uint8_t *fresh;            /* the next object that was never handed out, still zero */
	uint8_t *fresh_end;        /* fresh == fresh_end: the newest chunk is used up */
	size_t object_bytes;       /* rounded up to the alignment */
	size_t in_use;             /* objects handed out */
	size_t chunk_bytes;        /* whole pages */
	struct slab_chunk *chunks; /* newest first */
};

/**
 * slab_init() - make a slab that holds no memory yet
 * @object_bytes:      > 0; a multiple of 64 is aligned to 64, of 16 to 16, the rest to 8
 * @objects_per_chunk: > 0; the chunk is rounded up to whole pages and filled
 */
void slab_init(struct slab *s, size_t object_bytes, size_t objects_per_chunk);

/**
 * slab_get() - take an object
 *
 * Return: an object, all zero | NULL when the system has no memory left.
 * Owns:   the caller, until slab_put() or slab_fini().
 * Thread: the owner's.
 * Cost:   O(1); one mmap for each new chunk, else no allocation.
 */
void *slab_get(struct slab *s) WB_NODISCARD;

/* Gives back an object of this slab. NULL is allowed. O(1). */
void slab_put(struct slab *s, void *object);

/* Gives all chunks back, and so every object still in use. NULL and all zero are allowed. */
void slab_fini(struct slab *s);

/* Objects that are handed out. */
static inline size_t slab_in_use(const struct slab *s)
{
	return s->in_use;
}

/* Bytes of address space the slab has; what was never used of it has no memory behind it. */
size_t slab_bytes(const struct slab *s);

/*
 * Asserts the invariants: free objects lie in chunks, on object boundaries, and the counts
 * agree. O(free objects * chunks), for tests.
 */
void slab_check(const struct slab *s);

struct arena_block;

/* All zero is valid: an arena of which every allocation fails. */
struct WB_OWNER(creator) arena {
	uint8_t *next;             /* the first free byte of the current block, 16-aligned */
	uint8_t *end;              /* behind the current block */
	struct arena_block *first; /* kept by arena_reset(); made by the first allocation */
	struct arena_block *more;  /* all others, newest first */
	size_t block_bytes;        /* size of the next shared block */
	size_t first_bytes;        /* size of the first block */
	size_t held_bytes;         /* all blocks together */
	size_t limit_bytes;        /* held_bytes never exceeds it */
};

/**
 * arena_init() - make an arena that holds no memory yet
 * @first_block_bytes: what stays over resets; cut to @limit_bytes
 * @limit_bytes:       bound on all blocks together, the first included, and so on what is
 *                     handed out; each request counts in multiples of 16
 *
 * Both are rounded down to multiples of 16. Blocks double in size; what is large beside
 * the next block gets one of its own, and the current one is used on. So of the limit at
 * most a quarter, and what is left of the first block, cannot be used.
 */
void arena_init(struct arena *a, size_t first_block_bytes, size_t limit_bytes);

/* The slow half of arena_alloc(), for it alone. */
void *arena_alloc_slow(struct arena *a, size_t n) WB_NODISCARD;

/**
 * arena_alloc() - take @n bytes
 * @n: 0 counts as 1, so that every result is distinct
 *
 * Return: memory aligned to 16, not cleared | NULL past the limit or without memory.
 * Owns:   the arena; it is gone after arena_reset() or arena_fini().
 * Thread: the owner's.
 * Cost:   O(1), a few instructions; no allocation while the first block suffices.
 */
WB_NODISCARD static inline void *arena_alloc(struct arena *a, size_t n)
{
	uint8_t *p = a->next;

	/* n - 1 sends 0 the slow way; room is a multiple of 16, so n rounded up fits if n does. */
	if (WB_UNLIKELY(n - 1 >= (size_t)(a->end - p)))
		return arena_alloc_slow(a, n);
	a->next = p + ((n + 15) & ~(size_t)15);
	MEM_UNPOISON(p, n);
	return p;
}

/* Takes back everything at once: keeps the first block, frees the others. */
void arena_reset(struct arena *a);

/* Frees everything and leaves an arena all zero. NULL is allowed. */
void arena_fini(struct arena *a);

/**
 * arena_protobuf() - let protobuf-c allocate from an arena
 *
 * Freeing does nothing: no message unpacked with it needs its free_unpacked.
 *
 * Return: an allocator that points to @a and is good as long as @a is.
 */
ProtobufCAllocator arena_protobuf(struct arena *a);

/* Asserts the invariants: the blocks add up and stay within the limit. For tests. */
void arena_check(const struct arena *a);
