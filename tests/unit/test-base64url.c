/* SPDX-License-Identifier: MIT */
#include "wire/base64url.h"

#include "containers/buf.h"
#include "test.h"

/* RFC 4648 section 10, without padding, and the two digits that are another alphabet's. */
TEST(base64url_of_the_rfc)
{
	static const char *const row[][2] = {
		{"", ""},
		{"f", "Zg"},
		{"fo", "Zm8"},
		{"foo", "Zm9v"},
		{"foob", "Zm9vYg"},
		{"fooba", "Zm9vYmE"},
		{"foobar", "Zm9vYmFy"},
		{"\xfb\xff", "-_8"},
		{"\xff\xfe\xfd", "__79"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct buf b = {0};
		uint8_t out[8];
		size_t n;

		CHECK_EQ(base64url_append(&b, row[i][0], strlen(row[i][0])), 0);
		CHECK_EQ(b.len, strlen(row[i][1]));
		CHECK(b.len == 0 || memcmp(b.data, row[i][1], b.len) == 0);
		CHECK(base64url_decode(row[i][1], strlen(row[i][1]), out, sizeof(out), &n));
		CHECK_EQ(n, strlen(row[i][0]));
		CHECK_MEM(out, row[i][0], n);
		buf_fini(&b);
	}
}

TEST(base64url_has_one_text_for_each_run_of_bytes)
{
	static const char *const wrong[] = {"Z",    "Zh",   "Zm9",    "Zg==",  "Zm8=", "Zm9v Zg",
					    "Zm+v", "Zm/v", "Zm9v\n", "Zm9vZ", ".",    "Zm9\x80"};
	uint8_t out[8];
	size_t n;

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		CHECK(!base64url_decode(wrong[i], strlen(wrong[i]), out, sizeof(out), &n));
}

TEST(base64url_of_random_bytes_and_room)
{
	uint64_t seed = test_seed();

	for (size_t len = 0; len < 200; len++) {
		uint8_t in[200], out[200];
		struct buf b = {0};
		size_t n;

		for (size_t i = 0; i < len; i++)
			in[i] = (uint8_t)(test_random(&seed) >> 32);
		CHECK_EQ(base64url_append(&b, in, len), 0);
		CHECK(base64url_decode((const char *)b.data, b.len, out, len, &n));
		CHECK_EQ(n, len);
		CHECK_MEM(out, in, len);
		CHECK(len == 0 || !base64url_decode((const char *)b.data, b.len, out, len - 1, &n));
		buf_fini(&b);
	}
}
