/* SPDX-License-Identifier: MIT */
#include "wire/frame_bytes.h"

#include <string.h>

#include "wire/ws.h"

/* frame_bytes_head_size() of a piece whose bytes in all are known: lengths are the shortest. */
static size_t head_size_within(size_t total)
{
	return total <= 2 + 125 ? 2 : total <= 4 + 65535 ? 4 : 10;
}

/* The payload between the heads is the caller's to write: now or, in parts, later. */
static void write_heads(struct frame_bytes *b, uint8_t rsv, uint8_t opcode, size_t payload,
			size_t max_frame)
{
	uint8_t *p = b->bytes;

	while (payload > max_frame) {
		p += ws_encode_head(p, false, rsv, opcode, max_frame, NULL);
		p += max_frame;
		payload -= max_frame;
		/* RSV1 is of the message, and so of its first piece: RFC 7692 section 6.1. */
		opcode = WS_CONTINUATION;
		rsv = 0;
	}
	ws_encode_head(p, true, rsv, opcode, payload, NULL);
}

void frame_bytes_lay_out(struct frame_bytes *b, uint8_t rsv, uint8_t opcode, size_t payload,
			 size_t max_frame)
{
	/* RFC 6455 section 5.4: a cut may fall anywhere, even within a character of a text. */
	bool is_cut = payload > max_frame;

	b->len = frame_bytes_size(payload, max_frame);
	b->piece = is_cut ? frame_bytes_head_size(max_frame) + max_frame : b->len;
	write_heads(b, rsv, opcode, payload, max_frame);
}

/* The payload of the piece that starts at byte @start. */
static uint8_t *piece_payload(const struct frame_bytes *b, size_t start, size_t *ret_len)
{
	size_t total = MIN(b->piece, b->len - start);
	size_t head = head_size_within(total);

	*ret_len = total - head;
	return (uint8_t *)(uintptr_t)b->bytes + start + head;
}

void frame_bytes_write(struct frame_bytes *b, size_t offset, const uint8_t *from, size_t n)
{
	size_t len;

	for (size_t start = 0; n > 0; start += b->piece) {
		uint8_t *to = piece_payload(b, start, &len);

		/* The pieces in front of the offset are passed over, then each is filled up. */
		if (offset >= len) {
			offset -= len;
			continue;
		}
		len = MIN(len - offset, n);
		memcpy(to + offset, from, len);
		from += len;
		n -= len;
		offset = 0;
	}
}

uint8_t *frame_bytes_whole(const struct frame_bytes *b)
{
	size_t len;

	return b->piece == b->len ? piece_payload(b, 0, &len) : NULL;
}

size_t frame_bytes_payload_len(const struct frame_bytes *b)
{
	/* Only the last one differs: no walk over all of them. */
	size_t pieces = (b->len + b->piece - 1) / b->piece;
	size_t last;

	(void)piece_payload(b, (pieces - 1) * b->piece, &last);
	return (pieces - 1) * (b->piece - head_size_within(b->piece)) + last;
}

void frame_bytes_copy_payload(const struct frame_bytes *b, uint8_t *out)
{
	size_t len;

	for (size_t start = 0; start < b->len; start += b->piece) {
		const uint8_t *from = piece_payload(b, start, &len);

		memcpy(out, from, len);
		out += len;
	}
}

bool frame_bytes_is_sound(uint8_t opcode, size_t len, size_t piece)
{
	size_t last;

	if (len == 0 || piece == 0 || piece > len)
		return false;
	/* From a state: whatever passes here, piece_payload() stays within its bytes. */
	last = len % piece ? len % piece : piece;
	/* What is no message (the answer to a handshake) is never split. */
	if (opcode == 0)
		return piece == len;
	return last >= head_size_within(last) && piece >= head_size_within(piece);
}
