/* SPDX-License-Identifier: MIT */
#include "io/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

#include "io/sock.h"
#include "test.h"

#define TOTAL ((size_t)1 << 20)

struct ends {
	struct transport a, b;
};

static struct ends pair(int flags)
{
	struct ends e;
	int fds[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0, fds), 0);
	transport_init_plain(&e.a, fds[0]);
	transport_init_plain(&e.b, fds[1]);
	CHECK_EQ(e.a.fd, fds[0]);
	return e;
}

static void wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	CHECK_EQ(poll(&p, 1, 10000), 1);
}

/* Two connected TCP sockets over the loopback interface. */
static struct ends tcp_pair(void)
{
	struct sock_peer peer;
	int listener = -1, client = -1, server = -1;
	struct ends e;

	CHECK_EQ(sock_listen("127.0.0.1", 0, 8, true, &listener), 0);
	CHECK_EQ(sock_connect("127.0.0.1", sock_port(listener), &client), 0);
	wait_for(listener, POLLIN);
	CHECK_EQ(sock_accept(listener, &server, &peer), 0);
	wait_for(client, POLLOUT);
	transport_init_plain(&e.a, client);
	transport_init_plain(&e.b, server);
	close(listener);
	return e;
}

static void close_both(struct ends *e)
{
	transport_close(&e->a, false);
	transport_close(&e->b, false);
	CHECK_EQ(e->a.fd, -1);
	CHECK_EQ(e->b.fd, -1);
}

static ssize_t send_text(struct transport *t, const char *text)
{
	struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};

	return transport_send(t, &iov, 1);
}

TEST(transport_carries_one_and_several_pieces)
{
	struct iovec iov[] = {{(char[]){"one"}, 3}, {(char[]){""}, 0}, {(char[]){" two"}, 4}};
	struct ends e = pair(SOCK_NONBLOCK);
	char got[100];

	CHECK_EQ(transport_recv(&e.b, got, sizeof(got)), -EAGAIN);
	CHECK_EQ(transport_send(&e.a, iov, 3), 7);
	CHECK_EQ(transport_recv(&e.b, got, 5), 5);
	CHECK_MEM(got, "one t", 5);
	CHECK_EQ(transport_recv(&e.b, got, sizeof(got)), 2);
	CHECK_MEM(got, "wo", 2);
	CHECK_EQ(transport_send(&e.b, iov, 1), 3);
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), 3);
	CHECK_MEM(got, "one", 3);
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), -EAGAIN);
	close_both(&e);
}

/* Offers what is left from @sent on, in as many pieces as told. */
static ssize_t send_rest(struct transport *t, uint8_t *p, size_t sent, int pieces)
{
	size_t each = (TOTAL - sent) / (size_t)pieces;
	struct iovec iov[5];

	for (int i = 0; i < pieces; i++)
		iov[i] = (struct iovec){p + sent + (size_t)i * each, each};
	iov[pieces - 1].iov_len = TOTAL - sent - (size_t)(pieces - 1) * each;
	return transport_send(t, iov, pieces);
}

/* The kernel takes a part, then nothing; what it took arrives whole and in order. */
static void check_short_writes(struct ends e, uint8_t *p, uint8_t *got)
{
	size_t sent = 0, received = 0, shorts = 0, full = 0;

	while (received < TOTAL) {
		ssize_t n = 0;

		for (int pieces = 1; sent < TOTAL; pieces = pieces % 5 + 1) {
			n = send_rest(&e.a, p, sent, pieces);
			if (n < 0)
				break;
			CHECK(n > 0 && (size_t)n <= TOTAL - sent);
			shorts += (size_t)n < TOTAL - sent;
			sent += (size_t)n;
		}
		if (sent < TOTAL)
			CHECK_EQ(n, -EAGAIN);
		full += n == -EAGAIN;
		wait_for(e.b.fd, POLLIN);
		while ((n = transport_recv(&e.b, got + received, TOTAL - received)) > 0)
			received += (size_t)n;
		CHECK(n == -EAGAIN || received == TOTAL);
	}
	CHECK(shorts > 0 && full > 0);
	CHECK_EQ(sent, TOTAL);
	CHECK_MEM(got, p, TOTAL);
	close_both(&e);
}

TEST(transport_takes_what_fits_and_says_how_much)
{
	const int small = 4096;
	struct ends e = pair(SOCK_NONBLOCK);
	uint8_t *p = malloc(TOTAL), *got = malloc(TOTAL);
	uint64_t random = test_seed();

	for (size_t i = 0; i < TOTAL; i++)
		p[i] = (uint8_t)(test_random(&random) >> 56);
	CHECK_EQ(setsockopt(e.a.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	check_short_writes(e, p, got);
	free(got);
	free(p);
}

static void check_shutdown(struct ends e)
{
	char got[10];

	CHECK_EQ(send_text(&e.a, "last"), 4);
	transport_shutdown(&e.a);
	wait_for(e.b.fd, POLLRDHUP);
	CHECK_EQ(transport_recv(&e.b, got, sizeof(got)), 4);
	CHECK_EQ(transport_recv(&e.b, got, sizeof(got)), 0);
	CHECK_EQ(transport_recv(&e.b, got, sizeof(got)), 0);
	CHECK_EQ(send_text(&e.a, "x"), -EPIPE);
	/* The other direction is as it was. */
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), -EAGAIN);
	CHECK_EQ(send_text(&e.b, "answer"), 6);
	wait_for(e.a.fd, POLLIN);
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), 6);
	transport_shutdown(&e.b);
	wait_for(e.a.fd, POLLIN);
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), 0);
	close_both(&e);
}

TEST(transport_shutdown_ends_one_direction_behind_what_was_sent)
{
	check_shutdown(pair(SOCK_NONBLOCK));
	check_shutdown(tcp_pair());
}

/* No SIGPIPE either: it would end the process that runs the tests. */
TEST(transport_to_a_peer_that_is_gone_is_an_error)
{
	struct iovec iov[] = {{(char[]){"a"}, 1}, {(char[]){"b"}, 1}};
	struct ends e = pair(SOCK_NONBLOCK);
	char got[10];

	transport_close(&e.b, false);
	CHECK_EQ(e.b.fd, -1);
	CHECK_EQ(transport_send(&e.a, iov, 1), -EPIPE);
	CHECK_EQ(transport_send(&e.a, iov, 2), -EPIPE);
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), 0);
	transport_shutdown(&e.a);
	transport_close(&e.b, true);
	CHECK_EQ(e.b.fd, -1);
	close_both(&e);
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), -EBADF);
	CHECK_EQ(transport_send(&e.a, iov, 2), -EBADF);
}

TEST(transport_reset_by_a_peer_that_had_not_read)
{
	struct ends e = pair(SOCK_NONBLOCK);
	char got[10];

	CHECK_EQ(send_text(&e.a, "unread"), 6);
	transport_close(&e.b, true);
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), -ECONNRESET);
	close_both(&e);
}

TEST(transport_close_of_tcp_ends_orderly_or_resets)
{
	struct ends e = tcp_pair();
	char got[10];

	CHECK_EQ(send_text(&e.b, "last"), 4);
	transport_close(&e.b, false);
	wait_for(e.a.fd, POLLRDHUP);
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), 4);
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), 0);
	close_both(&e);

	e = tcp_pair();
	transport_close(&e.b, true);
	CHECK_EQ(e.b.fd, -1);
	wait_for(e.a.fd, POLLIN);
	CHECK_EQ(transport_recv(&e.a, got, sizeof(got)), -ECONNRESET);
	close_both(&e);
}

/* ----- signals */

struct disturber {
	pthread_t victim;
	int writes_to; /* a byte, when there were enough signals; -1: reads all there is instead */
	int reads_from;
};

static _Atomic int signals;

static void count_signal(int number)
{
	(void)number;
	atomic_fetch_add(&signals, 1);
}

/* True when a thread of this process sleeps in a system call. */
static bool is_asleep(pid_t tid)
{
	char path[64], text[200] = "";
	const char *state;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	state = strrchr(text, ')');
	return state && state[2] == 'S';
}

/* Interrupts the main thread ten times while it sleeps; then lets its system call succeed. */
static void *disturb(void *arg)
{
	struct disturber *d = arg;
	char drain[4096];

	for (int i = 0; i < 10; i++) {
		int before = atomic_load(&signals);

		while (!is_asleep(getpid()))
			sched_yield();
		pthread_kill(d->victim, SIGUSR1);
		while (atomic_load(&signals) == before)
			sched_yield();
	}
	if (d->writes_to >= 0)
		(void)!write(d->writes_to, "x", 1);
	else
		while (recv(d->reads_from, drain, sizeof(drain), MSG_DONTWAIT) > 0)
			;
	return NULL;
}

static void start_disturbing(pthread_t *ret_thread, struct disturber *d)
{
	d->victim = pthread_self();
	CHECK_EQ(pthread_create(ret_thread, NULL, disturb, d), 0);
}

/* On blocking sockets, since only those can be interrupted. */
TEST(transport_goes_on_after_a_signal)
{
	const struct sigaction counted = {.sa_handler = count_signal};
	struct sigaction before;
	struct ends e = pair(0);
	struct disturber d = {.writes_to = e.b.fd, .reads_from = e.b.fd};
	pthread_t thread;
	char block[4096] = "";

	CHECK_EQ(sigaction(SIGUSR1, &counted, &before), 0);
	start_disturbing(&thread, &d);
	CHECK_EQ(transport_recv(&e.a, block, 1), 1);
	pthread_join(thread, NULL);

	while (send(e.a.fd, block, sizeof(block), MSG_DONTWAIT) > 0)
		;
	CHECK_EQ(errno, EAGAIN);
	d.writes_to = -1;
	start_disturbing(&thread, &d);
	CHECK_EQ(send_text(&e.a, "x"), 1);
	pthread_join(thread, NULL);
	CHECK(atomic_load(&signals) >= 20);
	CHECK_EQ(sigaction(SIGUSR1, &before, NULL), 0);
	close_both(&e);
}

/* ----- another kind of transport */

static int calls[4];

static ssize_t own_recv(struct transport *t, void *p, size_t n)
{
	calls[0]++;
	memset(p, t->fd, n);
	return (ssize_t)n;
}

static ssize_t own_send(struct transport *t, const struct iovec *iov, int count)
{
	(void)t;
	calls[1]++;
	return (ssize_t)iov[count - 1].iov_len;
}

static void own_shutdown(struct transport *t)
{
	(void)t;
	calls[2]++;
}

static void own_close(struct transport *t, bool reset)
{
	calls[3]++;
	t->fd = reset ? -1 : -2;
}

TEST(transport_is_whatever_its_operations_do)
{
	static const struct transport_ops ops = {
		.recv = own_recv, .send = own_send, .shutdown = own_shutdown, .close = own_close};
	struct transport t = {.ops = &ops, .fd = 7};
	struct iovec iov[] = {{NULL, 3}, {NULL, 5}};
	char got[4];

	CHECK_EQ(transport_recv(&t, got, sizeof(got)), sizeof(got));
	CHECK_MEM(got, "\7\7\7\7", 4);
	CHECK_EQ(transport_send(&t, iov, 2), 5);
	transport_shutdown(&t);
	transport_close(&t, true);
	CHECK_EQ(t.fd, -1);
	for (size_t i = 0; i < ARRAY_LEN(calls); i++)
		CHECK_EQ(calls[i], 1);
}
