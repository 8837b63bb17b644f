/* SPDX-License-Identifier: MIT */
/*
 * By hand, since the answer of one known server needs little, and a library for HTTP clients
 * would bring TLS, proxies and redirects to a program that root runs.
 */
#include "tools/control_http.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/text.h"

#define READ_STEP 65536

/* What the head of an answer says. */
struct head {
	size_t n; /* bytes, with the empty line */
	int status;
	bool has_length;
	size_t length;
};

/* 0 | -ETIMEDOUT | -errno. */
static int wait_for(int fd, short events, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = events};
	int r;

	/* A signal begins the time anew: that only makes the wait longer. */
	do {
		r = poll(&p, 1, timeout_ms);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	return r == 0 ? -ETIMEDOUT : 0;
}

/* A unix socket connects at once; with a full backlog it says EAGAIN instead of waiting. */
static int connect_to(const char *path, int *ret_fd)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	WB_CLEANUP(fd_closep) int fd = -1;

	if (strlen(path) >= sizeof(to.sun_path))
		return -ENAMETOOLONG;
	memcpy(to.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* A server that has read enough (413) closes: then the answer is there to be read. */
static int send_all(int fd, const void *p, size_t n, int timeout_ms)
{
	size_t done = 0;

	while (done < n) {
		ssize_t sent = send(fd, (const char *)p + done, n - done, MSG_NOSIGNAL);
		int r;

		if (sent > 0) {
			done += (size_t)sent;
			continue;
		}
		if (errno == EPIPE || errno == ECONNRESET)
			return 0;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		r = wait_for(fd, POLLOUT, timeout_ms);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Head and body go out one after the other: the body may be long and is not copied. */
static int send_request(int fd, const struct control_request *q)
{
	struct buf head = {0};
	int r;

	/* "close" makes the end of the connection the end of an answer that has no length. */
	r = buf_printf(&head, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
		       q->method, q->target);
	if (r == 0 && q->type)
		r = buf_printf(&head, "Content-Type: %s\r\n", q->type);
	/*
	 * A POST without a body says so, since RFC 9110 section 8.6 has a server expect a length.
	 */
	if (r == 0 && strcmp(q->method, "GET") != 0)
		r = buf_printf(&head, "Content-Length: %zu\r\n", q->body_n);
	if (r == 0)
		r = buf_printf(&head, "\r\n");
	if (r == 0)
		r = send_all(fd, head.data, head.len, q->timeout_ms);
	buf_fini(&head);
	return r < 0 ? r : send_all(fd, q->body, q->body_n, q->timeout_ms);
}

/* Takes a header line that matters; false for one that makes the answer unreadable. */
static bool head_take_line(struct head *h, const char *line, size_t n)
{
	static const char length[] = "Content-Length:";
	static const char coding[] = "Transfer-Encoding:";
	char number[24] = "";
	uint64_t value;

	/* Our daemon sends no chunks: what does is another server. */
	if (n >= strlen(coding) && strncasecmp(line, coding, strlen(coding)) == 0)
		return false;
	if (n < strlen(length) || strncasecmp(line, length, strlen(length)) != 0)
		return true;
	line += strlen(length);
	n -= strlen(length);
	while (n > 0 && *line == ' ') {
		line++;
		n--;
	}
	/* Digits alone, few enough for a number: "+5" or a list of two is refused by the parser. */
	if (n >= sizeof(number))
		return false;
	memcpy(number, line, n);
	if (text_parse_count(number, &value) < 0 || value > CONTROL_HTTP_MAX_BODY)
		return false;
	h->has_length = true;
	h->length = (size_t)value;
	return true;
}

static bool head_parse(struct head *h, const char *text)
{
	const char *line = text;

	/* "HTTP/1.1 200 OK": three digits of a status from 100 on. */
	if (strncmp(text, "HTTP/1.", 7) != 0 || text[8] != ' ')
		return false;
	for (int i = 9; i < 12; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		h->status = h->status * 10 + (text[i] - '0');
	}
	/* Up to the empty line, whose own line break is the last that is found. */
	while ((line = strstr(line, "\r\n")) && line + 4 < text + h->n) {
		line += 2;
		if (!head_take_line(h, line, (size_t)(strstr(line, "\r\n") - line)))
			return false;
	}
	return h->status >= 200;
}

/* 0: no whole head yet | 1: it is there | CONTROL_HTTP_E_BROKEN is for the caller to say. */
static int head_find(struct head *h, const struct buf *in, bool *ret_is_broken)
{
	char *text = (char *)in->data;
	uint8_t *end = memmem(in->data, in->len, "\r\n\r\n", 4);
	char *copy;

	*ret_is_broken = !end && in->len > CONTROL_HTTP_MAX_HEAD;
	if (!end)
		return 0;
	h->n = (size_t)(end - in->data) + 4;
	/*
	 * A copy with a NUL behind it, for functions that look for one; a NUL inside shows as
	 * well.
	 */
	copy = strndup(text, h->n);
	if (!copy)
		return -ENOMEM;
	*ret_is_broken =
		h->n > CONTROL_HTTP_MAX_HEAD || strlen(copy) != h->n || !head_parse(h, copy);
	free(copy);
	return 1;
}

/* More bytes: > 0 | 0: the end | -errno. */
static ssize_t receive_some(int fd, struct buf *in, int timeout_ms)
{
	int r = buf_reserve(in, READ_STEP,
			    CONTROL_HTTP_MAX_HEAD + CONTROL_HTTP_MAX_BODY + READ_STEP);

	if (r < 0)
		return r;
	for (;;) {
		ssize_t n = recv(fd, in->data + in->len, READ_STEP, 0);

		if (n >= 0) {
			in->len += (size_t)n;
			return n;
		}
		/*
		 * A server that closed with our body unread resets; its answer was read before
		 * that.
		 */
		if (errno == ECONNRESET)
			return 0;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		r = wait_for(fd, POLLIN, timeout_ms);
		if (r < 0)
			return r;
	}
}

/* Reads until the answer is whole: 0, *@in begins with the head @h. */
static int receive_answer(int fd, int timeout_ms, struct head *h, struct buf *in)
{
	for (;;) {
		ssize_t n = receive_some(fd, in, timeout_ms);
		bool is_broken = false;

		if (n < 0)
			return (int)n;
		if (!h->n) {
			int r = head_find(h, in, &is_broken);

			if (r < 0)
				return r;
		}
		/*
		 * The end is one only where it was to come: behind the head, and without a length.
		 */
		if (is_broken || (n == 0 && !h->n))
			return CONTROL_HTTP_E_BROKEN;
		if (h->n && h->has_length && in->len >= h->n + h->length)
			return 0;
		if (n == 0)
			return h->has_length ? CONTROL_HTTP_E_BROKEN : 0;
	}
}

int control_http_ask(const struct control_request *request, struct control_answer *ret)
{
	WB_CLEANUP(fd_closep) int fd = -1;
	struct head h = {0};
	struct buf in = {0};
	int r;

	r = connect_to(request->socket_path, &fd);
	if (r == 0)
		r = send_request(fd, request);
	if (r == 0)
		r = receive_answer(fd, request->timeout_ms, &h, &in);
	if (r == 0) {
		/* More than was announced may have come: it is none of the answer. */
		buf_consume(&in, h.n);
		if (h.has_length)
			in.len = h.length;
		r = buf_append(&in, "", 1, BUF_NO_LIMIT);
	}
	if (r != 0) {
		buf_fini(&in);
		return r;
	}
	in.len--;
	*ret = (struct control_answer){.status = h.status, .body = in};
	return 0;
}

int control_http_encode(struct buf *out, const char *text)
{
	for (const char *p = text; *p; p++) {
		unsigned char c = (unsigned char)*p;
		/* Not even a slash is left: the query takes it, but some would not. */
		bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
				(c >= '0' && c <= '9') || strchr("-._~", c);
		int r = buf_printf(out, is_plain ? "%c" : "%%%02X", c);

		if (r < 0)
			return r;
	}
	return 0;
}
