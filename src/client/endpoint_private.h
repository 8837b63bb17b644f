/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the files of an endpoint call of each other. Each calls those above it in this list:
 * endpoint_output.c, endpoint_end.c, endpoint_input.c, endpoint.c, endpoint_loop.c.
 */

#include "client/endpoint.h"

static inline bool endpoint_is_opening(const struct endpoint *e)
{
	return e->state == ENDPOINT_CONNECTING || e->state == ENDPOINT_HANDSHAKE;
}

/* endpoint_output.c */

/* Queues raw bytes: the request of the handshake. Return: 0 | -ENOMEM. */
int endpoint_queue(struct endpoint *e, const void *data, size_t n) WB_NODISCARD;

/* Queues a control frame past the limit of the queue; drops it when there is no memory. */
void endpoint_queue_control(struct endpoint *e, uint8_t opcode, const void *data, size_t n);

/* Sends as much of the queue as the kernel takes; may call writable(). */
void endpoint_flush(struct endpoint *e);

/* Saves the words for what TLS did not like, before another call replaces them. */
void endpoint_save_tls_failure(struct endpoint *e);

/* endpoint_end.c */

/* Ends a connection: the caller looks at nothing but e->state afterwards. */
void endpoint_end(struct endpoint *e, enum endpoint_end_kind kind, int error);

/* The other broke the protocol: Close with @code, then the end. @reason: as for a Close frame. */
void endpoint_violation(struct endpoint *e, uint16_t code, const char *reason);

/* endpoint_input.c */

/* Takes the bytes of frames, in ENDPOINT_OPEN and ENDPOINT_CLOSING. @bytes may be changed. */
void endpoint_feed(struct endpoint *e, uint8_t *bytes, size_t n);

/* endpoint.c */

/* Reads and hands out what came, a few reads at most; @to_the_end: until the end shows. */
void endpoint_read(struct endpoint *e, bool to_the_end);

/* Its turn to connect has come; it was in ENDPOINT_WAITING, and in no list any more. */
void endpoint_begin(struct endpoint *e);
