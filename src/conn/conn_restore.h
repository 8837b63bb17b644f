/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * From one process to the next: what a connection holds of incomplete input and unsent
 * output, as parts of its record, and back. What else it is made of are plain members of
 * struct conn, which handover/ saves itself.
 *
 * What a record says may be wrong: nothing of it is believed that could make a connection do
 * what none does.
 */

#include "conn/conn.h"
#include "wire/record.h"
#include "wire/ws.h"

enum conn_restore_result {
	CONN_RESTORE_E_UNFIT = 1, /* no connection holds such things */
};

/* Its partial input, as a part of a record; @out points into @c and @head. */
void conn_save_input(const struct conn *c, Record__Input *out, uint8_t head[WS_MAX_HEAD]);

/**
 * conn_restore_input() - go on with input that is incomplete, or waits to be processed
 * @c:      in the state that it had; holds no input yet
 *
 * It is read on in the worker's first turn.
 *
 * Return:  0 | CONN_RESTORE_E_UNFIT | -ENOMEM.
 */
int conn_restore_input(struct conn *c, const Record__Input *from) WB_NODISCARD;

/* What it sent is not known any more: nothing is read of it, its Close isn't waited for. */
void conn_ignore_input(struct conn *c);

/* A frame of the private queue, in its order; the reference goes to the queue. False: no memory. */
bool conn_restore_queued(struct conn *c, struct frame *f) WB_NODISCARD;

/**
 * conn_restore_output() - go on with what is partly sent, after conn_restore_queued()
 * @head_sent: bytes of the queue's head that are out
 * @transit:   the message in transit, borrowed; NULL: none
 * @bytes:     which of its encodings is on its way
 * @at:        how much of that is out
 *
 * Return:  false: no connection has such, or there is no memory.
 */
bool conn_restore_output(struct conn *c, uint64_t head_sent, struct frame *transit,
			 const struct frame_bytes *bytes, uint64_t at) WB_NODISCARD;

/* All are restored: limits that they share count from here on. */
void conn_restored_all(struct conn_env *env);
