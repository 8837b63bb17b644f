/* SPDX-License-Identifier: MIT */
/*
 * Every number of ours that stands in a record, and what it has to be: the process that reads it
 * may be older or newer than the one that wrote it. Constants may be added; one that is here is
 * never given another number, and its number never another meaning. Numbers of RFC 6455 and of
 * message.proto (opcodes, close codes, kinds of compression) are in protocols already.
 *
 * tests/unit/test-records-0.1.0.c restores what the first version wrote; the flags of a
 * connection are SAVED_FLAGS in connection.c; counters travel by the names of their rows.
 */
#include "conn/conn.h"
#include "handover/handover.h"
#include "wire/deflate.h"
#include "wire/frame.h"
#include "wire/record.h"
#include "wire/ws.h"
#include "wire/zip.h"

#define STAYS(constant, number) \
	static_assert((constant) == (number), "stands in records by this number")

STAYS(RECORD_FORMAT, 1);
STAYS(RECORD_HEAD_BYTES, 32);

STAYS(RECORD_HEAD, 1);
STAYS(RECORD_COUNTERS, 2);
STAYS(RECORD_FRAME, 3);
STAYS(RECORD_CHANNEL, 4);
STAYS(RECORD_CONNECTION, 5);
STAYS(RECORD_CONFIG, 6);
STAYS(RECORD_HISTORY, 7);
STAYS(RECORD_IDENTITY, 8);

/* Connection.state; one that is dead never travels. */
STAYS(CONN_HANDSHAKE, 0);
STAYS(CONN_OPEN, 1);
STAYS(CONN_CLOSING, 2);
STAYS(CONN_LINGERING, 3);

/* Connection.caps: what both sides agreed to. */
STAYS(MSG_CAP_ACK, 1 << 0);
STAYS(MSG_CAP_GZIP, 1 << 1);
STAYS(MSG_CAP_ZSTD, 1 << 2);
STAYS(MSG_CAP_LZ4, 1 << 3);
STAYS(MSG_CAP_HEARTBEAT, 1 << 4);
STAYS(MSG_CAP_ONCE, 1 << 5);
STAYS(MSG_CAP_RESUME, 1 << 6);

/* Connection.deflate_window. */
STAYS(DEFLATE_NONE, 0);
STAYS(DEFLATE_512, 1);
STAYS(DEFLATE_4K, 2);
STAYS(DEFLATE_32K, 3);

/* Frame.flags. */
STAYS(FRAME_NOTICE, 1 << 0);
STAYS(FRAME_CONTROL, 1 << 1);
STAYS(FRAME_CAN_PACK, 1 << 2);
STAYS(FRAME_IS_PACKED, 1 << 3);
STAYS(FRAME_CLOSE, 1 << 4);
STAYS(FRAME_CAN_DEFLATE, 1 << 5);
STAYS(FRAME_NUMBERED, 1 << 6);

/* Bytes.variant and Output.transit_variant are one more than these. */
STAYS(FRAME_VARIANT_PACKED, 0);
STAYS(FRAME_VARIANT_UNPACKED, 1);
STAYS(FRAME_VARIANT_DEFLATED + DEFLATE_512 - 1, 2);
STAYS(FRAME_VARIANT_DEFLATED + DEFLATE_4K - 1, 3);
STAYS(FRAME_VARIANT_DEFLATED + DEFLATE_32K - 1, 4);

/* Frame.packed_with and Chunk.compression. */
STAYS(ZIP_NONE, 0);
STAYS(ZIP_GZIP, 1);
STAYS(ZIP_ZSTD, 2);
STAYS(ZIP_LZ4, 3);

/* Frame.opcode and Input.opcode; 0 is none. */
STAYS(WS_TEXT, 1);
STAYS(WS_BINARY, 2);
STAYS(WS_CLOSE, 8);
STAYS(WS_PING, 9);
STAYS(WS_PONG, 10);

/* Input.allowed_rsv. */
STAYS(WS_RSV1, 4);

/* The byte beside each descriptor of a parcel. */
STAYS(HANDOVER_CLEAN, 'c');
STAYS(HANDOVER_OTHER, 'x');
