/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What channels keep of what was said, for those that come back or are new.
 *
 * Each channel with history has a store: its last messages, within three bounds, and its
 * place: an epoch, the number of the last message, the earliest position from which all is kept.
 * A position means that everything up to and with a number is known; a message's number on the
 * wire, its `sequence`, is its place in the channel's order + 1, so position n stands right before
 * the message whose place is n.
 *
 * Publishing to such a channel takes the number, keeps the message and reads the set of workers
 * under the store's lock. So what is kept has no gap that isn't one of messages that nobody
 * keeps (notices, relayed texts), and whoever sets a worker's bit and then looks under the lock
 * finds every message either here or on its way to that worker.
 *
 * A store outlives its channel's members. When history_memory is full, those without members lose
 * what they keep, the one that was silent longest first; then whoever has most loses its oldest.
 * Without messages a store still is the channel's place. There are as many places without members
 * as there may be channels; past that the one that was silent longest goes, and its channel begins
 * anew, with another epoch.
 *
 * Stores come, go, and are chosen for giving something up under one mutex, which no message takes
 * while there is memory. Whoever holds it may take a store's lock, never the other way round.
 *
 * What is kept lies in memory that outlives the process (channel/history_file), from before anybody
 * gets it; so do the places. A store knows its messages by their places in that memory, and one
 * that another process has left is looked at only when somebody wants it.
 *
 * History can be turned on and off by a reload, while messages are on their way that were made for
 * a channel of the other kind. So a store that is made during a reload only *starts*: it gives no
 * positions and keeps nothing until history_settle(), behind which no worker has any of those.
 */

#include <pthread.h>

#include "base/base.h"
#include "base/clock.h"
#include "channel/directory.h"
#include "channel/history_file.h"
#include "channel/history_keys.h"
#include "containers/list.h"
#include "containers/siphash.h"
#include "wire/frame_kept.h"

#define HISTORY_PLACE_BYTES 512 /* of history_memory, for a store without messages */
/* A store's numbers, notices included, span at most as many: to lay them out costs a slot each. */
#define HISTORY_SPAN_MAX ((uint64_t)1 << 20)

/* Bounds of what one channel keeps; all of them hold. */
struct WB_VALUE history_limits {
	uint64_t messages; /* 1 to 1000000 */
	uint64_t bytes;    /* of messages as they are sent */
	uint64_t age_ns;
};

struct WB_SHARED history_store {
	pthread_mutex_t lock;
	struct directory_entry *entry WB_FROZEN; /* pinned */
	uint64_t epoch WB_FROZEN;
	_Atomic uint64_t earliest; /* written under the lock: position behind which all is kept */
	uint32_t *kept; /* under the lock, as all up to @limits: a ring of places, oldest at head */
	uint32_t head;
	uint32_t n;
	uint32_t cap;               /* of @kept; a power of two, or 0 */
	struct history_keys *keys;  /* of those of the kept that asked for it; NULL: none did */
	struct history_head *noted; /* what the next process finds of it; NULL: nothing */
	uint64_t newest;            /* number of the newest message that was kept; 0: none yet */
	uint64_t reserved;          /* numbers up to this may be given: history.reserved follows */
	bool has_keys_unread;       /* another process kept them: @keys has nothing so far */
	bool is_changed;            /* and @noted doesn't say so */
	bool is_starting;
	uint64_t bytes; /* of those kept */
	struct history_limits limits;
	uint32_t users; /* under the mutex of all, as what follows: workers that have it open */
	_Atomic uint8_t weight;  /* which of history.weights it is in, by the bytes that it keeps */
	struct list node;        /* in history.all */
	struct list weight_node; /* in history.weights */
	struct list idle_node;   /* in history.idle, while nobody uses it … */
	struct list giving_node; /* … and in history.giving, as long as it keeps something */
};

#define HISTORY_WEIGHTS 40 /* stores that keep up to 2^i bytes */

struct WB_SHARED history {
	struct directory *directory WB_FROZEN;
	struct siphash_key digest_key WB_FROZEN; /* of all keys */
	struct history_file file;
	_Atomic(struct history_store *) *by_slot WB_FROZEN; /* of the directory */
	_Atomic uint64_t *reserved WB_FROZEN;    /* likewise: numbers that are noted as given */
	_Atomic size_t *frame_account WB_FROZEN; /* what is kept no more goes back to that */
	_Atomic size_t bytes;        /* frames that are kept, their variants, and places */
	_Atomic size_t max_bytes;    /* history_memory */
	_Atomic size_t max_pages;    /* bytes that the file may have, torn ones and all */
	_Atomic uint64_t evicted;    /* messages that made room for others, of all bounds */
	_Atomic uint32_t n_messages; /* that are kept */
	pthread_mutex_t mutex;
	/* Under the mutex, as what follows: stores; that was looked at last, last. */
	struct list all;
	struct list idle;   /* that nobody uses; the one that was silent longest first */
	struct list giving; /* likewise, that keep something */
	struct list weights[HISTORY_WEIGHTS];
	uint32_t n_stores;
	uint32_t n_idle;
	bool is_reloading;
};

/**
 * history_init() - no stores
 * @h:        all-zero
 * @d:        borrowed; has room for places beside its channels
 * @account:  borrowed; charged with the frames that aren't kept
 * @fd, @shelves: as history_file_init()
 *
 * Return:    0 | -ENOMEM | -errno: no random numbers, or nothing can be kept.
 */
int history_init(struct history *h, struct directory *d, _Atomic size_t *account, int fd,
		 unsigned shelves) WB_NODISCARD;

/* Drops all stores. No worker runs. */
void history_fini(struct history *h);

/* What the file may take at most with that history_memory, in bytes. */
WB_ANY_THREAD uint64_t history_file_most(uint64_t memory);

/*
 * history_memory, from the next message on. @waiting: of what channels have kept so much may still
 * be waited for. Thread: any.
 */
WB_ANY_THREAD void history_set_memory(struct history *h, uint64_t bytes, uint64_t waiting);

/* ---------------------------------------------------------------------------- stores */

/**
 * history_hold() - a worker has a channel with history open from now on
 * @e:      held by the caller
 *
 * Makes the store if there is none, with a new epoch; else it has these limits from now on.
 *
 * Return:  0 | -ENOMEM | -errno: no random epoch.
 * Owns:    one use, until history_release().
 * Thread:  any.
 */
WB_ANY_THREAD int history_hold(struct history *h, struct directory_entry *e,
			       const struct history_limits *limits) WB_NODISCARD;

/* The worker has it open no more. @e is still held by the caller. Thread: any. */
WB_ANY_THREAD void history_release(struct history *h, struct directory_entry *e);

/* A reload turned it off: it keeps and says nothing any more. Thread: any that uses it. */
WB_ANY_THREAD void history_end(struct history *h, struct directory_entry *e);

/* The store of a channel; NULL: it has none. It stays while the caller uses it. Thread: any. */
static inline struct history_store *history_of(const struct history *h,
					       const struct directory_entry *e)
{
	return atomic_load_explicit(&h->by_slot[e->slot], memory_order_acquire);
}

/* Workers are about to learn of another configuration. Thread: main. */
void history_begin_reload(struct history *h);

/* What a channel may keep, by its name; false: it has no history. */
typedef bool history_limits_fn(void *ctx, const char *name, struct history_limits *ret);

/**
 * history_settle() - all workers have had a turn with the new configuration
 * @limits: those of a channel by its name; false: it has no history
 *
 * What was turned on begins to keep; what was turned off is gone.
 *
 * Thread:  main.
 */
void history_settle(struct history *h, uint64_t now_ns, history_limits_fn *limits, void *ctx);

/* A store as another process had it, which could not leave the memory that it lay in. */
struct WB_VALUE history_saved {
	uint64_t epoch, earliest;
	struct frame *
		*frames; /* @n messages in their order, each with its place as seq; borrowed */
	size_t n;
	const struct history_key *keys; /* @n_keys of them, which messages with these … */
	const uint32_t *keyed; /* … indexes have, each higher than the one before; borrowed */
	size_t n_keys;
};

/**
 * history_restore() - a store as another process had it
 * @e: held by the caller; has none
 *
 * Return:  0 | -ENOMEM.
 * Thread:  main, before any worker starts.
 */
int history_restore(struct history *h, struct directory_entry *e,
		    const struct history_limits *limits, const struct history_saved *saved)
	WB_NODISCARD;

/* A store whose messages lie where the other process had them. */
struct WB_VALUE history_left {
	uint64_t epoch, earliest, newest;
	uint32_t head;    /* place of what is noted of it; 0: nothing */
	uint64_t bytes;   /* of its messages */
	uint64_t charged; /* what they take of history_memory */
	bool has_keys;
	const uint32_t *places; /* of its messages, oldest first: @n of them, borrowed */
	size_t n;
};

/* The same for what was left in the file: as it is, unlooked at. */
int history_restore_left(struct history *h, struct directory_entry *e,
			 const struct history_limits *limits, const struct history_left *left)
	WB_NODISCARD;

/* A channel has no history any more: what was left of it in the file is nobody's. */
void history_drop_left(struct history *h, const struct history_left *left);

/* ------------------------------------------------------------------ what there was before */

#define HISTORY_CRASHES 3                /* of as many processes, one after another, … */
#define HISTORY_CRASH_NS (60 * NS_PER_S) /* … so soon: its history is given up */

/*
 * What the file says of another process that had it is decided once, before any store is made: it
 * was handed over (history_take_handed_over(), history_restore_left()), or history_take_over().
 */

/*
 * Whether it was left for us by the hand-over with this number. True: the stores come one by
 * one.
 */
bool history_take_handed_over(struct history *h, uint64_t nonce, uint64_t now_ns);

enum history_past {
	HISTORY_PAST_NONE,      /* nobody was there before, or all is decided */
	HISTORY_PAST_CRASHED,   /* all of it that is whole is here */
	HISTORY_PAST_FOREIGN,   /* other programs have run in between: nothing of it counts */
	HISTORY_PAST_SET_ASIDE, /* it has killed too many that have taken it over */
};

/* What was found of a process that has died. */
struct WB_VALUE history_recovery {
	uint32_t channels;
	uint64_t messages;
	uint32_t torn; /* of those, which have lost their older messages */
	uint32_t lost; /* places and channels that begin anew */
	int error;     /* it could not be made empty: nothing can be kept; else 0 */
};

/**
 * history_take_over() - what is whole of the history of a process that has died
 * @is_foreign: that isn't so: somebody else has served meanwhile
 * @limits_of:  what a channel may keep by its name; false: it has no history
 *
 * A channel goes on with its epoch where the newest message that it ever noted is whole; behind
 * one that isn't all is kept. Its numbers go on behind all that were ever given.
 *
 * Thread:  main, before any worker starts.
 * Cost:    once over all that is kept.
 */
enum history_past history_take_over(struct history *h, bool is_foreign, uint64_t now_ns,
				    history_limits_fn *limits_of, void *ctx,
				    struct history_recovery *ret);

/**
 * history_hand_over() - it is left for whoever knows this number
 *
 * No worker runs. history_serve() takes that back.
 *
 * Return: 0 | -errno: no random number.
 */
int history_hand_over(struct history *h, uint64_t *ret_nonce) WB_NODISCARD;

/* From here on a process that dies has died with it. */
void history_serve(struct history *h);

/* --------------------------------------------------------------------------- messages */

enum history_outcome {
	HISTORY_PUBLISHED,
	HISTORY_DUPLICATE, /* it was published before, and is kept */
	HISTORY_UNKNOWN,   /* a resend of what may have been published, and isn't kept any more */
	HISTORY_E_NO_MEMORY,
};

/* A message that is to be published once, however often it is sent. */
struct WB_VALUE history_once {
	struct history_key key; /* its digest by the history's digest_key */
	bool is_resend;         /* it names … */
	uint64_t known;         /* … the last number that its client knew when it sent it first */
	enum history_outcome outcome; /* of history_publish() */
};

/**
 * history_publish() - the next number of the channel, for a message that is kept
 * @f:           FRAME_NUMBERED; one that is larger than the bound for bytes isn't kept, and
 *               `earliest` moves to it
 * @once:        or NULL; with any other outcome than HISTORY_PUBLISHED nothing is done with @f
 * @ret_workers: as directory_take()
 *
 * To look for the message and to publish it is one step: of two that bring it at once one does.
 *
 * Return:  its `sequence`, or of a duplicate the first one's; 0: the channel gives no positions
 *          yet, or there is none.
 * Thread:  any that uses the store.
 * Cost:    as directory_take(), a lock, and what has to go for it.
 */
WB_ANY_THREAD uint64_t history_publish(struct history *h, struct history_store *s, struct frame *f,
				       struct history_once *once, uint64_t *ret_workers);

/**
 * history_reserve() - a message that isn't kept is about to take a number of such a channel
 * @e:      held by the caller
 *
 * So that the next process begins behind it, which others see. Numbers are reserved ahead for all
 * threads that may take one at this moment.
 *
 * Cost:    two loads; once in HISTORY_RESERVED numbers two locks.
 */
WB_ANY_THREAD void history_reserve(struct history *h, struct directory_entry *e);

/* What somebody says that joins. */
struct WB_VALUE history_since {
	bool has_position;
	bool has_rewind;
	uint64_t epoch, sequence; /* the position */
	uint32_t rewind;          /* the last so many first; counts where the position doesn't */
};

enum history_recovered { HISTORY_NOT_ASKED, HISTORY_RECOVERED, HISTORY_NOT_RECOVERED };

/* Where it begins. */
struct WB_VALUE history_start {
	uint64_t epoch;    /* 0: the channel has no history */
	uint64_t sequence; /* delivery begins behind it */
	uint64_t earliest;
	uint64_t last; /* number of the last message so far */
	enum history_recovered recovered;
	struct frame **frames; /* kept ones from there on, each a reference; by malloc() */
	size_t n;
};

/**
 * history_begin() - where a member begins, and what it gets first
 * @before: messages at this place of the order, and behind it, the caller has or will get
 * @now_ns: what is too old then isn't kept any more
 *
 * The caller's worker is in the entry's set already.
 *
 * Return:  0 | -ENOMEM.
 * Owns:    @ret->frames, of history_start_fini().
 * Cost:    under the lock: a search, and a reference for each message.
 */
WB_ANY_THREAD int history_begin(struct history *h, struct history_store *s,
				const struct history_since *since, uint64_t before, uint64_t now_ns,
				struct history_start *ret) WB_NODISCARD;

/* Gives back references. NULL is fine within. */
void history_start_fini(struct history_start *start);

/* What there is, for who only looks. */
struct WB_VALUE history_figures {
	uint64_t epoch; /* 0: the channel has none */
	uint64_t sequence;
	uint64_t earliest;
	uint64_t messages, bytes;
};

WB_ANY_THREAD struct history_figures history_look(struct history_store *s);

/**
 * history_expire() - drop what is older than it may be
 * @max:    stores that are looked at, in turn
 *
 * Thread:  main.
 */
void history_expire(struct history *h, uint64_t now_ns, unsigned max);

/* All stores, while no worker runs. */
#define HISTORY_FOREACH(node, h) LIST_FOREACH (node, &(h)->all)

/*
 * Number @i of those that it keeps, oldest first: its slot. Under the lock, or while no worker
 * runs.
 */
static inline struct frame_kept *history_kept_at(const struct history *h,
						 const struct history_store *s, uint32_t i)
{
	uint32_t place = s->kept[(s->head + i) & (s->cap - 1)];

	return CONTAINER_OF(shm_heap_at(&h->file.heap, place), struct frame_kept, slot);
}
