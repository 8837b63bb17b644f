/* SPDX-License-Identifier: MIT */
/* The loop that the connections of a command share: who is read, who connects, who sends. */
#include "client/endpoint_private.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>

static struct endpoint_loop *endpoint_loop_of(struct reactor *r)
{
	return CONTAINER_OF(r, struct endpoint_loop, reactor);
}

static bool endpoint_loop_has_work(struct reactor *r)
{
	const struct endpoint_loop *l = endpoint_loop_of(r);

	return !list_is_empty(&l->unread) || !list_is_empty(&l->unsent) ||
	       (!list_is_empty(&l->waiting) && l->opening < ENDPOINT_MAX_OPENING);
}

static void endpoint_loop_work(struct reactor *r)
{
	struct endpoint_loop *l = endpoint_loop_of(r);
	struct list unread, *node;

	/*
	 * What reading puts back on unread is for the next turn: so a fast server starves nobody.
	 */
	list_init(&unread);
	list_splice_tail(&unread, &l->unread);
	while ((node = list_pop(&unread)))
		endpoint_read(CONTAINER_OF(node, struct endpoint, in_unread), true);
	/* Ends that reading found make room for those that wait to connect. */
	while (l->opening < ENDPOINT_MAX_OPENING && (node = list_pop(&l->waiting)))
		endpoint_begin(CONTAINER_OF(node, struct endpoint, in_waiting));
	/* Sending comes last, so that all answers of this turn go out in one call each. */
	while ((node = list_pop(&l->unsent)))
		endpoint_flush(CONTAINER_OF(node, struct endpoint, in_unsent));
}

int endpoint_loop_init(struct endpoint_loop *l, const struct target *target,
		       const struct endpoint_limits *limits)
{
	static const struct reactor_ops ops = {
		.has_work = endpoint_loop_has_work,
		.work = endpoint_loop_work,
	};
	int r;

	list_init(&l->unsent);
	list_init(&l->unread);
	list_init(&l->waiting);
	l->signal_fd = -1;
	l->target = target;
	l->limits = *limits;
	/* One for all connections: nothing stays in it beyond a read, so thousands cost no more. */
	l->read_buffer = malloc(ENDPOINT_READ_BYTES);
	if (!l->read_buffer)
		return -ENOMEM;
	r = reactor_init(&l->reactor, &ops);
	if (r < 0) {
		ptr_freep(&l->read_buffer);
		l->read_buffer = NULL;
		return r;
	}
	reactor_own(&l->reactor);
	return 0;
}

static void endpoint_loop_signal_ready(struct reactor_source *source, uint32_t events)
{
	struct endpoint_loop *l = CONTAINER_OF(source, struct endpoint_loop, signal_source);
	struct signalfd_siginfo info;

	(void)events;
	/* A second signal while the first is being handled comes by the next turn. */
	if (read(l->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		l->on_signal(l);
}

int endpoint_loop_on_signal(struct endpoint_loop *l, void (*fn)(struct endpoint_loop *l))
{
	sigset_t set;

	/* A server that goes away is an end like others, not a signal that kills the command. */
	(void)signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	l->on_signal = fn;
	l->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (l->signal_fd < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	return reactor_add(&l->reactor, &l->signal_source, l->signal_fd, EPOLLIN,
			   endpoint_loop_signal_ready);
}

void endpoint_loop_fini(struct endpoint_loop *l)
{
	/* The buffer is what tells a loop that was made from memory that is all zero. */
	if (!l->read_buffer)
		return;
	fd_closep(&l->signal_fd);
	reactor_fini(&l->reactor);
	ptr_freep(&l->read_buffer);
	l->read_buffer = NULL;
}

int endpoint_loop_turn(struct endpoint_loop *l, uint64_t longest_ns)
{
	return reactor_turn(&l->reactor, longest_ns);
}
