/* SPDX-License-Identifier: MIT */
#include "server/exec_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "server/store.h"

#define FIRST_FD 3 /* where sd_listen_fds(3) looks for what is handed over */

void exec_plan_init(struct exec_plan *plan, char **arguments)
{
	ssize_t n = readlink("/proc/self/exe", plan->program, sizeof(plan->program) - 1);

	plan->program[MAX(n, 0)] = '\0';
	/* The file as it is now: an upgrade puts another one in its place. */
	plan->program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	plan->server_arguments = arguments;
}

char **exec_plan_arguments(const struct exec_plan *plan, const char *command)
{
	size_t n = 0;
	char **out;

	while (plan->server_arguments[n])
		n++;
	out = calloc(n + 3, sizeof(*out));
	if (!out)
		return NULL;
	out[0] = program_invocation_name;
	out[1] = (char *)(uintptr_t)command; /* execve(2) changes none of them */
	for (size_t i = 0; i < n; i++)
		out[i + 2] = plan->server_arguments[i];
	return out;
}

/* -------------------------------------------------------------------- what may fail */

/* Borrowed: exec_plan_make() puts copies in their place. */
static int add_fd(struct exec_plan *plan, int fd, const char *name)
{
	if (fd < 0 || plan->n_fds == ARRAY_LEN(plan->fd))
		return fd < 0 ? -EBADF : -E2BIG;
	plan->fd[plan->n_fds++] = fd;
	return buf_printf(&plan->names, "%s%s", plan->n_fds > 1 ? ":" : "", name);
}

static int add_all(struct exec_plan *plan, const struct outgoing *out)
{
	int r = add_fd(plan, out->records.fd, STORE_RECORDS);

	if (r == 0)
		r = add_fd(plan, out->history_fd, STORE_HISTORY);
	for (unsigned i = 0; i < 2 * out->parcel.n_pairs && r == 0; i++)
		r = add_fd(plan, out->parcel.end[i / 2][i % 2], STORE_PARCEL);
	for (unsigned i = 0; i < out->n_listeners && r == 0; i++)
		r = add_fd(plan, out->listener[i].fd, store_listener_name[out->listener[i].kind]);
	return r;
}

/*
 * Puts a copy of each descriptor above the places where they are going to lie, so that moving
 * one there cannot overwrite another, or the program itself, before it was moved. Copies that
 * were made are closed when one fails.
 */
static int copy_above(struct exec_plan *plan)
{
	int above = FIRST_FD + (int)plan->n_fds;
	int program = fcntl(plan->program_fd, F_DUPFD_CLOEXEC, above);

	if (program < 0)
		return -errno;
	for (unsigned i = 0; i < plan->n_fds; i++) {
		int copy = fcntl(plan->fd[i], F_DUPFD_CLOEXEC, above);
		int error = -errno;

		if (copy < 0) {
			while (i > 0)
				fd_closep(&plan->fd[--i]);
			fd_closep(&program);
			return error;
		}
		plan->fd[i] = copy;
	}
	fd_closep(&plan->program_fd);
	plan->program_fd = program;
	return 0;
}

static int set_environment(const struct exec_plan *plan)
{
	char pid[16], n[16];

	/* sd_listen_fds(3) takes nothing that is meant for another process; ours stays the same. */
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(n, sizeof(n), "%u", plan->n_fds);
	if (setenv("LISTEN_PID", pid, 1) == 0 && setenv("LISTEN_FDS", n, 1) == 0 &&
	    setenv("LISTEN_FDNAMES", (const char *)plan->names.data, 1) == 0)
		return 0;
	return -errno;
}

int exec_plan_make(struct exec_plan *plan, const struct outgoing *out)
{
	int r = add_all(plan, out);

	if (r == 0) {
		plan->arguments = exec_plan_arguments(plan, "server");
		r = plan->arguments ? set_environment(plan) : -ENOMEM;
	}
	/* The copies come last: they are what would have to be closed again. */
	if (r == 0)
		r = copy_above(plan);
	if (r == 0)
		return 0;
	buf_fini(&plan->names);
	free(plan->arguments);
	plan->arguments = NULL;
	plan->n_fds = 0;
	return r;
}

/* --------------------------------------------------------------- no way back from here */

void exec_plan_run(struct exec_plan *plan, int pending)
{
	/* Whatever was there is closed. Only a thread that isn't ours can be in the way (EBUSY). */
	for (unsigned i = 0; i < plan->n_fds; i++) {
		if (dup2(plan->fd[i], FIRST_FD + (int)i) >= 0)
			continue;
		fprintf(stderr, "wsbind: cannot hand over: %s\n", strerror(errno));
		return;
	}
	if (pending)
		(void)raise(pending); /* blocked here, and still pending in the program */
	(void)execve(plan->program, plan->arguments, environ);
	fprintf(stderr, "wsbind: %s: %s; going on with the same program\n", plan->program,
		strerror(errno));
	(void)fexecve(plan->program_fd, plan->arguments, environ);
	fprintf(stderr, "wsbind: cannot execute itself: %s\n", strerror(errno));
}
