/* SPDX-License-Identifier: MIT */
/*
 * Names that a table whose hash has no secret puts in one place: collide fnv|jenkins BITS COUNT
 *
 *   fnv      64-bit FNV-1a, its halves folded
 *   jenkins  what uthash has
 *
 * Prints so many names, whose hashes have so many lowest bits alike.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define HEAD 6 /* characters of a name that are counted up, and then the others for each */
#define TAIL 4
#define NAME (HEAD + TAIL)
#define TAILS (1u << 4 * TAIL)

static char tails[TAILS][TAIL + 1];

static uint64_t fnv_on(uint64_t h, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ (uint8_t)p[i]) * 1099511628211ULL;
	return h;
}

static uint32_t jenkins(const char *name)
{
	uint32_t h;

	HASH_JEN(name, NAME, h);
	return h;
}

int main(int argc, char **argv)
{
	uint32_t mask, count;
	char name[NAME + 1];
	int is_fnv;

	if (argc != 4)
		return 2;
	is_fnv = strcmp(argv[1], "fnv") == 0;
	mask = (1u << atoi(argv[2])) - 1;
	count = (uint32_t)atoi(argv[3]);
	for (uint32_t i = 0; i < TAILS; i++)
		snprintf(tails[i], sizeof(tails[i]), "%0*x", TAIL, i);
	for (unsigned head = 0; count > 0; head++) {
		uint64_t before;

		snprintf(name, sizeof(name), "%0*x", HEAD, head);
		before = fnv_on(14695981039346656037ULL, name, HEAD);
		for (uint32_t i = 0; i < TAILS && count > 0; i++) {
			uint64_t h;

			memcpy(name + HEAD, tails[i], TAIL + 1);
			h = is_fnv ? fnv_on(before, tails[i], TAIL) : jenkins(name);
			if (is_fnv)
				h ^= h >> 32;
			if (h & mask)
				continue;
			puts(name);
			count--;
		}
	}
	return 0;
}
