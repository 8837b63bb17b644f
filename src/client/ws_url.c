/* SPDX-License-Identifier: MIT */
#include "client/ws_url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "wire/msg.h"

#define UNRESERVED                                             \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" \
	"0123456789-._~" /* RFC 3986 section 2.3 */

/* Adds @c to a text of @n bytes, percent-encoded or as it is. False when it doesn't fit. */
static bool ws_url_put(char *out, size_t cap, size_t *n, char c, bool is_encoded)
{
	static const char digits[] = "0123456789ABCDEF";

	if (cap - *n <= (is_encoded ? 3 : 1))
		return false;
	if (is_encoded) {
		out[(*n)++] = '%';
		out[(*n)++] = digits[(uint8_t)c >> 4];
		c = digits[c & 15];
	}
	out[(*n)++] = c;
	out[*n] = '\0';
	return true;
}

/* Host and port of a URL; @p is what stands between "//" and the path. */
static bool ws_url_parse_authority(const char *p, size_t n, struct ws_url *url)
{
	const char *end = p + n;
	bool is_ipv6 = n > 0 && *p == '[';
	const char *stop = memchr(p, is_ipv6 ? ']' : ':', n);
	const char *port = is_ipv6 && stop ? stop + 1 : stop ? stop : end;
	struct in6_addr ignored;
	unsigned value = 0;

	/* Without the brackets: only the Host header wants them. */
	p += is_ipv6;
	n = (size_t)((stop ? stop : end) - p);
	if (n == 0 || n >= sizeof(url->host) || (is_ipv6 && !stop))
		return false;
	memcpy(url->host, p, n);
	url->host[n] = '\0';
	if (is_ipv6 ? inet_pton(AF_INET6, url->host, &ignored) != 1
		    : strspn(url->host, UNRESERVED) != n)
		return false;
	/* Behind a bracket nothing but a port may follow; "host:" alone keeps the scheme's own. */
	if (port < end && *port++ != ':')
		return false;
	if (port == end)
		return true;
	for (; port < end; port++) {
		if (*port < '0' || *port > '9')
			return false;
		value = value * 10 + (unsigned)(*port - '0');
		if (value > UINT16_MAX)
			return false;
	}
	url->port = (uint16_t)value;
	return value > 0;
}

static bool ws_url_parse_path(const char *p, struct ws_url *url)
{
	size_t n = 0;

	if (*p != '/' && !ws_url_put(url->path, sizeof(url->path), &n, '/', false))
		return false;
	/* What stands here goes into the request as it is: nothing may end its first line. */
	for (; *p; p++) {
		if ((uint8_t)*p <= ' ' || *p == 127 || *p == '#')
			return false;
		if (!ws_url_put(url->path, sizeof(url->path), &n, *p, (uint8_t)*p > 127))
			return false;
	}
	return true;
}

int ws_url_parse(const char *text, struct ws_url *ret)
{
	struct ws_url url = {.port = 80};
	size_t n;

	if (strncasecmp(text, "wss://", 6) == 0) {
		url.secure = true;
		url.port = 443;
		text += 6;
	} else if (strncasecmp(text, "ws://", 5) == 0) {
		text += 5;
	} else {
		return -EINVAL;
	}
	/* A URL without a path may still have a query, or a fragment, which is refused below. */
	n = strcspn(text, "/?#");
	if (!ws_url_parse_authority(text, n, &url) || !ws_url_parse_path(text + n, &url))
		return -EINVAL;
	*ret = url;
	return 0;
}

size_t ws_url_format_host(char *out, size_t cap, const struct ws_url *url)
{
	bool is_ipv6 = strchr(url->host, ':');
	char port[8] = "";
	int n;

	if (url->port != (url->secure ? 443 : 80))
		snprintf(port, sizeof(port), ":%u", url->port);
	n = snprintf(out, cap, "%s%s%s%s", is_ipv6 ? "[" : "", url->host, is_ipv6 ? "]" : "", port);
	return n >= 0 && (size_t)n < cap ? (size_t)n : 0;
}

size_t ws_url_format_path(char *out, size_t cap, const char *channel)
{
	size_t n = 0;

	if (cap == 0 || !ws_url_put(out, cap, &n, '/', false))
		return 0;
	/* A slash stays: channels with one look like a path, and are matched like one. */
	for (; *channel; channel++) {
		char c = *channel;
		bool is_plain = strchr(UNRESERVED "/", c);

		if (!ws_url_put(out, cap, &n, c, !is_plain))
			return 0;
	}
	return n;
}

int ws_url_set_channel(struct ws_url *url, const char *channel)
{
	char path[sizeof(url->path)];
	const char *query = strchr(url->path, '?');
	size_t n = 0;

	if (strlen(channel) <= MSG_CHANNEL_MAX)
		n = ws_url_format_path(path, sizeof(path), channel);
	if (n == 0 || n + (query ? strlen(query) : 0) >= sizeof(path))
		return -ENAMETOOLONG;
	/* The query is not the channel's: it may hold an access_token. */
	if (query)
		strcpy(path + n, query);
	strcpy(url->path, path);
	return 0;
}
