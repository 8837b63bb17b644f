/* SPDX-License-Identifier: MIT */
#include "conn/turn.h"

void turn_begin(struct turn *t, uint64_t now_ns)
{
	turn_begin_phase(t, TURN_READ_NS);
	t->seen_ns = now_ns;
	/* The loop has just looked, so reading counts from there. */
	t->end_ns = now_ns + t->phase_ns;
}

void turn_look(struct turn *t)
{
	t->seen_ns = clock_now_ns();
	t->charged = 0;
	/*
	 * Between two phases there is work that nobody charges: time that it took would be missing
	 * at once. A step for nothing is less than that.
	 */
	if (!t->end_ns)
		t->end_ns = t->seen_ns + t->phase_ns;
	t->is_over |= t->seen_ns >= t->end_ns;
	t->is_client_over |= t->seen_ns >= t->client_end_ns;
}
