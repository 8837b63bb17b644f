/* SPDX-License-Identifier: MIT */
#include "handover/channels.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "handover/record_ids.h"

/* A channel, and what is kept of it on all workers. */
struct channel_out {
	const struct directory_entry *entry; /* held by its members */
	uint64_t seq;
	uint64_t from;       /* the oldest message that any worker keeps */
	uint32_t *frame_ids; /* by number of the message - from; NULL: nothing is kept */
};

/* --------------------------------------------------------------------------- saving */

/* One worker's part of a channel, which others may have a part of as well. */
static void add_channel(struct channels_out *out, const struct channel *ch)
{
	uint32_t *id = &out->id_by_slot[ch->entry->slot];
	struct channel_out *one;

	/* Its id comes from the first worker that knows it; its next number is one for all. */
	if (!*id) {
		*id = ++out->n;
		out->channel[*id - 1] = (struct channel_out){
			.entry = ch->entry,
			.seq = directory_next_seq(ch->entry),
			.from = ch->from,
		};
	}
	one = &out->channel[*id - 1];
	one->from = MIN(one->from, ch->from);
}

/* What one worker keeps of a channel; what others keep of it too is the same frame. */
static int add_log(struct channels_out *out, const struct channel *ch, struct frames_out *frames)
{
	struct channel_out *one = &out->channel[out->id_by_slot[ch->entry->slot] - 1];

	/* As wide as what all workers keep of it, most often one and the same stretch. */
	if (one->seq == one->from)
		return 0;
	if (!one->frame_ids)
		one->frame_ids = calloc(one->seq - one->from, sizeof(*one->frame_ids));
	if (!one->frame_ids)
		return -ENOMEM;
	for (uint64_t seq = ch->from; seq < MIN(ch->high, one->seq); seq++) {
		struct frame *f = ch->slots[seq & ch->mask].frame;
		const struct frame_out *added = f ? frames_out_add(frames, f) : NULL;

		/* What this worker doesn't keep another one may; what none keeps stays 0. */
		if (f && !added)
			return -ENOMEM;
		if (added)
			one->frame_ids[seq - one->from] = added->id;
	}
	return 0;
}

int channels_out_collect(struct channels_out *out, struct worker_pool *p, struct frames_out *frames)
{
	const struct directory *d = &p->shared.directory;
	int r = 0;

	out->id_by_slot = calloc(d->max, sizeof(*out->id_by_slot));
	out->channel = calloc(MAX(d->fresh, 1u), sizeof(*out->channel));
	if (!out->id_by_slot || !out->channel)
		return -ENOMEM;
	/* Twice over all workers: how far back a log goes is known when all have been seen. */
	for (unsigned i = 0; i < p->n; i++)
		HUB_FOREACH_CHANNEL (ch, &p->workers[i]->hub)
			add_channel(out, ch);
	for (unsigned i = 0; i < p->n; i++)
		HUB_FOREACH_CHANNEL (ch, &p->workers[i]->hub)
			r = r ? r : add_log(out, ch, frames);
	return r;
}

void channels_out_record(const struct channels_out *out, uint32_t id, Record__Channel *ret)
{
	const struct channel_out *one = &out->channel[id - 1];
	uint8_t *name = (uint8_t *)(uintptr_t)one->entry->name;

	record__channel__init(ret);
	ret->name = (ProtobufCBinaryData){one->entry->name_len, name};
	ret->seq = one->seq;
	ret->from = one->from;
	ret->frame = one->frame_ids;
	ret->n_frame = one->frame_ids ? one->seq - one->from : 0;
}

void channels_out_fini(struct channels_out *out)
{
	for (uint32_t i = 0; i < out->n; i++)
		free(out->channel[i].frame_ids);
	free(out->channel);
	free(out->id_by_slot);
	*out = (struct channels_out){0};
}

/* ------------------------------------------------------------------------ restoring */

/* The lobby's name has no bytes, and those of an empty field are nowhere. */
static const char *name_of(const Record__Channel *s)
{
	return s->name.len ? (const char *)s->name.data : "";
}

static bool is_sound(const Record__Channel *s)
{
	if (s->name.len > DIRECTORY_NAME_MAX || !utf8_valid(name_of(s), s->name.len) ||
	    memchr(name_of(s), 0, s->name.len))
		return false;
	/* A number of its own for each message of the log, and so many more before they run out. */
	return s->from <= s->seq && s->seq < UINT64_MAX / 2 &&
	       s->n_frame == (s->n_frame ? s->seq - s->from : 0);
}

/* The messages of its log. False: no memory. */
static bool fill_log(struct hub_log *log, const Record__Channel *s, const struct frames_in *frames)
{
	/* Without messages the log is empty at the number that comes next. */
	log->from = s->n_frame ? s->from : s->seq;
	log->frame = calloc(MAX(s->n_frame, (size_t)1), sizeof(*log->frame));
	if (!log->frame)
		return false;
	for (; log->n < s->n_frame; log->n++) {
		struct frame *f = frames_in_get(frames, s->frame[log->n]);

		/* What a channel keeps has its number for good. */
		if (!f || (frame_is_kept(f) && f->seq != log->from + log->n))
			continue;
		/* Slot and generation are of this process: no record could know them. */
		f->flags &= FRAME_LOG_FLAGS;
		f->seq = log->from + log->n;
		f->slot = log->entry->slot;
		f->generation = log->entry->generation;
		log->frame[log->n] = f;
	}
	return true;
}

static int make_channel(struct hub_log *log, struct directory *d, const Record__Channel *s,
			const struct frames_in *frames)
{
	int r;

	if (!is_sound(s))
		return RESTORE_E_UNFIT;
	r = directory_restore(d, name_of(s), s->name.len, s->seq, &log->entry);
	if (r > 0)
		return r == DIRECTORY_E_FULL ? RESTORE_E_NO_ROOM : RESTORE_E_UNFIT;
	if (r < 0)
		return r;
	/* Without its log its members would miss messages that were promised to them. */
	if (fill_log(log, s, frames))
		return 0;
	directory_unpin(d, log->entry);
	log->entry = NULL;
	return -ENOMEM;
}

int channels_in_add(struct channels_in *in, struct directory *d, const Record__Channel *s,
		    const struct frames_in *frames)
{
	struct hub_log *more = record_ids_grow(in->log, in->n, sizeof(*more));
	struct hub_log *log;

	if (!more)
		return -ENOMEM;
	in->log = more;
	log = &more[in->n++];
	*log = (struct hub_log){0};
	return s ? make_channel(log, d, s, frames) : RESTORE_E_UNFIT;
}

int channels_in_get(const struct channels_in *in, uint32_t id, const struct hub_log **ret)
{
	if (id == 0 || id > in->n || !in->log[id - 1].entry)
		return RESTORE_E_UNFIT;
	*ret = &in->log[id - 1];
	return 0;
}

void channels_in_fini(struct channels_in *in, struct directory *d)
{
	for (size_t i = 0; i < in->n; i++) {
		if (in->log[i].entry)
			directory_unpin(d, in->log[i].entry);
		free(in->log[i].frame);
	}
	free(in->log);
	*in = (struct channels_in){0};
}
