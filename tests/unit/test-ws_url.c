/* SPDX-License-Identifier: MIT */
#include "client/ws_url.h"

#include <errno.h>
#include <stdio.h>

#include "test.h"
#include "wire/upgrade.h"

TEST(ws_url_is_taken_apart)
{
	static const struct {
		const char *text, *host;
		uint16_t port;
		bool secure;
		const char *path, *header;
	} row[] = {
		{"ws://127.0.0.1:8080", "127.0.0.1", 8080, false, "/", "127.0.0.1:8080"},
		{"ws://h", "h", 80, false, "/", "h"},
		{"wss://h", "h", 443, true, "/", "h"},
		{"WSS://h:80/", "h", 80, true, "/", "h:80"},
		{"ws://h:/x", "h", 80, false, "/x", "h"},
		{"ws://h?a=b", "h", 80, false, "/?a=b", "h"},
		{"ws://h:1/room/7?a/b?c", "h", 1, false, "/room/7?a/b?c", "h:1"},
		{"ws://[::1]", "::1", 80, false, "/", "[::1]"},
		{"ws://[2001:db8::2]:65535/x", "2001:db8::2", 65535, false, "/x",
		 "[2001:db8::2]:65535"},
		{"ws://h/\303\244%20", "h", 80, false, "/%C3%A4%20", "h"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct ws_url url;
		char host[100];
		size_t n = strlen(row[i].header);

		CHECK_EQ(ws_url_parse(row[i].text, &url), 0);
		CHECK_STR(url.host, row[i].host);
		CHECK_EQ(url.port, row[i].port);
		CHECK_EQ(url.secure, row[i].secure);
		CHECK_STR(url.path, row[i].path);
		CHECK_EQ(ws_url_format_host(host, sizeof(host), &url), n);
		CHECK_STR(host, row[i].header);
		CHECK_EQ(ws_url_format_host(host, n, &url), 0);
	}
}

TEST(ws_url_that_is_none_is_refused)
{
	static const char *const text[] = {
		"",
		"ws:/h",
		"http://h/",
		"h:80",
		"ws://",
		"ws:///x",
		"ws://:80",
		"ws://h:0",
		"ws://h:65536",
		"ws://h:99999999999",
		"ws://h:x",
		"ws://h:-1",
		"ws://h:1:2",
		"ws://u@h/",
		"ws://u:p@h/",
		"ws://h/#f",
		"ws://h#f",
		"ws://h/a b",
		"ws://h\n/",
		"ws://h/\001",
		"ws://h/\177",
		"ws://[::1",
		"ws://[]",
		"ws://[1.2.3.4]",
		"ws://[::g]",
		"ws://[::1]x",
		"ws://::1",
		"ws://h%41",
	};
	struct ws_url url = {.port = 7};
	char text_long[5000];

	for (size_t i = 0; i < ARRAY_LEN(text); i++)
		CHECK_EQ(ws_url_parse(text[i], &url), -EINVAL);
	CHECK_EQ(url.port, 7);

	memset(text_long, 'x', sizeof(text_long));
	memcpy(text_long, "ws://", 5);
	text_long[5 + 256] = '\0';
	CHECK_EQ(ws_url_parse(text_long, &url), -EINVAL);
	text_long[5 + 255] = '\0';
	CHECK_EQ(ws_url_parse(text_long, &url), 0);
	memset(text_long + 5 + 255, 'x', 2);
	text_long[6] = '/';
	text_long[6 + 4096] = '\0';
	CHECK_EQ(ws_url_parse(text_long, &url), -EINVAL);
	text_long[6 + 4095] = '\0';
	CHECK_EQ(ws_url_parse(text_long, &url), 0);
	CHECK_EQ(strlen(url.path), 4095);
}

TEST(ws_url_path_leads_back_to_its_channel)
{
	static const char channel[] = "a/b-._~9 %?#+\303\244\"\\";
	struct http_request request;
	struct upgrade u;
	char path[100], head[400];
	size_t n = ws_url_format_path(path, sizeof(path), channel), head_bytes;

	CHECK_STR(path, "/a/b-._~9%20%25%3F%23%2B%C3%A4%22%5C");
	CHECK_EQ(n, strlen(path));
	CHECK(upgrade_format_request(head, sizeof(head), "h", path,
				     "dGhlIHNhbXBsZSBub25jZQ==", NULL) > 0);
	CHECK_EQ(http_parse_request(head, strlen(head), HTTP_MAX_HEAD, &request, &head_bytes), 0);
	CHECK_EQ(upgrade_check(&request, &u), 0);
	CHECK_STR(u.channel, channel);
	for (size_t cap = 0; cap <= n; cap++)
		CHECK_EQ(ws_url_format_path(path, cap, channel), 0);
	CHECK_EQ(ws_url_format_path(path, 2, ""), 1);
	CHECK_STR(path, "/");
}

static void check_channel(const char *url, const char *channel, const char *path)
{
	struct ws_url u;

	CHECK_EQ(ws_url_parse(url, &u), 0);
	CHECK_EQ(ws_url_set_channel(&u, channel), 0);
	CHECK_STR(u.path, path);
}

TEST(ws_url_channel_replaces_the_path_and_keeps_the_query)
{
	check_channel("ws://h", "a", "/a");
	check_channel("ws://h/x/y", "", "/");
	check_channel("ws://h/x?token=1", "a b", "/a%20b?token=1");
	check_channel("ws://h/?t", "r/7", "/r/7?t");
}

TEST(ws_url_channel_that_is_too_long_is_refused)
{
	char name[258];
	struct ws_url u;

	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	CHECK_EQ(ws_url_parse("ws://h/old", &u), 0);
	CHECK_EQ(ws_url_set_channel(&u, name), -ENAMETOOLONG);
	CHECK_STR(u.path, "/old");
	name[255] = '\0';
	CHECK_EQ(ws_url_set_channel(&u, name), 0);
}
