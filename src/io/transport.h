/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The bytes of one connection, in and out, behind one small interface: plain TCP
 * here, TLS beside it, memory in tests and fuzzers. Nothing above knows which.
 *
 * Every call returns at once. A transport is a value inside its connection: its
 * table of functions and a descriptor (or, for tests, an index that they know).
 */

#include <errno.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/base.h"

struct transport;

struct WB_FROZEN transport_ops {
	ssize_t (*recv)(struct transport *t, void *p, size_t n);
	ssize_t (*peek)(struct transport *t, void *p, size_t n); /* NULL: it can't */
	bool (*has_more)(const struct transport *t);             /* NULL: never */
	unsigned (*take_barren)(struct transport *t);            /* NULL: none */
	ssize_t (*send)(struct transport *t, const struct iovec *iov, int count);
	int (*flush)(struct transport *t); /* NULL: it keeps nothing */
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
 * Thread:  the loop's, as all of these.
 */
static inline ssize_t transport_recv(struct transport *t, void *p, size_t n)
{
	return t->ops->recv(t, p, n);
}

/*
 * Whether more can be read although transport_recv() gave less than was asked for: no event
 * will announce it.
 */
static inline bool transport_has_more(const struct transport *t)
{
	return t->ops->has_more && t->ops->has_more(t);
}

/*
 * How many records without data were read since this was asked last: changes of keys, empty ones.
 * The peer pays nothing for them, and each costs like a frame.
 */
static inline unsigned transport_take_barren(struct transport *t)
{
	return t->ops->take_barren ? t->ops->take_barren(t) : 0;
}

/* As transport_recv(), but the bytes stay there to be read. */
static inline ssize_t transport_peek(struct transport *t, void *p, size_t n)
{
	return t->ops->peek ? t->ops->peek(t, p, n) : -ENOTSUP;
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

/**
 * transport_flush() - send what was taken, but is not in the kernel yet
 *
 * To be called when the socket can be written to, until it returns 0.
 *
 * Return:  0 nothing is left | -EAGAIN | -errno.
 */
static inline int transport_flush(struct transport *t)
{
	return t->ops->flush ? t->ops->flush(t) : 0;
}

/* Whether reading may wait for the socket to be writable, too: a handshake below it. */
static inline bool transport_is_layered(const struct transport *t)
{
	return t->ops->flush != NULL;
}

/* Says that nothing more will be sent; what was sent still arrives. */
static inline void transport_shutdown(struct transport *t)
{
	t->ops->shutdown(t);
}

/*
 * Ends it. @reset: drop what the kernel still holds, so that a peer that doesn't read costs
 * nothing.
 */
static inline void transport_close(struct transport *t, bool reset)
{
	t->ops->close(t, reset);
}
