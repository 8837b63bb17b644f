/* SPDX-License-Identifier: MIT */
#include "worker/hub_private.h"

#include <errno.h>
#include <sys/mman.h>

static size_t by_slot_bytes(const struct hub *h)
{
	return (size_t)h->shared->directory.max * sizeof(*h->by_slot);
}

int hub_channels_init(struct hub *h)
{
	h->by_slot = mmap(NULL, by_slot_bytes(h), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (h->by_slot == MAP_FAILED) {
		h->by_slot = NULL;
		return -ENOMEM;
	}
	return 0;
}

void hub_channels_fini(struct hub *h)
{
	if (h->by_slot)
		(void)munmap(h->by_slot, by_slot_bytes(h));
	h->by_slot = NULL;
}

static struct channel *channel_by_name(struct hub *h, const char *name, size_t n)
{
	struct channel *ch;

	HASH_FIND(hh, h->by_name, name, n, ch);
	return ch;
}

static int channel_open(struct hub *h, const char *name, size_t n, struct channel **ret)
{
	struct channel *ch = calloc(1, sizeof(*ch));
	struct directory_entry *e;
	uint64_t from;
	int r;

	if (!ch)
		return -ENOMEM;
	/* From here on others post to this worker; that is taken in once the log is there. */
	r = directory_join(&h->shared->directory, name, n, h->index, &e, &from);
	if (r) {
		free(ch);
		return r == DIRECTORY_E_FULL ? HUB_E_FULL : r;
	}
	channel_init(ch, &h->channels, e, from);
	HASH_ADD_KEYPTR(hh, h->by_name, e->name, e->name_len, ch);
	if (!ch->hh.tbl) { /* uthash leaves it NULL when it had no memory */
		directory_leave(&h->shared->directory, e, h->index);
		free(ch);
		return -ENOMEM;
	}
	h->by_slot[e->slot] = ch;
	*ret = ch;
	return 0;
}

void hub_close_channel_if_empty(struct hub *h, struct channel *ch)
{
	/* While it is being flushed whoever does that asks again. */
	if (ch->n_members > 0 || ch->is_flushing)
		return;
	/* The name belongs to the entry: whatever needs it goes before the entry is left. */
	HASH_DELETE(hh, h->by_name, ch);
	h->by_slot[ch->entry->slot] = NULL;
	channel_fini(ch);
	directory_leave(&h->shared->directory, ch->entry, h->index);
	free(ch);
}

static struct member *membership_in(struct conn *c, const struct channel *ch)
{
	struct member *m = c->members;

	/* A client has few memberships, a channel may have many members. */
	while (m && m->channel != ch)
		m = m->sibling;
	return m;
}

struct member *hub_membership(struct hub *h, struct conn *c, const char *name, size_t n)
{
	struct channel *ch = channel_by_name(h, name, n);

	return ch ? membership_in(c, ch) : NULL;
}

int hub_join(struct hub *h, struct conn *c, struct member *m, const char *name, size_t n)
{
	struct channel *ch = channel_by_name(h, name, n);
	int r;

	if (ch && membership_in(c, ch))
		return HUB_E_MEMBER;
	/* Before the channel is opened: what is refused leaves nothing behind. */
	if (c->n_members >= h->env.config->max_channels_per_client)
		return HUB_E_TOO_MANY;
	if (!ch) {
		r = channel_open(h, name, n, &ch);
		if (r)
			return r;
	}
	r = channel_join(ch, m, c);
	if (r)
		hub_close_channel_if_empty(h, ch);
	return r;
}

int hub_rejoin(struct hub *h, struct conn *c, struct member *m, const struct hub_log *log,
	       const struct hub_place *place)
{
	const struct directory_entry *e = log->entry;
	struct channel *ch = hub_channel_at(h, e->slot, e->generation);
	int r = 0;

	if (ch && membership_in(c, ch))
		return HUB_E_MEMBER;
	/* The first one back brings the log; like those that follow it is put back in it below. */
	if (!ch) {
		r = channel_open(h, e->name, e->name_len, &ch);
		if (r)
			return r;
		r = channel_load(ch, log->from, log->frame, log->n);
	}
	if (r == 0)
		r = channel_join(ch, m, c);
	if (r)
		hub_close_channel_if_empty(h, ch);
	else
		channel_rewind(m, place->next, place->own);
	return r;
}

void hub_end_rejoining(struct hub *h)
{
	struct channel *ch, *next;

	/* Until here nothing was dropped: a member that lags more could still come. */
	HASH_ITER (hh, h->by_name, ch, next)
		channel_end_loading(ch);
}
