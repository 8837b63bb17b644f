/* SPDX-License-Identifier: MIT */
/* Checksums and the building of messages; reading them is in msg.c. */
#include "wire/msg.h"

#include <errno.h>
#include <libdeflate.h>
#include <string.h>

#include "base/text.h"
#include "containers/buf.h"

/* Numbers of the envelope's fields. */
enum {
	ENVELOPE_CHANNEL = 16,
	ENVELOPE_OLD_SEQUENCE = 17,
	ENVELOPE_SENDER = 18,
	ENVELOPE_SENT_MS = 19,
	ENVELOPE_SEQUENCE = 21,
};

/* ----------------------------------------------------------------------- checksums */

uint32_t msg_crc32(const void *p, size_t n)
{
	/* To libdeflate a NULL means "begin anew", whatever the length is. */
	return n ? libdeflate_crc32(0, p, n) : 0;
}

uint32_t msg_crc32_on(uint32_t crc, const void *p, size_t n)
{
	return n ? libdeflate_crc32(crc, p, n) : crc;
}

bool msg_checksum_matches(const char *hex, uint32_t crc)
{
	uint64_t value = 0;

	if (!*hex)
		return false;
	for (; *hex; hex++) {
		int digit = hex_value(*hex);

		/* Looked at in each step: more digits than 64 bits have would wrap around. */
		value = value << 4 | (uint64_t)(digit & 15);
		if (digit < 0 || value > UINT32_MAX)
			return false;
	}
	return value == crc;
}

/* Seven bits a byte, the lowest first; the highest bit says that more follow. Return: bytes. */
static size_t varint_write(uint8_t *out, uint64_t value)
{
	size_t n = 0;

	for (; value > 0x7f; value >>= 7)
		out[n++] = (uint8_t)(value | 0x80);
	out[n++] = (uint8_t)value;
	return n;
}

/* Tag and length of a length-delimited field. */
static size_t field_head_write(uint8_t *out, unsigned id, uint64_t len)
{
	size_t n = varint_write(out, id << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);

	return n + varint_write(out + n, len);
}

void msg_number_field(uint8_t out[MSG_NUMBER_FIELD], uint64_t number)
{
	out[0] = 0x80 | (ENVELOPE_SEQUENCE << 3 & 0x7f) | PROTOBUF_C_WIRE_TYPE_64BIT;
	out[1] = ENVELOPE_SEQUENCE >> 4;
	for (unsigned i = 0; i < MSG_NUMBER_BYTES; i++)
		out[2 + i] = (uint8_t)(number >> 8 * i);
}

size_t msg_suffix(uint8_t out[MSG_SUFFIX_MAX], const struct msg_said *said)
{
	const char *channel = said->channel;
	size_t n = channel ? strlen(channel) : 0, at = 0;

	WB_ASSERT(n <= MSG_CHANNEL_MAX);
	/* Two bytes of a tag and one or two of a length, on the way of every message. */
	if (channel) {
		out[at++] = 0x80 | (ENVELOPE_CHANNEL << 3 & 0x7f) |
			    PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
		out[at++] = ENVELOPE_CHANNEL >> 4;
		at += varint_write(out + at, n);
		memcpy(out + at, channel, n);
		at += n;
	}
	/* Of most messages that is all. */
	if (((uintptr_t)said->sender | said->is_numbered) == 0)
		return at;
	if (said->sender) {
		at += field_head_write(out + at, ENVELOPE_SENDER, MSG_SENDER_BYTES);
		memcpy(out + at, said->sender, MSG_SENDER_BYTES);
		at += MSG_SENDER_BYTES;
	}
	if (!said->is_numbered)
		return at;
	at += varint_write(out + at, ENVELOPE_SENT_MS << 3 | PROTOBUF_C_WIRE_TYPE_VARINT);
	at += varint_write(out + at, (uint64_t)said->sent_ms);
	msg_number_field(out + at, 0);
	return at + MSG_NUMBER_FIELD;
}

/* ------------------------------------------------------------------------- messages */

/* The generated structs have char * for what is only read; NULL stands for an empty text. */
static char *text_borrow(const char *text)
{
	return (char *)(uintptr_t)(text ? text : "");
}

/* Neither copied nor changed: what is packed points to the caller's bytes. */
static void builder_put_data(Websocket__BinaryData *b, const void *data, size_t n,
			     Websocket__CompressionType compression)
{
	b->data.data = (uint8_t *)(uintptr_t)data;
	b->data.len = n;
	b->compression = compression;
}

/* Of the data as it is sent, packed or not; eight digits, the highest first. */
static void builder_put_crc(struct msg_builder *b, uint32_t crc)
{
	const uint8_t bytes[4] = {
		(uint8_t)(crc >> 24),
		(uint8_t)(crc >> 16),
		(uint8_t)(crc >> 8),
		(uint8_t)crc,
	};

	hex_encode(b->checksum, bytes, sizeof(bytes));
	b->binary.checksum = b->checksum;
}

static void builder_put_checksum(struct msg_builder *b)
{
	builder_put_crc(b, msg_crc32(b->binary.data.data, b->binary.data.len));
}

/* The init functions of protobuf-c set every member, so a builder needs no clearing before. */
static void builder_begin(struct msg_builder *b, Websocket__MessageType type)
{
	websocket__web_socket_message__init(&b->m);
	b->m.type = type;
}

void msg_init_heartbeat(struct msg_builder *b)
{
	builder_begin(b, WEBSOCKET__MESSAGE_TYPE__HEARTBEAT);
}

void msg_init_control(struct msg_builder *b, Websocket__ControlType type)
{
	builder_begin(b, WEBSOCKET__MESSAGE_TYPE__CONTROL);
	websocket__control_message__init(&b->control);
	b->control.type = type;
	b->m.payload_case = WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CONTROL;
	/* The builder points into itself: it may not be moved from here on. */
	b->m.control = &b->control;
}

void msg_init_chat(struct msg_builder *b, const char *id, const char *user_id, const char *content,
		   int64_t timestamp_s)
{
	builder_begin(b, WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE);
	websocket__chat_message__init(&b->chat);
	b->chat.id = text_borrow(id);
	b->chat.user_id = text_borrow(user_id);
	b->chat.content = text_borrow(content);
	b->chat.timestamp = timestamp_s;
	b->m.payload_case = WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CHAT;
	b->m.chat = &b->chat;
}

void msg_init_binary(struct msg_builder *b, const void *data, size_t n, uint32_t sequence,
		     bool is_last, Websocket__CompressionType compression)
{
	builder_begin(b, WEBSOCKET__MESSAGE_TYPE__BINARY_DATA);
	websocket__binary_data__init(&b->binary);
	builder_put_data(&b->binary, data, n, compression);
	builder_put_checksum(b);
	b->binary.sequence = sequence;
	b->binary.is_last = is_last;
	b->m.payload_case = WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_BINARY;
	b->m.binary = &b->binary;
}

void msg_set_file(struct msg_builder *b, const char *name, uint64_t size, const void *transfer,
		  size_t n)
{
	b->binary.name = text_borrow(name);
	b->binary.size = size;
	b->binary.transfer.data = (uint8_t *)(uintptr_t)transfer;
	b->binary.transfer.len = n;
}

void msg_init_repack(struct msg_builder *b, const Websocket__WebSocketMessage *m, const void *data,
		     size_t n, Websocket__CompressionType compression)
{
	WB_ASSERT(m->payload_case == WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_BINARY);
	/* A copy of the struct borrows all that it points to, fields of later versions included. */
	b->m = *m;
	b->binary = *m->binary;
	b->m.binary = &b->binary;
	builder_put_data(&b->binary, data, n, compression);
	if (b->binary.checksum[0])
		builder_put_checksum(b);
}

void msg_init_stamp(struct msg_builder *b, const Websocket__WebSocketMessage *m,
		    const char *user_id)
{
	b->m = *m;
	if (!user_id)
		return;
	WB_ASSERT(m->payload_case == WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CHAT);
	b->chat = *m->chat;
	b->m.chat = &b->chat;
	b->chat.user_id = text_borrow(user_id);
}

void msg_drop_cuts(Websocket__WebSocketMessage *m, struct msg_spots *spots)
{
	unsigned n = 0;

	spots->is_resend =
		m->has_sequence_case == WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_SEQUENCE_SEQUENCE;
	spots->known = m->sequence;
	m->sender = (ProtobufCBinaryData){0};
	m->sent_ms = 0;
	m->has_sequence_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_SEQUENCE__NOT_SET;
	/* The old number, and the others where they came with another wire type. */
	for (unsigned i = 0; i < m->base.n_unknown_fields; i++) {
		uint32_t id = m->base.unknown_fields[i].tag;

		if (id != ENVELOPE_OLD_SEQUENCE && id != ENVELOPE_SENDER &&
		    id != ENVELOPE_SENT_MS && id != ENVELOPE_SEQUENCE)
			m->base.unknown_fields[n++] = m->base.unknown_fields[i];
	}
	m->base.n_unknown_fields = n;
}

static void stamp_add(struct msg_stamp *s, const uint8_t *from, const uint8_t *to)
{
	size_t n = (size_t)(to - from);

	if (n == 0)
		return;
	WB_ASSERT(s->n_pieces < MSG_STAMP_PIECES);
	s->piece[s->n_pieces++] = (struct msg_piece){from, n, s->bytes};
	s->bytes += n;
}

/* What lies between two places of the envelope, without the cuts. */
static void stamp_add_uncut(struct msg_stamp *s, const struct msg_spots *spots, const uint8_t *from,
			    const uint8_t *to)
{
	for (unsigned i = 0; i < spots->n_cuts; i++) {
		const struct msg_cut *cut = &spots->cut[i];

		if (cut->p < from || cut->p >= to)
			continue;
		stamp_add(s, from, cut->p);
		from = cut->end;
	}
	stamp_add(s, from, to);
}

static bool stamp_is_possible(const struct msg_spots *spots, const char *user_id)
{
	if (spots->n_cuts > ARRAY_LEN(spots->cut))
		return false;
	return !user_id ||
	       (spots->n_payloads == 1 && spots->n_user_ids <= ARRAY_LEN(spots->user_id));
}

bool msg_stamp_init(struct msg_stamp *s, const struct msg_spots *spots, const uint8_t *p, size_t n,
		    const char *user_id)
{
	size_t user_n, len;
	const uint8_t *at;

	if (!stamp_is_possible(spots, user_id))
		return false;
	s->n_pieces = 0;
	s->bytes = s->length_n = s->length_at = s->user_id_n = s->user_id_at = 0;
	if (!user_id) {
		stamp_add_uncut(s, spots, p, p + n);
		return true;
	}
	user_n = strlen(user_id);
	len = (size_t)(spots->end - spots->body);
	at = spots->body;
	WB_ASSERT(user_n <= MSG_USER_MAX);
	s->user_id_n = field_head_write(s->user_id, 2, user_n);
	memcpy(s->user_id + s->user_id_n, user_id, user_n);
	s->user_id_n += user_n;
	for (unsigned i = 0; i < spots->n_user_ids; i++)
		len -= (size_t)(spots->user_id[i].end - spots->user_id[i].p);
	s->length_n = varint_write(s->length, len + s->user_id_n);
	stamp_add_uncut(s, spots, p, spots->length);
	s->length_at = s->bytes;
	s->bytes += s->length_n;
	for (unsigned i = 0; i < spots->n_user_ids; i++) {
		stamp_add(s, at, spots->user_id[i].p);
		at = spots->user_id[i].end;
	}
	/* Behind what came, so that it is the last one even where somebody reads it otherwise. */
	stamp_add(s, at, spots->end);
	s->user_id_at = s->bytes;
	s->bytes += s->user_id_n;
	stamp_add_uncut(s, spots, spots->end, p + n);
	return true;
}

int msg_pack_repacked(const Websocket__WebSocketMessage *m, const struct msg_said *said, size_t n,
		      uint32_t crc, Websocket__CompressionType compression, struct buf *out)
{
	Websocket__WebSocketMessage envelope = *m;
	uint8_t payload_head[16], data_head[16];
	size_t payload_head_len, data_head_len, binary_len, envelope_len;
	struct msg_builder b;

	msg_init_repack(&b, m, NULL, 0, compression);
	if (m->binary->checksum[0])
		builder_put_crc(&b, crc);
	envelope.payload_case = WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD__NOT_SET;
	if (said->channel) {
		envelope.has_channel_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL;
		envelope.channel = text_borrow(said->channel);
	}
	if (said->sender)
		envelope.sender =
			(ProtobufCBinaryData){MSG_SENDER_BYTES, (uint8_t *)(uintptr_t)said->sender};
	if (said->sent_ms)
		envelope.sent_ms = said->sent_ms;
	binary_len = websocket__binary_data__get_packed_size(&b.binary);
	envelope_len = websocket__web_socket_message__get_packed_size(&envelope);
	data_head_len = n ? field_head_write(data_head, 1, n) : 0;
	payload_head_len =
		field_head_write(payload_head, WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_BINARY,
				 binary_len + data_head_len + n);
	if (buf_reserve(out, envelope_len + payload_head_len + binary_len + data_head_len,
			BUF_NO_LIMIT))
		return -ENOMEM;
	out->len += websocket__web_socket_message__pack(&envelope, out->data + out->len);
	memcpy(out->data + out->len, payload_head, payload_head_len);
	out->len += payload_head_len;
	out->len += websocket__binary_data__pack(&b.binary, out->data + out->len);
	if (data_head_len)
		memcpy(out->data + out->len, data_head, data_head_len);
	out->len += data_head_len;
	return 0;
}

/* --------------------------------------------------------------------------- members */

void msg_set_request_id(struct msg_builder *b, const void *id, size_t n)
{
	/* Answers are built on the stack, and what they repeat is a stranger's: it has a bound. */
	if (n > MSG_REQUEST_ID_MAX)
		return;
	b->m.request_id.data = (uint8_t *)(uintptr_t)id;
	b->m.request_id.len = n;
}

void msg_set_request_of(struct msg_builder *b, const Websocket__WebSocketMessage *request)
{
	msg_set_request_id(b, request->request_id.data, request->request_id.len);
}

/* protobuf-c leaves out a oneof's text that is its own constant for empty; "" here is not that. */
void msg_set_channel(struct msg_builder *b, const char *channel)
{
	/* An empty name is that of the lobby, and something else than no name. */
	b->m.has_channel_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL;
	b->m.channel = text_borrow(channel);
}

void msg_set_own_request_id(struct msg_builder *b, const uint8_t id[16])
{
	memcpy(b->own_id, id, sizeof(b->own_id));
	msg_set_request_id(b, b->own_id, sizeof(b->own_id));
}

void msg_set_session_id(struct msg_builder *b, const char *session_id)
{
	b->control.session_id = text_borrow(session_id);
}

void msg_set_max_size(struct msg_builder *b, int32_t max_size)
{
	b->control.has_max_size_case = WEBSOCKET__CONTROL_MESSAGE__HAS_MAX_SIZE_MAX_SIZE;
	b->control.max_size = max_size; /* proto3 `optional`: 0 would be sent, too */
}

void msg_set_capabilities(struct msg_builder *b, unsigned caps)
{
	const char *names[MSG_N_CAPS];
	size_t n = msg_caps_names(caps, names, MSG_N_CAPS);

	/* The names are constants; the array of pointers to them is the builder's own. */
	for (size_t i = 0; i < n; i++)
		b->capabilities[i] = text_borrow(names[i]);
	b->control.capabilities = b->capabilities;
	b->control.n_capabilities = n;
}

void msg_add_capability(struct msg_builder *b, const char *name)
{
	WB_ASSERT(b->control.n_capabilities < ARRAY_LEN(b->capabilities));
	b->capabilities[b->control.n_capabilities++] = text_borrow(name);
	b->control.capabilities = b->capabilities;
}

void msg_set_user_id(struct msg_builder *b, const char *user_id)
{
	b->control.user_id = text_borrow(user_id);
}

void msg_set_max_frames_per_second(struct msg_builder *b, uint32_t n)
{
	b->control.max_frames_per_second = n;
}

void msg_set_reason(struct msg_builder *b, const char *reason)
{
	b->control.reason = text_borrow(reason);
}

void msg_set_code(struct msg_builder *b, uint32_t code)
{
	b->control.code = code;
}

void msg_set_channels(struct msg_builder *b, char **channels, size_t n)
{
	b->control.channels = channels;
	b->control.n_channels = n;
}

void msg_set_positions(struct msg_builder *b, Websocket__Position **positions, size_t n)
{
	b->control.positions = positions;
	b->control.n_positions = n;
}

void msg_set_resume_token(struct msg_builder *b, const char *token, size_t n)
{
	b->control.resume_token = (ProtobufCBinaryData){n, (uint8_t *)(uintptr_t)token};
}

void msg_set_duplicate(struct msg_builder *b, bool is_duplicate)
{
	b->control.duplicate = is_duplicate;
}

void msg_set_reconnect_after_ms(struct msg_builder *b, uint32_t ms)
{
	b->control.reconnect_after_ms = ms;
}

void msg_set_mentions(struct msg_builder *b, char **mentions, size_t n)
{
	b->chat.mentions = mentions;
	b->chat.n_mentions = n;
}

/* A walk over all members: who needs the size for two things asks once. */
size_t msg_size(const struct msg_builder *b)
{
	return websocket__web_socket_message__get_packed_size(&b->m);
}

size_t msg_pack(const struct msg_builder *b, uint8_t *out)
{
	return websocket__web_socket_message__pack(&b->m, out);
}
