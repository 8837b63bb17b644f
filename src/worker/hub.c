/* SPDX-License-Identifier: MIT */
#include "worker/hub.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/text.h"
#include "io/log.h"
#include "worker/slow_consumer.h"

#define ARENA_FIRST_BYTES (16 * 1024)

/* A notice that waits: whom it is about, in which channel. */
struct pending_notice {
	struct list node;
	struct member *about; /* of a join: leaving takes the notice back; else NULL */
	Websocket__ControlType type;
	uint8_t id[16];
	uint8_t name_len;
	char name[DIRECTORY_NAME_MAX + 1];
};

static size_t by_slot_bytes(const struct hub *h)
{
	return (size_t)h->shared->directory.max * sizeof(*h->by_slot);
}

int hub_init(struct hub *h, struct hub_shared *shared, unsigned index)
{
	int error;

	h->shared = shared;
	h->index = index;
	h->env.frame_account = &shared->frame_bytes;
	list_init(&h->channels.grown);
	list_init(&h->pending);
	list_init(&h->spool_waiting);
	h->channels.conn = &h->env;
	h->channels.maker = h->env.maker = &h->maker;
	h->maker.zip = &h->zip;
	h->maker.arena = &h->maker_arena;
	zip_init(&h->zip);
	hub_configure(h);
	error = conn_env_init(&h->env);
	if (error)
		return error;
	h->by_slot = mmap(NULL, by_slot_bytes(h), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (h->by_slot == MAP_FAILED) {
		h->by_slot = NULL;
		return -ENOMEM;
	}
	return ring_init(&h->inbox, HUB_INBOX_SLOTS);
}

void hub_configure(struct hub *h)
{
	const struct config *config = h->env.config;
	size_t limit = 2 * config->max_message_size + 64 * 1024;

	h->maker.level = (unsigned)config->compression_level;
	h->maker.max_frame = config->max_frame_size;
	h->maker.max_message = config->max_message_size;
	h->maker.deflate_from = config->compression_threshold;
	h->maker.deflate_to = config->compression_max_size;
	arena_fini(&h->arena);
	arena_fini(&h->maker_arena);
	arena_init(&h->arena, ARENA_FIRST_BYTES, limit);
	arena_init(&h->maker_arena, ARENA_FIRST_BYTES, limit);
}

void hub_fini(struct hub *h)
{
	struct frame *f;

	if (!h->shared)
		return;
	while (h->inbox.cells && (f = ring_pop(&h->inbox)))
		frame_unref(f);
	ring_fini(&h->inbox);
	for (size_t i = 0; i < ARRAY_LEN(h->outbox); i++)
		h->outbox[i] = frame_unref(h->outbox[i]);
	while (!list_is_empty(&h->pending))
		free(CONTAINER_OF(list_pop(&h->pending), struct pending_notice, node));
	if (h->by_slot)
		(void)munmap(h->by_slot, by_slot_bytes(h));
	channel_env_fini(&h->channels);
	conn_env_fini(&h->env);
	arena_fini(&h->arena);
	arena_fini(&h->maker_arena);
	buf_fini(&h->maker.scratch);
	buf_fini(&h->maker.copy);
	deflater_fini(&h->maker.deflater);
	zip_fini(&h->zip);
}

/* ------------------------------------------------------- channels of this worker */

static struct channel *channel_by_name(struct hub *h, const char *name, size_t n)
{
	struct channel *ch;

	HASH_FIND(hh, h->by_name, name, n, ch);
	return ch;
}

static struct channel *channel_by_slot(struct hub *h, uint32_t slot, uint32_t generation)
{
	struct channel *ch = h->by_slot[slot];

	return ch && ch->generation == generation ? ch : NULL;
}

static int channel_open(struct hub *h, const char *name, size_t n, struct channel **ret)
{
	struct channel *ch = calloc(1, sizeof(*ch));
	struct directory_entry *e;
	uint64_t from;
	int r;

	if (!ch)
		return -ENOMEM;
	r = directory_join(&h->shared->directory, name, n, h->index, &e, &from);
	if (r) {
		free(ch);
		return r == DIRECTORY_E_FULL ? HUB_E_FULL : r;
	}
	channel_init(ch, &h->channels, e, from);
	HASH_ADD_KEYPTR(hh, h->by_name, e->name, e->name_len, ch);
	if (!ch->hh.tbl) {
		directory_leave(&h->shared->directory, e, h->index);
		free(ch);
		return -ENOMEM;
	}
	h->by_slot[e->slot] = ch;
	*ret = ch;
	return 0;
}

static void channel_shut_if_empty(struct hub *h, struct channel *ch)
{
	if (ch->n_members > 0 || ch->is_flushing)
		return;
	HASH_DELETE(hh, h->by_name, ch);
	h->by_slot[ch->entry->slot] = NULL;
	channel_fini(ch);
	directory_leave(&h->shared->directory, ch->entry, h->index);
	free(ch);
}

static struct member *membership_in(struct conn *c, const struct channel *ch)
{
	struct member *m = c->members;

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
	if (!ch) {
		r = channel_open(h, name, n, &ch);
		if (r)
			return r;
	}
	r = channel_join(ch, m, c);
	if (r)
		channel_shut_if_empty(h, ch);
	return r;
}

int hub_rejoin(struct hub *h, struct conn *c, struct member *m, const struct hub_log *log,
	       uint64_t next)
{
	const struct directory_entry *e = log->entry;
	struct channel *ch = channel_by_slot(h, e->slot, e->generation);
	int r = 0;

	if (ch && membership_in(c, ch))
		return HUB_E_MEMBER;
	if (!ch) {
		r = channel_open(h, e->name, e->name_len, &ch);
		if (r)
			return r;
		r = channel_load(ch, log->from, log->frame, log->n);
	}
	if (r == 0)
		r = channel_join(ch, m, c);
	if (r)
		channel_shut_if_empty(h, ch);
	else
		channel_rewind(m, next);
	return r;
}

void hub_rejoined(struct hub *h)
{
	struct channel *ch, *next;

	HASH_ITER (hh, h->by_name, ch, next) {
		channel_loaded(ch);
	}
}

/* ------------------------------------------------------------------- publishing */

/*
 * Puts a message into the log of this worker. Where it cannot be kept, its number
 * stays a gap that nothing fills: the members here are closed at the end of the
 * turn, from where no other work on them is under way.
 */
static void append(struct channel *ch, struct frame *f)
{
	if (ch->is_lost || channel_append(ch, f) == 0)
		return;
	ch->is_lost = true;
	if (list_is_empty(&ch->grown_node))
		list_add_tail(&ch->env->grown, &ch->grown_node);
}

static bool outbox_flush(struct hub *h, unsigned to)
{
	struct hub *target = h->shared->hubs[to];

	if (!ring_push(&target->inbox, h->outbox[to]))
		return false;
	h->outbox[to] = NULL;
	h->outbox_set &= ~(1ULL << to);
	reactor_wake(target->env.reactor);
	return true;
}

/*
 * Says that this hub waits for room, and tries once more. Pairs with the exchange
 * in wake_waiting(): of the two one comes first. If it is this one, the consumer
 * sees the mark and wakes; if it is the consumer's, what it drained before is seen
 * here, and the second try finds room.
 */
static void mark_waiting(struct hub *h, unsigned to)
{
	struct hub *target = h->shared->hubs[to];

	atomic_fetch_or_explicit(&target->waiting, 1ULL << h->index, memory_order_acq_rel);
	(void)outbox_flush(h, to);
}

static void post(struct hub *h, unsigned to, struct frame *f)
{
	struct hub *target = h->shared->hubs[to];

	METRIC_INC(h->env.metrics, ring_posts);
	if (ring_push(&target->inbox, frame_ref(f))) {
		reactor_wake(target->env.reactor);
		return;
	}
	WB_ASSERT(!h->outbox[to]); /* a congested hub publishes nothing */
	METRIC_INC(h->env.metrics, ring_overflows);
	h->outbox[to] = f;
	h->outbox_set |= 1ULL << to;
	h->env.is_congested = true;
	mark_waiting(h, to);
}

void hub_publish(struct hub *h, struct directory_entry *e, struct frame *f, struct member *sender)
{
	uint64_t workers;
	struct channel *ch;

	f->slot = e->slot;
	f->generation = e->generation;
	f->sender = sender ? sender->conn->serial : 0;
	f->received_ns = h->env.reactor->now_ns;
	f->seq = directory_take(e, &workers);
	if (sender)
		sender->last_own = f->seq + 1;
	workers &= ~(1ULL << h->index);
	while (workers) {
		unsigned to = (unsigned)__builtin_ctzll(workers);

		workers &= workers - 1;
		post(h, to, f);
	}
	ch = channel_by_slot(h, e->slot, e->generation);
	if (ch)
		append(ch, f);
	frame_unref(f);
}

int hub_publish_name(struct hub *h, const char *name, size_t n, struct frame *f,
		     uint32_t *ret_members)
{
	struct directory_entry *e;

	if (h->env.is_congested)
		return HUB_E_CONGESTED;
	e = directory_pin(&h->shared->directory, name, n);
	if (!e)
		return HUB_E_NO_CHANNEL;
	*ret_members = atomic_load_explicit(&e->members, memory_order_relaxed);
	hub_publish(h, e, f, NULL);
	directory_unpin(&h->shared->directory, e);
	return 0;
}

/* --------------------------------------------------------------------- notices */

static struct frame *notice_frame(struct hub *h, Websocket__ControlType type, const uint8_t id[16],
				  const char *name)
{
	struct msg_builder b;
	struct frame *f;
	char text[37];

	uuid4_format(text, id);
	msg_init_control(&b, type);
	msg_set_session_id(&b, text);
	if (name[0])
		msg_set_channel(&b, name);
	f = frame_from_msg(&b, h->env.config->max_frame_size, h->env.frame_account);
	if (f)
		f->flags |= FRAME_NOTICE;
	return f;
}

static bool notices_are_on(const struct hub *h, struct directory_entry *e)
{
	uint32_t members = atomic_load_explicit(&e->members, memory_order_relaxed);

	return members > 0 && members <= h->env.config->notice_limit && !h->env.is_stopping &&
	       !h->env.is_restoring;
}

/* Takes back a notice that still waits; false when there is none. */
static bool cancel_pending(struct hub *h, Websocket__ControlType type, const uint8_t id[16],
			   const struct directory_entry *e)
{
	LIST_FOREACH_SAFE (node, next, &h->pending) {
		struct pending_notice *p = CONTAINER_OF(node, struct pending_notice, node);

		if (p->type != type || memcmp(p->id, id, sizeof(p->id)) != 0 ||
		    strcmp(p->name, e->name) != 0)
			continue;
		list_del(&p->node);
		free(p);
		h->n_pending--;
		return true;
	}
	return false;
}

static void keep_notice(struct hub *h, Websocket__ControlType type, const uint8_t id[16],
			const struct directory_entry *e, struct member *about)
{
	struct pending_notice *p =
		h->n_pending < HUB_PENDING_NOTICES ? calloc(1, sizeof(*p)) : NULL;

	if (!p) {
		METRIC_INC(h->env.metrics, notices_skipped);
		return;
	}
	p->type = type;
	p->about = about;
	memcpy(p->id, id, sizeof(p->id));
	memcpy(p->name, e->name, e->name_len);
	p->name_len = e->name_len;
	list_add_tail(&h->pending, &p->node);
	h->n_pending++;
}

static void notice(struct hub *h, struct directory_entry *e, Websocket__ControlType type,
		   const uint8_t id[16], struct member *about)
{
	struct frame *f;

	if (!notices_are_on(h, e))
		return;
	if (h->env.is_congested) {
		keep_notice(h, type, id, e, about);
		return;
	}
	f = notice_frame(h, type, id, e->name);
	if (!f)
		return;
	METRIC_INC(h->env.metrics, notices_sent);
	hub_publish(h, e, f, about);
}

static void send_pending(struct hub *h)
{
	while (!h->env.is_congested && !list_is_empty(&h->pending)) {
		struct pending_notice *p =
			CONTAINER_OF(list_pop(&h->pending), struct pending_notice, node);
		struct directory_entry *e =
			directory_pin(&h->shared->directory, p->name, p->name_len);

		h->n_pending--;
		if (e) {
			notice(h, e, p->type, p->id, p->about);
			directory_unpin(&h->shared->directory, e);
		}
		free(p);
	}
}

void hub_notice_joined(struct hub *h, struct member *m)
{
	struct directory_entry *e = m->channel->entry;

	/* It left, and nobody was told yet: then it was here all the time. */
	if (cancel_pending(h, WEBSOCKET__CONTROL_TYPE__DISCONNECT, m->conn->id, e))
		return;
	/* With the newcomer alone there is nobody to tell. */
	if (atomic_load_explicit(&e->members, memory_order_relaxed) > 1)
		notice(h, e, WEBSOCKET__CONTROL_TYPE__CONNECT, m->conn->id, m);
}

void hub_leave(struct hub *h, struct member *m, bool tell)
{
	struct channel *ch = m->channel;
	struct conn *c = m->conn;

	/* It came, and nobody was told yet: then it was never here. */
	if (cancel_pending(h, WEBSOCKET__CONTROL_TYPE__CONNECT, c->id, ch->entry))
		tell = false;
	channel_leave(m);
	if (tell)
		notice(h, ch->entry, WEBSOCKET__CONTROL_TYPE__DISCONNECT, c->id, NULL);
	channel_shut_if_empty(h, ch);
}

/* -------------------------------------------------------------------- loop turn */

/* Channels have grown, and flush_delay isn't over yet. */
static bool is_held_back(const struct hub *h)
{
	return h->flush_at_ns > h->env.reactor->now_ns && !h->env.is_stopping;
}

bool hub_has_output(struct hub *h)
{
	return !ring_is_empty(&h->inbox) || !list_is_empty(&h->env.to_write) ||
	       (!list_is_empty(&h->channels.grown) && !is_held_back(h));
}

/*
 * Congested, and it may be over: the consumer has taken our mark, so there is room
 * and a wake-up is behind us that found this loop awake.
 */
static bool may_go_on(struct hub *h)
{
	uint64_t left = h->outbox_set;

	if (!h->env.is_congested)
		return false;
	while (left) {
		struct hub *target = h->shared->hubs[__builtin_ctzll(left)];

		left &= left - 1;
		if (!(atomic_load_explicit(&target->waiting, memory_order_acquire) &
		      1ULL << h->index))
			return true;
	}
	return h->outbox_set == 0;
}

bool hub_has_work(struct hub *h)
{
	return hub_has_output(h) || !list_is_empty(&h->env.to_read) || may_go_on(h);
}

static void read_on(struct hub *h)
{
	struct list now;

	list_init(&now);
	list_splice_tail(&now, &h->env.to_read);
	for (struct list *node; (node = list_pop(&now));)
		conn_read(CONTAINER_OF(node, struct conn, read_node));
}

/* Tells producers that found the inbox full that there is room again. */
static void wake_waiting(struct hub *h)
{
	/* Always an exchange, also where nobody waits: see mark_waiting(). */
	uint64_t waiting = atomic_exchange_explicit(&h->waiting, 0, memory_order_acq_rel);

	while (waiting) {
		struct hub *producer = h->shared->hubs[__builtin_ctzll(waiting)];

		waiting &= waiting - 1;
		reactor_wake(producer->env.reactor);
	}
}

static bool take_posts(struct hub *h)
{
	struct frame *f;
	unsigned n = 0;

	while (n < HUB_INBOX_SLOTS && (f = ring_pop(&h->inbox))) {
		struct channel *ch = channel_by_slot(h, f->slot, f->generation);

		if (ch)
			append(ch, f);
		frame_unref(f);
		n++;
	}
	if (n > 0)
		wake_waiting(h);
	return n > 0;
}

static void end_congestion(struct hub *h)
{
	uint64_t left = h->outbox_set;

	if (!h->env.is_congested)
		return;
	while (left) {
		unsigned to = (unsigned)__builtin_ctzll(left);

		left &= left - 1;
		/* Still full: the mark may have been taken by a wake-up that came too early. */
		if (!outbox_flush(h, to))
			mark_waiting(h, to);
	}
	if (h->outbox_set)
		return;
	h->env.is_congested = false;
	send_pending(h);
	if (!h->env.is_congested)
		list_splice_tail(&h->env.to_read, &h->env.stalled);
}

bool hub_deliver_posts(struct hub *h)
{
	bool had_any = take_posts(h) || h->env.is_congested;

	end_congestion(h);
	return had_any;
}

static void write_out(struct hub *h)
{
	struct list now;

	list_init(&now);
	list_splice_tail(&now, &h->env.to_write);
	for (struct list *node; (node = list_pop(&now));)
		conn_flush(CONTAINER_OF(node, struct conn, write_node));
}

/* A channel that lost a message. */
static bool close_members(struct channel *ch)
{
	ch->is_flushing = true; /* keeps it until the last member is out */
	while (ch->n_members > 0) {
		struct conn *c = ch->members[0]->conn;

		log_line_limited(LOG_ERR,
				 "out of memory for the messages of a channel; its members "
				 "are closed with " WS_CODE_TEXT(INTERNAL_ERROR));
		conn_close(c, WS_CODE_INTERNAL_ERROR, NULL);
		if (ch->n_members > 0 && ch->members[0]->conn == c)
			channel_leave(ch->members[0]);
	}
	ch->is_flushing = false;
	return true;
}

static void flush_channels(struct hub *h)
{
	unsigned budget = HUB_MEMBERS_PER_TURN;
	struct list now;

	list_init(&now);
	list_splice_tail(&now, &h->channels.grown);
	while (budget > 0 && !list_is_empty(&now)) {
		struct channel *ch = CONTAINER_OF(list_pop(&now), struct channel, grown_node);
		bool is_done = ch->is_lost ? close_members(ch) : channel_flush(ch, &budget);

		if (!is_done && list_is_empty(&ch->grown_node))
			list_add_tail(&h->channels.grown, &ch->grown_node);
		channel_shut_if_empty(h, ch);
	}
	/* Those that had no turn come first in the next one. */
	list_splice_tail(&now, &h->channels.grown);
	list_splice_tail(&h->channels.grown, &now);
}

/* The maker only counts; the counters are the worker's. */
static void count_variants(struct hub *h)
{
	struct metrics *m = h->env.metrics;
	struct frame_maker *maker = &h->maker;

	if (!maker->pack_in && !maker->unpack_in && !maker->deflate_in && !maker->failures)
		return;
	METRIC_ADD(m, pack_in_bytes, maker->pack_in);
	METRIC_ADD(m, pack_out_bytes, maker->pack_out);
	METRIC_ADD(m, unpack_in_bytes, maker->unpack_in);
	METRIC_ADD(m, unpack_out_bytes, maker->unpack_out);
	METRIC_ADD(m, deflate_in_bytes, maker->deflate_in);
	METRIC_ADD(m, deflate_out_bytes, maker->deflate_out);
	METRIC_ADD(m, compression_errors, maker->failures);
	maker->pack_in = maker->pack_out = maker->unpack_in = maker->unpack_out = 0;
	maker->deflate_in = maker->deflate_out = maker->failures = 0;
}

/* The first channel that grows starts flush_delay, for all that grow until it is over. */
static void flush_in_time(struct hub *h)
{
	uint64_t now = h->env.reactor->now_ns, delay = h->env.config->flush_delay;

	if (delay && !h->flush_at_ns && !list_is_empty(&h->channels.grown))
		h->flush_at_ns = now + delay;
	if (!is_held_back(h)) {
		flush_channels(h);
		/* What this turn had no room for goes on in the next one. */
		h->flush_at_ns = delay && !list_is_empty(&h->channels.grown) ? now : 0;
	}
	h->env.reactor->wake_ns = h->flush_at_ns;
}

void hub_work(struct hub *h)
{
	read_on(h);
	(void)take_posts(h);
	end_congestion(h);
	write_out(h);
	flush_in_time(h);
	count_variants(h);
	slow_consumer_enforce_memory(h);
}
