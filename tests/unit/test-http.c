/* SPDX-License-Identifier: MIT */
#include "wire/http.h"

#include <stdio.h>
#include <stdlib.h>

#include "test.h"

#define HOST "Host: h\r\n"
#define TEXT_IS(text, want) (http_text_is((text), (want)))

/* Bytes in memory of exactly their size, so that a sanitizer sees a read past them. */
static int parse_n(const char *bytes, size_t n, struct http_request *req, size_t *head)
{
	static char copy[3 * HTTP_MAX_HEAD];
	char *exact = malloc(n ? n : 1);
	int r;

	memcpy(exact, bytes, n);
	r = http_parse_request(exact, n, HTTP_MAX_HEAD, req, head);
	free(exact);
	if (r)
		return r;
	CHECK(n <= sizeof(copy));
	memcpy(copy, bytes, n); /* slices that outlive this function */
	return http_parse_request(copy, n, HTTP_MAX_HEAD, req, head);
}

static int parse(const char *text, struct http_request *req)
{
	size_t head;

	return parse_n(text, strlen(text), req, &head);
}

TEST(http_request_is_taken_apart)
{
	static const char text[] = "GET /room/7?a=b?c HTTP/1.1\r\n"
				   "Host: example.org:8080\r\n"
				   "X-Empty:\r\n"
				   "x-blank: \t two  words \t\r\n"
				   "X-Bytes:\303\244:\r\n"
				   "\r\n"
				   "\x81\x80";
	struct http_request req;
	size_t head;

	CHECK_EQ(parse_n(text, sizeof(text) - 1, &req, &head), 0);
	CHECK_EQ(head, sizeof(text) - 3);
	CHECK(TEXT_IS(req.method, "GET"));
	CHECK(TEXT_IS(req.target, "/room/7?a=b?c"));
	CHECK(TEXT_IS(req.path, "/room/7"));
	CHECK(TEXT_IS(req.query, "a=b?c"));
	CHECK(TEXT_IS(req.authority, "example.org:8080"));
	CHECK_EQ(req.version_minor, 1);
	CHECK_EQ(req.headers.count, 4);
	CHECK(TEXT_IS(http_find(&req, "X-EMPTY")->value, ""));
	CHECK(TEXT_IS(http_find(&req, "X-Blank")->value, "two  words"));
	CHECK(TEXT_IS(http_find(&req, "x-bytes")->value, "\303\244:"));
	CHECK(!http_find(&req, "X"));
}

TEST(http_request_stays_incomplete_until_its_last_byte)
{
	static const char text[] = "\r\nGET /chat?q HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\nGET /";
	size_t complete = sizeof(text) - 1 - strlen("GET /");

	for (size_t n = 0; n < sizeof(text); n++) {
		struct http_request req;
		size_t head = 0;
		int r = parse_n(text, n, &req, &head);

		CHECK_EQ(r, n < complete ? HTTP_MORE : 0);
		CHECK_EQ(head, n < complete ? 0 : complete);
	}
}

/* One line for each rule; 0 = accepted. */
static const struct {
	int want;
	const char *text;
} verdict[] = {
	/* request line */
	{0, "get / HTTP/1.1\r\n" HOST "\r\n"},
	{0, "M!#$%&'*+-.^_`|~9 / HTTP/1.1\r\n" HOST "\r\n"},
	{0, "\r\nGET / HTTP/1.1\r\n" HOST "\r\n"},
	{400, "\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n"},
	{400, "\nGET / HTTP/1.1\r\n" HOST "\r\n"},
	{400, " GET / HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET  / HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET /  HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET / HTTP/1.1 \r\n" HOST "\r\n"},
	{400, "GET\t/ HTTP/1.1\r\n" HOST "\r\n"},
	{400, "G(T / HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET /\r\n" HOST "\r\n"},
	{400, "GET\r\n"},
	{400, "GET / HTTP/1.1\n" HOST "\r\n"},
	{400, "GET / HTTP/1.1\r" HOST "\r\n"},
	/* version */
	{0, "GET / HTTP/1.0\r\n\r\n"},
	{0, "GET / HTTP/1.0\r\n" HOST "\r\n"},
	{0, "GET / HTTP/1.9\r\n" HOST "\r\n"},
	{400, "GET / http/1.1\r\n" HOST "\r\n"},
	{400, "GET / HTTP/1\r\n" HOST "\r\n"},
	{400, "GET / HTTP/1.10\r\n" HOST "\r\n"},
	{400, "GET / HTTP/x.1\r\n" HOST "\r\n"},
	{400, "GET / HTTP/1,1\r\n" HOST "\r\n"},
	{400, "GET / ICY/1.1\r\n" HOST "\r\n"},
	{505, "GET / HTTP/0.9\r\n" HOST "\r\n"},
	{505, "GET / HTTP/3.0\r\n"},
	{505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	/* targets */
	{0, "GET /%zz|{}~ HTTP/1.1\r\n" HOST "\r\n"},
	{0, "GET //x HTTP/1.1\r\n" HOST "\r\n"},
	{0, "GET http://other:80/x?y HTTP/1.1\r\n" HOST "\r\n"},
	{0, "GET WSS://[::1]:1/ HTTP/1.1\r\n" HOST "\r\n"},
	{0, "OPTIONS * HTTP/1.1\r\n" HOST "\r\n"},
	{0, "CONNECT h:443 HTTP/1.1\r\n" HOST "\r\n"},
	{400, "CONNECT h HTTP/1.1\r\n" HOST "\r\n"},
	{400, "CONNECT /x HTTP/1.1\r\n" HOST "\r\n"},
	{400, "CONNECT :443 HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET * HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET x HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET h:443 HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET /#top HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET /\303\244 HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET http:///x HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET http://:80/ HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET http:// HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET http://u@h/ HTTP/1.1\r\n" HOST "\r\n"},
	{400, "GET ftp://h/ HTTP/1.1\r\n" HOST "\r\n"},
	/* Host */
	{0, "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
	{0, "GET / HTTP/1.1\r\nhOST: [2001:db8::1]:8080\r\n\r\n"},
	{0, "GET / HTTP/1.1\r\nHost: h:\r\n\r\n"},
	{0, "GET / HTTP/1.1\r\nHost: h:65535\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST HOST "\r\n"},
	{400, "GET / HTTP/1.0\r\n" HOST HOST "\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: h:65536\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: h:99999999999999999999999\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: h:x\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: []\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\nHost: [/]\r\n\r\n"},
	/* header lines */
	{400, "GET / HTTP/1.1\r\n" HOST " folded\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "\tfolded: x\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n " HOST "\r\n"},
	{400, "GET / HTTP/1.1\r\nHost : h\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "A\t: h\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST ": h\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "A\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "A\303\244: x\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "A(): x\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "A: x\nB: y\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "A: x\rB: y\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "A: x\r\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "A: \001\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "A: \177\r\n\r\n"},
	{400, "GET / HTTP/1.1\r\n" HOST "\n"},
};

TEST(http_request_verdicts)
{
	for (size_t i = 0; i < ARRAY_LEN(verdict); i++) {
		struct http_request req;
		int r = parse(verdict[i].text, &req);

		if (r != verdict[i].want)
			print_message("# %d for %s\n", r, verdict[i].text);
		CHECK_EQ(r, verdict[i].want);
	}
}

TEST(http_request_with_a_nul_anywhere_is_malformed)
{
	static const char text[] = "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n";

	for (size_t i = 0; i + 4 < sizeof(text); i++) {
		struct http_request req;
		char copy[sizeof(text)];
		size_t head;

		memcpy(copy, text, sizeof(text));
		copy[i] = '\0';
		CHECK_EQ(parse_n(copy, sizeof(text) - 1, &req, &head), 400);
	}
}

TEST(http_rubbish_is_refused_at_the_byte_that_shows_it)
{
	static const struct {
		size_t n;
		const char *text;
	} row[] = {
		{1, "\026\003\001"}, /* TLS ClientHello */
		{1, "\200\200"},     /* SSL 2 */
		{1, "\377\376"},
		{1, "\n"},
		{4, "GET\t"},
		{2, "\rG"},
		{20, "GET / HTTP/1.1\r\nA: \001"},
		{18, "GET / HTTP/1.1\r\nA\n"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct http_request req;
		size_t head;

		CHECK_EQ(parse_n(row[i].text, row[i].n, &req, &head), 400);
		CHECK_EQ(parse_n(row[i].text, row[i].n - 1, &req, &head), HTTP_MORE);
	}
}

TEST(http_absolute_target_overrides_host)
{
	struct http_request req;

	CHECK_EQ(parse("GET ws://other:81?q HTTP/1.1\r\n" HOST "\r\n", &req), 0);
	CHECK(TEXT_IS(req.authority, "other:81"));
	CHECK(TEXT_IS(req.path, "/"));
	CHECK(TEXT_IS(req.query, "q"));
	CHECK_EQ(parse("GET http://h HTTP/1.1\r\nHost: x\r\n\r\n", &req), 0);
	CHECK(TEXT_IS(req.path, "/"));
	CHECK(!req.query.p);
	CHECK_EQ(parse("OPTIONS * HTTP/1.1\r\n" HOST "\r\n", &req), 0);
	CHECK(TEXT_IS(req.path, "*"));
	CHECK_EQ(parse("CONNECT c:1 HTTP/1.1\r\n" HOST "\r\n", &req), 0);
	CHECK(TEXT_IS(req.authority, "c:1"));
	CHECK(!req.path.p);
}

/* A request whose head is @size bytes long. */
static size_t put_head(char *out, size_t size)
{
	size_t n = (size_t)sprintf(out, "GET / HTTP/1.1\r\n" HOST "A: ");

	memset(out + n, 'a', size - n - 4);
	memcpy(out + size - 4, "\r\n\r\n", 4);
	return size;
}

TEST(http_head_may_have_its_limit_and_no_byte_more)
{
	static char text[2 * HTTP_MAX_HEAD];
	struct http_request req;
	size_t head;

	for (size_t size = HTTP_MAX_HEAD - 1; size <= HTTP_MAX_HEAD; size++) {
		put_head(text, size);
		CHECK_EQ(parse_n(text, size, &req, &head), 0);
		CHECK_EQ(head, size);
		CHECK_EQ(parse_n(text, size - 1, &req, &head), HTTP_MORE);
		CHECK_EQ(parse_n(text, size + 100, &req, &head), 0);
	}
	put_head(text, HTTP_MAX_HEAD + 1);
	CHECK_EQ(parse_n(text, HTTP_MAX_HEAD - 1, &req, &head), HTTP_MORE);
	CHECK_EQ(parse_n(text, HTTP_MAX_HEAD, &req, &head), 431);
	CHECK_EQ(parse_n(text, HTTP_MAX_HEAD + 1, &req, &head), 431);
	memset(text, 'A', sizeof(text));
	CHECK_EQ(parse_n(text, HTTP_MAX_HEAD - 1, &req, &head), HTTP_MORE);
	CHECK_EQ(parse_n(text, sizeof(text), &req, &head), 431);
	CHECK_EQ(http_parse_request(text, 100, 100, &req, &head), 431);
}

TEST(http_head_may_have_64_headers_and_no_more)
{
	struct http_request req;
	char text[2000];

	for (int count = HTTP_MAX_HEADERS - 1; count <= HTTP_MAX_HEADERS + 1; count++) {
		size_t n = (size_t)sprintf(text, "GET / HTTP/1.1\r\n" HOST);

		for (int i = 1; i < count; i++)
			n += (size_t)sprintf(text + n, "A%d: %d\r\n", i, i);
		strcpy(text + n, "\r\n");
		CHECK_EQ(parse(text, &req), count <= HTTP_MAX_HEADERS ? 0 : 431);
		if (count <= HTTP_MAX_HEADERS)
			CHECK_EQ(req.headers.count, count);
	}
}

TEST(http_request_is_untouched_on_failure)
{
	struct http_request req = {.version_minor = 77};
	size_t head = 99;

	CHECK_EQ(http_parse_request("GET / HTTP/1.1\r\n\r\n", 18, 100, &req, &head), 400);
	CHECK_EQ(http_parse_request("GET / HTTP/1.1\r\n", 16, 100, &req, &head), HTTP_MORE);
	CHECK_EQ(req.version_minor, 77);
	CHECK_EQ(head, 99);
}

TEST(http_list_walks_the_elements_of_all_lines)
{
	static const char *want[] = {"a", "b; x=\"1,2\\\",3\"", "c d", "e", "f;\"open, g"};
	struct http_request req;
	struct http_list pos = {0};
	struct http_text element;

	CHECK_EQ(parse("GET / HTTP/1.1\r\n" HOST "L: a ,, b; x=\"1,2\\\",3\"\t,c d\r\n"
		       "Other: z\r\nl:\r\nL: ,\r\nL: e,f;\"open, g\r\n\r\n",
		       &req),
		 0);
	for (size_t i = 0; i < ARRAY_LEN(want); i++) {
		CHECK(http_list_next(&req.headers, "L", &pos, &element));
		CHECK(TEXT_IS(element, want[i]));
	}
	CHECK(!http_list_next(&req.headers, "L", &pos, &element));
	CHECK(!http_list_next(&req.headers, "L", &pos, &element));
	CHECK(TEXT_IS(element, want[ARRAY_LEN(want) - 1]));
	CHECK_EQ(http_count(&req.headers, "l"), 4);
	CHECK_EQ(http_count(&req.headers, "m"), 0);
}

TEST(http_token_is_an_element_and_not_part_of_one)
{
	struct http_request req;

	CHECK_EQ(parse("GET / HTTP/1.1\r\n" HOST "Connection: keep-alive\r\n"
		       "Connection: x, UPGRADE\r\nUpgrade: websockets, h2c\r\n\r\n",
		       &req),
		 0);
	CHECK(http_has_token(&req, "connection", "upgrade"));
	CHECK(http_has_token(&req, "Connection", "Keep-Alive"));
	CHECK(!http_has_token(&req, "Upgrade", "websocket"));
	CHECK(!http_has_token(&req, "Missing", "x"));
}

TEST(http_has_body_unless_its_length_is_nothing)
{
	static const struct {
		bool want;
		const char *line;
	} row[] = {
		{false, ""},
		{false, "Content-Length: 0\r\n"},
		{false, "Content-Length: 000\r\n"},
		{true, "Content-Length: 1\r\n"},
		{true, "Content-Length: 0, 0\r\n"},
		{true, "Content-Length: -0\r\n"},
		{true, "Content-Length:\r\n"},
		{true, "Content-Length: 0\r\ncontent-length: 5\r\n"},
		{true, "transfer-encoding: chunked\r\n"},
		{true, "Transfer-Encoding:\r\n"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct http_request req;
		char text[200];

		sprintf(text, "GET / HTTP/1.1\r\n" HOST "%s\r\n", row[i].line);
		CHECK_EQ(parse(text, &req), 0);
		CHECK_EQ(http_has_body(&req), row[i].want);
	}
}

TEST(http_response_verdicts)
{
	static const struct {
		int want;
		int status;
		const char *text;
	} row[] = {
		{0, 101, "HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n"},
		{0, 503, "HTTP/1.0 503 \r\n\r\n"},
		{0, 404, "HTTP/1.1 404\r\n\r\n"},
		{0, 999, "HTTP/1.1 999 Gr\303\274n\tx\r\n\r\n"},
		{HTTP_MORE, 0, "HTTP/1.1 101 S\r\nA: b\r\n\r"},
		{HTTP_MORE, 0, ""},
		{400, 0, "HTTP/1.1 1010 S\r\n\r\n"},
		{400, 0, "HTTP/1.1 10 S\r\n\r\n"},
		{400, 0, "HTTP/1.1 1x1 S\r\n\r\n"},
		{400, 0, "HTTP/1.1 099 S\r\n\r\n"},
		{400, 0, "HTTP/1.1\r\n\r\n"},
		{400, 0, "SSH-2.0-x y\r\n"},
		{400, 0, "\r\nHTTP/1.1 101 S\r\n\r\n"},
		{400, 0, "HTTP/1.1 101 S\n\n"},
		{400, 0, "HTTP/1.1 101 S\r\n folded\r\n\r\n"},
		{400, 0, "HTTP/1.1 101 S\r\nA : b\r\n\r\n"},
		{505, 0, "HTTP/2.0 101 S\r\n\r\n"},
		{431, 0, "HTTP/1.1 200 a head that is longer than its limit of 50 bytes\r\n\r\n"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct http_response res = {.status = 7};
		size_t n = strlen(row[i].text), head = 7;

		CHECK_EQ(http_parse_response(row[i].text, n, 50, &res, &head), row[i].want);
		CHECK_EQ(res.status, row[i].want == 0 ? row[i].status : 7);
		CHECK_EQ(head, row[i].want == 0 ? n : 7);
	}
}

TEST(http_response_is_formatted_whole_or_not_at_all)
{
	static const char want[] = "HTTP/1.1 404 Not Found\r\n"
				   "Connection: close\r\n"
				   "Content-Type: text/plain; charset=utf-8\r\n"
				   "Content-Length: 3\r\n"
				   "X: y\r\n"
				   "\r\n"
				   "no\n";
	char out[300];

	for (size_t cap = 0; cap <= sizeof(want); cap++) {
		size_t n = http_format_response(out, cap, 404, "X: y\r\n", "no\n");

		CHECK_EQ(n, cap < sizeof(want) ? 0 : sizeof(want) - 1);
	}
	CHECK_STR(out, want);
	CHECK(http_format_response(out, sizeof(out), 299, NULL, NULL) > 0);
	CHECK_STR(out, "HTTP/1.1 299 Unknown\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
}

TEST(http_texts_compare)
{
	CHECK(http_text_is((struct http_text){0}, ""));
	CHECK(!http_text_is((struct http_text){0}, "x"));
	CHECK(http_text_is_nocase((struct http_text){"AbC", 3}, "aBc"));
	CHECK(!http_text_is_nocase((struct http_text){"abc", 2}, "abc"));
	CHECK(!http_text_is((struct http_text){"Abc", 3}, "abc"));
	CHECK_STR(http_status_text(426), "Upgrade Required");
}

/* Mutations of a proper request: no crash, no read past the end, and a verdict that only grows. */
TEST(http_parser_survives_any_bytes)
{
	static const char text[] = "GET http://h:1/a?b HTTP/1.1\r\nHost: [::1]:2\r\n"
				   "Connection: Upgrade, \"x\\\"\"\r\n\r\n";
	uint64_t seed = test_seed();

	for (int round = 0; round < 50000; round++) {
		struct http_request req;
		char copy[sizeof(text)];
		size_t head, n = 1 + test_random(&seed) % (sizeof(text) - 1);
		int early, late;

		memcpy(copy, text, sizeof(text));
		for (uint64_t k = test_random(&seed) % 4; k > 0; k--)
			copy[test_random(&seed) % sizeof(text)] = (char)test_random(&seed);
		early = parse_n(copy, n, &req, &head);
		late = parse_n(copy, sizeof(text) - 1, &req, &head);
		CHECK(early == HTTP_MORE || early == late);
		if (late == 0)
			(void)http_has_token(&req, "Connection", "upgrade");
	}
}
