/* SPDX-License-Identifier: MIT */
/*
 * The least that a broadcast of WebSocket messages costs: floor each|batched|echo. Prints its
 * port. One thread, one channel, no limits, no care: it is there to be compared with.
 *
 *   each     every message goes to every other client with one send(2)
 *   batched  what came in a loop turn goes to every client with one send(2): the yardstick
 *   echo     what came in one read goes back with one send(2)
 *
 * A client must take what it is sent: whose socket is full is disconnected.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define READ_BYTES (1 << 18)
#define EVENTS 512
#define MAX_RUNS 512 /* messages of different clients in a turn */

struct client {
	int fd;
	size_t index;
	bool is_open;
	uint8_t *part; /* of a frame, from the turn before */
	size_t part_len;
};

/* A piece of the batch that one client sent. */
struct run {
	struct client *from;
	size_t begin, end;
};

enum mode { EACH, BATCHED, ECHO };

static enum mode mode;
static int epoll_fd;
static struct client **clients;
static size_t n_clients, cap_clients;
static uint8_t *batch; /* frames as they go out */
static size_t batch_len, batch_cap;
static struct run runs[MAX_RUNS];
static size_t n_runs;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void drop(struct client *c)
{
	if (c->fd < 0)
		return;
	close(c->fd);
	c->fd = -1; /* freed never: a run may name it */
	if (!c->is_open)
		return;
	clients[c->index] = clients[--n_clients];
	clients[c->index]->index = c->index;
}

static void put(struct client *c, const struct iovec *iov, int n, size_t bytes)
{
	const struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
	ssize_t sent = n == 1 ? send(c->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
			      : sendmsg(c->fd, &m, MSG_NOSIGNAL);

	if (sent != (ssize_t)bytes) {
		fprintf(stderr, "floor: a client does not take what it is sent: %s\n",
			sent < 0 ? strerror(errno) : "full");
		drop(c);
	}
}

/* One frame, unmasked, behind what is in the batch. */
static void add(struct client *from, uint8_t opcode, const uint8_t *p, size_t n,
		const uint8_t key[4])
{
	size_t begin = batch_len, i = 0;
	uint64_t wide;
	uint32_t narrow;
	uint8_t *out;

	if (batch_cap - batch_len < n + 10) {
		batch_cap = 2 * (batch_len + n + 10);
		batch = realloc(batch, batch_cap);
		if (!batch)
			die("realloc");
	}
	out = batch + batch_len;
	*out++ = 0x80 | opcode;
	if (n < 126) {
		*out++ = (uint8_t)n;
	} else if (n < 65536) {
		*out++ = 126;
		*out++ = (uint8_t)(n >> 8);
		*out++ = (uint8_t)n;
	} else {
		*out++ = 127;
		for (int shift = 56; shift >= 0; shift -= 8)
			*out++ = (uint8_t)((uint64_t)n >> shift);
	}
	memcpy(&narrow, key, 4);
	wide = (uint64_t)narrow << 32 | narrow;
	for (; i + 8 <= n; i += 8) {
		uint64_t word;

		memcpy(&word, p + i, 8);
		word ^= wide;
		memcpy(out + i, &word, 8);
	}
	for (; i < n; i++)
		out[i] = p[i] ^ key[i & 3];
	batch_len = (size_t)(out - batch) + n;
	if (n_runs > 0 && runs[n_runs - 1].from == from) {
		runs[n_runs - 1].end = batch_len;
		return;
	}
	if (n_runs == MAX_RUNS) {
		fprintf(stderr, "floor: too many senders in one turn\n");
		exit(1);
	}
	runs[n_runs++] = (struct run){from, begin, batch_len};
}

static void flush_to(struct client *c, bool has_sent)
{
	struct iovec iov[MAX_RUNS] = {{batch, batch_len}};
	size_t bytes = batch_len;
	int n = 1;

	if (has_sent) {
		n = 0;
		bytes = 0;
		for (size_t i = 0; i < n_runs; i++) {
			if (runs[i].from == c)
				continue;
			iov[n++] =
				(struct iovec){batch + runs[i].begin, runs[i].end - runs[i].begin};
			bytes += runs[i].end - runs[i].begin;
		}
	}
	if (n > 0)
		put(c, iov, n, bytes);
}

/* To everybody else, or back to who sent it. */
static void flush(void)
{
	if (n_runs == 0)
		return;
	if (mode == ECHO) {
		if (runs[0].from->fd >= 0)
			put(runs[0].from, &(struct iovec){batch, batch_len}, 1, batch_len);
	} else {
		for (size_t i = n_clients; i-- > 0;) {
			bool has_sent = false;

			for (size_t r = 0; r < n_runs; r++)
				has_sent |= runs[r].from == clients[i];
			flush_to(clients[i], has_sent);
		}
	}
	batch_len = n_runs = 0;
}

/* All whole frames of @p; what is left of it is returned. */
static size_t take_frames(struct client *c, const uint8_t *p, size_t n)
{
	size_t at = 0;

	while (n - at >= 6 && c->fd >= 0) {
		size_t len = p[at + 1] & 0x7f, head = 2;
		uint8_t opcode = p[at] & 0x0f;

		if (len == 126) {
			len = (size_t)p[at + 2] << 8 | p[at + 3];
			head = 4;
		} else if (len == 127) {
			if (n - at < 14)
				break;
			len = 0;
			for (int i = 2; i < 10; i++)
				len = len << 8 | p[at + (size_t)i];
			head = 10;
		}
		if (n - at < head + 4 + len)
			break;
		if (opcode == 8) {
			drop(c);
			break;
		}
		if (opcode == 1 || opcode == 2) {
			add(c, opcode, p + at + head + 4, len, p + at + head);
			if (mode == EACH)
				flush();
		}
		at += head + 4 + len;
	}
	return n - at;
}

static void greet(struct client *c, char *head)
{
	char *key = strcasestr(head, "Sec-WebSocket-Key: ");
	uint8_t digest[SHA_DIGEST_LENGTH];
	char text[128], accept[64], answer[256];
	int n;

	if (!key) {
		drop(c);
		return;
	}
	snprintf(text, sizeof(text), "%.24s" GUID, key + strlen("Sec-WebSocket-Key: "));
	SHA1((const uint8_t *)text, strlen(text), digest);
	EVP_EncodeBlock((uint8_t *)accept, digest, sizeof(digest));
	n = snprintf(answer, sizeof(answer),
		     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
		     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		     accept);
	c->is_open = true;
	if (n_clients == cap_clients) {
		cap_clients = cap_clients ? 2 * cap_clients : 1024;
		clients = realloc(clients, cap_clients * sizeof(struct client *));
		if (!clients)
			die("realloc");
	}
	c->index = n_clients;
	clients[n_clients++] = c;
	put(c, &(struct iovec){answer, (size_t)n}, 1, (size_t)n);
}

static void readable(struct client *c)
{
	static uint8_t in[2 * READ_BYTES + 1];
	ssize_t got;
	size_t n, left;

	memcpy(in, c->part, c->part_len);
	got = recv(c->fd, in + c->part_len, READ_BYTES, 0);
	if (got <= 0) {
		if (got == 0 || errno != EAGAIN)
			drop(c);
		return;
	}
	n = c->part_len + (size_t)got;
	if (!c->is_open) {
		char *end;

		in[n] = '\0';
		end = strstr((char *)in, "\r\n\r\n");
		left = n;
		if (end) {
			*end = '\0';
			greet(c, (char *)in);
			left = take_frames(c, (uint8_t *)end + 4,
					   n - (size_t)((uint8_t *)end + 4 - in));
		}
	} else {
		left = take_frames(c, in, n);
	}
	if (mode == ECHO)
		flush();
	if (left > READ_BYTES) {
		fprintf(stderr, "floor: a frame is larger than %d bytes\n", READ_BYTES);
		exit(1);
	}
	c->part_len = left;
	if (left > 0) {
		c->part = realloc(c->part, left);
		if (!c->part)
			die("realloc");
		memcpy(c->part, in + n - left, left);
	}
}

static void welcome(int listener)
{
	const int on = 1;
	struct epoll_event event = {.events = EPOLLIN};
	struct client *c;
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		c = calloc(1, sizeof(*c));
		if (!c)
			die("calloc");
		c->fd = fd;
		event.data.ptr = c;
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
			die("epoll_ctl");
	}
}

int main(int argc, char **argv)
{
	static const char *const modes[] = {"each", "batched", "echo"};
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct epoll_event events[EVENTS], event = {.events = EPOLLIN};
	socklen_t at_len = sizeof(at);
	int listener;

	while (mode <= ECHO && (argc != 2 || strcmp(argv[1], modes[mode]) != 0))
		mode++;
	if (mode > ECHO) {
		fputs("usage: floor each|batched|echo\n", stderr);
		return 2;
	}
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (listener < 0 || epoll_fd < 0 ||
	    bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 4096) < 0 ||
	    getsockname(listener, (struct sockaddr *)&at, &at_len) < 0 ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
		die("listening");
	printf("port %u\n", ntohs(at.sin_port));
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(epoll_fd, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;

			if (!c)
				welcome(listener);
			else if (c->fd >= 0)
				readable(c);
		}
		if (mode == BATCHED)
			flush();
	}
}
