/* SPDX-License-Identifier: MIT */
#include "wire/proxy.h"

#include <string.h>

#define V2_HEAD 16
#define V2_VERSION 0x20
#define V2_LOCAL 0
#define V2_PROXY 1
#define V2_INET_STREAM 0x11
#define V2_INET6_STREAM 0x21

static const uint8_t v1_word[6] = "PROXY ";
static const uint8_t v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";

/* Takes the text up to @c, or to the end. False when there is nothing before it. */
static bool take_word(struct http_text *line, char c, struct http_text *ret)
{
	if (!http_cut(line, c, ret)) {
		*ret = *line;
		*line = (struct http_text){line->p + line->n, 0};
	}
	return ret->n > 0;
}

/* No zeros in front, which one reader takes for octal and the next one doesn't. */
static bool take_port(struct http_text text, uint16_t *ret)
{
	unsigned value = 0;

	if (text.n > 5 || (text.n > 1 && text.p[0] == '0'))
		return false;
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9')
			return false;
		value = value * 10 + (unsigned)(text.p[i] - '0');
	}
	*ret = (uint16_t)value;
	return text.n > 0 && value <= UINT16_MAX;
}

/* ip_parse() takes both; a header that says TCP4 has to have IPv4. */
static bool is_of_kind(struct http_text address, bool is_v6)
{
	return is_v6 == (address.n > 0 && memchr(address.p, ':', address.n) != NULL);
}

/* "TCP4 192.0.2.1 198.51.100.1 56324 443", or "UNKNOWN" and anything. */
static bool parse_v1_line(struct http_text line, struct proxy_header *ret)
{
	struct http_text family, source, target, source_port;
	uint8_t ignored[IP_BYTES];
	uint16_t ignored_port;
	bool is_v6;

	if (!take_word(&line, ' ', &family))
		return false;
	/* Section 2.1: what follows is to be ignored; the connection's own address counts. */
	if (http_text_is(family, "UNKNOWN"))
		return true;
	is_v6 = http_text_is(family, "TCP6");
	if (!is_v6 && !http_text_is(family, "TCP4"))
		return false;
	ret->has_address = true;
	/* The target's address has to be one, too, though nobody needs it. */
	return take_word(&line, ' ', &source) && take_word(&line, ' ', &target) &&
	       take_word(&line, ' ', &source_port) && is_of_kind(source, is_v6) &&
	       is_of_kind(target, is_v6) && ip_parse(source.p, source.n, ret->ip) == 0 &&
	       ip_parse(target.p, target.n, ignored) == 0 && take_port(source_port, &ret->port) &&
	       take_port(line, &ignored_port);
}

static int parse_v1(const uint8_t *p, size_t n, struct proxy_header *ret, size_t *ret_n)
{
	const uint8_t *end = memchr(p, '\n', MIN(n, (size_t)PROXY_MAX_V1));
	size_t len = end ? (size_t)(end - p) : 0;

	/* Section 2.1: the longest line has 107 bytes. Whoever sends more is no proxy. */
	if (!end)
		return n < PROXY_MAX_V1 ? PROXY_MORE : PROXY_E_BROKEN;
	if (len < sizeof(v1_word) + 1 || p[len - 1] != '\r' ||
	    !parse_v1_line((struct http_text){(const char *)p + sizeof(v1_word),
					      len - 1 - sizeof(v1_word)},
			   ret))
		return PROXY_E_BROKEN;
	*ret_n = len + 1;
	return 0;
}

/* Numbers of version 2 are in network order. */
static uint16_t get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static int parse_v2(const uint8_t *p, size_t n, struct proxy_header *ret, size_t *ret_n)
{
	const uint8_t *body = p + V2_HEAD;
	size_t len;

	if (n < V2_HEAD)
		return PROXY_MORE;
	/* Section 2.2: signature, version and command, family and protocol, bytes that follow. */
	len = get_be16(p + 14);
	if ((p[12] & 0xf0) != V2_VERSION || (p[12] & 0x0f) > V2_PROXY || V2_HEAD + len > PROXY_MAX)
		return PROXY_E_BROKEN;
	if (n < V2_HEAD + len)
		return PROXY_MORE;
	*ret_n = V2_HEAD + len;
	/* A health check of the proxy: it speaks for nobody. */
	if ((p[12] & 0x0f) == V2_LOCAL)
		return 0;
	/* Behind the addresses there may be more (TLVs, section 2.2), which is passed over. */
	if (p[13] == V2_INET_STREAM) {
		static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

		if (len < 12)
			return PROXY_E_BROKEN;
		memcpy(ret->ip, mapped, sizeof(mapped));
		memcpy(ret->ip + sizeof(mapped), body, 4);
		ret->port = get_be16(body + 8);
		ret->has_address = true;
	} else if (p[13] == V2_INET6_STREAM) {
		if (len < 36)
			return PROXY_E_BROKEN;
		memcpy(ret->ip, body, IP_BYTES);
		ret->port = get_be16(body + 32);
		ret->has_address = true;
	}
	return 0; /* of another family: as if it didn't know */
}

int proxy_parse(const uint8_t *p, size_t n, struct proxy_header *ret, size_t *ret_n)
{
	struct proxy_header h = {0};
	int r;

	if (n == 0)
		return PROXY_MORE;
	/* What is there may be the beginning of either; their first bytes differ. */
	if (memcmp(p, v1_word, MIN(n, sizeof(v1_word))) == 0)
		r = n < sizeof(v1_word) ? PROXY_MORE : parse_v1(p, n, &h, ret_n);
	else if (memcmp(p, v2_signature, MIN(n, sizeof(v2_signature))) == 0)
		r = parse_v2(p, n, &h, ret_n);
	else
		r = PROXY_E_BROKEN;
	if (r == 0)
		*ret = h;
	return r;
}

/* ---------------------------------------------------------------- X-Forwarded-For */

/* An address, perhaps with a port ("192.0.2.1:5000", "[2001:db8::1]:5000"), and no more. */
static bool parse_element(struct http_text e, uint8_t ret[IP_BYTES])
{
	bool is_v6 = e.p[0] == '[';
	struct http_text address;
	uint16_t ignored;

	/* An IPv6 address without brackets has no port: its last part could be one. */
	if (ip_parse(e.p, e.n, ret) == 0)
		return true;
	if (is_v6) {
		e = (struct http_text){e.p + 1, e.n - 1};
		if (!http_cut(&e, ']', &address))
			return false;
		if (e.n > 0 &&
		    (e.p[0] != ':' || !take_port((struct http_text){e.p + 1, e.n - 1}, &ignored)))
			return false;
	} else if (!http_cut(&e, ':', &address) || !take_port(e, &ignored)) {
		return false;
	}
	return is_of_kind(address, is_v6) && ip_parse(address.p, address.n, ret) == 0;
}

bool proxy_forwarded_for(const struct http_headers *headers, proxy_is_trusted_fn *is_trusted,
			 const void *ctx, uint8_t ret[IP_BYTES])
{
	bool has_any = false;

	/* From the left: whatever follows something that isn't trusted counts anew. */
	for (unsigned i = 0; i < headers->count; i++) {
		struct http_text line = headers->at[i].value, element;
		uint8_t ip[IP_BYTES];

		if (!http_text_is_nocase(headers->at[i].name, "X-Forwarded-For"))
			continue;
		while (line.n > 0) {
			(void)take_word(&line, ',', &element); /* perhaps there is nothing */
			element = http_trim(element);
			if (element.n == 0)
				continue;
			/* Nobody knows who wrote what no proxy would write: it ends the search. */
			if (!parse_element(element, ip)) {
				has_any = false;
			} else if (!is_trusted(ip, ctx) || !has_any) {
				memcpy(ret, ip, IP_BYTES);
				has_any = true;
			}
		}
	}
	return has_any;
}
