/* SPDX-License-Identifier: MIT */
#include "base/ip.h"

#include <errno.h>

#include "test.h"

static int parse(const char *text, uint8_t ip[IP_BYTES])
{
	return ip_parse(text, strlen(text), ip);
}

TEST(ip_addresses_of_both_kinds_have_one_form)
{
	static const uint8_t v4[IP_BYTES] = {[10] = 0xff, 0xff, 192, 0, 2, 1};
	static const uint8_t v6[IP_BYTES] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};
	uint8_t ip[IP_BYTES];

	CHECK_EQ(parse("192.0.2.1", ip), 0);
	CHECK_MEM(ip, v4, IP_BYTES);
	CHECK_EQ(parse("::ffff:192.0.2.1", ip), 0);
	CHECK_MEM(ip, v4, IP_BYTES);
	CHECK_EQ(parse("2001:db8::1", ip), 0);
	CHECK_MEM(ip, v6, IP_BYTES);
}

TEST(ip_what_is_no_address_changes_nothing)
{
	static const char *const wrong[] = {"",
					    "192.0.2",
					    "192.0.2.256",
					    "192.0.2.01 ",
					    " 192.0.2.1",
					    "host",
					    "2001:db8::1::2",
					    "[::1]",
					    "192.0.2.1:80",
					    "::1%lo",
					    "1111:2222:3333:4444:5555:6666:7777:8888:9999:0000"};
	uint8_t ip[IP_BYTES], before[IP_BYTES];

	memset(ip, 0x5a, sizeof(ip));
	memset(before, 0x5a, sizeof(before));
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		CHECK_EQ(parse(wrong[i], ip), -EINVAL);
		CHECK_MEM(ip, before, IP_BYTES);
	}
	CHECK_EQ(ip_parse("1.2.3.4\0", 8, ip), -EINVAL);
}

TEST(ip_prefixes_hold_what_is_in_them)
{
	static const struct {
		const char *prefix, *inside, *outside;
	} row[] = {
		{"10.0.0.0/8", "10.255.255.255", "11.0.0.0"},
		{"10.1.2.3/8", "10.0.0.0", "9.255.255.255"},
		{"192.0.2.128/25", "192.0.2.200", "192.0.2.127"},
		{"192.0.2.1", "192.0.2.1", "192.0.2.0"},
		{"192.0.2.1/32", "::ffff:192.0.2.1", "192.0.2.3"},
		{"0.0.0.0/0", "203.0.113.9", "2001:db8::1"},
		{"2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"},
		{"2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"},
		{"::/0", "192.0.2.1", NULL},
		{"::1", "::1", "::"},
		{"::ffff:10.0.0.0/104", "10.1.1.1", "11.0.0.1"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct ip_prefix p;
		uint8_t ip[IP_BYTES];

		CHECK_EQ(ip_prefix_parse(row[i].prefix, strlen(row[i].prefix), &p), 0);
		CHECK_EQ(parse(row[i].inside, ip), 0);
		CHECK(ip_prefix_has(&p, ip));
		if (!row[i].outside)
			continue;
		CHECK_EQ(parse(row[i].outside, ip), 0);
		CHECK(!ip_prefix_has(&p, ip));
	}
}

TEST(ip_every_length_of_a_prefix_counts_its_bits)
{
	uint64_t seed = test_seed();

	for (unsigned bits = 0; bits <= 128; bits++) {
		struct ip_prefix p = {.bits = (uint8_t)bits};
		uint8_t ip[IP_BYTES];

		for (size_t i = 0; i < IP_BYTES; i++)
			p.ip[i] = (uint8_t)test_random(&seed);
		for (unsigned flipped = 0; flipped < 128; flipped++) {
			memcpy(ip, p.ip, IP_BYTES);
			ip[flipped / 8] ^= (uint8_t)(0x80 >> flipped % 8);
			CHECK_EQ(ip_prefix_has(&p, ip), flipped >= bits);
		}
	}
}

TEST(ip_what_is_no_prefix_is_refused)
{
	static const char *const wrong[] = {"10.0.0.0/33", "10.0.0.0/",   "10.0.0.0/-1",
					    "10.0.0.0/08", "10.0.0.0/8 ", "/8",
					    "::/129",      "::/1000",     "10.0.0.0/8/8"};
	struct ip_prefix p;

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		CHECK_EQ(ip_prefix_parse(wrong[i], strlen(wrong[i]), &p), -EINVAL);
}

TEST(ip_of_this_host_alone)
{
	static const struct {
		const char *text;
		bool is_one;
	} row[] = {{"127.0.0.1", true},    {"127.255.0.9", true}, {"::1", true},
		   {"128.0.0.1", false},   {"0.0.0.0", false},    {"::", false},
		   {"192.168.1.1", false}, {"fe80::1", false},    {"::ffff:127.0.0.1", true}};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		uint8_t ip[IP_BYTES];

		CHECK_EQ(ip_parse(row[i].text, strlen(row[i].text), ip), 0);
		CHECK_EQ(ip_is_loopback(ip), row[i].is_one);
	}
}
