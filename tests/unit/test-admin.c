/* SPDX-License-Identifier: MIT */
#include "service/admin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "containers/buf.h"
#include "test.h"

#define ID "6f1ad2c4-39c5-4b7e-8d53-8c6c2a0f1e11"
#define MAX_BODY 200000

/* A daemon's side of the routes: remembers what it was asked, answers when told. */
struct fake {
	struct admin *admin;
	char dir[64], path[100];
	bool is_healthy, is_ready, answers_at_once;
	int metrics_error;
	struct admin_request *waiting;
	unsigned calls;
	uint64_t offset, limit;
	char channel[300], id[40];
	bool is_text;
	struct buf body;
	uint64_t total;
	char objects[64];
};

/* One HTTP answer, taken apart. */
struct answer {
	int status;
	char *head, *body;
	char text[65536];
	size_t n;
	bool is_closed;
};

static void answer_metrics(void *ctx, struct admin_request *req)
{
	struct fake *f = ctx;
	struct buf text = {0};

	f->calls++;
	CHECK_EQ(buf_printf(&text, "# HELP x y\nx 1\n"), 0);
	admin_reply_metrics(req, &text, f->metrics_error);
	CHECK_EQ(text.len, 0);
}

static void answer_healthz(void *ctx, struct admin_request *req)
{
	struct fake *f = ctx;

	admin_reply_state(req, f->is_healthy, "worker 1 does not turn");
}

static void answer_readyz(void *ctx, struct admin_request *req)
{
	struct fake *f = ctx;

	admin_reply_state(req, f->is_ready, "stopping");
}

static void fake_answer_clients(struct fake *f, struct admin_request *req)
{
	struct buf objects = {0};

	CHECK_EQ(buf_append(&objects, f->objects, strlen(f->objects), BUF_NO_LIMIT), 0);
	admin_reply_list(req, "clients", &objects,
			 f->offset < f->total ? MIN(f->limit, f->total - f->offset) : 0, f->total);
	CHECK_EQ(objects.len, 0);
}

/* An array of its own name, with the order that was asked for in it. */
static void answer_channels(void *ctx, struct admin_request *req)
{
	static const char *const orders[] = {NULL, "members", "bytes"};
	struct buf objects = {0};
	struct admin_page page;
	unsigned order;

	(void)ctx;
	if (!admin_read_page(req, &page) ||
	    !admin_read_order(req, orders, ARRAY_LEN(orders), &order))
		return;
	CHECK_EQ(buf_printf(&objects, "\"%s\"", orders[order] ? orders[order] : "none"), 0);
	admin_reply_list(req, "channels", &objects, 1, 1);
}

static void answer_clients(void *ctx, struct admin_request *req)
{
	struct fake *f = ctx;

	struct admin_page page;

	if (!admin_read_page(req, &page))
		return;
	f->offset = page.offset;
	f->limit = page.limit;
	snprintf(f->channel, sizeof(f->channel), "%s", page.channel ? page.channel : "none");
	snprintf(f->id, sizeof(f->id), "%s", page.user ? page.user : "none");
	f->calls++;
	if (f->answers_at_once)
		fake_answer_clients(f, req);
	else
		f->waiting = req;
}

static void answer_reload(void *ctx, struct admin_request *req)
{
	struct fake *f = ctx;

	f->calls++;
	if (f->answers_at_once)
		admin_reply(req, 200, NULL, "nothing changed\n");
	else
		f->waiting = req;
}

static void answer_publish(void *ctx, struct admin_request *req)
{
	struct fake *f = ctx;
	struct admin_publication p;

	if (!admin_read_publication(req, &p))
		return;
	f->calls++;
	snprintf(f->channel, sizeof(f->channel), "%s", p.channel);
	f->is_text = p.is_text;
	buf_fini(&f->body);
	CHECK_EQ(buf_append(&f->body, p.body, p.n, BUF_NO_LIMIT), 0);
	if (f->answers_at_once)
		admin_reply_members(req, 42);
	else
		f->waiting = req;
}

static void answer_disconnect(void *ctx, struct admin_request *req)
{
	struct fake *f = ctx;
	struct admin_target target;

	if (!admin_read_target(req, &target))
		return;
	f->calls++;
	uuid4_format(f->id, target.id);
	if (f->answers_at_once)
		admin_reply_ended(req, &target, strcmp(f->id, ID) == 0);
	else
		f->waiting = req;
}

static admin_answer_fn *const answers[ADMIN_N_ROUTES] = {
#define ROUTE(name, ...) [ADMIN_ROUTE_##name] = answer_##name,
#include "service/admin_table.h"
};

static struct admin_options fake_options(struct fake *f)
{
	return (struct admin_options){.metrics_host = "127.0.0.1",
				      .control_path = f->path,
				      .max_body = MAX_BODY,
				      .answers = answers,
				      .ctx = f};
}

static struct fake *fake_new(void)
{
	struct fake *f = calloc(1, sizeof(*f));
	enum admin_listener failed;
	struct admin_options options;

	CHECK(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/wb-admin-XXXXXX");
	CHECK(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/control.sock", f->dir);
	f->is_healthy = f->is_ready = f->answers_at_once = true;
	snprintf(f->objects, sizeof(f->objects), "{\"id\":\"a\"},{\"id\":\"b\"}");
	f->total = 2;
	options = fake_options(f);
	CHECK_EQ(admin_new(&options, &failed, &f->admin), 0);
	return f;
}

static void fake_free(struct fake *f)
{
	f->admin = admin_free(f->admin);
	unlink(f->path);
	CHECK_EQ(rmdir(f->dir), 0);
	buf_fini(&f->body);
	free(f);
}

static int connect_unix(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	CHECK(fd >= 0);
	CHECK_EQ(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

static int connect_tcp(uint16_t port)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	CHECK_EQ(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

/* Lets the admin work for as long as its descriptor or timeout says, at most @ms without event. */
static void pump(struct fake *f, int client, short events, int ms)
{
	struct pollfd p[2] = {{.fd = admin_fd(f->admin), .events = POLLIN},
			      {.fd = client, .events = events}};
	int timeout = admin_timeout_ms(f->admin);

	CHECK(poll(p, 2, timeout >= 0 && timeout < ms ? timeout : ms) >= 0);
	admin_run(f->admin);
}

/* Turns until nothing happens any more: what came in was worked off. */
static void settle(struct fake *f)
{
	struct pollfd p = {.fd = admin_fd(f->admin), .events = POLLIN};

	for (int i = 0; i < 50 && (poll(&p, 1, 5) > 0 || admin_timeout_ms(f->admin) == 0); i++)
		admin_run(f->admin);
}

static void send_all(struct fake *f, int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN) {
			pump(f, fd, POLLOUT, 1000);
			continue;
		}
		if (sent < 0)
			return; /* the answer says why */
		p += sent;
		n -= (size_t)sent;
	}
}

static size_t content_length(const char *head)
{
	const char *p = strcasestr(head, "\r\nContent-Length:");

	return p ? strtoul(p + 17, NULL, 10) : 0;
}

/* Whole when the announced body is there, or the head alone for HEAD. */
static bool answer_is_whole(struct answer *a, bool is_head)
{
	char *end = strstr(a->text, "\r\n\r\n");

	if (!end)
		return false;
	a->head = a->text;
	a->body = end + 4;
	a->status = atoi(a->text + strlen("HTTP/1.1 "));
	return is_head || strlen(a->body) >= content_length(a->text);
}

static struct answer *receive(struct fake *f, int fd, bool is_head)
{
	struct answer *a = calloc(1, sizeof(*a));

	CHECK(a);
	for (int i = 0; i < 2000 && !answer_is_whole(a, is_head) && !a->is_closed; i++) {
		ssize_t n = recv(fd, a->text + a->n, sizeof(a->text) - 1 - a->n, 0);

		if (n > 0)
			a->n += (size_t)n;
		else if (n == 0 || errno != EAGAIN)
			a->is_closed = true;
		else
			pump(f, fd, POLLIN, 1000);
	}
	return a;
}

/* Sends a request on the control socket and waits for its answer. */
static struct answer *ask(struct fake *f, const char *head, const char *body, size_t n)
{
	int fd = connect_unix(f->path);
	char text[1024];
	struct answer *a;

	snprintf(text, sizeof(text), "%s\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n", head,
		 n);
	if (n == 0)
		snprintf(text, sizeof(text), "%s\r\nHost: localhost\r\n\r\n", head);
	send_all(f, fd, text, strlen(text));
	send_all(f, fd, body, n);
	a = receive(f, fd, strncmp(head, "HEAD", 4) == 0);
	close(fd);
	settle(f);
	return a;
}

static void expect(struct fake *f, const char *head, int status, const char *body)
{
	struct answer *a = ask(f, head, "", 0);

	if (a->status != status || (body && strcmp(a->body, body) != 0))
		fprintf(stderr, "# %s: %s\n", head, a->text);
	CHECK_EQ(a->status, status);
	if (body)
		CHECK_STR(a->body, body);
	free(a);
}

TEST(admin_serves_metrics_on_both_listeners)
{
	struct fake *f = fake_new();
	int fd = connect_tcp(admin_port(f->admin));
	const char get[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
	struct answer *a;

	expect(f, "GET /metrics HTTP/1.1", 200, "# HELP x y\nx 1\n");
	send_all(f, fd, get, strlen(get));
	a = receive(f, fd, false);
	CHECK_EQ(a->status, 200);
	CHECK_STR(a->body, "# HELP x y\nx 1\n");
	CHECK(strcasestr(a->head, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
	free(a);
	/* The connection stays for the next scrape. */
	send_all(f, fd, get, strlen(get));
	a = receive(f, fd, false);
	CHECK_EQ(a->status, 200);
	free(a);
	close(fd);
	CHECK_EQ(f->calls, 3);
	fake_free(f);
}

TEST(admin_head_has_no_body)
{
	struct fake *f = fake_new();
	struct answer *a = ask(f, "HEAD /metrics HTTP/1.1", "", 0);

	CHECK_EQ(a->status, 200);
	CHECK_STR(a->body, "");
	CHECK_EQ(content_length(a->head), strlen("# HELP x y\nx 1\n"));
	free(a);
	fake_free(f);
}

TEST(admin_metrics_that_fail_are_500)
{
	struct fake *f = fake_new();

	f->metrics_error = -ENOMEM;
	expect(f, "GET /metrics HTTP/1.1", 500, NULL);
	fake_free(f);
}

TEST(admin_health_and_readiness_say_why_not)
{
	struct fake *f = fake_new();

	expect(f, "GET /healthz HTTP/1.1", 200, "ok\n");
	expect(f, "GET /readyz HTTP/1.1", 200, "ok\n");
	f->is_healthy = f->is_ready = false;
	expect(f, "GET /healthz HTTP/1.1", 503, "worker 1 does not turn\n");
	expect(f, "GET /readyz HTTP/1.1", 503, "stopping\n");
	fake_free(f);
}

TEST(admin_tcp_listener_knows_nothing_that_only_admins_may)
{
	static const char *const requests[] = {
		"GET /clients", "POST /reload", "POST /publish?channel=", "POST /disconnect?id=" ID,
		"GET /",        "GET /metrics/"};
	struct fake *f = fake_new();
	char text[200];

	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		int fd = connect_tcp(admin_port(f->admin));
		struct answer *a;

		snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: localhost\r\n\r\n", requests[i]);
		send_all(f, fd, text, strlen(text));
		a = receive(f, fd, false);
		CHECK_EQ(a->status, 404);
		free(a);
		close(fd);
	}
	CHECK_EQ(f->calls, 0);
	settle(f);
	fake_free(f);
}

TEST(admin_wrong_method_names_the_right_one)
{
	static const struct {
		const char *request, *allow;
	} cases[] = {
		{"POST /metrics HTTP/1.1", "Allow: GET, HEAD\r\n"},
		{"DELETE /clients HTTP/1.1", "Allow: GET, HEAD\r\n"},
		{"GET /reload HTTP/1.1", "Allow: POST\r\n"},
		{"HEAD /publish HTTP/1.1", "Allow: POST\r\n"},
		{"PUT /disconnect HTTP/1.1", "Allow: POST\r\n"},
	};
	struct fake *f = fake_new();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct answer *a = ask(f, cases[i].request, "", 0);

		CHECK_EQ(a->status, 405);
		CHECK(strcasestr(a->head, cases[i].allow));
		free(a);
	}
	expect(f, "GET /nothing HTTP/1.1", 404, NULL);
	CHECK_EQ(f->calls, 0);
	fake_free(f);
}

TEST(admin_clients_may_be_those_of_a_channel_or_a_user)
{
	struct fake *f = fake_new();
	char text[400];

	expect(f, "GET /clients HTTP/1.1", 200, NULL);
	CHECK_STR(f->channel, "none");
	CHECK_STR(f->id, "none");
	expect(f, "GET /clients?channel=a%20b&user=me HTTP/1.1", 200, NULL);
	CHECK_STR(f->channel, "a b");
	CHECK_STR(f->id, "me");
	expect(f, "GET /clients?channel= HTTP/1.1", 200, NULL);
	CHECK_STR(f->channel, "");
	f->calls = 0;
	expect(f, "GET /clients?channel=%ff HTTP/1.1", 400, NULL);
	expect(f, "GET /clients?user=a%00b HTTP/1.1", 400, NULL);
	snprintf(text, sizeof(text), "GET /clients?user=%0129d HTTP/1.1", 0);
	expect(f, text, 400, NULL);
	CHECK_EQ(f->calls, 0);
	fake_free(f);
}

TEST(admin_clients_are_paged)
{
	struct fake *f = fake_new();

	f->total = 250;
	expect(f, "GET /clients HTTP/1.1", 200,
	       "{\"clients\":[{\"id\":\"a\"},{\"id\":\"b\"}],\"total\":250,\"next\":100}\n");
	CHECK_EQ(f->offset, 0);
	CHECK_EQ(f->limit, ADMIN_CLIENTS_DEFAULT);
	expect(f, "GET /clients?offset=200&limit=50 HTTP/1.1", 200,
	       "{\"clients\":[{\"id\":\"a\"},{\"id\":\"b\"}],\"total\":250,\"next\":null}\n");
	CHECK_EQ(f->offset, 200);
	CHECK_EQ(f->limit, 50);
	expect(f, "GET /clients?limit=5000 HTTP/1.1", 200, NULL);
	CHECK_EQ(f->limit, ADMIN_CLIENTS_MAX);
	f->objects[0] = '\0';
	f->total = 0;
	expect(f, "GET /clients HTTP/1.1", 200, "{\"clients\":[],\"total\":0,\"next\":null}\n");
	/* An offset near the end of the numbers does not wrap to a page that exists. */
	f->total = 500;
	expect(f, "GET /clients?offset=18446744073709551615 HTTP/1.1", 200,
	       "{\"clients\":[],\"total\":500,\"next\":null}\n");
	f->calls = 0;
	expect(f, "GET /clients?limit=0 HTTP/1.1", 400, NULL);
	expect(f, "GET /clients?limit=-1 HTTP/1.1", 400, NULL);
	expect(f, "GET /channels?sort=members HTTP/1.1", 200,
	       "{\"channels\":[\"members\"],\"total\":1,\"next\":null}\n");
	expect(f, "GET /channels HTTP/1.1", 200,
	       "{\"channels\":[\"none\"],\"total\":1,\"next\":null}\n");
	expect(f, "GET /channels?sort=beauty HTTP/1.1", 400, "sort is one of: members bytes\n");
	expect(f, "GET /channels?sort= HTTP/1.1", 400, NULL);
	expect(f, "GET /clients?offset=x HTTP/1.1", 400, NULL);
	expect(f, "GET /clients?offset= HTTP/1.1", 400, NULL);
	CHECK_EQ(f->calls, 0);
	fake_free(f);
}

TEST(admin_publish_takes_text_and_messages)
{
	static const char text[] = "POST /publish?channel=room%2F7 HTTP/1.1\r\n"
				   "Content-Type: text/plain; charset=utf-8";
	static const char packed[] = "POST /publish?channel= HTTP/1.1\r\n"
				     "Content-Type: application/x-protobuf";
	struct fake *f = fake_new();
	struct answer *a = ask(f, text, "h\xc3\xa9llo", 6);

	CHECK_EQ(a->status, 200);
	CHECK_STR(a->body, "{\"members\":42}\n");
	CHECK_STR(f->channel, "room/7");
	CHECK(f->is_text);
	CHECK_EQ(f->body.len, 6);
	CHECK_MEM(f->body.data, "h\xc3\xa9llo", 6);
	free(a);
	a = ask(f, packed, "\x08\xff\x00\x01", 4);
	CHECK_EQ(a->status, 200);
	CHECK_STR(f->channel, "");
	CHECK(!f->is_text);
	CHECK_MEM(f->body.data, "\x08\xff\x00\x01", 4);
	free(a);
	fake_free(f);
}

TEST(admin_publish_refuses_what_makes_no_message)
{
	struct fake *f = fake_new();
	char long_channel[400] = "POST /publish?channel=";
	struct answer *a;

	a = ask(f, "POST /publish?channel= HTTP/1.1\r\nContent-Type: text/plain", "\xff\xfe", 2);
	CHECK_EQ(a->status, 400);
	free(a);
	a = ask(f, "POST /publish?channel= HTTP/1.1\r\nContent-Type: text/html", "x", 1);
	CHECK_EQ(a->status, 415);
	free(a);
	a = ask(f, "POST /publish?channel= HTTP/1.1", "x", 1);
	CHECK_EQ(a->status, 415);
	free(a);
	expect(f, "POST /publish HTTP/1.1\r\nContent-Type: text/plain", 400, NULL);
	expect(f, "POST /publish?chanel=x HTTP/1.1\r\nContent-Type: text/plain", 400, NULL);
	expect(f, "POST /publish?channel=x&chanel=y HTTP/1.1\r\nContent-Type: text/plain", 400,
	       NULL);
	expect(f, "POST /publish?channel=x&channel=y HTTP/1.1\r\nContent-Type: text/plain", 400,
	       NULL);
	expect(f, "POST /publish?channel=%FF HTTP/1.1\r\nContent-Type: text/plain", 400, NULL);
	expect(f, "POST /publish?channel=a%00b HTTP/1.1\r\nContent-Type: text/plain", 400, NULL);
	memset(long_channel + 22, 'a', 256);
	strcat(long_channel, " HTTP/1.1\r\nContent-Type: text/plain");
	expect(f, long_channel, 400, NULL);
	CHECK_EQ(f->calls, 0);
	/* One byte less is a channel. */
	memmove(long_channel + 22, long_channel + 23, strlen(long_channel + 22));
	expect(f, long_channel, 200, NULL);
	CHECK_EQ(strlen(f->channel), ADMIN_CHANNEL_MAX);
	fake_free(f);
}

static int publish_bytes(struct fake *f, size_t n)
{
	char *body = malloc(n);
	struct answer *a;
	int status;

	CHECK(body);
	memset(body, 'x', n);
	a = ask(f, "POST /publish?channel= HTTP/1.1\r\nContent-Type: text/plain", body, n);
	status = a->status;
	free(a);
	free(body);
	return status;
}

TEST(admin_body_past_the_limit_is_413)
{
	struct fake *f = fake_new();

	CHECK_EQ(publish_bytes(f, MAX_BODY), 200);
	CHECK_EQ(f->body.len, MAX_BODY);
	CHECK_EQ(publish_bytes(f, MAX_BODY + 1), 413);
	admin_set_max_body(f->admin, MAX_BODY + 1);
	CHECK_EQ(publish_bytes(f, MAX_BODY + 1), 200);
	CHECK_EQ(f->calls, 2);
	fake_free(f);
}

/* Nobody has to send 2 GB to be told that they are too many. */
TEST(admin_announced_body_is_refused_before_it_comes)
{
	static const char *const heads[] = {
		"POST /publish?channel= HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
		"2147483648\r\n\r\n",
		"POST /publish?channel= HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
		"2147483648\r\n"
		"Expect: 100-continue\r\n\r\n",
		"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4097\r\n\r\n",
	};
	struct fake *f = fake_new();

	for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
		int fd = connect_unix(f->path);
		struct answer *a;

		send_all(f, fd, heads[i], strlen(heads[i]));
		a = receive(f, fd, false);
		CHECK_EQ(a->status, 413);
		free(a);
		close(fd);
		settle(f);
	}
	CHECK_EQ(f->calls, 0);
	fake_free(f);
}

/* Sends @n bytes in chunks of 1000; the status, or 0 when the connection was closed without one. */
static int publish_chunked(struct fake *f, const char *target, size_t n)
{
	int fd = connect_unix(f->path), status;
	char text[1200];
	struct answer *a;

	snprintf(text, sizeof(text),
		 "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
		 "Transfer-Encoding: chunked\r\n\r\n",
		 target);
	send_all(f, fd, text, strlen(text));
	memset(text, 'x', sizeof(text));
	memcpy(text, "3e8\r\n", 5);
	memcpy(text + 1005, "\r\n", 2);
	for (size_t sent = 0; sent < n; sent += 1000)
		send_all(f, fd, text, 1007);
	send_all(f, fd, "0\r\n\r\n", 5);
	a = receive(f, fd, false);
	status = a->status;
	free(a);
	close(fd);
	settle(f);
	return status;
}

TEST(admin_chunked_body_is_bounded_too)
{
	struct fake *f = fake_new();

	CHECK_EQ(publish_chunked(f, "/publish?channel=", MAX_BODY), 200);
	CHECK_EQ(f->body.len, MAX_BODY);
	CHECK_EQ(publish_chunked(f, "/publish?channel=", MAX_BODY + 1000), 413);
	CHECK_EQ(publish_chunked(f, "/reload", 4000), 200);
	CHECK_EQ(publish_chunked(f, "/reload", 5000), 413);
	/* Who goes on and on is cut off. */
	CHECK_EQ(publish_chunked(f, "/publish?channel=", 8 << 20), 0);
	CHECK_EQ(f->calls, 2);
	fake_free(f);
}

TEST(admin_disconnect_finds_or_not)
{
	struct fake *f = fake_new();

	expect(f, "POST /disconnect?id=" ID " HTTP/1.1", 200, NULL);
	CHECK_STR(f->id, ID);
	expect(f, "POST /disconnect?id=00000000-0000-4000-8000-000000000000 HTTP/1.1", 404, NULL);
	f->calls = 0;
	expect(f, "POST /disconnect HTTP/1.1", 400, NULL);
	expect(f, "POST /disconnect?id=7 HTTP/1.1", 400, NULL);
	CHECK_EQ(f->calls, 0);
	fake_free(f);
}

/* Turns of the loop pass between question and answer; other requests go on meanwhile. */
TEST(admin_answer_may_come_later)
{
	static const char post[] = "POST /reload HTTP/1.1\r\nHost: localhost\r\n\r\n";
	struct fake *f = fake_new();
	int fd = connect_unix(f->path);
	struct answer *a;
	char c;

	f->answers_at_once = false;
	send_all(f, fd, post, strlen(post));
	for (int i = 0; i < 100 && !f->waiting; i++)
		pump(f, -1, 0, 1000);
	CHECK(f->waiting);
	expect(f, "GET /healthz HTTP/1.1", 200, "ok\n");
	CHECK(recv(fd, &c, 1, 0) < 0 && errno == EAGAIN);
	admin_reply(f->waiting, 422, NULL, "port: 99999 is too large\nhost: no address\n");
	a = receive(f, fd, false);
	CHECK_EQ(a->status, 422);
	CHECK_STR(a->body, "port: 99999 is too large\nhost: no address\n");
	free(a);
	/* The connection is good for another one. */
	f->answers_at_once = true;
	send_all(f, fd, post, strlen(post));
	a = receive(f, fd, false);
	CHECK_EQ(a->status, 200);
	CHECK_STR(a->body, "nothing changed\n");
	free(a);
	close(fd);
	fake_free(f);
}

/* Asks and leaves @f->waiting with a request that is not answered yet. */
static int ask_and_wait(struct fake *f)
{
	static const char get[] = "GET /clients HTTP/1.1\r\nHost: localhost\r\n\r\n";
	int fd = connect_unix(f->path);

	f->answers_at_once = false;
	f->waiting = NULL;
	send_all(f, fd, get, strlen(get));
	for (int i = 0; i < 100 && !f->waiting; i++)
		pump(f, -1, 0, 1000);
	CHECK(f->waiting);
	return fd;
}

TEST(admin_client_that_hung_up_meanwhile_is_fine)
{
	struct fake *f = fake_new();

	close(ask_and_wait(f));
	settle(f);
	fake_answer_clients(f, f->waiting);
	settle(f);
	f->answers_at_once = true;
	expect(f, "GET /healthz HTTP/1.1", 200, "ok\n");
	fake_free(f);
}

TEST(admin_free_answers_who_waits_and_late_replies_are_fine)
{
	struct fake *f = fake_new();
	int fd = ask_and_wait(f);
	struct answer *a;

	f->admin = admin_free(f->admin);
	a = receive(f, fd, false);
	CHECK_EQ(a->status, 503);
	free(a);
	close(fd);
	fake_answer_clients(f, f->waiting);
	fake_free(f);
}

TEST(admin_half_a_request_does_no_harm)
{
	static const char half[] = "POST /publish?channel= HTTP/1.1\r\nHost: "
				   "localhost\r\nContent-Length: 9\r\n\r\nabc";
	struct fake *f = fake_new();

	for (size_t n = 0; n <= strlen(half); n += 3) {
		int fd = connect_unix(f->path);

		send_all(f, fd, half, n);
		settle(f);
		close(fd);
		settle(f);
	}
	CHECK_EQ(f->calls, 0);
	expect(f, "GET /healthz HTTP/1.1", 200, "ok\n");
	fake_free(f);
}

/* More halves than there is room for, on either listener: the oldest makes room, others stay. */
TEST(admin_half_requests_keep_nobody_out)
{
	static const char half[] = "GET /healthz HTTP/1.1\r\nHost:";
	struct fake *f = fake_new();
	int fds[ADMIN_MAX_CONNECTIONS + 1];
	struct answer *a;

	for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
		fds[i] = connect_unix(f->path);
		send_all(f, fds[i], half, strlen(half));
		settle(f);
	}
	expect(f, "GET /healthz HTTP/1.1", 200, "ok\n");
	a = receive(f, fds[0], false);
	CHECK(a->is_closed);
	free(a);
	send_all(f, fds[ADMIN_MAX_CONNECTIONS], " x\r\n\r\n", 6);
	a = receive(f, fds[ADMIN_MAX_CONNECTIONS], false);
	CHECK_EQ(a->status, 200);
	free(a);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
	settle(f);
	fake_free(f);
}

TEST(admin_garbage_gets_no_further)
{
	struct fake *f = fake_new();
	int fd = connect_tcp(admin_port(f->admin));
	struct answer *a;

	send_all(f, fd, "\x16\x03\x01\r\n\r\n\r\n", 9);
	a = receive(f, fd, false);
	CHECK(a->is_closed || a->status >= 400);
	free(a);
	close(fd);
	settle(f);
	fake_free(f);
}

TEST(admin_control_socket_is_for_owner_and_group)
{
	struct fake *f = fake_new();
	mode_t mask = umask(0077);
	enum admin_listener failed;
	struct admin_options options;
	struct stat st;

	CHECK_EQ(stat(f->path, &st), 0);
	CHECK(S_ISSOCK(st.st_mode));
	CHECK_EQ(st.st_mode & 07777, 0660);
	/* Whatever the umask. */
	f->admin = admin_free(f->admin);
	CHECK(stat(f->path, &st) < 0 && errno == ENOENT);
	options = fake_options(f);
	CHECK_EQ(admin_new(&options, &failed, &f->admin), 0);
	CHECK_EQ(stat(f->path, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0660);
	umask(mask);
	fake_free(f);
}

TEST(admin_taken_port_is_named)
{
	struct fake *f = fake_new();
	struct admin_options options = fake_options(f);
	enum admin_listener failed = ADMIN_CONTROL;
	struct admin *second = NULL;

	options.metrics_port = admin_port(f->admin);
	options.control_path = NULL;
	CHECK(admin_new(&options, &failed, &second) == -EADDRINUSE);
	CHECK_EQ(failed, ADMIN_METRICS);
	CHECK(!second);
	options.metrics_host = "localhost.example";
	CHECK(admin_new(&options, &failed, &second) == -EINVAL);
	CHECK_EQ(failed, ADMIN_METRICS);
	fake_free(f);
}

TEST(admin_live_socket_is_left_alone_and_a_stale_one_replaced)
{
	struct fake *f = fake_new();
	struct admin_options options = fake_options(f);
	enum admin_listener failed = ADMIN_METRICS;
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct admin *second = NULL;
	int fd;

	CHECK(admin_new(&options, &failed, &second) == -EADDRINUSE);
	CHECK_EQ(failed, ADMIN_CONTROL);
	settle(f);
	expect(f, "GET /healthz HTTP/1.1", 200, "ok\n");
	f->admin = admin_free(f->admin);
	/* A socket file without a process, as a crash leaves it. */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(to.sun_path, sizeof(to.sun_path), "%s", f->path);
	CHECK_EQ(bind(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	close(fd);
	CHECK_EQ(admin_new(&options, &failed, &f->admin), 0);
	expect(f, "GET /healthz HTTP/1.1", 200, "ok\n");
	fake_free(f);
}

TEST(admin_never_removes_what_is_not_its_socket)
{
	struct fake *f = fake_new();
	struct admin_options options = fake_options(f);
	enum admin_listener failed;
	struct admin *second = NULL;
	char long_path[200];
	int fd;

	/* Someone else put a file there while we ran. */
	CHECK_EQ(unlink(f->path), 0);
	fd = open(f->path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	close(fd);
	f->admin = admin_free(f->admin);
	CHECK_EQ(access(f->path, F_OK), 0);
	CHECK(admin_new(&options, &failed, &second) == -EEXIST);
	CHECK_EQ(failed, ADMIN_CONTROL);
	CHECK_EQ(access(f->path, F_OK), 0);
	memset(long_path, 'a', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	options.control_path = long_path;
	CHECK(admin_new(&options, &failed, &second) == -ENAMETOOLONG);
	options.control_path = "/nowhere/at/all/control.sock";
	CHECK(admin_new(&options, &failed, &second) == -ENOENT);
	CHECK(!second);
	fake_free(f);
}

TEST(admin_either_listener_may_be_missing)
{
	struct fake *f = fake_new();
	struct admin_options options = fake_options(f);
	enum admin_listener failed;

	f->admin = admin_free(f->admin);
	options.metrics_host = NULL;
	CHECK_EQ(admin_new(&options, &failed, &f->admin), 0);
	CHECK_EQ(admin_port(f->admin), 0);
	expect(f, "GET /healthz HTTP/1.1", 200, "ok\n");
	f->admin = admin_free(f->admin);
	options.control_path = NULL;
	CHECK_EQ(admin_new(&options, &failed, &f->admin), 0);
	CHECK_EQ(admin_timeout_ms(f->admin), -1);
	admin_run(f->admin);
	CHECK(admin_free(NULL) == NULL);
	fake_free(f);
}
