/* SPDX-License-Identifier: MIT */
/*
 * PROXY protocol headers, X-Forwarded-For, and addresses. However a header is cut when it
 * arrives, its verdict is that of the whole; one that was taken is as long as it says, and what
 * follows it changes nothing. What a proxy adds to X-Forwarded-For is found behind anything.
 */
#include "fuzz.h"

#include "wire/proxy.h"

static int parse(const uint8_t *p, size_t n, struct proxy_header *h, size_t *used)
{
	char *copy = fuzz_copy(p, n);
	int r = proxy_parse((const uint8_t *)copy, n, h, used);

	free(copy);
	WB_ASSERT(r == 0 || r == PROXY_MORE || r == PROXY_E_BROKEN);
	WB_ASSERT(r != 0 || (*used > 0 && *used <= n && *used <= PROXY_MAX));
	WB_ASSERT(r != PROXY_MORE || n < PROXY_MAX);
	return r;
}

static void check_header(const uint8_t *p, size_t n)
{
	struct proxy_header whole = {0}, part = {0};
	size_t used = 0, part_used = 0;
	int r = parse(p, n, &whole, &used);

	for (size_t i = 0; i < n && i < PROXY_MAX; i++) {
		int s = parse(p, i, &part, &part_used);

		if (s == PROXY_MORE)
			continue;
		WB_ASSERT(s == r && (s != 0 || part_used == used));
		WB_ASSERT(s != 0 || memcmp(part.ip, whole.ip, IP_BYTES) == 0);
	}
}

static bool is_trusted(const uint8_t ip[IP_BYTES], const void *ctx)
{
	(void)ctx;
	return ip[IP_BYTES - 1] & 1;
}

static void check_forwarded(const uint8_t *p, size_t n)
{
	char *copy = fuzz_copy(p, n);
	const struct http_headers headers = {
		.count = 2,
		.at = {{{"X-Forwarded-For", 15}, {copy, n / 2}},
		       {{"X-Forwarded-For", 15}, {copy + n / 2, n - n / 2}}}};
	uint8_t ip[IP_BYTES];

	(void)proxy_forwarded_for(&headers, is_trusted, NULL, ip);
	free(copy);
}

static void check_added(const uint8_t *p, size_t n)
{
	static const char added[] = ", 192.0.2.2";
	char *copy = malloc(n + sizeof(added));
	const struct http_headers headers = {
		.count = 1, .at = {{{"X-Forwarded-For", 15}, {copy, n + sizeof(added) - 1}}}};
	uint8_t ip[IP_BYTES], want[IP_BYTES];

	WB_ASSERT(copy);
	memcpy(copy, p, n);
	memcpy(copy + n, added, sizeof(added));
	WB_ASSERT(ip_parse(added + 2, sizeof(added) - 3, want) == 0);
	WB_ASSERT(proxy_forwarded_for(&headers, is_trusted, NULL, ip));
	WB_ASSERT(memcmp(ip, want, IP_BYTES) == 0);
	free(copy);
}

static void check_prefix(const uint8_t *p, size_t n)
{
	char *copy = fuzz_copy(p, n);
	struct ip_prefix prefix;

	if (ip_prefix_parse(copy, n, &prefix) == 0)
		WB_ASSERT(prefix.bits <= 128 && ip_prefix_has(&prefix, prefix.ip));
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_header(data, size);
	check_forwarded(data, size);
	check_added(data, size);
	check_prefix(data, size);
	return 0;
}
