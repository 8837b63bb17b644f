/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * ws:// and wss:// URLs as a client reads them: taken apart, made to lead to another
 * channel, written as the value of Host. Nothing here allocates or resolves a name.
 */

#include "base/base.h"

struct WB_VALUE ws_url {
	bool secure;     /* wss */
	uint16_t port;   /* 80 or 443 when the URL has none */
	char host[256];  /* an IPv6 literal without its brackets */
	char path[4096]; /* begins with "/"; with its query; bytes above 127 percent-encoded */
};

/**
 * ws_url_parse() - take a ws:// or wss:// URL apart
 *
 * Return:  0 | -EINVAL: another scheme, no host, a bad port, a fragment, user
 *          information, white space or control characters, too long.
 * Thread:  any.
 * Source:  RFC 6455 section 3.
 */
WB_ANY_THREAD int ws_url_parse(const char *text, struct ws_url *ret) WB_NODISCARD;

/*
 * Value of Host for @url: brackets around IPv6, the port unless it is the scheme's own. Return:
 * its length, or 0 when it doesn't fit.
 */
WB_ANY_THREAD size_t ws_url_format_host(char *out, size_t cap, const struct ws_url *url);

/*
 * The path that names @channel: "/" and the name, percent-encoded. Return: its length, or 0 when
 * it doesn't fit @cap.
 */
WB_ANY_THREAD size_t ws_url_format_path(char *out, size_t cap, const char *channel);

/**
 * ws_url_set_channel() - make a URL lead to a channel
 * @channel: its name, not encoded
 *
 * The path is replaced, a query stays.
 *
 * Return:  0 | -ENAMETOOLONG.
 * Thread:  any.
 */
WB_ANY_THREAD int ws_url_set_channel(struct ws_url *url, const char *channel) WB_NODISCARD;
