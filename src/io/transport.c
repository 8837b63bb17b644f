/* SPDX-License-Identifier: MIT */
#include "io/transport.h"

#include <errno.h>
#include <sys/socket.h>

static ssize_t plain_receive(struct transport *t, void *p, size_t n, int flags)
{
	ssize_t got;

	do
		got = recv(t->fd, p, n, flags);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

static ssize_t plain_recv(struct transport *t, void *p, size_t n)
{
	return plain_receive(t, p, n, 0);
}

static ssize_t plain_peek(struct transport *t, void *p, size_t n)
{
	return plain_receive(t, p, n, MSG_PEEK);
}

static ssize_t plain_send(struct transport *t, const struct iovec *iov, int count)
{
	const struct msghdr message = {
		.msg_iov = (struct iovec *)(uintptr_t)iov,
		.msg_iovlen = (size_t)count,
	};
	ssize_t sent;

	/* One piece is the usual case, and send(2) is the shorter way into the kernel. */
	do
		sent = count == 1 ? send(t->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
				  : sendmsg(t->fd, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

static void plain_shutdown(struct transport *t)
{
	(void)shutdown(t->fd, SHUT_WR); /* fails only when the peer is gone already */
}

static void plain_close(struct transport *t, bool reset)
{
	const struct linger now = {.l_onoff = 1, .l_linger = 0};

	if (t->fd < 0)
		return;
	/*
	 * To linger for no time at all is how one asks for a reset: the kernel's buffer goes, too.
	 */
	if (reset)
		(void)setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	fd_closep(&t->fd);
}

static const struct transport_ops plain_ops = {
	.recv = plain_recv,
	.peek = plain_peek,
	.send = plain_send,
	.shutdown = plain_shutdown,
	.close = plain_close,
};

void transport_init_plain(struct transport *t, int fd)
{
	t->ops = &plain_ops;
	t->fd = fd;
}
