/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Addresses as 16 bytes: IPv6, or IPv4 mapped into ::ffff:0:0/96 (RFC 4291 section
 * 2.5.5.2), so that both compare alike; and prefixes of them. Text in, bytes out.
 */

#include "base/base.h"

#define IP_BYTES 16

struct WB_VALUE ip_prefix {
	uint8_t ip[IP_BYTES];
	uint8_t bits; /* [0, 128], counted in the mapped form */
};

/**
 * ip_parse() - read an address in numbers
 * @text:   @n bytes: "192.0.2.1", "2001:db8::1"
 * @ret:    the address, IPv4 in its mapped form
 *
 * Return:  0 | -EINVAL.
 * Thread:  any.
 */
WB_ANY_THREAD int ip_parse(const char *text, size_t n, uint8_t ret[IP_BYTES]) WB_NODISCARD;

/**
 * ip_prefix_parse() - read an address, or a prefix: "10.0.0.0/8", "2001:db8::/32"
 * @text:   @n bytes; an address alone is a prefix of its full length
 *
 * Bits behind the prefix may be anything and are ignored.
 *
 * Return:  0 | -EINVAL.
 * Thread:  any.
 */
WB_ANY_THREAD int ip_prefix_parse(const char *text, size_t n, struct ip_prefix *ret) WB_NODISCARD;

/*
 * What counts as one address: of IPv6 a network of 64 bits, which is what a single customer or
 * host is given; of IPv4 all of it.
 */
WB_ANY_THREAD void ip_network(const uint8_t ip[IP_BYTES], uint8_t ret[IP_BYTES]);

/* Whether an address is one that only this host has for itself: 127.0.0.0/8, ::1. */
WB_ANY_THREAD bool ip_is_loopback(const uint8_t ip[IP_BYTES]);

/* Whether an address has a prefix. */
WB_ANY_THREAD bool ip_prefix_has(const struct ip_prefix *prefix, const uint8_t ip[IP_BYTES]);
