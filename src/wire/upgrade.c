/* SPDX-License-Identifier: MIT */
#include "wire/upgrade.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"

#define UPGRADE_KEY_LEN (UPGRADE_KEY_TEXT - 1)
#define UPGRADE_VERSION "13"
#define UPGRADE_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

/* ----------------------------------------------------------------------- the server's */

static bool is_base64_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '+' || c == '/';
}

/* Whether @key is the base64 form of 16 bytes. */
static bool upgrade_key_is_valid(struct http_text key)
{
	if (key.n != UPGRADE_KEY_LEN || memcmp(key.p + UPGRADE_KEY_LEN - 2, "==", 2) != 0)
		return false;
	for (size_t i = 0; i < UPGRADE_KEY_LEN - 2; i++)
		if (!is_base64_char(key.p[i]))
			return false;
	return true;
}

/* RFC 6455 section 4.2.2, item 5.4. @key has UPGRADE_KEY_LEN bytes. */
static bool upgrade_accept(const char *key, char out[UPGRADE_ACCEPT_TEXT])
{
	uint8_t text[UPGRADE_KEY_LEN + sizeof(UPGRADE_GUID) - 1];
	uint8_t digest[SHA_DIGEST_LENGTH];

	/* The key as it came, not the 16 bytes that it stands for. */
	memcpy(text, key, UPGRADE_KEY_LEN);
	memcpy(text + UPGRADE_KEY_LEN, UPGRADE_GUID, sizeof(UPGRADE_GUID) - 1);
	if (!SHA1(text, sizeof(text), digest))
		return false;
	(void)EVP_EncodeBlock((uint8_t *)out, digest, sizeof(digest));
	return true;
}

int upgrade_prepare(void)
{
	/* Any key will do. */
	static const char key[UPGRADE_KEY_LEN + 1] = "AAAAAAAAAAAAAAAAAAAAAA==";
	char accept[UPGRADE_ACCEPT_TEXT];

	return upgrade_accept(key, accept) ? 0 : -ENOTSUP;
}

static bool upgrade_has_channel(struct http_text path, struct upgrade *u)
{
	size_t n;

	/* The path without its "/"; what is escaped is a name's byte like any other, "/" too. */
	if (percent_decode(u->channel, MSG_CHANNEL_MAX, path.p + 1, path.n - 1, &n) < 0)
		return false;
	/* Names are compared as texts, and go into protobuf strings, which are UTF-8. */
	if (memchr(u->channel, '\0', n) || !utf8_valid(u->channel, n))
		return false;
	u->channel[n] = '\0';
	u->channel_len = n;
	return true;
}

/* Of the first line, where there are several: who may stand only once is counted elsewhere. */
static struct http_text upgrade_value(const struct http_request *req, const char *name)
{
	const struct http_header *h = http_find(req, name);

	return h ? h->value : (struct http_text){0};
}

/* What a request is refused for. */
enum flaw {
	FLAW_NONE,
	FLAW_METHOD,
	FLAW_BODY,
	FLAW_KEYS,
	FLAW_VERSIONS,
	FLAW_ORIGINS,
	FLAW_OLD_HTTP,
	FLAW_NO_UPGRADE,
	FLAW_CONNECTION,
	FLAW_NO_VERSION,
	FLAW_VERSION,
	FLAW_NO_KEY,
	FLAW_KEY,
	FLAW_CHANNEL,
	FLAW_SHA1,
	N_FLAWS,
};

static const struct {
	int status;
	const char *why;
} flaw_row[N_FLAWS] = {
	[FLAW_METHOD] = {405, "another method than GET"},
	[FLAW_BODY] = {400, "a body, which no handshake has"},
	[FLAW_KEYS] = {400, "two lines of Sec-WebSocket-Key"},
	[FLAW_VERSIONS] = {400, "two lines of Sec-WebSocket-Version"},
	[FLAW_ORIGINS] = {400, "two lines of Origin"},
	[FLAW_OLD_HTTP] = {426, "HTTP/1.0, which has no upgrade; nginx: proxy_http_version 1.1"},
	[FLAW_NO_UPGRADE] = {426, "no Upgrade: websocket; does a proxy take it away?"},
	[FLAW_CONNECTION] = {400, "Connection does not name upgrade; does a proxy take it away?"},
	[FLAW_NO_VERSION] = {426, "no Sec-WebSocket-Version"},
	[FLAW_VERSION] = {426, "another Sec-WebSocket-Version than 13"},
	[FLAW_NO_KEY] = {400, "no Sec-WebSocket-Key"},
	[FLAW_KEY] = {400, "Sec-WebSocket-Key is not 16 bytes in base64"},
	[FLAW_CHANNEL] = {404, "its path can be no channel's name: at most 255 bytes of UTF-8"},
	[FLAW_SHA1] = {503, "SHA-1 is not to be had"},
};

/* The header's list of verdicts, but for the channel. */
static enum flaw upgrade_verdict(const struct http_request *req, struct http_text key)
{
	const struct http_headers *h = &req->headers;

	/* In the order of the header's note: the first that applies is answered. */
	if (!http_text_is(req->method, "GET"))
		return FLAW_METHOD;
	if (http_has_body(req))
		return FLAW_BODY;
	/* RFC 6455 sections 11.3.1, 11.3.5 and RFC 6454: these are no lists. */
	if (http_count(h, "Sec-WebSocket-Key") > 1)
		return FLAW_KEYS;
	if (http_count(h, "Sec-WebSocket-Version") > 1)
		return FLAW_VERSIONS;
	if (http_count(h, "Origin") > 1)
		return FLAW_ORIGINS;
	if (req->version_minor < 1)
		return FLAW_OLD_HTTP;
	if (!http_has_token(req, "Upgrade", "websocket"))
		return FLAW_NO_UPGRADE;
	if (!http_has_token(req, "Connection", "upgrade"))
		return FLAW_CONNECTION;
	if (!http_find(req, "Sec-WebSocket-Version"))
		return FLAW_NO_VERSION;
	if (!http_text_is(upgrade_value(req, "Sec-WebSocket-Version"), UPGRADE_VERSION))
		return FLAW_VERSION;
	if (!key.p)
		return FLAW_NO_KEY;
	return upgrade_key_is_valid(key) ? FLAW_NONE : FLAW_KEY;
}

static void upgrade_select(const struct http_request *req, struct upgrade *u)
{
	static const char header[] = "Sec-WebSocket-Protocol", resume[] = "resume.";
	struct http_list pos = {0};
	struct http_text word;

	while (http_list_next(&req->headers, header, &pos, &word)) {
		if (http_text_is(word, "wsbind") && !u->selected.n)
			u->selected = word;
		if (word.n >= sizeof(resume) - 1 && memcmp(word.p, resume, sizeof(resume) - 1) == 0)
			u->resume = (struct http_text){word.p + sizeof(resume) - 1,
						       word.n - (sizeof(resume) - 1)};
		if (!http_text_is(word, "bearer") || u->bearer.p)
			continue;
		u->selected = word;
		/* Browsers cannot set headers: what stands behind it is no name but the token. */
		if (!http_list_next(&req->headers, header, &pos, &u->bearer))
			u->bearer = (struct http_text){"", 0};
	}
}

int upgrade_check(const struct http_request *req, struct upgrade *ret)
{
	struct http_text key = upgrade_value(req, "Sec-WebSocket-Key");
	struct upgrade u = {
		.query = req->query,
		.host = req->authority,
		.origin = upgrade_value(req, "Origin"),
		.extensions = upgrade_value(req, "Sec-WebSocket-Extensions"),
	};
	enum flaw flaw = upgrade_verdict(req, key);

	if (flaw == FLAW_NONE && !upgrade_accept(key.p, u.accept))
		flaw = FLAW_SHA1;
	/* No channel can be called so; whether there is one is the caller's question. */
	if (flaw == FLAW_NONE && !upgrade_has_channel(req->path, &u))
		flaw = FLAW_CHANNEL;
	u.why = flaw_row[flaw].why;
	upgrade_select(req, &u);
	*ret = u;
	return flaw_row[flaw].status;
}

/* What snprintf() returned, as the formatting functions return it. */
static size_t upgrade_fitted(int n, size_t cap)
{
	return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}

size_t upgrade_format_ok(char *out, size_t cap, const struct upgrade *u, const char *extension)
{
	bool selects = u->selected.n > 0;
	/* No header may be empty here: what was not selected is not named. */
	int n = snprintf(out, cap,
			 "HTTP/1.1 101 Switching Protocols\r\n"
			 "Upgrade: websocket\r\n"
			 "Connection: Upgrade\r\n"
			 "Sec-WebSocket-Accept: %s\r\n"
			 "%s%.*s%s"
			 "%s%s%s"
			 "\r\n",
			 u->accept, selects ? "Sec-WebSocket-Protocol: " : "",
			 selects ? (int)u->selected.n : 0, selects ? u->selected.p : "",
			 selects ? "\r\n" : "", extension ? "Sec-WebSocket-Extensions: " : "",
			 extension ? extension : "", extension ? "\r\n" : "");

	return upgrade_fitted(n, cap);
}

/* 405 needs Allow, 426 needs Upgrade: RFC 9110 sections 15.5.6, 15.5.22. */
static const struct refusal {
	int status;
	const char *headers;
	const char *body;
} refusal_row[] = {
	{400, "", "This is not a valid WebSocket handshake.\n"},
	{403, "", "This connection is not allowed.\n"},
	{404, "", "There is no such channel.\n"},
	{405, "Allow: GET\r\n", "A WebSocket handshake is a GET request.\n"},
	{426,
	 "Upgrade: websocket\r\nConnection: Upgrade\r\n"
	 "Sec-WebSocket-Version: " UPGRADE_VERSION "\r\n",
	 "This is a WebSocket service: connect with a WebSocket client, version "
	 "" UPGRADE_VERSION ".\n"},
	{429, "", "There are too many connections from this address.\n"},
	{431, "", "The request head is too large.\n"},
	{503, "", "No more connections are possible now.\n"},
	{505, "", "This service speaks HTTP/1.1.\n"},
};

static const struct refusal *refusal_find(int status)
{
	static const struct refusal none = {0, "", ""};

	for (size_t i = 0; i < ARRAY_LEN(refusal_row); i++)
		if (refusal_row[i].status == status)
			return &refusal_row[i];
	return &none;
}

const char *upgrade_refusal_text(int status)
{
	return refusal_find(status)->body;
}

size_t upgrade_format_refusal(char *out, size_t cap, int status, unsigned retry_after_s)
{
	const struct refusal *row = refusal_find(status);
	const char *headers = row->headers;
	char line[160];

	/* Neither of the two has headers of its own above. */
	if (retry_after_s && (status == 429 || status == 503)) {
		snprintf(line, sizeof(line), "Retry-After: %u\r\n", retry_after_s);
		headers = line;
	}
	return http_format_response(out, cap, status, headers, row->body);
}

/* ----------------------------------------------------------------------- the client's */

/* A blank or a line's end in a host or path would begin something else in the request. */
static bool is_visible(const char *text)
{
	for (; *text; text++)
		if (*text <= ' ' || *text > '~')
			return false;
	return true;
}

size_t upgrade_format_request(char *out, size_t cap, const char *host, const char *path,
			      const char key[UPGRADE_KEY_TEXT], const char *extra_headers)
{
	int n;

	/* From a URL on a command line: it may be anything. */
	if (!is_visible(host) || !is_visible(path))
		return 0;
	n = snprintf(out, cap,
		     "GET %s HTTP/1.1\r\n"
		     "Host: %s\r\n"
		     "Upgrade: websocket\r\n"
		     "Connection: Upgrade\r\n"
		     "Sec-WebSocket-Key: %s\r\n"
		     "Sec-WebSocket-Version: " UPGRADE_VERSION "\r\n"
		     "%s\r\n",
		     path, host, key, extra_headers ? extra_headers : "");
	return upgrade_fitted(n, cap);
}

void upgrade_format_key(char out[UPGRADE_KEY_TEXT], const uint8_t random[16])
{
	/* 16 bytes make 22 digits and "==", and EVP_EncodeBlock() adds the NUL. */
	(void)EVP_EncodeBlock((uint8_t *)out, random, 16);
}

/* Whether a 101 is the answer to the request that was sent with @key. */
static bool upgrade_is_accepted(const struct http_response *res, const char *key)
{
	const struct http_header *upgrade = http_headers_find(&res->headers, "Upgrade");
	const struct http_header *accept = http_headers_find(&res->headers, "Sec-WebSocket-Accept");
	char want[UPGRADE_ACCEPT_TEXT];

	/* RFC 6455 section 4.1, the numbered list on the response, items 2 to 6. */
	if (res->version_minor < 1 || !upgrade || !accept)
		return false;
	if (!http_text_is_nocase(upgrade->value, "websocket") ||
	    !http_headers_have_token(&res->headers, "Connection", "upgrade"))
		return false;
	if (http_count(&res->headers, "Sec-WebSocket-Accept") != 1 || !upgrade_accept(key, want) ||
	    !http_text_is(accept->value, want))
		return false;
	/* Nothing was offered, so nothing can have been chosen. */
	return !http_headers_find(&res->headers, "Sec-WebSocket-Extensions") &&
	       !http_headers_find(&res->headers, "Sec-WebSocket-Protocol");
}

int upgrade_check_response(const char *p, size_t n, const char key[UPGRADE_KEY_TEXT],
			   size_t *ret_head_bytes, int *ret_status)
{
	struct http_response res;
	size_t at = 0, head;

	/* RFC 9110 section 15.2: any number of interim responses, all within one bound. */
	do {
		int r = http_parse_response(p + at, n - at, HTTP_MAX_HEAD, &res, &head);

		if (r == HTTP_MORE && at < HTTP_MAX_HEAD)
			return HTTP_MORE;
		if (r)
			return UPGRADE_E_BROKEN;
		at += head;
	} while (res.status < 200 && res.status != 101);

	if (res.status == 101 && !upgrade_is_accepted(&res, key))
		return UPGRADE_E_BROKEN;
	*ret_status = res.status;
	if (res.status != 101)
		return UPGRADE_E_REFUSED;
	*ret_head_bytes = at;
	return 0;
}
