/* SPDX-License-Identifier: MIT */
#include "base/origin.h"

#include "test.h"

TEST(origin_words_that_can_match)
{
	static const char *const good[] = {
		"*",
		"null",
		"https://example.org",
		"http://example.org:8080",
		"example.org",
		"*.example.org",
		"https://*.example.org",
		"*.example.org:8443",
		"localhost:3000",
		"https://[::1]:8443",
		"[2001:db8::1]",
		"http://127.0.0.1:3000",
		"HTTPS://Example.ORG",
		"chrome-extension://abcdefghijklmnop",
		"capacitor://localhost",
		"file://",
		"https://xn--bcher-kva.example",
		"https://under_score.example",
		"http://a1.2b",
	};

	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		if (origin_flaw(good[i], strlen(good[i])))
			FAIL("%s %s", good[i], origin_flaw(good[i], strlen(good[i])));
}

TEST(origin_words_that_never_match)
{
	static const struct {
		const char *word, *why;
	} bad[] = {
		{"https://example.org/", "ends with"},
		{"https://example.org/chat", "more than scheme"},
		{"https://example.org?x", "more than scheme"},
		{"https://user@example.org", "more than scheme"},
		{"example.org/", "ends with"},
		{"\"https://example.org\"", "quotes"},
		{"'example.org'", "quotes"},
		{"https://*", "\"*\""},
		{"example.*", "\"*\""},
		{"**.example.org", "\"*\""},
		{"*.", "\"*\""},
		{"*example.org", "\"*\""},
		{"example.org:*", "port"},
		{"example.org:", "port"},
		{"example.org:0", "port"},
		{"example.org:080", "port"},
		{"example.org:65536", "port"},
		{"::1", "port"},
		{"https://", "no host"},
		{"://example.org", "scheme"},
		{"1x://example.org", "scheme"},
		{"wss://example.org", "names the server"},
		{"https://b\xc3\xbc"
		 "cher.example",
		 "punycode"},
		{"https://a..example", "empty label"},
		{"https://.example", "empty label"},
		{"https://exa$mple", "character"},
		{"https://127.1", "address"},
		{"https://[0:0:0:0:0:0:0:1]", "shorter"},
		{"https://[::1", "not closed"},
		{"https://[::1]x", "behind its bracket"},
		{"https://[fe80::1%eth0]", "address"},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		const char *flaw = origin_flaw(bad[i].word, strlen(bad[i].word));

		if (!flaw || !strstr(flaw, bad[i].why))
			FAIL("%s: %s", bad[i].word, flaw ? flaw : "good");
	}
}
