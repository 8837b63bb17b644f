/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What every other file may use: attributes, ownership tags, assertions and the
 * two or three helpers that C lacks. Nothing here has state.
 *
 * Ownership tags stand between `struct` and the name and say which thread may
 * touch an object (.github/CONTRIBUTING.md, "Threads"). clang keeps them as
 * annotations; tests/lint/owners.awk refuses a struct in a header without one.
 *
 *   WB_OWNER(role)  only that thread
 *   WB_FROZEN       written before it is published, read-only from then on
 *   WB_SHARED       every member is atomic, tagged itself, or guarded as said beside it
 *   WB_VALUE        plain data that belongs to whoever holds it
 */

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__clang__)
#define WB_TAG(text) __attribute__((annotate(text)))
#else
#define WB_TAG(text)
#endif

#define WB_OWNER(role) WB_TAG("owner:" #role)
#define WB_FROZEN WB_TAG("frozen")
#define WB_SHARED WB_TAG("shared")
#define WB_VALUE WB_TAG("value")
#define WB_ANY_THREAD WB_TAG("any-thread")

#define WB_NODISCARD __attribute__((warn_unused_result))
#define WB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define WB_CLEANUP(fn) __attribute__((cleanup(fn)))
#define WB_NORETURN __attribute__((noreturn))
#define WB_COLD __attribute__((cold, noinline)) /* seldom needed, beside what is hot */
#define WB_LIKELY(x) __builtin_expect(!!(x), 1)
#define WB_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* What different threads write stands this far apart: two cache lines, which are fetched as one. */
#define WB_CACHELINE 128

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define MIN(a, b)                                  \
	({                                         \
		__typeof__(a) min_a_ = (a);        \
		__typeof__(b) min_b_ = (b);        \
		min_a_ < min_b_ ? min_a_ : min_b_; \
	})
#define MAX(a, b)                                  \
	({                                         \
		__typeof__(a) max_a_ = (a);        \
		__typeof__(b) max_b_ = (b);        \
		max_a_ > max_b_ ? max_a_ : max_b_; \
	})

/* Hands a pointer or descriptor over to someone else, so that WB_CLEANUP leaves it alone. */
#define TAKE_PTR(p)                        \
	({                                 \
		__typeof__(p) take_ = (p); \
		(p) = NULL;                \
		take_;                     \
	})
#define TAKE_FD(fd)               \
	({                        \
		int take_ = (fd); \
		(fd) = -1;        \
		take_;            \
	})

/**
 * wb_assert_failed() - say which assertion failed, and abort
 *
 * Called by WB_ASSERT alone. Writes one line to standard error without
 * allocating, so that the core dump shows the state as it was.
 */
WB_NORETURN void wb_assert_failed(const char *condition, const char *file, int line);

/* On in every build. For programming errors only: no input of a peer may reach one. */
#define WB_ASSERT(condition)                                              \
	do {                                                              \
		if (WB_UNLIKELY(!(condition)))                            \
			wb_assert_failed(#condition, __FILE__, __LINE__); \
	} while (0)

/* For WB_CLEANUP: closes a descriptor that is not -1, makes it -1, and keeps errno. */
void fd_closep(int *fd);

/* For WB_CLEANUP: frees what a pointer points to. @p is the address of the pointer. */
static inline void ptr_freep(void *p)
{
	free(*(void **)p);
}
