/* SPDX-License-Identifier: MIT */
#include "containers/mem.h"

#include <string.h>
#include <sys/mman.h>

#ifdef MEM_SANITIZED
#include <sanitizer/lsan_interface.h>

/* Not inlined: gcc would take the sanitizer's const pointer for a read of fresh memory. */
__attribute__((noinline)) void mem_poison(void *p, size_t n)
{
	__asan_poison_memory_region(p, n);
}
#else
void mem_poison(void *p, size_t n)
{
	(void)p;
	(void)n;
}
#endif

#define ALIGN_UP(n, to) (((n) + ((to)-1)) & ~(size_t)((to)-1))

/* Head of a chunk; the objects follow at SLAB_HEAD_BYTES. */
struct slab_chunk {
	struct slab_chunk *next;
	size_t bytes;
};

#define SLAB_HEAD_BYTES 64 /* keeps the strictest alignment of objects */

static uint8_t *chunk_objects(const struct slab_chunk *c)
{
	return (uint8_t *)(uintptr_t)c + SLAB_HEAD_BYTES;
}

static size_t slab_objects_per_chunk(const struct slab *s)
{
	return (s->chunk_bytes - SLAB_HEAD_BYTES) / s->object_bytes;
}

void slab_init(struct slab *s, size_t object_bytes, size_t objects_per_chunk)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	WB_ASSERT(object_bytes > 0 && objects_per_chunk > 0);
	WB_ASSERT(object_bytes < SIZE_MAX / 4 / objects_per_chunk);
	object_bytes = ALIGN_UP(object_bytes, 8); /* a free one holds a pointer */
	*s = (struct slab){
		.object_bytes = object_bytes,
		.chunk_bytes = ALIGN_UP(SLAB_HEAD_BYTES + object_bytes * objects_per_chunk, page),
	};
}

static bool slab_grow(struct slab *s)
{
	struct slab_chunk *c = mmap(NULL, s->chunk_bytes, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (c == MAP_FAILED)
		return false;
	/*
	 * A huge page would put memory behind objects that nobody asked for. Where the kernel
	 * has none, the call fails and there is nothing to forbid.
	 */
	(void)madvise(c, s->chunk_bytes, MADV_NOHUGEPAGE);
	/* What was left of the chunk before was nothing: only then does a slab grow. */
	c->next = s->chunks;
	c->bytes = s->chunk_bytes;
	s->chunks = c;
	s->fresh = chunk_objects(c);
	s->fresh_end = s->fresh + slab_objects_per_chunk(s) * s->object_bytes;
	mem_poison(s->fresh, (size_t)(s->fresh_end - s->fresh));
#ifdef MEM_SANITIZED
	/* It looks for pointers in the heap, and a chunk is none of that. */
	__lsan_register_root_region(c, c->bytes);
#endif
	return true;
}

void *slab_get(struct slab *s)
{
	void *object = s->free;

	if (WB_LIKELY(object)) {
		MEM_UNPOISON(object, s->object_bytes);
		s->free = *(void **)object;
		memset(object, 0, s->object_bytes);
	} else {
		/* Zero as it came from the kernel, and without a page until it is touched. */
		if (WB_UNLIKELY(s->fresh == s->fresh_end) && !slab_grow(s))
			return NULL;
		object = s->fresh;
		s->fresh += s->object_bytes;
		MEM_UNPOISON(object, s->object_bytes);
	}
	s->in_use++;
	return object;
}

void slab_put(struct slab *s, void *object)
{
	if (!object)
		return;
	WB_ASSERT(s->in_use > 0);
	*(void **)object = s->free;
	s->free = object;
	s->in_use--;
	mem_poison(object, s->object_bytes);
}

void slab_fini(struct slab *s)
{
	if (!s)
		return;
	while (s->chunks) {
		struct slab_chunk *c = s->chunks;

		s->chunks = c->next;
#ifdef MEM_SANITIZED
		__lsan_unregister_root_region(c, c->bytes);
#endif
		MEM_UNPOISON(c, c->bytes); /* its addresses may be handed to anyone next */
		(void)munmap(c, c->bytes);
	}
	*s = (struct slab){0};
}

size_t slab_bytes(const struct slab *s)
{
	size_t bytes = 0;

	for (const struct slab_chunk *c = s->chunks; c; c = c->next)
		bytes += c->bytes;
	return bytes;
}

/* Whether @object is one of the slab's that was handed out before. */
static bool slab_has(const struct slab *s, const uint8_t *object)
{
	for (const struct slab_chunk *c = s->chunks; c; c = c->next) {
		const uint8_t *from = chunk_objects(c);
		/* Of all chunks only the newest has objects that were never handed out. */
		const uint8_t *to = c == s->chunks
					    ? s->fresh
					    : from + slab_objects_per_chunk(s) * s->object_bytes;

		if (object >= from && object < to)
			return (size_t)(object - from) % s->object_bytes == 0;
	}
	return false;
}

void slab_check(const struct slab *s)
{
	size_t known = 0, n_free = 0;

	for (const struct slab_chunk *c = s->chunks; c; c = c->next)
		known += slab_objects_per_chunk(s);
	known -= s->fresh == s->fresh_end ? 0 : (size_t)(s->fresh_end - s->fresh) / s->object_bytes;
	for (void *object = s->free, *next; object; object = next) {
		WB_ASSERT(slab_has(s, object));
		WB_ASSERT(++n_free <= known); /* else the chain is a circle: one came twice */
		MEM_UNPOISON(object, sizeof(next));
		next = *(void **)object;
		mem_poison(object, sizeof(next));
	}
	WB_ASSERT(n_free + s->in_use == known);
}

/* Head of a block; what is handed out follows. */
struct arena_block {
	alignas(16) struct arena_block *next;
	size_t bytes; /* behind the head; a multiple of 16 */
};

static uint8_t *block_start(struct arena_block *b)
{
	return (uint8_t *)(b + 1);
}

void arena_init(struct arena *a, size_t first_block_bytes, size_t limit_bytes)
{
	limit_bytes &= ~(size_t)15;
	first_block_bytes = MIN(first_block_bytes & ~(size_t)15, limit_bytes);
	*a = (struct arena){
		.first_bytes = first_block_bytes,
		.limit_bytes = limit_bytes,
	};
}

static struct arena_block *arena_new_block(struct arena *a, size_t bytes)
{
	struct arena_block *b = malloc(sizeof(*b) + bytes);

	if (!b)
		return NULL;
	b->bytes = bytes;
	b->next = NULL;
	a->held_bytes += bytes;
	mem_poison(block_start(b), bytes);
	return b;
}

static void arena_use_block(struct arena *a, struct arena_block *b)
{
	a->next = block_start(b);
	a->end = a->next + b->bytes;
}

/*
 * Bytes from a further block. A request of more than an eighth of the next block gets one
 * of just its size, and what is left of the current block still serves small requests: so
 * less than a quarter of each block is lost.
 */
static uint8_t *arena_grow(struct arena *a, size_t n)
{
	size_t left = a->limit_bytes - a->held_bytes;
	bool is_alone = n > a->block_bytes / 8;
	struct arena_block *b;

	if (n > left)
		return NULL;
	b = arena_new_block(a, is_alone ? n : MIN(a->block_bytes, left));
	if (!b)
		return NULL;
	b->next = a->more;
	a->more = b;
	/* Doubling keeps the number of blocks small, however much a message unfolds into. */
	if (!is_alone) {
		a->block_bytes = MIN(2 * a->block_bytes, a->limit_bytes);
		arena_use_block(a, b);
		a->next += n;
	}
	return block_start(b);
}

static void arena_free_more(struct arena *a)
{
	while (a->more) {
		struct arena_block *b = a->more;

		a->more = b->next;
		a->held_bytes -= b->bytes;
		MEM_UNPOISON(block_start(b), b->bytes);
		free(b);
	}
}

void arena_reset(struct arena *a)
{
	if (!a->first)
		return;
	arena_free_more(a);
	a->block_bytes = MIN(2 * a->first_bytes, a->limit_bytes);
	mem_poison(block_start(a->first), a->first->bytes);
	arena_use_block(a, a->first);
}

void *arena_alloc_slow(struct arena *a, size_t n)
{
	size_t rounded;
	uint8_t *p;

	n = MAX(n, (size_t)1);
	if (n > a->limit_bytes)
		return NULL;
	if (!a->first) {
		/* Always of its full size, whatever comes first: it is the one that stays. */
		a->first = arena_new_block(a, a->first_bytes);
		if (!a->first)
			return NULL;
		arena_reset(a);
	}
	rounded = ALIGN_UP(n, 16);
	/* It may fit after all: the first block was not there yet, or @n was 0. */
	if (rounded <= (size_t)(a->end - a->next)) {
		p = a->next;
		a->next += rounded;
	} else {
		p = arena_grow(a, rounded);
		if (!p)
			return NULL;
	}
	MEM_UNPOISON(p, n);
	return p;
}

void arena_fini(struct arena *a)
{
	if (!a)
		return;
	arena_free_more(a);
	if (a->first) /* malloc() wants its memory back as it gave it */
		MEM_UNPOISON(block_start(a->first), a->first->bytes);
	free(a->first);
	*a = (struct arena){0};
}

static void *protobuf_alloc(void *arena, size_t n)
{
	return arena_alloc(arena, n);
}

static void protobuf_free(void *arena, void *p)
{
	(void)arena;
	(void)p;
}

ProtobufCAllocator arena_protobuf(struct arena *a)
{
	return (ProtobufCAllocator){
		.alloc = protobuf_alloc,
		.free = protobuf_free,
		.allocator_data = a,
	};
}

void arena_check(const struct arena *a)
{
	size_t held = a->first ? a->first->bytes : 0;

	WB_ASSERT(a->first || (!a->more && !a->next && !a->end));
	for (const struct arena_block *b = a->more; b; b = b->next)
		held += b->bytes;
	WB_ASSERT(held == a->held_bytes && held <= a->limit_bytes);
	WB_ASSERT(a->next <= a->end && (uintptr_t)a->next % 16 == 0 && (uintptr_t)a->end % 16 == 0);
}
