/* SPDX-License-Identifier: MIT */
#include "service/systemd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

/* Where sd_listen_fds() expects the first one. */
#define FIRST 3

/* Stands in for the manager: a datagram socket that NOTIFY_SOCKET names. */
struct manager {
	char path[64];
	int fd;
	char text[2048];
};

static void manager_start(struct manager *m)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	snprintf(m->path, sizeof(m->path), "/tmp/wb-notify-%d", (int)getpid());
	unlink(m->path);
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", m->path);
	m->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	CHECK(m->fd >= 0);
	CHECK_EQ(bind(m->fd, (struct sockaddr *)&at, sizeof(at)), 0);
	CHECK_EQ(setenv("NOTIFY_SOCKET", m->path, 1), 0);
}

static void manager_stop(struct manager *m)
{
	unsetenv("NOTIFY_SOCKET");
	close(m->fd);
	unlink(m->path);
}

/* The next notification, "" when there is none. */
static const char *manager_heard(struct manager *m)
{
	ssize_t n = recv(m->fd, m->text, sizeof(m->text) - 1, 0);

	m->text[n > 0 ? n : 0] = '\0';
	return m->text;
}

TEST(systemd_without_it_everything_is_well)
{
	struct systemd_sockets sockets = {0};

	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("LISTEN_FDS");
	CHECK(!systemd_is_there());
	CHECK_EQ(systemd_ready("%s", "ready"), 0);
	CHECK_EQ(systemd_status("%d", 1), 0);
	CHECK_EQ(systemd_reloading(), 0);
	CHECK_EQ(systemd_stopping(), 0);
	CHECK_EQ(systemd_watchdog(), 0);
	CHECK_EQ(systemd_extend_timeout(1), 0);
	CHECK_EQ(systemd_watchdog_ns(), 0);
	CHECK_EQ(systemd_take_sockets(&sockets), 0);
	CHECK_EQ(sockets.n, 0);
	systemd_sockets_fini(&sockets);
}

TEST(systemd_notifications_have_their_form)
{
	struct manager m;

	manager_start(&m);
	CHECK(systemd_is_there());
	CHECK_EQ(systemd_ready("%d workers on port %d", 4, 8080), 0);
	CHECK_STR(manager_heard(&m), "READY=1\nSTATUS=4 workers on port 8080");
	CHECK_EQ(systemd_status("%s", "10 connections"), 0);
	CHECK_STR(manager_heard(&m), "STATUS=10 connections");
	CHECK_EQ(systemd_stopping(), 0);
	CHECK_STR(manager_heard(&m), "STOPPING=1");
	CHECK_EQ(systemd_watchdog(), 0);
	CHECK_STR(manager_heard(&m), "WATCHDOG=1");
	CHECK_EQ(systemd_extend_timeout(1500000000), 0);
	CHECK_STR(manager_heard(&m), "EXTEND_TIMEOUT_USEC=1500000");
	CHECK_STR(manager_heard(&m), "");
	manager_stop(&m);
}

/* A status made of foreign text cannot become another notification. */
TEST(systemd_status_is_one_line_and_bounded)
{
	struct manager m;
	char text[2000];

	manager_start(&m);
	CHECK_EQ(systemd_status("%s", "a\nSTOPPING=1\nb"), 0);
	CHECK_STR(manager_heard(&m), "STATUS=a STOPPING=1 b");
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	CHECK_EQ(systemd_ready("%s", text), 0);
	CHECK_EQ(strlen(manager_heard(&m)), strlen("READY=1\nSTATUS=") + SYSTEMD_STATUS_MAX - 1);
	manager_stop(&m);
}

TEST(systemd_reloading_has_the_time)
{
	struct timespec before, after;
	unsigned long long us = 0;
	struct manager m;

	manager_start(&m);
	clock_gettime(CLOCK_MONOTONIC, &before);
	CHECK_EQ(systemd_reloading(), 0);
	clock_gettime(CLOCK_MONOTONIC, &after);
	CHECK_EQ(sscanf(manager_heard(&m), "RELOADING=1\nMONOTONIC_USEC=%llu", &us), 1);
	CHECK(us >= (uint64_t)before.tv_sec * 1000000 + (uint64_t)before.tv_nsec / 1000);
	CHECK(us <= (uint64_t)after.tv_sec * 1000000 + (uint64_t)after.tv_nsec / 1000);
	manager_stop(&m);
}

TEST(systemd_manager_that_is_gone_is_an_error)
{
	struct manager m;

	manager_start(&m);
	close(m.fd);
	CHECK(systemd_watchdog() < 0);
	CHECK(systemd_ready("%s", "x") < 0);
	m.fd = -1;
	manager_stop(&m);
}

TEST(systemd_watchdog_is_for_this_process)
{
	char pid[32];

	setenv("WATCHDOG_USEC", "30000000", 1);
	unsetenv("WATCHDOG_PID");
	CHECK_EQ(systemd_watchdog_ns(), 30000000000);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_PID", pid, 1);
	CHECK_EQ(systemd_watchdog_ns(), 30000000000);
	setenv("WATCHDOG_PID", "1", 1);
	CHECK_EQ(systemd_watchdog_ns(), 0);
	unsetenv("WATCHDOG_PID");
	setenv("WATCHDOG_USEC", "soon", 1);
	CHECK_EQ(systemd_watchdog_ns(), 0);
	unsetenv("WATCHDOG_USEC");
}

static int listening_tcp(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 1) < 0)
		return -1;
	return fd;
}

static int listening_unix(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	/* Only the family: the kernel makes up an abstract name. */
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(sa_family_t)) < 0 ||
	    listen(fd, 1) < 0)
		return -1;
	return fd;
}

/* Puts @fd where the manager would, in a child: these numbers belong to others in the parent. */
static void hand_over(int fd, int number)
{
	if (fd != number) {
		dup2(fd, number);
		close(fd);
	}
}

static void hand_over_announce(const char *n, const char *names)
{
	char pid[32];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", n, 1);
	setenv("LISTEN_FDNAMES", names, 1);
}

/* Runs @fn in a child with the low descriptors free; true when it says so. */
static bool in_child(bool (*fn)(void))
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (pid == 0) {
		for (int fd = FIRST; fd < 200; fd++)
			close(fd);
		_exit(fn() ? 0 : 1);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool is_well(const struct systemd_socket *s, int fd, enum systemd_socket_kind kind,
		    const char *name)
{
	return s->fd == fd && s->kind == kind && strcmp(s->name, name) == 0 &&
	       (fcntl(fd, F_GETFD) & FD_CLOEXEC) && (fcntl(fd, F_GETFL) & O_NONBLOCK) &&
	       (s->port != 0) == (kind == SYSTEMD_TCP);
}

static bool child_takes_sockets(void)
{
	struct systemd_sockets s = {0};

	hand_over(listening_tcp(), FIRST);
	hand_over(listening_unix(), FIRST + 1);
	hand_over(socket(AF_INET, SOCK_DGRAM, 0), FIRST + 2);
	hand_over(socket(AF_INET, SOCK_STREAM, 0), FIRST + 3); /* listens not */
	hand_over(open("/dev/null", O_RDONLY), FIRST + 4);
	hand_over_announce("5", "web:proxy:udp:idle:");
	if (systemd_take_sockets(&s) != 0 || s.n != 5)
		return false;
	if (!is_well(&s.socket[0], FIRST, SYSTEMD_TCP, "web") ||
	    !is_well(&s.socket[1], FIRST + 1, SYSTEMD_UNIX, "proxy") ||
	    !is_well(&s.socket[2], FIRST + 2, SYSTEMD_UNFIT, "udp") ||
	    !is_well(&s.socket[3], FIRST + 3, SYSTEMD_UNFIT, "idle") ||
	    !is_well(&s.socket[4], FIRST + 4, SYSTEMD_UNFIT, "unknown"))
		return false;
	/* Nobody else takes them for its own, and what was taken out is left open. */
	s.socket[0].fd = -1;
	systemd_sockets_fini(&s);
	return s.n == 0 && !getenv("LISTEN_FDS") && systemd_take_sockets(&s) == 0 && s.n == 0 &&
	       fcntl(FIRST, F_GETFD) >= 0 && fcntl(FIRST + 1, F_GETFD) < 0;
}

TEST(systemd_sockets_are_taken_and_told_apart)
{
	CHECK(in_child(child_takes_sockets));
}

static bool child_takes_too_many(void)
{
	struct systemd_sockets s = {.n = 0};
	char n[16], names[2] = "";

	for (int i = 0; i <= SYSTEMD_MAX_SOCKETS; i++)
		hand_over(open("/dev/null", O_RDONLY), FIRST + i);
	snprintf(n, sizeof(n), "%d", SYSTEMD_MAX_SOCKETS + 1);
	hand_over_announce(n, names);
	unsetenv("LISTEN_FDNAMES");
	return systemd_take_sockets(&s) == -E2BIG && s.n == 0 && fcntl(FIRST, F_GETFD) < 0 &&
	       fcntl(FIRST + SYSTEMD_MAX_SOCKETS, F_GETFD) < 0;
}

TEST(systemd_too_many_sockets_are_closed)
{
	CHECK(in_child(child_takes_too_many));
}

static bool child_gets_nonsense(void)
{
	struct systemd_sockets s = {0};

	hand_over_announce("two", "");
	return systemd_take_sockets(&s) < 0 && s.n == 0;
}

TEST(systemd_nonsense_is_an_error)
{
	CHECK(in_child(child_gets_nonsense));
}
