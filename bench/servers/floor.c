/* SPDX-License-Identifier: MIT */
/*
 * The least that a broadcast of WebSocket messages costs: floor each|batched|echo [THREADS].
 * Prints its port. One channel, no limits, no care: it is there to be compared with.
 *
 *   each     every message goes to every other client with one send(2)
 *   batched  what came in a loop turn goes to every client with one send(2): the yardstick
 *   echo     what came in one read goes back with one send(2)
 *
 * With several threads each has a listener of the same port; what came in a turn of one goes to
 * the others as one piece (batched only).
 *
 * A client must take what it is sent: whose socket is full is disconnected.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define READ_BYTES (1 << 18)
#define EVENTS 512
#define MAX_RUNS 512 /* messages of different clients in a turn */
#define MAX_THREADS 64

struct client {
	int fd;
	size_t index;
	bool is_open;
	uint8_t *part; /* of a frame, from the turn before */
	size_t part_len;
};

/* A piece of the batch that one client sent. */
struct run {
	struct client *from; /* NULL: a client of another thread */
	size_t begin, end;
};

enum mode { EACH, BATCHED, ECHO };

/* What the other threads have for one. */
struct inbox {
	pthread_mutex_t lock;
	int event_fd;
	uint8_t *frames;
	size_t len, cap;
};

static enum mode mode;
static int n_threads = 1;
static struct inbox inboxes[MAX_THREADS];

static _Thread_local int self;
static _Thread_local int epoll_fd;
static _Thread_local struct client **clients;
static _Thread_local size_t n_clients, cap_clients;
static _Thread_local uint8_t *batch; /* frames as they go out */
static _Thread_local size_t batch_len, batch_cap;
static _Thread_local struct run runs[MAX_RUNS];
static _Thread_local size_t n_runs;

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

static void reserve(uint8_t **bytes, size_t *cap, size_t need)
{
	if (*cap >= need)
		return;
	*cap = 2 * need;
	*bytes = realloc(*bytes, *cap);
	if (!*bytes)
		die("realloc");
}

static void add_run(struct client *from, size_t begin)
{
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

/* What this thread's own clients sent in this turn, for one of the others. */
static void hand_over(struct inbox *in)
{
	bool was_empty;

	pthread_mutex_lock(&in->lock);
	was_empty = in->len == 0;
	for (size_t i = 0; i < n_runs; i++) {
		size_t n = runs[i].end - runs[i].begin;

		if (!runs[i].from)
			continue;
		reserve(&in->frames, &in->cap, in->len + n);
		memcpy(in->frames + in->len, batch + runs[i].begin, n);
		in->len += n;
	}
	was_empty &= in->len > 0;
	pthread_mutex_unlock(&in->lock);
	if (was_empty)
		eventfd_write(in->event_fd, 1);
}

static void take_over(struct inbox *in)
{
	size_t begin = batch_len;
	eventfd_t count;

	eventfd_read(in->event_fd, &count);
	pthread_mutex_lock(&in->lock);
	reserve(&batch, &batch_cap, batch_len + in->len);
	memcpy(batch + batch_len, in->frames, in->len);
	batch_len += in->len;
	in->len = 0;
	pthread_mutex_unlock(&in->lock);
	add_run(NULL, begin);
}

/* One frame, unmasked, behind what is in the batch. */
static void add(struct client *from, uint8_t opcode, const uint8_t *p, size_t n,
		const uint8_t key[4])
{
	size_t begin = batch_len, i = 0;
	uint64_t wide;
	uint32_t narrow;
	uint8_t *out;

	reserve(&batch, &batch_cap, batch_len + n + 10);
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
	add_run(from, begin);
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
		for (int i = 0; i < n_threads; i++)
			if (i != self)
				hand_over(&inboxes[i]);
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
	static _Thread_local uint8_t in[2 * READ_BYTES + 1];
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

/* A listener of this port, of any when it is 0; @port is the one it has. */
static int listen_on(uint16_t *port)
{
	const int on = 1;
	struct sockaddr_in at = {.sin_family = AF_INET,
				 .sin_port = htons(*port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t at_len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 4096) < 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &at_len) < 0)
		die("listening");
	*port = ntohs(at.sin_port);
	return fd;
}

static void watch(int fd, void *as)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = as};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl");
}

struct thread {
	int index, listener;
};

static void *serve(void *arg)
{
	const struct thread *t = arg;
	struct epoll_event events[EVENTS];
	struct inbox *in;

	self = t->index;
	in = &inboxes[self];
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll_create1");
	watch(t->listener, NULL);
	watch(in->event_fd, in);
	for (;;) {
		int n = epoll_wait(epoll_fd, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;

			if (!c)
				welcome(t->listener);
			else if (events[i].data.ptr == in)
				take_over(in);
			else if (c->fd >= 0)
				readable(c);
		}
		if (mode == BATCHED)
			flush();
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static const char *const modes[] = {"each", "batched", "echo"};
	static struct thread threads[MAX_THREADS];
	uint16_t port = 0;

	while (mode <= ECHO && (argc < 2 || strcmp(argv[1], modes[mode]) != 0))
		mode++;
	if (argc > 2)
		n_threads = atoi(argv[2]);
	if (mode > ECHO || argc > 3 || n_threads < 1 || n_threads > MAX_THREADS ||
	    (n_threads > 1 && mode == EACH)) {
		fputs("usage: floor each|batched|echo [THREADS]\n", stderr);
		return 2;
	}
	for (int i = 0; i < n_threads; i++) {
		threads[i] = (struct thread){i, listen_on(&port)};
		pthread_mutex_init(&inboxes[i].lock, NULL);
		inboxes[i].event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (inboxes[i].event_fd < 0)
			die("eventfd");
	}
	printf("port %u\n", port);
	fflush(stdout);
	for (int i = 1; i < n_threads; i++) {
		pthread_t id;

		if (pthread_create(&id, NULL, serve, &threads[i]) != 0)
			die("pthread_create");
	}
	serve(&threads[0]);
}
