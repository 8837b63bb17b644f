/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "containers/mem.h"
#include "containers/shm_heap_private.h"

#define MAGIC "wsbindH1"

/* Of what this process knows of spans; those never used cost nothing. */
static size_t spans_bytes(void)
{
	return SHM_N_SPANS * sizeof(struct shm_span);
}

static int heap_map(struct shm_heap *h, int fd, unsigned shelves)
{
	void *base =
		mmap(NULL, SHM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	void *spans = mmap(NULL, spans_bytes(), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED || spans == MAP_FAILED) {
		int r = -errno;

		if (base != MAP_FAILED)
			(void)munmap(base, SHM_BYTES);
		return r;
	}
	/* A core dump of it would be of its length, and fill it with pages. */
	(void)madvise(base, SHM_BYTES, MADV_DONTDUMP);
	*h = (struct shm_heap){
		.fd = fd,
		.base = base,
		.file = base,
		.spans = spans,
		.n_shelves = MIN(MAX(shelves, 1u), (unsigned)SHM_SHELVES),
	};
	(void)pthread_mutex_init(&h->lock, NULL);
	for (unsigned i = 0; i < SHM_SHELVES; i++)
		(void)pthread_mutex_init(&h->shelf[i].lock, NULL);
	return 0;
}

static void heap_unmap(struct shm_heap *h)
{
	(void)munmap(h->base, SHM_BYTES);
	(void)munmap(h->spans, spans_bytes());
	(void)pthread_mutex_destroy(&h->lock);
	for (unsigned i = 0; i < SHM_SHELVES; i++)
		(void)pthread_mutex_destroy(&h->shelf[i].lock);
	*h = (struct shm_heap){.fd = -1};
}

int shm_heap_create(struct shm_heap *h, int fd, unsigned shelves)
{
	int r;

	static_assert(sizeof(struct shm_file) <= SHM_PAGE, "it is one page");
	/* It may have that length already, and be sealed; then all that is read is zero. */
	if (ftruncate(fd, (off_t)SHM_BYTES) < 0 ||
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)SHM_BYTES) < 0)
		return -errno;
	r = heap_map(h, fd, shelves);
	if (r)
		return r;
	r = shm_take_pages(h, 0, SHM_PAGE);
	if (r) {
		shm_heap_fini(h);
		return r;
	}
	h->run = h->file->run = 1;
	atomic_store_explicit(&h->file->n_fresh, SHM_FIRST_SPAN, memory_order_relaxed);
	/* Last: what has no magic is no heap. */
	memcpy(h->file->magic, MAGIC, sizeof(h->file->magic));
	return 0;
}

/* What adopting a heap goes by. */
struct adopting {
	bool is_trusted; /* the map is as its process has left it */
	uint64_t there;  /* bytes of the file that nobody has claimed so far */
};

/*
 * Pages that must be there. Where the map may say anything they are taken once more, which costs
 * little, so that reading one is never fatal; but not more than the file has: that would fill the
 * machine.
 */
static bool claim_pages(struct shm_heap *h, struct adopting *a, uint64_t from, uint64_t n)
{
	if (a->is_trusted) {
		atomic_fetch_add_explicit(&h->bytes, n, memory_order_relaxed);
		return true;
	}
	if (n > a->there || shm_take_pages(h, from, n))
		return false;
	a->there -= n;
	return true;
}

/* Return: spans that it takes, as of what follows; 0: it is of nobody. */
static uint32_t small_adopt(struct shm_heap *h, struct adopting *a, uint32_t at, unsigned class)
{
	struct shm_span *s = &h->spans[at];

	if (!claim_pages(h, a, (uint64_t)at * SHM_SPAN_BYTES, SHM_SPAN_BYTES))
		return 0;
	shm_span_become(h, at, SHM_SPAN_SMALL);
	s->class = (uint8_t) class;
	s->shelf = (uint8_t)(at % h->n_shelves);
	s->length = 1;
	shm_shelf_list(h, &h->shelf[s->shelf], at);
	return 1;
}

static uint32_t run_adopt(struct shm_heap *h, struct adopting *a, uint32_t at, uint32_t word)
{
	struct shm_span *s = &h->spans[at];
	uint32_t length = shm_map_length(word), pages = shm_map_pages(word);

	if (length == 0 || length > shm_n_fresh(h) - at || pages == 0 ||
	    pages > length * SHM_SPAN_PAGES ||
	    !claim_pages(h, a, (uint64_t)at * SHM_SPAN_BYTES, (uint64_t)pages * SHM_PAGE))
		return 0;
	for (uint32_t i = at; i < at + length; i++) {
		shm_span_become(h, i, SHM_SPAN_RUN);
		if (i > at && !a->is_trusted)
			atomic_store_explicit(shm_map_word(h, i), 0, memory_order_relaxed);
	}
	s->length = length;
	s->pages = pages;
	return length;
}

static uint32_t span_adopt(struct shm_heap *h, struct adopting *a, uint32_t at)
{
	uint32_t word = atomic_load_explicit(shm_map_word(h, at), memory_order_relaxed), taken = 0;

	/* A word that makes no sense, or whose pages cannot be had, is of nobody. */
	if (word & SHM_MAP_RUN)
		taken = run_adopt(h, a, at, word);
	else if (word > 0 && word <= SHM_CLASSES)
		taken = small_adopt(h, a, at, word - 1);
	if (word && !taken)
		atomic_store_explicit(shm_map_word(h, at), 0, memory_order_relaxed);
	return taken;
}

/*
 * Spans that nobody has are free again. There may be pages in them: of a slot that was being made,
 * or of a process that died while it gave them back.
 */
static void free_run_adopt(struct shm_heap *h, uint32_t from, uint32_t to)
{
	if (from == to)
		return;
	shm_give_pages(h, from, to - from, 0);
	shm_free_run_add(h, from, to - from);
}

int shm_heap_adopt(struct shm_heap *h, bool is_trusted)
{
	uint32_t end = shm_n_fresh(h), free_from = SHM_FIRST_SPAN;
	struct adopting a = {.is_trusted = is_trusted};
	struct stat st;

	if (fstat(h->fd, &st) < 0)
		return -errno;
	a.there = (uint64_t)st.st_blocks * 512;
	h->is_trusted = is_trusted;
	for (uint32_t at = SHM_FIRST_SPAN; at < end;) {
		uint32_t length = span_adopt(h, &a, at);

		if (length > 0) {
			free_run_adopt(h, free_from, at);
			free_from = at + length;
		}
		at += MAX(length, 1u);
	}
	free_run_adopt(h, free_from, end);
	return 0;
}

int shm_heap_open(struct shm_heap *h, int fd, unsigned shelves)
{
	struct stat st;
	uint32_t end;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	/* The first page must be there: reading a hole where no page is left would be fatal. */
	if ((uint64_t)st.st_size != SHM_BYTES || lseek(fd, 0, SEEK_HOLE) == 0)
		return -EINVAL;
	r = heap_map(h, fd, shelves);
	if (r)
		return r;
	end = shm_n_fresh(h);
	if (memcmp(h->file->magic, MAGIC, sizeof(h->file->magic)) != 0 || end < SHM_FIRST_SPAN ||
	    end > SHM_N_SPANS) {
		heap_unmap(h);
		return -EINVAL;
	}
	/* Also those of the map, in which a page may be missing that nothing was written to. */
	r = shm_take_pages(h, 0,
			   SHM_MAP_OFFSET + ((uint64_t)end / SHM_MAP_PER_PAGE + 1) * SHM_PAGE);
	if (r) {
		heap_unmap(h);
		return r;
	}
	h->run = ++h->file->run;
	return 0;
}

void shm_heap_leave(struct shm_heap *h)
{
	h->is_left = true;
}

void shm_heap_fini(struct shm_heap *h)
{
	if (!h->base)
		return;
	/* Its addresses may be handed to anyone next. */
	MEM_UNPOISON(h->base, (size_t)MIN(shm_n_fresh(h), SHM_N_SPANS) * SHM_SPAN_BYTES);
	heap_unmap(h);
}

void *shm_heap_root(const struct shm_heap *h)
{
	return h->file->root;
}

/* Whether anybody has one of its slots; it isn't known, and nobody has looked through it so far. */
static bool small_is_empty(struct shm_heap *h, uint32_t at)
{
	for (unsigned i = 0; i < shm_class_slots(h->spans[at].class); i++)
		if (shm_slot_is_used(h, shm_span_slot(h, at, i)))
			return false;
	return true;
}

void shm_heap_sweep(struct shm_heap *h)
{
	uint32_t end = shm_n_fresh(h), length;

	for (uint32_t at = SHM_FIRST_SPAN; at < end; at += length) {
		const struct shm_span *s = &h->spans[at];
		enum shm_span_kind kind = shm_span_kind(h, at);

		length = kind == SHM_SPAN_SMALL ? 1 : MAX(s->length, 1u);
		if (kind == SHM_SPAN_RUN && s->pages > 0 &&
		    !shm_slot_is_used(h, (void *)shm_span_start(h, at)))
			shm_heap_free(h, (void *)shm_span_start(h, at));
		/* What was handed over is full most often, and looking at all of it would cost. */
		if (kind == SHM_SPAN_SMALL && !s->is_known && !h->is_trusted &&
		    small_is_empty(h, at))
			shm_small_give(h, at);
	}
}

static void span_check(const struct shm_heap *h, uint32_t at)
{
	const struct shm_span *s = &h->spans[at];
	unsigned n_free = 0, n_slots = shm_class_slots(s->class);

	WB_ASSERT(atomic_load(shm_map_word(h, at)) == s->class + 1u);
	if (!s->is_known)
		return;
	/* The list ends, and has each free slot once. */
	for (unsigned i = s->free; i; i = shm_span_slot(h, at, i - 1)->link) {
		WB_ASSERT(i <= n_slots && ++n_free <= n_slots);
		WB_ASSERT(atomic_load(&shm_span_slot(h, at, i - 1)->mark) == 0);
	}
	WB_ASSERT(n_free + s->n_used == n_slots);
	WB_ASSERT(s->is_listed || n_free == 0);
}

void shm_heap_check(struct shm_heap *h)
{
	uint32_t end = shm_n_fresh(h);

	for (uint32_t at = SHM_FIRST_SPAN; at < end;) {
		const struct shm_span *s = &h->spans[at];

		if (shm_span_kind(h, at) == SHM_SPAN_SMALL) {
			span_check(h, at);
			at++;
			continue;
		}
		WB_ASSERT(s->length > 0 && s->length <= end - at);
		WB_ASSERT(atomic_load(shm_map_word(h, at)) ==
			  (shm_span_kind(h, at) == SHM_SPAN_RUN ? shm_map_run(s->length, s->pages)
								: 0));
		WB_ASSERT(shm_span_kind(h, at) != SHM_SPAN_FREE ||
			  h->spans[at + s->length - 1].length == s->length);
		at += s->length;
	}
}

/* ------------------------------------------------------------------------- all slots */

/* Only what has a mark of its owner's: what was held is of nobody now. */
static void slot_offer(struct shm_slot *slot, void (*fn)(void *ctx, struct shm_slot *slot),
		       void *ctx)
{
	if (atomic_load_explicit(&slot->mark, memory_order_relaxed) > SHM_HELD)
		fn(ctx, slot);
}

void shm_heap_each(struct shm_heap *h, void (*fn)(void *ctx, struct shm_slot *slot), void *ctx)
{
	uint32_t end = shm_n_fresh(h);

	for (uint32_t at = SHM_FIRST_SPAN; at < end; at++) {
		const struct shm_span *s = &h->spans[at];

		if (shm_span_kind(h, at) == SHM_SPAN_SMALL) {
			for (unsigned i = 0; i < shm_class_slots(s->class); i++)
				slot_offer(shm_span_slot(h, at, i), fn, ctx);
			continue;
		}
		if (shm_span_kind(h, at) == SHM_SPAN_RUN)
			slot_offer((struct shm_slot *)(void *)shm_span_start(h, at), fn, ctx);
		at += s->length - 1;
	}
}
