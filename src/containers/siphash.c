/* SPDX-License-Identifier: MIT */
#include "containers/siphash.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

struct sip {
	uint64_t v[4];
};

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static void sip_round(struct sip *s)
{
	uint64_t *v = s->v;

	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotate_left(v[1], 13) ^ v[0];
	v[3] = rotate_left(v[3], 16) ^ v[2];
	v[0] = rotate_left(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = rotate_left(v[1], 17) ^ v[2];
	v[3] = rotate_left(v[3], 21) ^ v[0];
	v[2] = rotate_left(v[2], 32);
}

static void sip_feed(struct sip *s, uint64_t word)
{
	s->v[3] ^= word;
	sip_round(s);
	sip_round(s);
	s->v[0] ^= word;
}

int siphash_draw_key(struct siphash_key *ret_key)
{
	/* So few bytes come whole, once the kernel has any at all: it waits for that. */
	ssize_t n = getrandom(ret_key, sizeof(*ret_key), 0);

	if (n < 0)
		return -errno;
	return n == (ssize_t)sizeof(*ret_key) ? 0 : -EIO;
}

uint64_t siphash(const struct siphash_key *key, const void *p, size_t n)
{
	/* The paper's constants: "somepseudorandomlygeneratedbytes". */
	struct sip s = {{key->half[0] ^ 0x736f6d6570736575ULL, key->half[1] ^ 0x646f72616e646f6dULL,
			 key->half[0] ^ 0x6c7967656e657261ULL,
			 key->half[1] ^ 0x7465646279746573ULL}};
	const uint8_t *at = p;
	uint64_t word;

	for (size_t left = n; left >= sizeof(word); left -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		sip_feed(&s, le64toh(word));
	}
	/* What is left of the bytes, and above them how many there were in all. */
	word = (uint64_t)n << 56;
	for (size_t i = 0; i < n % sizeof(word); i++)
		word |= (uint64_t)at[i] << (8 * i);
	sip_feed(&s, word);
	s.v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(&s);
	return s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
}
