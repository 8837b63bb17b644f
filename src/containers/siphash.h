/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * SipHash-2-4: a hash with a secret, for tables whose keys somebody outside chooses. Whoever
 * doesn't know the secret can't find keys that fall into one bucket, however many there are.
 *
 * Source: J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", 2012.
 */

#include "base/base.h"

struct WB_VALUE siphash_key {
	uint64_t half[2];
};

/* A new secret, from the kernel. Return: 0 | -errno: it gives none. */
int siphash_draw_key(struct siphash_key *ret_key) WB_NODISCARD;

/* Over bytes that come in pieces, whatever their sizes. */
struct WB_VALUE siphash {
	uint64_t v[4];
	uint64_t word; /* of the last bytes, while they make no whole one */
	size_t n;      /* bytes so far */
};

void siphash_begin(struct siphash *s, const struct siphash_key *key);
void siphash_add(struct siphash *s, const void *p, size_t n);
/* Not to be gone on with. */
uint64_t siphash_end(struct siphash *s);

/* Cost: about 20 ns and 1.3 ns a byte. */
WB_ANY_THREAD uint64_t siphash(const struct siphash_key *key, const void *p, size_t n);
