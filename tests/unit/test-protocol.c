/* SPDX-License-Identifier: MIT */
/* What messages mean, row by row, by their bytes. Channels are in test-protocol-channels.c. */
#include "rig.h"

#include <stdio.h>

#include "base/text.h"
#include "worker/protocol.h"

#define FREE "max_incoming_frames_per_second = 0\nnotice_limit = 0\n"

static const uint8_t request_id[16] = "sixteen bytes id";

static const Websocket__WebSocketMessage *next_control(struct guest *g, Websocket__ControlType type)
{
	const Websocket__WebSocketMessage *m = guest_next_msg(g);

	CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL);
	CHECK_EQ(m->control->type, type);
	return m;
}

/* The answer to a message that had the request_id above, or had none. */
static void expect_answer(struct guest *g, unsigned code, bool has_id)
{
	const Websocket__WebSocketMessage *m = next_control(
		g, code ? WEBSOCKET__CONTROL_TYPE__ERROR : WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);

	CHECK_EQ(m->request_id.len, has_id ? 16 : 0);
	if (has_id)
		CHECK_MEM(m->request_id.data, request_id, 16);
	CHECK_EQ(m->control->code, code);
	CHECK_EQ(m->control->reason[0] != '\0', code != 0);
	CHECK(guest_next_msg(g) == NULL);
}

/* --------------------------------------------------------------------- greeting */

TEST(protocol_greets_with_the_welcome_and_the_configuration)
{
	struct rig *r = rig_new(1, "welcome = Hi {user}, {id}{user}{x}{\nmax_message_size = 1M\n"
				   "max_frame_size = 1M\n");
	struct guest *g = guest_accept(r, 0);
	const Websocket__WebSocketMessage *m;
	char request[256], text[200], id[37];
	uint8_t uuid[16];

	guest_write(g, request, guest_handshake(request, sizeof(request), "/"));
	rig_settle(r);
	CHECK_EQ(guest_status(g), 101);
	uuid4_format(id, g->conn->id);
	m = guest_next_msg(g);
	CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE);
	CHECK_STR(m->chat->user_id, "system");
	CHECK_EQ(uuid_parse(m->chat->id, uuid), 0);
	CHECK(m->chat->timestamp > 1600000000);
	snprintf(text, sizeof(text), "Hi user-127.0.0.1:40000, %suser-127.0.0.1:40000{x}{", id);
	CHECK_STR(m->chat->content, text);
	m = next_control(g, WEBSOCKET__CONTROL_TYPE__CONFIG);
	CHECK_STR(m->control->session_id, id);
	CHECK_EQ(m->control->max_size, 1 << 20);
	CHECK_EQ(m->request_id.len, 16);
	CHECK_EQ(m->control->n_capabilities, MSG_N_CAPS + 1);
	CHECK_STR(m->control->capabilities[MSG_N_CAPS], PROTOCOL_VERSION);
	CHECK_STR(m->control->user_id, "user-127.0.0.1:40000");
	CHECK_EQ(m->control->max_frames_per_second, 1000);
	CHECK(m->has_channel_case && !m->channel[0]);
	CHECK(guest_next_msg(g) == NULL);
	rig_free(r);
}

TEST(protocol_welcome_is_cut_to_its_room)
{
	char config[1100] = "welcome = ";
	struct rig *r;

	for (size_t n = strlen(config); n < 1000; n += 4)
		memcpy(config + n, "{id}", 5);
	r = rig_new(1, config);
	guest_open(r, 0, "/");
	rig_free(r);
}

/* ---------------------------------------------------------------------- control */

static void send_connect(struct guest *g, const char *session, unsigned caps)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONNECT);
	msg_set_request_id(&b, request_id, 16);
	msg_set_session_id(&b, session);
	msg_set_capabilities(&b, caps);
	guest_send_msg(g, &b);
	rig_settle(g->rig);
}

TEST(protocol_connect_agrees_on_capabilities)
{
	static const unsigned caps[] = {0, MSG_CAP_ACK, MSG_CAP_ZSTD | MSG_CAP_LZ4,
					MSG_CAP_ACK | MSG_CAP_ZSTD | MSG_CAP_LZ4 | MSG_CAP_GZIP};
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/");

	for (size_t i = 0; i < ARRAY_LEN(caps); i++) {
		const Websocket__WebSocketMessage *m;

		send_connect(g, "me", caps[i]);
		m = next_control(g, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
		CHECK_MEM(m->request_id.data, request_id, 16);
		CHECK_EQ(msg_caps_parse(m->control->capabilities, m->control->n_capabilities),
			 caps[i]);
		CHECK_EQ(g->conn->caps, caps[i]);
		CHECK_STR(conn_session_id(g->conn), "me");
	}
	rig_free(r);
}

/* A second CONNECT may be about something else: a token, a session. */
TEST(protocol_connect_without_capabilities_keeps_them)
{
	char none[] = "none", *names[] = {none};
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/");
	const Websocket__WebSocketMessage *m;
	struct msg_builder b;

	send_connect(g, "me", MSG_CAP_ACK | MSG_CAP_ZSTD);
	(void)next_control(g, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	send_connect(g, "me", 0);
	m = next_control(g, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	CHECK_EQ(m->control->n_capabilities, 2);
	CHECK_EQ(g->conn->caps, MSG_CAP_ACK | MSG_CAP_ZSTD);
	/* What nobody knows is none, said on purpose. */
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONNECT);
	b.control.capabilities = names;
	b.control.n_capabilities = 1;
	guest_send_msg(g, &b);
	rig_settle(r);
	CHECK_EQ(g->conn->caps, 0);
	rig_free(r);
}

TEST(protocol_answers_a_heartbeat_of_who_asked_for_it)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/");
	const Websocket__WebSocketMessage *m;
	struct msg_builder b;

	send_connect(g, "me", MSG_CAP_HEARTBEAT);
	(void)next_control(g, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	msg_init_heartbeat(&b);
	msg_set_request_id(&b, request_id, 16);
	guest_send_msg(g, &b);
	rig_settle(r);
	m = guest_next_msg(g);
	CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__HEARTBEAT);
	CHECK_MEM(m->request_id.data, request_id, 16);
	CHECK(!guest_next_msg(g));
	rig_free(r);
}

/* Of who published it, whatever that says; a text, and what nobody stamps, has none. */
TEST(protocol_stamps_the_sender)
{
	static const uint8_t forged[] = "\x08\x01\x92\x01\x10"
					"AAAAAAAAAAAAAAAA"
					"\x1a\x03\x1a\x01x\x98\x01\x05";
	static const char *const config[] = {FREE, FREE "stamp_sender = yes\n"};

	for (int stamps = 0; stamps < 2; stamps++) {
		struct rig *r = rig_new(1, config[stamps]);
		struct guest *g = guest_open(r, 0, "/room"), *other = guest_open(r, 0, "/room");
		const Websocket__WebSocketMessage *m;

		guest_send(g, true, WS_BINARY, forged, sizeof(forged) - 1);
		rig_settle(r);
		m = guest_next_msg(other);
		CHECK_STR(m->chat->content, "x");
		CHECK_STR(m->channel, "room");
		CHECK_EQ(m->sent_ms, 0);
		CHECK_EQ(m->sender.len, stamps ? 16 : 0);
		if (stamps)
			CHECK_MEM(m->sender.data, g->conn->id, 16);
		/* A kind of message that this version has no use for. */
		guest_send(g, true, WS_BINARY, "\x08\x03\x2a\x03\x08\x14", 6);
		rig_free(r);
	}
}

TEST(protocol_refuses_names_that_are_paths)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/");
	char name[] = "/room/7", *names[] = {name};
	const Websocket__WebSocketMessage *m;
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__SUBSCRIBE);
	msg_set_channels(&b, names, 1);
	guest_send_msg(g, &b);
	rig_settle(r);
	m = next_control(g, WEBSOCKET__CONTROL_TYPE__ERROR);
	CHECK_EQ(m->control->code, 400);
	CHECK_STR(m->channel, "/room/7");
	CHECK(strstr(m->control->reason, "leave it out"));
	CHECK_EQ(g->conn->n_members, 1);
	rig_free(r);
}

TEST(protocol_connect_bounds_the_session_id)
{
	char session[CONN_SESSION_MAX + 2];
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/");

	memset(session, 's', sizeof(session));
	session[CONN_SESSION_MAX] = '\0';
	send_connect(g, session, 0);
	expect_answer(g, 0, true);
	CHECK_STR(conn_session_id(g->conn), session);
	session[CONN_SESSION_MAX] = 's';
	session[CONN_SESSION_MAX + 1] = '\0';
	send_connect(g, session, MSG_CAP_ACK);
	expect_answer(g, 413, true);
	CHECK_EQ(strlen(conn_session_id(g->conn)), CONN_SESSION_MAX);
	CHECK_EQ(g->conn->caps, 0);
	CHECK_EQ(RIG_SUM(r, message_errors), 1);
	rig_free(r);
}

TEST(protocol_control_messages_that_ask_for_nothing_get_nothing)
{
	static const Websocket__ControlType types[] = {WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE,
						       WEBSOCKET__CONTROL_TYPE__ERROR,
						       WEBSOCKET__CONTROL_TYPE__CONFIG};
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/"), *other = guest_open(r, 0, "/");
	struct msg_builder b;

	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		msg_init_control(&b, types[i]);
		msg_set_request_id(&b, request_id, 16);
		guest_send_msg(g, &b);
	}
	msg_init_heartbeat(&b);
	guest_send_msg(g, &b);
	rig_settle(r);
	CHECK_EQ(g->calls + other->calls, 0);
	CHECK_EQ(RIG_SUM(r, messages_received), 4);
	CHECK_EQ(RIG_SUM(r, message_errors), 0);
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
	guest_send_msg(g, &b);
	rig_settle(r);
	CHECK_EQ(guest_close_code(g), 1000);
	rig_free(r);
}

/* ------------------------------------------------------------------ what is wrong */

TEST(protocol_answers_what_it_cannot_take)
{
	static const struct {
		const char *bytes;
		size_t n;
		unsigned code;  /* of the ERROR */
		unsigned close; /* and of the Close; 0: it stays */
		bool has_id;
	} cases[] = {
/* clang-format off */
#define ID "\x12\x10sixteen bytes id"
		{"", 0, 400, 0, false},                              /* type UNKNOWN */
		{"\x08\x00" ID, 20, 400, 0, true},
		{"\x08\x63" ID, 20, 400, 0, true},                   /* no such type */
		{"\x08\x01" ID, 20, 400, 0, true},                   /* no payload */
		{"\x08\x02" ID "\x1a\x00", 22, 400, 0, true},        /* of another kind */
		{"\x08\x03" ID "\x2a\x02\x08\x0f", 24, 400, 0, true}, /* no such control type */
		{"\x08\x01" ID "\x1a\x08\x12\x06system", 30, 403, 0, true},
		{"\x08\x02" ID "\x22\x05\x0a\x01x\x12\x00", 27, 200, 0, true}, /* checksum empty */
		{"\x08\x02" ID "\x22\x06\x0a\x01x\x12\x01" "0", 28, 422, 0, true},
		{"\xff\xff", 2, 400, 1007, true},                   /* no message */
		{"not protobuf at all", 19, 400, 1007, true},
		{"\x08\x01" ID "\x1a\x03\x1a\x01\xff", 25, 400, 1007, true}, /* no UTF-8 */
		/* clang-format on */
	};
	struct rig *r = rig_new(1, FREE);

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct guest *g = guest_open(r, 0, "/"), *other = guest_open(r, 0, "/");
		uint64_t errors = RIG_SUM(r, message_errors);
		const Websocket__WebSocketMessage *m;

		guest_send(g, true, WS_BINARY, cases[i].bytes, cases[i].n);
		rig_settle(r);
		if (cases[i].code == 200) { /* it was good */
			CHECK_EQ(guest_drop(g), 0);
			CHECK_EQ(guest_drop(other), 1);
		} else {
			m = next_control(g, WEBSOCKET__CONTROL_TYPE__ERROR);
			CHECK_EQ(m->control->code, cases[i].code);
			CHECK(m->control->reason[0]);
			CHECK_EQ(m->request_id.len, cases[i].has_id ? 16 : 0);
			CHECK_EQ(guest_drop(other), 0);
			CHECK_EQ(RIG_SUM(r, message_errors), errors + 1);
		}
		CHECK_EQ(g->conn->state == CONN_OPEN, cases[i].close == 0);
		CHECK_EQ(guest_close_code(g), cases[i].close);
		conn_abort(g->conn);
		conn_abort(other->conn);
		rig_turn(r);
	}
	rig_free(r);
}

/* The Close 1007 stands behind the ERROR that says why. */
TEST(protocol_says_why_before_it_closes)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/");
	struct guest_frame f;

	guest_send(g, true, WS_BINARY, "\xff", 1);
	rig_settle(r);
	CHECK(guest_next_frame(g, &f) && f.opcode == WS_BINARY);
	CHECK(guest_next_frame(g, &f) && f.opcode == WS_CLOSE);
	CHECK_EQ(f.p[0] << 8 | f.p[1], 1007);
	rig_free(r);
}

/* -------------------------------------------------------------------- delivering */

/* Chat with a request_id and fields from the future. */
#define CHAT "\x08\x01\x12\x02id\x1a\x07\x1a\x05hello\xa2\x06\x03new"
#define CHAT_BYTES (sizeof(CHAT) - 1)

TEST(protocol_delivers_the_bytes_unchanged)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *g = guest_open(r, 0, "/");
	struct guest *other[2] = {guest_open(r, 0, "/"), guest_open(r, 1, "/")};
	struct guest_frame f;

	guest_send(g, true, WS_BINARY, CHAT, CHAT_BYTES);
	rig_settle(r);
	CHECK_EQ(g->calls, 0);
	for (int i = 0; i < 2; i++) {
		CHECK(guest_next_frame(other[i], &f));
		CHECK_EQ(f.n, CHAT_BYTES);
		CHECK_MEM(f.p, CHAT, CHAT_BYTES);
	}
	rig_free(r);
}

TEST(protocol_appends_the_channel_once_where_it_was_left_out)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/room"), *other = guest_open(r, 0, "/room");
	const uint8_t named[] = CHAT "\x82\x01\x04room";
	struct guest_frame f;

	guest_send(g, true, WS_BINARY, CHAT, CHAT_BYTES);
	guest_send(g, true, WS_BINARY, named, CHAT_BYTES + 7);
	rig_settle(r);
	for (int i = 0; i < 2; i++) {
		CHECK(guest_next_frame(other, &f));
		CHECK_EQ(f.n, CHAT_BYTES + 7);
		CHECK_MEM(f.p, named, CHAT_BYTES + 7);
	}
	CHECK(!guest_next_frame(other, &f));
	rig_free(r);
}

TEST(protocol_delivers_binary_and_acknowledges_on_request)
{
	struct rig *r = rig_new(2, FREE "enable_compression = no\n");
	struct guest *g = guest_open(r, 0, "/"), *other = guest_open(r, 1, "/");
	const Websocket__WebSocketMessage *m;
	struct msg_builder b;

	for (int ack = 0; ack < 2; ack++) {
		send_connect(g, "", ack ? MSG_CAP_ACK : 0);
		guest_drop(g);
		msg_init_binary(&b, "payload", 7, 3, true, WEBSOCKET__COMPRESSION_TYPE__NONE);
		msg_set_request_id(&b, request_id, 16);
		guest_send_msg(g, &b);
		guest_chat(g, "too", NULL);
		rig_settle(r);
		if (ack) {
			m = next_control(g, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
			CHECK_MEM(m->request_id.data, request_id, 16);
			expect_answer(g, 0, false);
		} else {
			CHECK(guest_next_msg(g) == NULL);
		}
		m = guest_next_msg(other);
		CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__BINARY_DATA);
		CHECK_EQ(m->binary->sequence, 3);
		CHECK_MEM(m->binary->data.data, "payload", 7);
		CHECK_STR(guest_next_msg(other)->chat->content, "too");
	}
	rig_free(r);
}

/* Who reads zstd gets the small one, others the original: one frame serves each kind. */
TEST(protocol_packs_for_those_that_can_read_it)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/");
	struct guest *packed = guest_open(r, 0, "/"), *plain = guest_open(r, 0, "/");
	const Websocket__WebSocketMessage *m;
	static uint8_t zeroes[20000];
	struct msg_builder b;

	send_connect(packed, "", MSG_CAP_ZSTD);
	guest_drop(packed);
	msg_init_binary(&b, zeroes, sizeof(zeroes), 0, true, WEBSOCKET__COMPRESSION_TYPE__NONE);
	guest_send_msg(g, &b);
	rig_settle(r);
	m = guest_next_msg(packed);
	CHECK_EQ(m->binary->compression, WEBSOCKET__COMPRESSION_TYPE__ZSTD);
	CHECK(m->binary->data.len < 1000);
	CHECK_EQ(msg_check_binary(m), MSG_OK);
	m = guest_next_msg(plain);
	CHECK_EQ(m->binary->compression, WEBSOCKET__COMPRESSION_TYPE__NONE);
	CHECK_EQ(m->binary->data.len, sizeof(zeroes));
	CHECK_EQ(RIG_SUM(r, pack_in_bytes), sizeof(zeroes));
	rig_free(r);
}

/* ------------------------------------------------------------------ text, goodbye */

TEST(protocol_text_is_noted_relayed_or_refused)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/room"), *other = guest_open(r, 0, "/room");
	const Websocket__WebSocketMessage *m;
	struct guest_frame f;

	/* It is told once. */
	for (int i = 0; i < 2; i++)
		guest_send(g, true, WS_TEXT, "noted", 5);
	rig_settle(r);
	m = next_control(g, WEBSOCKET__CONTROL_TYPE__ERROR);
	CHECK_EQ(m->control->code, 400);
	CHECK_EQ(m->request_id.len, 16);
	CHECK(strstr(m->control->reason, "text_messages"));
	CHECK_EQ(guest_drop(g) + guest_drop(other), 0);
	CHECK_EQ(RIG_SUM(r, text_messages), 2);
	rig_free(r);
	r = rig_new(1, FREE "text_messages = relay\n");
	g = guest_open(r, 0, "/room");
	other = guest_open(r, 0, "/room");
	guest_send(g, true, WS_TEXT, "relayed", 7);
	rig_settle(r);
	CHECK(guest_next_frame(other, &f));
	CHECK_EQ(f.opcode, WS_TEXT);
	CHECK_MEM(f.p, "relayed", 7);
	/* Out of its path channel there is nobody to relay it to; back again there is. */
	guest_unsubscribe(g, "room");
	guest_drop(g);
	guest_send(g, true, WS_TEXT, "lost", 4);
	rig_settle(r);
	CHECK_EQ(next_control(g, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE)->control->code, 0);
	m = next_control(g, WEBSOCKET__CONTROL_TYPE__ERROR);
	CHECK_EQ(m->control->code, 404);
	CHECK_STR(m->channel, "room");
	guest_subscribe(g, "room");
	guest_send(g, true, WS_TEXT, "again", 5);
	rig_settle(r);
	expect_answer(g, 0, false);
	CHECK(guest_next_frame(other, &f));
	CHECK_MEM(f.p, "again", 5);
	rig_free(r);
}

TEST(protocol_says_goodbye_with_a_time_to_come_back)
{
	struct rig *r = rig_new(1, FREE "reconnect_window = 3\necho_path = /echo\n");
	struct guest *echo = guest_open(r, 0, "/echo");
	uint32_t least = UINT32_MAX, most = 0;

	for (int i = 0; i < 50; i++) {
		struct guest *g = guest_open(r, 0, "/");
		const Websocket__WebSocketMessage *m;
		char id[37];

		uuid4_format(id, g->conn->id);
		protocol_say_goodbye(g->conn);
		rig_settle(r);
		m = next_control(g, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
		CHECK_STR(m->control->session_id, id);
		CHECK(m->control->reason[0]);
		least = MIN(least, m->control->reconnect_after_ms);
		most = MAX(most, m->control->reconnect_after_ms);
		CHECK_EQ(guest_close_code(g), 1012);
	}
	CHECK(most <= 3000 && most > 1500 && least < 1500);
	protocol_say_goodbye(echo->conn);
	rig_settle(r);
	CHECK_EQ(guest_drop(echo), 0);
	CHECK_EQ(RIG_SUM(r, closed_1012), 51);
	rig_free(r);
}
