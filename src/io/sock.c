/* SPDX-License-Identifier: MIT */
#include "io/sock.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

static const uint8_t v4_prefix[12] = {[10] = 0xff, [11] = 0xff};

/* In numbers alone: a name would have to be asked for, and that blocks. */
static int parse_address(const char *host, uint16_t port, struct sockaddr_storage *ret,
			 socklen_t *ret_len)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	*ret = (struct sockaddr_storage){0};
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		*ret_len = sizeof(*v4);
		return 0;
	}
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		*ret_len = sizeof(*v6);
		return 0;
	}
	return -EINVAL;
}

static int share_port(int fd)
{
	const int on = 1;

	return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ? -errno : 0;
}

/* Bound, and not listening yet. */
static int bind_port(const char *host, uint16_t port, bool is_shared, int *ret_fd)
{
	WB_CLEANUP(fd_closep) int fd = -1;
	struct sockaddr_storage addr;
	socklen_t addr_len;
	const int on = 1, off = 0;
	int r;

	r = parse_address(host, port, &addr, &addr_len);
	if (r)
		return r;
	fd = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Connections of the daemon before, which wait for their last timer, keep no port. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	if (is_shared && share_port(fd))
		return -errno;
	if (addr.ss_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&addr, addr_len) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int sock_try_bind(const char *host, uint16_t port)
{
	WB_CLEANUP(fd_closep) int fd = -1;

	return bind_port(host, port, true, &fd);
}

int sock_listen(const char *host, uint16_t port, int backlog, bool is_first, int *ret_fd)
{
	WB_CLEANUP(fd_closep) int fd = -1;
	int r = bind_port(host, port, !is_first, &fd);

	if (r)
		return r;
	/* The first has the port by now, and from here on lets the others of its group in. */
	if ((is_first && share_port(fd)) || listen(fd, backlog) < 0)
		return -errno;

	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* 0: a socket file that nobody listens on is out of the way; else what is in the way. */
static int unix_remove_stale(const struct sockaddr_un *to)
{
	WB_CLEANUP(fd_closep) int fd = -1;
	struct stat st;

	if (lstat(to->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Only a refusal says that nobody is there; a full backlog (EAGAIN) says someone is. */
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0 || errno != ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(to->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

/*
 * The mode is set on the socket before it has a name, so that the file never has a
 * wider one; the umask is applied to that, hence once more by name.
 */
static int unix_bind(int fd, const struct sockaddr_un *to, mode_t mode)
{
	if (fchmod(fd, mode) < 0)
		return -errno;
	return bind(fd, (const struct sockaddr *)to, sizeof(*to)) < 0 ? -errno : 0;
}

int sock_listen_unix(const char *path, mode_t mode, int backlog, int *ret_fd)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	WB_CLEANUP(fd_closep) int fd = -1;
	int r;

	if (strlen(path) >= sizeof(to.sun_path))
		return -ENAMETOOLONG;
	memcpy(to.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = unix_bind(fd, &to, mode);
	/*
	 * A file outlives its socket: one that a daemon left behind when it was killed is removed.
	 */
	if (r == -EADDRINUSE) {
		r = unix_remove_stale(&to);
		if (r == 0)
			r = unix_bind(fd, &to, mode);
	}
	if (r < 0)
		return r;
	if (chmod(path, mode) < 0 || listen(fd, backlog) < 0) {
		r = -errno;
		(void)unlink(path); /* the first error is the one to tell */
		return r;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

uint16_t sock_port(int fd)
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);

	if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		return 0;
	if (addr.ss_family == AF_INET)
		return ntohs(((struct sockaddr_in *)&addr)->sin_port);
	if (addr.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&addr)->sin6_port);
	return 0;
}

bool sock_is_at(int fd, const char *host, uint16_t port)
{
	struct sockaddr_storage wanted, addr = {0};
	socklen_t wanted_len, len = sizeof(addr);
	const struct sockaddr_in *a4 = (const void *)&wanted, *b4 = (const void *)&addr;
	const struct sockaddr_in6 *a6 = (const void *)&wanted, *b6 = (const void *)&addr;

	/* Compared as bytes of an address: "::1" and "0:0:0:0:0:0:0:1" are the same. */
	if (parse_address(host, port, &wanted, &wanted_len) ||
	    getsockname(fd, (struct sockaddr *)&addr, &len) < 0 ||
	    addr.ss_family != wanted.ss_family || (port && sock_port(fd) != port))
		return false;
	return addr.ss_family == AF_INET
		       ? a4->sin_addr.s_addr == b4->sin_addr.s_addr
		       : memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
}

char *sock_path(char out[SOCK_PATH_MAX], int fd)
{
	struct sockaddr_un addr = {0};
	socklen_t len = sizeof(addr);

	/* A path of full length has no NUL in the address. */
	static_assert(SOCK_PATH_MAX > sizeof(addr.sun_path), "with its NUL");
	out[0] = '\0';
	if (getsockname(fd, (struct sockaddr *)&addr, &len) == 0 && addr.sun_family == AF_UNIX)
		snprintf(out, SOCK_PATH_MAX, "%.*s", (int)sizeof(addr.sun_path), addr.sun_path);
	return out;
}

uint64_t sock_cookie(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0 ? 0 : cookie;
}

static void fill_peer(struct sock_peer *peer, const struct sockaddr_storage *addr)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)addr;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)addr;

	*peer = (struct sock_peer){0};
	switch (addr->ss_family) {
	case AF_INET:
		memcpy(peer->ip, v4_prefix, sizeof(v4_prefix));
		memcpy(peer->ip + sizeof(v4_prefix), &v4->sin_addr, 4);
		peer->port = ntohs(v4->sin_port);
		break;
	case AF_INET6:
		memcpy(peer->ip, &v6->sin6_addr, 16);
		peer->port = ntohs(v6->sin6_port);
		break;
	default: /* AF_UNIX, the one kind that is left: such a peer has no address */
		peer->is_unix = true;
	}
}

int sock_accept(int listener, int *ret_fd, struct sock_peer *ret_peer)
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);
	int fd;

	/* With its flags at once: another thread may fork between two calls. */
	do
		fd = accept4(listener, (struct sockaddr *)&addr, &len,
			     SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	fill_peer(ret_peer, &addr);
	*ret_fd = fd;
	return 0;
}

void sock_set_notsent_lowat(int fd, uint32_t bytes)
{
	/* A unix socket has no such option, and is served without it. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes));
}

void sock_set_options(int fd, const struct sock_options *options)
{
	const int nodelay = options->nodelay;
	const int keepalive = options->keepalive_s > 0;
	const unsigned idle = options->keepalive_s;

	/* A unix socket knows none of these, and serves as well without them. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof(nodelay));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &keepalive, sizeof(keepalive));
	if (keepalive)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	if (options->notsent_lowat)
		sock_set_notsent_lowat(fd, options->notsent_lowat);
}

static int connect_to(const struct sockaddr *addr, socklen_t len, int *ret_fd)
{
	WB_CLEANUP(fd_closep) int fd = -1;

	fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, addr, len) < 0 && errno != EINPROGRESS)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int sock_connect(const char *host, uint16_t port, int *ret_fd)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *found = NULL;
	char service[8];
	int r = -EINVAL;

	snprintf(service, sizeof(service), "%u", port);
	if (getaddrinfo(host, service, &hints, &found) != 0)
		return -EINVAL;
	/* The first that can be begun with: one that fails later, when nobody answers, was it. */
	for (const struct addrinfo *a = found; a && r; a = a->ai_next)
		r = connect_to(a->ai_addr, a->ai_addrlen, ret_fd);
	freeaddrinfo(found);
	return r;
}

int sock_error(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	return -error;
}

static bool is_v4(const struct sock_peer *peer)
{
	return memcmp(peer->ip, v4_prefix, sizeof(v4_prefix)) == 0;
}

char *sock_format_ip(char *out, const struct sock_peer *peer)
{
	if (peer->is_unix)
		return strcpy(out, "unix");
	if (is_v4(peer))
		(void)inet_ntop(AF_INET, peer->ip + sizeof(v4_prefix), out, SOCK_ADDRESS_MAX);
	else
		(void)inet_ntop(AF_INET6, peer->ip, out, SOCK_ADDRESS_MAX);
	return out;
}

char *sock_format_peer(char *out, const struct sock_peer *peer)
{
	char ip[SOCK_ADDRESS_MAX];

	if (peer->is_unix)
		return strcpy(out, "unix");
	sock_format_ip(ip, peer);
	/* Without a port it was named by a proxy, and 0 would look like one. */
	if (peer->port == 0)
		return strcpy(out, ip);
	snprintf(out, SOCK_ADDRESS_MAX, is_v4(peer) ? "%.45s:%u" : "[%.45s]:%u", ip, peer->port);
	return out;
}
