/* SPDX-License-Identifier: MIT */
#include "wire/resume_token.h"

#include <string.h>

#include "test.h"

static struct resume_token token_of(const char *user_id, uint64_t number, bool is_subject)
{
	struct resume_token t = {.number = number, .is_subject = is_subject};

	for (size_t i = 0; i < sizeof(t.id); i++)
		t.id[i] = (uint8_t)(17 * i + number);
	memcpy(t.user_id, user_id, strlen(user_id) + 1);
	return t;
}

TEST(resume_token_comes_back_as_it_was_written)
{
	static const uint64_t numbers[] = {1, 255, 256, UINT64_MAX};
	struct resume_key key;
	char text[RESUME_TOKEN_TEXT], longest[GRANT_USER_MAX + 1] = "";

	memset(longest, 'u', GRANT_USER_MAX);
	CHECK_EQ(resume_key_draw(&key), 0);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		const char *users[] = {"a", "user-[::1]:50000", "\xc3\xa4", longest};
		struct resume_token t = token_of(users[i], numbers[i], i % 2), back;
		size_t n = resume_token_write(&key, &t, text);

		CHECK(n > 0 && n < RESUME_TOKEN_TEXT);
		CHECK_EQ(strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_"),
			 n);
		CHECK(resume_token_read(&key, text, n, &back));
		CHECK_MEM(back.id, t.id, sizeof(t.id));
		CHECK_EQ(back.number, t.number);
		CHECK_EQ(back.is_subject, t.is_subject);
		CHECK_STR(back.user_id, t.user_id);
	}
}

/* Any other bit, a part of it, more than it, another key: it is nobody's. */
TEST(resume_token_of_somebody_else_is_none)
{
	struct resume_token t = token_of("alice", 7, true), back;
	struct resume_key key, other;
	char text[RESUME_TOKEN_TEXT], bad[RESUME_TOKEN_TEXT + 4];
	size_t n;

	CHECK_EQ(resume_key_draw(&key), 0);
	CHECK_EQ(resume_key_draw(&other), 0);
	n = resume_token_write(&key, &t, text);
	CHECK(!resume_token_read(&other, text, n, &back));
	for (size_t at = 0; at < n; at++) {
		CHECK(!resume_token_read(&key, text, at, &back));
		for (unsigned c = 1; c < 256; c++) {
			memcpy(bad, text, n);
			bad[at] = (char)c;
			CHECK_EQ(resume_token_read(&key, bad, n, &back), bad[at] == text[at]);
		}
	}
	memcpy(bad, text, n);
	memcpy(bad + n, "AAAA", 4);
	CHECK(!resume_token_read(&key, bad, n + 4, &back));
}

/* Signed by the key, and yet what nobody may be called. */
TEST(resume_token_has_a_user_id_that_may_be)
{
	struct resume_token back;
	struct resume_key key;
	char text[RESUME_TOKEN_TEXT];

	CHECK_EQ(resume_key_draw(&key), 0);
	for (size_t i = 0; i < 3; i++) {
		static const char *const users[] = {"system", "", "a\nb"};
		struct resume_token t = token_of(users[i], 1, false);
		size_t n = resume_token_write(&key, &t, text);

		CHECK(n > 0);
		CHECK(!resume_token_read(&key, text, n, &back));
	}
}
