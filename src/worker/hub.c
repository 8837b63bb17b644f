/* SPDX-License-Identifier: MIT */
#include "worker/hub.h"

#include "io/log.h"
#include "worker/hub_private.h"

#define ARENA_FIRST_BYTES (16 * 1024)

int hub_init(struct hub *h, struct hub_shared *shared, unsigned index)
{
	int error;

	h->shared = shared;
	h->index = index;
	/* Everything points into this struct, which never moves: it lies in the worker's. */
	h->env.frame_account = &shared->frame_bytes;
	list_init(&h->channels.grown);
	list_init(&h->channels.grown_large);
	hub_notices_init(h);
	list_init(&h->takeovers);
	list_init(&h->held);
	table_init(&h->by_name);
	table_init(&h->memberships);
	acks_init(&h->acks);
	transfers_init(&h->transfers, &shared->transfers, &h->acks, index, h->env.metrics);
	h->channels.conn = &h->env;
	h->channels.history = &shared->history;
	table_init(&h->channels.marks);
	h->channels.worker = index;
	h->channels.maker = h->env.maker = &h->maker;
	h->maker.zip = &h->zip;
	h->maker.arena = &h->maker_arena;
	zip_init(&h->zip);
	hub_configure(h);
	error = conn_env_init(&h->env);
	if (!error)
		error = hub_channels_init(h);
	return error ? error : ring_init(&h->inbox, HUB_INBOX_SLOTS);
}

void hub_configure(struct hub *h)
{
	const struct config *config = h->env.config;
	/* A message that is decoded takes more room than its bytes: its structs, its strings. */
	size_t limit = 2 * config->max_message_size + 64 * 1024;

	hub_channels_configure(h);
	h->maker.level = (unsigned)config->compression_level;
	h->maker.max_frame = config->max_frame_size;
	h->maker.max_message = config->max_message_size;
	h->maker.unpack_to = config->compression_max_size;
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
	/* Posts hold references: what no worker takes any more is given back here. */
	while (h->inbox.cells && (f = ring_pop(&h->inbox)))
		frame_unref(f);
	ring_fini(&h->inbox);
	for (size_t i = 0; i < ARRAY_LEN(h->outbox.post); i++)
		h->outbox.post[i] = frame_unref(h->outbox.post[i]);
	hub_notices_fini(h);
	acks_fini(&h->acks);
	hub_channels_fini(h);
	channel_env_fini(&h->channels);
	conn_env_fini(&h->env);
	arena_fini(&h->arena);
	arena_fini(&h->maker_arena);
	buf_fini(&h->maker.scratch);
	buf_fini(&h->maker.copy);
	deflater_fini(&h->maker.deflater);
	zip_fini(&h->zip);
}

/* ------------------------------------------------------------------ what there is to do */

static bool has_grown(const struct hub *h)
{
	return !list_is_empty(&h->channels.grown) || !list_is_empty(&h->channels.grown_large);
}

/* Channels have grown, and flush_delay isn't over yet. */
static bool is_held_back(const struct hub *h)
{
	return h->flush_at_ns > h->env.reactor->now_ns &&
	       !conn_env_is_paused(&h->env, CONN_PAUSE_STOPPING);
}

bool hub_has_output(struct hub *h)
{
	return !ring_is_empty(&h->inbox) || !list_is_empty(&h->env.to_write) ||
	       !list_is_empty(&h->env.to_catch_up) || (has_grown(h) && !is_held_back(h));
}

bool hub_has_line(const struct hub *h)
{
	return !list_is_empty(&h->env.to_read) || !list_is_empty(&h->env.to_open);
}

bool hub_has_work(struct hub *h)
{
	return hub_has_output(h) || hub_has_line(h) || h->is_releasing ||
	       !list_is_empty(&h->env.to_read_next) || hub_outbox_may_go(h) ||
	       (h->notices.pending.n > 0 && !conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED));
}

/* -------------------------------------------------------------------- loop turn */

/*
 * Whoever wants to go on once more is entered anew while this works: so each list is
 * taken whole before it is walked, and what is entered meanwhile waits for the next turn.
 */
static void take_list(struct list *mine, struct list *from)
{
	list_init(mine);
	list_splice_tail(mine, from);
}

/* Those that had no turn come first in the next one. */
static void put_back_list(struct list *mine, struct list *to)
{
	list_splice_tail(mine, to);
	list_splice_tail(to, mine);
}

/* Whom this list holds is read, while the phase has time. */
static void read_list(struct conn_env *env, struct list *from)
{
	struct list now;

	if (list_is_empty(from))
		return;
	take_list(&now, from);
	/* One at least, whatever came before: the events of every turn may use up its time. */
	do
		conn_read(CONTAINER_OF(list_pop(&now), struct conn, read_node));
	while (!turn_is_over(&env->turn) && !list_is_empty(&now));
	put_back_list(&now, from);
}

/*
 * First those that an event brought, then those that had their share in a turn before, or were
 * paused: who says little never stands in line behind hundreds that may go on all at once.
 */
static void read_on(struct hub *h)
{
	struct conn_env *env = &h->env;

	if (list_is_empty(&env->to_read) && list_is_empty(&env->to_read_next))
		return;
	turn_look(&env->turn); /* what timers did was charged to nobody */
	read_list(env, &env->to_read);
	read_list(env, &env->to_read_next);
}

/* However many come at once: those that are there don't wait for them. */
static void open_on(struct hub *h)
{
	struct conn_env *env = &h->env;
	struct list now;

	if (list_is_empty(&env->to_open))
		return;
	turn_begin_phase(&env->turn, TURN_HANDSHAKE_NS);
	take_list(&now, &env->to_open);
	/* Each may be a signature: a step by itself. */
	for (turn_look(&env->turn); !list_is_empty(&now); turn_look(&env->turn)) {
		if (turn_is_over(&env->turn))
			break;
		conn_read(CONTAINER_OF(list_pop(&now), struct conn, read_node));
	}
	put_back_list(&now, &env->to_open);
}

static void end_congestion(struct hub *h)
{
	if (!conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED) || !hub_outbox_send(h))
		return;
	conn_env_resume(&h->env, CONN_PAUSE_CONGESTED);
}

/* A channel that lost a message. */
static void close_members(struct hub *h, struct channel *ch)
{
	ch->is_flushing = true; /* keeps it until the last member is out */
	while (ch->n_members > 0) {
		struct conn *c = ch->members[0]->conn;

		log_line_limited(LOG_ERR,
				 "out of memory for the messages of a channel; its members "
				 "are closed with " WS_CODE_TEXT(INTERNAL_ERROR));
		conn_close(c, WS_CODE_INTERNAL_ERROR, NULL);
		/* Closing left all channels, unless the connection was closing already. */
		if (ch->n_members > 0 && ch->members[0]->conn == c)
			hub_end_membership(h, ch->members[0]);
	}
	ch->is_flushing = false;
}

static struct channel *find_lost(const struct list *grown)
{
	LIST_FOREACH (node, grown) {
		struct channel *ch = CONTAINER_OF(node, struct channel, grown_node);

		if (ch->is_lost)
			return ch;
	}
	return NULL;
}

/* Closing a member may end other channels of the list, so that is begun anew each time. */
static bool close_lost_channels(struct hub *h)
{
	bool had_any = false;
	struct channel *ch;

	while ((ch = find_lost(&h->channels.grown)) || (ch = find_lost(&h->channels.grown_large))) {
		list_del(&ch->grown_node);
		close_members(h, ch);
		hub_close_channel_if_empty(h, ch);
		had_any = true;
	}
	return had_any;
}

bool hub_deliver_posts(struct hub *h)
{
	bool had_any;

	/* They were published, and nobody is waited for any more. */
	acks_release_all(&h->acks);
	had_any = hub_take_posts(h) || conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED) ||
		  h->notices.pending.n > 0;

	end_congestion(h);
	/* They may be too much once more. */
	hub_notices_send(h, true);
	/* No turn follows that would see to it: what could not be kept is told here. */
	had_any |= close_lost_channels(h);
	return had_any;
}

/*
 * Whom this list holds is flushed, while the phase has time; one at least. Return: the first that
 * had no turn, or NULL.
 */
static const struct conn *write_list(struct conn_env *env, struct list *from)
{
	const struct conn *left = NULL;
	struct list now;

	take_list(&now, from);
	do
		conn_flush(CONTAINER_OF(list_pop(&now), struct conn, write_node));
	while (!turn_is_over(&env->turn) && !list_is_empty(&now));
	if (!list_is_empty(&now))
		left = CONTAINER_OF(list_first(&now), struct conn, write_node);
	put_back_list(&now, from);
	return left;
}

/*
 * Who waits for one answer doesn't stand in line behind hundreds that have much to catch up. Of
 * those, who waits in vain for a turn waits for this worker, if it reads on.
 */
static void write_out(struct hub *h)
{
	struct conn_env *env = &h->env;
	const struct conn *left;

	turn_begin_phase(&env->turn, TURN_ANSWER_NS);
	if (!list_is_empty(&env->to_write))
		(void)write_list(env, &env->to_write);
	if (WB_LIKELY(list_is_empty(&env->to_catch_up))) {
		if (WB_UNLIKELY(h->channels.n_owing > 0))
			channel_end_owing(&h->channels, true);
		return;
	}
	left = write_list(env, &env->to_catch_up);
	if (left && left->is_owed && left->state == CONN_OPEN)
		channel_owe(left);
	channel_end_owing(&h->channels, !left);
}

/* True when nothing is left to flush. */
static bool flush_channel(struct hub *h, struct channel *ch, unsigned *budget, unsigned share)
{
	if (!ch->is_lost)
		return channel_flush(ch, budget, share);
	close_members(h, ch);
	return true;
}

/*
 * One list of channels that have grown, for half of the time that a turn has for sending. What a
 * channel has no budget for goes on among the large ones.
 */
static void flush_list(struct hub *h, struct list *from, unsigned *budget, unsigned share)
{
	struct turn *turn = &h->env.turn;
	struct list now;

	if (list_is_empty(from))
		return;
	turn_begin_phase(turn, TURN_SEND_NS / 2);
	turn_look(turn); /* what came before is not on its account */
	take_list(&now, from);
	do {
		struct channel *ch = CONTAINER_OF(list_pop(&now), struct channel, grown_node);

		/* It may have grown meanwhile, and then is in a list already. */
		if (!flush_channel(h, ch, budget, share) && list_is_empty(&ch->grown_node))
			list_add_tail(&h->channels.grown_large, &ch->grown_node);
		hub_close_channel_if_empty(h, ch);
		turn_charge(turn, TURN_CHANNEL);
	} while (*budget > 0 && !turn_is_over(turn) && !list_is_empty(&now));
	put_back_list(&now, from);
}

/*
 * Small channels are sent in the turn in which they grew, whatever the large ones need. Both have
 * time and a budget of their own, so that neither waits for ever.
 */
static void flush_channels(struct hub *h)
{
	unsigned small = HUB_MEMBERS_PER_TURN / 2, large = HUB_MEMBERS_PER_TURN / 2;

	flush_list(h, &h->channels.grown, &small, CHANNEL_SMALL_MEMBERS);
	large += small; /* what they leave of theirs */
	flush_list(h, &h->channels.grown_large, &large, large);
}

/* The first channel that grows starts flush_delay, for all that grow until it is over. */
static void flush_in_time(struct hub *h)
{
	uint64_t now = h->env.reactor->now_ns, delay = h->env.config->flush_delay;

	if (!h->flush_at_ns && !has_grown(h))
		return;
	if (delay && !h->flush_at_ns)
		h->flush_at_ns = now + delay;
	if (!is_held_back(h)) {
		flush_channels(h);
		/* What this turn had no room for goes on in the next one. */
		h->flush_at_ns = delay && has_grown(h) ? now : 0;
	}
	h->env.reactor->wake_ns = h->flush_at_ns;
}

/* The maker only counts; the counters are the worker's. */
static void count_variants(struct hub *h)
{
	struct metrics *m = h->env.metrics;
	struct frame_maker *maker = &h->maker;

	/* Almost always: then there is nothing to add, and nothing to write to. */
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

/*
 * Notices are for those that read: the share of log_memory that they may have, in the logs of all
 * workers, is so small that nobody else ever has to give way to them.
 */
static void shed_notices(struct hub *h)
{
	uint64_t share = h->env.config->log_memory / CHANNEL_BACKLOG_SHARE / h->shared->n_hubs;

	if (h->channels.notice_bytes <= share)
		return;
	HUB_FOREACH_CHANNEL (ch, h)
		channel_shed_all_notices(ch);
}

/* Frames take more than log_memory, or did when this worker looked last, and the others know. */
static bool is_memory_at_stake(struct hub *h)
{
	return atomic_load_explicit(&h->shared->frame_bytes, memory_order_relaxed) >
		       h->env.config->log_memory ||
	       atomic_load_explicit(&h->shared->lags.worst_bytes[h->index], memory_order_relaxed);
}

void hub_work(struct hub *h)
{
	/* What clients say and what others post goes into the logs first … */
	read_on(h);
	open_on(h);
	(void)hub_take_posts(h);
	end_congestion(h);
	/* Those of this turn that were more than its share wait behind those of turns before. */
	if (!list_is_empty(&h->notices.turns)) {
		turn_begin_phase(&h->env.turn, TURN_NOTICES_NS);
		hub_notices_send(h, false);
	}
	/*
	 * … then everything that the turn gathered goes out at once. Answers first: who has one
	 * waiting is not caught up, and a round would have to pass it over.
	 */
	write_out(h);
	flush_in_time(h);
	/* What was sent lets others go on, and those of this worker, too. */
	if (h->channels.has_caught_up)
		hub_wake_held(h);
	h->is_releasing = !list_is_empty(&h->held) && !hub_release_held(h);
	count_variants(h);
	/* Last, since sending has freed what it could: who is still behind now really lags. */
	shed_notices(h);
	if (WB_UNLIKELY(is_memory_at_stake(h)))
		slow_consumer_enforce_memory(&h->channels, &h->shared->lags);
	hub_notices_begin_turn(h);
}
