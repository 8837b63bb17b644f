/* SPDX-License-Identifier: MIT */
#include "handover/histories.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "handover/record_ids.h"

/* --------------------------------------------------------------------------- saving */

int histories_collect(const struct history *h, struct frames_out *frames)
{
	HISTORY_FOREACH(node, h)
	{
		const struct history_store *s = CONTAINER_OF(node, struct history_store, node);

		for (uint32_t i = 0; i < s->n; i++)
			if (!frames_out_add(frames, history_kept(s, i)))
				return -ENOMEM;
	}
	return 0;
}

/* The keys of messages, oldest first, as the messages are. */
static bool save_keys(Record__History *r, const struct history *h, const struct history_store *s,
		      struct arena *a)
{
	size_t n = s->keys ? s->keys->n : 0;
	uint8_t *ids;
	uint32_t i = 0;

	if (n == 0)
		return true;
	ids = arena_alloc(a, n * sizeof(s->keys->oldest->key.id));
	r->keyed = arena_alloc(a, n * sizeof(*r->keyed));
	r->digest = arena_alloc(a, n * sizeof(*r->digest));
	if (!ids || !r->keyed || !r->digest)
		return false;
	for (const struct history_keyed *k = s->keys->oldest; k; k = k->next) {
		while (history_kept(s, i)->seq < k->seq)
			i++;
		memcpy(ids + r->n_keyed * sizeof(k->key.id), k->key.id, sizeof(k->key.id));
		r->keyed[r->n_keyed++] = i;
		r->digest[r->n_digest++] = k->key.digest;
	}
	r->request_ids = (ProtobufCBinaryData){n * sizeof(s->keys->oldest->key.id), ids};
	r->digest_key =
		(ProtobufCBinaryData){sizeof(h->digest_key), (uint8_t *)(uintptr_t)&h->digest_key};
	return true;
}

Record__History *history_to_record(const struct history *h, const struct history_store *s,
				   const struct frames_out *frames, struct arena *a)
{
	const struct directory_entry *e = s->entry;
	Record__History *r = arena_alloc(a, sizeof(*r));

	if (!r)
		return NULL;
	*r = (Record__History)RECORD__HISTORY__INIT;
	r->name = (ProtobufCBinaryData){e->name_len, (uint8_t *)(uintptr_t)e->name};
	r->epoch = s->epoch;
	r->seq = atomic_load_explicit(&e->seq, memory_order_relaxed);
	r->earliest = atomic_load_explicit(&s->earliest, memory_order_relaxed);
	r->frame = arena_alloc(a, MAX(s->n, 1u) * sizeof(*r->frame));
	if (!r->frame)
		return NULL;
	for (; r->n_frame < s->n; r->n_frame++)
		r->frame[r->n_frame] = frames_out_id(frames, history_kept(s, (uint32_t)r->n_frame));
	return save_keys(r, h, s, a) ? r : NULL;
}

/* ------------------------------------------------------------------------ restoring */

static const char *name_of(const Record__History *s)
{
	return s->name.len ? (const char *)s->name.data : "";
}

static bool is_sound(const Record__History *s)
{
	return s->name.len <= DIRECTORY_NAME_MAX && utf8_valid(name_of(s), s->name.len) &&
	       !memchr(name_of(s), 0, s->name.len) && s->epoch && s->seq < UINT64_MAX / 2 &&
	       s->earliest <= s->seq && s->n_frame <= HISTORY_SPAN_MAX;
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
	char name[DIRECTORY_NAME_MAX + 1] = "";
	int r;

	if (!is_sound(s))
		return RESTORE_E_UNFIT;
	memcpy(name, name_of(s), s->name.len);
	if (!hub_history_limits(config, name, &limits))
		return 0;
	e = directory_pin(d, name, s->name.len);
	if (!e) {
		r = directory_restore(d, name, s->name.len, s->seq, &e);
		if (r)
			return r > 0 ? RESTORE_E_NO_ROOM : r;
	}
	r = make_store(shared, e, &limits, s, frames);
	directory_unpin(d, e);
	return r;
}
