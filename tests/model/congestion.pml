/* SPDX-License-Identifier: MIT */
/*
 * src/worker/hub_post.c: hubs that publish to each other over rings that are full at once. A full ring
 * is never waited for: the post goes to the outbox, the hub marks itself as waiting and reads no
 * client until the outbox is empty; who has drained wakes those who wait. What is shown: all
 * messages arrive, in order, an outbox never holds two, and nobody sleeps for ever. (That sleep
 * and wake-up themselves don't miss each other is in wake.pml.)
 */

#define HUBS 2
#define MESSAGES 3
#define SLOTS 1

byte other_of[HUBS];
chan inbox_0 = [SLOTS] of { byte };
chan inbox_1 = [SLOTS] of { byte };
bool is_waiting[HUBS];  /* [i]: hub i waits for room in the inbox of the other */
bool wakes[HUBS];       /* the eventfd and `asleep` in one */
byte ended;

inline wake(whom)
{
	wakes[whom] = true
}

/* outbox_push(): tries to hand over, wakes the consumer. */
inline flush(theirs)
{
	atomic {
		if
		:: nfull(theirs) -> theirs ! outbox; outbox = 0
		:: full(theirs)
		fi
	};
	if
	:: outbox == 0 -> wake(1 - me)
	:: else
	fi
}

inline mark_waiting(theirs)
{
#ifdef BUG_MARK_AFTER_TRY
	flush(theirs);
	is_waiting[me] = true
#else
	is_waiting[me] = true;
#ifndef BUG_NO_SECOND_TRY
	flush(theirs)
#endif
#endif
}

inline publish(theirs)
{
	assert(outbox == 0);
	sent++;
	outbox = sent;
	flush(theirs);
	if
	:: outbox != 0 -> is_congested = true; mark_waiting(theirs)
	:: else
	fi
}

inline wake_waiting()
{
	atomic { was_waiting = is_waiting[1 - me]; is_waiting[1 - me] = false };
	if
	:: was_waiting -> wake(1 - me)
	:: else
	fi
}

inline drain(ours)
{
	drained = false;
#ifdef BUG_WAKES_BEFORE_DRAINING
	wake_waiting();
#endif
	do
	:: atomic { nempty(ours) -> ours ? got };
		assert(got == expected + 1);
		expected = got;
		drained = true
	:: empty(ours) -> break
	od;
	if
#if !defined(BUG_WAKES_NOBODY) && !defined(BUG_WAKES_BEFORE_DRAINING)
	:: drained -> wake_waiting()
#endif
	:: else
	fi
}

inline end_congestion(theirs)
{
	if
	:: is_congested ->
		if
		:: outbox != 0 -> flush(theirs)
		:: else
		fi;
		if
		:: outbox != 0 -> mark_waiting(theirs)
		:: else
		fi;
		if
		:: outbox == 0 -> is_congested = false
		:: else
		fi
	:: else
	fi
}

/* Without a mark of its own a hub doesn't sleep: it would spin, not stop. */
#define MAY_GO_ON (is_congested && (outbox == 0 || !is_waiting[me]))
#define CAN_READ (!is_congested && sent < MESSAGES)

#define HUB(name, number, ours, theirs)                                                \
	active proctype name()                                                         \
	{                                                                              \
		byte me = number, outbox, sent, got, expected;                         \
		bool is_congested, drained, was_waiting;                               \
		do                                                                     \
		:: sent == MESSAGES && expected == MESSAGES && !is_congested -> break  \
		:: else ->                                                             \
			if                                                             \
			:: nempty(ours) || MAY_GO_ON || CAN_READ                       \
			:: else -> atomic { wakes[me] -> wakes[me] = false }           \
			fi;                                                            \
			if                                                             \
			:: CAN_READ -> publish(theirs)                                 \
			:: else                                                        \
			fi;                                                            \
			drain(ours);                                                   \
			end_congestion(theirs)                                         \
		od                                                                     \
	}

HUB(hub_0, 0, inbox_0, inbox_1)
HUB(hub_1, 1, inbox_1, inbox_0)
