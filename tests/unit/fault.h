/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Calls that fail on purpose. Two programs are linked with -Wl,--wrap for each
 * function below, so that what wsbind's own sources call passes here: the unit
 * tests, which use these functions, and wsbind-faults, the daemon itself, which
 * tests/integration/55-faults.py commands through a file that both map (its name
 * is in WSBIND_FAULTS; struct fault_plan is its layout). What libraries call
 * inside themselves doesn't pass here, what tests call does: a test prepares what it
 * needs before it lets any fail.
 */

#include <stddef.h>
#include <stdint.h>

/* FAULT_SHORT instead of an errno: one byte goes through, where more could. */
#define FAULT_SHORT (-1)

/* FAULT(kind, name): the functions of a kind are counted, and fail, together. */
#define FAULTS(FAULT)                                                                        \
	FAULT(ALLOC, "alloc") /* malloc calloc realloc aligned_alloc strdup strndup */       \
	FAULT(MMAP, "mmap")                                                                  \
	FAULT(ACCEPT, "accept4")                                                             \
	FAULT(EPOLL, "epoll_ctl") /* of EPOLL_CTL_ADD, the only one that the kernel fails */ \
	FAULT(WAIT, "epoll_wait")                                                            \
	FAULT(RECV, "recv")                                                                  \
	FAULT(SEND, "send") /* and sendmsg */                                                \
	FAULT(EVENTFD, "eventfd")                                                            \
	FAULT(OPEN, "open")     /* socket, epoll_create1, signalfd, too */                   \
	FAULT(LISTEN, "listen") /* and bind */                                               \
	FAULT(WRITE, "write")   /* to files */                                               \
	FAULT(THREAD, "pthread_create")                                                      \
	FAULT(PAGES, "fallocate") /* for a file in memory; giving them back never fails */

#define FAULT_ENUM(kind, name) FAULT_##kind,
enum fault_kind { FAULTS(FAULT_ENUM) FAULT_N };
#undef FAULT_ENUM

struct fault_plan {
	char name[16];
	_Atomic uint64_t calls; /* so far */
	_Atomic uint64_t from;  /* number of the first call that fails, counted from 0 */
	_Atomic uint64_t times; /* how many do */
	_Atomic int64_t error;  /* errno or FAULT_SHORT */
	_Atomic uint64_t hits;  /* how many have */
};

/* Calls of a kind so far, in the whole process. */
uint64_t fault_calls(enum fault_kind kind);

/* Of those from now on the @nth (1: the next) fails, @times in a row. */
void fault_fail(enum fault_kind kind, uint64_t nth, uint64_t times, int error);

/* None fails any more. Return: how many did since fault_fail(). */
uint64_t fault_end(enum fault_kind kind);

/* Every calloc() of elements of @size bytes fails; 0: none does. */
void fault_fail_elements(size_t size);
