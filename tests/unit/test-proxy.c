/* SPDX-License-Identifier: MIT */
#include "wire/proxy.h"

#include <stdio.h>

#include "test.h"

#define V2_SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static int parse(const void *p, size_t n, struct proxy_header *ret, size_t *ret_n)
{
	/* A copy that ends where the bytes end, for the sanitizers. */
	uint8_t *copy = malloc(n ? n : 1);
	int r;

	CHECK(copy != NULL);
	memcpy(copy, p, n);
	r = proxy_parse(copy, n, ret, ret_n);
	free(copy);
	return r;
}

/* Any beginning of a header is not enough, and the whole is, whatever follows it. */
static struct proxy_header check_whole(const void *p, size_t n)
{
	uint8_t with_more[PROXY_MAX + 20];
	struct proxy_header h = {0}, again = {0};
	size_t used = 0;

	for (size_t i = 0; i < n; i++)
		CHECK_EQ(parse(p, i, &h, &used), PROXY_MORE);
	CHECK_EQ(parse(p, n, &h, &used), 0);
	CHECK_EQ(used, n);
	memcpy(with_more, p, n);
	memcpy(with_more + n, "GET / HTTP/1.1\r\n", 16);
	CHECK_EQ(parse(with_more, n + 16, &again, &used), 0);
	CHECK_EQ(used, n);
	CHECK_MEM(h.ip, again.ip, IP_BYTES);
	return h;
}

static void check_is(const struct proxy_header *h, const char *address, uint16_t port)
{
	uint8_t ip[IP_BYTES];

	CHECK(h->has_address);
	CHECK_EQ(ip_parse(address, strlen(address), ip), 0);
	CHECK_MEM(h->ip, ip, IP_BYTES);
	CHECK_EQ(h->port, port);
}

TEST(proxy_v1_names_the_client)
{
	static const char v4[] = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
	static const char v6[] = "PROXY TCP6 2001:db8::7 2001:db8::1 65535 0\r\n";
	static const char unknown[] = "PROXY UNKNOWN\r\n";
	static const char unknown_more[] = "PROXY UNKNOWN ff:: whatever 1 2\r\n";
	struct proxy_header h = check_whole(v4, sizeof(v4) - 1);

	check_is(&h, "192.0.2.7", 56324);
	h = check_whole(v6, sizeof(v6) - 1);
	check_is(&h, "2001:db8::7", 65535);
	h = check_whole(unknown, sizeof(unknown) - 1);
	CHECK(!h.has_address);
	h = check_whole(unknown_more, sizeof(unknown_more) - 1);
	CHECK(!h.has_address);
}

TEST(proxy_v1_takes_nothing_that_is_not_quite_it)
{
	static const char *const wrong[] = {
		"GET / HTTP/1.1\r\n",
		"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
		"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 9\r\n",
		"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
		"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
		"PROXY TCP4 192.0.2.7 198.51.100.1 056 443\r\n",
		"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n",
		"PROXY TCP4 192.0.2.7  198.51.100.1 56324 443\r\n",
		"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
		"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
		"PROXY TCP4 host 198.51.100.1 1 2\r\n",
		"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
		"PROXY \r\n",
		"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
		"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
	};
	struct proxy_header h;
	size_t used;

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		CHECK_EQ(parse(wrong[i], strlen(wrong[i]), &h, &used), PROXY_E_BROKEN);
}

TEST(proxy_v1_has_107_bytes_at_most)
{
	char line[200];
	struct proxy_header h;
	size_t used;

	memset(line, 'x', sizeof(line));
	memcpy(line, "PROXY UNKNOWN ", 14);
	CHECK_EQ(parse(line, PROXY_MAX_V1 - 1, &h, &used), PROXY_MORE);
	CHECK_EQ(parse(line, PROXY_MAX_V1, &h, &used), PROXY_E_BROKEN);
	memcpy(line + PROXY_MAX_V1 - 2, "\r\n", 2);
	CHECK_EQ(parse(line, sizeof(line), &h, &used), 0);
	CHECK_EQ(used, PROXY_MAX_V1);
}

static size_t make_v2(uint8_t *out, uint8_t command, uint8_t family, size_t n, const void *body)
{
	memcpy(out, V2_SIGNATURE, 12);
	out[12] = command;
	out[13] = family;
	out[14] = (uint8_t)(n >> 8);
	out[15] = (uint8_t)n;
	memcpy(out + 16, body, n);
	return 16 + n;
}

TEST(proxy_v2_names_the_client)
{
	static const uint8_t v4[12] = {192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 1, 0xbb};
	uint8_t v6[36 + 50] = {0x20, 0x01, 0x0d, 0xb8, [15] = 7, [32] = 0x12, 0x34};
	uint8_t head[PROXY_MAX];
	struct proxy_header h = check_whole(head, make_v2(head, 0x21, 0x11, sizeof(v4), v4));

	check_is(&h, "192.0.2.7", 0xdc04);
	h = check_whole(head, make_v2(head, 0x21, 0x21, 36, v6));
	check_is(&h, "2001:db8::7", 0x1234);
	h = check_whole(head, make_v2(head, 0x21, 0x21, sizeof(v6), v6)); /* and more behind */
	check_is(&h, "2001:db8::7", 0x1234);
	h = check_whole(head, make_v2(head, 0x20, 0, 0, ""));
	CHECK(!h.has_address);
	h = check_whole(head, make_v2(head, 0x20, 0x11, sizeof(v4), v4)); /* LOCAL: its own */
	CHECK(!h.has_address);
	h = check_whole(head, make_v2(head, 0x21, 0x31, sizeof(v6), v6)); /* a unix socket */
	CHECK(!h.has_address);
}

TEST(proxy_v2_takes_nothing_that_is_not_quite_it)
{
	uint8_t head[PROXY_MAX + 100], body[PROXY_MAX] = {0};
	struct proxy_header h;
	size_t used, n;

	n = make_v2(head, 0x21, 0x11, 11, body);
	CHECK_EQ(parse(head, n, &h, &used), PROXY_E_BROKEN);
	n = make_v2(head, 0x21, 0x21, 35, body);
	CHECK_EQ(parse(head, n, &h, &used), PROXY_E_BROKEN);
	n = make_v2(head, 0x11, 0x11, 12, body);
	CHECK_EQ(parse(head, n, &h, &used), PROXY_E_BROKEN);
	n = make_v2(head, 0x22, 0x11, 12, body);
	CHECK_EQ(parse(head, n, &h, &used), PROXY_E_BROKEN);
	n = make_v2(head, 0x21, 0x11, PROXY_MAX - 16, body);
	CHECK_EQ(parse(head, n, &h, &used), 0);
	CHECK_EQ(used, PROXY_MAX);
	head[15]++;
	CHECK_EQ(parse(head, 16, &h, &used), PROXY_E_BROKEN);
	for (size_t i = 0; i < 12; i++) {
		n = make_v2(head, 0x21, 0x11, 12, body);
		head[i] ^= 1;
		CHECK_EQ(parse(head, n, &h, &used), PROXY_E_BROKEN);
	}
}

/* ---------------------------------------------------------------- X-Forwarded-For */

static bool is_trusted(const uint8_t ip[IP_BYTES], const void *ctx)
{
	return ip_prefix_has(ctx, ip);
}

/* The client by these headers, where 10.0.0.0/8 are proxies; NULL: there is none. */
static void check_client(const char *first, const char *second, const char *client)
{
	struct http_headers headers = {.count = second ? 2 : 1};
	struct ip_prefix proxies;
	uint8_t got[IP_BYTES], want[IP_BYTES];

	CHECK_EQ(ip_prefix_parse("10.0.0.0/8", 10, &proxies), 0);
	headers.at[0] = (struct http_header){{"X-Forwarded-For", 15}, {first, strlen(first)}};
	if (second)
		headers.at[1] =
			(struct http_header){{"x-forwarded-for", 15}, {second, strlen(second)}};
	CHECK_EQ(proxy_forwarded_for(&headers, is_trusted, &proxies, got), client != NULL);
	if (!client)
		return;
	CHECK_EQ(ip_parse(client, strlen(client), want), 0);
	CHECK_MEM(got, want, IP_BYTES);
}

TEST(proxy_forwarded_for_is_read_from_behind)
{
	check_client("192.0.2.1", NULL, "192.0.2.1");
	check_client("203.0.113.9, 192.0.2.1", NULL, "192.0.2.1");
	check_client("203.0.113.9, 192.0.2.1, 10.1.1.1, 10.2.2.2", NULL, "192.0.2.1");
	check_client("203.0.113.9, 10.1.1.1, 192.0.2.1, 10.2.2.2", NULL, "192.0.2.1");
	check_client("10.1.1.1, 10.2.2.2", NULL, "10.1.1.1");
	check_client("203.0.113.9", "192.0.2.1, 10.1.1.1", "192.0.2.1");
	check_client("2001:db8::7, 10.1.1.1", NULL, "2001:db8::7");
}

TEST(proxy_forwarded_for_may_have_ports)
{
	check_client("192.0.2.1:5000", NULL, "192.0.2.1");
	check_client("[2001:db8::7]:5000, 10.1.1.1:80", NULL, "2001:db8::7");
	check_client("[2001:db8::7]", NULL, "2001:db8::7");
	check_client("192.0.2.1:0", NULL, "192.0.2.1");
	check_client("192.0.2.1:65535", NULL, "192.0.2.1");
	check_client("[::ffff:192.0.2.1]:5000", NULL, "192.0.2.1");
}

TEST(proxy_forwarded_for_takes_nothing_that_is_not_quite_an_address)
{
	static const char *const wrong[] = {
		"192.0.2.1:",
		"192.0.2.1:x",
		"192.0.2.1:80x",
		"192.0.2.1:65536",
		"192.0.2.1:8000000",
		"192.0.2.1:-1",
		"192.0.2.1:80:80",
		"192.0.2.1 :80",
		":80",
		"[192.0.2.1]",
		"[192.0.2.1]:80",
		"[2001:db8::7",
		"[2001:db8::7]x",
		"[2001:db8::7]:",
		"[2001:db8::7]:x",
		"[2001:db8::7]:80 x",
		"[2001:db8::7]]",
		"[2001:db8::7]:80]",
		"[2001:db8::7] :80",
		"[ 2001:db8::7]",
		"[2001:db8::7%eth0]",
		"x[2001:db8::7]",
		"[[2001:db8::7]]",
		"[]",
		"[",
		"]",
		"2001:db8::7:80000",
		"192.0.2.1;80",
		"192.0.2.1\t80",
		"\"192.0.2.1\"",
		"for=192.0.2.1",
		"192.0.2",
	};
	char line[100];

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		snprintf(line, sizeof(line), "203.0.113.9, %s, 10.1.1.1", wrong[i]);
		check_client(line, NULL, "10.1.1.1");
	}
}

/* Whatever a client writes, what its proxy adds behind a comma is read. */
TEST(proxy_forwarded_for_has_no_quotes)
{
	static const char *const said[] = {
		"\"",
		"\"\\",
		"\"203.0.113.9",
		"203.0.113.9\"",
		"203.0.113.9:\"",
		"[203.0.113.9]\"",
		"[2001:db8::9]\"",
		"[2001:db8::9]:\"",
		"[",
		"(",
		"<",
		"\\",
		"'",
		"\"\", \"",
		"a=\"b",
		"203.0.113.9 \"x",
	};
	char line[100];

	for (size_t i = 0; i < ARRAY_LEN(said); i++) {
		snprintf(line, sizeof(line), "%s, 192.0.2.1", said[i]);
		check_client(line, NULL, "192.0.2.1");
		check_client(said[i], "192.0.2.1, 10.1.1.1", "192.0.2.1");
		snprintf(line, sizeof(line), "%s, 10.1.1.1", said[i]);
		check_client(line, NULL, "10.1.1.1"); /* not what was said before it */
	}
	check_client("\"203.0.113.9, 192.0.2.1\"", NULL, NULL);
	check_client("\"203.0.113.9, 192.0.2.1, 10.1.1.1\"", NULL, NULL);
}

TEST(proxy_forwarded_for_passes_over_what_is_empty)
{
	check_client(",", NULL, NULL);
	check_client(" , ,", " ", NULL);
	check_client("192.0.2.1, , 10.1.1.1,", "", "192.0.2.1");
	check_client(", 192.0.2.1", ",\t,10.1.1.1 ,", "192.0.2.1");
}

TEST(proxy_forwarded_for_ends_at_what_is_no_address)
{
	check_client("unknown", NULL, NULL);
	check_client("", NULL, NULL);
	check_client("192.0.2.1, unknown", NULL, NULL);
	check_client("192.0.2.1, _hidden, 10.1.1.1", NULL, "10.1.1.1");
	check_client("192.0.2.1, _hidden, 10.1.1.1, 203.0.113.9, 10.2.2.2", NULL, "203.0.113.9");
	check_client("192.0.2.1, [10.1.1.1", NULL, NULL);
}
