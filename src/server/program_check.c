/* SPDX-License-Identifier: MIT */
#include "server/program_check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#define PATIENCE_NS (10 * NS_PER_S)

static void process_ended(struct reactor_source *source, uint32_t events)
{
	struct program_check *check = CONTAINER_OF(source, struct program_check, source);
	siginfo_t info = {0};
	char why[PROGRAM_CHECK_WHY_MAX];

	(void)events;
	/* Its end is read, so that it does not stay in the table of processes for good. */
	if (waitid(P_PIDFD, (id_t)check->fd, &info, WEXITED) < 0)
		info.si_status = errno;
	/* All of it is over before anybody hears of it, who may start another one. */
	reactor_del(check->reactor, source, check->fd);
	fd_closep(&check->fd);
	wheel_del(&check->reactor->wheel, &check->timer);
	if (info.si_code == CLD_EXITED && info.si_status == 0) {
		check->done(check->ctx, NULL);
		return;
	}
	snprintf(why, sizeof(why), "its check of the configuration ended with %s %d",
		 info.si_code == CLD_EXITED ? "status" : "signal", info.si_status);
	check->done(check->ctx, why);
}

static void patience_ends(struct wheel_timer *t)
{
	struct program_check *check = CONTAINER_OF(t, struct program_check, timer);

	(void)pidfd_send_signal(check->fd, SIGKILL, NULL, 0); /* process_ended() sees it end */
}

void program_check_init(struct program_check *check, struct reactor *r, program_check_fn *done,
			void *ctx)
{
	*check = (struct program_check){.reactor = r, .fd = -1, .done = done, .ctx = ctx};
	wheel_timer_init(&check->timer, patience_ends);
}

/* Return: the process | -errno. */
static pid_t spawn_check(const char *program, char **arguments)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	pid_t pid;
	int r;

	/* The daemon's signals are blocked, which a child inherits: this one must be killable. */
	sigemptyset(&none);
	(void)posix_spawnattr_init(&attr);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	(void)posix_spawn_file_actions_init(&actions);
	/* What it has to complain of stays on standard error, which is the daemon's. */
	(void)posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	r = posix_spawn(&pid, program, &actions, &attr, arguments, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attr);
	return r ? -r : pid;
}

int program_check_start(struct program_check *check, const struct exec_plan *plan)
{
	WB_CLEANUP(ptr_freep) char **arguments = exec_plan_arguments(plan, "check-config");
	struct reactor *reactor = check->reactor;
	pid_t pid = arguments ? spawn_check(plan->program, arguments) : -ENOMEM;
	int r;

	if (pid < 0)
		return pid;
	/* Its end is an event of the loop like any other; nobody waits for it. */
	check->fd = pidfd_open(pid, 0);
	r = check->fd < 0 ? -errno
			  : reactor_add(reactor, &check->source, check->fd, EPOLLIN, process_ended);
	if (r) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		fd_closep(&check->fd);
		return r;
	}
	wheel_add(&reactor->wheel, &check->timer, reactor->now_ns + PATIENCE_NS);
	return 0;
}
