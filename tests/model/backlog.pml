/* SPDX-License-Identifier: MIT */
/*
 * src/worker/hub_backlog.c: hubs that publish to one channel with members on all of them. A hub
 * whose backlog is at its bound sets its bit in `full`; who publishes and sees any bit is held; a
 * held hub marks itself with each that is full, and looks once more; one that has caught up clears
 * its bit, takes the marks and wakes who left them. What is shown: who has seen a bit publishes
 * nothing until all were clear at once, all messages are sent, and nobody stays held for ever: that
 * would be an invalid end state. Acknowledgements that wait for slow members are the same with the
 * set `lagging`; they share the marks, so one that the other reason took is a wake-up too many. (That
 * sleep and wake-up themselves don't miss each other is in wake.pml.)
 */

#define HUBS 2
#define MESSAGES 3
#define BOUND 1         /* it is behind when more wait, and has caught up at half: none */

byte backlog[HUBS];     /* posted to a hub, and not taken by a round */
bool is_full[HUBS];        /* bits of the set in the entry */
bool held_by[HUBS * HUBS]; /* [i * HUBS + j]: hub j waits until i has caught up */
bool wakes[HUBS];       /* the eventfd and `asleep` in one */
#define ANY_FULL (is_full[0] || is_full[1])

inline post(to)
{
	atomic {
		backlog[to]++;
		if
		:: to != me -> wakes[to] = true
		:: else
		fi
	}
}

/* What came makes its own hub say that it is behind: when it takes posts into its log. */
inline note_backlog()
{
	if
	:: backlog[me] > BOUND && !is_full[me] -> is_full[me] = true
	:: else
	fi
}

inline publish()
{
	sent++;
	post(0);
	post(1);
	note_backlog();
	if
	:: ANY_FULL -> is_held = true
	:: else
	fi
}

inline take_marks()
{
	other = 0;
	do
	:: other == HUBS -> break
	:: else ->
		atomic { was_held = held_by[me * HUBS + other]; held_by[me * HUBS + other] = false };
		if
		:: was_held && other != me -> wakes[other] = true
		:: else
		fi;
		other++
	od
}

inline flush()
{
	if
	:: backlog[me] > 0 -> atomic { backlog[me]--; flushed++ }
	:: else
	fi;
	if
	:: is_full[me] && backlog[me] == 0 ->
#ifdef BUG_WAKES_BEFORE_CLEARING
		take_marks();
		is_full[me] = false
#else
		is_full[me] = false;
#ifndef BUG_WAKES_NOBODY
		take_marks()
#endif
#endif
	:: else
	fi
}

/* hub_sees_none(): each that is full gets the mark, and then is looked at once more. */
inline release()
{
	if
	:: is_held ->
		marked_0 = false; marked_1 = false;
		do
		:: atomic { seen_0 = is_full[0]; seen_1 = is_full[1] };
#ifdef BUG_LOOKS_BEFORE_MARKING
			if
			:: seen_0 -> held_by[me] = true
			:: else
			fi;
			if
			:: seen_1 -> held_by[HUBS + me] = true
			:: else
			fi;
			is_held = seen_0 || seen_1;
			break
#else
			if
			:: !seen_0 && !seen_1 -> is_held = false; break
			:: seen_0 && !marked_0 -> held_by[me] = true; marked_0 = true
			:: seen_1 && !marked_1 -> held_by[HUBS + me] = true; marked_1 = true
			:: else -> break
			fi
#endif
		od
	:: else
	fi
}

#define CAN_READ (!is_held && sent < MESSAGES)
#define IS_DONE (sent == MESSAGES && flushed == HUBS * MESSAGES)

#define HUB(name, number)                                                             \
	active proctype name()                                                        \
	{                                                                             \
		byte me = number, sent, flushed, other;                               \
		bool is_held, was_held, seen_0, seen_1, marked_0, marked_1;           \
		do                                                                    \
		:: IS_DONE && !is_full[me] -> break                                      \
		:: else ->                                                            \
			if                                                            \
			:: backlog[me] > 0 || CAN_READ || is_full[me]                    \
			:: else -> atomic { wakes[me] -> wakes[me] = false }          \
			fi;                                                           \
			if                                                            \
			:: CAN_READ -> publish()                                      \
			:: else                                                       \
			fi;                                                           \
			note_backlog();                                               \
			flush();                                                      \
			release()                                                     \
		od                                                                    \
	}

HUB(hub_0, 0)
HUB(hub_1, 1)
