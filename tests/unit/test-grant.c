/* SPDX-License-Identifier: MIT */
#include "wire/grant.h"

#include "test.h"

TEST(grant_user_ids)
{
	static const char *const good[] = {"a",       "alice",  "Alice B.",
					   "system2", "System", "\xc3\xa4"};
	static const char *const wrong[] = {"",        "system", "\n",    "alice\n", "a\tb",
					    "\x1b[2J", "a\r\nb", "a\x7f", "\x01"};
	char text[GRANT_USER_MAX + 2] = "";

	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		CHECK(grant_is_user_id(good[i]));
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		CHECK(!grant_is_user_id(wrong[i]));
	memset(text, 'x', GRANT_USER_MAX);
	CHECK(grant_is_user_id(text));
	text[GRANT_USER_MAX] = 'x';
	CHECK(!grant_is_user_id(text));
}

/* All of it in one allocation, aligned whatever the texts' lengths are. */
TEST(grant_that_is_restored_is_the_same)
{
	const char *patterns[] = {"", "a", "room/*", "**"};

	for (size_t n = 0; n <= ARRAY_LEN(patterns); n++)
		for (size_t len = 1; len < 20; len++) {
			char user[21] = "";
			struct grant *g;
			const struct grant like = {
				.expires_s = 1000 + len,
				.may_publish = n & 1,
				.any_channel = len & 1,
				.n_patterns = n,
				.user_id = memset(user, 'u', len),
				.pattern = patterns,
			};

			g = grant_restore(&like);
			CHECK(g);
			CHECK_STR(g->user_id, user);
			CHECK_EQ(g->expires_s, 1000 + len);
			CHECK_EQ(g->may_publish, n & 1);
			CHECK_EQ(g->any_channel, len & 1);
			CHECK_EQ(g->n_patterns, n);
			for (size_t i = 0; i < n; i++)
				CHECK_STR(g->pattern[i], patterns[i]);
			free(g);
		}
	CHECK(!grant_restore(&(struct grant){.user_id = "system"}));
}

static bool allows(const char *pattern, const char *channel)
{
	struct grant *g = grant_new("a", 1, strlen(pattern) + 1);
	bool r;

	CHECK(g);
	grant_add_pattern(g, pattern);
	g->any_channel = false;
	r = grant_allows(g, channel);
	free(g);
	return r;
}

TEST(grant_patterns)
{
	static const struct {
		const char *pattern, *yes, *no;
	} row[] = {
		{"", "", "a"},
		{"*", "room", "a/b"},
		{"*", "", "/"},
		{"**", "a/b/c", NULL},
		{"room/*", "room/7", "room/7/8"},
		{"room/*", "room/", "room"},
		{"room/**", "room/7/8", "rooms"},
		{"*/7", "room/7", "a/room/7"},
		{"**/7", "a/room/7", "7"},
		{"a*c", "abbc", "ab/c"},
		{"a**c", "ab/c", "ab/d"},
		{"a*b*c", "a1b2b3c", "a1c2b"},
		{"**a*", "x/y/ab", "x/a/b"},
		{"**/a/*", "x/a/b/a/c", "x/a/b/c"},
		{"*a*a*a*", "bababa", "baba"},
		{"room.7", "room.7", "roomx7"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		CHECK(allows(row[i].pattern, row[i].yes));
		CHECK(!row[i].no || !allows(row[i].pattern, row[i].no));
	}
}

/* The same by trying everything. */
static bool naive(const char *p, const char *t)
{
	bool is_wide = p[0] == '*' && p[1] == '*';

	if (!*p)
		return !*t;
	if (*p != '*')
		return *p == *t && naive(p + 1, t + 1);
	for (;; t++) {
		if (naive(p + 1 + is_wide, t))
			return true;
		if (!*t || (!is_wide && *t == '/'))
			return false;
	}
}

TEST(grant_patterns_agree_with_trying_everything)
{
	uint64_t seed = test_seed();

	for (int round = 0; round < 3000; round++) {
		char pattern[9] = "", text[9] = "";
		size_t p = test_random(&seed) % 8, t = test_random(&seed) % 8;

		for (size_t i = 0; i < p; i++)
			pattern[i] = "ab/**"[test_random(&seed) % 5];
		for (size_t i = 0; i < t; i++)
			text[i] = "ab/"[test_random(&seed) % 3];
		/* Of three stars in a row the matcher reads a wide one and a narrow one. */
		if (allows(pattern, text) != naive(pattern, text))
			fail_msg("pattern %s, channel %s", pattern, text);
	}
}
