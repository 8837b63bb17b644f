/* SPDX-License-Identifier: MIT */
/* A program is asked whether it could start, while the loop goes on. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "server/program_check.h"

struct asked {
	struct reactor reactor;
	struct program_check check;
	unsigned n;
	char why[PROGRAM_CHECK_WHY_MAX]; /* "": nothing is wrong */
};

static void checked(void *ctx, const char *why)
{
	struct asked *a = ctx;

	CHECK(!program_check_runs(&a->check)); /* another one may begin */
	a->n++;
	snprintf(a->why, sizeof(a->why), "%s", why ? why : "");
}

static const struct reactor_ops no_ops;
static char *no_arguments[] = {NULL};

static int start(struct asked *a, const char *program)
{
	static struct exec_plan plan;

	plan = (struct exec_plan){.server_arguments = no_arguments, .program_fd = -1};
	snprintf(plan.program, sizeof(plan.program), "%s", program);
	return program_check_start(&a->check, &plan);
}

static void expect(struct asked *a, const char *why)
{
	unsigned before = a->n;

	while (a->n == before)
		CHECK_EQ(reactor_turn(&a->reactor, 100 * NS_PER_MS), 0);
	CHECK_EQ(a->n, before + 1);
	CHECK_STR(a->why, why);
}

TEST(program_check_tells_how_it_ended)
{
	struct asked a = {0};

	CHECK_EQ(reactor_init(&a.reactor, &no_ops), 0);
	program_check_init(&a.check, &a.reactor, checked, &a);
	CHECK(!program_check_runs(&a.check));
	CHECK_EQ(start(&a, "/bin/true"), 0);
	CHECK(program_check_runs(&a.check));
	expect(&a, "");
	CHECK_EQ(start(&a, "/bin/false"), 0);
	expect(&a, "its check of the configuration ended with status 1");
	CHECK_EQ(start(&a, "/nowhere/wsbind"), -ENOENT);
	CHECK(!program_check_runs(&a.check));
	CHECK_EQ(a.n, 2);
	reactor_fini(&a.reactor);
}

TEST(program_check_does_not_wait_for_ever)
{
	struct asked a = {0};
	uint64_t now = 1000 * NS_PER_S;

	clock_set_for_test(now);
	CHECK_EQ(reactor_init(&a.reactor, &no_ops), 0);
	program_check_init(&a.check, &a.reactor, checked, &a);
	CHECK_EQ(reactor_turn(&a.reactor, 0), 0);
	CHECK_EQ(start(&a, "/usr/bin/yes"), 0);
	for (int i = 0; i < 9; i++) {
		clock_set_for_test(now += NS_PER_S);
		CHECK_EQ(reactor_turn(&a.reactor, 0), 0);
	}
	CHECK_EQ(a.n, 0);
	clock_set_for_test(now += 2 * NS_PER_S);
	expect(&a, "its check of the configuration ended with signal 9");
	reactor_fini(&a.reactor);
	clock_set_for_test(0);
}
