/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Records refer to each other by record id: the place of a record among those of its kind, from
 * 1 on; 0 is none. So what many connections wait for is written once, and whoever reads the
 * records needs no more than an array for each kind that others refer to.
 *
 * Every record counts, one that cannot be read as well: the ids behind it stay right.
 */

#include "base/base.h"

/* Of one kind: far more than there is memory for. */
#define RECORD_IDS_MAX ((size_t)1 << 28)

/* Why something cannot be made again of its record. */
enum restore_result {
	RESTORE_E_UNFIT = 1, /* the record says what cannot be */
	RESTORE_E_NO_ROOM,   /* max_channels is lower than it was */
};

/*
 * Room in an array for one more than its @n elements, of @each bytes: it grows to twice its size
 * wherever @n is a power of two. Return: the array; NULL without memory, the old one stays.
 */
static inline void *record_ids_grow(void *array, size_t n, size_t each)
{
	if (n & (n - 1))
		return array;
	return n < RECORD_IDS_MAX ? realloc(array, MAX(2 * n, (size_t)1) * each) : NULL;
}
