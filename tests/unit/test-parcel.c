/* SPDX-License-Identifier: MIT */
/* Descriptors that live in a parcel, and records in a file of memory. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "io/memfile.h"
#include "io/parcel.h"
#include "io/sock.h"

#define MANY 600 /* more than two messages */

struct seen {
	unsigned n;
	unsigned stop_at;
	uint64_t cookie[MANY];
	uint8_t mark[MANY];
};

static int see(void *ctx, int fd, uint8_t mark)
{
	struct seen *s = ctx;

	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	if (s->n < MANY) {
		s->cookie[s->n] = sock_cookie(fd);
		s->mark[s->n] = mark;
	}
	CHECK_EQ(close(fd), 0);
	return ++s->n == s->stop_at ? -ECANCELED : 0;
}

/* What it says is there is: so many go in, and within a batch or a pair no more. */
TEST(parcel_knows_how_much_it_holds)
{
	size_t capacity = 0, n = 0;
	struct rlimit old, large;
	struct parcel p = {0};
	int pair[2], r = 0;

	CHECK_EQ(parcel_try(0, &capacity), 0);
	CHECK_EQ(parcel_try(capacity, &n), 0);
	CHECK_EQ(n, capacity);
	CHECK_EQ(parcel_try(capacity + 1, &n), -ENOSPC);
	CHECK_EQ(n, capacity);
	n = 0;
	CHECK(capacity >= PARCEL_MAX_PAIRS * PARCEL_BATCH);
	CHECK_EQ(capacity % (PARCEL_MAX_PAIRS * PARCEL_BATCH), 0);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	large = (struct rlimit){.rlim_cur = old.rlim_max, .rlim_max = old.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &large), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	while (n < 2 * capacity && r == 0) {
		r = parcel_put(&p, pair[0], 'x');
		n += r == 0;
	}
	/* Who may not have so many on their way cannot try it. */
	CHECK(r == -ENOSPC || r == -ETOOMANYREFS);
	CHECK(r == -ETOOMANYREFS || (n >= capacity && n <= capacity + PARCEL_BATCH));
	parcel_fini(&p);
	close(pair[0]);
	close(pair[1]);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
}

TEST(parcel_keeps_sockets_that_nobody_else_holds)
{
	struct parcel p = {0};
	struct seen first = {0}, second = {0}, nothing = {0};
	uint64_t cookie[MANY];
	int pair[2];

	for (unsigned i = 0; i < MANY; i += 2) {
		CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		for (unsigned k = 0; k < 2; k++) {
			cookie[i + k] = sock_cookie(pair[k]);
			CHECK_EQ(parcel_put(&p, pair[k], (uint8_t)('a' + k)), 0);
		}
		CHECK_EQ(parcel_seal(&p), 0);
		CHECK_EQ(send(pair[0], "x", 1, 0), 1);
		CHECK_EQ(close(pair[0]) | close(pair[1]), 0);
	}
	/* To look at it takes nothing out. */
	for (unsigned i = 0; i < p.n_pairs; i++) {
		CHECK_EQ(parcel_look(p.end[i][0], see, &nothing), 0);
		CHECK_EQ(parcel_look(p.end[i][1], see, &first), 0);
		CHECK_EQ(parcel_look(p.end[i][1], see, &second), 0);
	}
	CHECK_EQ(nothing.n, 0);
	CHECK_EQ(first.n, MANY);
	CHECK_EQ(second.n, MANY);
	CHECK_MEM(first.cookie, cookie, sizeof(cookie));
	CHECK_MEM(second.cookie, cookie, sizeof(cookie));
	for (unsigned i = 0; i < MANY; i++)
		CHECK_EQ(first.mark[i], 'a' + i % 2);
	parcel_fini(&p);
	CHECK_EQ(p.n_pairs, 0);
}

TEST(parcel_takes_batches_and_more_pairs_than_one)
{
	struct parcel p = {0};
	struct seen s = {0};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	unsigned n = 0;

	/* One descriptor in each message fills a pair soonest. */
	for (; p.n_pairs < 2 && n < 15000; n++) {
		CHECK_EQ(parcel_put(&p, fd, 'x'), 0);
		CHECK_EQ(parcel_seal(&p), 0);
	}
	for (unsigned i = 0; i < MANY; i++)
		CHECK_EQ(parcel_put(&p, fd, 'y'), 0);
	CHECK_EQ(parcel_seal(&p), 0);
	CHECK_EQ(p.n_pairs, 2);
	for (unsigned i = 0; i < p.n_pairs; i++)
		CHECK_EQ(parcel_look(p.end[i][1], see, &s), 0);
	CHECK_EQ(s.n, n + MANY);
	parcel_fini(&p);
	(void)close(fd);
}

TEST(parcel_look_ends_when_it_is_told_to)
{
	struct parcel p = {0};
	struct seen s = {.stop_at = 3};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	CHECK_EQ(parcel_seal(&p), 0); /* nothing was put */
	for (unsigned i = 0; i < 10; i++)
		CHECK_EQ(parcel_put(&p, fd, 'x'), 0);
	CHECK_EQ(parcel_seal(&p), 0);
	CHECK_EQ(parcel_look(p.end[0][1], see, &s), -ECANCELED);
	CHECK_EQ(s.n, 3); /* and the others are closed: the runner counts */
	CHECK_EQ(parcel_look(fd, see, &s), -ENOTSOCK);
	parcel_fini(&p);
	(void)close(fd);
}

TEST(parcel_full_of_pairs_says_so)
{
	struct parcel p = {.n_pairs = PARCEL_MAX_PAIRS};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), pair[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	for (unsigned i = 0; i < PARCEL_MAX_PAIRS; i++)
		p.end[i][0] = p.end[i][1] = -1;
	p.end[PARCEL_MAX_PAIRS - 1][0] = pair[0];
	p.end[PARCEL_MAX_PAIRS - 1][1] = pair[1];
	while (send(pair[0], "x", 1, 0) == 1)
		;
	CHECK_EQ(parcel_put(&p, fd, 'x'), 0);
	CHECK_EQ(parcel_seal(&p), -ENOSPC);
	parcel_fini(&p);
	(void)close(fd);
}

TEST(memfile_grows_and_is_read_by_another)
{
	struct memfile m, other;
	int fd;

	CHECK_EQ(memfile_create(&m, "test"), 0);
	CHECK_EQ(memfile_grow(&m, 1000), 0);
	memset(m.data, 'a', 1000);
	CHECK_EQ(memfile_grow(&m, 5 << 20), 0);
	CHECK(m.bytes >= 5 << 20 && m.data[999] == 'a');
	m.data[(5 << 20) - 1] = 'z';
	fd = dup(m.fd);
	CHECK_EQ(memfile_open(&other, dup(m.fd)), -EINVAL); /* could shrink under the reader */
	memfile_fini(&other);
	CHECK_EQ(memfile_seal(&m, 5 << 20), 0);
	memfile_fini(&m);
	CHECK_EQ(m.fd, -1);
	CHECK_EQ(memfile_open(&other, fd), 0);
	CHECK_EQ(other.bytes, 5 << 20);
	CHECK(other.data[0] == 'a' && other.data[(5 << 20) - 1] == 'z');
	CHECK(ftruncate(other.fd, 10) < 0 && errno == EPERM);
	memfile_fini(&other);
	CHECK_EQ(memfile_open(&other, open("/dev/null", O_RDONLY | O_CLOEXEC)), -EINVAL);
	memfile_fini(&other);
}

TEST(sock_knows_where_it_is)
{
	char path[SOCK_PATH_MAX];
	int a, b;

	CHECK_EQ(sock_listen("127.0.0.1", 0, 1, true, &a), 0);
	CHECK(sock_is_at(a, "127.0.0.1", 0) && sock_is_at(a, "127.0.0.1", sock_port(a)));
	CHECK(!sock_is_at(a, "127.0.0.1", (uint16_t)(sock_port(a) ^ 1)));
	CHECK(!sock_is_at(a, "127.0.0.2", 0) && !sock_is_at(a, "::", 0));
	CHECK(!sock_is_at(a, "nowhere", 0) && !sock_is_at(-1, "127.0.0.1", 0));
	CHECK_STR(sock_path(path, a), "");
	CHECK_EQ(sock_listen("::1", 0, 1, true, &b), 0);
	CHECK(sock_is_at(b, "::1", 0) && !sock_is_at(b, "::", 0));
	CHECK(sock_cookie(a) != 0 && sock_cookie(a) != sock_cookie(b));
	CHECK_EQ(sock_cookie(-1), 0);
	(void)close(a);
	(void)close(b);
	(void)unlink("/tmp/wsbind-test-path.sock");
	CHECK_EQ(sock_listen_unix("/tmp/wsbind-test-path.sock", 0600, 1, &a), 0);
	CHECK_STR(sock_path(path, a), "/tmp/wsbind-test-path.sock");
	(void)close(a);
	(void)unlink("/tmp/wsbind-test-path.sock");
}
