/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * WebSocket frames (RFC 6455 section 5): decoder, encoder of heads, masking, close.
 *
 * The decoder is wslay's frame API with one turn. wslay reads through a buffer of
 * its own and unmasks byte by byte, which costs more than all the rest of wsbind's
 * way of a message. So it gets each frame's head without mask bit and key, and of
 * the payload only the count: no payload byte passes through it. It keeps the
 * state of framing and judges heads (lengths, control frames); the payload is
 * unmasked in place, in wide steps, and handed out as pieces of the caller's own
 * bytes. Nothing is copied.
 *
 * Beyond wslay, every frame is checked for: mask by role, reserved opcodes, RSV
 * bits that no extension was granted for, RSV1 on continuation and control
 * frames (RFC 7692 section 6.1). All are seen at the byte that is wrong.
 *
 * Not checked here, since it concerns messages and not frames: the order of
 * fragments (a continuation without a beginning, a new message inside another),
 * UTF-8, what a close frame says, sizes. That is the connection's.
 *
 * Heads are encoded by hand: wslay_frame_send() wants to own the sending of the
 * payload, while a head here is written once in front of bytes that go to many.
 */

#include "base/base.h"
#include "model/close_codes.h"

enum ws_opcode {
	WS_CONTINUATION = 0,
	WS_TEXT = 1,
	WS_BINARY = 2,
	WS_CLOSE = 8,
	WS_PING = 9,
	WS_PONG = 10,
};

/* Which end decodes: a server reads masked frames, a client unmasked ones. */
enum ws_role {
	WS_SERVER,
	WS_CLIENT,
};

/* Bits of rsv, as wslay has them. */
#define WS_RSV1 4
#define WS_RSV2 2
#define WS_RSV3 1

#define WS_MAX_HEAD 14     /* longest head of a frame [bytes] */
#define WS_MAX_CONTROL 125 /* longest payload of a control frame [bytes] */

/*
 * Part of one frame. The first has begins, the last ends; most frames are one
 * piece with both. When the head ends what was fed, its piece comes at once with
 * len 0, so that limits are checked before the payload arrives.
 */
struct WB_VALUE ws_piece {
	uint8_t opcode; /* enum ws_opcode, never a reserved one */
	uint8_t rsv;    /* WS_RSV* */
	bool fin;
	bool begins;
	bool ends;
	uint64_t frame_bytes; /* payload of the whole frame */
	uint8_t *data;        /* in the fed bytes, unmasked */
	size_t len;
};

enum ws_result {
	WS_MORE,   /* all was used, nothing to report */
	WS_PIECE,  /* a piece; feed the rest of the bytes again */
	WS_BROKEN, /* the peer violates the protocol; the decoder needs ws_decoder_reset() */
};

/* Belongs to a worker's pool; about 4.5 KiB with wslay's context. */
struct ws_decoder;

/* A frame received in part: enough to go on with it in another process. All-zero = none. */
struct WB_VALUE ws_decoder_state {
	uint8_t head[WS_MAX_HEAD]; /* as received */
	uint8_t head_len;
	uint8_t allowed_rsv;
	uint64_t offset; /* payload bytes already handed out */
};

/**
 * ws_decoder_new() - a decoder at a frame boundary
 * @allowed_rsv:  WS_RSV* that negotiated extensions may set
 *
 * Return:  NULL when there is no memory.
 * Owns:    the caller, until ws_decoder_free().
 * Thread:  its owner's; different decoders are independent.
 */
struct ws_decoder *ws_decoder_new(enum ws_role role, uint8_t allowed_rsv) WB_NODISCARD;

/* Frees @d, in any state. NULL is allowed. Returns NULL. */
struct ws_decoder *ws_decoder_free(struct ws_decoder *d);

/**
 * ws_decoder_reset() - make a used decoder ready for another connection
 *
 * At a frame boundary this costs nothing. One that stopped within a frame, or
 * that reported WS_BROKEN, gets a new context from wslay (which has no way back).
 *
 * Return:  0 | -ENOMEM: @d can only be reset again or freed.
 */
int ws_decoder_reset(struct ws_decoder *d, uint8_t allowed_rsv) WB_NODISCARD;

/* Whether @d stands at a frame boundary: the connection can do without it. */
bool ws_decoder_is_idle(const struct ws_decoder *d);

/**
 * ws_decoder_feed() - take bytes, report the next piece of a frame
 * @bytes:          received bytes; those of the piece are unmasked in place
 * @ret_used:       how many of @n were used, always set
 * @ret:            set on WS_PIECE
 * @ret_close_code: set on WS_BROKEN: what to close with
 *
 * Bytes that were used must not be fed again: they may have been unmasked. Each
 * call reports one piece at most; go on with the rest until WS_MORE.
 *
 * Return:  WS_MORE, WS_PIECE, WS_BROKEN.
 * Cost:    O(@n), no allocation.
 */
enum ws_result ws_decoder_feed(struct ws_decoder *d, uint8_t *bytes, size_t n, size_t *ret_used,
			       struct ws_piece *ret, uint16_t *ret_close_code) WB_NODISCARD;

/* What is needed to go on with the frame that @d is in. All-zero but allowed_rsv at a boundary. */
void ws_decoder_save(const struct ws_decoder *d, struct ws_decoder_state *ret);

/**
 * ws_decoder_restore() - go on where another decoder was saved
 * @d:      new or reset; of the same role
 *
 * Return:  0 | -EINVAL: @state was not made by ws_decoder_save(); @d needs a reset.
 * Cost:    one call of wslay for each 4 KiB of @state's offset.
 */
int ws_decoder_restore(struct ws_decoder *d, const struct ws_decoder_state *state) WB_NODISCARD;

/**
 * ws_encode_head() - write the head of a frame
 * @mask_key:   NULL for a server's frame
 *
 * Return:  its length: 2, 4 or 10, and 4 more with a key.
 * Thread:  any.
 */
WB_ANY_THREAD size_t ws_encode_head(uint8_t out[WS_MAX_HEAD], bool fin, uint8_t rsv, uint8_t opcode,
				    uint64_t len, const uint8_t mask_key[4]);

/**
 * ws_mask() - mask or unmask part of a payload in place
 * @offset:     where @p stands in the payload
 *
 * Thread:  any.
 * Cost:    64 bytes a step; @p need not be aligned.
 * Source:  RFC 6455 section 5.3.
 */
WB_ANY_THREAD void ws_mask(uint8_t *p, size_t n, const uint8_t key[4], uint64_t offset);

/* Whether @code may stand in a close frame: 1000-1003, 1007-1014, 3000-4999. */
WB_ANY_THREAD bool ws_close_code_is_valid(uint16_t code);

enum ws_close_result {
	WS_CLOSE_OK,
	WS_CLOSE_BROKEN = WS_CODE_PROTOCOL_ERROR, /* one byte, or a code that isn't valid */
	WS_CLOSE_BAD_UTF8 = WS_CODE_INVALID_DATA,
};

/**
 * ws_parse_close() - read the payload of a close frame
 * @ret_code:   WS_CODE_NO_STATUS when the payload is empty
 * @ret_reason: into @p, not terminated; "" when there is none
 *
 * Return:  WS_CLOSE_OK, or else the code to close with. Nothing is set then.
 * Thread:  any.
 * Source:  RFC 6455 sections 5.5.1, 7.4, 8.1.
 */
WB_ANY_THREAD enum ws_close_result ws_parse_close(const uint8_t *p, size_t n, uint16_t *ret_code,
						  const char **ret_reason, size_t *ret_len)
	WB_NODISCARD;

/**
 * ws_format_close() - write the payload of a close frame
 * @code:       one that may not be sent (WS_CODE_NO_STATUS) gives an empty payload
 * @reason:     UTF-8; cut between characters when longer than 123 bytes; NULL: that of the
 *              code's row in model/close_codes_table.h
 *
 * Return:  its length.
 * Thread:  any.
 */
WB_ANY_THREAD size_t ws_format_close(uint8_t out[WS_MAX_CONTROL], uint16_t code,
				     const char *reason);
