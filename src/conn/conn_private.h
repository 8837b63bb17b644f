/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of a connection share: conn.c (life and deadlines),
 * conn_input.c (bytes in), conn_handshake.c (the request's head), conn_message.c
 * (what frames mean), conn_output.c (bytes out). Nobody else includes it.
 */

#include "conn/conn.h"
#include "io/log.h"
#include "wire/record.h"
#include "wire/ws.h"

#define CONN_HEAD_LIMIT (8 * 1024) /* bytes of a request's head */

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

/*
 * Takes the PROXY header, which stands before all else. False: it is not all there, or the
 * connection is gone.
 */
bool conn_take_proxy(struct conn *c);

/* The 101 is queued: the connection is open. */
void conn_upgraded(struct conn *c);

/* All that was queued is out: the Close, or the answer to a handshake. */
void conn_drained(struct conn *c);

/* Nothing waits to be sent any more, and nothing is in transit. */
static inline bool conn_is_drained(const struct conn *c)
{
	return !c->out->transit && !c->out->queue;
}

/* A message of it takes several turns to inflate: what came behind it waits. */
static inline bool conn_is_inflating(const struct conn *c)
{
	return c->input && c->input->inflater;
}

/* Bytes wait to be processed: parked ones, a message to inflate, or in the kernel. */
static inline bool conn_has_input(const struct conn *c)
{
	return c->can_read || conn_is_inflating(c) ||
	       (c->input && c->input->parked_at < c->input->parked.len);
}

/* May not process input now: congestion, throttling, a stop, or its own private queue is half full.
 */
bool conn_is_paused(const struct conn *c);

/* What is held between reads, made if there is none; NULL without memory. */
struct conn_input *conn_input_of(struct conn *c);

/* Takes bytes of the request's head; returns how many of @n were used. */
size_t conn_feed_head(struct conn *c, const uint8_t *p, size_t n);

/* A piece of a frame: judged, put together with others, delivered when it is whole. */
void conn_take_piece(struct conn *c, const struct ws_piece *w);

/* Goes on inflating, one share, and delivers the message when all of it is out. */
void conn_inflate(struct conn *c);

/* An inflater that is done with a message goes back to the worker. */
void conn_give_inflater(struct conn_env *env, struct inflater *z);

/* The peer violates the protocol: a line in the log, and Close. */
void conn_broken(struct conn *c, uint16_t code, const char *reason);

/* Frees what is held of an incomplete frame or message. */
void conn_drop_input(struct conn *c);

/* Inflates the message that was put together, from its start. */
void conn_restart_inflating(struct conn *c);

/* What is held, as a part of a record; @out points into @c and @head. */
void conn_save_input(const struct conn *c, Record__Input *out, uint8_t head[WS_MAX_HEAD]);

/* Return: 0 | -EINVAL no connection holds such things | -ENOMEM. */
int conn_restore_input(struct conn *c, const Record__Input *from) WB_NODISCARD;

/* All are restored: limits that they share count from here on. */
void conn_restored_all(struct conn_env *env);

/* A frame of the private queue, in its order; the reference goes to the queue. False: no memory. */
bool conn_restore_queued(struct conn *c, struct frame *f) WB_NODISCARD;

/*
 * What of the queue's head was sent, and the message in transit (borrowed; NULL: none), of whose
 * @bytes @at are out. False: no connection has such, or there is no memory.
 */
bool conn_restore_output(struct conn *c, uint64_t head_sent, struct frame *transit,
			 const struct frame_bytes *bytes, uint64_t at) WB_NODISCARD;

/* Of a connection that has just come. */
void conn_init_output(struct conn *c);

/* Frees what is in transit and queued. */
void conn_drop_output(struct conn *c);

/* Queues bytes as they are: the answer to a handshake. */
void conn_send_raw(struct conn *c, const void *p, size_t n);

/* Queues the Close, behind everything else. */
void conn_send_close(struct conn *c, const uint8_t *payload, size_t n);
