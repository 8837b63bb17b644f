/* SPDX-License-Identifier: MIT */
/*
 * wsbind: one binary, many commands. Chooses the command and returns its status;
 * everything else is in the command's own file.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "base/version.h"
#include "client/benchmark.h"
#include "client/client.h"
#include "client/subscribe.h"
#include "server/server.h"
#include "tools/announce_stop.h"
#include "tools/check_config.h"
#include "tools/control.h"
#include "tools/token_cmd.h"

#define EXIT_USAGE 2

/* In the order of --help; completion reads the names from there. */
static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"server", server_main, "run the daemon"},
	{"client", client_main, "send and receive messages; wsbind-client(1)"},
	{"subscribe", subscribe_main, "print what arrives, and miss nothing; wsbind-subscribe(1)"},
	{"benchmark", benchmark_main, "measure a server; wsbind-benchmark(1)"},
	{"check-config", check_config_main, "check the configuration"},
#define CONTROL(name, help, ...) {#name, control_main, help},
#include "tools/control_table.h"
	{"token", token_main, "make a token for a client"},
	{"announce-stop", announce_stop_main, "tell the daemon of a restart; for ExecStop="},
};

static void print_usage(FILE *out)
{
	fputs("usage: wsbind COMMAND [OPTION ...]\n\n", out);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(out, "  %-13s %s\n", commands[i].name, commands[i].help);
	fputs("\n  --version     print the version\n  --help        print this\n\n"
	      "wsbind COMMAND --help says more; wsbind(8), wsbind.conf(5).\n",
	      out);
}

/*
 * 0, 1 and 2 are there, whatever who started us has closed: what is opened first would get one of
 * them else, and lines that are meant for a terminal.
 */
static void fill_standard_streams(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR); /* not for our children alone: no O_CLOEXEC */
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		(void)close(fd);
}

/* What could not be printed was not done, whatever the command says of itself. */
static int finish_output(int status)
{
	bool is_printed = fflush(stdout) == 0 && !ferror(stdout);

	return status == EXIT_SUCCESS && !is_printed ? EXIT_FAILURE : status;
}

int main(int argc, char **argv)
{
	fill_standard_streams();
	if (argc < 2) {
		print_usage(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("wsbind %s\n", wb_version);
		return finish_output(EXIT_SUCCESS);
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		print_usage(stdout);
		return finish_output(EXIT_SUCCESS);
	}
	/* A command gets its own name as argv[0], and its options as if it were a program. */
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return finish_output(commands[i].run(argc - 1, argv + 1));
	fprintf(stderr, "wsbind: no such command: %s\n\n", argv[1]);
	print_usage(stderr);
	return EXIT_USAGE;
}
