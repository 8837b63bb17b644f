/* SPDX-License-Identifier: MIT */
#include "handover/histories.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "handover/record_ids.h"

/* --------------------------------------------------------------------------- saving */

/* Where its messages are, and what they take of memory. */
static bool save_places(Record__Kept *r, const struct history *h, const struct history_store *s,
			struct arena *a)
{
	uint32_t *places = arena_alloc(a, MAX(s->n, 1u) * sizeof(*places));

	if (!places)
		return false;
	for (uint32_t i = 0; i < s->n; i++) {
		const struct shm_slot *slot = &history_kept_at(h, s, i)->slot;

		places[i] = shm_heap_place(&h->file.heap, slot);
		r->charged += shm_heap_room(&h->file.heap, slot);
	}
	r->places = (ProtobufCBinaryData){s->n * sizeof(*places), (uint8_t *)places};
	return true;
}

Record__Kept *history_to_record(const struct history *h, const struct history_store *s,
				struct arena *a)
{
	const struct directory_entry *e = s->entry;
	Record__Kept *r = arena_alloc(a, sizeof(*r));

	if (!r)
		return NULL;
	*r = (Record__Kept)RECORD__KEPT__INIT;
	r->name = (ProtobufCBinaryData){e->name_len, (uint8_t *)(uintptr_t)e->name};
	r->epoch = s->epoch;
	r->seq = atomic_load_explicit(&e->seq, memory_order_relaxed);
	r->earliest = atomic_load_explicit(&s->earliest, memory_order_relaxed);
	r->newest = s->newest;
	r->head = s->noted ? shm_heap_place(&h->file.heap, &s->noted->slot) : 0;
	r->bytes = s->bytes;
	r->has_keys = s->has_keys_unread || (s->keys && s->keys->n > 0);
	return save_places(r, h, s, a) ? r : NULL;
}

/* ------------------------------------------------------------------------ restoring */

/* The name of a record's channel. False: there can be none of that name. */
static bool copy_name(const ProtobufCBinaryData *name, char ret[DIRECTORY_NAME_MAX + 1])
{
	if (name->len > DIRECTORY_NAME_MAX)
		return false;
	if (name->len)
		memcpy(ret, name->data, name->len);
	ret[name->len] = '\0';
	return strlen(ret) == name->len && utf8_valid(ret, name->len);
}

/* The channel of a record; it may have a record of its own, or no members. */
static int pin_channel(struct directory *d, const char *name, uint64_t seq,
		       struct directory_entry **ret)
{
	int r = 0;

	*ret = directory_pin(d, name, strlen(name));
	if (!*ret)
		r = directory_restore(d, name, strlen(name), seq, ret);
	return r > 0 ? RESTORE_E_NO_ROOM : r;
}

static bool is_sound(const Record__History *s)
{
	return s->epoch && s->seq < UINT64_MAX / 2 && s->earliest <= s->seq &&
	       s->n_frame <= HISTORY_SPAN_MAX;
}

/* Messages in their order, none twice, all behind what is kept no more. NULL: that is not so. */
static struct frame **frames_of(const Record__History *s, const struct frames_in *frames,
				const struct directory_entry *e)
{
	struct frame **list = calloc(MAX(s->n_frame, (size_t)1), sizeof(struct frame *));
	uint64_t next = s->earliest;

	for (size_t i = 0; list && i < s->n_frame; i++) {
		struct frame *f = frames_in_get(frames, s->frame[i]);

		if (!f || !(f->flags & FRAME_NUMBERED) || f->seq < next || f->seq >= s->seq) {
			free(list);
			return NULL;
		}
		next = f->seq + 1;
		/* As in a channel's log, where it may be already. */
		f->flags &= FRAME_LOG_FLAGS;
		f->slot = e->slot;
		f->generation = e->generation;
		list[i] = f;
	}
	return list;
}

/*
 * Keys of messages in their order, each once. The secret is the same in all records.
 */
static bool has_sound_keys(const struct history *h, const Record__History *s)
{
	if (s->n_digest != s->n_keyed || s->request_ids.len != 16 * s->n_keyed ||
	    s->digest_key.len != sizeof(h->digest_key))
		return false;
	for (size_t i = 0; i < s->n_keyed; i++)
		if (s->keyed[i] >= s->n_frame || (i > 0 && s->keyed[i] <= s->keyed[i - 1]))
			return false;
	return true;
}

/* Return: by malloc(), or NULL without memory. */
static struct history_key *keys_of(const Record__History *s)
{
	struct history_key *keys = calloc(MAX(s->n_keyed, (size_t)1), sizeof(*keys));

	for (size_t i = 0; keys && i < s->n_keyed; i++) {
		memcpy(keys[i].id, s->request_ids.data + i * sizeof(keys[i].id),
		       sizeof(keys[i].id));
		keys[i].digest = s->digest[i];
	}
	return keys;
}

static int make_store(struct hub_shared *shared, struct directory_entry *e,
		      const struct history_limits *limits, const Record__History *s,
		      const struct frames_in *frames)
{
	WB_CLEANUP(ptr_freep) struct history_key *keys = NULL;
	struct history_saved saved = {.epoch = s->epoch, .earliest = s->earliest, .n = s->n_frame};
	struct frame **list;
	int r;

	/* The channel's own record has the same; who forges them gets another epoch. */
	if (history_of(&shared->history, e) || directory_next_seq(e) != s->seq)
		return RESTORE_E_UNFIT;
	if (s->n_keyed && !has_sound_keys(&shared->history, s))
		return RESTORE_E_UNFIT;
	keys = keys_of(s);
	if (!keys)
		return -ENOMEM;
	list = frames_of(s, frames, e);
	if (!list)
		return RESTORE_E_UNFIT;
	saved.frames = list;
	saved.keys = keys;
	saved.keyed = s->keyed;
	saved.n_keys = s->n_keyed;
	if (s->n_keyed)
		memcpy(&shared->history.digest_key, s->digest_key.data, s->digest_key.len);
	r = history_restore(&shared->history, e, limits, &saved);
	free(list);
	return r;
}

int history_from_record(struct hub_shared *shared, const struct config *config,
			const Record__History *s, const struct frames_in *frames)
{
	struct directory *d = &shared->directory;
	struct history_limits limits;
	struct directory_entry *e;
	char name[DIRECTORY_NAME_MAX + 1];
	int r;

	if (!copy_name(&s->name, name) || !is_sound(s))
		return RESTORE_E_UNFIT;
	if (!hub_history_limits(config, name, &limits))
		return 0;
	r = pin_channel(d, name, s->seq, &e);
	if (r)
		return r;
	r = make_store(shared, e, &limits, s, frames);
	directory_unpin(d, e);
	return r;
}

/* ------------------------------------------------------------------------ of the file */

/* Each place is one of a message of this channel, as far as can be told without looking at all. */
static bool has_sound_places(const struct history *h, const Record__Kept *s)
{
	size_t n = s->places.len / sizeof(uint32_t);
	uint32_t place;

	if (s->places.len % sizeof(uint32_t) || n > HISTORY_SPAN_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		memcpy(&place, s->places.data + i * sizeof(place), sizeof(place));
		if (!shm_heap_may_be_slot(&h->file.heap, place))
			return false;
	}
	return true;
}

static bool is_sound_left(const struct history *h, const Record__Kept *s)
{
	return s->epoch && s->seq < UINT64_MAX / 2 && s->earliest <= s->seq &&
	       s->newest <= s->seq && (!s->head || shm_heap_is_slot(&h->file.heap, s->head)) &&
	       has_sound_places(h, s);
}

int history_from_file(struct hub_shared *shared, const struct config *config, const Record__Kept *s)
{
	struct history *h = &shared->history;
	struct directory *d = &shared->directory;
	struct history_left left = {
		.epoch = s->epoch,
		.earliest = s->earliest,
		.newest = s->newest,
		.head = s->head,
		.bytes = s->bytes,
		.charged = s->charged,
		.has_keys = s->has_keys,
		.places = (const uint32_t *)(const void *)s->places.data,
		.n = s->places.len / sizeof(uint32_t),
	};
	char name[DIRECTORY_NAME_MAX + 1];
	struct history_limits limits;
	struct directory_entry *e;
	int r;

	if (!copy_name(&s->name, name) || !is_sound_left(h, s))
		return RESTORE_E_UNFIT;
	if (!hub_history_limits(config, name, &limits)) {
		history_drop_left(h, &left);
		return 0;
	}
	r = pin_channel(d, name, s->seq, &e);
	if (r)
		return r;
	/* The channel's own record has the same; who forges them gets another epoch. */
	if (history_of(h, e) || directory_next_seq(e) != s->seq)
		r = RESTORE_E_UNFIT;
	else
		r = history_restore_left(h, e, &limits, &left);
	directory_unpin(d, e);
	return r;
}
