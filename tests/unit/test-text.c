/* SPDX-License-Identifier: MIT */
#include "base/text.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"

#include "test.h"

/* Unicode's table 3-7 written down row by row: bytes of the character at @p, or 0. */
static size_t reference_character(const uint8_t *p, size_t n)
{
	static const struct {
		uint8_t lead[2], second[2], len;
	} rows[] = {
		{{0x00, 0x7f}, {0, 0}, 1},       {{0xc2, 0xdf}, {0x80, 0xbf}, 2},
		{{0xe0, 0xe0}, {0xa0, 0xbf}, 3}, {{0xe1, 0xec}, {0x80, 0xbf}, 3},
		{{0xed, 0xed}, {0x80, 0x9f}, 3}, {{0xee, 0xef}, {0x80, 0xbf}, 3},
		{{0xf0, 0xf0}, {0x90, 0xbf}, 4}, {{0xf1, 0xf3}, {0x80, 0xbf}, 4},
		{{0xf4, 0xf4}, {0x80, 0x8f}, 4},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (p[0] < rows[i].lead[0] || p[0] > rows[i].lead[1])
			continue;
		if (rows[i].len > n)
			return 0;
		if (rows[i].len > 1 && (p[1] < rows[i].second[0] || p[1] > rows[i].second[1]))
			return 0;
		for (size_t k = 2; k < rows[i].len; k++)
			if (p[k] < 0x80 || p[k] > 0xbf)
				return 0;
		return rows[i].len;
	}
	return 0;
}

static bool reference_valid(const uint8_t *p, size_t n)
{
	while (n) {
		size_t len = reference_character(p, n);

		if (!len)
			return false;
		p += len;
		n -= len;
	}
	return true;
}

TEST(utf8_agrees_with_the_table_on_all_short_sequences)
{
	static const uint8_t later[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0xbf, 0xc0, 0xff};
	uint8_t p[4];

	for (unsigned lead = 0; lead < 256; lead++)
		for (unsigned second = 0; second < 256; second++)
			for (unsigned i = 0; i < 64; i++) {
				p[0] = (uint8_t)lead;
				p[1] = (uint8_t)second;
				p[2] = later[i / 8];
				p[3] = later[i % 8];
				for (size_t n = i ? 3 : 0; n <= 4; n++)
					CHECK_EQ(utf8_valid(p, n), reference_valid(p, n));
			}
}

/* Texts of mixed characters with one byte changed, cut in two anywhere. */
TEST(utf8_agrees_with_the_table_on_long_texts_in_pieces)
{
	static const char *const bits[] = {"a", "0123456789abcdef0123456789abcdef", "\xc3\xa4",
					   "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
	uint64_t random = test_seed();

	for (int round = 0; round < 3000; round++) {
		uint8_t text[600];
		size_t n = 0, cut;
		uint32_t state;

		for (int i = 0; i < 15; i++) {
			const char *bit = bits[test_random(&random) % ARRAY_LEN(bits)];

			memcpy(text + n, bit, strlen(bit));
			n += strlen(bit);
		}
		if (round % 3)
			text[test_random(&random) % n] = (uint8_t)test_random(&random);
		cut = test_random(&random) % (n + 1);
		state = utf8_feed(utf8_feed(UTF8_ACCEPT, text, cut), text + cut, n - cut);
		CHECK_EQ(state == UTF8_ACCEPT, reference_valid(text, n));
		CHECK_EQ(utf8_valid(text, n), reference_valid(text, n));
	}
}

TEST(utf8_rejects_at_the_first_byte_that_cannot_continue_and_stays_so)
{
	static const struct {
		const char *bytes;
		size_t wrong; /* index of the first impossible byte */
	} cases[] = {
		{"\x80", 0},         {"\xc0\x80", 0},         {"\xf5\x80", 0},
		{"\xe0\x9f\xbf", 1}, {"\xed\xa0\x80", 1},     {"\xf0\x8f\x80", 1},
		{"\xf4\x90\x80", 1}, {"\xe2\x82\x41", 2},     {"\xf1\x80\x80\xc0", 3},
		{"abc\xff", 3},      {"\xce\xba\xe1\x41", 3},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint32_t state = UTF8_ACCEPT;

		state = utf8_feed(state, cases[i].bytes, cases[i].wrong);
		CHECK(state != UTF8_REJECT);
		state = utf8_feed(state, cases[i].bytes + cases[i].wrong, 1);
		CHECK_EQ(state, UTF8_REJECT);
		CHECK_EQ(utf8_feed(state, "a", 1), UTF8_REJECT);
		CHECK_EQ(utf8_feed(state, "", 0), UTF8_REJECT);
	}
	/* ASCII that comes while a character is open, long enough for the fast path. */
	CHECK_EQ(utf8_feed(utf8_feed(UTF8_ACCEPT, "\xc3", 1), "0123456789abcdef\xa4", 17),
		 UTF8_REJECT);
	CHECK(utf8_valid("", 0));
	CHECK(utf8_valid("a\0b", 3));
	CHECK(!utf8_valid("\xe2\x82", 2));
}

TEST(hex_goes_both_ways)
{
	uint8_t bytes[256], back[256];
	char text[513];

	for (int i = 0; i < 256; i++)
		bytes[i] = (uint8_t)i;
	hex_encode(text, bytes, 256);
	CHECK_EQ(strlen(text), 512);
	CHECK_EQ(strncmp(text, "000102", 6), 0);
	CHECK_STR(text + 508, "feff");
	CHECK_EQ(hex_decode(back, text, 256), 0);
	CHECK_MEM(back, bytes, 256);
	CHECK_EQ(hex_decode(back, "AbfFx", 2), 0);
	CHECK_MEM(back, "\xab\xff", 2);
	CHECK_EQ(hex_decode(back, "0g", 1), -EINVAL);
	CHECK_EQ(hex_decode(back, "g0", 1), -EINVAL);
	CHECK_EQ(hex_decode(back, "0", 1), -EINVAL);
	CHECK_EQ(hex_decode(back, "", 0), 0);
	hex_encode(text, bytes, 0);
	CHECK_STR(text, "");
}

TEST(percent_decoding)
{
	static const struct {
		const char *in, *out;
		int r;
	} cases[] = {
		{"", "", 0},
		{"a+b", "a+b", 0},
		{"%41%2f%7E", "A/~", 0},
		{"%25%34%31", "%41", 0},
		{"%e2%82%AC", "\xe2\x82\xac", 0},
		{"%", NULL, -EINVAL},
		{"a%4", NULL, -EINVAL},
		{"%4g", NULL, -EINVAL},
		{"%%41", NULL, -EINVAL},
	};
	char out[20], same[] = "x%20y%00z";
	size_t n = 77;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		n = 77;
		CHECK_EQ(percent_decode(out, sizeof(out), cases[i].in, strlen(cases[i].in), &n),
			 cases[i].r);
		CHECK_EQ(n, cases[i].r ? 77 : strlen(cases[i].out));
		CHECK(cases[i].r || memcmp(out, cases[i].out, n) == 0);
	}
	CHECK_EQ(percent_decode(out, 2, "%41bc", 5, &n), -ENOBUFS);
	CHECK_EQ(percent_decode(out, 3, "%41bc", 5, &n), 0);
	CHECK_EQ(percent_decode(out, 9, "%41", 2, &n), -EINVAL); /* never past the end */
	CHECK_EQ(percent_decode(same, sizeof(same), same, strlen(same), &n), 0);
	CHECK_EQ(n, 5);
	CHECK_MEM(same, "x y\0z", 5);
}

struct value_case {
	const char *text;
	int r;
	uint64_t value;
};

static void check_values(int (*parse)(const char *, uint64_t *), const struct value_case *cases,
			 size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t value = 4711;

		CHECK_EQ(parse(cases[i].text, &value), cases[i].r);
		CHECK_EQ(value, cases[i].r ? 4711 : cases[i].value);
	}
}

TEST(text_sizes)
{
	static const struct value_case cases[] = {
		{"0", 0, 0},
		{"1500", 0, 1500},
		{"64K", 0, 65536},
		{"16M", 0, 16 << 20},
		{"2g", 0, 2ULL << 30},
		{"3T", 0, 3ULL << 40},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"99999999999999999999999", -ERANGE, 0},
		{"16777216T", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"K", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"1KB", -EINVAL, 0},
		{"1.5M", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
	};

	check_values(text_parse_size, cases, ARRAY_LEN(cases));
}

TEST(text_durations)
{
	static const struct value_case cases[] = {
		{"0", 0, 0},
		{"30", 0, 30 * NS_PER_S},
		{"30s", 0, 30 * NS_PER_S},
		{"0.5s", 0, NS_PER_S / 2},
		{"0.5", 0, NS_PER_S / 2},
		{"1500ms", 0, 1500 * NS_PER_MS},
		{"20us", 0, 20000},
		{"7ns", 0, 7},
		{"2m", 0, 120 * NS_PER_S},
		{"1.5H", 0, 5400 * NS_PER_S},
		{"1d", 0, 86400 * NS_PER_S},
		{"0.0000000019", 0, 1},
		{"1.00000000000000000000000000000001s", 0, NS_PER_S},
		{"18446744073709551615ns", 0, UINT64_MAX},
		{"18446744073.709551615", 0, UINT64_MAX},
		{"18446744073.709551616", -ERANGE, 0},
		{"18446744074", -ERANGE, 0},
		{"99999999999999999999s", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"s", -EINVAL, 0},
		{".5s", -EINVAL, 0},
		{"5.s", -EINVAL, 0},
		{"1.5.5s", -EINVAL, 0},
		{"-1s", -EINVAL, 0},
		{"1 s", -EINVAL, 0},
		{"1w", -EINVAL, 0},
	};

	check_values(text_parse_duration, cases, ARRAY_LEN(cases));
}

TEST(text_counts)
{
	static const struct value_case cases[] = {
		{"0", 0, 0},
		{"10000", 0, 10000},
		{"007", 0, 7},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"1K", -EINVAL, 0},
		{"1.0", -EINVAL, 0},
		{"-1", -EINVAL, 0},
	};

	check_values(text_parse_count, cases, ARRAY_LEN(cases));
}

TEST(text_bools)
{
	static const char *const yes[] = {"yes", "true", "on", "1", "Yes", "TRUE"};
	static const char *const no[] = {"no", "false", "off", "0", "No", "OFF"};
	static const char *const bad[] = {"", "2", "y", "yes ", " no", "01"};
	bool value = false;

	for (size_t i = 0; i < 6; i++) {
		value = false;
		CHECK_EQ(text_parse_bool(yes[i], &value), 0);
		CHECK(value);
		CHECK_EQ(text_parse_bool(bad[i], &value), -EINVAL);
		CHECK(value);
		CHECK_EQ(text_parse_bool(no[i], &value), 0);
		CHECK(!value);
	}
}

TEST(text_reals)
{
	static const struct {
		const char *text;
		double value;
	} good[] = {{"0", 0},        {"0.3", 0.3},
		    {"10.1", 10.1},  {"7", 7},
		    {"0.250", 0.25}, {"1000.1234567890123456789", 1000.1234567890123456789}};
	static const char *const bad[] = {"",    ".",   "1.",  ".5",  "-1", "+1",
					  "1e3", "nan", "inf", "1,5", "1 "};
	double value;

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		CHECK_EQ(text_parse_real(good[i].text, &value), 0);
		CHECK(value == good[i].value);
	}
	value = 3;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		CHECK_EQ(text_parse_real(bad[i], &value), -EINVAL);
	CHECK_EQ(text_parse_real("99999999999999999999", &value), -ERANGE);
	CHECK(value == 3);
}

TEST(text_formats_values_so_that_they_read_back)
{
	uint64_t random = test_seed(), back;
	char out[24];

	CHECK_STR(text_format_size(out, sizeof(out), 0), "0");
	CHECK_STR(text_format_size(out, sizeof(out), 1500), "1500");
	CHECK_STR(text_format_size(out, sizeof(out), 1536), "1536");
	CHECK_STR(text_format_size(out, sizeof(out), 16 << 20), "16M");
	CHECK_STR(text_format_duration(out, sizeof(out), 0), "0s");
	CHECK_STR(text_format_duration(out, sizeof(out), 120 * NS_PER_S), "2m");
	CHECK_STR(text_format_duration(out, sizeof(out), 30 * NS_PER_S), "30s");
	CHECK_STR(text_format_duration(out, sizeof(out), 1500 * NS_PER_MS), "1500ms");
	CHECK_STR(text_format_duration(out, sizeof(out), 48 * 3600 * NS_PER_S), "48h");
	CHECK_STR(text_format_duration(out, sizeof(out), UINT64_MAX), "18446744073709551615ns");
	CHECK_STR(text_format_duration(out, 4, 1500 * NS_PER_MS), "150");
	for (int i = 0; i < 2000; i++) {
		uint64_t value = test_random(&random) >> (i % 64) << (i % 50);

		if (i % 2)
			value -= value % NS_PER_MS;
		CHECK_EQ(text_parse_size(text_format_size(out, sizeof(out), value), &back), 0);
		CHECK_EQ(back, value);
		CHECK_EQ(text_parse_duration(text_format_duration(out, sizeof(out), value), &back),
			 0);
		CHECK_EQ(back, value);
	}
}

TEST(text_escape_shows_what_is_printable_and_nothing_else)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"", ""},
		{"plain ~", "plain ~"},
		{"a\nb\x1b[0m\x7f", "a\\x0ab\\x1b[0m\\x7f"},
		{"back\\slash", "back\\x5cslash"},
		{"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
		{"\xc2\x85\xc2\xa0", "\\xc2\\x85\xc2\xa0"},
		{"\xe2\x80\xa8\xe2\x80\xae\xe2\x81\xa6\xe2\x80\xaf",
		 "\\xe2\\x80\\xa8\\xe2\\x80\\xae\\xe2\\x81\\xa6\xe2\x80\xaf"},
		{"\xff\xe2\x82", "\\xff\\xe2\\x82"},
		{"\xe2\x82z", "\\xe2\\x82z"},
	};
	char out[100];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		CHECK_EQ(text_escape(out, sizeof(out), cases[i].in, strlen(cases[i].in)),
			 strlen(cases[i].out));
		CHECK_STR(out, cases[i].out);
	}
	CHECK_EQ(text_escape(out, sizeof(out), "a\0b", 3), 6);
	CHECK_STR(out, "a\\x00b");
}

TEST(text_escape_cuts_between_characters)
{
	static const struct {
		size_t cap;
		const char *in, *out;
	} cases[] = {
		{11, "0123456789", "0123456789"},
		{10, "0123456789", "012345..."},
		{8, "ab\n\n\n", "ab..."},
		{6, "\xe2\x82\xac\xe2\x82\xac", "..."},
		{7, "\xe2\x82\xac\xe2\x82\xac", "\xe2\x82\xac\xe2\x82\xac"},
		{4, "0123", "..."},
		{3, "0123", ".."},
		{2, "0123", "."},
		{1, "0123", ""},
	};
	char out[20];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		memset(out, '#', sizeof(out));
		CHECK_EQ(text_escape(out, cases[i].cap, cases[i].in, strlen(cases[i].in)),
			 strlen(cases[i].out));
		CHECK_STR(out, cases[i].out);
		CHECK_EQ(out[cases[i].cap], '#');
	}
	CHECK_EQ(text_escape(out, 0, "x", 1), 0);
}

TEST(text_json_is_always_valid)
{
	static const struct {
		size_t cap;
		const char *in, *out;
	} cases[] = {
		{100, "", ""},
		{100, "a/b", "a/b"},
		{100, "\"\\\b\f\n\r\t", "\\\"\\\\\\b\\f\\n\\r\\t"},
		{100, "\x01\x1f\x7f", "\\u0001\\u001f\x7f"},
		{100, "\xc3\xa4\xf0\x9f\x98\x80", "\xc3\xa4\xf0\x9f\x98\x80"},
		{100, "a\xff\xe2\x82z\xed\xa0\x80",
		 "a\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{4, "abcdef", "abc"},
		{4, "ab\n", "ab"},
		{5, "ab\n", "ab\\n"},
		{3, "\xe2\x82\xac", ""},
		{1, "abc", ""},
	};
	char out[101], every[TEXT_JSON_CAP(3)];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		memset(out, '#', sizeof(out));
		CHECK_EQ(text_json(out, cases[i].cap, cases[i].in, strlen(cases[i].in)),
			 strlen(cases[i].out));
		CHECK_STR(out, cases[i].out);
		CHECK_EQ(out[cases[i].cap], '#');
	}
	CHECK_EQ(text_json(every, sizeof(every), "\0\1\2", 3), 18);
	CHECK_STR(every, "\\u0000\\u0001\\u0002");
	CHECK_EQ(text_json(out, 0, "x", 1), 0);
}

TEST(uuid_text)
{
	static const uint8_t id[16] = {0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xfe, 0xf0,
				       0xff, 0x01, 2,    3,    4,    5,    6,    7};
	static const char *const bad[] = {
		"",
		"123456789abc4ef0bf01020304050607",
		"12345678-9abc-4ef0-bf01-02030405060",
		"12345678-9abc-4ef0-bf01-0203040506070",
		"12345678-9abc-4ef0-bf01-02030405060g",
		"12345678_9abc-4ef0-bf01-020304050607",
		"{12345678-9abc-4ef0-bf01-020304050607}",
	};
	uint8_t back[16] = {0}, kept[16];
	char text[37];

	uuid4_format(text, id);
	CHECK_STR(text, "12345678-9abc-4ef0-bf01-020304050607");
	CHECK_EQ(uuid_parse(text, back), 0);
	CHECK_MEM(back, "\x12\x34\x56\x78\x9a\xbc\x4e\xf0\xbf\x01\2\3\4\5\6\7", 16);
	CHECK_EQ(uuid_parse("FFFFFFFF-ffff-1fff-0000-000000000000", back), 0);
	CHECK_MEM(back, "\xff\xff\xff\xff\xff\xff\x1f\xff\0\0\0\0\0\0\0\0", 16);
	memcpy(kept, back, 16);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		CHECK_EQ(uuid_parse(bad[i], back), -EINVAL);
		CHECK_MEM(back, kept, 16);
	}
}

TEST(text_words_stand_between_spaces_and_commas)
{
	static const char text[] = " one,two  \tthree , four";
	static const char *const words[] = {"one", "two", "three", "four"};
	const char *at = text;
	size_t n;

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		n = text_next_word(&at);
		CHECK_EQ(n, strlen(words[i]));
		CHECK_MEM(at - n, words[i], n);
	}
	CHECK_EQ(text_next_word(&at), 0);
	CHECK_EQ(*at, '\0');
	at = " ,, ";
	CHECK_EQ(text_next_word(&at), 0);
}
