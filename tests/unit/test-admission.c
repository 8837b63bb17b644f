/* SPDX-License-Identifier: MIT */
#include "core/admission.h"

#include <pthread.h>

#include "test.h"

static struct sock_peer address(uint32_t n)
{
	struct sock_peer peer = {.ip = {[10] = 0xff, [11] = 0xff}};

	memcpy(peer.ip + 12, &n, sizeof(n));
	return peer;
}

static uint64_t cells_in_use(const struct admission *a)
{
	uint64_t n = 0;

	for (size_t i = 0; i <= a->mask; i++)
		n += a->cells[i] != 0;
	return n;
}

TEST(admission_counts_the_total_whatever_the_outcome)
{
	struct admission a = {0};
	struct sock_peer peer = address(1);

	CHECK_EQ(admission_init(&a, 3), 0);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(admission_enter(&a, &peer, 3, 0), 0);
	CHECK_EQ(admission_enter(&a, &peer, 3, 0), ADMISSION_E_FULL);
	CHECK_EQ(admission_enter(&a, &peer, 3, 1), ADMISSION_E_FULL);
	CHECK_EQ(admission_total(&a), 5);
	admission_leave(&a, &peer);
	admission_leave(&a, &peer);
	CHECK_EQ(admission_enter(&a, &peer, 3, 0), ADMISSION_E_FULL);
	admission_leave(&a, &peer);
	admission_leave(&a, &peer);
	CHECK_EQ(admission_enter(&a, &peer, 3, 0), 0);
	for (int i = 0; i < 3; i++)
		admission_leave(&a, &peer);
	CHECK_EQ(admission_total(&a), 0);
	CHECK_EQ(cells_in_use(&a), 0);
	admission_fini(&a);
	admission_fini(&a);
}

TEST(admission_counts_each_address_by_itself)
{
	struct admission a = {0};

	CHECK_EQ(admission_init(&a, 10000), 0);
	for (uint32_t n = 0; n < 5000; n++) {
		struct sock_peer peer = address(n);

		CHECK_EQ(admission_enter(&a, &peer, 100000, 2), 0);
		CHECK_EQ(admission_enter(&a, &peer, 100000, 2), 0);
	}
	for (uint32_t n = 0; n < 5000; n++) {
		struct sock_peer peer = address(n);

		CHECK_EQ(admission_enter(&a, &peer, 100000, 2), ADMISSION_E_PER_IP);
		admission_leave(&a, &peer);
		admission_leave(&a, &peer);
		CHECK_EQ(admission_enter(&a, &peer, 100000, 2), 0);
		admission_leave(&a, &peer);
		admission_leave(&a, &peer);
	}
	CHECK_EQ(admission_total(&a), 0);
	CHECK_EQ(cells_in_use(&a), 0);
	admission_fini(&a);
}

TEST(admission_does_not_count_unix_sockets_by_address)
{
	struct sock_peer local = {.is_unix = true};
	struct admission a = {0};

	CHECK_EQ(admission_init(&a, 10), 0);
	for (int i = 0; i < 10; i++)
		CHECK_EQ(admission_enter(&a, &local, 10, 1), 0);
	CHECK_EQ(admission_enter(&a, &local, 10, 1), ADMISSION_E_FULL);
	CHECK_EQ(cells_in_use(&a), 0);
	admission_fini(&a);
}

#define THREADS 4

static void *come_and_go(void *arg)
{
	struct admission *a = arg;

	for (uint32_t i = 0; i < 20000; i++) {
		struct sock_peer peer = address(i % 7);

		(void)admission_enter(a, &peer, 100, 3);
		admission_leave(a, &peer);
	}
	return NULL;
}

TEST(admission_is_exact_with_many_threads)
{
	struct admission a = {0};
	pthread_t threads[THREADS];

	CHECK_EQ(admission_init(&a, 10), 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, come_and_go, &a), 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(admission_total(&a), 0);
	CHECK_EQ(cells_in_use(&a), 0);
	admission_fini(&a);
}
