/* SPDX-License-Identifier: MIT */
#include "containers/siphash.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static void sip_round(struct siphash *s)
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

static void sip_feed(struct siphash *s, uint64_t word)
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

void siphash_begin(struct siphash *s, const struct siphash_key *key)
{
	/* The paper's constants: "somepseudorandomlygeneratedbytes". */
	*s = (struct siphash){
		.v = {key->half[0] ^ 0x736f6d6570736575ULL, key->half[1] ^ 0x646f72616e646f6dULL,
		      key->half[0] ^ 0x6c7967656e657261ULL, key->half[1] ^ 0x7465646279746573ULL}};
}

/* Bytes that make no word yet wait in its low end. */
static size_t sip_fill(struct siphash *s, const uint8_t *p, size_t n)
{
	size_t i = 0;

	while (i < n && (s->n + i) % sizeof(s->word) != 0) {
		s->word |= (uint64_t)p[i] << (8 * ((s->n + i) % sizeof(s->word)));
		i++;
	}
	s->n += i;
	if (i > 0 && s->n % sizeof(s->word) == 0) {
		sip_feed(s, s->word);
		s->word = 0;
	}
	return i;
}

void siphash_add(struct siphash *s, const void *p, size_t n)
{
	const uint8_t *at = p;
	size_t filled = sip_fill(s, at, n);
	uint64_t word;

	for (at += filled, n -= filled; n >= sizeof(word); n -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		sip_feed(s, le64toh(word));
		s->n += sizeof(word);
	}
	for (size_t i = 0; i < n; i++)
		s->word |= (uint64_t)at[i] << (8 * i);
	s->n += n;
}

uint64_t siphash_end(struct siphash *s)
{
	/* What is left of the bytes, and above them how many there were in all. */
	sip_feed(s, s->word | (uint64_t)s->n << 56);
	s->v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(s);
	return s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
}

uint64_t siphash(const struct siphash_key *key, const void *p, size_t n)
{
	struct siphash s;

	siphash_begin(&s, key);
	siphash_add(&s, p, n);
	return siphash_end(&s);
}
