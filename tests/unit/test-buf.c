/* SPDX-License-Identifier: MIT */
#include "containers/buf.h"

#include <errno.h>
#include <stdio.h>

#include "test.h"

TEST(buf_all_zero_is_valid_and_empty)
{
	struct buf b = {0};

	buf_check(&b);
	buf_consume(&b, 0);
	CHECK_EQ(buf_append(&b, NULL, 0, 0), 0);
	CHECK_EQ(b.len, 0);
	CHECK_EQ(buf_cap(&b), 0);
	buf_fini(&b);
	buf_fini(NULL);
}

TEST(buf_append_and_consume_keep_the_order)
{
	struct buf b = {0};

	CHECK_EQ(buf_append(&b, "hello ", 6, 100), 0);
	CHECK_EQ(buf_append(&b, "world", 5, 100), 0);
	CHECK_EQ(b.len, 11);
	CHECK_MEM(b.data, "hello world", 11);
	buf_consume(&b, 6);
	CHECK_EQ(b.len, 5);
	CHECK_MEM(b.data, "world", 5);
	buf_consume(&b, 5);
	CHECK_EQ(b.len, 0);
	CHECK(buf_cap(&b) > 0);
	buf_fini(&b);
	CHECK_EQ(buf_cap(&b), 0);
	CHECK(b.data == NULL);
}

TEST(buf_never_grows_past_the_limit)
{
	struct buf b = {0};
	uint8_t bytes[1000] = {0};

	CHECK_EQ(buf_append(&b, bytes, 1000, 999), -EMSGSIZE);
	CHECK_EQ(buf_cap(&b), 0);
	CHECK_EQ(buf_append(&b, bytes, 600, 1000), 0);
	CHECK_EQ(buf_append(&b, bytes, 401, 1000), -EMSGSIZE);
	CHECK_EQ(b.len, 600);
	CHECK_EQ(buf_append(&b, bytes, 400, 1000), 0);
	CHECK_EQ(b.len, 1000);
	CHECK(buf_cap(&b) <= 1000);
	CHECK_EQ(buf_append(&b, bytes, 1, 1000), -EMSGSIZE);
	CHECK_EQ(buf_append(&b, bytes, 0, 500), -EMSGSIZE);
	CHECK_EQ(buf_reserve(&b, SIZE_MAX, BUF_NO_LIMIT), -EMSGSIZE);
	CHECK_EQ(b.len, 1000);
	buf_fini(&b);
}

TEST(buf_grows_by_doubling)
{
	struct buf b = {0};
	int moves = 0;

	for (int i = 0; i < 100000; i++) {
		size_t cap = buf_cap(&b);

		CHECK_EQ(buf_append(&b, "x", 1, BUF_NO_LIMIT), 0);
		moves += buf_cap(&b) != cap;
	}
	CHECK(moves <= 10);
	buf_fini(&b);
}

TEST(buf_reserve_leaves_room_that_may_be_written)
{
	struct buf b = {0};

	CHECK_EQ(buf_append(&b, "abc", 3, 10000), 0);
	CHECK_EQ(buf_reserve(&b, 5000, 10000), 0);
	CHECK_EQ(b.len, 3);
	CHECK(buf_cap(&b) - b.len >= 5000);
	memset(b.data + b.len, 'z', 5000);
	b.len += 5000;
	CHECK_MEM(b.data, "abczz", 5);
	buf_clear(&b);
	CHECK_EQ(b.len, 0);
	CHECK(buf_cap(&b) >= 5003);
	buf_fini(&b);
}

TEST(buf_reports_lack_of_memory_and_stays_as_it_was)
{
	struct buf b = {0};

	CHECK_EQ(buf_append(&b, "abc", 3, BUF_NO_LIMIT), 0);
	CHECK_EQ(buf_reserve(&b, SIZE_MAX / 4, BUF_NO_LIMIT), -ENOMEM);
	CHECK_EQ(b.len, 3);
	CHECK_MEM(b.data, "abc", 3);
	buf_check(&b);
	buf_fini(&b);
}

TEST(buf_printf_appends_text_of_any_length)
{
	struct buf b = {0};
	char expected[3000];
	int n = 0;

	CHECK_EQ(buf_printf(&b, "%s", ""), 0);
	CHECK_EQ(b.len, 0);
	for (int i = 0; i < 500; i++) {
		CHECK_EQ(buf_printf(&b, "%d,", i), 0);
		n += sprintf(expected + n, "%d,", i);
		CHECK_EQ(b.len, n);
		CHECK_MEM(b.data, expected, (size_t)n + 1);
		buf_check(&b);
	}
	CHECK_EQ(buf_printf(&b, "%2000s", "end"), 0);
	CHECK_EQ(b.len, n + 2000);
	CHECK_STR((char *)b.data + b.len - 3, "end");
	buf_fini(&b);
}

/* A reference that is moved byte by byte. */
TEST(buf_is_a_queue_whatever_the_sizes)
{
	static uint8_t bytes[1 << 16];
	uint64_t random = test_seed();
	size_t head = 0, tail = 0;
	struct buf b = {0};

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)test_random(&random);
	for (;;) {
		size_t in = test_random(&random) % 700;
		size_t out;

		if (tail + in > sizeof(bytes))
			break;
		if (buf_append(&b, bytes + tail, in, 5000) == 0)
			tail += in;
		else
			CHECK(tail - head + in > 5000);
		out = test_random(&random) % (b.len + 1);
		buf_consume(&b, out);
		head += out;
		buf_check(&b);
		CHECK_EQ(b.len, tail - head);
		CHECK(b.len == 0 || memcmp(b.data, bytes + head, b.len) == 0);
	}
	buf_fini(&b);
}
