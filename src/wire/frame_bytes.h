/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A message as the bytes that are sent: one WebSocket frame (RFC 6455 section 5.2), or several
 * where max_frame_size cuts it (section 5.4). Its payload lies between their headers, and all
 * of them but the last have one size; so where one ends follows from an offset alone, and
 * nothing has to be kept for it. Nothing is masked: these are a server's.
 *
 * In wire/frame and here a *piece* is one WebSocket frame of a message, its header included,
 * since a *frame* is the message (see frame.h).
 */

#include "base/base.h"

/* Frozen once published; a caller lays it out and writes to it before. */
struct WB_FROZEN frame_bytes {
	size_t len;   /* of bytes[] */
	size_t piece; /* bytes of each piece but the last */
	uint8_t bytes[];
};

/* Of a header. RFC 6455 section 5.2: the length has 7 bits, or 16 or 64 behind them; no key. */
static inline size_t frame_bytes_head_size(size_t payload)
{
	return payload < 126 ? 2 : payload < 65536 ? 4 : 10;
}

/* Bytes of a message of @payload bytes, all headers included. @max_frame: of a piece's payload. */
static inline size_t frame_bytes_size(size_t payload, size_t max_frame)
{
	size_t cuts = 0, last = payload;

	/* A last piece that is full is not followed by an empty one. */
	if (payload > max_frame) {
		cuts = (payload - 1) / max_frame;
		last -= cuts * max_frame;
	}
	return cuts * (frame_bytes_head_size(max_frame) + max_frame) + frame_bytes_head_size(last) +
	       last;
}

/**
 * frame_bytes_lay_out() - write everything but the payload
 * @b:      has room for frame_bytes_size(); len and piece are set
 * @rsv:    WS_RSV bits of the first piece; those that continue it have none
 */
void frame_bytes_lay_out(struct frame_bytes *b, uint8_t rsv, uint8_t opcode, size_t payload,
			 size_t max_frame);

/* Writes a part of the payload, @offset bytes behind its beginning, across pieces where need be. */
void frame_bytes_write(struct frame_bytes *b, size_t offset, const uint8_t *from, size_t n);

/* Where the payload lies in one piece; NULL when it is cut. To be written to as @b may be. */
uint8_t *frame_bytes_whole(const struct frame_bytes *b);

/* Bytes of the payload. */
size_t frame_bytes_payload_len(const struct frame_bytes *b);

/* Copies the payload to @out, which has room for it. */
void frame_bytes_copy_payload(const struct frame_bytes *b, uint8_t *out);

/* True when @offset is where one piece of @b ends and another (or nothing) begins. */
static inline bool frame_bytes_is_boundary(const struct frame_bytes *b, size_t offset)
{
	return offset == b->len || offset % b->piece == 0;
}

/* Whether @len bytes can be pieces of @piece bytes and a last one, each with room for its head. */
bool frame_bytes_is_sound(uint8_t opcode, size_t len, size_t piece);
