/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Every allocation of wsbind itself: the unit binary is linked with
 * -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc, so that they pass here. They are
 * counted, and some can be made to fail. Libraries' allocations don't pass here,
 * the tests' own do: a test prepares what it needs before it lets any fail.
 */

#include <stddef.h>
#include <stdint.h>

/* Allocations so far, in the whole process. */
uint64_t alloc_count(void);

/* Of those from now on the @nth (1: the next) fails, @times in a row; @times 0: none fails. */
void alloc_fail(uint64_t nth, uint64_t times);

/* Every calloc() of elements of @size bytes fails; 0: none does. */
void alloc_fail_elements(size_t size);
