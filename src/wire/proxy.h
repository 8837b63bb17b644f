/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What proxies say about whom they speak for: the PROXY protocol, versions 1 and 2
 * (haproxy.org, proxy-protocol.txt), in front of everything else on a connection, and
 * X-Forwarded-For in a request. Bytes in, addresses out; whether a proxy may be
 * believed is for the caller to know.
 */

#include "base/base.h"
#include "base/ip.h"
#include "wire/http.h"

#define PROXY_MAX_V1 107 /* bytes of a header, its CRLF included */
#define PROXY_MAX 2048   /* of version 2 with what it may carry beside addresses; more is refused */

enum proxy_outcome {
	PROXY_MORE = 1, /* not complete yet */
	PROXY_E_BROKEN, /* no header of either version, or too long a one */
};

struct WB_VALUE proxy_header {
	bool has_address; /* false: the proxy's own connection (LOCAL), or it doesn't know */
	uint8_t ip[IP_BYTES];
	uint16_t port; /* of the client, host order */
};

/**
 * proxy_parse() - read the header
 * @p:      the first @n bytes of the connection
 * @ret_n:  on 0: its length; what follows is the client's
 *
 * Return:  0 | PROXY_MORE, which it never is from PROXY_MAX bytes on | PROXY_E_BROKEN.
 * Source:  proxy-protocol.txt sections 2.1, 2.2; the checksum of version 2 is not looked at.
 */
WB_ANY_THREAD int proxy_parse(const uint8_t *p, size_t n, struct proxy_header *ret, size_t *ret_n)
	WB_NODISCARD;

/* Whether an address belongs to a proxy that may be believed. */
typedef bool proxy_is_trusted_fn(const uint8_t ip[IP_BYTES], const void *ctx);

/**
 * proxy_forwarded_for() - the client's address by X-Forwarded-For
 * @ret:    untouched when false
 *
 * Each proxy has added whom it got the request from at the end; so the last address that is
 * no trusted proxy's is the client, and what stands before it is hearsay. When all are, it is
 * the first. An element that is no address ends the search: the one behind it is taken.
 *
 * Elements are what stands between commas, on all lines of that name; empty ones are passed
 * over. Quotes mean nothing here: a proxy adds ", ADDRESS" to whatever it was sent, and no
 * character of that may swallow it. An address is "192.0.2.1", "192.0.2.1:PORT",
 * "2001:db8::1", "[2001:db8::1]" or "[2001:db8::1]:PORT" and nothing else.
 *
 * Return:  whether there is one.
 */
WB_ANY_THREAD bool proxy_forwarded_for(const struct http_headers *headers,
				       proxy_is_trusted_fn *is_trusted, const void *ctx,
				       uint8_t ret[IP_BYTES]);
