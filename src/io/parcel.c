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

static int add_pair(struct parcel *b)
{
	const int want = SNDBUF_BYTES;
	int *end = b->end[b->n];

	if (b->n == PARCEL_MAX_PAIRS)
		return -ENOSPC;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, end) < 0)
		return -errno;
	b->n++;
	/* Less room means more pairs. */
	(void)setsockopt(end[0], SOL_SOCKET, SO_SNDBUF, &want, sizeof(want));
	return 0;
}

static int send_put(struct parcel *b)
{
	struct iovec iov = {b->mark, b->n_put};
	union rights rights;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = rights.bytes,
		.msg_controllen = CMSG_SPACE(b->n_put * sizeof(int)),
	};
	struct cmsghdr *head;

	memset(&rights, 0, sizeof(rights));
	head = CMSG_FIRSTHDR(&msg);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(b->n_put * sizeof(int));
	memcpy(CMSG_DATA(head), b->fd, b->n_put * sizeof(int));
	if (sendmsg(b->end[b->n - 1][0], &msg, MSG_NOSIGNAL) < 0)
		return -errno;
	b->n_put = 0;
	return 0;
}

int parcel_seal(struct parcel *b)
{
	int r = b->n_put > 0 && b->n == 0 ? add_pair(b) : 0;

	if (r || b->n_put == 0)
		return r;
	r = send_put(b);
	if (r != -EAGAIN)
		return r;
	r = add_pair(b); /* this one is full */
	return r ? r : send_put(b);
}

int parcel_put(struct parcel *b, int fd, uint8_t mark)
{
	int r = b->n_put == PARCEL_BATCH ? parcel_seal(b) : 0;

	if (r)
		return r;
	b->fd[b->n_put] = fd;
	b->mark[b->n_put++] = mark;
	return 0;
}

void parcel_fini(struct parcel *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		fd_closep(&b->end[i][0]);
		fd_closep(&b->end[i][1]);
	}
	b->n = b->n_put = 0;
}

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
static ssize_t look_at_one(int end, int fd[PARCEL_BATCH], uint8_t mark[PARCEL_BATCH])
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
	/* Out of descriptors on the way, or no parcel. */
	for (size_t i = 0; i < n; i++)
		(void)close(fd[i]);
	return msg.msg_flags & MSG_CTRUNC ? -EMFILE : -EBADMSG;
}

int parcel_look(int end, parcel_fn *fn, void *ctx)
{
	const int from = 0;
	uint8_t mark[PARCEL_BATCH];
	int fd[PARCEL_BATCH], result = 0;
	ssize_t n;

	/* Each look then starts behind the one before (socket(7), SO_PEEK_OFF). */
	if (setsockopt(end, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof(from)) < 0)
		return -errno;
	while (result == 0 && (n = look_at_one(end, fd, mark)) != 0) {
		if (n < 0)
			return (int)n;
		for (ssize_t i = 0; i < n; i++) {
			if (result)
				(void)close(fd[i]);
			else
				result = fn(ctx, fd[i], mark[i]);
		}
	}
	return result;
}
