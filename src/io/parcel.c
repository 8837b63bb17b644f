/* SPDX-License-Identifier: MIT */
#include "io/parcel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define SNDBUF_BYTES (4 << 20) /* asked for; the system gives what net.core.wmem_max allows */

/* Room for the descriptors of one message. */
union WB_VALUE rights {
	struct cmsghdr head;
	char bytes[CMSG_SPACE(PARCEL_BATCH * sizeof(int))];
};

/* ---------------------------------------------------------------------- filling */

static int parcel_add_pair(struct parcel *p)
{
	const int want = SNDBUF_BYTES;
	int *end = p->end[p->n_pairs];

	if (p->n_pairs == PARCEL_MAX_PAIRS)
		return -ENOSPC;
	/* SEQPACKET keeps the messages apart, so that one can be looked at whole. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, end) < 0)
		return -errno;
	p->n_pairs++;
	/* Less room means more pairs. */
	(void)setsockopt(end[0], SOL_SOCKET, SO_SNDBUF, &want, sizeof(want));
	return 0;
}

/* All that was put, as one message into the last pair. */
static int parcel_send(struct parcel *p)
{
	struct iovec iov = {p->put_mark, p->n_put};
	union rights rights;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = rights.bytes,
		.msg_controllen = CMSG_SPACE(p->n_put * sizeof(int)),
	};
	struct cmsghdr *head;

	memset(&rights, 0, sizeof(rights)); /* its padding goes to the kernel as well */
	head = CMSG_FIRSTHDR(&msg);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(p->n_put * sizeof(int));
	memcpy(CMSG_DATA(head), p->put_fd, p->n_put * sizeof(int));
	if (sendmsg(p->end[p->n_pairs - 1][0], &msg, MSG_NOSIGNAL) < 0)
		return -errno;
	p->n_put = 0;
	return 0;
}

int parcel_seal(struct parcel *p)
{
	int r = p->n_put > 0 && p->n_pairs == 0 ? parcel_add_pair(p) : 0;

	if (r || p->n_put == 0)
		return r;
	r = parcel_send(p);
	if (r != -EAGAIN)
		return r;
	/* Nobody reads, so a pair that is full stays full: what is left goes into another one. */
	r = parcel_add_pair(p);
	return r ? r : parcel_send(p);
}

int parcel_put(struct parcel *p, int fd, uint8_t mark)
{
	int r = p->n_put == PARCEL_BATCH ? parcel_seal(p) : 0;

	if (r)
		return r;
	p->put_fd[p->n_put] = fd;
	p->put_mark[p->n_put++] = mark;
	return 0;
}

int parcel_try(size_t n, size_t *ret_capacity)
{
	static const uint8_t marks[PARCEL_BATCH];
	struct parcel p = {0};
	size_t of_pair = 0;
	int r = parcel_add_pair(&p);

	/* A message's descriptors take no room of the pair, its bytes and its head do. */
	if (r == 0)
		while (send(p.end[0][0], marks, sizeof(marks), MSG_NOSIGNAL) > 0)
			of_pair += PARCEL_BATCH;
	while (r == 0 && p.n_pairs * of_pair < n)
		r = parcel_add_pair(&p);
	parcel_fini(&p);
	*ret_capacity = of_pair * PARCEL_MAX_PAIRS;
	return r;
}

void parcel_fini(struct parcel *p)
{
	for (unsigned i = 0; i < p->n_pairs; i++) {
		fd_closep(&p->end[i][0]);
		fd_closep(&p->end[i][1]);
	}
	p->n_pairs = p->n_put = 0;
}

/* ---------------------------------------------------------------------- looking */

/* Descriptors of a message, to be closed by whoever gets them. Return: how many. */
static size_t rights_of(struct msghdr *msg, int fd[PARCEL_BATCH])
{
	size_t n = 0;

	for (struct cmsghdr *head = CMSG_FIRSTHDR(msg); head; head = CMSG_NXTHDR(msg, head)) {
		if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
			continue;
		n = MIN((head->cmsg_len - CMSG_LEN(0)) / sizeof(int), (size_t)PARCEL_BATCH);
		memcpy(fd, CMSG_DATA(head), n * sizeof(int));
	}
	return n;
}

/* The next message. Return: descriptors in it | 0 there is none | -errno. */
static ssize_t look_at_message(int end, int fd[PARCEL_BATCH], uint8_t mark[PARCEL_BATCH])
{
	struct iovec iov = {mark, PARCEL_BATCH};
	union rights rights;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = rights.bytes,
		.msg_controllen = sizeof(rights.bytes),
	};
	ssize_t r = recvmsg(end, &msg, MSG_PEEK | MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	size_t n;

	if (r < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (r == 0)
		return 0;
	n = rights_of(&msg, fd);
	if (n == (size_t)r && !(msg.msg_flags & MSG_CTRUNC))
		return r;
	/*
	 * The kernel ran out of our descriptors on the way, or this is no parcel. What it has
	 * given is ours all the same, and nobody could say which mark belongs to which of them.
	 */
	for (size_t i = 0; i < n; i++)
		(void)close(fd[i]);
	return msg.msg_flags & MSG_CTRUNC ? -EMFILE : -EBADMSG;
}

int parcel_look(int end, parcel_fn *fn, void *ctx)
{
	const int from = 0;
	uint8_t mark[PARCEL_BATCH];
	int fd[PARCEL_BATCH] = {0}, result = 0;
	ssize_t n;

	/* Each look then starts behind the one before (socket(7), SO_PEEK_OFF). */
	if (setsockopt(end, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof(from)) < 0)
		return -errno;
	while (result == 0 && (n = look_at_message(end, fd, mark)) != 0) {
		if (n < 0)
			return (int)n;
		/* Also those that @fn does not want any more came as copies: they are closed. */
		for (ssize_t i = 0; i < n; i++) {
			if (result)
				(void)close(fd[i]);
			else
				result = fn(ctx, fd[i], mark[i]);
		}
	}
	return result;
}
