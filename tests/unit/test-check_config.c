/* SPDX-License-Identifier: MIT */
#include "tools/check_config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "test.h"

/* One run of the command, with what it wrote. */
struct run {
	int status;
	char *out, *err;
};

static struct run run_command(const char *const *args)
{
	char storage[8][100], *argv[9] = {0};
	struct run r = {0};
	size_t out_n = 0, err_n = 0;
	FILE *out = open_memstream(&r.out, &out_n), *err = open_memstream(&r.err, &err_n);

	for (size_t i = 0; args[i]; i++) {
		snprintf(storage[i], sizeof(storage[i]), "%s", args[i]);
		argv[i] = storage[i];
	}
	r.status = check_config_run(argv, out, err);
	fclose(out);
	fclose(err);
	return r;
}

static void run_fini(struct run *r)
{
	free(r->out);
	free(r->err);
}

/* What is checked is opened, too: ports that are free on any machine. */
#define FREE "--port=0", "--metrics-port=0"
#define ARGS(...) ((const char *const[]){"check-config", __VA_ARGS__, NULL})

TEST(check_config_exit_status_and_streams)
{
	static const struct {
		const char *args[8];
		int status;
		const char *out, *err; /* begins with; NULL = nothing at all */
	} cases[] = {
		{{"check-config", "/dev/null", FREE},
		 0,
		 "/dev/null: the configuration is valid\n",
		 NULL},
		{{"check-config", "--config=/dev/null", FREE}, 0, "/dev/null: the", NULL},
		{{"check-config", "--config", "/dev/null", FREE}, 0, "/dev/null: the", NULL},
		{{"check-config", FREE, "--", "/dev/null"}, 0, "/dev/null: the", NULL},
		{{"check-config", "/dev/null", "--dump", FREE}, 0, "KEY ", NULL},
		{{"check-config", "--template"}, 0, "# Configuration of wsbind", NULL},
		{{"check-config", "--help"}, 0, "usage: ", NULL},
		{{"check-config", "-h"}, 0, "usage: ", NULL},
		{{"check-config", "/nonexistent"}, 78, NULL, "/nonexistent: cannot be read: "},
		{{"check-config", "/dev/null", "--port=x"},
		 78,
		 NULL,
		 "command line: port = x: not a number; allowed: off, or 0 to 65535\n"},
		{{"check-config", "/dev/null", "--port=x", "--dump"}, 78, NULL, "command line: "},
		{{"check-config", "/dev/null", "--port"}, 2, NULL, "wsbind check-config: --port: "},
		{{"check-config", "/dev/null", "--unknown"}, 2, NULL, "wsbind check-config: --unk"},
		{{"check-config", "/dev/null", "-x"}, 2, NULL, "wsbind check-config: -x: "},
		{{"check-config", "/dev/null", "/dev/zero"},
		 2,
		 NULL,
		 "wsbind check-config: /dev/z"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct run r = run_command(cases[i].args);

		CHECK_EQ(r.status, cases[i].status);
		CHECK_EQ(*r.out != '\0', cases[i].out != NULL);
		CHECK_EQ(*r.err != '\0', cases[i].err != NULL);
		if (cases[i].out)
			CHECK(strncmp(r.out, cases[i].out, strlen(cases[i].out)) == 0);
		if (cases[i].err)
			CHECK(strncmp(r.err, cases[i].err, strlen(cases[i].err)) == 0);
		run_fini(&r);
	}
}

TEST(check_config_dump_shows_what_the_command_line_says)
{
	struct run r = run_command(ARGS("/dev/null", "--dump", "--max-connections", "77", FREE));
	const char *line = strstr(r.out, "\nmax_connections ");

	CHECK_EQ(r.status, 0);
	CHECK(line != NULL);
	CHECK(strstr(line, " 77 ") < strstr(line, " command line "));
	CHECK(strstr(line, " command line ") < strchr(line + 1, '\n'));
	run_fini(&r);
}

/* On a host without the file, that is what is said; with it, its name. */
TEST(check_config_without_a_file_says_so)
{
	bool is_there = access("/etc/wsbind.conf", F_OK) == 0;
	struct run r = run_command(ARGS(FREE));

	CHECK(is_there ||
	      strcmp(r.out, "no /etc/wsbind.conf: what is set elsewhere is valid\n") == 0);
	run_fini(&r);
}

TEST(check_config_says_how_many_errors_it_left_out)
{
	char path[] = "/tmp/wsbind-check-config-XXXXXX";
	int fd = mkstemp(path);
	FILE *f = fdopen(fd, "w");
	struct run r;

	CHECK(f != NULL);
	for (int i = 0; i < 103; i++)
		CHECK(fputs("nonsense\n", f) >= 0);
	fclose(f);
	r = run_command(ARGS(path));
	remove(path);
	CHECK_EQ(r.status, 78);
	CHECK(strstr(r.err, ":100: nonsense") != NULL);
	CHECK(strstr(r.err, "\nand 3 more\n") != NULL);
	run_fini(&r);
}

TEST(check_config_fails_when_its_output_does)
{
	char name[] = "check-config", file[] = "/dev/null", dump[] = "--dump";
	char template[] = "--template";
	char *dump_argv[] = {name, file, dump, NULL}, *template_argv[] = {name, template, NULL};
	char port[] = "--port=0", metrics[] = "--metrics-port=0";
	char *plain_argv[] = {name, file, port, metrics, NULL};
	char *const *const commands[] = {dump_argv, template_argv, plain_argv};

	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		FILE *full = fopen("/dev/full", "we");

		CHECK(full != NULL);
		CHECK_EQ(check_config_run((char **)(uintptr_t)commands[i], full, stderr), 1);
		fclose(full);
	}
}
