/* SPDX-License-Identifier: MIT */
/* Who comes back on whichever worker, while the connection before is still there, or is not. */
#include <errno.h>

#include "fault.h"
#include "rig.h"

#define FREE "max_incoming_frames_per_second = 0\nping_interval = 1h\nwelcome = hello\n"

struct greeting {
	bool has_welcome, has_config;
	char session_id[40];
	char token[RESUME_TOKEN_TEXT];
};

static struct guest *come(struct rig *r, unsigned worker, const char *path)
{
	struct guest *g = guest_accept(r, worker);
	char head[1024];

	CHECK(g);
	guest_write(g, head, guest_handshake(head, sizeof(head), path));
	return g;
}

/* What it was told at the beginning. */
static struct greeting greeted(struct guest *g)
{
	const Websocket__WebSocketMessage *m;
	struct greeting all = {0};

	while ((m = guest_next_msg(g))) {
		all.has_welcome |= m->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE;
		if (m->type != WEBSOCKET__MESSAGE_TYPE__CONTROL ||
		    m->control->type != WEBSOCKET__CONTROL_TYPE__CONFIG)
			continue;
		all.has_config = true;
		snprintf(all.session_id, sizeof(all.session_id), "%s", m->control->session_id);
		snprintf(all.token, sizeof(all.token), "%.*s", (int)m->control->resume_token.len,
			 (const char *)m->control->resume_token.data);
	}
	return all;
}

static struct greeting enter(struct rig *r, unsigned worker, const char *path, struct guest **ret)
{
	*ret = come(r, worker, path);
	rig_settle(r);
	CHECK_EQ(guest_status(*ret), 101);
	return greeted(*ret);
}

static const char *path_with(char out[1024], const char *token, unsigned attempt)
{
	snprintf(out, 1024, "/room?resume=%s&attempt=%u", token, attempt);
	return out;
}

TEST(resume_ends_the_connection_before_on_any_worker)
{
	struct rig *r = rig_new(3, FREE);
	struct guest *a, *b, *other = guest_open(r, 2, "/room");
	struct greeting first = enter(r, 0, "/room?resume=", &a), next;
	char path[1024];

	CHECK(first.has_welcome && first.token[0]);
	for (unsigned worker = 0; worker < 6; worker++) {
		next = enter(r, worker % 3, path_with(path, first.token, 1), &b);
		CHECK(next.has_config && !next.has_welcome);
		CHECK_STR(next.session_id, first.session_id);
		CHECK_EQ(guest_close_code(a), WS_CODE_RESUMED);
		a = b;
		first = next;
	}
	/* They came one after the other, and nobody but the first was heard of. */
	CHECK_EQ(guest_drop(other), 1);
	guest_chat(a, "me", NULL);
	rig_settle(r);
	CHECK_EQ(guest_drop(other), 1);
	CHECK_EQ(RIG_SUM(r, resumes), 6);
	rig_free(r);
}

/* Nothing of it is read or answered until the other one is gone; it may not live to see that. */
TEST(resume_waits_for_the_end_of_the_connection_before)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *a, *b, *c;
	struct greeting first = enter(r, 0, "/room?resume=", &a), late;
	char path[1024];

	b = come(r, 1, path_with(path, first.token, 1));
	rig_turn_one(r, 1);
	rig_turn_one(r, 1);
	CHECK_EQ(guest_status(b), 101);
	CHECK(!greeted(b).has_config);
	guest_subscribe(b, "more");
	rig_turn_one(r, 1);
	CHECK_EQ(rig_channel(r, 1, "more"), NULL);
	/* Another attempt comes, and wins; the one that waits is told so, or has gone. */
	c = come(r, 1, path_with(path, first.token, 2));
	rig_turn_one(r, 1);
	rig_settle(r);
	CHECK_EQ(guest_close_code(a), WS_CODE_RESUMED);
	CHECK_EQ(guest_close_code(b), WS_CODE_RESUMED);
	CHECK_EQ(guest_status(c), 101);
	late = greeted(c);
	CHECK_STR(late.session_id, first.session_id);
	b = come(r, 0, path_with(path, late.token, 1));
	rig_turn_one(r, 0);
	guest_end(b);
	rig_turn_one(r, 0);
	rig_settle(r);
	CHECK_EQ(guest_close_code(c), WS_CODE_RESUMED);
	CHECK_EQ(guest_status(b), 101);
	CHECK(!greeted(b).has_config);
	rig_free(r);
}

/* A hand-over while one waits, and behind it: ids, tokens and absences go on. */
TEST(resume_goes_on_in_another_process)
{
	struct rig *r = rig_new(2, FREE "leave_grace = 10s\n");
	struct guest *a, *b, *other = guest_open(r, 1, "/room");
	struct greeting first = enter(r, 0, "/room?resume=", &a), next;
	char path[1024];

	CHECK_EQ(guest_drop(other), 1);
	guest_end(a);
	rig_settle(r);
	rig_hand_over(r, 3, NULL);
	CHECK_EQ(guest_drop(other), 0);
	next = enter(r, 2, path_with(path, first.token, 1), &b);
	CHECK_STR(next.session_id, first.session_id);
	CHECK_EQ(guest_drop(other), 0);
	rig_hand_over(r, 1, NULL);
	guest_end(b);
	rig_settle(r);
	CHECK_EQ(guest_drop(other), 0);
	rig_hand_over(r, 2, NULL);
	rig_pass_in_steps(r, 11 * NS_PER_S, NS_PER_S);
	rig_settle(r);
	CHECK_EQ(guest_drop(other), 1);
	rig_free(r);
}

/* Each absence has its own grace: that of one that is over says nothing of the next. */
TEST(resume_has_its_grace_anew_with_each_absence)
{
	struct rig *r = rig_new(2, FREE "leave_grace = 10s\n");
	struct guest *a, *b, *other = guest_open(r, 1, "/room");
	struct greeting first = enter(r, 0, "/room?resume=", &a), next;
	char path[1024];

	CHECK_EQ(guest_drop(other), 1);
	guest_end(a);
	rig_settle(r);
	rig_pass_in_steps(r, 6 * NS_PER_S, NS_PER_S);
	next = enter(r, 1, path_with(path, first.token, 1), &b);
	CHECK_STR(next.session_id, first.session_id);
	guest_end(b);
	rig_settle(r);
	rig_pass_in_steps(r, 8 * NS_PER_S, NS_PER_S);
	CHECK_EQ(guest_drop(other), 0);
	rig_pass_in_steps(r, 3 * NS_PER_S, NS_PER_S);
	CHECK_EQ(guest_drop(other), 1);
	rig_free(r);
}

/* Whatever there is no memory for: everybody is who it says, or a newcomer, or gone. */
TEST(resume_without_memory_takes_nobody_for_another)
{
	char path[1024];

	for (uint64_t nth = 1, hits = 1; hits > 0; nth++) {
		struct rig *r = rig_new(2, FREE);
		struct guest *a, *b;
		struct greeting first = enter(r, 0, "/room?resume=", &a), next;

		path_with(path, first.token, 1);
		b = come(r, 1, path);
		/* What the guests keep is not to fail. */
		CHECK_EQ(buf_reserve(&a->out, 65536, BUF_NO_LIMIT), 0);
		CHECK_EQ(buf_reserve(&b->out, 65536, BUF_NO_LIMIT), 0);
		fault_fail(FAULT_ALLOC, nth, 1, ENOMEM);
		rig_settle(r);
		hits = fault_end(FAULT_ALLOC);
		if (guest_status(b) == 101) {
			next = greeted(b);
			CHECK(hits || strcmp(next.session_id, first.session_id) == 0);
		}
		rig_free(r);
	}
}
