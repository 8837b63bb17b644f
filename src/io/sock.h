/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Sockets: addresses, listeners, accepted connections and their options. Every
 * descriptor is non-blocking and close-on-exec. Nothing here keeps state.
 */

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/base.h"

/* Longest text of sock_format_peer(): "[IPv6]:65535" or a unix socket's "unix". */
#define SOCK_ADDRESS_MAX 64

/* A peer's address, small enough to be kept for each connection. */
struct WB_VALUE sock_peer {
	uint8_t ip[16]; /* IPv6, or IPv4 mapped into ::ffff:0:0/96 */
	uint16_t port;  /* host order */
	bool is_unix;   /* came through a unix socket: ip and port are 0 */
};

/* Options of accepted and connected sockets. */
struct WB_VALUE sock_options {
	bool nodelay;
	unsigned keepalive_s;   /* 0: off */
	unsigned notsent_lowat; /* bytes; 0: the system's default */
};

/* How many bytes may wait in the kernel unsent, @bytes, before it takes no more. */
void sock_set_notsent_lowat(int fd, uint32_t bytes);

/**
 * sock_listen() - open a listening socket that shares its port with our others
 * @host:    numeric IPv4 or IPv6 address; "::" listens on both
 * @port:    0 = any free one
 * @backlog: as in listen(2)
 * @is_first: of its group. SO_REUSEPORT would let another daemon of the same user
 *           in: the first one is bound without it, and so finds the port taken.
 *
 * Return:  0 | -EINVAL no such address | -errno of socket, bind (-EADDRINUSE) or listen.
 * Owns:    the descriptor is the caller's.
 */
int sock_listen(const char *host, uint16_t port, int backlog, bool is_first, int *ret_fd)
	WB_NODISCARD;

/**
 * sock_try_bind() - whether sock_listen() could have an address and port
 *
 * A port that others of this user share (SO_REUSEPORT) counts as free: they are our own.
 *
 * Return:  0 | -EINVAL no such address | -errno of socket or bind.
 */
int sock_try_bind(const char *host, uint16_t port) WB_NODISCARD;

/**
 * sock_listen_unix() - open a listening unix socket
 * @path:    at most 107 bytes; a socket file there that nobody listens on is replaced
 * @mode:    permissions of the file, which never has wider ones
 *
 * Return:  0 | -ENAMETOOLONG | -EADDRINUSE somebody listens there | -EEXIST something else is
 *          there | -errno.
 * Owns:    the descriptor is the caller's; so is the file, to be removed in the end.
 */
int sock_listen_unix(const char *path, mode_t mode, int backlog, int *ret_fd) WB_NODISCARD;

/* The port a socket is bound to; 0 when it has none. */
uint16_t sock_port(int fd);

/* Whether a socket is bound to an address, numeric, and port (0: whichever it has). */
bool sock_is_at(int fd, const char *host, uint16_t port);

/* The path of a unix socket, NUL-terminated; "" when it has none. */
#define SOCK_PATH_MAX 109
char *sock_path(char out[SOCK_PATH_MAX], int fd);

/* What a socket is known by as long as it lives, in all processes (SO_COOKIE); 0: none. */
uint64_t sock_cookie(int fd);

/**
 * sock_accept() - take one waiting connection
 *
 * Return:  0 | -EAGAIN none waits | -errno of accept4, among them -EMFILE,
 *          -ENFILE, -ENOBUFS, -ENOMEM (no more can be taken now) and
 *          -ECONNABORTED (that one is gone; try the next).
 * Owns:    the descriptor is the caller's.
 */
int sock_accept(int listener, int *ret_fd, struct sock_peer *ret_peer) WB_NODISCARD;

/* Sets what it can: an option that a kind of socket doesn't know is left out. */
void sock_set_options(int fd, const struct sock_options *options);

/**
 * sock_connect() - start to connect to an address
 *
 * Return:  0 connected, or under way: writable when done, then see sock_error()
 *          | -EINVAL no such host | -errno of socket or connect.
 * Owns:    the descriptor is the caller's.
 * Thread:  any; resolving a name (not a numeric address) blocks.
 */
int sock_connect(const char *host, uint16_t port, int *ret_fd) WB_NODISCARD;

/* The pending error of a socket as -errno, or 0. */
int sock_error(int fd);

/* "127.0.0.1:5000", "[2001:db8::1]:5000", without a port "127.0.0.1", or "unix". @out has
 * SOCK_ADDRESS_MAX bytes. */
char *sock_format_peer(char *out, const struct sock_peer *peer);

/* Only the address part of it. */
char *sock_format_ip(char *out, const struct sock_peer *peer);
