/* SPDX-License-Identifier: MIT */
#include "conn/turn.h"

#include "test.h"

#define START_NS (1000 * NS_PER_S)

/* A turn that began at START_NS, under a clock that stands there. */
static struct turn begun(void)
{
	struct turn t = {0};

	clock_set_for_test(START_NS);
	turn_begin(&t, START_NS);
	turn_begin_client(&t, TURN_CLIENT_NS);
	return t;
}

TEST(turn_looks_at_the_clock_once_for_each_step)
{
	struct turn t = begun();

	/* Time passes, but nobody has worked enough to notice. */
	clock_set_for_test(START_NS + NS_PER_S);
	for (unsigned i = 1; i < TURN_STEP / TURN_FRAME; i++)
		turn_charge(&t, TURN_FRAME);
	CHECK(!turn_is_over(&t) && !turn_client_is_over(&t));
	turn_charge(&t, TURN_FRAME);
	CHECK(turn_is_over(&t) && turn_client_is_over(&t));
	clock_set_for_test(0);
}

TEST(turn_is_charged_a_step_at_most_for_one_piece_of_work)
{
	struct turn t = begun();

	clock_creep_for_test(1);
	turn_charge(&t, SIZE_MAX);
	CHECK_EQ(clock_now_ns(), START_NS + 1);
	turn_charge_send(&t, SIZE_MAX);
	CHECK_EQ(clock_now_ns(), START_NS + 3);
	turn_charge(&t, TURN_STEP - 1);
	CHECK_EQ(clock_now_ns(), START_NS + 4);
	turn_charge(&t, 1);
	CHECK_EQ(clock_now_ns(), START_NS + 6);
	clock_set_for_test(0);
}

TEST(turn_gives_each_client_its_share)
{
	struct turn t = begun();

	clock_set_for_test(START_NS + TURN_CLIENT_NS - 1);
	turn_look(&t);
	CHECK(!turn_client_is_over(&t));
	clock_set_for_test(START_NS + TURN_CLIENT_NS);
	turn_look(&t);
	CHECK(turn_client_is_over(&t) && !turn_is_over(&t));

	/* The share of the next one counts from here. */
	turn_begin_client(&t, TURN_CLIENT_NS);
	CHECK(!turn_client_is_over(&t));
	clock_set_for_test(START_NS + 2 * TURN_CLIENT_NS - 1);
	turn_look(&t);
	CHECK(!turn_client_is_over(&t));
	clock_set_for_test(START_NS + 2 * TURN_CLIENT_NS);
	turn_look(&t);
	CHECK(turn_client_is_over(&t));
	clock_set_for_test(0);
}

TEST(turn_ends_for_new_clients_while_one_has_its_share)
{
	struct turn t = begun();

	clock_set_for_test(START_NS + TURN_READ_NS - 1);
	turn_look(&t);
	turn_begin_client(&t, TURN_CLIENT_NS);
	clock_set_for_test(START_NS + TURN_READ_NS);
	turn_look(&t);
	CHECK(turn_is_over(&t) && !turn_client_is_over(&t));

	/* It stays over, until the next turn. */
	turn_begin_client(&t, TURN_CLIENT_NS);
	CHECK(turn_is_over(&t));
	turn_begin(&t, START_NS + TURN_READ_NS);
	CHECK(!turn_is_over(&t));
	clock_set_for_test(0);
}

TEST(turn_has_time_of_its_own_for_each_phase)
{
	struct turn t = begun();

	clock_set_for_test(START_NS + NS_PER_S);
	turn_look(&t);
	CHECK(turn_is_over(&t));

	/* What was before the first look is on nobody's account. */
	turn_begin_phase(&t, TURN_SEND_NS);
	CHECK(!turn_is_over(&t));
	clock_set_for_test(START_NS + 2 * NS_PER_S);
	turn_look(&t);
	CHECK(!turn_is_over(&t));
	clock_set_for_test(START_NS + 2 * NS_PER_S + TURN_SEND_NS - 1);
	turn_look(&t);
	CHECK(!turn_is_over(&t));
	clock_set_for_test(START_NS + 2 * NS_PER_S + TURN_SEND_NS);
	turn_look(&t);
	CHECK(turn_is_over(&t));
	clock_set_for_test(0);
}

/* The clock is looked at once for many: whoever comes just then has not had all of the time. */
TEST(turn_blames_nobody_for_what_others_did)
{
	static const struct {
		unsigned before, own; /* frames, of one step together */
		bool is_over;
	} rows[] = {{15, 1, false}, {12, 4, false}, {10, 6, true}, {1, 15, true}, {0, 16, true}};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct turn t = begun();

		turn_charge(&t, rows[i].before * TURN_FRAME);
		turn_begin_client(&t, TURN_FIRST_NS);
		clock_set_for_test(START_NS + 3 * TURN_FIRST_NS);
		turn_charge(&t, rows[i].own * TURN_FRAME);
		CHECK_EQ(turn_client_is_over(&t), rows[i].is_over);
		/* From here on it is its own. */
		turn_charge(&t, TURN_STEP / 2);
		clock_set_for_test(START_NS + 5 * TURN_FIRST_NS);
		turn_charge(&t, TURN_STEP / 2);
		CHECK(turn_client_is_over(&t));
	}
	clock_set_for_test(0);
}
