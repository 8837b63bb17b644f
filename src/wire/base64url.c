/* SPDX-License-Identifier: MIT */
#include "wire/base64url.h"

#include <errno.h>

#include "containers/buf.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* -1: it is no digit. */
static int digit_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool base64url_decode(const char *p, size_t n, uint8_t *out, size_t cap, size_t *ret_n)
{
	uint32_t bits = 0;
	unsigned have = 0;
	size_t at = 0;

	/* One digit alone has six bits, which are no byte. */
	if (n % 4 == 1)
		return false;
	for (size_t i = 0; i < n; i++) {
		int digit = digit_value(p[i]);

		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		if (at == cap)
			return false;
		out[at++] = (uint8_t)(bits >> have);
		bits &= (1u << have) - 1;
	}
	*ret_n = at;
	/* Otherwise a signature could be written in several ways. */
	return bits == 0;
}

int base64url_append(struct buf *b, const void *p, size_t n)
{
	const uint8_t *at = p;
	/* Bits that no digit was made of yet are the lowest @have; what is above them is stale. */
	uint32_t bits = 0;
	unsigned have = 0;

	for (size_t i = 0; i < n; i++) {
		bits = bits << 8 | at[i];
		have += 8;
		while (have >= 6) {
			have -= 6;
			if (buf_append(b, &digits[bits >> have & 63], 1, BUF_NO_LIMIT))
				return -ENOMEM;
		}
	}
	return have ? buf_append(b, &digits[bits << (6 - have) & 63], 1, BUF_NO_LIMIT) : 0;
}
