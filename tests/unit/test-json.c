/* SPDX-License-Identifier: MIT */
#include "tools/json.h"

#include <string.h>

#include "test.h"

static void check_json_text(const char *json, const char *expected)
{
	struct json j = json_open(json, strlen(json));
	char out[16];

	json_text(&j, out, sizeof(out));
	CHECK_STR(out, expected);
}

TEST(json_strings_are_decoded_and_bounded)
{
	check_json_text("\"abc\"", "abc");
	check_json_text(" \"\\\"\\\\\\/\\n\\t\"", "\"\\/\n\t");
	check_json_text("\"\\u00e9\\ud83d\\ude00\"", "\xc3\xa9\xf0\x9f\x98\x80");
	check_json_text("\"\\ud83dx\\ude00\\u0000\"", "\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd");
	check_json_text("\"0123456789abcd\xc3\xa9\"", "0123456789abcd");
	check_json_text("\"0123456789abcde\"", "0123456789abcde");
	check_json_text("12.5", "12.5");
	check_json_text("null", "null");
	check_json_text("{\"a\":1}", "");
	check_json_text("\"open", "");
	check_json_text("\"\\u12\"", "");
	check_json_text("\"\\x\"", "");
	check_json_text("\"\\", "");
	check_json_text("", "");
}

TEST(json_numbers)
{
	static const struct {
		const char *text;
		uint64_t n;
	} cases[] = {{"7", 7},
		     {" 18446744073709551615 ", UINT64_MAX},
		     {"7.9", 7},
		     {"-7", 0},
		     {"null", 0},
		     {"\"x\"", 0},
		     {"99999999999999999999", 0},
		     {"", 0}};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json j = json_open(cases[i].text, strlen(cases[i].text));

		CHECK_EQ(json_number(&j), cases[i].n);
	}
}

TEST(json_depth_is_bounded)
{
	char deep[2 * (JSON_MAX_DEPTH + 1)];

	for (size_t depth = JSON_MAX_DEPTH; depth <= JSON_MAX_DEPTH + 1; depth++) {
		struct json j = json_open(deep, 2 * depth);

		memset(deep, '[', depth);
		memset(deep + depth, ']', depth);
		json_skip(&j);
		CHECK_EQ(j.is_broken, depth > JSON_MAX_DEPTH);
		CHECK(j.p == deep + 2 * depth);
	}
}
