/* SPDX-License-Identifier: MIT */
#include "service/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "io/sock.h"

/* sd_notify() says 1 when it was sent, 0 when nobody listens: both are well. */
static int notify_manager(const char *state)
{
	int r = sd_notify(false, state);

	return r < 0 ? r : 0;
}

static WB_PRINTF(2, 0) int notify_status(const char *before, const char *format, va_list args)
{
	char text[SYSTEMD_STATUS_MAX], state[SYSTEMD_STATUS_MAX + 32];

	/* Cut where it is too long: half a status is better than a notification that fails. */
	vsnprintf(text, sizeof(text), format, args);
	/* A line break would begin another assignment. */
	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = ' ';
	snprintf(state, sizeof(state), "%sSTATUS=%s", before, text);
	return notify_manager(state);
}

int systemd_ready(const char *status, ...)
{
	va_list args;
	int r;

	va_start(args, status);
	r = notify_status("READY=1\n", status, args);
	va_end(args);
	return r;
}

int systemd_status(const char *status, ...)
{
	va_list args;
	int r;

	va_start(args, status);
	r = notify_status("", status, args);
	va_end(args);
	return r;
}

/* The manager compares the time with its own clock, so the test clock of base/clock has no say. */
int systemd_reloading(void)
{
	struct timespec now;
	char state[64];

	if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
		return -errno;
	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
		 (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
	return notify_manager(state);
}

int systemd_stopping(void)
{
	return notify_manager("STOPPING=1");
}

int systemd_watchdog(void)
{
	return notify_manager("WATCHDOG=1");
}

int systemd_extend_timeout(uint64_t ns)
{
	char state[64];

	snprintf(state, sizeof(state), "EXTEND_TIMEOUT_USEC=%" PRIu64, ns / 1000);
	return notify_manager(state);
}

uint64_t systemd_watchdog_ns(void)
{
	uint64_t us = 0;

	/* A variable that can't be read counts as none: the manager will say so. */
	return sd_watchdog_enabled(false, &us) > 0 ? us * 1000 : 0;
}

bool systemd_is_there(void)
{
	const char *to = getenv("NOTIFY_SOCKET");

	return to && *to;
}

static enum systemd_socket_kind socket_kind(int fd)
{
	/* Not listening, or datagrams: a unit file that means another service. */
	if (sd_is_socket(fd, AF_INET, SOCK_STREAM, 1) > 0 ||
	    sd_is_socket(fd, AF_INET6, SOCK_STREAM, 1) > 0)
		return SYSTEMD_TCP;
	if (sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) > 0)
		return SYSTEMD_UNIX;
	return SYSTEMD_UNFIT;
}

/* sd_listen_fds() has set close-on-exec; whether a unit sets O_NONBLOCK is its own choice. */
static int socket_take(struct systemd_socket *s, int fd, const char *name)
{
	int flags = fcntl(fd, F_GETFL);

	*s = (struct systemd_socket){.fd = fd, .kind = socket_kind(fd)};
	snprintf(s->name, sizeof(s->name), "%s", name && *name ? name : "unknown");
	if (s->kind == SYSTEMD_TCP)
		s->port = sock_port(fd);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

static void names_free(char **names)
{
	for (char **p = names; p && *p; p++)
		free(*p);
	free(names);
}

/* Descriptors of socket activation stand in a row (sd_listen_fds(3)). */
static void close_all(int n)
{
	for (int i = 0; i < n; i++)
		close(SD_LISTEN_FDS_START + i);
}

/* On failure every descriptor is closed, of those that were looked at and of those that weren't. */
int systemd_take_sockets(struct systemd_sockets *ret)
{
	struct systemd_sockets taken = {0};
	char **names = NULL;
	int n = sd_listen_fds_with_names(true, &names);
	int r = n < 0 ? n : n > SYSTEMD_MAX_SOCKETS ? -E2BIG : 0;

	/* Closed whatever fails: a descriptor that nobody knows would hold its port for ever. */
	if (n > 0 && r == 0) {
		taken.socket = calloc((size_t)n, sizeof(*taken.socket));
		r = taken.socket ? 0 : -ENOMEM;
	}
	if (r)
		close_all(MAX(n, 0));
	for (int i = 0; i < n && r == 0; i++) {
		r = socket_take(&taken.socket[i], SD_LISTEN_FDS_START + i, names[i]);
		if (r < 0)
			close_all(n);
		taken.n++;
	}
	names_free(names);
	if (r == 0)
		*ret = taken;
	else
		free(taken.socket);
	return r;
}

void systemd_sockets_fini(struct systemd_sockets *sockets)
{
	for (size_t i = 0; i < sockets->n; i++)
		fd_closep(&sockets->socket[i].fd);
	free(sockets->socket);
	*sockets = (struct systemd_sockets){0};
}

int systemd_store(const char *name, const int *fds, unsigned n)
{
	char state[128];
	int r;

	/*
	 * FDPOLL=0: a connection whose client has hung up has to be told to the next process, too.
	 */
	snprintf(state, sizeof(state), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
	r = sd_pid_notify_with_fds(0, false, state, fds, n);
	return r == 0 ? -ENOTCONN : MIN(r, 0);
}

int systemd_barrier(uint64_t ns)
{
	int r = sd_notify_barrier(false, ns / 1000);

	/* 0 is "nobody listens", as with every notification. */
	return r == 0 ? -ENOTCONN : MIN(r, 0);
}

int systemd_unstore(const char *name)
{
	char state[128];

	snprintf(state, sizeof(state), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	return notify_manager(state);
}
