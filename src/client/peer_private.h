/* SPDX-License-Identifier: MIT */
#pragma once

/* What the three parts of a peer (life, input, output) call of each other. For them alone. */

#include "client/peer.h"

/* Ends a connection: the caller looks at nothing but p->state afterwards. */
void peer_end(struct peer *p, enum peer_end_kind kind, int error);

/* The other broke the protocol: Close with @code, then the end. */
void peer_violation(struct peer *p, uint16_t code, const char *reason);

/* Keeps the words for what TLS did not like. */
void peer_keep_failure(struct peer *p);

/* Takes the bytes of frames, in PEER_OPEN and PEER_CLOSING. @bytes may be changed. */
void peer_feed(struct peer *p, uint8_t *bytes, size_t n);

/* Queues raw bytes: the request of the handshake. 0 or -ENOMEM. */
int peer_queue(struct peer *p, const void *data, size_t n) WB_NODISCARD;

/* Queues a control frame past the limit of the queue; drops it when there is no memory. */
void peer_queue_control(struct peer *p, uint8_t opcode, const void *data, size_t n);

/* Sends as much of the queue as the kernel takes. */
void peer_flush(struct peer *p);
