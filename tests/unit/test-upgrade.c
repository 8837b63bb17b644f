/* SPDX-License-Identifier: MIT */
#include "wire/upgrade.h"

#include <errno.h>
#include <stdio.h>

#include "test.h"

/* The key of RFC 6455 section 1.3 and what it gives. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

#define UP "Upgrade: websocket\r\n"
#define CONN "Connection: Upgrade\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define KEYLINE "Sec-WebSocket-Key: " KEY "\r\n"
#define GOOD UP CONN VERSION KEYLINE

static char request_text[4000];

static int check_line(const char *line, const char *headers, struct upgrade *u)
{
	static struct http_request req;
	size_t head;

	snprintf(request_text, sizeof(request_text), "%s\r\nHost: h:1\r\n%s\r\n", line, headers);
	CHECK_EQ(http_parse_request(request_text, strlen(request_text), HTTP_MAX_HEAD, &req, &head),
		 0);
	return upgrade_check(&req, u);
}

static int check_path(const char *path, struct upgrade *u)
{
	char line[2000];

	snprintf(line, sizeof(line), "GET %s HTTP/1.1", path);
	return check_line(line, GOOD, u);
}

TEST(upgrade_takes_what_the_server_needs)
{
	struct upgrade u;

	CHECK_EQ(check_line("GET /room/7?access_token=x HTTP/1.1",
			    GOOD "Origin: https://o\r\nSec-WebSocket-Extensions: a; b\r\n"
				 "Sec-WebSocket-Protocol: bearer, T\r\n",
			    &u),
		 0);
	CHECK_STR(u.channel, "room/7");
	CHECK_EQ(u.channel_len, 6);
	CHECK_STR(u.accept, ACCEPT);
	CHECK(http_text_is(u.query, "access_token=x"));
	CHECK(http_text_is(u.host, "h:1"));
	CHECK(http_text_is(u.origin, "https://o"));
	CHECK(http_text_is(u.extensions, "a; b"));
	CHECK(http_text_is(u.selected, "bearer"));
	CHECK(http_text_is(u.bearer, "T"));

	CHECK_EQ(check_path("/", &u), 0);
	CHECK_STR(u.channel, "");
	CHECK(!u.origin.p && !u.extensions.p && !u.selected.n && !u.bearer.p && !u.query.p);
}

TEST(upgrade_selects_one_of_what_is_offered)
{
	static const struct {
		const char *lines, *selected, *bearer;
	} row[] = {
		{"Sec-WebSocket-Protocol: wsbind\r\n", "wsbind", NULL},
		{"Sec-WebSocket-Protocol: chat, wsbind\r\n", "wsbind", NULL},
		{"Sec-WebSocket-Protocol: chat\r\n", "", NULL},
		{"Sec-WebSocket-Protocol: wsbind, bearer, T\r\n", "bearer", "T"},
		{"Sec-WebSocket-Protocol: bearer, T, wsbind\r\n", "bearer", "T"},
		{"Sec-WebSocket-Protocol: bearer\r\nSec-WebSocket-Protocol: T\r\n", "bearer", "T"},
		{"Sec-WebSocket-Protocol: bearer\r\n", "bearer", ""},
		{"Sec-WebSocket-Protocol: bearer, wsbind\r\n", "bearer", "wsbind"},
		{"Sec-WebSocket-Protocol: bearer, bearer, T\r\n", "bearer", "bearer"},
		{"Sec-WebSocket-Protocol: BEARER, T\r\n", "", NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		char head[600];
		struct upgrade u;

		snprintf(head, sizeof(head), "%s%s", GOOD, row[i].lines);
		CHECK_EQ(check_line("GET / HTTP/1.1", head, &u), 0);
		CHECK_EQ(u.bearer.p != NULL, row[i].bearer != NULL);
		if (!http_text_is(u.selected, row[i].selected) ||
		    (row[i].bearer && !http_text_is(u.bearer, row[i].bearer)))
			FAIL("%s", row[i].lines);
	}
}

TEST(upgrade_can_be_prepared_more_than_once)
{
	CHECK_EQ(upgrade_prepare(), 0);
	CHECK_EQ(upgrade_prepare(), 0);
}

TEST(upgrade_verdicts)
{
	static const struct {
		int want;
		const char *line;
		const char *headers;
	} row[] = {
		{0, "GET / HTTP/1.1", GOOD},
		{0, "GET / HTTP/1.2", GOOD},
		{0, "GET ws://h HTTP/1.1", GOOD},
		{0, "GET / HTTP/1.1",
		 "upgrade: h2c, WebSocket\r\nconnection: keep-alive, upgrade\r\n"
		 "sec-websocket-version:13\r\nsec-websocket-key:" KEY "\r\n"},
		{0, "GET / HTTP/1.1", "Upgrade: h2c\r\nConnection: close\r\n" GOOD},
		{0, "GET / HTTP/1.1", GOOD "Content-Length: 0\r\n"},
		/* not GET, before all else */
		{405, "POST / HTTP/1.1", GOOD "Content-Length: 5\r\n"},
		{405, "get / HTTP/1.1", GOOD},
		{405, "HEAD / HTTP/1.1", ""},
		{405, "OPTIONS * HTTP/1.1", ""},
		{405, "CONNECT h:1 HTTP/1.1", ""},
		/* bodies and doubled headers */
		{400, "GET / HTTP/1.1", GOOD "Content-Length: 5\r\n"},
		{400, "GET / HTTP/1.1", GOOD "Transfer-Encoding: chunked\r\n"},
		{400, "GET / HTTP/1.1", GOOD KEYLINE},
		{400, "GET / HTTP/1.1", GOOD VERSION},
		{400, "GET / HTTP/1.1", GOOD "Origin: a\r\nOrigin: b\r\n"},
		/* no upgrade wanted, or none possible */
		{426, "GET / HTTP/1.1", ""},
		{426, "GET /%zz HTTP/1.1", ""},
		{426, "GET / HTTP/1.1", CONN VERSION KEYLINE},
		{426, "GET / HTTP/1.1", "Upgrade: h2c\r\n" CONN VERSION KEYLINE},
		{426, "GET / HTTP/1.0", GOOD},
		{400, "GET / HTTP/1.1", UP VERSION KEYLINE},
		{400, "GET / HTTP/1.1", UP "Connection: close\r\n" VERSION KEYLINE},
		/* version, before the key */
		{426, "GET / HTTP/1.1", UP CONN KEYLINE},
		{426, "GET / HTTP/1.1", UP CONN KEYLINE "Sec-WebSocket-Version: 8\r\n"},
		{426, "GET / HTTP/1.1", UP CONN KEYLINE "Sec-WebSocket-Version: 13, 8\r\n"},
		{426, "GET / HTTP/1.1", UP CONN "Sec-WebSocket-Version: 8\r\n"},
		/* key, before the channel */
		{400, "GET /%zz HTTP/1.1", UP CONN VERSION},
		{400, "GET / HTTP/1.1", UP CONN VERSION "Sec-WebSocket-Key:\r\n"},
		{400, "GET / HTTP/1.1", UP CONN VERSION "Sec-WebSocket-Key: x" KEY "\r\n"},
		{400, "GET / HTTP/1.1", UP CONN VERSION "Sec-WebSocket-Key: " KEY "A\r\n"},
		{400, "GET / HTTP/1.1",
		 UP CONN VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=A\r\n"},
		{400, "GET / HTTP/1.1",
		 UP CONN VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA\r\n"},
		{400, "GET / HTTP/1.1",
		 UP CONN VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ===\r\n"},
		{400, "GET / HTTP/1.1",
		 UP CONN VERSION "Sec-WebSocket-Key: dGhlIHNh_XBsZSBub25jZQ==\r\n"},
		{404, "GET /%zz HTTP/1.1", GOOD},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct upgrade u = {0};
		int r = check_line(row[i].line, row[i].headers, &u);

		if (r != row[i].want)
			print_message("# %d for %s\n%s", r, row[i].line, row[i].headers);
		CHECK_EQ(r, row[i].want);
		CHECK_EQ(u.why != NULL, r != 0);
	}
}

TEST(upgrade_channel_is_the_decoded_path)
{
	static const struct {
		int want;
		const char *path;
		const char *channel;
	} row[] = {
		{0, "/", ""},
		{0, "//", "/"},
		{0, "/a/b/", "a/b/"},
		{0, "/a+b%20c%2Fd", "a+b c/d"},
		{0, "/%C3%a4", "\303\244"},
		{0, "/a%3Fb?c", "a?b"},
		{404, "/%", NULL},
		{404, "/%4", NULL},
		{404, "/%4x", NULL},
		{404, "/a%00b", NULL},
		{404, "/%C3", NULL},
		{404, "/%ff", NULL},
		{404, "/%ED%A0%80", NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct upgrade u;

		CHECK_EQ(check_path(row[i].path, &u), row[i].want);
		if (row[i].want)
			continue;
		CHECK_STR(u.channel, row[i].channel);
		CHECK_EQ(u.channel_len, strlen(row[i].channel));
	}
}

TEST(upgrade_channel_has_255_bytes_at_most)
{
	for (size_t n = 254; n <= 256; n++) {
		struct upgrade u;
		char plain[300] = "/", encoded[1000] = "/";

		memset(plain + 1, 'x', n);
		CHECK_EQ(check_path(plain, &u), n <= 255 ? 0 : 404);
		for (size_t i = 0; i < n; i++)
			memcpy(encoded + 1 + 3 * i, "%41", 3);
		CHECK_EQ(check_path(encoded, &u), n <= 255 ? 0 : 404);
		if (n <= 255)
			CHECK_EQ(strlen(u.channel), n);
	}
}

TEST(upgrade_response_says_what_was_agreed)
{
	struct upgrade u;
	char out[400];
	static const char plain[] = "HTTP/1.1 101 Switching Protocols\r\n"
				    "Upgrade: websocket\r\n"
				    "Connection: Upgrade\r\n"
				    "Sec-WebSocket-Accept: " ACCEPT "\r\n";

	CHECK_EQ(check_line("GET / HTTP/1.1", GOOD, &u), 0);
	for (size_t cap = 0; cap < sizeof(plain) + 2; cap++)
		CHECK_EQ(upgrade_format_ok(out, cap, &u, NULL), 0);
	CHECK_EQ(upgrade_format_ok(out, sizeof(plain) + 2, &u, NULL), sizeof(plain) + 1);
	CHECK_MEM(out, plain, sizeof(plain) - 1);
	CHECK_STR(out + sizeof(plain) - 1, "\r\n");

	CHECK_EQ(check_line("GET / HTTP/1.1", GOOD "Sec-WebSocket-Protocol: bearer, T\r\n", &u), 0);
	CHECK(upgrade_format_ok(out, sizeof(out), &u, "x; y") > 0);
	CHECK_STR(out + sizeof(plain) - 1,
		  "Sec-WebSocket-Protocol: bearer\r\nSec-WebSocket-Extensions: x; y\r\n\r\n");
}

/* Each refusal is a response that our own parser takes, with a body of the length it names. */
TEST(upgrade_refusals_have_what_their_status_demands)
{
	static const struct {
		int status;
		unsigned retry_after;
		const char *name, *value;
	} row[] = {
		{400, 5, "Connection", "close"},
		{403, 0, "Connection", "close"},
		{404, 0, "Connection", "close"},
		{405, 0, "Allow", "GET"},
		{426, 0, "Upgrade", "websocket"},
		{426, 0, "Sec-WebSocket-Version", "13"},
		{429, 60, "Retry-After", "60"},
		{431, 0, "Connection", "close"},
		{503, 4294967295, "Retry-After", "4294967295"},
		{503, 0, "Connection", "close"},
		{505, 0, "Connection", "close"},
		{500, 0, "Content-Length", "0"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct http_response res;
		char out[UPGRADE_MAX_REFUSAL], length[20];
		size_t head, n = upgrade_format_refusal(out, sizeof(out), row[i].status,
							row[i].retry_after);
		const struct http_header *h;

		CHECK(n > 0);
		CHECK_EQ(http_parse_response(out, n, HTTP_MAX_HEAD, &res, &head), 0);
		CHECK_EQ(res.status, row[i].status);
		CHECK(http_headers_have_token(&res.headers, "Connection", "close"));
		h = http_headers_find(&res.headers, row[i].name);
		CHECK(h && http_text_is(h->value, row[i].value));
		h = http_headers_find(&res.headers, "Content-Length");
		snprintf(length, sizeof(length), "%zu", n - head);
		CHECK(h && http_text_is(h->value, length));
		CHECK_EQ(http_count(&res.headers, "Retry-After"), row[i].retry_after >= 60);
		CHECK_EQ(http_headers_have_token(&res.headers, "Connection", "upgrade"),
			 row[i].status == 426);
		CHECK(row[i].status == 500 || out[n - 1] == '\n');
		CHECK_EQ(upgrade_format_refusal(out, n, row[i].status, row[i].retry_after), 0);
	}
}

TEST(upgrade_request_is_one_that_the_server_takes)
{
	static const uint8_t random[16] = "the sample nonce";
	struct http_request req;
	struct upgrade u;
	char key[UPGRADE_KEY_TEXT], out[400];
	size_t head, n;

	upgrade_format_key(key, random);
	CHECK_STR(key, KEY);
	n = upgrade_format_request(out, sizeof(out), "h:8080", "/a?b", key, "Origin: o\r\n");
	CHECK_EQ(http_parse_request(out, n, HTTP_MAX_HEAD, &req, &head), 0);
	CHECK_EQ(head, n);
	CHECK_EQ(upgrade_check(&req, &u), 0);
	CHECK_STR(u.channel, "a");
	CHECK(http_text_is(u.origin, "o"));
	CHECK(http_text_is(u.host, "h:8080"));
	for (size_t cap = 0; cap <= n; cap++)
		CHECK_EQ(upgrade_format_request(out, cap, "h:8080", "/a?b", key, "Origin: o\r\n"),
			 0);
	CHECK_EQ(upgrade_format_request(out, sizeof(out), "h", "/a b", key, NULL), 0);
	CHECK_EQ(upgrade_format_request(out, sizeof(out), "h\r\nX: y", "/", key, NULL), 0);
	CHECK_EQ(upgrade_format_request(out, sizeof(out), "h", "/\303\244", key, NULL), 0);
}

#define R101 "HTTP/1.1 101 S\r\n"
#define OK UP CONN "Sec-WebSocket-Accept: " ACCEPT "\r\n"

TEST(upgrade_response_verdicts)
{
	static const struct {
		int want;
		int status;
		const char *text;
	} row[] = {
		{0, 101, R101 OK "\r\n"},
		{0, 101,
		 R101 "upgrade: WEBSOCKET\r\nconnection: a, upgrade\r\n"
		      "sec-websocket-accept:" ACCEPT "\r\n\r\n"},
		{0, 101, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" R101 OK "\r\n"},
		{HTTP_MORE, 0, R101 OK "\r"},
		{HTTP_MORE, 0, "HTTP/1.1 100 Continue\r\n\r\nHTTP"},
		{UPGRADE_E_REFUSED, 503, "HTTP/1.1 503 X\r\nRetry-After: 1\r\n\r\n"},
		{UPGRADE_E_REFUSED, 200, "HTTP/1.0 200 OK\r\n\r\n"},
		{UPGRADE_E_REFUSED, 302, "HTTP/1.1 302 Found\r\n" OK "\r\n"},
		{UPGRADE_E_BROKEN, 0, "SSH-2.0-server x\r\n"},
		{UPGRADE_E_BROKEN, 0, "HTTP/1.0 101 S\r\n" OK "\r\n"},
		{UPGRADE_E_BROKEN, 0, R101 UP CONN "\r\n"},
		{UPGRADE_E_BROKEN, 0, R101 UP CONN "Sec-WebSocket-Accept: x" ACCEPT "\r\n\r\n"},
		{UPGRADE_E_BROKEN, 0, R101 UP CONN "Sec-WebSocket-Accept: " KEY "\r\n\r\n"},
		{UPGRADE_E_BROKEN, 0, R101 OK "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n"},
		{UPGRADE_E_BROKEN, 0,
		 R101 "Upgrade: h2c\r\n" CONN "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n"},
		{UPGRADE_E_BROKEN, 0, R101 CONN "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n"},
		{UPGRADE_E_BROKEN, 0, R101 UP "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n"},
		{UPGRADE_E_BROKEN, 0, R101 OK "Sec-WebSocket-Extensions: x\r\n\r\n"},
		{UPGRADE_E_BROKEN, 0, R101 OK "Sec-WebSocket-Protocol: x\r\n\r\n"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		char text[600];
		size_t n = strlen(row[i].text), head = 777;
		int status = 0;

		/* the first frame's bytes behind it must not matter */
		snprintf(text, sizeof(text), "%s\x81\x01z", row[i].text);
		if (row[i].want != HTTP_MORE)
			CHECK_EQ(upgrade_check_response(text, n + 3, KEY, &head, &status),
				 row[i].want);
		CHECK_EQ(upgrade_check_response(text, n, KEY, &head, &status), row[i].want);
		CHECK_EQ(head, row[i].want == 0 ? n : 777);
		CHECK_EQ(status, row[i].status);
	}
}

TEST(upgrade_response_is_bounded)
{
	static char text[4 * HTTP_MAX_HEAD];
	size_t head, n = 0;
	int status;

	memset(text, 'a', sizeof(text));
	memcpy(text, "HTTP/1.1 101 ", 13);
	CHECK_EQ(upgrade_check_response(text, HTTP_MAX_HEAD - 1, KEY, &head, &status), HTTP_MORE);
	CHECK_EQ(upgrade_check_response(text, HTTP_MAX_HEAD, KEY, &head, &status),
		 UPGRADE_E_BROKEN);
	while (n < HTTP_MAX_HEAD) {
		CHECK_EQ(upgrade_check_response(text, n, KEY, &head, &status), HTTP_MORE);
		n += (size_t)sprintf(text + n, "HTTP/1.1 100 X\r\n\r\n");
	}
	CHECK_EQ(upgrade_check_response(text, n, KEY, &head, &status), UPGRADE_E_BROKEN);
}
