/* SPDX-License-Identifier: MIT */
#include "worker/admission.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "test.h"

#define NO_LIMIT UINT64_MAX

/* 10.0.x.x as the kernel's IPv4 peers are kept: mapped into ::ffff:0:0/96. */
static struct sock_peer v4_peer(unsigned n)
{
	return (struct sock_peer){
		.ip = {[10] = 0xff,
		       [11] = 0xff,
		       [12] = 10,
		       [14] = (uint8_t)(n >> 8),
		       [15] = (uint8_t)n},
		.port = (uint16_t)(40000 + n),
	};
}

static size_t cells_in_use(const struct admission *a)
{
	size_t n = 0;

	for (size_t i = 0; i <= a->mask; i++)
		n += atomic_load(&a->cells[i]) != 0;
	return n;
}

/* What every test ends with: nothing is counted any more. */
static void check_empty_and_fini(struct admission *a)
{
	CHECK_EQ(admission_total(a), 0);
	CHECK_EQ(cells_in_use(a), 0);
	admission_fini(a);
	admission_fini(a);
}

/* 2001:db8:0:N::x, as many hosts as one likes in each. */
static struct sock_peer v6_peer(uint8_t network, uint8_t host)
{
	return (struct sock_peer){.ip = {0x20, 0x01, 0x0d, 0xb8, [7] = network, [15] = host}};
}

TEST(admission_counts_an_ipv6_network_as_one_address)
{
	struct admission a = {0};
	struct sock_peer peer[] = {v6_peer(1, 1), v6_peer(1, 2), v6_peer(2, 1), v4_peer(1),
				   v4_peer(2)},
			 third = v6_peer(1, 3), third_v4 = v4_peer(1);

	CHECK_EQ(admission_init(&a, 10), 0);
	for (size_t i = 0; i < ARRAY_LEN(peer); i++)
		CHECK_EQ(admission_enter(&a, &peer[i], NO_LIMIT, 2), 0);
	CHECK_EQ(admission_enter(&a, &third, NO_LIMIT, 2), ADMISSION_E_PER_IP);
	CHECK_EQ(admission_enter(&a, &third_v4, NO_LIMIT, 1), ADMISSION_E_PER_IP);
	admission_leave(&a, &peer[1]);
	CHECK_EQ(admission_enter(&a, &third, NO_LIMIT, 2), 0);
	admission_leave(&a, &third);
	for (size_t i = 0; i < ARRAY_LEN(peer); i++)
		if (i != 1)
			admission_leave(&a, &peer[i]);
	check_empty_and_fini(&a);
}

TEST(admission_table_has_twice_as_many_cells_as_connections)
{
	static const uint64_t expected[] = {0, 1, 512, 513, 10000, 65536};

	for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
		struct admission a = {0};

		CHECK_EQ(admission_init(&a, expected[i]), 0);
		CHECK(a.mask + 1 >= 2 * expected[i]);
		CHECK_EQ((a.mask + 1) & a.mask, 0);
		check_empty_and_fini(&a);
	}
}

TEST(admission_without_memory)
{
	struct admission a = {0};

	CHECK_EQ(admission_init(&a, (uint64_t)1 << 58), -ENOMEM);
	admission_fini(&a);
}

TEST(admission_total_lets_in_up_to_the_limit)
{
	struct admission a = {0};
	struct sock_peer peers[7];

	CHECK_EQ(admission_init(&a, 10), 0);
	for (unsigned i = 0; i < ARRAY_LEN(peers); i++) {
		peers[i] = v4_peer(i);
		CHECK_EQ(admission_enter(&a, &peers[i], 5, 0), i < 5 ? 0 : ADMISSION_E_FULL);
		CHECK_EQ(admission_total(&a), i < 5 ? i + 1 : 5); /* refused ones take no place */
	}
	admission_leave(&a, &peers[4]);
	CHECK_EQ(admission_enter(&a, &peers[5], 5, 0), 0);
	CHECK_EQ(admission_enter(&a, &peers[4], 5, 0), ADMISSION_E_FULL);
	CHECK_EQ(admission_enter(&a, &peers[4], 0, 0), ADMISSION_E_FULL);
	for (unsigned i = 0; i < 4; i++)
		admission_leave(&a, &peers[i]);
	admission_leave(&a, &peers[5]);
	check_empty_and_fini(&a);
}

TEST(admission_per_ip_lets_in_up_to_the_limit)
{
	struct admission a = {0};
	struct sock_peer one = v4_peer(1), other = v4_peer(2);

	CHECK_EQ(admission_init(&a, 100), 0);
	for (unsigned i = 0; i < 5; i++) {
		one.port++; /* connections of one address differ by their port alone */
		CHECK_EQ(admission_enter(&a, &one, NO_LIMIT, 3), i < 3 ? 0 : ADMISSION_E_PER_IP);
		CHECK_EQ(admission_total(&a), i < 3 ? i + 1 : 3);
	}
	CHECK_EQ(admission_enter(&a, &other, NO_LIMIT, 3), 0);
	CHECK_EQ(admission_enter(&a, &one, NO_LIMIT, 0), 0); /* no limit */
	CHECK_EQ(admission_enter(&a, &one, 1, 3), ADMISSION_E_FULL);
	for (unsigned i = 0; i < 2; i++)
		admission_leave(&a, &one);
	CHECK_EQ(admission_enter(&a, &one, NO_LIMIT, 3), 0); /* the third */
	CHECK_EQ(admission_enter(&a, &one, NO_LIMIT, 3), ADMISSION_E_PER_IP);
	for (unsigned i = 0; i < 3; i++)
		admission_leave(&a, &one);
	CHECK_EQ(admission_total(&a), 1);
	admission_leave(&a, &other);
	check_empty_and_fini(&a);
}

/* Each is an address of its own: every byte of an IPv6 network and of IPv4 counts. */
TEST(admission_tells_addresses_apart_by_every_byte)
{
	struct admission a = {0};
	struct sock_peer peers[14] = {[8 ... 12] = v4_peer(0)};

	CHECK_EQ(admission_init(&a, 10000), 0);
	for (size_t i = 0; i < 8; i++)
		peers[i].ip[i] = 1;
	/* 12 is 10.0.0.0 itself, 13 an IPv6 network without a bit of it. */
	for (size_t i = 8; i < 12; i++)
		peers[i].ip[i + 4] = 77;
	for (size_t i = 0; i < ARRAY_LEN(peers); i++)
		CHECK_EQ(admission_enter(&a, &peers[i], NO_LIMIT, 1), 0);
	for (size_t i = 0; i < ARRAY_LEN(peers); i++)
		CHECK_EQ(admission_enter(&a, &peers[i], NO_LIMIT, 1), ADMISSION_E_PER_IP);
	for (size_t i = 0; i < ARRAY_LEN(peers); i++)
		admission_leave(&a, &peers[i]);
	check_empty_and_fini(&a);
}

TEST(admission_of_unix_peers_knows_only_the_total)
{
	struct admission a = {0};
	const struct sock_peer local = {.is_unix = true};
	const struct sock_peer zero = {0}; /* the same bytes as an address: not the same peer */

	CHECK_EQ(admission_init(&a, 10), 0);
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(admission_enter(&a, &local, 5, 1), i < 5 ? 0 : ADMISSION_E_FULL);
	CHECK_EQ(cells_in_use(&a), 0);
	CHECK_EQ(admission_enter(&a, &zero, NO_LIMIT, 1), 0);
	for (unsigned i = 0; i < 5; i++)
		admission_leave(&a, &local);
	CHECK_EQ(cells_in_use(&a), 1);
	admission_leave(&a, &zero);
	check_empty_and_fini(&a);
}

/* All cells belong to others: not counted, let in, and nothing of the others is touched. */
TEST(admission_of_an_address_without_a_free_cell)
{
	const uint64_t foreign = 0x123456789a000007;
	struct admission a = {0};
	struct sock_peer peer = v4_peer(1);

	CHECK_EQ(admission_init(&a, 10), 0);
	for (size_t i = 0; i <= a.mask; i++)
		atomic_store(&a.cells[i], foreign);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(admission_enter(&a, &peer, 3, 1), i < 3 ? 0 : ADMISSION_E_FULL);
	for (int i = 0; i < 3; i++)
		admission_leave(&a, &peer);
	for (size_t i = 0; i <= a.mask; i++)
		CHECK_EQ(atomic_load(&a.cells[i]), foreign);
	/* One of each eight: every line of cells has a free one again. */
	for (size_t i = 5; i <= a.mask; i += 8)
		atomic_store(&a.cells[i], 0);
	CHECK_EQ(admission_enter(&a, &peer, NO_LIMIT, 1), 0);
	CHECK_EQ(admission_enter(&a, &peer, NO_LIMIT, 1), ADMISSION_E_PER_IP);
	admission_leave(&a, &peer);
	for (size_t i = 0; i <= a.mask; i++)
		CHECK_EQ(atomic_load(&a.cells[i]), i % 8 == 5 ? 0 : foreign);
	admission_fini(&a);
}

/* As two workers leave it behind that opened a cell for one address at the same instant. */
TEST(admission_adds_up_two_cells_of_one_address)
{
	struct admission a = {0};
	struct sock_peer peer = v4_peer(1);
	size_t at = 0;

	CHECK_EQ(admission_init(&a, 10), 0);
	CHECK_EQ(admission_enter(&a, &peer, NO_LIMIT, 1), 0);
	while (!atomic_load(&a.cells[at]))
		at++;
	atomic_store(&a.cells[(at & ~(size_t)7) + (at + 1) % 8], atomic_load(&a.cells[at]));
	atomic_fetch_add(&a.total, 1);
	CHECK_EQ(admission_enter(&a, &peer, NO_LIMIT, 3), 0);
	CHECK_EQ(admission_enter(&a, &peer, NO_LIMIT, 3), ADMISSION_E_PER_IP);
	for (int i = 0; i < 3; i++)
		admission_leave(&a, &peer);
	check_empty_and_fini(&a);
}

/* However many keep trying: whoever leaves makes room for the next one. */
TEST(admission_those_refused_have_a_bound_of_their_own)
{
	struct admission a = {0};
	struct sock_peer in = v4_peer(1), next = v4_peer(2);

	CHECK_EQ(admission_init(&a, 10), 0);
	CHECK_EQ(admission_enter(&a, &in, 1, 1), 0);
	for (unsigned i = 0; i < ADMISSION_REFUSED_MAX + 2; i++) {
		CHECK_EQ(admission_enter(&a, &in, 1, 1), ADMISSION_E_FULL);
		CHECK_EQ(admission_enter(&a, &in, 9, 1), ADMISSION_E_PER_IP);
		CHECK_EQ(admission_enter_refused(&a), i < ADMISSION_REFUSED_MAX);
	}
	CHECK_EQ(admission_total(&a), 1);
	admission_leave(&a, &in);
	CHECK_EQ(admission_enter(&a, &next, 1, 1), 0);
	admission_leave_refused(&a);
	CHECK(admission_enter_refused(&a));
	CHECK(!admission_enter_refused(&a));
	for (unsigned i = 0; i < ADMISSION_REFUSED_MAX; i++)
		admission_leave_refused(&a);
	CHECK_EQ(atomic_load(&a.refused), 0);
	admission_leave(&a, &next);
	check_empty_and_fini(&a);
}

/* ----- threads */

#define THREADS 4
#define STEPS 10000
#define ADDRESSES 20
#define HELD 4 /* connections that a thread holds at a time, at most */
#define PER_IP 3
#define TOTAL 12

struct crowd {
	struct admission a;
	_Atomic uint64_t inside; /* let in and not gone */
	_Atomic uint64_t inside_of[ADDRESSES];
	_Atomic size_t admitted, full, per_ip;
	_Atomic size_t too_many;
	bool is_limited;
};

struct visitor {
	struct crowd *crowd;
	uint64_t random;
	struct sock_peer held[HELD];
	unsigned address[HELD];
	int outcome[HELD]; /* of admission_enter(); -1: not there */
};

static void come(struct visitor *v, size_t i)
{
	struct crowd *c = v->crowd;
	unsigned address = (test_random(&v->random) >> 40) % ADDRESSES;
	uint64_t total = c->is_limited ? TOTAL : NO_LIMIT;

	v->address[i] = address;
	v->held[i] = v4_peer(address);
	v->outcome[i] = admission_enter(&c->a, &v->held[i], total, c->is_limited ? PER_IP : 0);
	if (v->outcome[i]) {
		atomic_fetch_add(v->outcome[i] == ADMISSION_E_FULL ? &c->full : &c->per_ip, 1);
		v->outcome[i] = -1;
		return;
	}
	atomic_fetch_add(&c->admitted, 1);
	if (!c->is_limited)
		return;
	if (atomic_fetch_add(&c->inside, 1) >= TOTAL ||
	    atomic_fetch_add(&c->inside_of[address], 1) >= PER_IP)
		atomic_fetch_add(&c->too_many, 1);
}

static void go(struct visitor *v, size_t i)
{
	struct crowd *c = v->crowd;

	if (c->is_limited) {
		atomic_fetch_sub(&c->inside, 1);
		atomic_fetch_sub(&c->inside_of[v->address[i]], 1);
	}
	v->outcome[i] = -1;
	admission_leave(&c->a, &v->held[i]);
}

static void *visit(void *arg)
{
	struct visitor *v = arg;

	for (size_t i = 0; i < HELD; i++)
		v->outcome[i] = -1;
	for (int step = 0; step < STEPS; step++) {
		size_t i = test_random(&v->random) >> 32 & (HELD - 1);

		if (v->outcome[i] < 0)
			come(v, i);
		else
			go(v, i);
		if (step % 64 == 0)
			sched_yield();
	}
	for (size_t i = 0; i < HELD; i++)
		if (v->outcome[i] >= 0)
			go(v, i);
	return NULL;
}

static void visit_by_all(struct crowd *c)
{
	static struct visitor visitors[THREADS];
	pthread_t threads[THREADS];

	for (unsigned t = 0; t < THREADS; t++) {
		visitors[t] = (struct visitor){.crowd = c, .random = test_seed() ^ (t + 1)};
		visitors[t].random += visitors[t].random == 0;
		CHECK_EQ(pthread_create(&threads[t], NULL, visit, &visitors[t]), 0);
	}
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
}

TEST(admission_counts_are_zero_again_after_many_threads)
{
	static struct crowd c;

	CHECK_EQ(admission_init(&c.a, 8), 0);
	visit_by_all(&c);
	CHECK(c.admitted > 0);
	CHECK_EQ(c.full + c.per_ip, 0);
	check_empty_and_fini(&c.a);
}

/* One connection of each address stays, so that each has exactly one cell all the time. */
TEST(admission_limits_hold_with_many_threads)
{
	static struct crowd c = {.is_limited = true};
	struct sock_peer peer;

	CHECK_EQ(admission_init(&c.a, 100), 0);
	for (unsigned i = 0; i < ADDRESSES; i++) {
		peer = v4_peer(i);
		CHECK_EQ(admission_enter(&c.a, &peer, NO_LIMIT, 1), 0);
		atomic_fetch_add(&c.inside_of[i], 1);
	}
	atomic_fetch_sub(&c.a.total, ADDRESSES); /* those don't count towards the total */
	visit_by_all(&c);
	CHECK_EQ(c.too_many, 0);
	CHECK(c.admitted > 0);
	CHECK(c.per_ip > 0);
	atomic_fetch_add(&c.a.total, ADDRESSES);
	for (unsigned i = 0; i < ADDRESSES; i++) {
		peer = v4_peer(i);
		admission_leave(&c.a, &peer);
	}
	check_empty_and_fini(&c.a);
}
