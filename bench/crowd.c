/* SPDX-License-Identifier: MIT */
/*
 * Many clients in one process, for hostile.py: crowd PORT CLIENTS PATH [OPTION VALUE ...]
 *
 *   PATH            of the handshake; '#' in it stands for the client's number modulo --paths
 *   --paths N       1
 *   --first FILE    bytes that each sends once, behind its handshake
 *   --each FILE     bytes that publishers send over and over
 *   --publishers N  the first N of the clients; 0
 *   --rate X        times a second that each of them sends these bytes; 1
 *   --speed BYTES   a second that each reads at most
 *   --rcvbuf BYTES  of each client's socket
 *   --source ADDR   to connect from
 *
 * Nothing here knows the protocol: what is sent are bytes of a file, what comes is counted and
 * thrown away. Only what came last is kept, for the Close frame in it.
 *
 * It prints "ready N" once every handshake was answered, N of them with 101. A line on standard
 * input then says what happens: "send" (publishers begin), "pause", "once" (each publisher sends
 * these bytes one time), "deaf" (nothing is read any more), "hear", "report" (one line of JSON),
 * "end".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (1 << 18)
#define TAIL_BYTES 128       /* more than a Close frame has */
#define HANDSHAKES_MAX 256   /* that wait for their answer at a time */
#define EACH_BYTES (1 << 16) /* copies of --each are laid out side by side up to this */
#define CODES 5000           /* close codes are below */
#define STEP_NS 10000000u    /* of --speed */

enum state { CONNECTING, OPEN, REFUSED, ENDED };

struct client {
	int fd;
	enum state state;
	uint16_t code; /* that it was closed with; 0: none */
	uint8_t tail_len;
	uint8_t tail[TAIL_BYTES]; /* what came last */
	uint64_t due_ns;          /* when it is to send --each again */
	size_t owed;              /* bytes that were to be sent by now */
	size_t at;                /* of --each, where it goes on */
	size_t may_read;          /* bytes until the next step, with --speed */
	bool is_held;             /* it has read them */
};

struct bytes {
	char *data;
	size_t len;
};

static struct {
	uint16_t port;
	const char *path, *source;
	int n, paths, publishers, rcvbuf;
	double rate, speed;
	struct bytes first, each;
	size_t each_len; /* of one copy */
} options = {.paths = 1, .rate = 1};

static struct client *clients;
static int epoll_fd, n_waiting, n_refused;
static bool is_sending, is_deaf;
static size_t n_owed; /* by all */
static uint64_t bytes_read, copies_sent;
static uint8_t buffer[READ_BYTES];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct bytes read_file(const char *name)
{
	FILE *f = fopen(name, "rb");
	struct bytes b = {0};
	long n;

	if (!f || fseek(f, 0, SEEK_END) || (n = ftell(f)) < 0)
		die(name);
	rewind(f);
	b.len = (size_t)n;
	b.data = malloc(b.len + 1);
	if (!b.data || fread(b.data, 1, b.len, f) != b.len)
		die(name);
	fclose(f);
	return b;
}

/* --each, as often as it fits, so that a client far behind catches up with one send(2). */
static void repeat_each(void)
{
	size_t times = options.each.len < EACH_BYTES ? EACH_BYTES / options.each.len : 1;
	char *all = malloc(times * options.each.len);

	if (!all)
		die("malloc");
	for (size_t i = 0; i < times; i++)
		memcpy(all + i * options.each.len, options.each.data, options.each.len);
	free(options.each.data);
	options.each_len = options.each.len;
	options.each = (struct bytes){all, times * options.each_len};
}

/* ------------------------------------------------------------------------- coming */

static size_t format_handshake(char *out, size_t cap, int number)
{
	char path[256];
	const char *hash = strchr(options.path, '#');

	if (hash)
		snprintf(path, sizeof(path), "%.*s%d%s", (int)(hash - options.path), options.path,
			 number % options.paths, hash + 1);
	else
		snprintf(path, sizeof(path), "%s", options.path);
	return (size_t)snprintf(out, cap,
				"GET %s HTTP/1.1\r\nHost: crowd\r\nUpgrade: websocket\r\n"
				"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
				path);
}

static void watch(struct client *c, int operation)
{
	struct epoll_event e = {.data.ptr = c};

	e.events = is_deaf || c->is_held ? EPOLLRDHUP | EPOLLET : EPOLLIN;
	if (c->fd >= 0 && epoll_ctl(epoll_fd, operation, c->fd, &e))
		die("epoll_ctl");
}

static void begin(struct client *c, int number)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(options.port)};
	struct sockaddr_in from = {.sin_family = AF_INET};
	const int on = 1;
	char head[512];
	size_t n = format_handshake(head, sizeof(head), number);

	inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (options.rcvbuf)
		setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &options.rcvbuf, sizeof(options.rcvbuf));
	if (options.source && (inet_pton(AF_INET, options.source, &from.sin_addr) != 1 ||
			       bind(c->fd, (struct sockaddr *)&from, sizeof(from))))
		die(options.source);
	if (connect(c->fd, (struct sockaddr *)&to, sizeof(to)) ||
	    send(c->fd, head, n, MSG_NOSIGNAL) != (ssize_t)n)
		die("connect");
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	watch(c, EPOLL_CTL_ADD);
	n_waiting++;
}

static void answered(struct client *c, const uint8_t *p, size_t n)
{
	n_waiting--;
	if (n < 12 || memcmp(p, "HTTP/1.1 101", 12) != 0) {
		n_refused++;
		c->state = REFUSED;
		return;
	}
	c->state = OPEN;
	if (options.first.len && send(c->fd, options.first.data, options.first.len, MSG_NOSIGNAL) !=
					 (ssize_t)options.first.len)
		die("what comes first does not go out at once");
}

/* ------------------------------------------------------------------------ reading */

/* A Close frame at the very end of what came; its reason is words. */
static uint16_t code_of(const struct client *c)
{
	for (int at = 0; at + 4 <= c->tail_len; at++) {
		int end = at + 2 + c->tail[at + 1], i = at + 4;

		if (c->tail[at] != 0x88 || end != c->tail_len)
			continue;
		while (i < end && c->tail[i] >= ' ' && c->tail[i] < 127)
			i++;
		if (i == end)
			return (uint16_t)(c->tail[at + 2] << 8 | c->tail[at + 3]);
	}
	return 0;
}

static void keep_tail(struct client *c, const uint8_t *p, size_t n)
{
	size_t keep;

	if (n > TAIL_BYTES) {
		p += n - TAIL_BYTES;
		n = TAIL_BYTES;
	}
	keep = c->tail_len < TAIL_BYTES - n ? c->tail_len : TAIL_BYTES - n;
	memmove(c->tail, c->tail + c->tail_len - keep, keep);
	memcpy(c->tail + keep, p, n);
	c->tail_len = (uint8_t)(keep + n);
}

static void end(struct client *c)
{
	if (c->state == CONNECTING) {
		n_waiting--;
		n_refused++;
	}
	n_owed -= c->owed;
	c->owed = 0;
	c->code = code_of(c);
	c->state = c->state == OPEN ? ENDED : REFUSED;
	close(c->fd);
	c->fd = -1;
}

/* One read; false when there is nothing more now. */
static bool read_some(struct client *c)
{
	size_t most = options.speed > 0 && c->may_read < READ_BYTES ? c->may_read : READ_BYTES;
	ssize_t n = recv(c->fd, buffer, most, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		end(c);
		return false;
	}
	bytes_read += (uint64_t)n;
	if (c->state == CONNECTING)
		answered(c, buffer, (size_t)n);
	keep_tail(c, buffer, (size_t)n);
	if (options.speed <= 0)
		return true;
	c->may_read -= (size_t)n;
	c->is_held = c->may_read == 0;
	if (c->is_held)
		watch(c, EPOLL_CTL_MOD);
	return !c->is_held;
}

/* With --speed: each step gives everybody a share. */
static void share_out(void)
{
	static uint64_t next_ns;
	const size_t share = (size_t)(options.speed * STEP_NS / 1e9);
	uint64_t now = now_ns();

	if (now < next_ns)
		return;
	next_ns = now + STEP_NS;
	for (int i = 0; i < options.n; i++) {
		struct client *c = &clients[i];

		c->may_read = c->may_read + share < 2 * share ? c->may_read + share : 2 * share;
		if (!c->is_held)
			continue;
		c->is_held = false;
		watch(c, EPOLL_CTL_MOD);
	}
}

static void hear(bool is_on)
{
	is_deaf = !is_on;
	for (int i = 0; i < options.n; i++)
		watch(&clients[i], EPOLL_CTL_MOD);
}

/* ------------------------------------------------------------------------ sending */

static void owe(struct client *c)
{
	c->owed += options.each_len;
	n_owed += options.each_len;
}

/* As far as the kernel takes it. */
static void pay(struct client *c)
{
	while (c->owed > 0) {
		size_t n = options.each.len - c->at;
		ssize_t sent;

		if (n > c->owed)
			n = c->owed;
		sent = send(c->fd, options.each.data + c->at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent <= 0)
			return; /* full, or gone: reading tells */
		copies_sent += (c->at + (size_t)sent) / options.each_len - c->at / options.each_len;
		c->at = (c->at + (size_t)sent) % options.each.len;
		c->owed -= (size_t)sent;
		n_owed -= (size_t)sent;
	}
}

/* Who is more than a second behind owes no more: as if it had waited for an answer. */
static void send_due(void)
{
	uint64_t now = now_ns(), period = (uint64_t)(1e9 / options.rate);
	size_t most = (size_t)(options.rate + 1) * options.each_len;

	for (int i = 0; i < options.publishers; i++) {
		struct client *c = &clients[i];

		if (c->state != OPEN)
			continue;
		for (; is_sending && c->due_ns <= now; c->due_ns += period)
			if (c->owed < most)
				owe(c);
		pay(c);
	}
}

static void begin_sending(void)
{
	uint64_t now = now_ns(), period = (uint64_t)(1e9 / options.rate);

	/* Spread over the period, so that they don't all send at the same time. */
	for (int i = 0; i < options.publishers; i++)
		clients[i].due_ns = now + period * (uint64_t)i / (uint64_t)options.publishers;
	is_sending = true;
}

static void send_once(void)
{
	for (int i = 0; i < options.publishers; i++)
		if (clients[i].state == OPEN)
			owe(&clients[i]);
}

/* ----------------------------------------------------------------------- the rest */

static void report(void)
{
	unsigned n_open = 0, codes[CODES] = {0};
	const char *comma = "";

	for (int i = 0; i < options.n; i++) {
		const struct client *c = &clients[i];
		/* Whoever was told so is closed, though the connection is still there. */
		uint16_t code = c->state == OPEN ? code_of(c) : c->code;

		if (c->state == ENDED || (c->state == OPEN && code))
			codes[code % CODES]++;
		else
			n_open += c->state == OPEN;
	}
	printf("{\"open\": %u, \"refused\": %d, \"bytes\": %llu, \"sent\": %llu, \"codes\": {",
	       n_open, n_refused, (unsigned long long)bytes_read, (unsigned long long)copies_sent);
	for (int code = 0; code < CODES; code++) {
		if (!codes[code])
			continue;
		printf("%s\"%d\": %u", comma, code, codes[code]);
		comma = ", ";
	}
	printf("}}\n");
}

static void obey(const char *line)
{
	if (strcmp(line, "send") == 0)
		begin_sending();
	else if (strcmp(line, "pause") == 0)
		is_sending = false;
	else if (strcmp(line, "once") == 0)
		send_once();
	else if (strcmp(line, "deaf") == 0)
		hear(false);
	else if (strcmp(line, "hear") == 0)
		hear(true);
	else if (strcmp(line, "report") == 0)
		report();
	else
		exit(strcmp(line, "end") != 0);
}

static void take_orders(void)
{
	static char line[64];
	static size_t n;
	char c;

	while (read(STDIN_FILENO, &c, 1) == 1) {
		if (c != '\n') {
			line[n++ % (sizeof(line) - 1)] = c;
			continue;
		}
		line[n] = '\0';
		n = 0;
		obey(line);
		return; /* what follows is another event */
	}
	exit(0);
}

/* It has hung up on a deaf one. */
static void hear_out(struct client *c)
{
	while (c->fd >= 0 && read_some(c))
		;
}

static void turn(int timeout_ms)
{
	struct epoll_event events[512];
	int n;

	if (options.speed > 0) {
		share_out();
		timeout_ms = 1;
	}
	n = epoll_wait(epoll_fd, events, 512, timeout_ms);
	for (int i = 0; i < n; i++) {
		struct client *c = events[i].data.ptr;

		if (!c)
			take_orders();
		else if (!is_deaf || c->state != OPEN)
			(void)read_some(c);
		else
			hear_out(c);
	}
}

static void parse(int argc, char **argv)
{
	if (argc < 4 || argc % 2)
		exit(2);
	options.port = (uint16_t)atoi(argv[1]);
	options.n = atoi(argv[2]);
	options.path = argv[3];
	for (int i = 4; i < argc; i += 2) {
		const char *value = argv[i + 1];

		if (strcmp(argv[i], "--paths") == 0)
			options.paths = atoi(value);
		else if (strcmp(argv[i], "--first") == 0)
			options.first = read_file(value);
		else if (strcmp(argv[i], "--each") == 0)
			options.each = read_file(value);
		else if (strcmp(argv[i], "--publishers") == 0)
			options.publishers = atoi(value);
		else if (strcmp(argv[i], "--rate") == 0)
			options.rate = atof(value);
		else if (strcmp(argv[i], "--speed") == 0)
			options.speed = atof(value);
		else if (strcmp(argv[i], "--rcvbuf") == 0)
			options.rcvbuf = atoi(value);
		else if (strcmp(argv[i], "--source") == 0)
			options.source = value;
		else
			exit(2);
	}
	if (options.each.len)
		repeat_each();
}

int main(int argc, char **argv)
{
	struct epoll_event e = {.events = EPOLLIN};

	parse(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	clients = calloc((size_t)options.n, sizeof(*clients));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (!clients || epoll_fd < 0)
		die("start");
	for (int i = 0; i < options.n; i++) {
		begin(&clients[i], i);
		while (n_waiting >= HANDSHAKES_MAX)
			turn(-1);
	}
	while (n_waiting > 0)
		turn(-1);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &e))
		die("standard input");
	printf("ready %d\n", options.n - n_refused);
	for (;;) {
		if (is_sending || n_owed > 0)
			send_due();
		turn(is_sending || n_owed > 0 ? 1 : -1);
	}
}
