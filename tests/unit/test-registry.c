/* SPDX-License-Identifier: MIT */
/* Who is who: tokens, attempts, the connection before, absences. */
#include "worker/registry.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "fault.h"
#include "test.h"

#define WINDOW (120 * NS_PER_S)
#define START (1000 * NS_PER_S)
/* Connections are never looked at. */
#define CONN(n) ((struct conn *)(uintptr_t)(64 * (n)))

static const uint8_t anna[16] = "anna's id", bert[16] = "bert's id";

static struct registry *registry_new(void)
{
	struct registry *r = calloc(1, sizeof(*r));

	CHECK_EQ(registry_init(r, NULL, START), 0);
	registry_configure(r, WINDOW, 1000);
	return r;
}

static void registry_free(struct registry *r)
{
	registry_fini(r);
	free(r);
}

static struct resume_token issue(struct registry *r, const uint8_t id[16])
{
	char text[RESUME_TOKEN_TEXT];
	struct resume_token t;
	size_t n = registry_issue(r, id, text);

	CHECK(n > 0 && resume_token_read(&r->key, text, n, &t));
	return t;
}

static bool claim(struct registry *r, const struct resume_token *t, uint32_t attempt, uint64_t now)
{
	uint64_t serial = 99;

	return registry_claim(r, t, attempt, now, &serial);
}

TEST(registry_believes_each_pair_of_number_and_attempt_once)
{
	struct registry *r = registry_new();
	uint64_t now = START + 10 * WINDOW, serial = 0;
	struct resume_token first, second;

	CHECK_EQ(registry_enter(r, anna, 7, CONN(1), 0, "anna", false), 0);
	first = issue(r, anna);
	second = issue(r, anna);
	CHECK(second.number > first.number);
	CHECK_STR(first.user_id, "anna");
	CHECK(registry_claim(r, &first, 1, now, &serial));
	CHECK_EQ(serial, 7);
	CHECK(!claim(r, &first, 1, now));
	CHECK(!claim(r, &first, 0, now));
	CHECK(claim(r, &first, 5, now));
	CHECK(!claim(r, &first, 4, now));
	CHECK(claim(r, &second, 1, now));
	CHECK(!claim(r, &first, 6, now));
	CHECK(claim(r, &second, 2, now));
	/* What is given away later is newer than all that was brought. */
	CHECK(issue(r, anna).number > second.number);
	registry_free(r);
}

TEST(registry_gives_an_id_to_one_connection_at_a_time)
{
	struct registry *r = registry_new();
	struct resume_token t;
	uint64_t now = START;
	unsigned holder = 9;

	CHECK_EQ(registry_enter(r, anna, 7, CONN(1), 3, "anna", false), 0);
	t = issue(r, anna);
	CHECK(claim(r, &t, 1, now));
	CHECK_EQ(registry_conn_for(r, &t, 1, 3), CONN(1));
	CHECK_EQ(registry_conn_for(r, &t, 1, 2), NULL);
	CHECK_EQ(registry_take(r, &t, 1, 7, CONN(2), 2, &holder), REGISTRY_BUSY);
	CHECK_EQ(holder, 3);
	/* Another attempt comes meanwhile: the first has lost, whatever happens. */
	CHECK(claim(r, &t, 2, now));
	registry_leave(r, anna, CONN(1), now);
	CHECK_EQ(registry_take(r, &t, 1, 7, CONN(2), 2, &holder), REGISTRY_SUPERSEDED);
	CHECK_EQ(registry_take(r, &t, 2, 7, CONN(3), 1, &holder), REGISTRY_TAKEN);
	/* Who has lost ends nobody: it is the newer one's by now, on whichever worker. */
	CHECK_EQ(registry_conn_for(r, &t, 1, 1), NULL);
	CHECK_EQ(registry_conn_for(r, &t, 2, 1), CONN(3));
	/* An end that comes late is that of somebody who has it no more. */
	registry_leave(r, anna, CONN(1), now);
	CHECK_EQ(registry_conn_for(r, &t, 2, 1), CONN(3));
	registry_free(r);
}

TEST(registry_forgets_after_its_window_and_past_its_bound)
{
	struct registry *r = registry_new();
	struct resume_token a, b;
	uint64_t now = START + 10 * WINDOW;

	CHECK_EQ(registry_enter(r, anna, 1, CONN(1), 0, "anna", false), 0);
	CHECK_EQ(registry_enter(r, bert, 2, CONN(2), 0, "bert", false), 0);
	a = issue(r, anna);
	b = issue(r, bert);
	/* Whoever is there is never forgotten. */
	registry_expire(r, now + 100 * WINDOW);
	CHECK(claim(r, &a, 1, now));
	registry_leave(r, anna, CONN(1), now);
	CHECK(claim(r, &a, 2, now + WINDOW));
	CHECK(!claim(r, &a, 3, now + WINDOW + 1));
	CHECK_EQ(registry_issue(r, anna, (char[RESUME_TOKEN_TEXT]){""}), 0);
	/* At most so many, the one that ended first goes. */
	registry_configure(r, WINDOW, 0);
	registry_leave(r, bert, CONN(2), now);
	CHECK(claim(r, &b, 1, now));
	for (uint8_t i = 0; i < 2; i++) {
		uint8_t id[16] = {i};

		id[15] = bert[15];
		CHECK_EQ(registry_enter(r, id, i, CONN(i + 3), 0, "x", false), 0);
		registry_leave(r, id, CONN(i + 3), now);
	}
	CHECK(!claim(r, &b, 2, now));
	registry_free(r);
}

/* Another process has said of it what nobody here knows: it is believed, but not for ever. */
TEST(registry_believes_what_it_cannot_know_for_a_while)
{
	struct registry *r = registry_new();
	struct resume_token t = {.number = 5, .user_id = "anna"};
	uint64_t serial = 1;
	unsigned holder;

	memcpy(t.id, anna, sizeof(t.id));
	CHECK(registry_claim(r, &t, 2, START + WINDOW, &serial));
	CHECK_EQ(serial, 0);
	CHECK(!claim(r, &t, 2, START + WINDOW));
	CHECK_EQ(registry_take(r, &t, 2, 11, CONN(1), 0, &holder), REGISTRY_TAKEN);
	CHECK_EQ(issue(r, anna).number, 6);
	memcpy(t.id, bert, sizeof(t.id));
	CHECK(!claim(r, &t, 1, START + WINDOW + 1));
	registry_free(r);
}

TEST(registry_decides_once_whether_somebody_was_away)
{
	struct registry *r = registry_new();

	CHECK(!registry_begin_absence(r, anna, "room", START));
	CHECK_EQ(registry_enter(r, anna, 1, CONN(1), 0, "anna", false), 0);
	CHECK(registry_begin_absence(r, anna, "room", START));
	CHECK(registry_begin_absence(r, anna, "", START));
	CHECK(registry_begin_absence(r, anna, "other", START));
	CHECK(!registry_end_absence(r, anna, "roo", 0));
	CHECK(!registry_end_absence(r, bert, "room", 0));
	CHECK(registry_end_absence(r, anna, "room", 0));
	CHECK(!registry_end_absence(r, anna, "room", 0));
	CHECK(registry_end_absence(r, anna, "", 0));
	/* Away, back, and away again: the time of the first is not that of the second. */
	CHECK(registry_begin_absence(r, anna, "room", START + 5));
	CHECK(registry_end_absence(r, anna, "room", 0));
	CHECK(registry_begin_absence(r, anna, "room", START + 9));
	CHECK(!registry_end_absence(r, anna, "room", START + 5));
	CHECK(registry_end_absence(r, anna, "room", START + 9));
	/* What is left goes with the id. */
	registry_free(r);
}

TEST(registry_without_memory_knows_nobody)
{
	struct registry *r = registry_new();
	struct resume_token t = {.number = 1, .user_id = "anna"};

	fault_fail(FAULT_ALLOC, 1, 1, ENOMEM);
	CHECK_EQ(registry_enter(r, anna, 1, CONN(1), 0, "anna", false), -ENOMEM);
	CHECK_EQ(fault_end(FAULT_ALLOC), 1);
	fault_fail(FAULT_ALLOC, 1, 1, ENOMEM);
	CHECK(!claim(r, &t, 1, START));
	CHECK_EQ(fault_end(FAULT_ALLOC), 1);
	CHECK_EQ(registry_enter(r, anna, 1, CONN(1), 0, "anna", false), 0);
	fault_fail(FAULT_ALLOC, 1, 1, ENOMEM);
	CHECK(!registry_begin_absence(r, anna, "room", START));
	CHECK_EQ(fault_end(FAULT_ALLOC), 1);
	registry_free(r);
}
