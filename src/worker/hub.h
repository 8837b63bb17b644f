/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Where the channels of one worker meet those of the others: joining and leaving
 * by name, publishing, the ring into each worker, notices of who came and went,
 * and the work of each loop turn in its order.
 *
 * Publishing: the message takes its number from the channel's entry, goes into
 * this worker's own log, and is posted to the ring of every other worker that has
 * members. A ring that is full is never waited for: the post goes to the outbox,
 * which keeps the order, the hub marks itself as waiting there and is congested;
 * its clients are not read until the outboxes are empty. Since one message makes
 * at most one post for each worker, and a congested hub publishes nothing, an
 * outbox holds one post. The consumer wakes whoever waits once it has drained.
 * Draining never posts, so no two workers can wait for each other.
 *
 * What no round has taken yet is a channel's backlog. A worker at its bound says so in the
 * channel's entry (`full`), publishing sees it, and the client that published isn't read until
 * no worker says so any more. It is woken by the same pair as above: mark, then look once more;
 * clear, then take the marks. (tests/model/backlog.pml)
 *
 * Members that have much to catch up are another set of the entry (`lagging`), by the same pair:
 * for them acknowledgements of chunks wait, which worker/acks keeps. (hub_backlog.c has both.)
 *
 * Notices get a share of each turn, counted by the members that they go to. Those that
 * are more, or find the hub congested, stay here, channel by channel: a join and a leave
 * of the same client cancel each other, and what is left of a channel's goes out together.
 * So clients that come and go, however often, cost no more than that share.
 */

#include "channel/channel.h"
#include "channel/directory.h"
#include "channel/history.h"
#include "conn/conn.h"
#include "containers/mem.h"
#include "containers/ring.h"
#include "containers/table.h"
#include "wire/frame_variant.h"
#include "worker/acks.h"
#include "worker/admission.h"
#include "worker/connection_log.h"
#include "worker/registry.h"
#include "worker/slow_consumer.h"
#include "worker/transfer.h"

#define HUB_INBOX_SLOTS 8192
/* Members that a turn sends to; of small channels half as many at most. */
#define HUB_MEMBERS_PER_TURN 1024
#define HUB_NOTICES_PER_TURN (HUB_MEMBERS_PER_TURN / 4) /* members that are sent some */
#define HUB_PENDING_NOTICES 16384

static_assert(DIRECTORY_MAX_WORKERS <= 64, "a set of workers is an uint64_t");

struct hub;

/* What the workers of a daemon share. */
struct WB_SHARED hub_shared {
	struct directory directory;
	struct history history;
	struct admission admission;
	struct registry registry;
	struct transfer_shared transfers;
	struct slow_consumer_lags lags;
	alignas(WB_CACHELINE) _Atomic size_t frame_bytes; /* all frames that are alive */
	struct hub *hubs[DIRECTORY_MAX_WORKERS] WB_FROZEN;
	unsigned n_hubs WB_FROZEN;
};

enum hub_result {
	HUB_E_FULL = 1,   /* max_channels */
	HUB_E_TOO_MANY,   /* max_channels_per_client */
	HUB_E_MEMBER,     /* is a member already */
	HUB_E_CONGESTED,  /* rings are full, or the channel is behind: try again later */
	HUB_E_NO_CHANNEL, /* nobody is there */
};

/* Where a member begins, for the answer: see struct history_start. */
struct WB_VALUE hub_joined {
	uint64_t epoch, sequence, earliest;
	enum history_recovered recovered;
};

/* Of who is just being let in: what it is on the way to, until it is open. */
struct WB_VALUE hub_coming {
	bool wants_token;
	bool is_resumed;
	bool waits;      /* for the end of another connection, … */
	unsigned holder; /* … which is one of this worker's */
	uint32_t attempt;
	struct resume_token token;
};

/* Posts that found the ring of another worker full. */
struct WB_OWNER(worker) hub_outbox {
	struct frame *post[DIRECTORY_MAX_WORKERS]; /* one for each other worker, or NULL */
	uint64_t set;                              /* bit i: post[i] is not NULL */
};

/* Notices that wait for the end of congestion, or for their share of a turn. */
struct WB_OWNER(worker) hub_notices {
	struct table pending; /* by whom they are about, and where */
	struct table groups;  /* channels that have some, by the slots of their entries */
	struct list turns;    /* the same channels, whose turn is next first */
	uint32_t left;        /* deliveries that this turn still has for notices */
};

struct WB_SHARED hub {
	struct conn_env env; /* the worker's, like all that is not tagged */
	struct channel_env channels;
	struct frame_maker maker;
	_Atomic size_t unpublished_bytes; /* frames under work: on the accounts of their senders */
	struct zip zip;
	struct arena arena;       /* of the message being decoded */
	struct arena maker_arena; /* of the variant being made */
	struct hub_shared *shared WB_FROZEN;
	struct table by_name;               /* channels, by directory_hash() */
	struct table memberships;           /* all but those of paths */
	struct channel **by_slot WB_FROZEN; /* of the directory; entries are the worker's */
	struct hub_outbox outbox;
	struct hub_notices notices;
	struct list held;  /* channels that members or acknowledgements wait for, by held_node */
	bool is_releasing; /* it had no time for all acknowledgements that wait for nobody now */
	struct acks acks;
	struct transfers transfers;
	struct connection_log log;
	struct hub_joined home; /* of who is just being let in, until it is told */
	struct hub_coming coming;
	struct list takeovers; /* of connections that wait for the end of another: worker/resume */
	struct list absences;  /* channels in which nobody was told yet that somebody left */
	uint64_t sequence;     /* of hub_publish(); 0: there is no position to be told */
	uint64_t flush_at_ns;  /* when what flush_delay holds back is due; 0: nothing */
	unsigned index WB_FROZEN;
	struct ring inbox; /* posts of the other workers */
	/* Bit i: worker i waits for room in inbox. */
	alignas(WB_CACHELINE) _Atomic uint64_t waiting;
	/* Bit i: worker i waits until this one has caught up with a channel. */
	_Atomic uint64_t held_by;
};

/**
 * hub_init() - prepare a worker's hub
 * @h:       all-zero; env.reactor, env.config, env.metrics and env.ops are set
 * @shared:  borrowed; all hubs are entered before any worker starts
 *
 * Return:   0 | -ENOMEM.
 */
int hub_init(struct hub *h, struct hub_shared *shared, unsigned index) WB_NODISCARD;

/* Frees what is left after all connections are gone; drops posts that nobody waits for. */
void hub_fini(struct hub *h);

/* Takes over what a new configuration means for variants, limits and history. */
void hub_configure(struct hub *h);

/* What a channel keeps by a configuration. False: nothing, it has no history. Thread: any. */
WB_ANY_THREAD bool hub_history_limits(const struct config *config, const char *name,
				      struct history_limits *ret);

/**
 * hub_join() - make a connection a member of a channel
 * @name:  @n bytes of UTF-8 without NUL, at most DIRECTORY_NAME_MAX
 * @since: what it says of its place; NULL: nothing
 * @ret:   where it begins; of a channel without history nothing; NULL: nobody asks
 *
 * Others are told by hub_notice_joined(). Of its memberships the new one stands first. What it
 * gets before that is new comes once the answer is queued, at the end of the turn.
 *
 * Return: 0 | HUB_E_MEMBER | HUB_E_TOO_MANY | HUB_E_FULL | -ENOMEM.
 * Cost:   O(1), however many it has, and a step for each message that it gets first.
 */
int hub_join(struct hub *h, struct conn *c, const char *name, size_t n,
	     const struct history_since *since, struct hub_joined *ret) WB_NODISCARD;

/* The same with the channel of its path, whose membership lies in the connection. */
int hub_join_path(struct hub *h, struct conn *c, const char *name, size_t n,
		  const struct history_since *since, struct hub_joined *ret) WB_NODISCARD;

/* Messages of a channel from before this process, as its members may still need them. */
struct WB_OWNER(main) hub_log {
	struct directory_entry *entry; /* held by somebody */
	uint64_t from;                 /* number of the first */
	struct frame **frame;          /* up to the channel's next number; NULL: nobody needs it */
	size_t n;
};

/* Where in it a member was. */
struct WB_VALUE hub_place {
	uint64_t next;      /* number of the next message for it */
	uint64_t own;       /* number + 1 of the last one that it published itself; 0: none */
	bool lags;          /* it could not take @next when that was sent to it */
	uint64_t replay_to; /* of channel_set_mark() */
	uint64_t gap_from;
};

/**
 * hub_rejoin() - make a connection a member again that was one before this process
 * @is_path: of the channel of its path
 *
 * Nobody is told. Before the worker starts. Of its memberships the new one stands first.
 *
 * Return: 0 | HUB_E_MEMBER | HUB_E_FULL | -ENOMEM.
 */
int hub_rejoin(struct hub *h, struct conn *c, bool is_path, const struct hub_log *log,
	       const struct hub_place *place) WB_NODISCARD;

/* All have joined again: what no member is behind of goes. */
void hub_end_rejoining(struct hub *h);

/*
 * Puts posts that wait in the ring into the logs, and those of the outboxes into rings. Where one
 * cannot be kept, its channel's members are closed with 1011. True: there were any. Before a
 * hand-over, when no worker runs.
 */
bool hub_deliver_posts(struct hub *h);

enum hub_telling {
	HUB_TELL_NOBODY,
	HUB_TELL,
	HUB_TELL_LATER, /* after leave_grace, unless its client is back by then */
};

/* Ends a membership, of which the others are told or not. @m is gone after it. Cost: O(1). */
void hub_leave(struct hub *h, struct member *m, enum hub_telling tell);

/*
 * Somebody of the process before has left a channel, and nobody was told yet. Without memory for
 * it others are told at once. Thread: main, before the worker starts.
 */
void hub_restore_absence(struct hub *h, const uint8_t id[16], const char *user_id,
			 const char *channel, uint64_t due_ns);

/* The membership of a connection in a channel, or NULL. Cost: O(1), however many it has. */
struct member *hub_membership(struct hub *h, struct conn *c, const char *name, size_t n);

/* The next process begins behind what is published next: notices and texts, which others see. */
void hub_reserve_number(struct hub *h, struct directory_entry *e);

/**
 * hub_publish() - give a message its place and send it on its way
 * @e:      held by the caller
 * @f:      the caller's alone until now; frozen from here on
 * @sender: who doesn't get it, with its membership; NULL: everyone gets it
 *
 * The hub is not congested. Where the channel is behind, the sender is not read for a while.
 *
 * One that isn't kept in a channel with history comes behind hub_reserve_number().
 *
 * @once:   of a numbered message that is to be published once; NULL: it is published in any case
 *
 * Where the channel has history, and gives positions, h->sequence is the message's `sequence`, or
 * that of the one that it is a duplicate of.
 *
 * Return:  false: it was not published, for what once->outcome says.
 * Owns:    takes the reference.
 */
bool hub_publish(struct hub *h, struct directory_entry *e, struct frame *f, struct member *sender,
		 struct history_once *once);

/* A channel that somebody publishes to who is no member. */
struct WB_OWNER(worker) hub_outlet {
	struct directory_entry *entry;
	bool has_history; /* the message has to be numbered */
};

/* Return: 0 | HUB_E_NO_CHANNEL | -ENOMEM. After 0 comes hub_outlet_fini(). */
int hub_outlet_init(struct hub *h, const char *name, size_t n, struct hub_outlet *ret) WB_NODISCARD;
void hub_outlet_fini(struct hub *h, struct hub_outlet *o);

/**
 * hub_outlet_publish() - publish there, without a sender
 * @ret_members: that the message goes to, in all workers
 *
 * Return:  0 | HUB_E_CONGESTED: @f stays the caller's.
 * Owns:    on success takes the reference.
 */
int hub_outlet_publish(struct hub *h, const struct hub_outlet *o, struct frame *f,
		       uint32_t *ret_members) WB_NODISCARD;

/**
 * hub_acknowledge() - ACKNOWLEDGE of what a client has published, at once or later
 * @through:  the membership that it went through
 * @is_chunk: BINARY_DATA, whose acknowledgement waits for members that are slow
 * @place:    where it stands
 */
void hub_acknowledge(struct hub *h, struct member *through, const void *id, size_t n, bool is_chunk,
		     struct acks_place place);

/* conn_ops.check_acks: those that have waited long enough. */
uint64_t hub_check_acks(struct conn *c, uint64_t now);

/* Tells the other members of a channel that @m's client came: CONNECT. */
void hub_notice_joined(struct hub *h, struct member *m);

/* Whether something is still on its way out, without waiting for a socket. */
bool hub_has_output(struct hub *h);

/* Whether clients wait to be read that had no share of this turn. */
bool hub_has_line(const struct hub *h);

/* Whether the loop has something to do without waiting for an event. */
bool hub_has_work(struct hub *h);

/* The work of one loop turn, after its events. */
void hub_work(struct hub *h);

/* The channel of this worker behind another one, in no order; with NULL the first. */
static inline struct channel *hub_next_channel(const struct hub *h, const struct channel *ch)
{
	struct table_node *node = table_next(&h->by_name, ch ? &ch->name_node : NULL);

	return node ? CONTAINER_OF(node, struct channel, name_node) : NULL;
}

/* All channels of this worker; none may come or go meanwhile. */
#define HUB_FOREACH_CHANNEL(ch, h)                                       \
	for (struct channel *ch = hub_next_channel(h, NULL); ch != NULL; \
	     ch = hub_next_channel(h, ch))

/* The hub that a connection belongs to. */
static inline struct hub *hub_of(struct conn *c)
{
	return CONTAINER_OF(c->env, struct hub, env);
}

static inline const struct hub *hub_of_const(const struct conn *c)
{
	return CONTAINER_OF(c->env, struct hub, env);
}
