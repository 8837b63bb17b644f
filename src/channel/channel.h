/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One worker's part of a channel: the log of its messages and the members that
 * are connected to this worker.
 *
 * The log is a ring indexed by sequence number. A message that comes before its
 * turn (its predecessor is still on the way from another worker) waits in its
 * slot; only what is gapless, up to @end, is sent. So all members see one order.
 *
 * Members are sent to in rounds. A round covers [flushed, round_to): its batch is
 * gathered once and goes to each member with one send; the position in the round
 * survives the turn, so a large channel takes several turns without keeping the
 * loop from reading. A member that isn't caught up when the round comes by *lags*:
 * it pins the slot of its next message and is served when its socket takes more.
 *
 * The log keeps what a lagging member pins and what the round still needs, and
 * drops the rest. Each slot knows how many bytes and messages came before it, so
 * what waits for a member is a subtraction: from where it was pinned up to where
 * rounds have come by it. What none has taken yet is the server's own backlog, and no
 * fault of the member's. What it published itself is kept as a running total. An
 * empty log holds no ring: it goes back to a pool of the worker.
 *
 * What no round has taken yet is the channel's backlog here. At its bound the worker says so in
 * the directory, and publishers are held back until it has gone down to half.
 *
 * Notices are not counted against anybody; when more than message_queue_size of
 * them wait in a log, the older ones are shed and leave empty slots; so do all of a worker that
 * wait for who lags, when they take more than a sixteenth of log_memory.
 */

#include <sys/uio.h>

#include "channel/directory.h"
#include "channel/history.h"
#include "conn/conn.h"
#include "containers/table.h"
#include "wire/frame_variant.h"

#define CHANNEL_BATCH_FRAMES 256           /* of one round */
#define CHANNEL_BATCH_BYTES (1024 * 1024)  /* of one round, but at least one message */
#define CHANNEL_COPY_BYTES (64 * 1024)     /* a batch up to this size is laid out in one piece */
#define CHANNEL_CATCH_UP_BYTES (64 * 1024) /* that one lagging connection is sent in a turn */
#define CHANNEL_BYTES_PER_MEMBER 4096      /* (de)compressed count as much of a turn as one send */
#define CHANNEL_SMALL_MEMBERS 64      /* up to so many, a channel doesn't wait for large ones */
#define CHANNEL_BACKLOG_MESSAGES 8192 /* that no round has taken: then it is behind … */
#define CHANNEL_BACKLOG_SHARE 16      /* … or where they take this part of log_memory */
#define CHANNEL_OWING_MAX 4           /* channels of a worker that are held for members it owes */
#define CHANNEL_OWING_TURNS 16        /* so long, since it was last seen */
#define CHANNEL_RING_SLOTS 64         /* smallest ring, the one that is pooled */

struct WB_OWNER(worker) channel_slot {
	struct frame *frame;   /* reference; NULL: not here yet, or shed */
	uint64_t bytes_before; /* of all messages of this log before this one, notices left out */
	uint32_t messages_before;
	uint32_t pins; /* lagging members whose next message this is */
};

/* Rings of the smallest size that no log needs now. */
struct WB_OWNER(worker) channel_pool {
	struct channel_slot *ring[32];
	unsigned n;
};

/*
 * How much comes through a channel. A window of about a second is closed by the message that comes
 * behind it: no timer, and nothing for a channel in which nothing happens.
 */
struct WB_OWNER(worker) channel_window {
	uint32_t tick;     /* when it began [2^20 ns]; wraps */
	uint32_t messages; /* of the channel, at that time; wraps */
	uint64_t bytes;
	uint32_t last_messages; /* a second, in the window before */
	uint64_t last_bytes;
};

struct WB_VALUE channel_rate {
	uint64_t messages, bytes; /* a second */
};

/* The messages of a round for all members that have the same key of variants. */
struct WB_OWNER(worker) channel_batch {
	uint64_t serial; /* channel_env.batch_serial when it was gathered */
	int n_iov;
	unsigned n_frames; /* that are in it */
	size_t bytes;
	struct iovec iov[CHANNEL_BATCH_FRAMES];
	uint8_t *copy; /* CHANNEL_COPY_BYTES, once it was needed */
};

/* What the channels of a worker share. */
struct WB_OWNER(worker) channel_env {
	struct conn_env *conn;
	struct frame_maker *maker;
	struct history *history; /* of all workers */
	struct table marks;      /* what is due to be said to members beside their messages */
	unsigned worker;         /* whose they are */
	uint64_t notice_bytes;   /* of all notices in their logs */
	uint64_t backlog_bytes;  /* of all that no round has taken */
	/* Channels whose members wait for this worker; NULL: none. And when they were seen to. */
	struct channel *owing[CHANNEL_OWING_MAX];
	uint64_t owing_turn[CHANNEL_OWING_MAX];
	unsigned n_owing;
	bool has_caught_up; /* one that was behind isn't any more; whoever looks at it clears it */
	uint8_t step_shift; /* how many members a round visits between two looks at the clock */
	struct list grown;  /* small channels that have something to flush, by grown_node */
	struct list grown_large; /* the others, and those that need more than a share */
	struct channel_pool pool;
	uint64_t batch_serial; /* batches with another one are of an earlier round or channel */
	struct channel_batch batch[FRAME_N_VARIANT_KEYS]; /* by key */
};

struct WB_OWNER(worker) channel {
	struct channel_env *env;
	struct directory_entry *entry; /* held until the last member here goes */
	uint32_t generation;           /* of the entry */
	uint32_t n_members;
	uint32_t cap_members;
	uint32_t cursor;         /* members that the present round has passed */
	struct member **members; /* &only while there is room for one; first those of the cursor */
	struct member *only;
	struct channel_slot *slots; /* NULL while the log is empty */
	uint64_t from;              /* oldest message kept */
	uint64_t flushed;           /* members that don't lag have everything before it */
	uint64_t round_to;          /* end of the present round; flushed: there is none */
	uint64_t end;               /* behind the last message without a gap before it */
	uint64_t high;              /* behind the last message that is here */
	uint64_t bytes;             /* of all messages up to end, notices left out */
	uint32_t messages;          /* number of them (wraps) */
	uint32_t mask;              /* slots - 1 */
	uint32_t n_notices;         /* kept in the log */
	union {
		uint64_t whole_from; /* while it is loaded: from here on all of it is here */
		uint64_t shed_to;    /* notices before it are shed */
	};
	uint64_t backlog_bytes; /* memory of all from flushed up to high */
	struct channel_window window;
	uint32_t n_held;  /* members that wait for all workers to catch up */
	uint32_t n_slow;  /* members that are slow: the bit in the entry's `lagging` */
	bool is_behind;   /* its backlog came to its bound: the bit in the entry's `full` */
	bool is_owing;    /* members that read on wait for this worker: the same bit */
	bool is_flushing; /* it stays, even without members */
	bool is_lost;     /* a message could not be kept: the members here must go */
	/* By the configuration: */
	uint32_t notice_limit;
	bool has_history;    /* this worker uses its store */
	bool is_stamped;     /* something is said of each message beside its channel */
	bool stamps_sender;  /* who published it */
	uint8_t slow_policy; /* enum config_slow_consumer */
	struct list grown_node;
	struct list held_node;       /* in the hub, while members or acknowledgements wait */
	struct list late_acks;       /* of worker/acks: those that wait for slow members */
	struct table_node name_node; /* in the hub's channels */
};

/**
 * channel_init() - a channel that this worker just joined
 * @ch:    all-zero
 * @from:  first message that is certain to come
 *
 * Owns:   takes over the hold on @e.
 */
void channel_init(struct channel *ch, struct channel_env *env, struct directory_entry *e,
		  uint64_t from);

/* Drops the log. All members have left before. */
void channel_fini(struct channel *ch);

/**
 * channel_join() - make a connection a member, from the next message on
 * @m:     all-zero
 *
 * Return: 0 | -ENOMEM.
 */
int channel_join(struct channel *ch, struct member *m, struct conn *c) WB_NODISCARD;

/**
 * channel_load() - fill an empty log with messages that were sent to others already
 * @from:  number of the first
 * @frame: @n of them, up to the channel's next number; NULL: nobody needs it. Borrowed
 *
 * Members that join are not behind; channel_rewind() says who is. Before the worker starts.
 *
 * Return: 0 | -ENOMEM.
 */
int channel_load(struct channel *ch, uint64_t from, struct frame **frame, size_t n) WB_NODISCARD;

/**
 * channel_begin() - put a member that has just joined where its history begins
 * @start:     of history_begin(), with the log's @from as @before
 * @wants_end: POSITION is to say where what it asked for ends
 *
 * Rounds come by it from where the log ends now; up to there it lags. Its answer is sent before
 * this, so that it comes before the messages.
 *
 * Return: 0 | -ENOMEM.
 */
int channel_begin(struct member *m, const struct history_start *start, bool wants_end) WB_NODISCARD;

/**
 * channel_send_position() - POSITION, of how far a member has got, behind all that it was sent
 * @request: that it answers, @n bytes; NULL: none
 *
 * A GAP that is due comes before it. The connection may be gone after it.
 */
void channel_send_position(struct member *m, const void *request, size_t n);

/* How far it has got, and in what. Its name is the channel's. */
void channel_position(const struct member *m, Websocket__Position *ret);

/* What is due to a member, as places; UINT64_MAX where it isn't. And to set it again. */
void channel_get_mark(const struct member *m, uint64_t *ret_replay_to, uint64_t *ret_gap_from);
int channel_set_mark(struct member *m, uint64_t replay_to, uint64_t gap_from) WB_NODISCARD;

/* The store that a channel has here, or NULL. */
static inline struct history_store *channel_store(const struct channel *ch)
{
	return WB_UNLIKELY(ch->has_history) ? history_of(ch->env->history, ch->entry) : NULL;
}

/*
 * Puts a member back to message @next; further than the log goes back means to its start. Before
 * @own there may be messages of its own, which it won't get. Unless it @lags, rounds come by it
 * with the rest.
 */
void channel_rewind(struct member *m, uint64_t next, uint64_t own, bool lags);

/* Number + 1 of the last message of its own that it has not passed; 0: there is none. */
uint64_t channel_last_own(const struct member *m);

/* Drops what nobody was put back to; what is left for rounds gets its turn. */
void channel_end_loading(struct channel *ch);

/* A member publishes @f, which it won't get itself; before the log has it. */
void channel_note_own(struct member *m, const struct frame *f);

/* A member published to a channel that is behind: its connection is paused … */
void channel_hold(struct member *m);

/* … until all that wait for the channel go on. */
void channel_release(struct channel *ch);

/* Drops all notices that only wait for those that lag. */
void channel_shed_all_notices(struct channel *ch);

/* Ends a membership, which @at in its connection's memberships points to; @m is all-zero again. */
void channel_leave(struct member *m, struct member **at);

/**
 * channel_append() - put a message into the log
 * @f:     borrowed; the log takes a reference
 *
 * Return: 0 | -ENOMEM: the message is lost for this worker's members.
 */
int channel_append(struct channel *ch, struct frame *f) WB_NODISCARD;

/* It has something to flush: it gets its turn. */
void channel_want_flush(struct channel *ch);

/**
 * channel_flush() - send what is new to the members
 * @budget: members that may still be visited in this turn; counted down, also for messages
 *          that are compressed or decompressed for one
 * @share:  of that, about what this channel may use
 *
 * Ends early where the phase of the turn is over, but does a step of its work at least.
 * Connections may die meanwhile; the channel itself stays, even without members.
 *
 * Return: true when nothing is left to flush.
 */
bool channel_flush(struct channel *ch, unsigned *budget, unsigned share);

/* Sends CHANNEL_CATCH_UP_BYTES of what a connection's memberships lag behind; it can send now. */
void channel_catch_up(struct conn *c);

/* What a member meets here that reads too slowly. */
static inline enum config_slow_consumer channel_slow_policy(const struct channel *ch)
{
	return (enum config_slow_consumer)ch->slow_policy;
}

/* A connection has become slow, or isn't any more: all its channels count that. O(memberships). */
void channel_set_slow(struct conn *c, bool is_slow);

/* What comes through a channel now: of the last whole second, or less where it fell silent. */
struct channel_rate channel_rate(const struct channel *ch);

/**
 * channel_owe() - note that a connection which reads on waits for this worker
 * @c:  is_owed; of those that a turn had no time for, the one that waits longest
 *
 * Where more than half of its limits wait, the channels that it lags in are behind as
 * if it were the worker's backlog: who publishes is not read, or the server's lateness would
 * become the member's. At most CHANNEL_OWING_MAX of a worker's.
 */
void channel_owe(const struct conn *c);

/* Ends that for channels where it was not seen for some turns; @all: in this turn nobody waits. */
void channel_end_owing(struct channel_env *env, bool all);

/*
 * What waits for a connection: its private queue and what rounds have passed that its
 * memberships lag behind, without what it sent itself. O(memberships) for who lags.
 */
void channel_backlog(const struct conn *c, uint64_t *ret_bytes, uint64_t *ret_messages);

/* The same without what may be skipped. */
void channel_backlog_kept(const struct conn *c, uint64_t *ret_bytes, uint64_t *ret_messages);

/* The same with its own messages, which it won't get, but which are kept for it, too. */
void channel_backlog_bound(const struct conn *c, uint64_t *ret_bytes, uint64_t *ret_messages);

/**
 * channel_skip() - drop a connection's oldest waiting messages, in channels that skip
 * @bytes, @messages: until no more than this wait in its channels
 *
 * Return: messages that it will not get.
 */
uint64_t channel_skip(struct conn *c, uint64_t bytes, uint64_t messages);

/* Frees what the worker's channels shared. */
void channel_env_fini(struct channel_env *env);

/* Asserts the invariants of the log and the members. For tests. */
void channel_check(const struct channel *ch);
