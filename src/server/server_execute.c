/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "io/log.h"
#include "server/server_private.h"

#define CHECK_NS (10 * NS_PER_S) /* for the program to look at the configuration */
#define FIRST_PASSED 3           /* where sd_listen_fds(3) looks for what is handed over */

static char **format_arguments(const struct server *s, const char *command)
{
	static char name[16];
	size_t n = 0;
	char **out;

	while (s->arguments[n])
		n++;
	out = calloc(n + 3, sizeof(*out));
	if (!out)
		return NULL;
	snprintf(name, sizeof(name), "%s", command);
	out[0] = program_invocation_name;
	out[1] = name;
	for (size_t i = 0; i < n; i++)
		out[i + 2] = s->arguments[i];
	return out;
}

/* What execve(2) needs, in full before anything is given up. */
struct passing {
	int fd[LISTENER_N_KINDS * WORKER_MAX_LISTENERS * DIRECTORY_MAX_WORKERS / 2 +
	       2 * PARCEL_MAX_PAIRS + 1];
	unsigned n;
	struct buf names;
	char **arguments;
	int self; /* this program, should the new one not even start */
};

static int pass(struct passing *p, int fd, const char *name)
{
	if (fd < 0 || p->n == ARRAY_LEN(p->fd))
		return fd < 0 ? -EBADF : -E2BIG;
	p->fd[p->n++] = fd;
	return buf_printf(&p->names, "%s%s", p->n > 1 ? ":" : "", name);
}

static int collect(const struct server_legacy *left, struct passing *p)
{
	int r = pass(p, left->state.fd, SERVER_NAME_STATE);

	for (unsigned i = 0; i < 2 * left->parcel.n && r == 0; i++)
		r = pass(p, left->parcel.end[i / 2][i % 2], SERVER_NAME_PARCEL);
	for (unsigned i = 0; i < left->n_sockets && r == 0; i++)
		r = pass(p, left->socket[i].fd, server_listener_name[left->socket[i].kind]);
	return r;
}

/* Copies above where they are going to lie. Copies that were made are closed when one fails. */
static int copy_away(const struct server *s, struct passing *p)
{
	int above = FIRST_PASSED + (int)p->n;

	p->self = fcntl(s->program_fd, F_DUPFD_CLOEXEC, above);
	if (p->self < 0)
		return -errno;
	for (unsigned i = 0; i < p->n; i++) {
		int copy = fcntl(p->fd[i], F_DUPFD_CLOEXEC, above);
		int error = -errno;

		if (copy < 0) {
			while (i > 0)
				fd_closep(&p->fd[--i]);
			fd_closep(&p->self);
			return error;
		}
		p->fd[i] = copy;
	}
	return 0;
}

static int name_passed(const struct passing *p)
{
	char pid[16], n[16];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(n, sizeof(n), "%u", p->n);
	if (setenv("LISTEN_PID", pid, 1) == 0 && setenv("LISTEN_FDS", n, 1) == 0 &&
	    setenv("LISTEN_FDNAMES", (const char *)p->names.data, 1) == 0)
		return 0;
	return -errno;
}

int server_prepare_execution(struct server *s)
{
	struct passing *p = calloc(1, sizeof(*p));
	int r = p ? collect(&s->left, p) : -ENOMEM;

	if (r == 0) {
		p->arguments = format_arguments(s, "server");
		r = p->arguments ? name_passed(p) : -ENOMEM;
	}
	if (r == 0)
		r = copy_away(s, p);
	if (r == 0) {
		s->passing = p;
		return 0;
	}
	if (p) {
		buf_fini(&p->names);
		free(p->arguments);
	}
	free(p);
	return r;
}

void server_execute(struct server *s)
{
	struct passing *p = s->passing;

	/* Whatever was there is closed. Only a thread that isn't ours can be in the way (EBUSY). */
	for (unsigned i = 0; i < p->n; i++) {
		if (dup2(p->fd[i], FIRST_PASSED + (int)i) >= 0)
			continue;
		fprintf(stderr, "wsbind: cannot hand over: %s\n", strerror(errno));
		return;
	}
	if (s->signal_after)
		(void)raise(s->signal_after); /* blocked, and still pending for the next */
	(void)execve(s->program, p->arguments, environ);
	fprintf(stderr, "wsbind: %s: %s; going on with the same program\n", s->program,
		strerror(errno));
	(void)fexecve(p->self, p->arguments, environ);
	fprintf(stderr, "wsbind: cannot execute itself: %s\n", strerror(errno));
}

void server_find_program(struct server *s)
{
	ssize_t n = readlink("/proc/self/exe", s->program, sizeof(s->program) - 1);

	s->program[MAX(n, 0)] = '\0';
	s->program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
}

static void check_failed(struct server *s, const char *why)
{
	log_event(LOG_ERR, EV_HANDOVER_FAILED, LOG_NO_FIELDS,
		  "%s is not executed: %s; going on as before", s->program, why);
}

static void check_done(struct reactor_source *source, uint32_t events)
{
	struct server *s = CONTAINER_OF(source, struct server, check_source);
	siginfo_t info = {0};
	char why[80];

	(void)events;
	if (waitid(P_PIDFD, (id_t)s->check_fd, &info, WEXITED) < 0)
		info.si_status = errno;
	reactor_del(&s->reactor, source, s->check_fd);
	fd_closep(&s->check_fd);
	wheel_del(&s->reactor.wheel, &s->check_timer);
	if (info.si_code == CLD_EXITED && info.si_status == 0) {
		if (!s->is_stopping && s->handover == SERVER_STAYS)
			server_hand_over(s, SERVER_LEAVES_TO_ITSELF, "SIGUSR2");
		return;
	}
	snprintf(why, sizeof(why), "its check of the configuration ended with %s %d",
		 info.si_code == CLD_EXITED ? "status" : "signal", info.si_status);
	check_failed(s, why);
}

static void check_due(struct wheel_timer *t)
{
	struct server *s = CONTAINER_OF(t, struct server, check_timer);

	(void)pidfd_send_signal(s->check_fd, SIGKILL, NULL, 0); /* check_done() sees it end */
}

/* The program that will be executed says whether it could start. Return: 0 | -errno. */
static int start_check(struct server *s, char **arguments)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	pid_t pid;
	int r;

	sigemptyset(&none);
	(void)posix_spawnattr_init(&attr);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	r = posix_spawn(&pid, s->program, &actions, &attr, arguments, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attr);
	if (r)
		return -r;
	s->check_fd = pidfd_open(pid, 0);
	r = s->check_fd < 0
		    ? -errno
		    : reactor_add(&s->reactor, &s->check_source, s->check_fd, EPOLLIN, check_done);
	if (r) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		fd_closep(&s->check_fd);
		return r;
	}
	wheel_timer_init(&s->check_timer, check_due);
	wheel_add(&s->reactor.wheel, &s->check_timer, s->reactor.now_ns + CHECK_NS);
	return 0;
}

void server_reexecute(struct server *s)
{
	WB_CLEANUP(ptr_freep) char **arguments = format_arguments(s, "check-config");
	int r;

	if (s->is_stopping || s->handover != SERVER_STAYS || s->check_fd >= 0)
		return;
	log_event(LOG_INFO, EV_STOP, LOG_FIELDS(LOG_TEXT("REASON", "SIGUSR2")),
		  "SIGUSR2: %s is executed again", s->program);
	r = arguments ? start_check(s, arguments) : -ENOMEM;
	if (r)
		check_failed(s, strerror(-r));
}
