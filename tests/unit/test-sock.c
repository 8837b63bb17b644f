/* SPDX-License-Identifier: MIT */
#include "io/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/un.h>

#include "test.h"

static int open_listener(const char *host, uint16_t port, bool is_first)
{
	int fd = -1;

	CHECK_EQ(sock_listen(host, port, 64, is_first, &fd), 0);
	CHECK(fd >= 0);
	return fd;
}

/* What sock_listen() says where it must fail; it may not touch its result then. */
static int refused_listener(const char *host, uint16_t port, bool is_first)
{
	int fd = -77;
	int r = sock_listen(host, port, 64, is_first, &fd);

	CHECK_EQ(fd, -77);
	return r;
}

static void wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	CHECK_EQ(poll(&p, 1, 10000), 1);
}

static int connect_to_port(const char *host, uint16_t port)
{
	int fd = -1;

	CHECK_EQ(sock_connect(host, port, &fd), 0);
	wait_for(fd, POLLOUT);
	CHECK_EQ(sock_error(fd), 0);
	return fd;
}

static int accept_one(int listener, struct sock_peer *ret_peer)
{
	int fd = -1;

	wait_for(listener, POLLIN);
	CHECK_EQ(sock_accept(listener, &fd, ret_peer), 0);
	return fd;
}

static bool has_ipv6(void)
{
	const struct sockaddr_in6 addr = {.sin6_family = AF_INET6,
					  .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool has = fd >= 0 && bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0;

	if (fd >= 0)
		close(fd);
	return has;
}

static void check_flags(int fd)
{
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

TEST(sock_listens_on_any_free_port)
{
	int a = open_listener("127.0.0.1", 0, true);
	int b = open_listener("127.0.0.1", 0, true);

	CHECK(sock_port(a) > 0);
	CHECK(sock_port(b) > 0);
	CHECK(sock_port(a) != sock_port(b));
	check_flags(a);
	close(a);
	close(b);
}

/* Neither a daemon of the same user nor one that shares its port may get between. */
TEST(sock_port_is_shared_by_one_group_alone)
{
	int first = open_listener("127.0.0.1", 0, true);
	uint16_t port = sock_port(first);
	int second, third;

	CHECK_EQ(refused_listener("127.0.0.1", port, true), -EADDRINUSE);
	CHECK_EQ(refused_listener("0.0.0.0", port, true), -EADDRINUSE);
	second = open_listener("127.0.0.1", port, false);
	CHECK_EQ(sock_port(second), port);
	CHECK_EQ(refused_listener("127.0.0.1", port, true), -EADDRINUSE);
	close(first);
	CHECK_EQ(refused_listener("127.0.0.1", port, true), -EADDRINUSE);
	third = open_listener("127.0.0.1", port, false);
	close(second);
	close(third);
	first = open_listener("127.0.0.1", port, true);
	close(first);
}

/* A port whose last connections are still closing can be had at once. */
TEST(sock_port_is_free_again_when_its_listener_is_gone)
{
	int listener = open_listener("127.0.0.1", 0, true);
	uint16_t port = sock_port(listener);
	int client = connect_to_port("127.0.0.1", port);
	struct sock_peer peer;
	int server = accept_one(listener, &peer);

	close(server); /* first: so the server's end is the one that lingers */
	wait_for(client, POLLRDHUP);
	close(client);
	close(listener);
	listener = open_listener("127.0.0.1", port, true);
	close(listener);
}

/* The kernel spreads connections by a hash: that all of them meet one listener is one in 2^39. */
TEST(sock_connections_are_spread_over_a_group)
{
	enum { N = 40 };
	int a = open_listener("127.0.0.1", 0, true);
	int b = open_listener("127.0.0.1", sock_port(a), false);
	int clients[N], accepted[2] = {0}, fd;
	struct sock_peer peer;

	for (int i = 0; i < N; i++)
		clients[i] = connect_to_port("127.0.0.1", sock_port(a));
	for (; sock_accept(a, &fd, &peer) == 0; accepted[0]++)
		close(fd);
	for (; sock_accept(b, &fd, &peer) == 0; accepted[1]++)
		close(fd);
	CHECK_EQ(accepted[0] + accepted[1], N);
	CHECK(accepted[0] > 0 && accepted[1] > 0);
	for (int i = 0; i < N; i++)
		close(clients[i]);
	close(a);
	close(b);
}

TEST(sock_listen_takes_numeric_addresses_only)
{
	static const char *const hosts[] = {"",          "localhost", "127.0.0", "256.0.0.1",
					    "1.2.3.4.5", "[::1]",     ":::",     "127.0.0.1 "};

	for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
		CHECK_EQ(refused_listener(hosts[i], 0, true), -EINVAL);
	CHECK_EQ(refused_listener("192.0.2.1", 0, true),
		 -EADDRNOTAVAIL); /* for documentation only */
}

/* Accepts a connection to @to and compares its address with what the client has. */
static void check_accepted(int listener, const char *to, const char *expected_ip)
{
	int client = connect_to_port(to, sock_port(listener));
	char text[SOCK_ADDRESS_MAX], expected[2 * SOCK_ADDRESS_MAX];
	struct sock_peer peer;
	int server;

	memset(&peer, 0xff, sizeof(peer));
	server = accept_one(listener, &peer);
	check_flags(server);
	check_flags(client);
	CHECK(!peer.is_unix);
	CHECK_EQ(peer.port, sock_port(client));
	CHECK_STR(sock_format_ip(text, &peer), expected_ip);
	snprintf(expected, sizeof(expected), strchr(expected_ip, ':') ? "[%s]:%u" : "%s:%u",
		 expected_ip, sock_port(client));
	CHECK_STR(sock_format_peer(text, &peer), expected);
	close(server);
	close(client);
}

TEST(sock_accepts_ipv4)
{
	static const uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1};
	int listener = open_listener("0.0.0.0", 0, true);
	struct sock_peer peer;
	int fd = -77, client;

	CHECK_EQ(sock_accept(listener, &fd, &peer), -EAGAIN);
	CHECK_EQ(fd, -77);
	check_accepted(listener, "127.0.0.1", "127.0.0.1");
	client = connect_to_port("127.0.0.1", sock_port(listener));
	fd = accept_one(listener, &peer);
	CHECK_MEM(peer.ip, mapped, 16);
	CHECK_EQ(sock_accept(listener, &client, &peer), -EAGAIN);
	close(fd);
	close(client);
	close(listener);
}

TEST(sock_accepts_ipv6_and_on_the_unspecified_address_both)
{
	int v6, both;

	if (!has_ipv6())
		skip();
	v6 = open_listener("::1", 0, true);
	CHECK(sock_port(v6) > 0);
	check_accepted(v6, "::1", "::1");
	close(v6);
	both = open_listener("::", 0, true);
	check_accepted(both, "::1", "::1");
	check_accepted(both, "127.0.0.1", "127.0.0.1");
	CHECK_EQ(refused_listener("0.0.0.0", sock_port(both), true), -EADDRINUSE);
	close(both);
}

TEST(sock_accepts_unix_peers)
{
	const struct sockaddr_un any = {.sun_family = AF_UNIX};
	struct sockaddr_un addr = {0};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static const struct sock_peer local = {.is_unix = true};
	struct sock_peer peer;
	char text[SOCK_ADDRESS_MAX];
	int server;

	/* A bare family lets the kernel choose an abstract name. */
	CHECK_EQ(bind(listener, (const struct sockaddr *)&any, sizeof(any.sun_family)), 0);
	CHECK_EQ(listen(listener, 4), 0);
	CHECK_EQ(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	CHECK_EQ(connect(client, (struct sockaddr *)&addr, len), 0);
	memset(&peer, 0xff, sizeof(peer));
	server = accept_one(listener, &peer);
	check_flags(server);
	CHECK(peer.is_unix);
	CHECK_EQ(peer.port, 0);
	CHECK_MEM(peer.ip, local.ip, sizeof(peer.ip));
	CHECK_STR(sock_format_peer(text, &peer), "unix");
	CHECK_EQ(sock_port(listener), 0);
	close(server);
	close(client);
	close(listener);
}

TEST(sock_accept_says_what_is_wrong)
{
	int listener = open_listener("127.0.0.1", 0, true);
	int client = connect_to_port("127.0.0.1", sock_port(listener));
	struct sock_peer peer;
	struct rlimit before, none;
	int fd = -77, r;

	wait_for(listener, POLLIN);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	r = sock_accept(listener, &fd, &peer);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
	CHECK_EQ(r, -EMFILE);
	CHECK_EQ(sock_accept(client, &fd, &peer), -EINVAL);
	CHECK_EQ(sock_accept(-1, &fd, &peer), -EBADF);
	CHECK_EQ(fd, -77);
	fd = accept_one(listener, &peer); /* it still waited */
	close(fd);
	close(client);
	close(listener);
}

/* ----- text */

static const struct {
	const char *ip;
	uint16_t port;
	const char *as_peer;
	const char *as_ip;
} texts[] = {
	{"::ffff:127.0.0.1", 5000, "127.0.0.1:5000", "127.0.0.1"},
	{"::ffff:0.0.0.0", 0, "0.0.0.0", "0.0.0.0"},
	{"::ffff:255.255.255.255", 65535, "255.255.255.255:65535", "255.255.255.255"},
	{"::", 1, "[::]:1", "::"},
	{"::1", 80, "[::1]:80", "::1"},
	{"2001:db8::1", 5000, "[2001:db8::1]:5000", "2001:db8::1"},
	{"::fffe:7f00:1", 1, "[::fffe:7f00:1]:1", "::fffe:7f00:1"},
	{"1::ffff:7f00:1", 1, "[1::ffff:7f00:1]:1", "1::ffff:7f00:1"},
	{"fdff:1234:5678:9abc:def0:1234:5678:9abc", 65535,
	 "[fdff:1234:5678:9abc:def0:1234:5678:9abc]:65535",
	 "fdff:1234:5678:9abc:def0:1234:5678:9abc"},
};

TEST(sock_formats_addresses)
{
	char text[SOCK_ADDRESS_MAX];

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct sock_peer peer = {.port = texts[i].port};

		CHECK_EQ(inet_pton(AF_INET6, texts[i].ip, peer.ip), 1);
		CHECK(sock_format_peer(text, &peer) == text);
		CHECK_STR(text, texts[i].as_peer);
		CHECK(sock_format_ip(text, &peer) == text);
		CHECK_STR(text, texts[i].as_ip);
		peer.is_unix = true;
		CHECK_STR(sock_format_peer(text, &peer), "unix");
		CHECK_STR(sock_format_ip(text, &peer), "unix");
	}
}

/* ----- options */

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	CHECK_EQ(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

TEST(sock_options_are_set)
{
	static const struct sock_options on = {true, 77, 4096}, off = {0};
	int listener = open_listener("127.0.0.1", 0, true);
	int fd = connect_to_port("127.0.0.1", sock_port(listener));
	int lowat = option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT);

	sock_set_options(fd, &off);
	CHECK_EQ(option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
	CHECK_EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
	CHECK_EQ(option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT), lowat);
	sock_set_options(fd, &on);
	CHECK(option(fd, IPPROTO_TCP, TCP_NODELAY) != 0);
	CHECK_EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	CHECK_EQ(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 77);
	CHECK_EQ(option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT), 4096);
	sock_set_options(fd, &off);
	CHECK_EQ(option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
	CHECK_EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
	close(fd);
	close(listener);
}

TEST(sock_options_do_no_harm_to_unix_sockets)
{
	static const struct sock_options on = {true, 77, 4096};
	int fds[2];
	char c = 0;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	sock_set_options(fds[0], &on);
	CHECK_EQ(sock_error(fds[0]), 0);
	CHECK_EQ(write(fds[0], "x", 1), 1);
	CHECK_EQ(read(fds[1], &c, 1), 1);
	CHECK_EQ(c, 'x');
	close(fds[0]);
	close(fds[1]);
}

/* ----- connecting */

/* The outcome of a connect, whether it comes at once or later. */
static int connect_outcome(const char *host, uint16_t port)
{
	int fd = -1, r = sock_connect(host, port, &fd);

	if (r) {
		CHECK_EQ(fd, -1);
		return r;
	}
	wait_for(fd, POLLOUT);
	r = sock_error(fd);
	CHECK_EQ(sock_error(fd), 0); /* told once */
	close(fd);
	return r;
}

TEST(sock_connect_is_refused_where_nobody_listens)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* Bound, so that nobody else gets the port; not listening. */
	CHECK_EQ(bind(bound, (struct sockaddr *)&addr, sizeof(addr)), 0);
	CHECK_EQ(connect_outcome("127.0.0.1", sock_port(bound)), -ECONNREFUSED);
	close(bound);
}

TEST(sock_connect_to_what_is_no_host)
{
	char name[301];

	/* Too long for any resolver to ask about. */
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	CHECK_EQ(connect_outcome(name, 80), -EINVAL);
	CHECK_EQ(connect_outcome("224.0.0.1", 80), -ENETUNREACH); /* many hosts: not for TCP */
}

TEST(sock_error_and_port_of_what_has_none)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_EQ(sock_error(fd), 0);
	CHECK_EQ(sock_port(fd), 0);
	close(fd);
	CHECK_EQ(sock_error(-1), -EBADF);
	CHECK_EQ(sock_port(-1), 0);
}
