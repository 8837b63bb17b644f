/* SPDX-License-Identifier: MIT */
/* Runs as a process of its own, beside the daemon, which is told by one signal. */
#include "tools/announce_stop.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "service/systemd.h"

#define EXIT_USAGE 2

static int print_usage(FILE *out, int status)
{
	fputs("usage: wsbind announce-stop UNIT\n"
	      "For ExecStop= of the service; see wsbind(8).\n",
	      out);
	return status;
}

/* Of the service that is being stopped; 0: it has ended already. */
static pid_t main_pid(void)
{
	const char *text = getenv("MAINPID");

	return text ? (pid_t)atoi(text) : 0;
}

static int announce_stop(const char *unit)
{
	enum systemd_job job;
	union sigval value = {0};
	unsigned room = 0;
	int r = systemd_ask_job(unit, &job, &room);

	if (r) {
		fprintf(stderr,
			"wsbind: systemd cannot be asked whether this is a restart: %s; "
			"connections "
			"are closed, unless on_stop = keep\n",
			strerror(-r));
		return EXIT_FAILURE;
	}
	/* A stop needs no announcement: the SIGTERM that follows says it. */
	if (job != SYSTEMD_JOB_RESTART || main_pid() <= 0)
		return EXIT_SUCCESS;
	/* How much the manager would keep, so that the daemon knows whether all of it fits. */
	value.sival_int = (int)room;
	/* One that has ended by itself meanwhile has nothing left to hand over. */
	if (sigqueue(main_pid(), SYSTEMD_SIGNAL_RESTART, value) == 0 || errno == ESRCH)
		return EXIT_SUCCESS;
	fprintf(stderr, "wsbind: process %d: %s\n", (int)main_pid(), strerror(errno));
	return EXIT_FAILURE;
}

int announce_stop_main(int argc, char **argv)
{
	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
		return print_usage(stdout, EXIT_SUCCESS);
	if (argc != 2 || argv[1][0] == '-')
		return print_usage(stderr, EXIT_USAGE);
	return announce_stop(argv[1]);
}
