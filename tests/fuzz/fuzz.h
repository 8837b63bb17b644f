/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the harnesses share. Each is one LLVMFuzzerTestOneInput(): with clang,
 * libFuzzer calls it with inputs that it makes up; with any compiler, replay.c calls
 * it with the files of a folder. What must hold is a WB_ASSERT; the sanitizers see
 * the rest.
 *
 * Bytes that are handed to the code under test are copied to memory of exactly their
 * size, so that a step too far is seen. Whatever else a harness needs (where to cut,
 * which key to mask with) comes from the input too: the same file, the same run.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "containers/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input that is read from its front. */
struct fuzz_input {
	const uint8_t *p;
	size_t n;
};

/* The next byte; 0 behind the end. */
static inline uint8_t fuzz_byte(struct fuzz_input *in)
{
	if (in->n == 0)
		return 0;
	in->n--;
	return *in->p++;
}

/* The next bytes, at most @n. Return: how many there are at *ret. */
static inline size_t fuzz_take(struct fuzz_input *in, size_t n, const uint8_t **ret)
{
	n = MIN(n, in->n);
	*ret = in->p;
	in->p += n;
	in->n -= n;
	return n;
}

/* A copy of its own, of exactly @n bytes; never NULL. */
static inline void *fuzz_copy(const void *p, size_t n)
{
	void *copy = malloc(n ? n : 1);

	WB_ASSERT(copy);
	if (n)
		memcpy(copy, p, n);
	return copy;
}

static inline char *fuzz_text(const void *p, size_t n)
{
	char *copy = malloc(n + 1);

	WB_ASSERT(copy);
	if (n)
		memcpy(copy, p, n);
	copy[n] = '\0';
	return copy;
}

static inline void fuzz_append(struct buf *b, const void *p, size_t n)
{
	int r = buf_append(b, p, n, BUF_NO_LIMIT);

	WB_ASSERT(r == 0);
}

/* xorshift64*; never 0 as a state. */
static inline uint64_t fuzz_random(uint64_t *state)
{
	*state |= *state == 0;
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717ULL;
}

/* A number that depends on every byte (FNV-1a). */
static inline uint64_t fuzz_hash(const uint8_t *p, size_t n)
{
	uint64_t h = 14695981039346656037ULL;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 1099511628211ULL;
	return h;
}

/* The size of the next piece of @n bytes: mostly small, never 0. @n is not 0. */
static inline size_t fuzz_cut(uint64_t *state, size_t n)
{
	uint64_t r = fuzz_random(state);
	size_t most = (size_t)1 << (r >> 60); /* 1 to 32768 */

	return MIN(n, 1 + (size_t)(r & 0xffffffff) % most);
}
