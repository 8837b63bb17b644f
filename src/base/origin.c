/* SPDX-License-Identifier: MIT */
#include "base/origin.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

/* A word, cut: @host without brackets or "*." where it has them. */
struct WB_VALUE origin_word {
	const char *host, *port;
	size_t host_n, port_n;
	bool has_port, is_bracketed;
};

static bool all_of(const char *p, size_t n, const char *allowed)
{
	for (size_t i = 0; i < n; i++)
		if (!p[i] || (!isalnum((unsigned char)p[i]) && !strchr(allowed, p[i])))
			return false;
	return true;
}

/* As browsers write an address: what reads as one has to read back the same. */
static const char *address_flaw(const char *p, size_t n, int family)
{
	char text[INET6_ADDRSTRLEN + 1], again[INET6_ADDRSTRLEN];
	struct in6_addr a;

	if (n >= sizeof(text))
		return "has no address in its host";
	memcpy(text, p, n);
	text[n] = '\0';
	if (inet_pton(family, text, &a) != 1)
		return "has no address in its host";
	if (strcasecmp(inet_ntop(family, &a, again, sizeof(again)), text) != 0)
		return "has an address that browsers write in a shorter form";
	return NULL;
}

static const char *host_flaw(const char *p, size_t n)
{
	if (n == 0)
		return "has no host";
	if (memchr(p, '*', n))
		return "has a \"*\" where none can be: only \"*.\" before a host, or \"*\" alone";
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)p[i] >= 0x80)
			return "is not in ASCII: browsers send punycode (xn--…)";
	if (!all_of(p, n, "-._"))
		return "has a character that no host has";
	for (size_t i = 0; i < n; i++)
		if (p[i] == '.' && (i == 0 || p[i - 1] == '.'))
			return "has an empty label in its host";
	/* A name that ends in digits is an address for browsers. */
	if (strspn(p, "0123456789.") >= n)
		return address_flaw(p, n, AF_INET);
	return NULL;
}

static const char *port_flaw(const char *p, size_t n)
{
	unsigned port = 0;

	if (n == 0 || n > 5 || p[0] == '0')
		return "has no port behind its colon";
	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)p[i]))
			return "has no port behind its colon";
		port = port * 10 + (unsigned)(p[i] - '0');
	}
	return port > UINT16_MAX ? "has no port behind its colon" : NULL;
}

/* Everything behind the scheme, if there is one. */
static const char *authority_flaw(const char *p, size_t n)
{
	struct origin_word w = {.host = p, .host_n = n};
	const char *colon, *end, *flaw;

	if (n > 0 && p[0] == '[') {
		end = memchr(p, ']', n);
		if (!end)
			return "has a bracket that is not closed";
		w = (struct origin_word){.host = p + 1, .is_bracketed = true};
		w.host_n = (size_t)(end - p) - 1;
		colon = end + 1 < p + n ? end + 1 : NULL;
		if (colon && *colon != ':')
			return "has something behind its bracket";
	} else {
		colon = memchr(p, ':', n);
		if (colon)
			w.host_n = (size_t)(colon - p);
	}
	if (colon) {
		w.port = colon + 1;
		w.port_n = (size_t)(p + n - w.port);
		flaw = port_flaw(w.port, w.port_n);
		if (flaw)
			return flaw;
	}
	if (w.is_bracketed)
		return address_flaw(w.host, w.host_n, AF_INET6);
	if (w.host_n > 2 && memcmp(w.host, "*.", 2) == 0) {
		w.host += 2;
		w.host_n -= 2;
	}
	return host_flaw(w.host, w.host_n);
}

static bool is_word(const char *p, size_t n, const char *word)
{
	return n == strlen(word) && strncasecmp(p, word, n) == 0;
}

/* What stands before "://"; @n without it. */
static size_t scheme_bytes(const char *p, size_t n)
{
	for (size_t i = 0; i + 3 <= n; i++)
		if (memcmp(p + i, "://", 3) == 0)
			return i;
	return n;
}

const char *origin_flaw(const char *p, size_t n)
{
	size_t scheme_n = scheme_bytes(p, n);
	bool has_scheme = scheme_n < n;

	/* What pages have that come from no host: they all have the same. */
	if (is_word(p, n, "*") || is_word(p, n, "null") || is_word(p, n, "file://"))
		return NULL;
	if (strchr("\"'", p[0]) || strchr("\"'", p[n - 1]))
		return "has quotes, which are none of it";
	if (has_scheme &&
	    (scheme_n == 0 || !isalpha((unsigned char)p[0]) || !all_of(p, scheme_n, "+-.")))
		return "has no scheme before \"://\"";
	if (!has_scheme)
		scheme_n = 0;
	if (is_word(p, scheme_n, "ws") || is_word(p, scheme_n, "wss"))
		return "names the server: the origin of a page begins with http:// or https://";
	if (has_scheme) {
		n -= scheme_n + 3;
		p += scheme_n + 3;
	}
	if (n > 0 && p[n - 1] == '/')
		return "ends with a \"/\", which no origin does";
	if (memchr(p, '/', n) || memchr(p, '?', n) || memchr(p, '#', n) || memchr(p, '@', n))
		return "has more than scheme, host and port";
	return authority_flaw(p, n);
}
