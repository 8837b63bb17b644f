/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of a connection share, and no other folder includes. They form a ladder:
 * a file calls only those below it.
 *
 *     conn_events     edges of the descriptor, reading, deadlines   conn_restore
 *     conn_input      bytes in: frames, what is parked, budgets of a turn
 *     conn_handshake  the request's head      conn_message  what frames mean
 *     conn_output     sending: what is in transit, what is queued
 *     conn_queue      the private queue, Close behind it
 *     conn            states, lists of turns to come, lines in the log
 *     conn_memory     what is held for a while, and the worker's pools of it
 *
 * conn_restore stands beside conn_events: it puts back what a process before had of all this.
 * Whatever happens in a callback or behind a send, a connection may be dead after it: its
 * memory is there until the end of the turn, c->input and what c->out had are not.
 */

#include "conn/conn.h"
#include "wire/ws.h"

#define CONN_HEAD_LIMIT (8 * 1024) /* bytes of a request's head */

/* ------------------------------------------------------------------------ what only looks */

/* The second in which frames are counted. Times of 32 bits wrap: only differences count. */
static inline uint64_t conn_rate_age_ms(const struct conn *c, uint64_t now_ns)
{
	return (uint32_t)((uint32_t)(now_ns / NS_PER_MS) - c->rate_second_ms);
}

static inline bool conn_rate_second_is_over(const struct conn *c, uint64_t now_ns)
{
	return conn_rate_age_ms(c, now_ns) >= 1000;
}

/* Until it is over, which it isn't. */
static inline uint64_t conn_rate_left_ns(const struct conn *c, uint64_t now_ns)
{
	return (1000 - conn_rate_age_ms(c, now_ns)) * NS_PER_MS;
}

/* Nothing private waits to be sent any more, and nothing is in transit. */
static inline bool conn_is_drained(const struct conn *c)
{
	return !c->out->transit && !c->out->queue;
}

/* A message of it takes several turns: what came behind it waits. */
static inline bool conn_is_working(const struct conn *c)
{
	return c->input && (c->input->inflater || c->input->is_under_work);
}

/* Bytes were read that could not be processed then. */
static inline bool conn_has_parked(const struct conn *c)
{
	return c->input && c->input->parked_at < c->input->parked.len;
}

/* Something waits to be processed: a message under work, parked bytes, or what the kernel has. */
static inline bool conn_has_input(const struct conn *c)
{
	return c->can_read || conn_is_working(c) || conn_has_parked(c);
}

static inline bool conn_is_control(const struct frame *f)
{
	return f->flags & FRAME_CONTROL;
}

/* ---------------------------------------------------------------------------- conn_memory */

/* A decoder at a frame boundary, for what the handshake agreed on. NULL: no memory. */
struct ws_decoder *conn_take_decoder(const struct conn *c);
void conn_give_decoder(struct conn_env *env, struct ws_decoder *d);

/* An inflater that is ready for a message, NULL without memory. One may go back in any state. */
struct inflater *conn_take_inflater(struct conn_env *env);
void conn_give_inflater(struct conn_env *env, struct inflater *z);

/* Its partial input, made if there is none; NULL without memory. */
struct conn_input *conn_input_of(struct conn *c);

/* Its message begins, or went on: all others have stood still for longer. */
void conn_input_went_on(struct conn_input *in);

/* Counts what it holds now in env->reassembly_bytes. */
void conn_input_account(struct conn_input *in);

/* Frees all partial input. */
void conn_drop_input(struct conn *c);

/* Of a connection that has just come. */
void conn_init_output(struct conn *c);

/* What is private or in transit, made if there is none; NULL without memory. */
struct conn_output *conn_output_of(struct conn *c);

/* Everything was sent: gives back what it was held in. */
void conn_give_output(struct conn *c);

/* Frees what is in transit and queued. */
void conn_drop_output(struct conn *c);

/* ----------------------------------------------------------------------------------- conn */

/* What a connection's state follows. */
enum conn_trigger {
	CONN_ON_UPGRADED, /* the handshake was answered with 101 */
	CONN_ON_CLOSE,    /* a Close or a refusal is the last that will be queued */
	CONN_ON_DRAINED,  /* all that was queued is out, the last of it included */
	CONN_ON_BROKEN,   /* the transport is gone, or has to be */
	CONN_N_TRIGGERS
};

/* The only place where the state changes. False: nothing follows in this state. */
bool conn_step(struct conn *c, enum conn_trigger on);

/* Lets the timer fire at @deadline_ns, neither earlier nor later. */
void conn_rearm(struct conn *c, uint64_t deadline_ns);

/* When its authorization ends: @now when it has, UINT64_MAX when it doesn't. */
uint64_t conn_grant_deadline(const struct conn *c, uint64_t now);

/* Something waits for it: in env->unsent. */
void conn_note_unsent(struct conn *c);

/* ----------------------------------------------------------------------------- conn_queue */

/*
 * Its queue has grown or shrunk: half full, it pauses the client, whose frames are answered
 * there.
 */
void conn_judge_queue(struct conn *c);

/* In its place: control frames before messages, Close last. Owns: the reference. */
void conn_queue_insert(struct conn_output *out, struct frame *f);

/* Takes the head of a queue that has one; the reference is the caller's. */
struct frame *conn_queue_pop(struct conn_output *out);

/* Queues bytes as they are: the answer to a handshake. */
void conn_send_raw(struct conn *c, const void *p, size_t n);

/* -------------------------------------------------------------------------- conn_message */

/* The peer violates the protocol: a line in the log, and Close. */
void conn_close_violation(struct conn *c, uint16_t code, const char *reason);

/* A piece of a frame: judged, put together with others, delivered when it is whole. */
void conn_take_piece(struct conn *c, const struct ws_piece *w);

/* Goes on with the message under work, for a share of the turn. */
void conn_work(struct conn *c);

/* Begins anew with one that another process had under work: it is whole in c->input. */
void conn_restart_work(struct conn *c);

/* ------------------------------------------------------------------------- conn_handshake */

/*
 * Takes the PROXY header, which stands before all else. False: it is not all there, or the
 * connection is gone.
 */
bool conn_take_proxy(struct conn *c);

/* Takes bytes of the request's head; returns how many of @n were used. */
size_t conn_feed_head(struct conn *c, const uint8_t *p, size_t n);

/* ----------------------------------------------------------------------------- conn_input */

/* After processing: keeps and accounts what is incomplete or parked, gives back the rest. */
void conn_keep_partial(struct conn *c);

/* Past reassembly_memory the one whose message stood still longest goes, until it fits. */
void conn_enforce_reassembly(struct conn_env *env);

/* True when it must not be read now; it is where it will be found again when it may. */
bool conn_must_wait(struct conn *c);

/* What it has read had @n records without data, which count as frames and as work. It is open. */
void conn_take_barren(struct conn *c, unsigned n);

/* Goes on with what is under work; true when nothing is. */
bool conn_work_on(struct conn *c);

/* Goes on with parked bytes; true when none are left. */
bool conn_feed_parked(struct conn *c);
