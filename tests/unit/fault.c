/* SPDX-License-Identifier: MIT */
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "base/base.h"

#define FAULT_ROW(kind, text) [FAULT_##kind] = {.name = (text)},
static struct fault_plan own[FAULT_N] = {FAULTS(FAULT_ROW)};
#undef FAULT_ROW

static struct fault_plan *plans = own;
static _Atomic size_t fail_elements;

/* What is in which epoll: see cut(). */
#define WATCHED_MAX 65536
static struct {
	_Atomic int epoll_fd;
	struct epoll_event event;
} watched[WATCHED_MAX];

int __real_open(const char *path, int flags, ...);
void *__real_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);

/* Before main(): the file that another process commands, if there is one. */
__attribute__((constructor)) static void map_plans(void)
{
	const char *path = getenv("WSBIND_FAULTS");
	void *shared;
	int fd;

	if (!path)
		return;
	fd = __real_open(path, O_RDWR | O_CLOEXEC);
	shared = fd < 0 ? MAP_FAILED
			: __real_mmap(NULL, sizeof(own), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		abort();
	for (size_t i = 0; i < FAULT_N; i++) /* what was commanded before the start stays */
		memcpy(((struct fault_plan *)shared)[i].name, own[i].name, sizeof(own[i].name));
	plans = shared;
}

/* Counts one call; nonzero, an errno or FAULT_SHORT, when it has to fail. */
static int fault_of(enum fault_kind kind)
{
	struct fault_plan *p = &plans[kind];
	uint64_t number;

	number = atomic_fetch_add(&p->calls, 1);
	if (number - atomic_load(&p->from) >= atomic_load(&p->times))
		return 0;
	atomic_fetch_add(&p->hits, 1);
	return (int)atomic_load(&p->error);
}

static bool fails(enum fault_kind kind)
{
	int error = fault_of(kind);

	if (!error)
		return false;
	errno = error;
	return true;
}

/* WRAP(kind, type of the result, what it is on failure, function, (parameters), (arguments)) */
#define WRAP(kind, type, failure, function, parameters, arguments)            \
	type __real_##function parameters;                                    \
	type __wrap_##function parameters;                                    \
	type __wrap_##function parameters                                     \
	{                                                                     \
		return fails(kind) ? (failure) : __real_##function arguments; \
	}

WRAP(FAULT_ALLOC, void *, NULL, malloc, (size_t n), (n))
WRAP(FAULT_ALLOC, void *, NULL, realloc, (void *p, size_t n), (p, n))
WRAP(FAULT_ALLOC, void *, NULL, aligned_alloc, (size_t to, size_t n), (to, n))
WRAP(FAULT_ALLOC, char *, NULL, strdup, (const char *s), (s))
WRAP(FAULT_ALLOC, char *, NULL, strndup, (const char *s, size_t n), (s, n))
WRAP(FAULT_MMAP, void *, MAP_FAILED, mmap,
     (void *at, size_t n, int protection, int flags, int fd, off_t offset),
     (at, n, protection, flags, fd, offset))
WRAP(FAULT_ACCEPT, int, -1, accept4, (int fd, struct sockaddr *a, socklen_t *n, int flags),
     (fd, a, n, flags))
WRAP(FAULT_WAIT, int, -1, epoll_wait, (int fd, struct epoll_event *e, int n, int ms),
     (fd, e, n, ms))
WRAP(FAULT_EVENTFD, int, -1, eventfd, (unsigned count, int flags), (count, flags))
WRAP(FAULT_OPEN, int, -1, socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(FAULT_OPEN, int, -1, epoll_create1, (int flags), (flags))
WRAP(FAULT_OPEN, int, -1, signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags))
WRAP(FAULT_LISTEN, int, -1, listen, (int fd, int backlog), (fd, backlog))
WRAP(FAULT_LISTEN, int, -1, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))

void *__real_calloc(size_t count, size_t n);
void *__wrap_calloc(size_t count, size_t n);
int __real_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
ssize_t __real_recv(int fd, void *p, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *p, size_t n, int flags);
ssize_t __real_send(int fd, const void *p, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *p, size_t n, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);
int __real_fallocate(int fd, int mode, off_t offset, off_t n);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t n);
ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __real_recv(int fd, void *p, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *p, size_t n, int flags);
ssize_t __real_send(int fd, const void *p, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *p, size_t n, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n);
int __wrap_open(const char *path, int flags, ...);
int __real_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);
int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __real_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
void *__real_calloc(size_t count, size_t n);
void *__wrap_calloc(size_t count, size_t n);

void *__wrap_calloc(size_t count, size_t n)
{
	size_t elements = atomic_load_explicit(&fail_elements, memory_order_relaxed);

	return fails(FAULT_ALLOC) || (elements && n == elements) ? NULL : __real_calloc(count, n);
}

int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
	int r;

	if (op == EPOLL_CTL_ADD && fails(FAULT_EPOLL))
		return -1;
	r = __real_epoll_ctl(epoll_fd, op, fd, event);
	if (r == 0 && fd < WATCHED_MAX) {
		if (op != EPOLL_CTL_DEL)
			watched[fd].event = *event;
		atomic_store(&watched[fd].epoll_fd, op == EPOLL_CTL_DEL ? 0 : epoll_fd);
	}
	return r;
}

/* How many bytes of @n go through; -1 and errno: it fails. */
static ssize_t pass(enum fault_kind kind, size_t n)
{
	int error = fault_of(kind);

	if (error == FAULT_SHORT)
		return n > 1 ? 1 : (ssize_t)n;
	errno = error ? error : errno;
	return error ? -1 : (ssize_t)n;
}

/*
 * The kernel cuts a call short when it is full or empty, and says by an event when it is no
 * longer: so does whoever cuts one.
 */
static ssize_t cut(int fd, ssize_t done)
{
	int epoll_fd = fd < WATCHED_MAX ? atomic_load(&watched[fd].epoll_fd) : 0;

	if (epoll_fd && done >= 0)
		(void)__real_epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &watched[fd].event);
	return done;
}

ssize_t __wrap_recv(int fd, void *p, size_t n, int flags)
{
	ssize_t part = pass(FAULT_RECV, n);

	if (part < 0 || part == (ssize_t)n)
		return part < 0 ? -1 : __real_recv(fd, p, n, flags);
	return cut(fd, __real_recv(fd, p, (size_t)part, flags));
}

ssize_t __wrap_send(int fd, const void *p, size_t n, int flags)
{
	ssize_t part = pass(FAULT_SEND, n);

	if (part < 0 || part == (ssize_t)n)
		return part < 0 ? -1 : __real_send(fd, p, n, flags);
	return cut(fd, __real_send(fd, p, (size_t)part, flags));
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
	int error = fault_of(FAULT_SEND);
	size_t i = 0;

	if (!error)
		return __real_sendmsg(fd, m, flags);
	if (error != FAULT_SHORT) {
		errno = error;
		return -1;
	}
	while (i + 1 < m->msg_iovlen && m->msg_iov[i].iov_len == 0)
		i++;
	return cut(fd, __real_send(fd, m->msg_iov[i].iov_base,
				   MIN(m->msg_iov[i].iov_len, (size_t)1), flags));
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t n)
{
	if (mode == 0 && fails(FAULT_PAGES))
		return -1;
	return __real_fallocate(fd, mode, offset, n);
}

/* A word for an eventfd always goes through. */
ssize_t __wrap_write(int fd, const void *p, size_t n)
{
	ssize_t part = n == sizeof(uint64_t) ? (ssize_t)n : pass(FAULT_WRITE, n);

	return part < 0 ? -1 : __real_write(fd, p, (size_t)part);
}

static mode_t mode_of(int flags, va_list arguments)
{
	return flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = mode_of(flags, arguments);
	va_end(arguments);
	return fails(FAULT_OPEN) ? -1 : __real_open(path, flags, mode);
}

int __wrap_openat(int dir, const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = mode_of(flags, arguments);
	va_end(arguments);
	return fails(FAULT_OPEN) ? -1 : __real_openat(dir, path, flags, mode);
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
	int error = fault_of(FAULT_THREAD);

	return error ? error : __real_pthread_create(t, a, f, arg);
}

/* ------------------------------------------------------------------------------- */

uint64_t fault_calls(enum fault_kind kind)
{
	return atomic_load(&plans[kind].calls);
}

void fault_fail(enum fault_kind kind, uint64_t nth, uint64_t times, int error)
{
	struct fault_plan *p = &plans[kind];

	atomic_store(&p->times, 0);
	atomic_store(&p->hits, 0);
	atomic_store(&p->error, error);
	atomic_store(&p->from, atomic_load(&p->calls) + nth - 1);
	atomic_store(&p->times, times);
}

uint64_t fault_end(enum fault_kind kind)
{
	atomic_store(&plans[kind].times, 0);
	return atomic_load(&plans[kind].hits);
}

void fault_fail_elements(size_t size)
{
	atomic_store_explicit(&fail_elements, size, memory_order_relaxed);
}
