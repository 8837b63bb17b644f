/* SPDX-License-Identifier: MIT */
#include "wire/msg.h"

#include <string.h>

#include "model/close_codes.h"

#define RESERVED_USER "system"

enum msg_result msg_check_chat(const Websocket__WebSocketMessage *m)
{
	if (m->payload_case == WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CHAT &&
	    strcmp(m->chat->user_id, RESERVED_USER) == 0)
		return MSG_RESERVED_USER;
	return MSG_OK;
}

enum msg_result msg_check_binary(const Websocket__WebSocketMessage *m)
{
	const Websocket__BinaryData *b;

	if (m->payload_case != WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_BINARY)
		return MSG_OK;
	b = m->binary;
	/* Of the data as it was carried, packed or not: nothing has to be unpacked for it. */
	if (b->checksum[0] &&
	    !msg_checksum_matches(b->checksum, msg_crc32(b->data.data, b->data.len)))
		return MSG_BAD_CHECKSUM;
	return MSG_OK;
}

/* The outcomes: what an ERROR says, and the Close that follows it; 0: the connection stays. */
static const struct {
	const char *text;
	uint16_t close_code;
} result_row[MSG_N_RESULTS] = {
	[MSG_OK] = {"ok", 0},
	/* RFC 6455 section 7.4.1: data that is not consistent with the type of the message. */
	[MSG_NOT_A_MESSAGE] = {"not a WebSocketMessage", WS_CODE_INVALID_DATA},
	[MSG_BAD_UTF8] = {"a text field is not valid UTF-8", WS_CODE_INVALID_DATA},
	[MSG_BAD_TEXT] = {"a name, id or checksum contains a NUL character", 0},
	[MSG_LONG_LIST] = {"a list is too long", 0},
	[MSG_TWO_PAYLOADS] = {"two payloads of different kinds", 0},
	[MSG_UNKNOWN_TYPE] = {"unknown message type", 0},
	[MSG_WRONG_PAYLOAD] = {"payload missing or not of the message's type", 0},
	[MSG_BAD_CHECKSUM] = {"checksum does not match the data", 0},
	[MSG_RESERVED_USER] = {"user_id \"" RESERVED_USER "\" is reserved", 0},
	[MSG_TOO_BIG] = {"message needs too much memory", WS_CODE_TOO_BIG},
};

const char *msg_result_text(enum msg_result result)
{
	return (unsigned)result < MSG_N_RESULTS ? result_row[result].text : "unknown error";
}

uint16_t msg_result_close_code(enum msg_result result)
{
	return (unsigned)result < MSG_N_RESULTS ? result_row[result].close_code : 0;
}
