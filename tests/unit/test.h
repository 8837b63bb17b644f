/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The frame around unit tests. TEST(name) { … } registers itself; runner.c runs
 * what was registered under cmocka, each test with an alarm and a count of open
 * descriptors before and after. CHECK ends the test at the first failure and
 * says where.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct test_case {
	const char *name;
	const char *file;
	void (*run)(void);
	struct test_case *next;
};

void test_register(struct test_case *t);

/*
 * A number for randomized tests: WB_SEED from the environment or a new one; printed when a test
 * fails.
 */
uint64_t test_seed(void);

/* xorshift64*: the same numbers for the same seed, everywhere. @state must not be 0. */
static inline uint64_t test_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717ULL;
}

#define TEST(test_name)                                                                          \
	static void test_name(void);                                                             \
	static struct test_case test_case_##test_name = {#test_name, __FILE__, test_name, NULL}; \
	__attribute__((constructor)) static void test_register_##test_name(void)                 \
	{                                                                                        \
		test_register(&test_case_##test_name);                                           \
	}                                                                                        \
	static void test_name(void)

#define CHECK(condition) \
	_assert_true((uintmax_t)((condition) ? 1 : 0), #condition, __FILE__, __LINE__)
/* Of a row of a table: says which. */
#define FAIL(...)                                  \
	do {                                       \
		fprintf(stderr, "%s: ", __func__); \
		fprintf(stderr, __VA_ARGS__);      \
		fputc('\n', stderr);               \
		CHECK(!"a row of the table");      \
	} while (0)
#define CHECK_EQ(a, b) _assert_int_equal((uintmax_t)(a), (uintmax_t)(b), __FILE__, __LINE__)
#define CHECK_STR(a, b) _assert_string_equal((a), (b), __FILE__, __LINE__)
#define CHECK_MEM(a, b, n) _assert_memory_equal((a), (b), (n), __FILE__, __LINE__)
