/* SPDX-License-Identifier: MIT */
#pragma once

/* What the three parts of an endpoint (life, input, output) call of each other. For them alone. */

#include "client/endpoint.h"

/* Ends a connection: the caller looks at nothing but e->state afterwards. */
void endpoint_end(struct endpoint *e, enum endpoint_end_kind kind, int error);

/* The other broke the protocol: Close with @code, then the end. */
void endpoint_violation(struct endpoint *e, uint16_t code, const char *reason);

/* Keeps the words for what TLS did not like. */
void endpoint_keep_failure(struct endpoint *e);

/* Takes the bytes of frames, in ENDPOINT_OPEN and ENDPOINT_CLOSING. @bytes may be changed. */
void endpoint_feed(struct endpoint *e, uint8_t *bytes, size_t n);

/* Queues raw bytes: the request of the handshake. 0 or -ENOMEM. */
int endpoint_queue(struct endpoint *e, const void *data, size_t n) WB_NODISCARD;

/* Queues a control frame past the limit of the queue; drops it when there is no memory. */
void endpoint_queue_control(struct endpoint *e, uint8_t opcode, const void *data, size_t n);

/* Sends as much of the queue as the kernel takes. */
void endpoint_flush(struct endpoint *e);
