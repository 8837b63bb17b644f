/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Client ids beyond their connections: whose connection it is now, which tokens were brought, and
 * the channels in which others were not told yet that it left. One place decides, for all workers,
 * whether somebody who comes back is the same client, and whether its absence was noticed.
 *
 * An id is in here from when its client asks for a token. Its connection ends, and for a while
 * (resume_window) it is still known: a token is good if number and attempt are greater than the
 * greatest pair that was brought. So an answer may be lost, and an attempt that comes late harms
 * nobody. A server that knows nothing of an id believes any token of its key for as long after its
 * own start.
 *
 * Each id is in one of several parts, each with a lock, which is held for a few steps and never
 * together with another one.
 */

#include <pthread.h>

#include "base/base.h"
#include "containers/list.h"
#include "containers/table.h"
#include "wire/resume_token.h"

#define REGISTRY_PARTS 16

struct conn;

/* A channel in which its DISCONNECT waits. */
struct WB_SHARED registry_absence {
	struct registry_absence *next;
	uint64_t due_ns; /* when it goes out, unless it is joined again before */
	char channel[];
};

struct WB_SHARED registry_entry {
	struct table_node node; /* by its first bytes, which are random */
	struct list ended_node; /* in the part's, while it has no connection */
	struct conn *conn;      /* for its worker's thread alone; NULL: none */
	unsigned worker;
	uint8_t id[16];
	uint64_t serial;   /* of all its connections; 0: of none yet */
	uint64_t issued;   /* number of its newest token */
	uint64_t brought;  /* that of the newest that was brought … */
	uint32_t attempt;  /* … and which attempt with it */
	bool is_subject;   /* somebody vouched for the user id */
	uint64_t ended_ns; /* when it had a connection last */
	struct registry_absence *absences;
	char user_id[];
};

struct WB_SHARED registry_part {
	pthread_mutex_t lock;
	/* Under it, as what follows. */
	struct table ids;
	struct list ended; /* entries, oldest first */
	size_t n_ended;
};

struct WB_SHARED registry {
	struct resume_key key WB_FROZEN;
	bool is_key_drawn WB_FROZEN; /* no file has it */
	uint64_t started_ns WB_FROZEN;
	_Atomic uint64_t window_ns;
	_Atomic size_t max_ended; /* of a part */
	struct registry_part part[REGISTRY_PARTS];
	bool is_init WB_FROZEN;
};

/*
 * All-zero before. @key: that of a file, which others may have, too; NULL: one is drawn. Return: 0
 * | -errno: no random numbers.
 */
int registry_init(struct registry *r, const struct resume_key *key, uint64_t now_ns) WB_NODISCARD;
void registry_fini(struct registry *r);

/*
 * The process before had this key, which counts where none is of a file, and all its ids are known
 * here. Thread: main, before any worker.
 */
void registry_inherit(struct registry *r, const uint8_t key[RESUME_KEY_BYTES], uint64_t started_ns);

/* resume_window, and how many without a connection are known; any may change. Thread: any. */
WB_ANY_THREAD void registry_configure(struct registry *r, uint64_t window_ns, uint64_t max_ended);

/* A client that wants to come back. Return: 0, also where it is known already | -ENOMEM. */
WB_ANY_THREAD int registry_enter(struct registry *r, const uint8_t id[16], uint64_t serial,
				 struct conn *c, unsigned worker, const char *user_id,
				 bool is_subject) WB_NODISCARD;

/* The next token of an id that is known. Return: the text's length; 0: it cannot be signed. */
WB_ANY_THREAD size_t registry_issue(struct registry *r, const uint8_t id[16],
				    char out[RESUME_TOKEN_TEXT]);

/**
 * registry_claim() - whether somebody who brings a token is the client that it says
 * @t:          read and signed
 * @attempt:    from 1 on
 * @ret_serial: of the connections that it had; 0: of none that is known
 *
 * What it brought counts from here on: the same will never be good again.
 *
 * Return:  true: it is; registry_take() comes next. false: it is a newcomer.
 */
WB_ANY_THREAD bool registry_claim(struct registry *r, const struct resume_token *t,
				  uint32_t attempt, uint64_t now_ns, uint64_t *ret_serial);

enum registry_taking {
	REGISTRY_TAKEN,      /* the id is this connection's now */
	REGISTRY_BUSY,       /* another connection has it, which has to end first */
	REGISTRY_SUPERSEDED, /* somebody has brought something newer meanwhile */
};

/* Who has claimed it takes it over. @ret_worker: of the connection that has to end first. */
WB_ANY_THREAD enum registry_taking registry_take(struct registry *r, const struct resume_token *t,
						 uint32_t attempt, uint64_t serial, struct conn *c,
						 unsigned worker, unsigned *ret_worker);

/*
 * The connection that has to end for who has claimed the id, if it is one of this worker; else
 * NULL. Somebody may have brought something newer meanwhile: then it may be that one's, and stays.
 * Thread: the worker's.
 */
struct conn *registry_conn_for(struct registry *r, const struct resume_token *t, uint32_t attempt,
			       unsigned worker);

/* A connection that has ended. Nothing comes of it where the id is another one's by now. */
WB_ANY_THREAD void registry_leave(struct registry *r, const uint8_t id[16], const struct conn *c,
				  uint64_t now_ns);

/* It left a channel, and others are told at @due_ns. False: no memory, they are told now. */
WB_ANY_THREAD bool registry_begin_absence(struct registry *r, const uint8_t id[16],
					  const char *channel, uint64_t due_ns) WB_NODISCARD;

/*
 * It is back, or the time is over: true for whoever comes first. @due_ns: of the absence that is
 * over; 0: whichever there is. It may have been back, and be away again.
 */
WB_ANY_THREAD bool registry_end_absence(struct registry *r, const uint8_t id[16],
					const char *channel, uint64_t due_ns);

/* Forgets those that had no connection for resume_window. Thread: any. */
WB_ANY_THREAD void registry_expire(struct registry *r, uint64_t now_ns);

/* One as another process had it; @e is complete but for its lists. Owns: takes it. Thread: main. */
void registry_restore(struct registry *r, struct registry_entry *e);

/*
 * A connection that was there before has the id again. False: it isn't known. Thread: main, before
 * any worker.
 */
bool registry_adopt(struct registry *r, const uint8_t id[16], uint64_t serial, struct conn *c,
		    unsigned worker) WB_NODISCARD;

/* With room for a user id of this length. Return: NULL without memory. */
struct registry_entry *registry_entry_new(const uint8_t id[16], const char *user_id);

/* Return: false without memory. Thread: of who has the entry alone. */
bool registry_entry_add_absence(struct registry_entry *e, const char *channel, uint64_t due_ns)
	WB_NODISCARD;

/* All entries, while no worker runs: calls @fn until it returns other than 0, and returns that. */
int registry_each(const struct registry *r, int (*fn)(void *ctx, const struct registry_entry *e),
		  void *ctx);
