/* SPDX-License-Identifier: MIT */
#include "worker/hub_private.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/ip.h"
#include "io/log.h"

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
	table_fini(&h->by_name);
	table_fini(&h->memberships);
}

static uint64_t channel_hash(const struct hub *h, const char *name, size_t n)
{
	return directory_hash(&h->shared->directory, name, n);
}

static struct channel *channel_by_name(struct hub *h, const char *name, size_t n)
{
	struct table_node *node = table_find(&h->by_name, channel_hash(h, name, n));

	for (; node; node = table_find_next(node)) {
		struct channel *ch = CONTAINER_OF(node, struct channel, name_node);

		if (ch->entry->name_len == n && memcmp(ch->entry->name, name, n) == 0)
			return ch;
	}
	return NULL;
}

/* ------------------------------------------------------------------------ history */

static struct history_limits limits_of(const struct config_channel *is)
{
	return (struct history_limits){
		.messages = is->history_messages,
		.bytes = is->history_bytes,
		.age_ns = is->history_age,
	};
}

bool hub_history_limits(const struct config *config, const char *name, struct history_limits *ret)
{
	struct config_channel is;

	config_for_channel(config, name, &is);
	*ret = limits_of(&is);
	return is.history_messages > 0;
}

/* Has or has no history from now on. Without memory it stays as it is. */
static int channel_set_history(struct hub *h, struct channel *ch, const struct config_channel *is)
{
	struct history *history = &h->shared->history;
	const struct history_limits limits = limits_of(is);
	int r = 0;

	if (is->history_messages > 0 && !ch->has_history)
		r = history_hold(history, ch->entry, &limits);
	if (is->history_messages == 0 && ch->has_history) {
		history_end(history, ch->entry);
		history_release(history, ch->entry);
	}
	if (r == 0)
		ch->has_history = is->history_messages > 0;
	return r;
}

/* Takes over what the configuration says of it. Return: 0 | as history_hold(). */
static int channel_configure(struct hub *h, struct channel *ch)
{
	struct config_channel is;
	int r;

	config_for_channel(h->env.config, ch->entry->name, &is);
	r = channel_set_history(h, ch, &is);
	ch->stamps_sender =
		is.stamp_sender == STAMP_YES || (is.stamp_sender == STAMP_AUTO && ch->has_history);
	ch->notice_limit = (uint32_t)is.notice_limit;
	ch->is_stamped = ch->stamps_sender || ch->has_history;
	/* What is kept anyway is nothing where nothing is kept. */
	ch->slow_policy = is.slow_consumer == SLOW_HISTORY && !ch->has_history
				  ? SLOW_SKIP
				  : (uint8_t)is.slow_consumer;
	return r;
}

void hub_channels_configure(struct hub *h)
{
	HUB_FOREACH_CHANNEL (ch, h)
		if (channel_configure(h, ch))
			log_line_limited(LOG_ERR, "out of memory for a channel's history");
}

/* --------------------------------------------------------------------- channels here */

/* Makes it for a client, in whose address's name it is, unless it comes from nowhere. */
static int channel_open(struct hub *h, const struct conn *c, const char *name, size_t n,
			struct channel **ret)
{
	uint8_t network[IP_BYTES];
	struct channel *ch = calloc(1, sizeof(*ch));
	struct directory_entry *e;
	uint64_t from;
	int r;

	if (!ch)
		return -ENOMEM;
	/* From here on others post to this worker; that is taken in once the log is there. */
	ip_network(c->peer.ip, network);
	r = directory_join_for(&h->shared->directory, c->peer.is_unix ? NULL : network, name, n,
			       h->index, &e, &from);
	if (r) {
		free(ch);
		return r == DIRECTORY_E_FULL ? HUB_E_FULL : r;
	}
	channel_init(ch, &h->channels, e, from);
	/* Before anybody here publishes to it. */
	r = channel_configure(h, ch);
	if (r) {
		channel_fini(ch);
		directory_leave(&h->shared->directory, e, h->index);
		free(ch);
		return r;
	}
	table_insert(&h->by_name, &ch->name_node, channel_hash(h, name, n));
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
	table_remove(&h->by_name, &ch->name_node);
	h->by_slot[ch->entry->slot] = NULL;
	channel_fini(ch);
	if (ch->has_history)
		history_release(&h->shared->history, ch->entry);
	directory_leave(&h->shared->directory, ch->entry, h->index);
	free(ch);
}

/* ------------------------------------------------------------------- memberships */

/* With so few they are looked at one by one, which is faster than the table. */
#define FEW_MEMBERSHIPS 8

/* One that a client asked for; that of its path lies in the connection. */
struct membership {
	struct member member;
	struct member *before; /* of its connection's, the one whose sibling it is; or NULL */
	struct table_node node;
};

/* NULL: it is that of the path. */
static struct membership *membership_of(struct member *m)
{
	return m == &m->conn->path_member ? NULL : CONTAINER_OF(m, struct membership, member);
}

static uint64_t membership_hash(const struct hub *h, const struct conn *c, const struct channel *ch)
{
	uint64_t pair[] = {c->serial, ch->entry->slot};

	return siphash(&h->shared->directory.key, pair, sizeof(pair));
}

static struct member *membership_in(struct hub *h, struct conn *c, const struct channel *ch)
{
	struct member *m = c->members;
	struct table_node *node;

	if (c->path_member.channel == ch)
		return &c->path_member;
	if (c->n_members <= FEW_MEMBERSHIPS) {
		while (m && m->channel != ch)
			m = m->sibling;
		return m;
	}
	node = table_find(&h->memberships, membership_hash(h, c, ch));
	for (; node; node = table_find_next(node)) {
		m = &CONTAINER_OF(node, struct membership, node)->member;
		if (m->conn == c && m->channel == ch)
			return m;
	}
	return NULL;
}

struct member *hub_membership(struct hub *h, struct conn *c, const char *name, size_t n)
{
	struct channel *ch = channel_by_name(h, name, n);

	return ch ? membership_in(h, c, ch) : NULL;
}

static int membership_begin(struct hub *h, struct conn *c, struct channel *ch, bool is_path)
{
	struct member *was_first = c->members;
	struct membership *own;
	int r;

	if (is_path)
		return channel_join(ch, &c->path_member, c);
	own = calloc(1, sizeof(*own));
	r = own ? channel_join(ch, &own->member, c) : -ENOMEM;
	if (r) {
		free(own);
		return r;
	}
	table_insert(&h->memberships, &own->node, membership_hash(h, c, ch));
	if (was_first && membership_of(was_first))
		membership_of(was_first)->before = &own->member;
	return 0;
}

void hub_end_membership(struct hub *h, struct member *m)
{
	struct membership *own = membership_of(m);
	struct conn *c = m->conn;
	struct member *before = own ? own->before : NULL, *next = m->sibling;

	/* Of one that is open they were sent before: nothing closes it here. */
	if (c->has_late_acks)
		acks_release_member(&h->acks, m);
	/* That of the path ends once in a connection's life, and is its first or its last. */
	if (!own && c->members != m)
		for (before = c->members; before->sibling != m;)
			before = before->sibling;
	if (next && membership_of(next))
		membership_of(next)->before = before;
	if (own)
		table_remove(&h->memberships, &own->node);
	channel_leave(m, before ? &before->sibling : &c->members);
	free(own);
}

/* ----------------------------------------------------------------- coming by name */

static const struct history_since no_since;

/* The first of its memberships begins where it has to; its answer is not queued yet. */
static int membership_place(struct hub *h, struct member *m, const struct history_since *since,
			    struct hub_joined *ret)
{
	struct history_store *s = channel_store(m->channel);
	struct history_start start;
	bool is_asked = since->has_position || since->has_rewind;
	int r;

	*ret = (struct hub_joined){0};
	if (is_asked)
		m->conn->has_positions = true;
	if (since->has_position)
		ret->recovered = HISTORY_NOT_RECOVERED;
	if (!s)
		return 0;
	r = history_begin(&h->shared->history, s, since, m->channel->from, h->env.reactor->now_ns,
			  &start);
	if (r == 0)
		r = channel_begin(m, &start, is_asked);
	turn_charge(&h->env.turn, start.n);
	if (start.epoch)
		*ret = (struct hub_joined){start.epoch, start.sequence, start.earliest,
					   start.recovered};
	if (start.recovered == HISTORY_RECOVERED)
		METRIC_INC(h->env.metrics, history_recovered);
	else if (since->has_position)
		METRIC_INC(h->env.metrics, history_not_recovered);
	history_start_fini(&start);
	return r;
}

static int membership_join(struct hub *h, struct conn *c, const char *name, size_t n, bool is_path,
			   const struct history_since *since, struct hub_joined *ret)
{
	struct channel *ch = channel_by_name(h, name, n);
	struct hub_joined joined;
	int r;

	if (ch && membership_in(h, c, ch))
		return HUB_E_MEMBER;
	/* Before the channel is opened: what is refused leaves nothing behind. */
	if (c->n_members >= h->env.config->max_channels_per_client)
		return HUB_E_TOO_MANY;
	if (!ch) {
		r = channel_open(h, c, name, n, &ch);
		if (r)
			return r;
	}
	r = membership_begin(h, c, ch, is_path);
	if (r == 0) {
		r = membership_place(h, c->members, since ? since : &no_since, ret ? ret : &joined);
		if (r)
			hub_end_membership(h, c->members);
	}
	if (r)
		hub_close_channel_if_empty(h, ch);
	return r;
}

int hub_join(struct hub *h, struct conn *c, const char *name, size_t n,
	     const struct history_since *since, struct hub_joined *ret)
{
	return membership_join(h, c, name, n, false, since, ret);
}

int hub_join_path(struct hub *h, struct conn *c, const char *name, size_t n,
		  const struct history_since *since, struct hub_joined *ret)
{
	return membership_join(h, c, name, n, true, since, ret);
}

int hub_rejoin(struct hub *h, struct conn *c, bool is_path, const struct hub_log *log,
	       const struct hub_place *place)
{
	const struct directory_entry *e = log->entry;
	struct channel *ch = hub_channel_at(h, e->slot, e->generation);
	int r = 0;

	if (ch && membership_in(h, c, ch))
		return HUB_E_MEMBER;
	/* The first one back brings the log; like those that follow it is put back in it below. */
	if (!ch) {
		r = channel_open(h, c, e->name, e->name_len, &ch);
		if (r)
			return r;
		r = channel_load(ch, log->from, log->frame, log->n);
	}
	if (r == 0)
		r = membership_begin(h, c, ch, is_path);
	if (r) {
		hub_close_channel_if_empty(h, ch);
		return r;
	}
	channel_rewind(c->members, place->next, place->own, place->lags);
	return channel_set_mark(c->members, place->replay_to, place->gap_from);
}

void hub_end_rejoining(struct hub *h)
{
	/* Until here nothing was dropped: a member that lags more could still come. */
	HUB_FOREACH_CHANNEL (ch, h)
		channel_end_loading(ch);
}
