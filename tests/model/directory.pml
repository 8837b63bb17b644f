/* SPDX-License-Identifier: MIT */
/*
 * src/channel/directory.c: a worker joins while others publish, leaves, and joins another channel
 * whose entry is in the same slot. What is shown: the worker gets every message from the number
 * on that it read when it joined, and nothing of a channel that is gone.
 *
 * A publisher takes a number, reads the set, posts; all are members, so the entry stays as long
 * as one of them publishes.
 */

#define PUBLISHERS 2
#define MESSAGES 2
#define TOTAL (PUBLISHERS * MESSAGES)

byte seq;               /* of the entry */
bool has_bit;           /* the joining worker's bit in the set */
byte generation = 1;
byte left_to_publish = PUBLISHERS;
chan inbox = [TOTAL + 1] of { byte, byte, bool }; /* number, generation, of the first channel */
bool is_posted[TOTAL];

proctype publisher()
{
	byte n, mine;
	bool was_set;

	do
	:: n == MESSAGES -> break
	:: else ->
#ifdef BUG_SET_BEFORE_NUMBER
		was_set = has_bit;
		atomic { mine = seq; seq++ };
#else
		atomic { mine = seq; seq++ };
		was_set = has_bit;
#endif
		if
		:: was_set -> atomic { inbox ! mine, generation, true; is_posted[mine] = true }
		:: else
		fi;
		n++
	od;
	left_to_publish-- /* leaves */
}

proctype joiner()
{
	byte from, number, its_generation, my_generation, i;
	bool of_first;

#ifdef BUG_COUNTER_BEFORE_BIT
	from = seq;
	has_bit = true;
#else
	has_bit = true;
	from = seq;
#endif
	my_generation = generation;
	left_to_publish == 0; /* whatever order they came in */
	for (i : from .. TOTAL - 1) {
		assert(is_posted[i])
	}
	if
	:: true -> /* takes what came */
		do
		:: inbox ? number, its_generation, of_first ->
			assert(of_first && its_generation == my_generation)
		:: empty(inbox) -> break
		od
	:: true -> /* leaves with all of it still under way; the last one: the slot is free */
		has_bit = false;
		seq = 0;
#ifndef BUG_SAME_GENERATION
		generation++;
#endif
		has_bit = true; /* another channel in the slot */
		my_generation = generation;
		do
		:: inbox ? number, its_generation, of_first ->
			if
			:: its_generation == my_generation -> assert(!of_first)
			:: else /* dropped */
			fi
		:: empty(inbox) -> break
		od
	fi
}

init {
	byte i;

	atomic {
		for (i : 1 .. PUBLISHERS) { run publisher() }
		run joiner()
	}
}
