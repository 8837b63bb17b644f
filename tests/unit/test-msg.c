/* SPDX-License-Identifier: MIT */
#include "wire/msg.h"

#include <stdio.h>

#include "base/text.h"
#include "containers/mem.h"
#include "test.h"

#define TYPE(name) WEBSOCKET__MESSAGE_TYPE__##name
#define CTL(name) WEBSOCKET__CONTROL_TYPE__##name
#define HAS(name) WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_##name
#define HAS_CHANNEL WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL
#define BYTES(literal) (const uint8_t *)(literal), sizeof(literal) - 1

static struct arena arena;

static void start(size_t limit)
{
	arena_init(&arena, MIN((size_t)4096, limit), limit);
}

static enum msg_result decode(const void *p, size_t n, Websocket__WebSocketMessage **ret)
{
	return msg_decode(&arena, p, n, ret);
}

/* Packs what the builder holds into @out, where there is room, and reads it back. */
static Websocket__WebSocketMessage *round_trip(const struct msg_builder *b, uint8_t *out,
					       size_t cap)
{
	Websocket__WebSocketMessage *m = NULL;
	size_t n = msg_size(b);

	CHECK(n <= cap);
	CHECK_EQ(msg_pack(b, out), n);
	CHECK_EQ(decode(out, n, &m), MSG_OK);
	return m;
}

TEST(msg_chat_comes_back_as_it_was_built)
{
	char *mentions[] = {(char[]){"ann"}, (char[]){""}, (char[]){"\xc3\xa9"}, (char[]){"d"},
			    (char[]){"e"}};
	const uint8_t id[16] = {1, 2, 3, 0, 5};
	Websocket__WebSocketMessage *m;
	struct msg_builder b;
	uint8_t out[256];

	start(1 << 16);
	msg_init_chat(&b, "id-1", "user", "h\xc3\xa4llo", -5);
	msg_set_mentions(&b, mentions, ARRAY_LEN(mentions));
	msg_set_request_id(&b, id, sizeof(id));
	msg_set_channel(&b, "room/7");
	b.m.has_sequence_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_SEQUENCE_SEQUENCE;
	b.m.sequence = UINT64_MAX;
	m = round_trip(&b, out, sizeof(out));
	CHECK_EQ(m->type, TYPE(CHAT_MESSAGE));
	CHECK_EQ(m->payload_case, HAS(CHAT));
	CHECK_STR(m->chat->id, "id-1");
	CHECK_STR(m->chat->user_id, "user");
	CHECK_STR(m->chat->content, "h\xc3\xa4llo");
	CHECK_EQ(m->chat->timestamp, -5);
	CHECK_EQ(m->chat->n_mentions, ARRAY_LEN(mentions));
	for (size_t i = 0; i < ARRAY_LEN(mentions); i++)
		CHECK_STR(m->chat->mentions[i], mentions[i]);
	CHECK_EQ(m->request_id.len, sizeof(id));
	CHECK_MEM(m->request_id.data, id, sizeof(id));
	CHECK_EQ(m->has_channel_case, HAS_CHANNEL);
	CHECK_STR(m->channel, "room/7");
	CHECK(m->sequence == UINT64_MAX);
	arena_fini(&arena);
}

TEST(msg_control_comes_back_as_it_was_built)
{
	char *channels[] = {(char[]){"a"}, (char[]){""}};
	Websocket__WebSocketMessage request = WEBSOCKET__WEB_SOCKET_MESSAGE__INIT;
	Websocket__WebSocketMessage *m;
	struct msg_builder b;
	uint8_t out[256];

	start(1 << 16);
	request.request_id.data = (uint8_t[]){7, 8};
	request.request_id.len = 2;
	msg_init_control(&b, CTL(UNSUBSCRIBE));
	msg_set_request_of(&b, &request);
	msg_set_session_id(&b, "session");
	msg_set_max_size(&b, 0);
	msg_set_capabilities(&b, MSG_CAP_LZ4 | MSG_CAP_ZSTD);
	msg_set_reason(&b, "why");
	msg_set_code(&b, 1012);
	msg_set_channels(&b, channels, 2);
	msg_set_reconnect_after_ms(&b, 30000);
	m = round_trip(&b, out, sizeof(out));
	CHECK_EQ(m->control->type, CTL(UNSUBSCRIBE));
	CHECK_MEM(m->request_id.data, "\7\10", 2);
	CHECK_STR(m->control->session_id, "session");
	/* Set to 0 is not the same as not set. */
	CHECK_EQ(m->control->has_max_size_case, WEBSOCKET__CONTROL_MESSAGE__HAS_MAX_SIZE_MAX_SIZE);
	CHECK_EQ(m->control->max_size, 0);
	CHECK_EQ(msg_caps_parse(m->control->capabilities, m->control->n_capabilities),
		 MSG_CAP_LZ4 | MSG_CAP_ZSTD);
	CHECK_STR(m->control->reason, "why");
	CHECK_EQ(m->control->code, 1012);
	CHECK_EQ(m->control->n_channels, 2);
	CHECK_STR(m->control->channels[1], "");
	CHECK_EQ(m->control->reconnect_after_ms, 30000);
	CHECK(m->has_channel_case != HAS_CHANNEL);
	arena_fini(&arena);
}

TEST(msg_binary_points_into_the_input_and_costs_no_memory)
{
	static uint8_t data[1 << 20], out[(1 << 20) + 64];
	Websocket__WebSocketMessage *m;
	struct msg_builder b;

	start(1024);
	memset(data, 0x5a, sizeof(data));
	msg_init_binary(&b, data, sizeof(data), 9, true, WEBSOCKET__COMPRESSION_TYPE__GZIP);
	m = round_trip(&b, out, sizeof(out));
	CHECK_EQ(m->binary->data.len, sizeof(data));
	CHECK(m->binary->data.data > out && m->binary->data.data < out + sizeof(out));
	CHECK_EQ(m->binary->sequence, 9);
	CHECK_EQ(m->binary->is_last, 1);
	CHECK_EQ(m->binary->compression, WEBSOCKET__COMPRESSION_TYPE__GZIP);
	CHECK_EQ(msg_check_binary(m), MSG_OK);
	m->binary->data.data[77] ^= 1;
	CHECK_EQ(msg_check_binary(m), MSG_BAD_CHECKSUM);
	m->binary->checksum = (char[]){""};
	CHECK_EQ(msg_check_binary(m), MSG_OK);
	arena_fini(&arena);
}

/* Of a file: its fields stay also where the data is packed anew. */
TEST(msg_file_fields_come_back_and_survive_repacking)
{
	static uint8_t out[256], again[256];
	Websocket__WebSocketMessage *m;
	struct msg_builder b;

	start(4096);
	msg_init_binary(&b, "data", 4, 0, false, WEBSOCKET__COMPRESSION_TYPE__NONE);
	msg_set_file(&b, "r\xc3\xa9sum\xc3\xa9.txt", UINT64_C(1) << 40, "0123456789abcdef", 16);
	m = round_trip(&b, out, sizeof(out));
	for (int i = 0; i < 2; i++) {
		CHECK_STR(m->binary->name, "r\xc3\xa9sum\xc3\xa9.txt");
		CHECK_EQ(m->binary->size, UINT64_C(1) << 40);
		CHECK_EQ(m->binary->transfer.len, 16);
		CHECK_MEM(m->binary->transfer.data, "0123456789abcdef", 16);
		CHECK_EQ(m->binary->base.n_unknown_fields, 0);
		msg_init_repack(&b, m, "packed", 6, WEBSOCKET__COMPRESSION_TYPE__ZSTD);
		m = round_trip(&b, again, sizeof(again));
	}
	CHECK_MEM(m->binary->data.data, "packed", 6);
	arena_fini(&arena);
}

TEST(msg_heartbeat_is_its_type_alone)
{
	struct msg_builder b;
	uint8_t out[8];

	start(4096);
	msg_init_heartbeat(&b);
	CHECK_EQ(round_trip(&b, out, sizeof(out))->type, TYPE(HEARTBEAT));
	CHECK_EQ(msg_size(&b), 2);
	CHECK_MEM(out, "\x08\x04", 2);
	arena_fini(&arena);
}

TEST(msg_decode_tells_outcomes_apart)
{
	static const struct {
		const uint8_t *p;
		size_t n;
		enum msg_result expected;
	} cases[] = {
		{BYTES("\x08\x04"), MSG_OK},
		{BYTES("\x08\x04\x1a\x03\x0a\x01x"), MSG_OK},        /* heartbeat with a chat */
		{BYTES("\x08\x01\x1a\x00"), MSG_OK},                 /* chat, empty */
		{BYTES("\x1a\x00\x08\x01"), MSG_OK},                 /* payload before type */
		{BYTES("\x08\x02\x22\x02\x28\x63"), MSG_OK},         /* compression 99 */
		{BYTES("\x08\x03\x2a\x02\x08\x10"), MSG_OK},         /* SUBSCRIBE */
		{BYTES("\x08\x01\x1a\x00\xf8\x01\x05"), MSG_OK},     /* unknown field 31 */
		{BYTES("\x08\x01\x1a\x05\x1a\x03z\0z"), MSG_OK},     /* NUL in content */
		{BYTES("\x08\x81\x80\x80\x80\x10\x1a\x00"), MSG_OK}, /* type cut to 32 bits */
		{BYTES(""), MSG_UNKNOWN_TYPE},                       /* all defaults */
		{BYTES("\x08\x00\x1a\x00"), MSG_UNKNOWN_TYPE},
		{BYTES("\x08\x05\x1a\x00"), MSG_UNKNOWN_TYPE},
		{BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), MSG_UNKNOWN_TYPE}, /* -1 */
		{BYTES("\x08\x03\x2a\x02\x08\x05"), MSG_UNKNOWN_TYPE}, /* control type 5 */
		{BYTES("\x08\x03\x2a\x02\x08\x0f"), MSG_UNKNOWN_TYPE}, /* control type 15 */
		{BYTES("\x08\x03\x2a\x02\x08\x12"), MSG_OK}, /* POSITION: known, not taken */
		{BYTES("\x08\x03\x2a\x02\x08\x15"), MSG_UNKNOWN_TYPE}, /* control type 21 */
		{BYTES("\x08\x10\xa2\x01\x00"), MSG_UNKNOWN_TYPE},     /* EVENT */
		{BYTES("\x08\x01"), MSG_WRONG_PAYLOAD},
		{BYTES("\x08\x01\x22\x00"), MSG_WRONG_PAYLOAD},
		{BYTES("\x08\x02\x2a\x00"), MSG_WRONG_PAYLOAD},
		{BYTES("\x08\x03\x1a\x00"), MSG_WRONG_PAYLOAD},
		{BYTES("\x08\x01\x1a\x00\x22\x00"), MSG_TWO_PAYLOADS},
		{BYTES("\x08\x01\x22\x00\x1a\x00"), MSG_TWO_PAYLOADS},
		{BYTES("\x08\x01\x1a\x03\x12\x01\xff"), MSG_BAD_UTF8},     /* user_id */
		{BYTES("\x08\x01\x1a\x04\x1a\x02\xc0\x80"), MSG_BAD_UTF8}, /* content, overlong */
		{BYTES("\x08\x01\x1a\x03\x2a\x01\xe2"), MSG_BAD_UTF8},     /* mentions, cut off */
		{BYTES("\x08\x01\x1a\x03\x1a\x01\xff\x22\x00\x1a\x00"),
		 MSG_BAD_UTF8},                                            /* replaced */
		{BYTES("\x08\x03\x2a\x04\x92\x01\x01\xff"), MSG_BAD_UTF8}, /* channels */
		{BYTES("\x08\x04\x82\x01\x01\x80"), MSG_BAD_UTF8},         /* channel */
		{BYTES("\x08\x07\x82\x01\x01\x80"), MSG_BAD_UTF8},    /* before the unknown type */
		{BYTES("\x08\x04\x12\x01\xff"), MSG_OK},              /* request_id is bytes */
		{BYTES("\x08\x02\x22\x03\x0a\x01\xff"), MSG_OK},      /* so is data */
		{BYTES("\x08\x04\x82\x01\x02z\0"), MSG_BAD_TEXT},     /* channel */
		{BYTES("\x08\x01\x1a\x04\x12\x02z\0"), MSG_BAD_TEXT}, /* user_id */
		{BYTES("\x08\x02\x22\x04\x12\x02z\0"), MSG_BAD_TEXT}, /* checksum */
		{BYTES("\x08\x03\x2a\x04\x12\x02z\0"), MSG_BAD_TEXT}, /* session_id */
		{BYTES("\x08\x03\x2a\x05\x92\x01\x02\0z"), MSG_BAD_TEXT}, /* channels */
		{BYTES("\x08\x03\x2a\x05\x82\x01\x02\0z"), MSG_OK},       /* reason */
		{BYTES("\x08"), MSG_NOT_A_MESSAGE},
		{BYTES("\x08\x80"), MSG_NOT_A_MESSAGE},
		{BYTES("\x00\x00"), MSG_NOT_A_MESSAGE},              /* field 0 */
		{BYTES("\x08\x04\x80\x00\x00"), MSG_NOT_A_MESSAGE},  /* field 0, spelt longer */
		{BYTES("\x08\x04\xf8\x81\x80\x80\x00\x05"), MSG_OK}, /* tag of 5 bytes */
		{BYTES("\x08\x04\xf8\x81\x80\x80\x80\x00\x05"), MSG_NOT_A_MESSAGE},
		{BYTES("\x08\x04\x12\x81\x80\x80\x80\x00z"), MSG_OK}, /* length of 5 bytes */
		{BYTES("\x08\x04\x12\x81\x80\x80\x80\x80\x00z"), MSG_NOT_A_MESSAGE},
		/* A field with another wire type than its own is one that is not known. */
		{BYTES("\x0a\x00"), MSG_UNKNOWN_TYPE},             /* type as a string */
		{BYTES("\x08\x04\x0a\x00"), MSG_OK},               /* behind the type itself */
		{BYTES("\x08\x01\x18\x01"), MSG_WRONG_PAYLOAD},    /* chat as a number */
		{BYTES("\x08\x01\x1a\x00\x20\x01"), MSG_OK},       /* binary as one: no payload */
		{BYTES("\x0d\x01\x00\x00\x00"), MSG_UNKNOWN_TYPE}, /* type as fixed32 */
		{BYTES("\x08\x01\x1a\x05\x25\x01\x02\x03\x04"), MSG_OK}, /* timestamp as fixed32 */
		{BYTES("\x08\x01\x1a\x02\x10\x07"), MSG_OK},             /* user_id as a number */
		{BYTES("\x08\x02\x22\x09\x21\1\2\3\4\5\6\7\x08"), MSG_OK}, /* is_last as fixed64 */
		/* Groups are passed over, up to the end of the same number. */
		{BYTES("\x08\x04\xfb\x01\xfc\x01"), MSG_OK},
		{BYTES("\x08\x01\x1a\x04\x3b\x08\x01\x3c"), MSG_OK}, /* in a payload */
		{BYTES("\x08\x04\x3b\x08\x01\x12\x01z\x43\x44\x3d\1\2\3\4\x39\1\2\3\4\5\6\7\x08"
		       "\x3c"),
		 MSG_OK},                                     /* with all wire types, and another */
		{BYTES("\x08\x04\x1b\x0a\x01x\x1c"), MSG_OK}, /* of a known field's number */
		{BYTES("\x08\x04\x3b\x82\x01\x01\xff\x3c"),
		 MSG_OK},                                       /* what is in it is not looked at */
		{BYTES("\x08\x04\x3b\x44"), MSG_NOT_A_MESSAGE}, /* another end */
		{BYTES("\x08\x04\x3c"), MSG_NOT_A_MESSAGE},     /* an end of nothing */
		{BYTES("\x08\x04\x3b\x08\x01"), MSG_NOT_A_MESSAGE},      /* none */
		{BYTES("\x08\x04\x3b\x43\x3c\x44"), MSG_NOT_A_MESSAGE},  /* crossed */
		{BYTES("\x08\x01\x1a\x01\x3b\x3c"), MSG_NOT_A_MESSAGE},  /* past the payload */
		{BYTES("\x08\x04\x3b\x12\x05z\x3c"), MSG_NOT_A_MESSAGE}, /* too long inside */
		{BYTES("\x1a\x05\x08"), MSG_NOT_A_MESSAGE},              /* longer than the rest */
		{BYTES("\x08\x01\x1a\x03\x1a\x02x"), MSG_NOT_A_MESSAGE}, /* inner one too */
		{BYTES("\x08\x01\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), MSG_NOT_A_MESSAGE},
		{BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), MSG_NOT_A_MESSAGE},
		{BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), MSG_NOT_A_MESSAGE},
		{BYTES("\xf8\xff\xff\xff\x1f\x01"), MSG_NOT_A_MESSAGE}, /* tag past 32 bits */
		{BYTES("\xfb\x01\xfc\x01"), MSG_UNKNOWN_TYPE},          /* a group alone */
		{BYTES("\xfe\x01"), MSG_NOT_A_MESSAGE},                 /* wire type 6 */
		{BYTES("\xf9\x01\x01\x02\x03\x04\x05\x06\x07"), MSG_NOT_A_MESSAGE}, /* 7 of 8 */
		{BYTES("\xfd\x01\x01\x02\x03"), MSG_NOT_A_MESSAGE},                 /* 3 of 4 */
		{BYTES("GET / HTTP/1.1\r\n\r\n"), MSG_NOT_A_MESSAGE},
	};

	start(1 << 16);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		Websocket__WebSocketMessage *m = NULL;
		enum msg_result r = decode(cases[i].p, cases[i].n, &m);

		if (r != cases[i].expected)
			fprintf(stderr, "# case %zu\n", i);
		CHECK_EQ(r, cases[i].expected);
		/* The message is there for the answer, unless there is none. */
		CHECK_EQ(m == NULL, r == MSG_NOT_A_MESSAGE);
		arena_reset(&arena);
	}
	arena_fini(&arena);
}

/* Read one by one, neither of two payloads is from "system"; what receivers see is. */
TEST(msg_repeated_payload_is_merged)
{
	static const char twice[] =
		"\x08\x01\x1a\x0b\x12\x06system\x2a\x01z\x1a\x06\x1a\x01x\x2a\x01y";
	static const char other_between[] =
		"\x08\x01\x1a\x08\x12\x06system\x22\x00\x1a\x03\x1a\x01x";
	Websocket__WebSocketMessage *m;

	start(4096);
	CHECK_EQ(decode(BYTES(twice), &m), MSG_OK);
	CHECK_STR(m->chat->content, "x");
	CHECK_EQ(m->chat->n_mentions, 2);
	CHECK_STR(m->chat->mentions[1], "y");
	CHECK_EQ(msg_check_chat(m), MSG_RESERVED_USER);
	CHECK_EQ(decode(BYTES(other_between), &m), MSG_TWO_PAYLOADS);
	arena_fini(&arena);
}

/* Of a list that is too long nothing behind its bound is read, of the message the rest is. */
TEST(msg_decode_bounded_reads_no_more_of_a_list_than_it_may)
{
	struct arena a;
	char a_name[] = "a", b_name[] = "b", c_name[] = "c", bad[] = "\xff";
	char *names[4] = {a_name, b_name, c_name, bad};
	Websocket__WebSocketMessage *m = NULL;
	struct msg_builder b;
	uint8_t out[128];
	size_t n;

	arena_init(&a, 1024, 4096);
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__SUBSCRIBE);
	msg_set_channels(&b, names, 4);
	n = msg_pack(&b, out);
	/* Its request_id behind the payload. */
	memcpy(out + n, "\x12\x02id", 4);
	CHECK_EQ(msg_decode_bounded(&a, out, n + 4, 3, &m), MSG_LONG_LIST);
	CHECK_EQ(m->control->n_channels, 3);
	CHECK_EQ(m->request_id.len, 2);
	CHECK_EQ(msg_decode_bounded(&a, out, n + 4, 4, &m), MSG_BAD_UTF8);
	msg_set_channels(&b, names, 3);
	CHECK_EQ(msg_decode_bounded(&a, out, msg_pack(&b, out), 3, &m), MSG_OK);
	CHECK_EQ(m->control->n_channels, 3);
	msg_init_chat(&b, "", "me", "to many", 1);
	msg_set_mentions(&b, names, 3);
	CHECK_EQ(msg_decode_bounded(&a, out, msg_pack(&b, out), 1, &m), MSG_OK);
	CHECK_EQ(m->chat->n_mentions, 3);
	arena_fini(&a);
}

TEST(msg_checks_leave_other_kinds_alone)
{
	struct msg_builder b;

	msg_init_control(&b, CTL(CONNECT));
	CHECK_EQ(msg_check_chat(&b.m), MSG_OK);
	CHECK_EQ(msg_check_binary(&b.m), MSG_OK);
	msg_init_chat(&b, NULL, "systems", NULL, 0);
	CHECK_EQ(msg_check_chat(&b.m), MSG_OK);
	CHECK_STR(b.chat.content, "");
}

/* However little the arena gives, the outcome is MSG_TOO_BIG or the right one. */
TEST(msg_decode_ends_at_the_arenas_limit)
{
	static uint8_t many[3000];
	Websocket__WebSocketMessage *m;
	enum msg_result r = MSG_TOO_BIG;
	size_t limit;

	memcpy(many, "\x08\x01\x1a\xb4\x17", 5);
	for (size_t i = 5; i < sizeof(many); i += 5) /* mentions and unknown fields by turns */
		memcpy(many + i, "\x2a\x01x\x78\x01", 5);
	many[3] = (uint8_t)(((sizeof(many) - 5) & 0x7f) | 0x80);
	many[4] = (uint8_t)((sizeof(many) - 5) >> 7);
	for (limit = 0; r == MSG_TOO_BIG && limit < 1 << 20; limit += 512) {
		m = NULL;
		start(limit);
		r = decode(many, sizeof(many), &m);
		CHECK_EQ(m == NULL, r == MSG_TOO_BIG);
		if (m) {
			CHECK_EQ(m->chat->n_mentions, 599);
			CHECK_STR(m->chat->mentions[598], "x");
			CHECK_EQ(m->chat->base.n_unknown_fields, 599);
		}
		arena_fini(&arena);
	}
	CHECK_EQ(r, MSG_OK);
	CHECK(limit > 20000);
}

static void repack(const char *packed, size_t n, const char *data, struct msg_builder *b)
{
	Websocket__WebSocketMessage *m;

	CHECK_EQ(decode(packed, n, &m), MSG_OK);
	msg_init_repack(b, m, data, strlen(data), WEBSOCKET__COMPRESSION_TYPE__ZSTD);
}

TEST(msg_repack_keeps_all_but_the_data)
{
	/* request_id, data "old", checksum, sequence 6, is_last, unknown inside and outside,
	 * channel set and empty, sequence 5 */
	static const char full[] =
		"\x08\x02\x12\x02id\x22\x11\x0a\x03old\x12\x01z\x18\x06\x20\x01\x58\x07\x62\x01u"
		"\x82\x01\x00\xa9\x01\x05\0\0\0\0\0\0\0\xf2\x01\x03new";
	static const char bare[] = "\x08\x02\x22\x03\x0a\x01q";
	Websocket__WebSocketMessage *m;
	struct msg_builder b;
	uint8_t out[128];

	start(1 << 16);
	repack(full, sizeof(full) - 1, "other", &b);
	m = round_trip(&b, out, sizeof(out));
	CHECK_MEM(m->request_id.data, "id", 2);
	CHECK_EQ(m->binary->data.len, 5);
	CHECK_MEM(m->binary->data.data, "other", 5);
	CHECK_EQ(m->binary->compression, WEBSOCKET__COMPRESSION_TYPE__ZSTD);
	CHECK_EQ(m->binary->sequence, 6);
	CHECK_EQ(m->binary->is_last, 1);
	CHECK(m->binary->checksum[0] && msg_check_binary(m) == MSG_OK);
	CHECK_EQ(m->binary->base.n_unknown_fields, 2);
	CHECK_EQ(m->base.n_unknown_fields, 1);
	CHECK_EQ(m->base.unknown_fields[0].tag, 30);
	CHECK_EQ(m->base.unknown_fields[0].len, 4);
	CHECK_MEM(m->base.unknown_fields[0].data, "\x03new", 4);
	CHECK_EQ(m->has_channel_case, HAS_CHANNEL);
	CHECK_EQ(m->sequence, 5);

	repack(bare, sizeof(bare) - 1, "", &b);
	m = round_trip(&b, out, sizeof(out));
	CHECK_EQ(m->binary->data.len, 0);
	CHECK_STR(m->binary->checksum, "");
	CHECK(m->has_channel_case != HAS_CHANNEL);
	arena_fini(&arena);
}

TEST(msg_suffix_says_where_a_message_goes_and_whose_it_is)
{
	static const uint8_t sender[MSG_SENDER_BYTES] = "0123456789abcde";
	uint8_t packed[600];
	char name[256];
	size_t n, suffix;
	Websocket__WebSocketMessage *m;
	struct msg_builder b;

	msg_init_chat(&b, "", "u", "text", 0);
	msg_set_channel(&b, "home");
	for (size_t len = 0; len <= 255; len++) {
		start(4096);
		memset(name, 'c', len);
		name[len] = '\0';
		n = msg_pack(&b, packed);
		suffix = msg_suffix(packed + n, &(struct msg_said){.channel = name});
		CHECK_EQ(suffix, len + 3 + (len > 127));
		CHECK_EQ(decode(packed, n + suffix, &m), MSG_OK);
		CHECK_EQ(strlen(m->channel), len);
		CHECK_EQ(m->has_channel_case, HAS_CHANNEL);
		CHECK_EQ(m->sender.len, 0);
		suffix = msg_suffix(packed + n,
				    &(struct msg_said){.channel = name, .sender = sender});
		CHECK(suffix <= MSG_SUFFIX_MAX);
		CHECK_EQ(decode(packed, n + suffix, &m), MSG_OK);
		CHECK_STR(m->channel, name);
		CHECK_EQ(m->sender.len, sizeof(sender));
		CHECK_MEM(m->sender.data, sender, sizeof(sender));
		arena_fini(&arena);
	}
	CHECK_EQ(msg_suffix(packed, &(struct msg_said){0}), 0);
}

/* What a client says in fields that are the server's, in every order and wire type. */
TEST(msg_cuts_are_taken_out_and_nothing_else)
{
	static const struct {
		const char *bytes;
		size_t n;
	} cut[] = {
		{"\x88\x01\x05", 3}, /* 17, as it was once */
		{"\x89\x01"
		 "12345678",
		 10}, /* 17, fixed64 */
		{"\x92\x01\x03"
		 "abc",
		 6},                 /* sender */
		{"\x90\x01\x01", 3}, /* sender as a varint */
		{"\x98\x01\x7f", 3}, /* sent_ms */
		{"\xa9\x01"
		 "12345678",
		 10},                             /* sequence */
		{"\xa8\x01\x01", 3},              /* sequence as a varint */
		{"\x93\x01\x0a\x01x\x94\x01", 7}, /* a group with sender's number */
	};
	static const struct {
		const char *bytes;
		size_t n;
	} kept[] = {
		{"\x08\x01", 2},                    /* CHAT_MESSAGE */
		{"\x12\x02ID", 4},                  /* request_id */
		{"\x1a\x07\x12\x02me\x1a\x01x", 9}, /* chat */
		{"\xb2\x01\x01y", 4},               /* 22: of a later version */
		{"\x82\x01\x01r", 4},               /* channel */
	};
	uint64_t seed = 7;

	for (int round = 0; round < 20000; round++) {
		uint8_t in[200], want[200], out[400];
		size_t n = 0, n_want = 0, n_cuts = 0, body = 0;
		struct msg_decoder d;
		struct msg_stamp s;
		Websocket__WebSocketMessage *m;
		size_t budget = SIZE_MAX;
		const char *user = round % 2 ? "somebody" : NULL;

		start(8192);
		for (size_t k = 0; k < ARRAY_LEN(kept); k++) {
			while (test_random(&seed) % 3 == 0 && n_cuts < 6) {
				size_t i = test_random(&seed) % ARRAY_LEN(cut);

				memcpy(in + n, cut[i].bytes, cut[i].n);
				n += cut[i].n;
				n_cuts++;
			}
			memcpy(in + n, kept[k].bytes, kept[k].n);
			n += kept[k].n;
			if (k == 2 && user)
				body = n_want;
			memcpy(want + n_want, kept[k].bytes, kept[k].n);
			n_want += kept[k].n;
		}
		CHECK_EQ(msg_decoder_begin(&d, &arena, in, n, 10), MSG_OK);
		CHECK_EQ(msg_decoder_run(&d, &budget, &m), MSG_OK);
		CHECK_EQ(d.spots.n_cuts, n_cuts);
		CHECK_EQ(msg_stamp_init(&s, &d.spots, in, n, user), n_cuts <= MSG_CUTS);
		msg_drop_cuts(m, &d.spots);
		CHECK(!m->sender.len && !m->sent_ms && !m->has_sequence_case);
		CHECK_EQ(m->base.n_unknown_fields, 1);
		if (n_cuts <= MSG_CUTS) {
			memset(out, 0, sizeof(out));
			for (unsigned i = 0; i < s.n_pieces; i++)
				memcpy(out + s.piece[i].at, s.piece[i].p, s.piece[i].n);
			memcpy(out + s.length_at, s.length, s.length_n);
			memcpy(out + s.user_id_at, s.user_id, s.user_id_n);
			if (!user) {
				CHECK_EQ(s.bytes, n_want);
				CHECK_MEM(out, want, n_want);
			} else {
				CHECK_MEM(out, want, body);
				CHECK_EQ(decode(out, s.bytes, &m), MSG_OK);
				CHECK_STR(m->chat->user_id, user);
				CHECK_STR(m->chat->content, "x");
				CHECK_STR(m->channel, "r");
				CHECK_EQ(m->base.n_unknown_fields, 1);
				CHECK_EQ(m->base.unknown_fields[0].tag, 22);
			}
		}
		arena_fini(&arena);
	}
}

TEST(msg_with_two_payloads_is_none)
{
	/* BINARY_DATA with a chat beside it, in both orders; twice the same is merged. */
	static const char chat_behind[] = "\x08\x02\x22\x03\x0a\x01x\x1a\x07\x12\x02me\x1a\x01x";
	static const char chat_before[] = "\x08\x02\x1a\x07\x12\x02me\x1a\x01x\x22\x03\x0a\x01x";
	static const char twice[] = "\x08\x01\x1a\x03\x1a\x01x\x1a\x04\x12\x02me";
	static const char event[] = "\x08\x01\x1a\x03\x1a\x01x\xa2\x01\x03\x0a\x01k";
	Websocket__WebSocketMessage *m;

	start(4096);
	CHECK_EQ(decode((const uint8_t *)chat_behind, sizeof(chat_behind) - 1, &m),
		 MSG_TWO_PAYLOADS);
	CHECK_EQ(decode((const uint8_t *)chat_before, sizeof(chat_before) - 1, &m),
		 MSG_TWO_PAYLOADS);
	CHECK_EQ(decode((const uint8_t *)event, sizeof(event) - 1, &m), MSG_TWO_PAYLOADS);
	CHECK_EQ(decode((const uint8_t *)twice, sizeof(twice) - 1, &m), MSG_OK);
	CHECK_STR(m->chat->user_id, "me");
	arena_fini(&arena);
}

/* Lists of messages, and numbers of 64 bits in them. */
TEST(msg_positions_are_read)
{
	Websocket__WebSocketMessage *m, out;
	Websocket__ControlMessage control;
	Websocket__Position at[20], *list[20];
	uint8_t packed[2000];
	char name[20][8];
	size_t n;

	websocket__web_socket_message__init(&out);
	websocket__control_message__init(&control);
	for (size_t i = 0; i < ARRAY_LEN(at); i++) {
		websocket__position__init(&at[i]);
		snprintf(name[i], sizeof(name[i]), "r%zu", i);
		at[i].channel = name[i];
		at[i].epoch = UINT64_MAX - i;
		at[i].sequence = i;
		list[i] = &at[i];
	}
	out.type = WEBSOCKET__MESSAGE_TYPE__CONTROL;
	out.payload_case = WEBSOCKET__WEB_SOCKET_MESSAGE__PAYLOAD_CONTROL;
	out.control = &control;
	control.type = WEBSOCKET__CONTROL_TYPE__SUBSCRIBE;
	control.positions = list;
	control.n_positions = ARRAY_LEN(list);
	n = websocket__web_socket_message__pack(&out, packed);
	start(16384);
	CHECK_EQ(decode(packed, n, &m), MSG_OK);
	CHECK_EQ(m->control->n_positions, ARRAY_LEN(list));
	for (size_t i = 0; i < ARRAY_LEN(at); i++) {
		CHECK_STR(m->control->positions[i]->channel, name[i]);
		CHECK_EQ(m->control->positions[i]->epoch, UINT64_MAX - i);
		CHECK_EQ(m->control->positions[i]->sequence, i);
	}
	arena_fini(&arena);
}

/* Empty and set is the lobby: it must not vanish on the way. */
TEST(msg_empty_channel_stays_set)
{
	Websocket__WebSocketMessage *m;
	struct msg_builder b;
	uint8_t out[64];

	start(4096);
	msg_init_chat(&b, "", "", "x", 0);
	msg_set_channel(&b, "");
	m = round_trip(&b, out, sizeof(out));
	CHECK_EQ(m->has_channel_case, HAS_CHANNEL);
	CHECK_STR(m->channel, "");
	arena_fini(&arena);
}

TEST(msg_request_id_is_repeated_up_to_a_size)
{
	uint8_t id[MSG_REQUEST_ID_MAX + 1] = {1};
	struct msg_builder b;

	msg_init_control(&b, CTL(ACKNOWLEDGE));
	msg_set_request_id(&b, id, sizeof(id));
	CHECK_EQ(b.m.request_id.len, 0);
	msg_set_request_id(&b, id, MSG_REQUEST_ID_MAX);
	CHECK_EQ(b.m.request_id.len, MSG_REQUEST_ID_MAX);
}

TEST(msg_checksum_is_compared_as_a_number)
{
	CHECK_EQ(msg_crc32("123456789", 9), 0xcbf43926);
	CHECK_EQ(msg_crc32(NULL, 0), 0);
	CHECK(msg_checksum_matches("cbf43926", 0xcbf43926));
	CHECK(msg_checksum_matches("CBF43926", 0xcbf43926));
	CHECK(msg_checksum_matches("00ab", 0xab));
	CHECK(msg_checksum_matches("ab", 0xab));
	CHECK(msg_checksum_matches("00000000000000000000ab", 0xab));
	CHECK(msg_checksum_matches("0", 0));
	CHECK(!msg_checksum_matches("", 0));
	CHECK(!msg_checksum_matches("1cbf43926", 0xcbf43926));
	CHECK(!msg_checksum_matches("10000000000000000cbf43926", 0xcbf43926));
	CHECK(!msg_checksum_matches("0xab", 0xab));
	CHECK(!msg_checksum_matches("ab ", 0xab));
	CHECK(!msg_checksum_matches("ac", 0xab));
}

TEST(msg_results_have_a_text_and_a_close_code)
{
	for (unsigned i = 0; i < MSG_N_RESULTS; i++)
		CHECK(msg_result_text((enum msg_result)i)[0]);
	CHECK(msg_result_text(MSG_N_RESULTS)[0]);
	CHECK_EQ(msg_result_close_code(MSG_NOT_A_MESSAGE), 1007);
	CHECK_EQ(msg_result_close_code(MSG_BAD_UTF8), 1007);
	CHECK_EQ(msg_result_close_code(MSG_TOO_BIG), 1009);
	CHECK_EQ(msg_result_close_code(MSG_WRONG_PAYLOAD), 0);
	CHECK_EQ(msg_result_close_code(MSG_BAD_TEXT), 0);
}

/* ---- against protobuf-c, over random and damaged messages ---- */

/* What an input has that protobuf-c does not see: the oracle for where outcomes may differ. */
struct oracle {
	/* field number 0, a number that overflows or is padded, is_last of a wrong type */
	bool is_stricter;
	bool is_laxer;  /* we accept what protobuf-c does not: groups, and other wire types */
	bool is_merged; /* a payload more than once: protobuf-c replaces */
	bool bad_utf8;
	bool bad_text;
	unsigned payloads;
};

static size_t oracle_varint(const uint8_t *p, size_t n, uint64_t *ret, bool *overflows)
{
	unsigned __int128 v = 0;

	for (size_t i = 0; i < n && i < 10; i++) {
		v |= (unsigned __int128)(p[i] & 0x7f) << 7 * i;
		if (p[i] < 0x80) {
			*ret = (uint64_t)v;
			*overflows |= v >> 64 != 0;
			return i + 1;
		}
	}
	return 0;
}

/* Strings in which a NUL would deceive. */
static bool is_plain(const ProtobufCMessageDescriptor *desc, uint64_t id)
{
	if (desc == &websocket__web_socket_message__descriptor)
		return id == 16;
	if (desc == &websocket__control_message__descriptor)
		return id == 2 || id == 18 || id == 20;
	if (desc == &websocket__binary_data__descriptor)
		return id == 2 || id == 16;
	return desc == &websocket__chat_message__descriptor && id == 2;
}

/* The known field of a number, or NULL. */
static const ProtobufCFieldDescriptor *oracle_field(const ProtobufCMessageDescriptor *desc,
						    uint64_t id)
{
	for (unsigned i = 0; i < desc->n_fields; i++)
		if (desc->fields[i].id == id)
			return &desc->fields[i];
	return NULL;
}

static unsigned oracle_type(const ProtobufCFieldDescriptor *f)
{
	if (f->type == PROTOBUF_C_TYPE_FIXED64)
		return 1;
	return f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_BYTES ||
			       f->type == PROTOBUF_C_TYPE_MESSAGE
		       ? 2
		       : 0;
}

static void oracle_walk(struct oracle *o, const ProtobufCMessageDescriptor *desc, const uint8_t *p,
			size_t n);

/* What is in a field that is known, and of its own wire type. */
static void oracle_body(struct oracle *o, const ProtobufCMessageDescriptor *desc,
			const ProtobufCFieldDescriptor *f, const uint8_t *p, size_t n)
{
	if (f->type == PROTOBUF_C_TYPE_STRING) {
		o->bad_utf8 |= !utf8_valid(p, n);
		o->bad_text |= is_plain(desc, f->id) && n && memchr(p, 0, n);
	}
	if (f->type != PROTOBUF_C_TYPE_MESSAGE)
		return;
	if (desc == &websocket__web_socket_message__descriptor)
		o->is_merged |= o->payloads++ > 0;
	oracle_walk(o, f->descriptor, p, n);
}

static void oracle_walk(struct oracle *o, const ProtobufCMessageDescriptor *desc, const uint8_t *p,
			size_t n)
{
	while (n) {
		const ProtobufCFieldDescriptor *f;
		uint64_t tag = 0, value = 0;
		bool is_long = false;
		size_t head = oracle_varint(p, n, &tag, &is_long), body = 0;

		o->is_stricter |= !head || head > 5 || tag > UINT32_MAX || tag >> 3 == 0;
		if (o->is_stricter)
			return;
		f = oracle_field(desc, tag >> 3);
		o->is_laxer |=
			(tag & 7) == 3 || (tag & 7) == 4 || (f && oracle_type(f) != (tag & 7));
		if (o->is_laxer)
			return;
		p += head;
		n -= head;
		if ((tag & 7) == 1 || (tag & 7) == 5)
			body = (tag & 7) == 1 ? 8 : 4;
		else
			body = oracle_varint(p, n, &value, &is_long);
		if ((tag & 7) == 2) {
			is_long |= body > 5;
			p += body;
			n -= MIN(body, n);
			body = (size_t)value;
		}
		o->is_stricter |= is_long;
		if (body > n || o->is_stricter)
			return;
		if ((tag & 7) == 2 && f)
			oracle_body(o, desc, f, p, body);
		p += body;
		n -= body;
	}
}

static char *random_text(uint64_t *rng, char *out, size_t max)
{
	size_t n = test_random(rng) % max;

	for (size_t i = 0; i < n; i++)
		out[i] = (char)('a' + test_random(rng) % 26);
	out[n] = '\0';
	return out;
}

static size_t random_message(uint64_t *rng, uint8_t *out)
{
	static char text[4][40];
	char *list[2] = {text[0], text[1]};
	struct msg_builder b;
	size_t n;

	for (size_t i = 0; i < 4; i++)
		random_text(rng, text[i], 40);
	switch (test_random(rng) % 3) {
	case 0:
		msg_init_chat(&b, text[0], text[1], text[2], (int64_t)test_random(rng));
		msg_set_mentions(&b, list, test_random(rng) % 3);
		break;
	case 1:
		msg_init_binary(&b, text[0], 20, (uint32_t)test_random(rng), test_random(rng) & 1,
				(Websocket__CompressionType)(test_random(rng) % 5));
		break;
	default:
		msg_init_control(&b, (Websocket__ControlType)(test_random(rng) % 20));
		msg_set_session_id(&b, text[2]);
		msg_set_capabilities(&b, (unsigned)test_random(rng));
		msg_set_channels(&b, list, test_random(rng) % 3);
		if (test_random(rng) & 1)
			msg_set_max_size(&b, (int32_t)test_random(rng));
		break;
	}
	msg_set_request_id(&b, text[3], 16);
	if (test_random(rng) & 1)
		msg_set_channel(&b, text[3]);
	n = msg_pack(&b, out);
	if (test_random(rng) % 4 == 0) {
		memcpy(out + n, "\xa2\x06\x02xy\xa8\x06\x07\xb5\x06\x01\x02\x03\x04", 14);
		n += 14;
	}
	return n;
}

static size_t damage(uint64_t *rng, uint8_t *p, size_t n)
{
	for (uint64_t k = test_random(rng) % 4; k > 0 && n > 0; k--) {
		size_t at = test_random(rng) % n;

		switch (test_random(rng) % 4) {
		case 0:
			p[at] ^= (uint8_t)(1u << test_random(rng) % 8);
			break;
		case 1:
			p[at] = (uint8_t)test_random(rng);
			break;
		case 2:
			n = at;
			break;
		default:
			memmove(p + at, p + at + 1, n - at - 1);
			n--;
			break;
		}
	}
	return n;
}

static void compare(const uint8_t *p, size_t n)
{
	Websocket__WebSocketMessage *ours = NULL, *theirs;
	struct oracle o = {0};
	static uint8_t a[1024], b[1024];
	enum msg_result r;
	size_t n_a, n_b;

	r = decode(p, n, &ours);
	theirs = websocket__web_socket_message__unpack(NULL, n, p);
	oracle_walk(&o, &websocket__web_socket_message__descriptor, p, n);
	CHECK(r != MSG_TOO_BIG);
	if (o.is_laxer) {
		/* A table, and other libraries, say what comes of it. */
	} else if (!ours) {
		if (theirs && !o.is_stricter)
			for (size_t i = 0; i < n; i++)
				fprintf(stderr, "%02x%c", p[i], i + 1 < n ? ' ' : '\n');
		CHECK(!theirs || o.is_stricter);
	} else {
		CHECK(theirs && !o.is_stricter);
		CHECK_EQ(r == MSG_BAD_UTF8, o.bad_utf8);
		CHECK_EQ(r == MSG_BAD_TEXT, o.bad_text && !o.bad_utf8);
		n_a = websocket__web_socket_message__get_packed_size(ours);
		n_b = websocket__web_socket_message__get_packed_size(theirs);
		if (!o.is_merged) {
			CHECK_EQ(n_a, n_b);
			CHECK(n_a <= sizeof(a));
			websocket__web_socket_message__pack(ours, a);
			websocket__web_socket_message__pack(theirs, b);
			CHECK_MEM(a, b, n_a);
		}
	}
	websocket__web_socket_message__free_unpacked(theirs, NULL);
	arena_reset(&arena);
}

/* Whatever pieces it is read in, the same comes of it. */
TEST(msg_decoder_in_steps_agrees_with_one_step)
{
	uint64_t rng = test_seed();
	uint8_t packed[1024];
	static uint8_t a[2048], b[2048];

	start(1 << 18);
	for (int i = 0; i < 20000; i++) {
		Websocket__WebSocketMessage *whole = NULL, *stepped = NULL;
		size_t n = damage(&rng, packed, random_message(&rng, packed)), n_whole = 0;
		struct msg_decoder d;
		enum msg_result r = decode(packed, n, &whole), s;

		if (whole)
			n_whole = websocket__web_socket_message__pack(whole, a);
		s = msg_decoder_begin(&d, &arena, packed, n, SIZE_MAX);
		CHECK_EQ(s, MSG_OK);
		do {
			size_t budget = 1 + test_random(&rng) % 40;

			s = msg_decoder_run(&d, &budget, &stepped);
		} while (s == MSG_UNFINISHED);
		CHECK_EQ(s, r);
		CHECK_EQ(!stepped, !whole);
		if (stepped) {
			CHECK_EQ(websocket__web_socket_message__pack(stepped, b), n_whole);
			CHECK_MEM(a, b, n_whole);
		}
		arena_reset(&arena);
	}
	arena_fini(&arena);
}

/* What a stamp makes of the bytes is what it would be packed again. */
TEST(msg_stamp_is_what_packing_makes)
{
	uint64_t rng = test_seed();
	uint8_t packed[1024], stamped[1400], a[2048], b[2048];
	unsigned n_stamped = 0, n_others = 0;

	start(1 << 18);
	for (int i = 0; i < 20000; i++) {
		Websocket__WebSocketMessage *m = NULL, *back = NULL;
		size_t budget = SIZE_MAX, n = random_message(&rng, packed), size;
		const char *user = i % 2 ? "alice" : "somebody whose name is longer than any other";
		struct msg_decoder d;
		struct msg_builder b1;
		struct msg_stamp s;

		if (test_random(&rng) % 8 == 0)
			n += random_message(&rng, packed + n);
		if (test_random(&rng) % 2)
			n = damage(&rng, packed, n);
		CHECK_EQ(msg_decoder_begin(&d, &arena, packed, n, SIZE_MAX), MSG_OK);
		if (msg_decoder_run(&d, &budget, &m) != MSG_OK ||
		    m->type != WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE) {
			arena_reset(&arena);
			continue;
		}
		if (!msg_stamp_init(&s, &d.spots, packed, n, user)) {
			n_others++;
			arena_reset(&arena);
			continue;
		}
		n_stamped++;
		CHECK(s.bytes <= sizeof(stamped));
		memset(stamped, 0xee, sizeof(stamped));
		memcpy(stamped + s.length_at, s.length, s.length_n);
		memcpy(stamped + s.user_id_at, s.user_id, s.user_id_n);
		size = s.length_n + s.user_id_n;
		for (unsigned k = 0; k < s.n_pieces; k++) {
			memcpy(stamped + s.piece[k].at, s.piece[k].p, s.piece[k].n);
			size += s.piece[k].n;
		}
		CHECK_EQ(size, s.bytes);
		msg_drop_cuts(m, &d.spots);
		msg_init_stamp(&b1, m, user);
		CHECK(msg_size(&b1) <= sizeof(a));
		size = msg_pack(&b1, a);
		CHECK_EQ(decode(stamped, s.bytes, &back), MSG_OK);
		CHECK_STR(back->chat->user_id, user);
		CHECK_EQ(websocket__web_socket_message__get_packed_size(back), size);
		websocket__web_socket_message__pack(back, b);
		CHECK_MEM(a, b, size);
		arena_reset(&arena);
	}
	CHECK(n_stamped > 1000 && n_others > 20);
	arena_fini(&arena);
}

/* A step is as long as its budget, also in the middle of a string. */
TEST(msg_decoder_stops_inside_a_string)
{
	const size_t n = 1 << 20;
	Websocket__WebSocketMessage *m = NULL;
	char *text = malloc(n + 1);
	struct msg_decoder d;
	struct msg_builder b;
	unsigned steps = 0;
	uint8_t *packed;
	size_t len;

	start(4 << 20);
	memset(text, 'x', n);
	/* A character of three bytes lies over the border of two steps. */
	memcpy(text + 4096 - 20,
	       "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82"
	       "\xac",
	       21);
	text[n] = '\0';
	msg_init_chat(&b, "id", "user", text, 1);
	packed = malloc(msg_size(&b));
	len = msg_pack(&b, packed);
	CHECK_EQ(msg_decoder_begin(&d, &arena, packed, len, SIZE_MAX), MSG_OK);
	for (enum msg_result r = MSG_UNFINISHED; r != MSG_OK; steps++) {
		size_t budget = 4096;

		r = msg_decoder_run(&d, &budget, &m);
		CHECK(r == MSG_OK || r == MSG_UNFINISHED);
	}
	CHECK(steps >= n / 4096 && steps <= n / 4096 + 2);
	CHECK_STR(m->chat->content, text);
	/* Where nobody needs it, it takes no memory, and is checked all the same. */
	arena_reset(&arena);
	for (unsigned is_bad = 0; is_bad < 2; is_bad++) {
		size_t budget = SIZE_MAX;

		packed[len - 4] = is_bad ? 0xff : 'x';
		CHECK_EQ(msg_decoder_begin(&d, &arena, packed, len, SIZE_MAX), MSG_OK);
		d.drops_content = true;
		CHECK_EQ(msg_decoder_run(&d, &budget, &m), is_bad ? MSG_BAD_UTF8 : MSG_OK);
		CHECK_STR(m->chat->content, "");
		CHECK_STR(m->chat->user_id, "user");
		CHECK(arena.held_bytes < n / 2);
	}
	/* The last byte makes it wrong, which the last step finds. */
	packed[len - 4] = 0xff;
	arena_reset(&arena);
	CHECK_EQ(decode(packed, len, &m), MSG_BAD_UTF8);
	free(packed);
	free(text);
	arena_fini(&arena);
}

/* Groups inside each other: as many as protobuf allows of messages. */
TEST(msg_groups_have_a_depth)
{
	Websocket__WebSocketMessage *m = NULL;
	uint8_t nested[2 + 2 * (MSG_GROUPS_MAX + 1)] = {0x08, 0x04};

	start(1 << 16);
	for (unsigned depth = MSG_GROUPS_MAX; depth <= MSG_GROUPS_MAX + 1; depth++) {
		memset(nested + 2, 0x3b, depth);
		memset(nested + 2 + depth, 0x3c, depth);
		CHECK_EQ(decode(nested, 2 + 2 * depth, &m),
			 depth <= MSG_GROUPS_MAX ? MSG_OK : MSG_NOT_A_MESSAGE);
	}
	arena_fini(&arena);
}

TEST(msg_decode_agrees_with_protobuf_c)
{
	uint64_t rng = test_seed();
	uint8_t packed[1024];

	start(1 << 18);
	for (int i = 0; i < 60000; i++) {
		size_t n = random_message(&rng, packed);

		if (test_random(&rng) % 8 == 0)
			n += random_message(&rng, packed + n);
		n = damage(&rng, packed, n);
		/*
		 * Exactly as much memory as there is input, so that a sanitizer sees a step too
		 * far.
		 */
		uint8_t *exact = malloc(n ? n : 1);
		memcpy(exact, packed, n);
		compare(exact, n);
		free(exact);
	}
	arena_fini(&arena);
}

/* The walk knows those field types only that the messages have; a new kind of field needs
 * a new branch there. */
TEST(msg_decode_knows_every_type_of_field_in_use)
{
	static const ProtobufCMessageDescriptor *const all[] = {
		&websocket__chat_message__descriptor,
		&websocket__binary_data__descriptor,
		&websocket__control_message__descriptor,
		&websocket__position__descriptor,
		&websocket__member__descriptor,
		&websocket__event__descriptor,
		&websocket__web_socket_message__descriptor,
	};

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		for (unsigned k = 0; k < all[i]->n_fields; k++) {
			const ProtobufCFieldDescriptor *f = &all[i]->fields[k];
			bool is_known = f->type == PROTOBUF_C_TYPE_ENUM ||
					f->type == PROTOBUF_C_TYPE_INT32 ||
					f->type == PROTOBUF_C_TYPE_UINT32 ||
					f->type == PROTOBUF_C_TYPE_INT64 ||
					f->type == PROTOBUF_C_TYPE_UINT64 ||
					f->type == PROTOBUF_C_TYPE_BOOL ||
					f->type == PROTOBUF_C_TYPE_STRING ||
					f->type == PROTOBUF_C_TYPE_BYTES ||
					f->type == PROTOBUF_C_TYPE_FIXED64 ||
					f->type == PROTOBUF_C_TYPE_MESSAGE;

			CHECK(is_known);
			CHECK(f->label != PROTOBUF_C_LABEL_REPEATED ||
			      f->type == PROTOBUF_C_TYPE_STRING ||
			      f->type == PROTOBUF_C_TYPE_MESSAGE);
		}
	}
}
