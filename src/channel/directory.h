/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The channels of the whole process. For each one an entry of atomics: the
 * counter that gives messages their place in the channel's one order, the set of
 * workers that have members, the number of members.
 *
 * Publishing touches only the atomics of an entry that the publisher already
 * holds. Names are looked up, and entries come and go, under one mutex, but only
 * when a worker gets its first member of a channel, loses its last one, or the
 * administrator publishes: never for a message. (A table without locks would
 * have to solve reclamation for operations that happen at the rate of joins.)
 *
 * The order that makes joining exact: a publisher takes its number, *then* reads
 * the set; a joining worker sets its bit, *then* reads the counter. All four are
 * sequentially consistent. So whoever takes a number from the one on that the
 * worker read sees its bit, and what is older the worker drops.
 *
 * Who makes channels can fill the table. So one address may have made at most four times as
 * many of those that exist as there is still room for: alone it gets four fifths, and a
 * newcomer from another address finds room. Of a process before nobody knows who made what.
 *
 * Entries live in slots that are reused; the generation tells one use from the
 * next, so that a message still on its way to a channel that is gone cannot turn
 * up in another.
 */

#include <pthread.h>

#include "base/base.h"
#include "containers/siphash.h"
#include "wire/frame_variant.h"
#include "wire/msg.h"

#define DIRECTORY_MAX_WORKERS 64
#define DIRECTORY_NAME_MAX MSG_CHANNEL_MAX
#define DIRECTORY_MAKERS 4096   /* cells for addresses; those of one cell count as one */
#define DIRECTORY_MAKER_SHARE 4 /* of the room that is left */

enum directory_result {
	DIRECTORY_E_FULL = 1, /* max_channels exist already, or too many for this address */
	DIRECTORY_E_EXISTS,   /* one of that name */
};

#define DIRECTORY_N_CODECS (ZIP_N_KINDS - 1)

/*
 * How many members of a channel, in all workers, read what: publishers look at it for messages
 * that vary. A cache line of its own, since members come and go.
 */
struct WB_SHARED directory_readers {
	/* That can't read a codec, by its number - 1 and what they negotiated of deflate. */
	alignas(64) _Atomic uint32_t unable[DIRECTORY_N_CODECS][DEFLATE_N_WINDOWS];
	_Atomic uint32_t packed;                        /* that read ZIP_PREFERRED */
	_Atomic uint32_t window[DEFLATE_N_WINDOWS - 1]; /* that negotiated it */
};

static_assert(sizeof(struct directory_readers) == 64, "one cache line");

/* One cache line and that of the readers, so that busy channels don't disturb their neighbours. */
struct WB_SHARED directory_entry {
	alignas(64) _Atomic uint64_t seq; /* number of the next message */
	_Atomic uint64_t workers;         /* bit i: worker i has members */
	_Atomic uint64_t full;            /* bit i: the backlog of worker i is at its bound */
	_Atomic uint64_t lagging;         /* bit i: a member there has much waiting */
	_Atomic uint32_t members;         /* in all workers */
	uint32_t slot WB_FROZEN;
	uint32_t generation;      /* written under the mutex while nobody holds the entry */
	uint32_t next;            /* under the mutex: hash chain or free list, slot + 1 */
	uint32_t pins;            /* under the mutex: holders beside the workers */
	uint8_t name_len;         /* as generation */
	_Atomic bool has_history; /* publishing goes through its store: channel/history */
	bool is_kept;             /* under the mutex: one of the pins is its store's … */
	bool is_place;            /* … and nobody else holds it: it is no channel now */
	char *name;               /* as generation; NUL-terminated */
	struct directory_readers readers;
};

struct WB_SHARED directory {
	pthread_mutex_t mutex;
	/* Twice as many as there may be channels; untouched ones cost nothing. */
	struct directory_entry *entries WB_FROZEN;
	uint32_t *buckets; /* under the mutex: slot + 1 */
	uint16_t *maker;   /* under the mutex: by slot, the cell of who made it, + 1; 0: unknown */
	uint32_t *made;    /* under the mutex: by cell, channels that exist */
	uint32_t max WB_FROZEN;   /* entries */
	uint32_t limit WB_FROZEN; /* channels, and as many that are only kept: places */
	uint32_t mask WB_FROZEN;  /* buckets - 1 */
	struct siphash_key key WB_FROZEN;
	uint32_t free;          /* under the mutex: list of slots that were used, slot + 1 */
	uint32_t fresh;         /* under the mutex: slots never used start here */
	uint32_t generation;    /* under the mutex */
	_Atomic uint32_t count; /* channels that exist, places left out */
};

/**
 * directory_init() - an empty directory
 * @d:    all-zero
 * @max:  most channels at a time, 1 to 10000000
 *
 * Return:  0 | -ENOMEM | -errno: the kernel gives no random key.
 */
int directory_init(struct directory *d, uint32_t max) WB_NODISCARD;
void directory_fini(struct directory *d);

/*
 * Hash of a channel's name, for whoever keeps a table by names. Clients choose the names: with
 * a key that nobody knows they can't choose those of one bucket. Thread: any.
 */
static inline uint64_t directory_hash(const struct directory *d, const char *name, size_t n)
{
	return siphash(&d->key, name, n);
}

/**
 * directory_join() - say that a worker has members of a channel from now on
 * @name:     @n bytes, at most DIRECTORY_NAME_MAX, no NUL; "" is the lobby
 * @worker:   0 to DIRECTORY_MAX_WORKERS - 1; must not have joined already
 * @ret_from: number of the first message that is certain to be posted to this worker
 *
 * Return:  0 | DIRECTORY_E_FULL | -ENOMEM.
 * Owns:    the entry is held until directory_leave().
 * Thread:  any.
 */
WB_ANY_THREAD int directory_join(struct directory *d, const char *name, size_t n, unsigned worker,
				 struct directory_entry **ret, uint64_t *ret_from) WB_NODISCARD;

/* The same for a client: if it has to be made, it is made by @network, of ip_network(). */
WB_ANY_THREAD int directory_join_for(struct directory *d, const uint8_t *network, const char *name,
				     size_t n, unsigned worker, struct directory_entry **ret,
				     uint64_t *ret_from) WB_NODISCARD;

/* The worker has no members any more; the entry goes with its last holder. Thread: any. */
WB_ANY_THREAD void directory_leave(struct directory *d, struct directory_entry *e, unsigned worker);

/**
 * directory_pin() - hold a channel that exists, without being a member
 *
 * Return:  the entry, until directory_unpin(), or NULL when there is no such channel.
 * Thread:  any.
 */
WB_ANY_THREAD struct directory_entry *directory_pin(struct directory *d, const char *name,
						    size_t n);

/* Slots from here on were never used: entries are at 0 up to it. It grows. Thread: any. */
WB_ANY_THREAD uint32_t directory_n_slots(struct directory *d);

/*
 * The name of the channel in a slot, if it still is the one of that @generation. Return: its
 * length | -ENOENT. Thread: any.
 */
WB_ANY_THREAD int directory_name(struct directory *d, uint32_t slot, uint32_t generation,
				 char ret[DIRECTORY_NAME_MAX + 1]) WB_NODISCARD;

/* The same with an entry that somebody holds. Thread: any. */
WB_ANY_THREAD void directory_pin_entry(struct directory *d, struct directory_entry *e);
WB_ANY_THREAD void directory_unpin(struct directory *d, struct directory_entry *e);

/*
 * Whoever holds it keeps it: its name and its numbers stay when it has no members, as a place,
 * which is no channel until somebody joins. Once for an entry, until directory_unkeep(). The
 * caller sees to it that there are no more places than channels. Thread: any.
 */
WB_ANY_THREAD void directory_keep(struct directory *d, struct directory_entry *e);
WB_ANY_THREAD void directory_unkeep(struct directory *d, struct directory_entry *e);

/**
 * directory_restore() - make a channel that had messages before
 * @seq:    number of its next message
 *
 * Return:  0 | DIRECTORY_E_FULL | DIRECTORY_E_EXISTS | -ENOMEM.
 * Owns:    the entry is held until directory_unpin().
 * Thread:  main, before any worker starts.
 */
int directory_restore(struct directory *d, const char *name, size_t n, uint64_t seq,
		      struct directory_entry **ret) WB_NODISCARD;

/**
 * directory_take() - the next number of a channel, and who must get the message
 * @e:      held by the caller
 * @ret_workers: set of workers with members, read after the number was taken
 *
 * Thread:  any.
 * Cost:    two atomic operations.
 */
static inline uint64_t directory_take(struct directory_entry *e, uint64_t *ret_workers)
{
	/* Pairs with directory_join(): bit, then counter. */
	uint64_t seq = atomic_fetch_add_explicit(&e->seq, 1, memory_order_seq_cst);

	*ret_workers = atomic_load_explicit(&e->workers, memory_order_seq_cst);
	return seq;
}

/* Workers that are behind with a channel: what is published now makes it worse. Thread: any. */
static inline uint64_t directory_full(const struct directory_entry *e)
{
	return atomic_load_explicit(&e->full, memory_order_acquire);
}

/* Workers with a member for which acknowledgements wait. Thread: any. */
static inline uint64_t directory_lagging(const struct directory_entry *e)
{
	return atomic_load_explicit(&e->lagging, memory_order_acquire);
}

static inline void directory_set_bit(_Atomic uint64_t *set, unsigned worker, bool is_set)
{
	if (is_set)
		atomic_fetch_or_explicit(set, 1ULL << worker, memory_order_release);
	else
		atomic_fetch_and_explicit(set, ~(1ULL << worker), memory_order_release);
}

/* A worker with members is behind with it, or has caught up. */
static inline void directory_set_full(struct directory_entry *e, unsigned worker, bool is_full)
{
	directory_set_bit(&e->full, worker, is_full);
}

/* It has a member with much waiting, or has none any more. */
static inline void directory_set_lagging(struct directory_entry *e, unsigned worker, bool lags)
{
	directory_set_bit(&e->lagging, worker, lags);
}

/* One member more, or less, that reads so; @caps are MSG_CAP_ bits. Thread: any. */
WB_ANY_THREAD void directory_add_reader(struct directory_entry *e, unsigned caps,
					enum deflate_window window);
WB_ANY_THREAD void directory_drop_reader(struct directory_entry *e, unsigned caps,
					 enum deflate_window window);

/* What one member reads. */
struct WB_VALUE directory_reader {
	unsigned caps;
	enum deflate_window window;
};

/**
 * directory_variants() - the variants of a message that members of a channel would take
 * @e:      held by the caller
 * @except: the member that gets none, who sends it; NULL: all get it
 *
 * Of members that come, go or change meanwhile nothing is promised.
 *
 * Return:  a set: bit i is enum frame_variant i.
 * Thread:  any.
 */
WB_ANY_THREAD unsigned directory_variants(struct directory_entry *e, const struct frame *f,
					  const struct directory_reader *except);

/* Number that the next message will have. Thread: any. */
static inline uint64_t directory_next_seq(struct directory_entry *e)
{
	return atomic_load_explicit(&e->seq, memory_order_seq_cst);
}
