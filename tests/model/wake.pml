/* SPDX-License-Identifier: MIT */
/*
 * src/io/reactor.c: going to sleep and waking, on a machine with store buffers. A plain store
 * goes into the buffer of its thread and to memory some time later; a fence waits until the
 * buffer is empty; a read-modify-write goes to memory at once. What is shown: the loop never
 * sleeps for ever while there is work (that would be an invalid end state), and takes all of it.
 */

#define WAKERS 2
#define POSTS 2

bool asleep;
bool event;           /* of the eventfd, edge-triggered */
byte posted[WAKERS];  /* as in memory */

chan loop_stores = [2] of { bool };         /* of asleep */
chan waker_0_stores = [POSTS] of { byte };  /* of posted[0] */
chan waker_1_stores = [POSTS] of { byte };

/* The buffers drain whenever they like. */
active proctype memory()
{
	bool b;
	byte n;

end:	do
	:: atomic { loop_stores ? b -> asleep = b }
	:: atomic { waker_0_stores ? n -> posted[0] = n }
	:: atomic { waker_1_stores ? n -> posted[1] = n }
	od
}

#define ALL_TAKEN (taken_0 == POSTS && taken_1 == POSTS)

active proctype loop()
{
	byte taken_0, taken_1;
	bool has_work;

	do
	:: ALL_TAKEN -> break
	:: else ->
#ifdef BUG_LOOK_BEFORE_ANNOUNCING
		has_work = (posted[0] != taken_0 || posted[1] != taken_1);
#endif
		loop_stores ! true;
#ifndef BUG_NO_FENCE_OF_LOOP
		empty(loop_stores);
#endif
#ifndef BUG_LOOK_BEFORE_ANNOUNCING
		has_work = (posted[0] != taken_0 || posted[1] != taken_1);
#endif
		if
		:: has_work -> event = false
		:: !has_work -> atomic { event -> event = false }
		fi;
		loop_stores ! false;
		taken_0 = posted[0];
		taken_1 = posted[1]
	od
}

#ifdef BUG_NO_FENCE_OF_WAKER
#define WAKER_FENCE(stores) skip
#else
#define WAKER_FENCE(stores) empty(stores)
#endif

#ifdef BUG_WAKES_BEFORE_POSTING
#define ORDER(post, wake) wake; post
#else
#define ORDER(post, wake) post; wake
#endif

inline reactor_wake(stores)
{
	WAKER_FENCE(stores);
	if
	:: !asleep
	:: asleep ->
		atomic { was_asleep = asleep; asleep = false };
		if
		:: was_asleep -> event = true
		:: else
		fi
	fi
}

#define WAKER(name, stores)                                     \
	active proctype name()                                  \
	{                                                       \
		byte n;                                         \
		bool was_asleep;                                \
		do                                              \
		:: n == POSTS -> break                          \
		:: else ->                                      \
			n++;                                    \
			ORDER(stores ! n, reactor_wake(stores)) \
		od                                              \
	}

WAKER(waker_0, waker_0_stores)
WAKER(waker_1, waker_1_stores)
