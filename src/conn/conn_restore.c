/* SPDX-License-Identifier: MIT */
#include "conn/conn_restore.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "conn/conn_private.h"

#define OFFSET_MAX ((uint64_t)1 << 30) /* of a frame: more than any max_frame_size */

/* ---------------------------------------------------------------------------------- input */

void conn_save_input(const struct conn *c, Record__Input *out, uint8_t head[WS_MAX_HEAD])
{
	struct conn_input *in = c->input;
	struct ws_decoder_state decoder = {0};

	if (in->decoder)
		ws_decoder_save(in->decoder, &decoder);
	memcpy(head, decoder.head, decoder.head_len);
	out->head = (ProtobufCBinaryData){decoder.head_len, head};
	out->allowed_rsv = decoder.allowed_rsv;
	out->offset = decoder.offset;
	out->message = (ProtobufCBinaryData){in->message.len, in->message.data};
	if (in->parked_at < in->parked.len)
		out->parked = (ProtobufCBinaryData){in->parked.len - in->parked_at,
						    in->parked.data + in->parked_at};
	out->grow_to = in->grow_to;
	out->started_ns = in->started_ns;
	out->opcode = in->opcode;
	out->is_deflated = in->is_deflated;
	out->is_inflating = in->inflater != NULL;
	out->is_under_work = in->is_under_work && !in->inflater;
	out->control = (ProtobufCBinaryData){in->control_len, in->control};
}

/*
 * The frame that was received in part. Of a control frame so much of its payload has to be
 * there as the decoder has handed out; of a data frame that is in the message.
 */
static int restore_decoder(struct conn *c, const Record__Input *from)
{
	struct ws_decoder_state state = {
		.head_len = (uint8_t)from->head.len,
		.allowed_rsv = (uint8_t)(from->allowed_rsv & WS_RSV1),
		.offset = from->offset,
	};
	uint64_t control = 0;

	if (from->head.len > sizeof(state.head) || from->offset > OFFSET_MAX)
		return CONN_RESTORE_E_UNFIT;
	if (from->head.len > 0) {
		memcpy(state.head, from->head.data, from->head.len);
		control = (state.head[0] & 0x0f) >= WS_CLOSE ? from->offset : 0;
	}
	if (from->control.len != control || control > sizeof(c->input->control))
		return CONN_RESTORE_E_UNFIT;
	if (control > 0)
		memcpy(c->input->control, from->control.data, control);
	c->input->control_len = (uint8_t)control;
	if (from->head.len == 0)
		return 0;
	c->input->decoder = conn_take_decoder(c);
	if (!c->input->decoder)
		return -ENOMEM;
	if (ws_decoder_restore(c->input->decoder, &state) || ws_decoder_is_idle(c->input->decoder))
		return CONN_RESTORE_E_UNFIT;
	return 0;
}

/* Whether a connection in its state can be in the middle of such a thing. */
static bool is_message_sound(const struct conn *c, const Record__Input *from)
{
	bool is_text = from->opcode == WS_TEXT;

	if (c->state == CONN_HANDSHAKE)
		return from->opcode == 0 && from->head.len == 0 &&
		       from->message.len <= CONN_HEAD_LIMIT;
	if (!is_text && from->opcode != WS_BINARY && from->opcode != 0)
		return false;
	if (from->is_inflating && (!from->is_deflated || from->head.len > 0))
		return false;
	if (from->is_under_work && (from->is_deflated || from->head.len > 0 || !from->opcode))
		return false;
	return from->opcode || from->message.len == 0;
}

void conn_restored_all(struct conn_env *env)
{
	env->is_restoring = false;
	conn_enforce_reassembly(env);
}

int conn_restore_input(struct conn *c, const Record__Input *from)
{
	struct conn_input *in = conn_input_of(c);
	int r;

	if (!in)
		return -ENOMEM;
	if (!is_message_sound(c, from))
		return CONN_RESTORE_E_UNFIT;
	r = restore_decoder(c, from);
	if (r)
		return r;
	if (buf_append(&in->message, from->message.data, from->message.len, BUF_NO_LIMIT) ||
	    buf_append(&in->parked, from->parked.data, from->parked.len, BUF_NO_LIMIT))
		return -ENOMEM;
	in->grow_to = from->grow_to;
	in->started_ns = from->started_ns;
	in->opcode = (uint8_t)from->opcode;
	in->is_deflated = from->is_deflated;
	/* The state of a text is not in the record, since it follows from its bytes. */
	if (in->opcode == WS_TEXT && !in->is_deflated)
		in->utf8 = utf8_feed(UTF8_ACCEPT, in->message.data, in->message.len);
	/* Work starts anew: what had come of it so far was not delivered, and is not saved. */
	in->is_under_work = from->is_under_work;
	if (from->is_inflating || from->is_under_work)
		conn_restart_work(c);
	conn_keep_partial(c);
	if (conn_has_input(c))
		conn_want_read(c);
	return 0;
}

void conn_ignore_input(struct conn *c)
{
	c->is_deaf = c->got_close = true;
	conn_drop_input(c);
}

/* --------------------------------------------------------------------------------- output */

bool conn_restore_queued(struct conn *c, struct frame *f)
{
	struct conn_output *out = conn_output_of(c);

	if (!out) {
		frame_unref(f);
		return false;
	}
	/* They come in the order of the queue, which the flags decide again. */
	f->flags &= FRAME_CONTROL | FRAME_CLOSE;
	conn_queue_insert(out, f);
	return true;
}

/* What may be partly sent is a control frame at the head. */
static bool is_output_sound(const struct conn_output *out)
{
	if (out->transit && out->transit_at >= out->transit_bytes->len)
		return false;
	return out->head_sent == 0 ||
	       (out->queue && conn_is_control(out->queue) && out->head_sent < out->queue->body.len);
}

bool conn_restore_output(struct conn *c, uint64_t head_sent, struct frame *transit,
			 const struct frame_bytes *bytes, uint64_t at)
{
	struct conn_output *out = conn_output_of(c);

	if (!out)
		return false;
	if (transit && !conn_transit(c, transit, bytes, at))
		return false;
	out->head_sent = (uint32_t)MIN(head_sent, (uint64_t)UINT32_MAX);
	conn_judge_queue(c);
	conn_note_unsent(c);
	conn_want_write(c);
	return is_output_sound(out);
}
