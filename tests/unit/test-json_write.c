/* SPDX-License-Identifier: MIT */
#include "wire/json_write.h"

#include <errno.h>

#include "test.h"
#include "wire/msg.h"

typedef Websocket__WebSocketMessage message;

static void check_text(const ProtobufCMessage *m, const char *text)
{
	struct buf b = {0};

	CHECK_EQ(json_write_message(&b, m, BUF_NO_LIMIT), 0);
	CHECK_EQ(buf_append(&b, "", 1, BUF_NO_LIMIT), 0);
	CHECK_STR((const char *)b.data, text);
	buf_fini(&b);
}

static message empty(void)
{
	message m;

	websocket__web_socket_message__init(&m);
	return m;
}

TEST(json_leaves_out_defaults_but_types_and_what_says_that_it_is_there)
{
	Websocket__ControlMessage control;
	Websocket__Position position, *positions[] = {&position};
	message m = empty();

	websocket__control_message__init(&control);
	websocket__position__init(&position);
	check_text(&m.base, "{\"type\":\"UNKNOWN\"}");
	m.has_channel_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL;
	m.channel = (char *)(uintptr_t) "";
	m.has_sequence_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_SEQUENCE_SEQUENCE;
	m.sequence = UINT64_MAX;
	m.sent_ms = -1;
	check_text(&m.base, "{\"type\":\"UNKNOWN\",\"channel\":\"\",\"sentMs\":\"-1\","
			    "\"sequence\":\"18446744073709551615\"}");
	m = empty();
	m.type = WEBSOCKET__MESSAGE_TYPE__CONTROL;
	m.payload_case = WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CONTROL;
	m.control = &control;
	control.type = WEBSOCKET__CONTROL_TYPE__CONNECT;
	control.positions = positions;
	control.n_positions = 1;
	position.has_recovered_case = WEBSOCKET__POSITION__HAS_RECOVERED_RECOVERED;
	check_text(&m.base, "{\"type\":\"CONTROL\",\"control\":{\"type\":\"CONNECT\",\"positions\":"
			    "[{\"sequence\":\"0\",\"recovered\":false}]}}");
	/* What a later version knows goes by its number. */
	control.n_positions = 0;
	control.type = (Websocket__ControlType)99;
	check_text(&m.base, "{\"type\":\"CONTROL\",\"control\":{\"type\":99}}");
}

TEST(json_bytes_are_base64)
{
	static const struct {
		const char *bytes, *text;
	} row[] = {{"f", "Zg=="},        {"fo", "Zm8="},           {"foo", "Zm9v"},
		   {"foob", "Zm9vYg=="}, {"\xff\xfe\xfb", "//77"}, {"foobar", "Zm9vYmFy"}};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		message m = empty();
		char text[100];

		m.request_id = (ProtobufCBinaryData){strlen(row[i].bytes),
						     (uint8_t *)(uintptr_t)row[i].bytes};
		snprintf(text, sizeof(text), "{\"type\":\"UNKNOWN\",\"requestId\":\"%s\"}",
			 row[i].text);
		check_text(&m.base, text);
	}
}

TEST(json_text_is_one_line)
{
	static const char text[] = "\"\\/\b\f\n\r\t\x01\x7f \u2028\u2029\u202a \u00e9\xe2\x80";
	struct buf b = {0};

	CHECK_EQ(json_write_text(&b, text, sizeof(text) - 1, BUF_NO_LIMIT), 0);
	CHECK_EQ(buf_append(&b, "", 1, BUF_NO_LIMIT), 0);
	CHECK_STR((const char *)b.data,
		  "\"\\\"\\\\/\\u0008\\u000c\\n\\r\\t\\u0001\\u007f \\u2028\\u2029\u202a "
		  "\u00e9\xe2\x80\"");
	buf_fini(&b);
}

TEST(json_ends_at_its_limit)
{
	Websocket__ChatMessage chat;
	message m = empty();
	struct buf b = {0};
	size_t whole;

	websocket__chat_message__init(&chat);
	m.payload_case = WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CHAT;
	m.chat = &chat;
	chat.content = (char *)(uintptr_t) "\n\n\n\n some text";
	CHECK_EQ(json_write_message(&b, &m.base, BUF_NO_LIMIT), 0);
	whole = b.len;
	for (size_t limit = 0; limit <= whole; limit++) {
		buf_clear(&b);
		CHECK_EQ(json_write_message(&b, &m.base, limit), limit < whole ? -EMSGSIZE : 0);
		CHECK(b.len <= limit);
	}
	buf_fini(&b);
}
