/* SPDX-License-Identifier: MIT */
/* Connections that cannot be as they were go, and all others neither wait nor miss anything. */
#include "rig.h"

#include <stdio.h>

#include "base/text.h"

/* Saves, as @change has it, and restores; the rig's own objects stay what they were till then. */
static void hand_over_changed(struct rig *r, unsigned workers, const char *config,
			      void (*change)(struct conn *c, bool is_on), struct guest *g,
			      struct handover_report *ret)
{
	struct record_writer records;

	change(g->conn, true);
	records = rig_save(r);
	change(g->conn, false);
	CHECK_EQ(rig_restore(r, workers, config, &records, ret), 0);
	free(records.data);
	rig_check(r);
}

/* An opcode that no message has, found when the memberships are there already. */
static void spoil_input(struct conn *c, bool is_on)
{
	c->input->opcode = is_on ? 7 : WS_BINARY;
}

static const Websocket__WebSocketMessage *next_notice(struct guest *g)
{
	const Websocket__WebSocketMessage *m = guest_next_msg(g);

	CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL);
	return m;
}

/* One message to all; every one of @g[0] to @g[n - 1] gets it next. */
static void expect_delivery(struct rig *r, struct guest *from, struct guest **g, unsigned n)
{
	guest_chat(from, "to everyone", "room");
	rig_settle(r);
	for (unsigned i = 0; i < n; i++) {
		const Websocket__WebSocketMessage *m = g[i] == from ? NULL : guest_next_msg(g[i]);

		if (m)
			CHECK_STR(m->chat->content, "to everyone");
		CHECK(m || g[i] == from);
	}
}

/* On each worker, and before and behind those of each other in the records. */
TEST(handover_unfit_one_leaves_channels_whole)
{
	for (unsigned bad = 0; bad < 6; bad++) {
		struct rig *r = rig_new(3, "");
		struct handover_report report;
		struct guest *g[6], *others[5];
		char id[37];
		unsigned n = 0;

		for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
			g[i] = guest_open(r, i % 3, "/room");
			if (i != bad)
				others[n++] = g[i];
		}
		rig_settle(r);
		for (unsigned i = 0; i < ARRAY_LEN(g); i++)
			guest_drop(g[i]);
		uuid4_format(id, g[bad]->conn->id);
		guest_send(g[bad], false, WS_BINARY, "half", 4);
		rig_settle(r);
		hand_over_changed(r, 1 + bad % 4, NULL, spoil_input, g[bad], &report);
		CHECK_EQ(report.failed, 1);
		CHECK_EQ(report.connections, 5);
		rig_settle(r);
		CHECK_EQ(next_notice(g[bad])->control->type, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
		CHECK_EQ(guest_close_code(g[bad]), WS_CODE_SERVICE_RESTART);
		for (unsigned i = 0; i < n; i++) {
			const Websocket__WebSocketMessage *m = next_notice(others[i]);

			CHECK_EQ(m->control->type, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
			CHECK_STR(m->control->session_id, id);
		}
		for (unsigned i = 0; i < n; i++)
			expect_delivery(r, others[i], others, n);
		rig_pass(r, 3 * NS_PER_S);
		CHECK(g[bad]->is_closed);
		CHECK_EQ(RIG_SUM(r, connections_active), 5);
		rig_free(r);
	}
}

/* With a message half sent nothing can be said; it ends all the same, and the rest goes on. */
TEST(handover_unfit_one_in_the_middle_of_a_message)
{
	struct rig *r = rig_new(2, "");
	struct guest *a = guest_open(r, 0, "/room"), *bad = guest_open(r, 1, "/room");
	struct guest *b = guest_open(r, 1, "/room"), *all[] = {a, b};
	struct handover_report report;

	guest_send(bad, false, WS_BINARY, "half", 4);
	rig_settle(r);
	guest_set_room(bad, 10);
	guest_drop(a);
	guest_chat(a, "more than there is room for", NULL);
	rig_settle(r);
	CHECK(bad->conn->out->transit);
	guest_drop(b);
	hand_over_changed(r, 2, NULL, spoil_input, bad, &report);
	CHECK_EQ(report.connections, 2);
	rig_settle(r);
	CHECK(bad->is_closed && bad->was_reset);
	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		CHECK_EQ(next_notice(all[i])->control->type, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
	expect_delivery(r, a, all, ARRAY_LEN(all));
	expect_delivery(r, b, all, ARRAY_LEN(all));
	rig_free(r);
}

/* More channels than the directory takes: whose channel there is none for is told to come back. */
TEST(handover_unfit_for_max_channels)
{
	struct rig *r = rig_new(2, "");
	struct guest *g[6];
	struct handover_report report;
	struct record_writer records;
	unsigned gone = 0;

	for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
		char path[16];

		snprintf(path, sizeof(path), "/c%u", i);
		g[i] = guest_open(r, i % 2, path);
		guest_subscribe(g[i], "room");
	}
	rig_settle(r);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		guest_drop(g[i]);
	records = rig_save(r);
	CHECK_EQ(handover_count_channels(records.data, records.len), 7);
	CHECK_EQ(handover_count_channels(records.data, records.len - 1), 0);
	CHECK_EQ(rig_restore(r, 2, "max_channels = 5\n", &records, &report), 0);
	free(records.data);
	rig_settle(r);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
		unsigned code = guest_close_code(g[i]);

		CHECK(code == 0 || code == WS_CODE_SERVICE_RESTART);
		gone += code != 0;
	}
	CHECK(gone >= 1 && gone == 6 - report.connections);
	rig_pass(r, 3 * NS_PER_S);
	CHECK_EQ(RIG_SUM(r, connections_active), report.connections);
	rig_free(r);
}

/* What is held of messages is too much for what may be held now: one goes, as at any other time. */
TEST(handover_unfit_for_reassembly_memory)
{
	static uint8_t data[900 << 10];
	struct rig *r = rig_new(3, "");
	struct guest *small = guest_open(r, 0, "/room"), *large = guest_open(r, 1, "/room");
	struct guest *calm = guest_open(r, 2, "/room"), *all[] = {large, calm};

	guest_send(small, false, WS_BINARY, data, sizeof(data) / 2);
	guest_send(large, false, WS_BINARY, data, sizeof(data));
	rig_settle(r);
	guest_drop(small);
	guest_drop(large);
	guest_drop(calm);
	for (unsigned i = 0; i < 3; i++) {
		struct record_writer records = rig_save(r);
		struct handover_report report;

		CHECK_EQ(rig_restore(r, 1, "reassembly_memory = 1M\n", &records, &report), 0);
		CHECK_EQ(report.failed, 0);
		free(records.data);
		rig_settle(r);
	}
	CHECK_EQ(guest_close_code(small), WS_CODE_TRY_AGAIN);
	CHECK_EQ(RIG_SUM(r, closed_1013), 1);
	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		CHECK_EQ(next_notice(all[i])->control->type, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
	expect_delivery(r, calm, all, ARRAY_LEN(all));
	rig_free(r);
}

/*
 * The list `own` of a connection with one membership, whose number is @from: now it is the
 * largest.
 */
static void claim_the_future(struct record_writer *records, uint64_t from)
{
	uint8_t list[3 + 8] = {0xda, 0x01, 8, (uint8_t)from}; /* field 27, of fixed64 */
	uint8_t *at = memmem(records->data, records->len, list, sizeof(list));

	CHECK(at != NULL);
	memset(at + 3, 0xff, 8);
	CHECK_EQ(record_finish(records), 0);
}

/* A number that no message has yet is not looked for in the log. */
TEST(handover_unfit_number_of_ones_own)
{
	struct rig *r = rig_new(1, "notice_limit = 0\n");
	struct guest *slow = guest_open(r, 0, "/room"), *writer = guest_open(r, 0, "/room");
	struct handover_report report;
	struct record_writer records;

	guest_set_room(slow, 0);
	guest_send_numbers(writer, 0, 9);
	guest_chat(slow, "mine", NULL);
	guest_send_numbers(writer, 9, 10);
	rig_settle(r);
	records = rig_save(r);
	claim_the_future(&records, 10);
	CHECK_EQ(rig_restore(r, 1, NULL, &records, &report), 0);
	free(records.data);
	rig_check(r);
	CHECK_EQ(report.failed, 0);
	CHECK_EQ(slow->conn->path_member.own_messages, 1);
	rig_pass_in_steps(r, 2 * NS_PER_S, 100 * NS_PER_MS);
	guest_set_room(slow, ROOM_FOR_ALL);
	rig_settle(r);
	guest_expect_numbers(slow, 0, 10);
	rig_free(r);
}
