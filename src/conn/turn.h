/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The clock of a worker's loop turn. No bound in bytes or frames is one in time as well: so
 * whatever a client can cause is charged as it is done, and once a step's worth of it has come
 * together the clock is looked at. Small turns never do.
 *
 * A turn has phases with time of their own: reading, opening handshakes, posts of other workers,
 * notices, answers, sending. Each makes progress, whatever the others have to do. Within them each
 * client has a share. Time is over only where somebody has looked, so that everyone gets a step at
 * least. What is over stays over until the next turn, phase or client begins; whoever had to stop
 * goes on in a later turn, and says so by conn_want_read() or conn_want_write().
 *
 * What one client may cause between two looks has to be a few hundred microseconds at most,
 * whatever it sent: that is for those who charge to see to.
 */

#include "base/base.h"
#include "base/clock.h"

#define TURN_READ_NS (2 * NS_PER_MS)
#define TURN_HANDSHAKE_NS (500 * NS_PER_US)
#define TURN_POSTS_NS (1 * NS_PER_MS) /* what other workers have published */
#define TURN_NOTICES_NS (500 * NS_PER_US)
#define TURN_ANSWER_NS (1 * NS_PER_MS) /* what waits for one client alone, and who lags */
#define TURN_SEND_NS (2 * NS_PER_MS)
#define TURN_CLIENT_NS (500 * NS_PER_US)
#define TURN_FIRST_NS (100 * NS_PER_US) /* the same of one that has used little lately */

/* Units of work: one is about what a byte costs that is read, checked and put into a frame. */
#define TURN_STEP 4096U         /* the clock is looked at */
#define TURN_FRAME 256U         /* a frame, beside its bytes */
#define TURN_POST 64U           /* what another worker has published, put into a log */
#define TURN_CHANNEL 128U       /* one that is looked at for something to send, or closed */
#define TURN_SEND 256U          /* one send, beside its bytes … */
#define TURN_SEND_BYTES_PER 64U /* … of which so many cost one */

struct WB_OWNER(worker) turn {
	uint64_t seen_ns;       /* when the clock was looked at last */
	uint64_t phase_ns;      /* time of this phase */
	uint64_t end_ns;        /* of this phase; 0: it begins to count with the first look */
	uint64_t client_end_ns; /* of this client's share; 0: it has had that */
	uint32_t charged;       /* units since the last look … */
	uint32_t before_client; /* … of which others have caused so many */
	bool is_over;
};

/* A new turn, with its first phase: reading. */
void turn_begin(struct turn *t, uint64_t now_ns);

/* The next phase. What was done before is not on its account. Cost: no look at the clock. */
static inline void turn_begin_phase(struct turn *t, uint64_t ns)
{
	t->phase_ns = ns;
	t->end_ns = 0;
	t->charged = t->before_client = 0;
	t->is_over = false;
}

/*
 * The next client, in any phase, and its share. Cost: no look at the clock. What others did since
 * the last one is not on its account: see turn_look().
 */
static inline void turn_begin_client(struct turn *t, uint64_t ns)
{
	t->client_end_ns = t->seen_ns + ns;
	t->before_client = t->charged;
}

/* Looks at the clock now: after a piece of work that is a step by itself. */
void turn_look(struct turn *t);

/* Work that was done. Cost: an addition and a comparison, and at each TURN_STEP a look. */
static inline void turn_charge(struct turn *t, size_t units)
{
	t->charged += (uint32_t)MIN(units, (size_t)TURN_STEP);
	if (t->charged >= TURN_STEP)
		turn_look(t);
}

/* One send of @bytes. */
static inline void turn_charge_send(struct turn *t, size_t bytes)
{
	turn_charge(t, TURN_SEND + bytes / TURN_SEND_BYTES_PER);
}

/* The phase has no time left: the rest is for the next turn. */
static inline bool turn_is_over(const struct turn *t)
{
	return t->is_over;
}

/* The client has had its share. It may have it to its end, also where the phase is over. */
static inline bool turn_client_is_over(const struct turn *t)
{
	return t->client_end_ns == 0;
}
