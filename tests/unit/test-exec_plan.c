/* SPDX-License-Identifier: MIT */
/* What a program that is executed inherits, and that nothing is left of a plan that failed. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/exec_plan.h"

static char *behind_server[] = {(char *)(uintptr_t) "--port=1", (char *)(uintptr_t) "-x", NULL};

/* Records, the file of history, a pair of a parcel, two listeners. */
static void make_outgoing(struct outgoing *out)
{
	*out = (struct outgoing){.n_listeners = 2, .parcel.n_pairs = 1};
	CHECK_EQ(memfile_create(&out->records, "test"), 0);
	out->history_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, out->parcel.end[0]), 0);
	for (unsigned i = 0; i < out->n_listeners; i++)
		out->listener[i].fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	out->listener[0].kind = LISTENER_TLS;
	out->listener[1].kind = LISTENER_ACTIVATED;
}

static void close_outgoing(struct outgoing *out)
{
	outgoing_discard(out);
	fd_closep(&out->history_fd);
	for (unsigned i = 0; i < out->n_listeners; i++)
		fd_closep(&out->listener[i].fd);
}

static void close_plan(struct exec_plan *plan)
{
	for (unsigned i = 0; i < plan->n_fds; i++)
		fd_closep(&plan->fd[i]);
	fd_closep(&plan->program_fd);
	buf_fini(&plan->names);
	free(plan->arguments);
	(void)unsetenv("LISTEN_PID");
	(void)unsetenv("LISTEN_FDS");
	(void)unsetenv("LISTEN_FDNAMES");
}

TEST(exec_plan_names_what_is_inherited)
{
	static struct exec_plan plan;
	static struct outgoing out;
	char path[PATH_MAX];
	ssize_t n;

	exec_plan_init(&plan, behind_server);
	n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	CHECK(n > 0 && (size_t)n == strlen(plan.program) && memcmp(path, plan.program, n) == 0);
	make_outgoing(&out);
	CHECK_EQ(exec_plan_make(&plan, &out), 0);
	CHECK_EQ(plan.n_fds, 6);
	CHECK_STR(getenv("LISTEN_FDS"), "6");
	CHECK_EQ(strtol(getenv("LISTEN_PID"), NULL, 10), getpid());
	CHECK_STR(getenv("LISTEN_FDNAMES"),
		  "wsbind-state:wsbind-history:wsbind-bag:wsbind-bag:wsbind-tls:wsbind-given");
	/* Out of the way of where they are going to lie. */
	for (unsigned i = 0; i < plan.n_fds; i++)
		CHECK(plan.fd[i] >= 3 + (int)plan.n_fds);
	CHECK(plan.program_fd >= 3 + (int)plan.n_fds);
	CHECK_STR(plan.arguments[1], "server");
	CHECK_STR(plan.arguments[2], "--port=1");
	CHECK_STR(plan.arguments[3], "-x");
	CHECK(!plan.arguments[4]);
	/* They are copies: what was left is still there, should nothing come of it. */
	close_plan(&plan);
	CHECK(fcntl(out.records.fd, F_GETFD) >= 0 && fcntl(out.listener[1].fd, F_GETFD) >= 0);
	close_outgoing(&out);
}

TEST(exec_plan_without_descriptors_leaves_none)
{
	static struct exec_plan plan;
	static struct outgoing out;
	struct rlimit limit, few;

	exec_plan_init(&plan, behind_server);
	make_outgoing(&out);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	/* Room for some of the copies, for one less each time, and at last for none. */
	for (few.rlim_cur = 14; few.rlim_cur > 7; few.rlim_cur--) {
		int r;

		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
		r = exec_plan_make(&plan, &out);
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
		CHECK(r == 0 || r == -EMFILE || r == -EINVAL);
		CHECK_EQ(r == 0 ? 5 : 0, plan.n_fds);
		if (r == 0) { /* descriptors of the runner itself lie below */
			int program = fcntl(plan.program_fd, F_DUPFD_CLOEXEC, 0);

			close_plan(&plan);
			plan = (struct exec_plan){.program_fd = program,
						  .server_arguments = behind_server};
		}
	}
	/* And once more, with all that it takes. */
	CHECK_EQ(exec_plan_make(&plan, &out), 0);
	close_plan(&plan);
	memfile_fini(&out.records);
	plan = (struct exec_plan){.program_fd = -1, .server_arguments = behind_server};
	CHECK_EQ(exec_plan_make(&plan, &out), -EBADF);
	CHECK_EQ(plan.n_fds, 0);
	close_outgoing(&out);
	close_plan(&plan);
}
