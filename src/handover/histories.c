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

Record__History *history_to_record(const struct history_store *s, const struct frames_out *frames,
				   struct arena *a)
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
	return r;
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

static int make_store(struct hub_shared *shared, struct directory_entry *e,
		      const struct history_limits *limits, const Record__History *s,
		      const struct frames_in *frames)
{
	struct frame **list;
	int r;

	/* The channel's own record has the same; who forges them gets another epoch. */
	if (history_of(&shared->history, e) || directory_next_seq(e) != s->seq)
		return RESTORE_E_UNFIT;
	list = frames_of(s, frames, e);
	if (!list)
		return RESTORE_E_UNFIT;
	r = history_restore(&shared->history, e, s->epoch, s->earliest, limits, list, s->n_frame);
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
