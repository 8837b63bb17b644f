/* SPDX-License-Identifier: MIT */
#include "base/ip.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#define V4_OFFSET 12 /* of an IPv4 address in its mapped form */

static const uint8_t v4_mapped[V4_OFFSET] = {[10] = 0xff, [11] = 0xff};

int ip_parse(const char *text, size_t n, uint8_t ret[IP_BYTES])
{
	char copy[INET6_ADDRSTRLEN];
	uint8_t ip[IP_BYTES];

	/* inet_pton() reads up to a NUL: one inside would hide what stands behind it. */
	if (n >= sizeof(copy) || memchr(text, '\0', n))
		return -EINVAL;
	memcpy(copy, text, n);
	copy[n] = '\0';
	/* An IPv4 address fills the last four bytes; an IPv6 address overwrites the prefix, too. */
	memcpy(ip, v4_mapped, sizeof(v4_mapped));
	if (inet_pton(AF_INET, copy, ip + V4_OFFSET) != 1 && inet_pton(AF_INET6, copy, ip) != 1)
		return -EINVAL;
	memcpy(ret, ip, IP_BYTES);
	return 0;
}

/* [0, @max] in decimal, of at most three digits, without a sign or a leading zero. */
static int parse_bits(const char *text, size_t n, unsigned max, uint8_t *ret)
{
	unsigned value = 0;

	if (n == 0 || n > 3 || (n > 1 && text[0] == '0'))
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		value = value * 10 + (unsigned)(text[i] - '0');
	}
	if (value > max)
		return -EINVAL;
	*ret = (uint8_t)value;
	return 0;
}

int ip_prefix_parse(const char *text, size_t n, struct ip_prefix *ret)
{
	const char *slash = memchr(text, '/', n);
	size_t address_n = slash ? (size_t)(slash - text) : n;
	bool is_v4 = !memchr(text, ':', address_n);
	struct ip_prefix prefix;

	if (ip_parse(text, address_n, prefix.ip) < 0)
		return -EINVAL;
	prefix.bits = is_v4 ? 32 : 128;
	if (slash && parse_bits(slash + 1, n - address_n - 1, prefix.bits, &prefix.bits) < 0)
		return -EINVAL;
	/* "10.0.0.0/8" is written in bits of IPv4, and compared in bits of the mapped form. */
	if (is_v4)
		prefix.bits = (uint8_t)(prefix.bits + 8 * V4_OFFSET);
	*ret = prefix;
	return 0;
}

bool ip_prefix_has(const struct ip_prefix *prefix, const uint8_t ip[IP_BYTES])
{
	size_t whole = prefix->bits / 8;
	unsigned rest = prefix->bits % 8;

	if (memcmp(prefix->ip, ip, whole) != 0)
		return false;
	/* Of the byte in which the prefix ends, only the bits before its end have to agree. */
	return rest == 0 || (prefix->ip[whole] ^ ip[whole]) >> (8 - rest) == 0;
}

void ip_network(const uint8_t ip[IP_BYTES], uint8_t ret[IP_BYTES])
{
	memcpy(ret, ip, IP_BYTES);
	if (memcmp(ip, v4_mapped, sizeof(v4_mapped)) != 0)
		memset(ret + IP_BYTES / 2, 0, IP_BYTES / 2);
}

bool ip_is_loopback(const uint8_t ip[IP_BYTES])
{
	static const uint8_t v4[] = {[10] = 0xff, [11] = 0xff, [12] = 127};
	static const uint8_t v6[IP_BYTES] = {[15] = 1};

	return memcmp(ip, v4, sizeof(v4)) == 0 || memcmp(ip, v6, sizeof(v6)) == 0;
}
