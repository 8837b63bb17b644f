/* SPDX-License-Identifier: MIT */
/* SUBSCRIBE and UNSUBSCRIBE, where a message goes, and what the administrator publishes. */
#include "rig.h"

#include <stdio.h>

#include "worker/protocol.h"

#define FREE "max_incoming_frames_per_second = 0\nnotice_limit = 0\n"
#define JOIN WEBSOCKET__CONTROL_TYPE__SUBSCRIBE
#define PART WEBSOCKET__CONTROL_TYPE__UNSUBSCRIBE

/* Sends a list of at most four channels; returns the code of the answer, 0 for ACKNOWLEDGE. */
static unsigned ask(struct guest *g, Websocket__ControlType type, const char *const *names,
		    size_t n)
{
	const Websocket__WebSocketMessage *m;
	char *copy[8];
	struct msg_builder b;

	for (size_t i = 0; i < n; i++)
		copy[i] = (char *)(uintptr_t)names[i];
	msg_init_control(&b, type);
	msg_set_request_id(&b, "asked", 5);
	msg_set_channels(&b, copy, n);
	guest_send_msg(g, &b);
	rig_settle(g->rig);
	rig_check(g->rig);
	m = guest_next_msg(g);
	CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL);
	CHECK_EQ(m->request_id.len, 5);
	CHECK_MEM(m->request_id.data, "asked", 5);
	CHECK_EQ(m->control->type, m->control->code ? WEBSOCKET__CONTROL_TYPE__ERROR
						    : WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	return m->control->code;
}

#define ASK(g, type, ...)                                    \
	ask((g), (type), (const char *const[]){__VA_ARGS__}, \
	    ARRAY_LEN(((const char *const[]){__VA_ARGS__})))

static bool is_member(struct guest *g, const char *name)
{
	return hub_membership(&g->worker->hub, g->conn, name, strlen(name)) != NULL;
}

TEST(protocol_joins_and_leaves_lists_of_channels)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/home");

	CHECK_EQ(ASK(g, JOIN, "a", "b", "a", "home", ""), 0);
	CHECK_EQ(g->conn->n_members, 4);
	CHECK(is_member(g, "a") && is_member(g, "b") && is_member(g, ""));
	CHECK_EQ(ASK(g, JOIN, "a"), 0); /* is one already */
	CHECK_EQ(g->conn->n_members, 4);
	CHECK_EQ(ASK(g, PART, "a", "nowhere"), 404);
	CHECK_EQ(ASK(g, PART, "nowhere", "a"), 404);
	CHECK_EQ(g->conn->n_members, 4); /* whole or not at all */
	CHECK_EQ(ASK(g, PART, "a", "", "a"), 0);
	CHECK_EQ(g->conn->n_members, 2);
	CHECK(is_member(g, "b") && is_member(g, "home"));
	CHECK_EQ(r->pool->shared.directory.count, 2);
	rig_free(r);
}

TEST(protocol_refuses_lists_that_are_empty_or_have_bad_names)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/home");
	char name[257];

	memset(name, 'n', sizeof(name));
	name[255] = '\0';
	CHECK_EQ(ask(g, JOIN, NULL, 0), 400);
	CHECK_EQ(ask(g, PART, NULL, 0), 400);
	CHECK_EQ(ASK(g, JOIN, name), 0);
	CHECK_EQ(ASK(g, PART, name), 0);
	name[255] = 'n';
	name[256] = '\0';
	CHECK_EQ(ASK(g, JOIN, "ok", name), 413);
	CHECK_EQ(ASK(g, PART, name), 413);
	CHECK_EQ(g->conn->n_members, 1);
	CHECK_EQ(RIG_SUM(r, message_errors), 4);
	rig_free(r);
}

TEST(protocol_rolls_a_list_back_that_does_not_fit)
{
	struct rig *r = rig_new(1, FREE "max_channels_per_client = 4\n");
	struct guest *g = guest_open(r, 0, "/home"), *other = guest_open(r, 0, "/b");

	CHECK_EQ(ASK(g, JOIN, "a"), 0);
	CHECK_EQ(ASK(g, JOIN, "b", "a", "c", "d"), 429);
	CHECK_EQ(g->conn->n_members, 2);
	CHECK(is_member(g, "home") && is_member(g, "a") && !is_member(g, "b"));
	CHECK(is_member(other, "b"));
	CHECK_EQ(r->pool->shared.directory.count, 3);
	CHECK_EQ(ASK(g, JOIN, "b", "a", "c"), 0);
	CHECK_EQ(g->conn->n_members, 4);
	CHECK_EQ(ASK(g, JOIN, "b", "home"), 0); /* adds nothing */
	rig_free(r);
}

TEST(protocol_rolls_back_at_max_channels)
{
	struct rig *r = rig_new(2, FREE "max_channels = 3\n");
	struct guest *g = guest_open(r, 0, "/one"), *h = guest_open(r, 1, "/two");
	struct guest *late = guest_accept(r, 0);
	char request[256];

	CHECK_EQ(ASK(g, JOIN, "three", "four"), 503);
	CHECK_EQ(g->conn->n_members, 1);
	CHECK_EQ(ASK(g, JOIN, "two", "three"), 0);
	CHECK_EQ(ASK(h, JOIN, "four"), 503);
	guest_write(late, request, guest_handshake(request, sizeof(request), "/four"));
	rig_settle(r);
	CHECK_EQ(guest_status(late), 503);
	guest_end(g);
	rig_turn(r);
	CHECK_EQ(ASK(h, JOIN, "four"), 0);
	rig_free(r);
}

/* A list that no client may have room for isn't looked at. */
TEST(protocol_refuses_lists_that_are_too_long)
{
	struct rig *r = rig_new(1, FREE "max_channels_per_client = 3\n");
	struct guest *g = guest_open(r, 0, "/home");

	CHECK_EQ(ASK(g, JOIN, "a", "a", "a", "a"), 429);
	CHECK_EQ(ASK(g, PART, "home", "home", "home", "home"), 429);
	CHECK_EQ(g->conn->n_members, 1);
	CHECK_EQ(ASK(g, JOIN, "a", "a", "a"), 0);
	CHECK_EQ(g->conn->n_members, 2);
	rig_free(r);
}

/* Each name is a frame; what is more than a second has room for is on the next one's account. */
TEST(protocol_counts_each_name_as_a_frame)
{
	struct rig *r = rig_new(1, "notice_limit = 0\nmax_incoming_frames_per_second = 3\n");
	struct guest *g = guest_open(r, 0, "/home");

	CHECK_EQ(ASK(g, JOIN, "a", "b", "c", "d", "e", "f", "g"), 0);
	guest_unsubscribe(g, "a");
	for (unsigned second = 0; second < 2; second++) {
		rig_settle(r);
		CHECK(is_member(g, "a"));
		rig_pass(r, NS_PER_S);
	}
	rig_settle(r);
	CHECK(!is_member(g, "a"));
	rig_free(r);
}

/* Nobody hears of a list that was rolled back; one that is taken is told to the others alone. */
TEST(protocol_tells_of_lists_that_are_taken)
{
	struct rig *r = rig_new(1, "max_channels_per_client = 3\n");
	struct guest *a = guest_open(r, 0, "/a"), *b = guest_open(r, 0, "/b");
	struct guest *g = guest_open(r, 0, "/home");

	CHECK_EQ(ASK(g, JOIN, "a", "b", "c"), 429);
	CHECK_EQ(guest_drop(a) + guest_drop(b), 0);
	CHECK_EQ(ASK(g, JOIN, "a", "b"), 0);
	CHECK_EQ(guest_drop(a), 1);
	CHECK_EQ(guest_drop(b), 1);
	CHECK(guest_next_msg(g) == NULL);
	CHECK_EQ(ASK(g, PART, "b"), 0);
	CHECK_EQ(guest_drop(a), 0);
	CHECK_EQ(guest_drop(b), 1);
	rig_free(r);
}

TEST(protocol_routes_by_the_channel_field_and_else_home)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *g = guest_open(r, 0, "/home");
	struct guest *at_home = guest_open(r, 1, "/home"), *in_lobby = guest_open(r, 1, "/");
	const Websocket__WebSocketMessage *m;

	guest_chat(g, "1", NULL);
	guest_chat(g, "2", "home");
	guest_chat(g, "3", ""); /* set and empty: the lobby, where it isn't a member */
	rig_settle(r);
	CHECK_STR(guest_next_msg(at_home)->chat->content, "1");
	CHECK_STR(guest_next_msg(at_home)->chat->content, "2");
	CHECK(guest_next_msg(at_home) == NULL && guest_next_msg(in_lobby) == NULL);
	CHECK_EQ(guest_next_msg(g)->control->code, 404);
	CHECK_EQ(ASK(g, JOIN, ""), 0);
	guest_chat(g, "4", "");
	rig_settle(r);
	m = guest_next_msg(in_lobby);
	CHECK_STR(m->chat->content, "4");
	CHECK(guest_next_msg(at_home) == NULL);
	rig_free(r);
}

TEST(protocol_home_may_be_left_and_joined_again)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/home"), *other = guest_open(r, 0, "/home");

	for (int i = 0; i < 3; i++) {
		CHECK_EQ(ASK(g, PART, "home"), 0);
		guest_chat(other, "unheard", NULL);
		guest_chat(g, "nowhere to go", NULL);
		rig_settle(r);
		CHECK_EQ(guest_next_msg(g)->control->code, 404);
		CHECK(guest_next_msg(g) == NULL);
		CHECK_EQ(ASK(g, JOIN, "home"), 0);
		guest_chat(g, "back", NULL);
		guest_chat(other, "heard", NULL);
		rig_settle(r);
		CHECK_STR(guest_next_msg(other)->chat->content, "back");
		CHECK_STR(guest_next_msg(g)->chat->content, "heard");
	}
	rig_free(r);
}

/* --------------------------------------------------------------- administrator */

static struct protocol_published publish(struct rig *r, const char *channel, bool is_text,
					 const void *p, size_t n)
{
	struct protocol_published done = protocol_publish(&r->w[0]->hub, channel, is_text, p, n);

	CHECK_EQ(done.reason == NULL, done.status == 200);
	rig_settle(r);
	return done;
}

TEST(protocol_publishes_for_the_administrator)
{
	static const char chat[] = "\x08\x01\x1a\x04\x1a\x02hi";
	struct rig *r = rig_new(2, FREE);
	struct guest *g[2] = {guest_open(r, 0, "/room"), guest_open(r, 1, "/room")};
	const Websocket__WebSocketMessage *m;

	CHECK_EQ(publish(r, "room", true, "news", 4).members, 2);
	CHECK_EQ(publish(r, "room", false, chat, sizeof(chat) - 1).members, 2);
	for (int i = 0; i < 2; i++) {
		m = guest_next_msg(g[i]);
		CHECK_STR(m->chat->content, "news");
		CHECK_STR(m->chat->user_id, "system");
		CHECK_STR(m->channel, "room");
		m = guest_next_msg(g[i]);
		CHECK_STR(m->chat->content, "hi");
		CHECK_STR(m->channel, "room");
		CHECK(guest_next_msg(g[i]) == NULL);
	}
	CHECK_EQ(publish(r, "nobody", true, "news", 4).status, 404);
	CHECK_EQ(publish(r, "room", true, "a\0b", 3).status, 400);
	CHECK_EQ(publish(r, "room", false, "\xff", 1).status, 400);
	CHECK_EQ(publish(r, "room", false, "\x08\x04", 2).status, 400); /* HEARTBEAT */
	CHECK_EQ(publish(r, "other", false, "\x08\x01\x1a\x00\x82\x01\x01r", 8).status, 400);
	CHECK_EQ(publish(r, "room", true, "", 0).status, 200);
	conn_env_pause(&r->w[0]->hub.env, CONN_PAUSE_CONGESTED);
	CHECK_EQ(protocol_publish(&r->w[0]->hub, "room", true, (const uint8_t *)"x", 1).status,
		 503);
	rig_settle(r);
	rig_free(r);
}
