/* SPDX-License-Identifier: MIT */
/*
 * Runs every registered unit test, or those of the files named as arguments
 * ("unit wheel ring" runs test-wheel.c and test-ring.c). WB_SEED=n repeats a
 * randomized test. CMOCKA_MESSAGE_OUTPUT chooses the form; TAP without it.
 */
#include "test.h"

#include <dirent.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MAX_TESTS 2000
#define ALARM_SECONDS 60

static struct test_case *first_test;
static uint64_t seed;

/* Tests of -ENOMEM ask for more than there is: the sanitizers shall refuse it as malloc does. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
	return "allocator_may_return_null=1";
}

void test_register(struct test_case *t)
{
	struct test_case **at = &first_test;

	while (*at && strcmp((*at)->file, t->file) <= 0)
		at = &(*at)->next;
	t->next = *at;
	*at = t;
}

uint64_t test_seed(void)
{
	return seed;
}

static int count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	if (!d)
		return -1;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void run_one(void **state)
{
	const struct test_case *t = *state;
	int before = count_descriptors();

	alarm(ALARM_SECONDS);
	t->run();
	alarm(0);
	if (count_descriptors() != before)
		_fail(t->file, 0);
}

static bool is_wanted(const struct test_case *t, int argc, char **argv)
{
	char name[200];

	if (argc < 2)
		return true;
	for (int i = 1; i < argc; i++) {
		snprintf(name, sizeof(name), "test-%s.c", argv[i]);
		if (strcmp(basename((char *)(uintptr_t)t->file), name) == 0)
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	static struct CMUnitTest tests[MAX_TESTS];
	const char *text = getenv("WB_SEED");
	size_t n = 0;
	int failed;

	seed = text ? strtoull(text, NULL, 0)
		    : (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
	seed += seed == 0;
	if (!getenv("CMOCKA_MESSAGE_OUTPUT"))
		cmocka_set_message_output(CM_OUTPUT_TAP);
	for (struct test_case *t = first_test; t && n < MAX_TESTS; t = t->next)
		if (is_wanted(t, argc, argv))
			tests[n++] = (struct CMUnitTest){t->name, run_one, NULL, NULL, t};
	if (n == 0) {
		fprintf(stderr, "no such test\n");
		return 2;
	}
	failed = _cmocka_run_group_tests("unit", tests, n, NULL, NULL);
	if (failed)
		fprintf(stderr, "repeat with WB_SEED=%llu\n", (unsigned long long)seed);
	return failed ? 1 : 0;
}
