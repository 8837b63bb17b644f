/* SPDX-License-Identifier: MIT */
#include "channel/directory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/ip.h"

static void *map_zeroes(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void unmap_zeroes(void *p, size_t bytes)
{
	if (p)
		(void)munmap(p, bytes);
}

int directory_init(struct directory *d, uint32_t max)
{
	uint32_t buckets = 64;
	int error = siphash_draw_key(&d->key);

	if (error)
		return error;
	while (buckets < max)
		buckets *= 2;
	/* Address space for all that may be; a page costs memory once it is used. */
	d->limit = max;
	d->max = max = 2 * max;
	d->mask = buckets - 1;
	d->entries = map_zeroes((size_t)max * sizeof(*d->entries));
	d->buckets = map_zeroes((size_t)buckets * sizeof(*d->buckets));
	d->maker = map_zeroes((size_t)max * sizeof(*d->maker));
	d->made = map_zeroes(DIRECTORY_MAKERS * sizeof(*d->made));
	(void)pthread_mutex_init(&d->mutex, NULL); /* cannot fail without attributes */
	if (d->entries && d->buckets && d->maker && d->made)
		return 0;
	directory_fini(d);
	return -ENOMEM;
}

void directory_fini(struct directory *d)
{
	if (d->max == 0)
		return;
	for (uint32_t i = 0; d->entries && i < d->fresh; i++)
		free(d->entries[i].name);
	unmap_zeroes(d->entries, (size_t)d->max * sizeof(*d->entries));
	unmap_zeroes(d->buckets, ((size_t)d->mask + 1) * sizeof(*d->buckets));
	unmap_zeroes(d->maker, (size_t)d->max * sizeof(*d->maker));
	unmap_zeroes(d->made, DIRECTORY_MAKERS * sizeof(*d->made));
	(void)pthread_mutex_destroy(&d->mutex);
	*d = (struct directory){0};
}

static uint32_t *bucket_of(struct directory *d, const char *name, size_t n)
{
	return &d->buckets[directory_hash(d, name, n) & d->mask];
}

static struct directory_entry *entry_find(struct directory *d, const char *name, size_t n)
{
	uint32_t at = *bucket_of(d, name, n);

	while (at) {
		struct directory_entry *e = &d->entries[at - 1];

		if (e->name_len == n && memcmp(e->name, name, n) == 0)
			return e;
		at = e->next;
	}
	return NULL;
}

static struct directory_entry *entry_take_slot(struct directory *d)
{
	struct directory_entry *e;

	/* Used ones first: their pages are there already. */
	if (d->free) {
		e = &d->entries[d->free - 1];
		d->free = e->next;
		return e;
	}
	if (d->fresh == d->max)
		return NULL;
	e = &d->entries[d->fresh];
	e->slot = d->fresh++;
	return e;
}

static void entry_give_slot(struct directory *d, struct directory_entry *e)
{
	e->next = d->free;
	d->free = e->slot + 1;
}

/* The cell of an address, counted from 1; 0: there is none. */
static uint16_t maker_cell(const struct directory *d, const uint8_t *network)
{
	static_assert(DIRECTORY_MAKERS <= UINT16_MAX, "a cell's number");

	if (!network)
		return 0;
	return (uint16_t)(siphash(&d->key, network, IP_BYTES) % DIRECTORY_MAKERS + 1);
}

/* Whether as much is left for others as whoever is counted in a cell has to leave. */
static bool maker_may(const struct directory *d, uint16_t cell)
{
	uint64_t room = d->limit - atomic_load_explicit(&d->count, memory_order_relaxed);

	return cell == 0 || d->made[cell - 1] < DIRECTORY_MAKER_SHARE * room;
}

/* One channel more, of this maker: if there is room for it. */
static bool count_channel(struct directory *d, uint32_t slot, const uint8_t *network)
{
	uint16_t cell = maker_cell(d, network);

	if (atomic_load_explicit(&d->count, memory_order_relaxed) >= d->limit ||
	    !maker_may(d, cell))
		return false;
	d->maker[slot] = cell;
	if (cell)
		d->made[cell - 1]++;
	atomic_fetch_add_explicit(&d->count, 1, memory_order_relaxed);
	return true;
}

static void uncount_channel(struct directory *d, uint32_t slot)
{
	if (d->maker[slot])
		d->made[d->maker[slot] - 1]--;
	d->maker[slot] = 0;
	atomic_fetch_sub_explicit(&d->count, 1, memory_order_relaxed);
}

static int entry_create(struct directory *d, const char *name, size_t n, const uint8_t *network,
			struct directory_entry **ret)
{
	WB_CLEANUP(ptr_freep) char *copy = malloc(n + 1);
	uint32_t *bucket = bucket_of(d, name, n);
	struct directory_entry *e;

	if (!copy)
		return -ENOMEM;
	e = entry_take_slot(d);
	if (!e)
		return DIRECTORY_E_FULL;
	if (!count_channel(d, e->slot, network)) {
		entry_give_slot(d, e);
		return DIRECTORY_E_FULL;
	}
	memcpy(copy, name, n);
	copy[n] = '\0';
	e->name = TAKE_PTR(copy);
	e->name_len = (uint8_t)n;
	/* Counted for all slots: an old message finds no later user of its slot. */
	e->generation = ++d->generation;
	e->next = *bucket;
	*bucket = e->slot + 1;
	*ret = e;
	return 0;
}

static void entry_drop_if_unheld(struct directory *d, struct directory_entry *e)
{
	uint32_t *at = bucket_of(d, e->name, e->name_len);

	/* The mutex is held, so no worker can come in between the look and what follows it. */
	if (e->pins > e->is_kept || atomic_load_explicit(&e->workers, memory_order_relaxed))
		return;
	if (!e->is_place)
		uncount_channel(d, e->slot);
	e->is_place = e->is_kept;
	if (e->is_place)
		return;
	while (*at != e->slot + 1)
		at = &d->entries[*at - 1].next;
	*at = e->next;
	free(e->name);
	e->name = NULL;
	entry_give_slot(d, e);
	/* The next channel in this slot begins at 0. Who held this one has let go of it. */
	atomic_store_explicit(&e->seq, 0, memory_order_relaxed);
	atomic_store_explicit(&e->has_history, false, memory_order_relaxed);
	WB_ASSERT(directory_full(e) == 0 && directory_lagging(e) == 0);
}

/* A channel again, if there is room for one. */
static int entry_leave_place(struct directory *d, struct directory_entry *e, const uint8_t *network)
{
	if (!e->is_place)
		return 0;
	if (!count_channel(d, e->slot, network))
		return DIRECTORY_E_FULL;
	e->is_place = false;
	return 0;
}

int directory_join_for(struct directory *d, const uint8_t *network, const char *name, size_t n,
		       unsigned worker, struct directory_entry **ret, uint64_t *ret_from)
{
	struct directory_entry *e;
	int r = 0;

	WB_ASSERT(worker < DIRECTORY_MAX_WORKERS && n <= DIRECTORY_NAME_MAX);
	pthread_mutex_lock(&d->mutex);
	e = entry_find(d, name, n);
	r = e ? entry_leave_place(d, e, network) : entry_create(d, name, n, network, &e);
	if (r == 0) {
		/* Pairs with directory_take(): number, then set. */
		atomic_fetch_or_explicit(&e->workers, 1ULL << worker, memory_order_seq_cst);
		*ret_from = directory_next_seq(e);
		*ret = e;
	}
	pthread_mutex_unlock(&d->mutex);
	return r;
}

int directory_join(struct directory *d, const char *name, size_t n, unsigned worker,
		   struct directory_entry **ret, uint64_t *ret_from)
{
	return directory_join_for(d, NULL, name, n, worker, ret, ret_from);
}

int directory_restore(struct directory *d, const char *name, size_t n, uint64_t seq,
		      struct directory_entry **ret)
{
	struct directory_entry *e = NULL;
	int r;

	pthread_mutex_lock(&d->mutex);
	r = entry_find(d, name, n) ? DIRECTORY_E_EXISTS : entry_create(d, name, n, NULL, &e);
	/* Held for who restores, until the workers of its members hold it. */
	if (r == 0) {
		e->pins++;
		atomic_store_explicit(&e->seq, seq, memory_order_seq_cst);
		*ret = e;
	}
	pthread_mutex_unlock(&d->mutex);
	return r;
}

void directory_leave(struct directory *d, struct directory_entry *e, unsigned worker)
{
	pthread_mutex_lock(&d->mutex);
	atomic_fetch_and_explicit(&e->workers, ~(1ULL << worker), memory_order_seq_cst);
	entry_drop_if_unheld(d, e);
	pthread_mutex_unlock(&d->mutex);
}

struct directory_entry *directory_pin(struct directory *d, const char *name, size_t n)
{
	struct directory_entry *e;

	pthread_mutex_lock(&d->mutex);
	e = entry_find(d, name, n);
	if (e)
		e->pins++;
	pthread_mutex_unlock(&d->mutex);
	return e;
}

void directory_pin_entry(struct directory *d, struct directory_entry *e)
{
	pthread_mutex_lock(&d->mutex);
	e->pins++;
	pthread_mutex_unlock(&d->mutex);
}

void directory_keep(struct directory *d, struct directory_entry *e)
{
	pthread_mutex_lock(&d->mutex);
	WB_ASSERT(!e->is_kept && !e->is_place);
	e->is_kept = true;
	e->pins++;
	pthread_mutex_unlock(&d->mutex);
}

void directory_unkeep(struct directory *d, struct directory_entry *e)
{
	pthread_mutex_lock(&d->mutex);
	e->is_kept = false;
	e->pins--;
	entry_drop_if_unheld(d, e);
	pthread_mutex_unlock(&d->mutex);
}

uint32_t directory_n_slots(struct directory *d)
{
	uint32_t n;

	pthread_mutex_lock(&d->mutex);
	n = d->fresh;
	pthread_mutex_unlock(&d->mutex);
	return n;
}

int directory_name(struct directory *d, uint32_t slot, uint32_t generation,
		   char ret[DIRECTORY_NAME_MAX + 1])
{
	const struct directory_entry *e = &d->entries[slot];
	int r = -ENOENT;

	pthread_mutex_lock(&d->mutex);
	if (e->name && e->generation == generation) {
		memcpy(ret, e->name, (size_t)e->name_len + 1);
		r = e->name_len;
	}
	pthread_mutex_unlock(&d->mutex);
	return r;
}

void directory_unpin(struct directory *d, struct directory_entry *e)
{
	pthread_mutex_lock(&d->mutex);
	e->pins--;
	entry_drop_if_unheld(d, e);
	pthread_mutex_unlock(&d->mutex);
}

/* ------------------------------------------------------------------------- readers */

/* Adds @more to each count that such a member is in; what wraps is less. */
static void count_reader(struct directory_readers *r, unsigned caps, enum deflate_window window,
			 uint32_t more)
{
	for (unsigned i = 0; i < DIRECTORY_N_CODECS; i++)
		if (!msg_caps_read(caps, (enum zip_kind)(i + 1)))
			atomic_fetch_add_explicit(&r->unable[i][window], more,
						  memory_order_relaxed);
	if (msg_caps_read(caps, ZIP_PREFERRED))
		atomic_fetch_add_explicit(&r->packed, more, memory_order_relaxed);
	if (window != DEFLATE_NONE)
		atomic_fetch_add_explicit(&r->window[window - 1], more, memory_order_relaxed);
}

void directory_add_reader(struct directory_entry *e, unsigned caps, enum deflate_window window)
{
	count_reader(&e->readers, caps, window, 1);
}

void directory_drop_reader(struct directory_entry *e, unsigned caps, enum deflate_window window)
{
	count_reader(&e->readers, caps, window, (uint32_t)-1);
}

/* Whether anybody is counted there but one, where @is_one is. */
static bool has_others(const _Atomic uint32_t *count, bool is_one)
{
	return atomic_load_explicit(count, memory_order_relaxed) > is_one;
}

static unsigned deflated_bit(enum deflate_window window)
{
	return 1u << (FRAME_VARIANT_DEFLATED + window - 1);
}

unsigned directory_variants(struct directory_entry *e, const struct frame *f,
			    const struct directory_reader *except)
{
	bool is_packed = f->flags & FRAME_IS_PACKED, can_pack = f->flags & FRAME_CAN_PACK;
	enum zip_kind kind = is_packed ? (enum zip_kind)f->packed_with : ZIP_PREFERRED;
	bool is_able = except && msg_caps_read(except->caps, kind);
	/* Who reads the codec takes the message packed; what others take is deflated, perhaps. */
	const _Atomic uint32_t *others = is_packed || can_pack ? e->readers.unable[kind - 1] : NULL;
	unsigned set = 0;

	if (can_pack && has_others(&e->readers.packed, is_able))
		set |= 1u << FRAME_VARIANT_PACKED;
	for (enum deflate_window w = DEFLATE_NONE; w < DEFLATE_N_WINDOWS; w++) {
		bool is_it = except && except->window == w;
		bool has_any = others ? has_others(&others[w], is_it && !is_able)
				      : w && has_others(&e->readers.window[w - 1], is_it);

		if (has_any && is_packed)
			set |= 1u << FRAME_VARIANT_UNPACKED;
		if (has_any && w && f->flags & FRAME_CAN_DEFLATE)
			set |= deflated_bit(w);
	}
	return set;
}
