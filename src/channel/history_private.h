/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of history share, as a ladder: history_store.c (what one store keeps), history.c
 * (all stores, and who gives something up), history_begin.c (what members get of it),
 * history_restore.c (what another process had). Nobody else includes it.
 */

#include "channel/history.h"

/* ------------------------------------------------------------------- history_store.c */

#define HISTORY_AT_ONCE 64 /* messages that are dropped in one hold of a store's lock */

/* Messages that a store has dropped: their references are given back without its lock. */
struct WB_VALUE history_dropped {
	struct frame *frame[HISTORY_AT_ONCE];
	unsigned n;
};

/* Under the store's lock, as all that begins with history_store_, unless it says otherwise. */

/* A message that is kept, as a frame of this process. */
struct frame *history_store_frame(struct history *h, const struct history_store *s, uint32_t i);

void history_store_set_earliest(struct history_store *s, uint64_t position);

/* Numbers up to @number are given: that has to be noted before anybody sees one of them. */
void history_store_reserve(struct history_store *s, uint64_t number);

/* What the next process has to know of it now. */
struct history_note history_store_note(const struct history_store *s);

/* Notes what has changed, before messages that were dropped are given back; and unlocks. */
void history_store_unlock(struct history *h, struct history_store *s);

/* Of messages that another process kept: before the first one is looked for, or goes. */
WB_COLD void history_store_read_keys(struct history *h, struct history_store *s);

/* Its oldest is kept no more. @d has room for it. */
void history_store_drop_oldest(struct history *h, struct history_store *s,
			       struct history_dropped *d);

/* All that it keeps, in @ret, which has nothing of it but that. O(1), however much it is. */
void history_store_take_all(struct history_store *s, struct history_store *ret);

/* Drops what is past its bounds. True: there may be more of it. */
bool history_store_trim(struct history *h, struct history_store *s, uint64_t now_ns,
			struct history_dropped *d);

/*
 * Takes the reference, and has it on history's account: nobody else can drop it before that. @key:
 * or NULL. False: it isn't kept, for want of memory, or is too large, or NULL.
 */
bool history_store_keep(struct history *h, struct history_store *s, struct frame *f,
			const struct history_key *key);

/* The message at @seq, just kept, is known again by it. False: there is no memory. */
bool history_store_add_key(struct history *h, struct history_store *s, struct history_keyed *keyed,
			   uint64_t seq);

/* Without any lock: whoever still waits for one has it on the account of what waits. */
void history_dropped_give_back(struct history *h, struct history_dropped *d);

/* The same of what history_store_take_all() took. */
void history_taken_give_back(struct history *h, struct history_store *taken);

/* A message isn't kept: nobody who comes back can do with what is before that hole. */
void history_store_begin_behind(struct history *h, struct history_store *s, const struct frame *f);

/* Drops all that is past its bounds. Without any lock. */
void history_trim(struct history *h, struct history_store *s, uint64_t now_ns);

/* ------------------------------------------------------------------------- history.c */

/* Under the mutex. A store of an entry that has none. NULL: there is no memory. */
struct history_store *history_store_new(struct history *h, struct directory_entry *e,
					uint64_t epoch);

/* Under the mutex. It is complete, and nobody uses it. */
void history_store_restored(struct history *h, struct history_store *s);
