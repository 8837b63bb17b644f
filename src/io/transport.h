/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The bytes of one connection, in and out, behind one small interface: plain TCP
 * here, TLS beside it, memory in tests and fuzzers. Nothing above knows which.
 *
 * Every call returns at once. A transport is a value inside its connection: its
 * table of functions and a descriptor (or, for tests, an index that they know).
 */

#include <sys/types.h>
#include <sys/uio.h>

#include "base/base.h"

struct transport;

struct WB_FROZEN transport_ops {
	ssize_t (*recv)(struct transport *t, void *p, size_t n);
	ssize_t (*send)(struct transport *t, const struct iovec *iov, int count);
	void (*shutdown)(struct transport *t);
	void (*close)(struct transport *t, bool reset);
};

struct WB_OWNER(loop) transport {
	const struct transport_ops *ops WB_FROZEN;
	int fd; /* -1 once closed */
};

/* Plain bytes over a stream socket. Owns @fd from here on. */
void transport_init_plain(struct transport *t, int fd);

/**
 * transport_recv() - read what is there
 *
 * Return:  bytes read | 0 the peer will send no more | -EAGAIN nothing yet | -errno.
 */
static inline ssize_t transport_recv(struct transport *t, void *p, size_t n)
{
	return t->ops->recv(t, p, n);
}

/**
 * transport_send() - write as much as the kernel takes
 *
 * Return:  bytes taken, fewer than offered when the kernel is full | -EAGAIN none | -errno.
 */
static inline ssize_t transport_send(struct transport *t, const struct iovec *iov, int count)
{
	return t->ops->send(t, iov, count);
}

/* Says that nothing more will be sent; what was sent still arrives. */
static inline void transport_shutdown(struct transport *t)
{
	t->ops->shutdown(t);
}

/* Ends it. @reset: drop what the kernel still holds, so that a peer that doesn't read costs
 * nothing. */
static inline void transport_close(struct transport *t, bool reset)
{
	t->ops->close(t, reset);
}
