/* SPDX-License-Identifier: MIT */
/*
 * Heads of HTTP, the opening handshake and ws:// URLs; each input is tried as each.
 * However a head is cut when it arrives, the verdict is that of the whole; what was
 * accepted, written down again in its plainest form, is read as the same; and what
 * the server answers to a handshake satisfies the client's side of it.
 */
#include "fuzz.h"

#include <stdio.h>

#include "base/text.h"
#include "client/ws_url.h"
#include "wire/http.h"
#include "wire/upgrade.h"

#define PIECES 40
#define ROOM 32768 /* for a head that is written down again */

static const char key[UPGRADE_KEY_TEXT] = "dGhlIHNhbXBsZSBub25jZQ==";

/* What one of the two parsers made of some bytes. */
struct verdict {
	int result;
	size_t head;
	struct http_request request;
	struct http_response response;
	char *bytes; /* the slices point into it */
};

static const struct http_headers *headers_of(const struct verdict *v, bool is_response)
{
	return is_response ? &v->response.headers : &v->request.headers;
}

static struct verdict parse(const void *p, size_t n, size_t limit, bool is_response)
{
	struct verdict v = {.bytes = fuzz_copy(p, n)};

	v.result = is_response ? http_parse_response(v.bytes, n, limit, &v.response, &v.head)
			       : http_parse_request(v.bytes, n, limit, &v.request, &v.head);
	WB_ASSERT(v.result == 0 || v.result == HTTP_MORE || v.result == 400 || v.result == 431 ||
		  v.result == 505);
	WB_ASSERT(v.result != 0 || (v.head > 0 && v.head <= n && v.head <= limit));
	return v;
}

static bool is_same(struct http_text a, struct http_text b)
{
	return !a.p == !b.p && a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static void check_same(const struct verdict *a, const struct verdict *b, bool is_response)
{
	const struct http_headers *x = headers_of(a, is_response);
	const struct http_headers *y = headers_of(b, is_response);

	if (is_response) {
		WB_ASSERT(a->response.status == b->response.status);
		WB_ASSERT(a->response.version_minor == b->response.version_minor);
	} else {
		WB_ASSERT(is_same(a->request.method, b->request.method));
		WB_ASSERT(is_same(a->request.target, b->request.target));
		WB_ASSERT(is_same(a->request.path, b->request.path));
		WB_ASSERT(is_same(a->request.query, b->request.query));
		WB_ASSERT(is_same(a->request.authority, b->request.authority));
		WB_ASSERT(a->request.version_minor == b->request.version_minor);
	}
	WB_ASSERT(x->count == y->count);
	for (unsigned i = 0; i < x->count; i++) {
		WB_ASSERT(is_same(x->at[i].name, y->at[i].name));
		WB_ASSERT(is_same(x->at[i].value, y->at[i].value));
	}
}

/* A text of an accepted head: inside of it, and without what could end or split a line. */
static void check_text(const struct verdict *v, struct http_text t)
{
	if (!t.p)
		return;
	WB_ASSERT(t.p >= v->bytes && t.p + t.n <= v->bytes + v->head);
	for (size_t i = 0; i < t.n; i++)
		WB_ASSERT(t.p[i] != '\r' && t.p[i] != '\n' && t.p[i] != '\0');
}

static void check_lists(const struct verdict *v, const struct http_headers *h)
{
	static const char *const lists[] = {"Connection", "Upgrade", "Sec-WebSocket-Extensions",
					    "Sec-WebSocket-Protocol", "Transfer-Encoding"};

	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		struct http_list at = {0};
		struct http_text t;
		size_t n = 0;

		while (http_list_next(h, lists[i], &at, &t)) {
			WB_ASSERT(t.n > 0 && ++n <= v->head);
			WB_ASSERT(t.p[0] != ' ' && t.p[0] != '\t' && t.p[0] != ',');
			WB_ASSERT(t.p[t.n - 1] != ' ' && t.p[t.n - 1] != '\t');
			check_text(v, t);
		}
		WB_ASSERT(n == 0 || http_headers_find(h, lists[i]));
	}
}

static void check_texts(const struct verdict *v, bool is_response)
{
	const struct http_headers *h = headers_of(v, is_response);

	WB_ASSERT(h->count <= HTTP_MAX_HEADERS);
	for (unsigned i = 0; i < h->count; i++) {
		WB_ASSERT(h->at[i].name.n > 0);
		check_text(v, h->at[i].name);
		check_text(v, h->at[i].value);
	}
	check_lists(v, h);
	if (is_response)
		return;
	check_text(v, v->request.method);
	check_text(v, v->request.target);
	if (!http_text_is(v->request.path, "/")) /* may stand for none in an absolute target */
		check_text(v, v->request.path);
	check_text(v, v->request.query);
	check_text(v, v->request.authority);
	WB_ASSERT(!v->request.path.p || v->request.path.n > 0);
}

/* Fed piece by piece, all that came so far each time. */
static void check_pieces(const uint8_t *p, size_t n, const struct verdict *whole, bool is_response)
{
	uint64_t random = fuzz_hash(p, n);
	size_t have = 0;
	int r = HTTP_MORE;

	for (int i = 0; have < n && r == HTTP_MORE; i++) {
		struct verdict v;

		have += i < PIECES ? fuzz_cut(&random, n - have) : n - have;
		v = parse(p, have, HTTP_MAX_HEAD, is_response);
		r = v.result;
		if (r == 0) {
			WB_ASSERT(v.head == whole->head);
			check_same(&v, whole, is_response);
		}
		free(v.bytes);
	}
	WB_ASSERT(n == 0 || r == whole->result);
}

static void put(struct buf *b, struct http_text t, const char *behind)
{
	fuzz_append(b, t.p, t.n);
	fuzz_append(b, behind, strlen(behind));
}

static void check_rewritten(const struct verdict *v, bool is_response)
{
	const struct http_headers *h = headers_of(v, is_response);
	struct verdict again;
	struct buf b = {0};
	char line[64];

	if (is_response) {
		snprintf(line, sizeof(line), "HTTP/1.%u %03d OK\r\n", v->response.version_minor,
			 v->response.status);
	} else {
		put(&b, v->request.method, " ");
		put(&b, v->request.target, " ");
		snprintf(line, sizeof(line), "HTTP/1.%u\r\n", v->request.version_minor);
	}
	fuzz_append(&b, line, strlen(line));
	for (unsigned i = 0; i < h->count; i++) {
		put(&b, h->at[i].name, ": ");
		put(&b, h->at[i].value, "\r\n");
	}
	fuzz_append(&b, "\r\n", 2);
	again = parse(b.data, b.len, b.len, is_response);
	WB_ASSERT(again.result == 0 && again.head == b.len);
	check_same(v, &again, is_response);
	free(again.bytes);
	buf_fini(&b);
}

/* A smaller limit changes nothing but that it may be met. */
static void check_limit(const uint8_t *p, size_t n, const struct verdict *whole, bool is_response)
{
	size_t limit = 1 + (size_t)(fuzz_hash(p, n) >> 40) % (n + 1);
	struct verdict v = parse(p, n, limit, is_response);

	WB_ASSERT(v.result == 431 || v.result == whole->result);
	free(v.bytes);
}

/* --------------------------------------------------------------------- handshake */

/* The server's answer to an accepted request, read by the client that sent it. */
static void check_answer(const struct http_request *request, const struct upgrade *u)
{
	const struct http_header *sent = http_find(request, "Sec-WebSocket-Key");
	char answer[1024], sent_key[UPGRADE_KEY_TEXT] = "";
	size_t n = upgrade_format_ok(answer, sizeof(answer), u, NULL), head = 0;
	int status = 0, r;

	WB_ASSERT(n > 0 && n < sizeof(answer));
	WB_ASSERT(sent && sent->value.n == UPGRADE_KEY_TEXT - 1);
	memcpy(sent_key, sent->value.p, sent->value.n);
	r = upgrade_check_response(answer, n, sent_key, &head, &status);
	WB_ASSERT(r == 0 && status == 101 && head == n);
}

/* The channel's name, written as a path, names the same channel. */
static void check_path(const struct upgrade *u)
{
	char path[1024], request[2048];
	struct http_request parsed;
	struct upgrade again;
	size_t n, head;
	int r;

	WB_ASSERT(u->channel_len <= MSG_CHANNEL_MAX && strlen(u->channel) == u->channel_len);
	WB_ASSERT(utf8_valid(u->channel, u->channel_len));
	n = ws_url_format_path(path, sizeof(path), u->channel);
	WB_ASSERT(n > 0);
	n = upgrade_format_request(request, sizeof(request), "localhost", path, key, NULL);
	WB_ASSERT(n > 0);
	r = http_parse_request(request, n, HTTP_MAX_HEAD, &parsed, &head);
	WB_ASSERT(r == 0 && head == n);
	r = upgrade_check(&parsed, &again);
	WB_ASSERT(r == 0 && strcmp(u->channel, again.channel) == 0);
}

static void check_upgrade(const struct http_request *request)
{
	char refusal[UPGRADE_MAX_REFUSAL];
	struct upgrade u;
	int r = upgrade_check(request, &u);

	(void)http_has_body(request);
	if (r == 0) {
		check_answer(request, &u);
		check_path(&u);
		return;
	}
	WB_ASSERT(r == 400 || r == 404 || r == 405 || r == 426);
	WB_ASSERT(upgrade_format_refusal(refusal, sizeof(refusal), r, 0) > 0);
}

/* The client's side: what a server may answer to a handshake. */
static void check_response(const uint8_t *p, size_t n)
{
	char *copy = fuzz_copy(p, n);
	size_t head = 0;
	int status = 0;
	int r = upgrade_check_response(copy, n, key, &head, &status);

	WB_ASSERT(r == 0 || r == HTTP_MORE || r == UPGRADE_E_REFUSED || r == UPGRADE_E_BROKEN);
	WB_ASSERT(r != 0 || (status == 101 && head > 0 && head <= n));
	WB_ASSERT(r != UPGRADE_E_REFUSED || (status >= 200 && status <= 999));
	free(copy);
}

/* A URL that is accepted makes a request that the server can read. */
static void check_url(const uint8_t *p, size_t n)
{
	char *text = fuzz_text(p, n), host[300], request[ROOM];
	struct http_request parsed;
	struct upgrade u;
	struct ws_url url;
	size_t head;
	int r;

	if (ws_url_parse(text, &url) == 0) {
		WB_ASSERT(url.path[0] == '/' && url.host[0]);
		WB_ASSERT(ws_url_format_host(host, sizeof(host), &url) > 0);
		n = upgrade_format_request(request, sizeof(request), host, url.path, key, NULL);
		WB_ASSERT(n > 0);
		r = http_parse_request(request, n, sizeof(request), &parsed, &head);
		WB_ASSERT(r == 0 && head == n);
		r = upgrade_check(&parsed, &u);
		WB_ASSERT(r == 0 || r == 404);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int is_response = 0; is_response < 2; is_response++) {
		struct verdict v = parse(data, size, HTTP_MAX_HEAD, is_response);

		check_pieces(data, size, &v, is_response);
		check_limit(data, size, &v, is_response);
		if (v.result == 0) {
			check_texts(&v, is_response);
			check_rewritten(&v, is_response);
			if (!is_response)
				check_upgrade(&v.request);
		}
		free(v.bytes);
	}
	check_response(data, size);
	check_url(data, size);
	return 0;
}
