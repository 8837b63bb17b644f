/* SPDX-License-Identifier: MIT */
#include "conn/turn.h"

void turn_begin(struct turn *t, uint64_t now_ns)
{
	turn_begin_phase(t, TURN_READ_NS);
	t->seen_ns = now_ns;
	/* The loop has just looked, so reading counts from there. */
	t->end_ns = now_ns + t->phase_ns;
}

/* Of the time since the last look, what others have used: as much of it as of the work. */
static uint64_t others_ns(const struct turn *t, uint64_t now_ns)
{
	return t->before_client ? (now_ns - t->seen_ns) * t->before_client / t->charged : 0;
}

void turn_look(struct turn *t)
{
	uint64_t now = clock_now_ns();

	/* Whoever comes when it is time to look is not to blame for those before. */
	if (now >= t->client_end_ns + others_ns(t, now))
		t->client_end_ns = 0;
	t->seen_ns = now;
	t->charged = t->before_client = 0;
	/*
	 * Between two phases there is work that nobody charges: time that it took would be missing
	 * at once. A step for nothing is less than that.
	 */
	if (!t->end_ns)
		t->end_ns = t->seen_ns + t->phase_ns;
	t->is_over |= t->seen_ns >= t->end_ns;
}
