/* SPDX-License-Identifier: MIT */
#include "wire/http.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define HTTP_VERSION_LEN 8 /* "HTTP/1.1" */
#define HTTP_MAX_PORT 65535

/* ----------------------------------------------------------------------------- text */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Of ASCII, whatever the locale says. */
static bool is_alnum(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* RFC 9110 section 5.6.2. */
static bool is_token_char(char c)
{
	return is_alnum(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c));
}

/* OWS of RFC 9110 section 5.6.3: what may stand around a value, and no other white space. */
static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

bool http_text_is_token(struct http_text t)
{
	for (size_t i = 0; i < t.n; i++)
		if (!is_token_char(t.p[i]))
			return false;
	return t.n > 0;
}

struct http_text http_trim(struct http_text t)
{
	while (t.n > 0 && is_blank(t.p[0])) {
		t.p++;
		t.n--;
	}
	while (t.n > 0 && is_blank(t.p[t.n - 1]))
		t.n--;
	return t;
}

bool http_cut(struct http_text *t, char c, struct http_text *ret_before)
{
	const char *at = t->n ? memchr(t->p, c, t->n) : NULL;

	if (!at)
		return false;
	*ret_before = (struct http_text){t->p, (size_t)(at - t->p)};
	t->n -= ret_before->n + 1;
	t->p = at + 1;
	return true;
}

bool http_text_is(struct http_text text, const char *word)
{
	/* A text that isn't there has no pointer, which memcmp() may not get even for 0 bytes. */
	return text.n == strlen(word) && memcmp(text.p ? text.p : "", word, text.n) == 0;
}

bool http_text_is_nocase(struct http_text text, const char *word)
{
	return text.n == strlen(word) && strncasecmp(text.p ? text.p : "", word, text.n) == 0;
}

/* Digits up to 65535, or nothing: RFC 3986 section 3.2.3 allows ":" without a port. */
static bool is_port(struct http_text t)
{
	unsigned long port = 0;

	for (size_t i = 0; i < t.n; i++) {
		if (!is_digit(t.p[i]))
			return false;
		port = port * 10 + (unsigned long)(t.p[i] - '0');
		/* At once: a number of any length would wrap around. */
		if (port > HTTP_MAX_PORT)
			return false;
	}
	return true;
}

/* RFC 3986 section 3.2.2 and a port; no user information, which RFC 9110 4.2.4 warns of. */
static bool is_authority(struct http_text t)
{
	const char *allowed = "-._~!$&'()*+,;=%";
	size_t i = 0;

	/*
	 * Nobody looks at the host, so it need not be an address or a name that exists; it may
	 * only have nothing in it that would end it elsewhere for another reader.
	 */
	if (t.n > 0 && t.p[0] == '[') {
		const char *end = memchr(t.p, ']', t.n);

		if (!end || end == t.p + 1)
			return false;
		for (i = 1; t.p + i < end; i++)
			if (!is_alnum(t.p[i]) && t.p[i] != ':' && t.p[i] != '.')
				return false;
		i++;
	} else {
		while (i < t.n && (is_alnum(t.p[i]) || (t.p[i] && strchr(allowed, t.p[i]))))
			i++;
	}
	if (i == t.n)
		return true;
	return t.p[i] == ':' && is_port((struct http_text){t.p + i + 1, t.n - i - 1});
}

/* ----------------------------------------------------------------------------- flaws */

/* What a head is refused for. The functions below return one, 0 or HTTP_MORE. */
enum {
	FLAW_LINE = HTTP_MORE + 1,
	FLAW_METHOD,
	FLAW_TARGET,
	FLAW_VERSION,
	FLAW_MAJOR,
	FLAW_STATUS,
	FLAW_HEADER,
	FLAW_MANY,
	FLAW_LONG,
	FLAW_NO_HOST,
	FLAW_HOSTS,
	FLAW_HOST,
	N_FLAWS,
};

static const struct {
	int status;
	const char *why;
} flaw_row[N_FLAWS] = {
	[FLAW_LINE] = {400, "a line has a control character, or does not end with CR LF"},
	[FLAW_METHOD] = {400, "no request line of HTTP: it has no method"},
	[FLAW_TARGET] = {400, "the target is neither a path nor a URL"},
	[FLAW_VERSION] = {400, "no request line of HTTP: it does not end with a version"},
	[FLAW_MAJOR] = {505, "another version than HTTP/1.1"},
	[FLAW_STATUS] = {400, "no status line of HTTP"},
	[FLAW_HEADER] = {400, "a header line without a name and a colon"},
	[FLAW_MANY] = {431, "more than 64 headers"},
	[FLAW_LONG] = {431, "a head of more than 8192 bytes; large cookies, or a large token?"},
	[FLAW_NO_HOST] = {400, "no Host"},
	[FLAW_HOSTS] = {400, "two lines of Host"},
	[FLAW_HOST] = {400, "Host is no name or address with a port"},
};

/* What speaks something else, by its first bytes; NULL: nothing that is known. */
static const char *foreign_protocol(const char *p, size_t n)
{
	static const struct {
		const char *p;
		size_t n;
		const char *why;
	} row[] = {
		{"\x16\x03", 2, "TLS, on a port without it: ws:// in the place of wss://"},
		{"PRI * HTTP/2", 12, "HTTP/2, where HTTP/1.1 is spoken"},
		{"PROXY ", 6, "a PROXY protocol header, and proxy_protocol is off"},
		{"\r\n\r\n\0\r\nQUIT\n", 12, "a PROXY protocol header, and proxy_protocol is off"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++)
		if (n >= row[i].n && memcmp(p, row[i].p, row[i].n) == 0)
			return row[i].why;
	return NULL;
}

/* ----------------------------------------------------------------------------- heads */

/*
 * The next line, which ends with CR LF and nothing else. What came of an unfinished
 * one is checked too: rubbish isn't waited for. A start line is ASCII; a header may
 * have tabs and bytes above 127.
 */
static int http_line(struct http_text *rest, bool is_start, struct http_text *ret)
{
	for (size_t i = 0; i < rest->n; i++) {
		uint8_t c = (uint8_t)rest->p[i];

		/* RFC 9112 section 2.2: a CR alone, taken for an end by some, smuggles headers. */
		if (c == '\r') {
			if (i + 1 == rest->n)
				return HTTP_MORE;
			if (rest->p[i + 1] != '\n')
				return FLAW_LINE;
			*ret = (struct http_text){rest->p, i};
			rest->p += i + 2;
			rest->n -= i + 2;
			return 0;
		}
		if (c == 127 || (c < ' ' && (is_start || c != '\t')) || (c > 127 && is_start))
			return FLAW_LINE;
	}
	return HTTP_MORE;
}

/*
 * RFC 9112 section 2.3: one digit, a dot, one digit. A minor version that nobody knows yet is
 * read like 1.1 (RFC 9110 section 2.5); another major one may mean anything.
 */
static int http_parse_version(struct http_text t, uint8_t *ret_minor)
{
	if (t.n != HTTP_VERSION_LEN || memcmp(t.p, "HTTP/", 5) != 0)
		return FLAW_VERSION;
	if (!is_digit(t.p[5]) || t.p[6] != '.' || !is_digit(t.p[7]))
		return FLAW_VERSION;
	if (t.p[5] != '1')
		return FLAW_MAJOR;
	*ret_minor = (uint8_t)(t.p[7] - '0');
	return 0;
}

/* Cuts scheme and authority off an absolute target. */
static bool http_parse_absolute(struct http_text *t, struct http_text *ret_authority)
{
	static const char *const scheme[] = {"http://", "https://", "ws://", "wss://"};

	for (size_t i = 0; i < ARRAY_LEN(scheme); i++) {
		size_t n = strlen(scheme[i]);
		size_t end = n;

		if (t->n <= n || strncasecmp(t->p, scheme[i], n) != 0)
			continue;
		/* What is left of the target begins with "/" or "?", or is nothing at all. */
		while (end < t->n && t->p[end] != '/' && t->p[end] != '?')
			end++;
		*ret_authority = (struct http_text){t->p + n, end - n};
		t->p += end;
		t->n -= end;
		return ret_authority->n > 0 && ret_authority->p[0] != ':' &&
		       is_authority(*ret_authority);
	}
	return false;
}

/* RFC 9112 section 3.2: which form a target has, and whether it may with this method. */
static bool http_parse_target(struct http_request *req)
{
	struct http_text t = req->target;

	/* A fragment is never sent; whoever sends one may read "#" in another way than we do. */
	for (size_t i = 0; i < t.n; i++)
		if (t.p[i] <= ' ' || t.p[i] == '#')
			return false;
	if (http_text_is(req->method, "CONNECT")) {
		req->authority = t;
		return t.p[0] != ':' && memchr(t.p, ':', t.n) && is_authority(t);
	}
	if (http_text_is(t, "*")) {
		req->path = t;
		return http_text_is(req->method, "OPTIONS");
	}
	/* An absolute target overrules the Host header: section 3.2.2, and http_check_host(). */
	if (t.p[0] != '/' && !http_parse_absolute(&t, &req->authority))
		return false;
	if (http_cut(&t, '?', &req->path))
		req->query = t;
	else
		req->path = t;
	if (req->path.n == 0)
		req->path = (struct http_text){"/", 1};
	return true;
}

static int http_parse_request_line(struct http_text line, struct http_request *req)
{
	int r;

	/* RFC 9112 section 3: one blank between each two, where lenient readers split at any. */
	if (!http_cut(&line, ' ', &req->method) || !http_text_is_token(req->method))
		return FLAW_METHOD;
	if (!http_cut(&line, ' ', &req->target) || req->target.n == 0)
		return FLAW_TARGET;
	r = http_parse_version(line, &req->version_minor);
	if (r)
		return r;
	return http_parse_target(req) ? 0 : FLAW_TARGET;
}

/* The reason behind the status may be missing, and its blank with it: servers differ. */
static int http_parse_status_line(struct http_text line, struct http_response *res)
{
	struct http_text version;
	int r;

	if (!http_cut(&line, ' ', &version))
		return FLAW_VERSION;
	r = http_parse_version(version, &res->version_minor);
	if (r)
		return r;
	/* RFC 9110 section 15: three digits, of which the first is a class from 1 up. */
	if (line.n < 3 || line.p[0] == '0' || (line.n > 3 && line.p[3] != ' '))
		return FLAW_STATUS;
	for (size_t i = 0; i < 3; i++) {
		if (!is_digit(line.p[i]))
			return FLAW_STATUS;
		res->status = res->status * 10 + (line.p[i] - '0');
	}
	return 0;
}

/* Header lines up to the empty one. A folded line begins with a blank, which is no token. */
static int http_parse_headers(struct http_text *rest, struct http_headers *h)
{
	for (;;) {
		/* One past the last when all are there; it is not written to then. */
		struct http_header *at = &h->at[h->count];
		struct http_text line;
		int r = http_line(rest, false, &line);

		if (r || line.n == 0)
			return r;
		if (h->count == HTTP_MAX_HEADERS)
			return FLAW_MANY;
		if (!http_cut(&line, ':', &at->name) || !http_text_is_token(at->name))
			return FLAW_HEADER;
		at->value = http_trim(line);
		h->count++;
	}
}

/* RFC 9112 section 3.2: Host once, and an authority; only HTTP/1.0 may be without. */
static int http_check_host(struct http_request *req)
{
	const struct http_header *host = http_find(req, "Host");
	unsigned count = http_count(&req->headers, "Host");

	/* Of two, a proxy in front may have looked at the other one. */
	if (count == 0 && req->version_minor > 0)
		return FLAW_NO_HOST;
	if (count > 1)
		return FLAW_HOSTS;
	if (host && !is_authority(host->value))
		return FLAW_HOST;
	if (host && !req->authority.p)
		req->authority = host->value;
	return 0;
}

/* Incomplete, but already as long as a head may be: no use to wait. */
static int http_bound(int r, size_t n, size_t limit)
{
	return r == HTTP_MORE && n >= limit ? FLAW_LONG : r;
}

int http_parse_request(const char *p, size_t n, size_t limit, struct http_request *ret,
		       size_t *ret_head_bytes)
{
	struct http_request req;
	struct http_text rest = {p, MIN(n, limit)};
	struct http_text line = {0};
	int r;

	/* Not the headers, 2 KiB: of these only what was read is looked at. */
	memset(&req, 0, offsetof(struct http_request, headers.at));
	r = http_line(&rest, true, &line);
	/* RFC 9112 section 2.2: a client of old may send one behind the request before. */
	if (r == 0 && line.n == 0)
		r = http_line(&rest, true, &line);
	if (r == 0)
		r = http_parse_request_line(line, &req);
	if (r == 0)
		r = http_parse_headers(&rest, &req.headers);
	if (r == 0)
		r = http_check_host(&req);
	if (r) {
		r = http_bound(r, n, limit);
		if (r == HTTP_MORE)
			return r;
		ret->why = foreign_protocol(p, n);
		if (!ret->why)
			ret->why = flaw_row[r].why;
		return flaw_row[r].status;
	}
	*ret = req;
	*ret_head_bytes = (size_t)(rest.p - p);
	return 0;
}

int http_parse_response(const char *p, size_t n, size_t limit, struct http_response *ret,
			size_t *ret_head_bytes)
{
	struct http_response res;
	struct http_text rest = {p, MIN(n, limit)};
	struct http_text line = {0};
	int r;

	memset(&res, 0, offsetof(struct http_response, headers.at));
	/* Not as a start line: a reason phrase may have bytes above 127 (RFC 9112 section 4). */
	r = http_line(&rest, false, &line);
	if (r == 0)
		r = http_parse_status_line(line, &res);
	if (r == 0)
		r = http_parse_headers(&rest, &res.headers);
	r = r ? http_bound(r, n, limit) : 0;
	if (r)
		return r == HTTP_MORE ? r : flaw_row[r].status;
	*ret = res;
	*ret_head_bytes = (size_t)(rest.p - p);
	return 0;
}

/* --------------------------------------------------------------------------- headers */

const struct http_header *http_headers_find(const struct http_headers *h, const char *name)
{
	for (unsigned i = 0; i < h->count; i++)
		if (http_text_is_nocase(h->at[i].name, name))
			return &h->at[i];
	return NULL;
}

unsigned http_count(const struct http_headers *h, const char *name)
{
	unsigned n = 0;

	for (unsigned i = 0; i < h->count; i++)
		n += http_text_is_nocase(h->at[i].name, name);
	return n;
}

/* Where the element that begins at @at ends: at a comma that no quotes enclose. */
static size_t http_element_end(struct http_text t, size_t at)
{
	bool is_quoted = false;

	for (; at < t.n; at++) {
		if (t.p[at] == ',' && !is_quoted)
			break;
		/* RFC 9110 section 5.6.4: a backslash takes the next character as it is. */
		if (t.p[at] == '"')
			is_quoted = !is_quoted;
		else if (t.p[at] == '\\' && is_quoted && at + 1 < t.n)
			at++;
	}
	return at;
}

bool http_list_next(const struct http_headers *h, const char *name, struct http_list *pos,
		    struct http_text *ret)
{
	for (; pos->line < h->count; pos->line++, pos->offset = 0) {
		struct http_text value = h->at[pos->line].value;

		if (!http_text_is_nocase(h->at[pos->line].name, name))
			continue;
		while (pos->offset < value.n) {
			size_t end = http_element_end(value, pos->offset);
			struct http_text element = {value.p + pos->offset, end - pos->offset};

			pos->offset = end + 1;
			element = http_trim(element);
			/* RFC 9110 section 5.6.1.2: empty ones are read and mean nothing. */
			if (element.n > 0) {
				*ret = element;
				return true;
			}
		}
	}
	return false;
}

bool http_headers_have_token(const struct http_headers *h, const char *name, const char *token)
{
	struct http_list pos = {0};
	struct http_text element;

	while (http_list_next(h, name, &pos, &element))
		if (http_text_is_nocase(element, token))
			return true;
	return false;
}

bool http_has_body(const struct http_request *req)
{
	for (unsigned i = 0; i < req->headers.count; i++) {
		const struct http_header *at = &req->headers.at[i];

		if (http_text_is_nocase(at->name, "Transfer-Encoding"))
			return true;
		if (!http_text_is_nocase(at->name, "Content-Length"))
			continue;
		/* Whatever isn't a plain zero counts as one: the number is of no use here. */
		for (size_t k = 0; k < at->value.n; k++)
			if (at->value.p[k] != '0')
				return true;
		if (at->value.n == 0)
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------- responses */

const char *http_status_text(int status)
{
	static const struct {
		int status;
		const char *text;
	} row[] = {
		{101, "Switching Protocols"},
		{200, "OK"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{408, "Request Timeout"},
		{422, "Unprocessable Content"},
		{426, "Upgrade Required"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"},
		{503, "Service Unavailable"},
		{505, "HTTP Version Not Supported"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++)
		if (row[i].status == status)
			return row[i].text;
	return "Unknown";
}

size_t http_format_response(char *out, size_t cap, int status, const char *extra_headers,
			    const char *body)
{
	size_t body_len = body ? strlen(body) : 0;
	/* Content-Length also without a body: else the client waits for the end to know. */
	int n = snprintf(out, cap,
			 "HTTP/1.1 %d %s\r\n"
			 "Connection: close\r\n"
			 "%s"
			 "Content-Length: %zu\r\n"
			 "%s"
			 "\r\n"
			 "%s",
			 status, http_status_text(status),
			 body_len ? "Content-Type: text/plain; charset=utf-8\r\n" : "", body_len,
			 extra_headers ? extra_headers : "", body ? body : "");

	return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}
