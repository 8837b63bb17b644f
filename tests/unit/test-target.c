/* SPDX-License-Identifier: MIT */
#include "client/target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "test.h"

TEST(target_knows_addresses_in_numbers)
{
	static const struct {
		const char *url, *address, *host;
		uint16_t port;
	} table[] = {
		{"ws://127.0.0.1:9000/a?b", "127.0.0.1", "127.0.0.1:9000", 9000},
		{"ws://[::1]:81", "::1", "[::1]:81", 81},
	};
	struct target target;
	const char *why = NULL;
	struct ws_url u;

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		CHECK_EQ(ws_url_parse(table[i].url, &u), 0);
		CHECK_EQ(target_init(&target, &u, &why), 0);
		CHECK_EQ(target.n_addresses, 1);
		CHECK_STR(target.address[0], table[i].address);
		CHECK_STR(target.host, table[i].host);
		CHECK_EQ(target.port, table[i].port);
		CHECK_STR(target.request_path, u.path);
	}
	CHECK(!target.is_secure);
	CHECK_EQ(ws_url_parse("wss://127.0.0.1/", &u), 0);
	CHECK_EQ(target_init(&target, &u, &why), 0);
	CHECK(target.is_secure && target.port == 443);
	CHECK_STR(target.name, "127.0.0.1");
}

static int secure(const char *token_file, struct target *t, char *said, size_t cap)
{
	const struct target_security security = {.token_file = token_file};
	FILE *err = fmemopen(said, cap, "w");
	int r;

	*t = (struct target){0};
	said[0] = '\0';
	r = target_secure(t, &security, "client", err);
	fclose(err);
	return r;
}

TEST(target_reads_the_token_of_a_file_or_says_what_is_wrong)
{
	static const struct {
		const char *text, *header, *said;
	} table[] = {
		{"abc.def\n", "Authorization: Bearer abc.def\r\n", ""},
		{"abc\r\nmore\n", "Authorization: Bearer abc\r\n", ""},
		{"", "", "is empty"},
		{"a b\n", "", "is no token"},
		{"a\x01\n", "", "is no token"},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		char path[] = "/tmp/wsbind-test-XXXXXX", said[256];
		struct target t;
		int fd = mkstemp(path), r;

		CHECK(fd >= 0);
		CHECK_EQ(write(fd, table[i].text, strlen(table[i].text)), strlen(table[i].text));
		r = secure(path, &t, said, sizeof(said));
		CHECK_EQ(r, table[i].said[0] ? -EINVAL : 0);
		CHECK_STR(t.headers, table[i].header);
		CHECK(strstr(said, table[i].said));
		target_fini(&t);
		CHECK_STR(t.headers, "");
		fd_closep(&fd);
		CHECK_EQ(unlink(path), 0);
	}
}

/* What another program is just writing, or has taken away, is not brought. */
TEST(target_takes_another_token_once_it_is_there)
{
	static const struct {
		const char *text, *header;
		unsigned n;
	} table[] = {
		{"one\n", "Authorization: Bearer one\r\n", 1},
		{"two\n", "Authorization: Bearer two\r\n", 2},
		{"", "Authorization: Bearer two\r\n", 2},
		{"a b\n", "Authorization: Bearer two\r\n", 2},
		{"one\n", "Authorization: Bearer one\r\n", 3},
	};
	char path[] = "/tmp/wsbind-test-XXXXXX", said[256];
	int fd = mkstemp(path);
	struct target t;

	CHECK_EQ(write(fd, "one\n", 4), 4);
	CHECK_EQ(secure(path, &t, said, sizeof(said)), 0);
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		CHECK_EQ(ftruncate(fd, 0), 0);
		CHECK_EQ(pwrite(fd, table[i].text, strlen(table[i].text), 0),
			 strlen(table[i].text));
		target_refresh_token(&t);
		CHECK_STR(t.headers, table[i].header);
		CHECK_EQ(t.n_tokens, table[i].n);
	}
	fd_closep(&fd);
	CHECK_EQ(unlink(path), 0);
	target_refresh_token(&t);
	CHECK_STR(t.headers, "Authorization: Bearer one\r\n");
	target_fini(&t);
}
