/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <systemd/sd-id128.h>

#include "channel/history_private.h"
#include "containers/table.h"

/* ------------------------------------------------------------- from a process that told us */

/*
 * A message of another process that could not leave it in the file. Keys go with those that are
 * kept here, too: bounds may have become narrower.
 */
static void restore_message(struct history *h, struct history_store *s, const struct frame *f,
			    const struct history_key *key)
{
	struct history_keyed *keyed = key ? history_keyed_new(key) : NULL;
	struct frame *copy = frame_kept_copy(&h->file.heap, f, key, h->frame_account);
	size_t done = 0;

	if (copy) {
		frame_set_number(copy, 0);
		(void)frame_kept_seal(copy, &done, SIZE_MAX);
		copy->seq = f->seq;
		frame_set_number(copy, f->seq + 1);
	}
	if ((!key || keyed) && history_store_keep(h, s, copy, key) &&
	    (!key || history_store_add_key(h, s, keyed, f->seq)))
		return;
	free(keyed);
	if (copy && s->newest != f->seq + 1)
		frame_unref(copy);
	history_store_begin_behind(h, s, f);
}

int history_restore(struct history *h, struct directory_entry *e,
		    const struct history_limits *limits, const struct history_saved *saved)
{
	struct history_store *s;
	size_t k = 0;

	pthread_mutex_lock(&h->mutex);
	s = history_store_new(h, e, saved->epoch);
	if (s) {
		s->limits = *limits;
		history_store_set_earliest(s, saved->earliest);
		for (size_t i = 0; i < saved->n; i++) {
			bool is_keyed = k < saved->n_keys && saved->keyed[k] == i;

			restore_message(h, s, saved->frames[i], is_keyed ? &saved->keys[k] : NULL);
			k += is_keyed;
		}
		history_store_restored(h, s);
	}
	pthread_mutex_unlock(&h->mutex);
	return s ? 0 : -ENOMEM;
}

/* The ring of a store that has none. */
static int store_take_places(struct history_store *s, const uint32_t *places, size_t n)
{
	/* A power of two: see history_kept_at(). */
	while (s->cap < n)
		s->cap = MAX(s->cap * 2, 8u);
	s->kept = n ? malloc(s->cap * sizeof(*s->kept)) : NULL;
	if (n && !s->kept) {
		s->cap = 0;
		return -ENOMEM;
	}
	if (n)
		memcpy(s->kept, places, n * sizeof(*places));
	s->n = (uint32_t)n;
	return 0;
}

int history_restore_left(struct history *h, struct directory_entry *e,
			 const struct history_limits *limits, const struct history_left *left)
{
	struct history_store *s;
	int r = -ENOMEM;

	pthread_mutex_lock(&h->mutex);
	s = history_store_new(h, e, left->epoch);
	if (s) {
		s->limits = *limits;
		s->newest = left->newest;
		if (left->head)
			s->noted = CONTAINER_OF(shm_heap_at(&h->file.heap, left->head),
						struct history_head, slot);
		r = store_take_places(s, left->places, left->n);
		/* Without memory for them nothing of it is kept. */
		history_store_set_earliest(s, r ? directory_next_seq(e) : left->earliest);
	}
	if (s && r == 0) {
		s->bytes = left->bytes;
		s->has_keys_unread = left->has_keys;
		atomic_fetch_add_explicit(&h->bytes, left->charged, memory_order_relaxed);
		atomic_fetch_add_explicit(&h->n_messages, s->n, memory_order_relaxed);
	}
	if (s)
		history_store_restored(h, s);
	pthread_mutex_unlock(&h->mutex);
	return r;
}

/* Who still waits for one of them holds it; else it goes when its slot is looked at. */
static void slot_leave(struct history *h, uint32_t place)
{
	struct shm_slot *slot = shm_heap_at(&h->file.heap, place);

	if (slot->run != h->file.heap.run)
		atomic_store_explicit(&slot->mark, SHM_HELD, memory_order_relaxed);
}

void history_drop_left(struct history *h, const struct history_left *left)
{
	for (size_t i = 0; i < left->n; i++)
		slot_leave(h, left->places[i]);
	if (left->head)
		slot_leave(h, left->head);
}

/* ---------------------------------------------------------------- from one that has died */

/* One message, as its slot says. */
struct found {
	uint64_t number;
	struct frame_kept *kept;
};

/* A channel's place, and what was found of it. */
struct place {
	struct table_node node; /* by its epoch */
	struct place *next;
	struct history_head *head;
	struct history_note note;
	struct found *found;
	size_t n, cap;
	bool is_spoiled; /* there is no memory for all of it */
};

struct recovery {
	struct history *h;
	struct table by_epoch;
	struct place *places;
	struct history_recovery *result;
};

static void slot_drop(struct shm_slot *slot)
{
	atomic_store_explicit(&slot->mark, 0, memory_order_relaxed);
}

static struct place *place_find(const struct recovery *r, uint64_t epoch)
{
	struct table_node *node = table_find(&r->by_epoch, epoch);

	for (; node; node = table_find_next(node)) {
		struct place *p = CONTAINER_OF(node, struct place, node);

		if (p->head->epoch == epoch)
			return p;
	}
	return NULL;
}

static void find_head(void *ctx, struct shm_slot *slot)
{
	struct recovery *r = ctx;
	uint64_t mark = atomic_load_explicit(&slot->mark, memory_order_relaxed);
	struct history_note note;
	struct history_head *head;
	struct place *p;

	if ((uint32_t)mark == FRAME_KEPT_MARK)
		return;
	head = history_head_find(&r->h->file, slot, &note);
	p = head && !place_find(r, head->epoch) ? calloc(1, sizeof(*p)) : NULL;
	if (!p) {
		slot_drop(slot);
		r->result->lost++;
		return;
	}
	p->head = head;
	p->note = note;
	p->next = r->places;
	r->places = p;
	table_insert(&r->by_epoch, &p->node, head->epoch);
}

static bool place_add(struct place *p, struct frame_kept *k)
{
	/* How many there are is known when all slots have been seen. */
	if (p->n == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 64;
		struct found *more = realloc(p->found, cap * sizeof(*more));

		if (!more)
			return false;
		p->found = more;
		p->cap = cap;
	}
	p->found[p->n++] = (struct found){k->frame.seq + 1, k};
	return true;
}

/* A message counts from when its channel's place says so: until then nobody has seen it. */
static void find_message(void *ctx, struct shm_slot *slot)
{
	struct recovery *r = ctx;
	struct frame_kept *k = frame_kept_find(&r->h->file.heap, slot);
	struct place *p = k ? place_find(r, k->epoch) : NULL;
	uint64_t number = k ? k->frame.seq + 1 : 0;

	/* Heads have been looked at. */
	if ((uint32_t)atomic_load_explicit(&slot->mark, memory_order_relaxed) == HISTORY_HEAD_MARK)
		return;
	if (p && number > p->note.earliest && number <= p->note.newest) {
		if (place_add(p, k))
			return;
		p->is_spoiled = true;
	}
	slot_drop(slot);
}

static int compare_found(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

/* Messages from @from on go, the youngest of which is behind them. */
static void drop_before(struct place *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		slot_drop(&p->found[i].kept->slot);
	if (n > 0)
		memmove(p->found, p->found + n, (p->n - n) * sizeof(*p->found));
	p->n -= n;
}

/*
 * What is whole of it: the newest message that was noted, and those before it up to the first one
 * that is torn or missing, from which on all is kept then. Each names the one before it, so none
 * can be missing unseen. Return: false: its newest isn't there: another epoch.
 */
static bool place_check(struct place *p, struct history_recovery *result)
{
	uint64_t before;
	size_t at;

	if (p->n > 0)
		qsort(p->found, p->n, sizeof(*p->found), compare_found);
	if (p->is_spoiled)
		return false;
	/* It was dropped since, or none was kept yet. */
	if (p->note.newest <= p->note.earliest) {
		drop_before(p, p->n);
		return true;
	}
	if (p->n == 0 || p->found[p->n - 1].number != p->note.newest ||
	    !frame_kept_is_whole(p->found[p->n - 1].kept))
		return false;
	before = p->found[p->n - 1].kept->before;
	for (at = p->n - 1; at > 0; at--) {
		struct found *f = &p->found[at - 1];

		/* Of two with one number, or one that is out of the row, none can be believed. */
		if (f->number != before || !frame_kept_is_whole(f->kept))
			break;
		before = f->kept->before;
	}
	if (at > 0 || before > p->note.earliest) {
		p->note.earliest = MAX(p->note.earliest, before);
		result->torn++;
	}
	drop_before(p, at);
	return true;
}

/* Its messages as a list of places, and what they come to. */
static int place_restore(struct recovery *r, const struct place *p, struct directory_entry *e,
			 const struct history_limits *limits)
{
	struct shm_heap *heap = &r->h->file.heap;
	uint32_t *places = calloc(MAX(p->n, (size_t)1), sizeof(*places));
	struct history_left left = {
		.epoch = p->head->epoch,
		.earliest = p->note.earliest,
		.newest = p->note.newest,
		.head = shm_heap_place(heap, &p->head->slot),
		.places = places,
		.n = p->n,
	};
	int result;

	if (!places)
		return -ENOMEM;
	for (size_t i = 0; i < p->n; i++) {
		struct frame_kept *k = p->found[i].kept;

		places[i] = shm_heap_place(heap, &k->slot);
		left.bytes += k->frame.body.len;
		left.charged += shm_heap_room(heap, &k->slot);
		left.has_keys |= frame_kept_key(k) != NULL;
	}
	result = history_restore_left(r->h, e, limits, &left);
	free(places);
	return result;
}

static void place_forget(struct recovery *r, struct place *p)
{
	drop_before(p, p->n);
	slot_drop(&p->head->slot);
	r->result->lost++;
}

/* A channel again, without members. */
static void place_recover(struct recovery *r, struct place *p, history_limits_fn *limits_of,
			  void *ctx)
{
	struct directory *d = r->h->directory;
	struct history_limits limits;
	struct directory_entry *e;
	char name[DIRECTORY_NAME_MAX + 1];

	memcpy(name, p->head->name, p->head->name_len);
	name[p->head->name_len] = '\0';
	if (!limits_of(ctx, name, &limits) || !place_check(p, r->result) ||
	    directory_restore(d, name, p->head->name_len, p->note.reserved, &e)) {
		place_forget(r, p);
		return;
	}
	if (place_restore(r, p, e, &limits) == 0) {
		r->result->channels++;
		r->result->messages += p->n;
	} else if (!history_of(r->h, e)) {
		place_forget(r, p);
	}
	directory_unpin(d, e);
}

static void recover_all(struct recovery *r, history_limits_fn *limits_of, void *ctx)
{
	struct shm_heap *heap = &r->h->file.heap;

	/* Places first: by them is known whose a message is. */
	table_init(&r->by_epoch);
	shm_heap_each(heap, find_head, r);
	shm_heap_each(heap, find_message, r);
	while (r->places) {
		struct place *p = r->places;

		r->places = p->next;
		place_recover(r, p, limits_of, ctx);
		table_remove(&r->by_epoch, &p->node);
		free(p->found);
		free(p);
	}
	table_fini(&r->by_epoch);
}

/* ------------------------------------------------------------------- what becomes of it */

bool history_take_handed_over(struct history *h, uint64_t nonce, uint64_t now_ns)
{
	struct history_root *root = h->file.root;

	if (!h->file.has_past || nonce == 0 || root->nonce != nonce)
		return false;
	h->file.has_past = false;
	if (shm_heap_adopt(&h->file.heap, true))
		return false;
	/* Who hands over has not died of it. */
	root->crashes = 0;
	root->taken_ns = now_ns;
	return true;
}

/* Soon after it was taken over it died: once more. */
static bool has_crashed_too_often(struct history_root *root, uint64_t now_ns)
{
	bool is_soon = root->taken_ns <= now_ns && now_ns - root->taken_ns < HISTORY_CRASH_NS;

	/* Before anything is read: that may be what kills. */
	root->crashes = is_soon && root->taken_ns ? root->crashes + 1 : 0;
	root->taken_ns = now_ns;
	return root->crashes >= HISTORY_CRASHES;
}

enum history_past history_take_over(struct history *h, bool is_foreign, uint64_t now_ns,
				    history_limits_fn *limits_of, void *ctx,
				    struct history_recovery *ret)
{
	struct recovery r = {.h = h, .result = ret};
	enum history_past past = HISTORY_PAST_CRASHED;

	*ret = (struct history_recovery){0};
	if (!h->file.has_past)
		return HISTORY_PAST_NONE;
	h->file.has_past = false;
	/* What a hand-over has left for another one: what that did meanwhile isn't in here. */
	if (is_foreign || h->file.root->nonce != 0)
		past = HISTORY_PAST_FOREIGN;
	else if (has_crashed_too_often(h->file.root, now_ns))
		past = HISTORY_PAST_SET_ASIDE;
	if (past != HISTORY_PAST_CRASHED) {
		ret->error = history_file_forget(&h->file);
		return past;
	}
	ret->error = shm_heap_adopt(&h->file.heap, false);
	if (ret->error == 0)
		recover_all(&r, limits_of, ctx);
	return past;
}

int history_hand_over(struct history *h, uint64_t *ret_nonce)
{
	sd_id128_t random;
	int r = sd_id128_randomize(&random);

	if (r < 0)
		return r;
	memcpy(ret_nonce, random.bytes, sizeof(*ret_nonce));
	*ret_nonce |= 1;
	h->file.root->nonce = *ret_nonce;
	return 0;
}

void history_serve(struct history *h)
{
	shm_heap_sweep(&h->file.heap);
	h->file.root->nonce = 0;
}
