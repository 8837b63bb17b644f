/* SPDX-License-Identifier: MIT */
#include "alloc.h"

#include <stdatomic.h>
#include <stdbool.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t count, size_t n);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t n);
void *__wrap_realloc(void *p, size_t n);

/* Other tests have threads, and never look at these. */
static _Atomic uint64_t allocations;
static _Atomic uint64_t fail_from, fail_times;
static _Atomic size_t fail_elements;

/* Counts one; true when it has to fail. */
static bool count_one(void)
{
	uint64_t number = atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);

	return number - atomic_load_explicit(&fail_from, memory_order_relaxed) <
	       atomic_load_explicit(&fail_times, memory_order_relaxed);
}

void *__wrap_malloc(size_t n)
{
	return count_one() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t count, size_t n)
{
	size_t elements = atomic_load_explicit(&fail_elements, memory_order_relaxed);

	return count_one() || (elements && n == elements) ? NULL : __real_calloc(count, n);
}

void *__wrap_realloc(void *p, size_t n)
{
	return count_one() ? NULL : __real_realloc(p, n);
}

uint64_t alloc_count(void)
{
	return atomic_load_explicit(&allocations, memory_order_relaxed);
}

void alloc_fail(uint64_t nth, uint64_t times)
{
	atomic_store_explicit(&fail_times, 0, memory_order_relaxed);
	atomic_store_explicit(&fail_from, alloc_count() + nth - 1, memory_order_relaxed);
	atomic_store_explicit(&fail_times, times, memory_order_relaxed);
}

void alloc_fail_elements(size_t size)
{
	atomic_store_explicit(&fail_elements, size, memory_order_relaxed);
}
