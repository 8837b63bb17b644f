/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One connection to its record and back: who it is, what it may, where it is in its life, what
 * was received and is not complete, what waits for it, where it is in its channels, and the file
 * that it sends. What can be found out anew (can_read, timers, lists) does not travel.
 *
 * A member of struct conn that has to live through a hand-over has these homes: struct conn,
 * message Connection of proto/record.proto, connection_to_record(), connection_restore(), and a
 * test in tests/unit/test-handover.c. A flag is one row of SAVED_FLAGS in connection.c instead;
 * any other number of ours that a record holds has a row in record_numbers.c.
 */

#include "conn/conn.h"
#include "handover/channels.h"
#include "handover/frames.h"

/**
 * connection_to_record() - a connection's record
 * @c:      is not changed; the record points into it
 * @cookie: what its socket is known by
 * @channels, @frames: all that it refers to has an id in them
 * @a:      what the record is made of
 *
 * Return:  NULL without memory.
 */
Record__Connection *connection_to_record(const struct conn *c, uint64_t cookie,
					 const struct channels_out *channels,
					 const struct frames_out *frames, struct arena *a);

/* Whose it is; false: the record is of no connection. */
bool connection_peer(const Record__Connection *s, struct sock_peer *ret);

/**
 * connection_restore() - make a connection again
 * @c:      as conn_init() wants it, and transport set
 * @s:      one that connection_peer() finds right
 * @channels, @frames: what it may refer to
 *
 * Return:  0 | RESTORE_E_UNFIT | -ENOMEM: it has begun to be what it was, and is to be ended by
 *          conn_abort() or politely.
 */
int connection_restore(struct conn *c, struct conn_env *env, const Record__Connection *s,
		       const struct channels_in *channels, const struct frames_in *frames)
	WB_NODISCARD;
