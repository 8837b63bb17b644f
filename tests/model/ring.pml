/* SPDX-License-Identifier: MIT */
/*
 * src/containers/ring.c: producers push, one consumer pops. Each statement is one access to
 * memory. What is shown: every item comes out once, those of one producer in their order, and no
 * cell is written that still has an item in it.
 */

#define SLOTS 2
#define PRODUCERS 3
#define ITEMS 2

byte turn[SLOTS];
byte item[SLOTS]; /* 0: empty, for the assertions only */
byte tail;
byte popped[PRODUCERS];

proctype producer(byte me)
{
	byte n = 1, ticket, seen;

	do
	:: n > ITEMS -> break
	:: else ->
		ticket = tail;
look:		seen = turn[ticket % SLOTS];
		if
		:: seen == ticket ->
#ifdef BUG_TICKET_TWICE /* the compare-and-swap as a load and a store */
			tail == ticket -> tail = ticket + 1;
#else
			atomic {
				if
				:: tail == ticket -> tail = ticket + 1
				:: else -> ticket = tail; goto look
				fi
			}
#endif
#ifdef BUG_FULL_IS_FREE /* a cell of the turn before is taken for a free one */
		:: seen != ticket -> tail = ticket + 1;
#else
		:: seen < ticket -> /* full: ring_push() says so, and the caller tries again */
			ticket = tail; goto look
		:: seen > ticket -> /* somebody else was faster */
			ticket = tail; goto look
#endif
		fi;
#ifdef BUG_TURN_FIRST
		turn[ticket % SLOTS] = ticket + 1;
#endif
		atomic {
			assert(item[ticket % SLOTS] == 0);
			item[ticket % SLOTS] = me * ITEMS + n
		}
#ifndef BUG_TURN_FIRST
		turn[ticket % SLOTS] = ticket + 1;
#endif
		n++
	od
}

proctype consumer()
{
	byte head, taken;

	do
	:: head == PRODUCERS * ITEMS -> break
	:: else ->
		turn[head % SLOTS] == head + 1; /* else ring_pop() returns NULL */
#ifdef BUG_FREED_FIRST
		turn[head % SLOTS] = head + SLOTS;
#endif
		atomic {
			taken = item[head % SLOTS];
			item[head % SLOTS] = 0;
			assert(taken != 0);
			taken--;
			assert(popped[taken / ITEMS] == taken % ITEMS);
			popped[taken / ITEMS]++
		}
#ifndef BUG_FREED_FIRST
		turn[head % SLOTS] = head + SLOTS;
#endif
		head++
	od
}

init {
	byte i;

	atomic {
		for (i : 0 .. SLOTS - 1) { turn[i] = i }
		for (i : 0 .. PRODUCERS - 1) { run producer(i) }
		run consumer()
	}
}
