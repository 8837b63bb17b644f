/* SPDX-License-Identifier: MIT */
/*
 * Slots in a file: taken, given back, found again by another process, and read when it is
 * garbage.
 */
#include "containers/shm_heap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

#define MARK 77

static int new_file(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static uint64_t file_bytes(int fd)
{
	struct stat st;

	CHECK_EQ(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void set_mark(struct shm_slot *slot, uint64_t mark)
{
	atomic_store(&slot->mark, mark);
}

TEST(slots_have_room_for_what_was_asked_and_not_much_more)
{
	struct shm_heap h = {0};
	int fd = new_file();

	CHECK_EQ(shm_heap_create(&h, fd, 2), 0);
	for (size_t n = sizeof(struct shm_slot); n < 300000; n += n < 40000 ? 7 : 4001) {
		struct shm_slot *slot = shm_heap_alloc(&h, n);
		size_t room;

		CHECK(slot && (uintptr_t)slot % 16 == 0);
		CHECK(shm_heap_commit(&h, slot, n));
		room = shm_heap_room(&h, slot);
		CHECK(room >= n);
		CHECK(n < 64 || n > 32768 || room <= n + MAX(n / 8, (size_t)16));
		CHECK(n <= 32768 || room < n + 4096);
		memset(slot + 1, 0xa5, n - sizeof(*slot));
		CHECK(shm_heap_at(&h, shm_heap_place(&h, slot)) == slot);
		CHECK(shm_heap_is_slot(&h, shm_heap_place(&h, slot)));
		shm_heap_free(&h, slot);
	}
	shm_heap_check(&h);
	shm_heap_fini(&h);
	close(fd);
}

TEST(a_large_slot_takes_its_pages_when_they_are_asked_for)
{
	struct shm_heap h = {0};
	int fd = new_file();
	struct shm_slot *slot;
	uint64_t before;

	CHECK_EQ(shm_heap_create(&h, fd, 1), 0);
	slot = shm_heap_alloc(&h, 16);
	before = file_bytes(fd);
	slot = shm_heap_alloc(&h, 16u << 20);
	CHECK(slot != NULL);
	CHECK_EQ(file_bytes(fd), before + 4096);
	CHECK(shm_heap_commit(&h, slot, 1u << 20));
	CHECK_EQ(file_bytes(fd), before + (1u << 20));
	CHECK_EQ(file_bytes(fd), h.bytes);
	CHECK(shm_heap_commit(&h, slot, 16u << 20));
	((uint8_t *)slot)[(16u << 20) - 1] = 1;
	shm_heap_free(&h, slot);
	CHECK_EQ(file_bytes(fd), before);
	CHECK_EQ(h.bytes, before);
	CHECK(!shm_heap_alloc(&h, SHM_SLOT_MAX + 1));
	shm_heap_fini(&h);
	close(fd);
}

/* A random life of slots: no two overlap, and all memory comes back. */
struct held {
	struct shm_slot *slot;
	size_t n;
	uint8_t byte;
};

static void fill(struct held *x)
{
	memset(x->slot + 1, x->byte, x->n - sizeof(struct shm_slot));
}

static void check_filled(const struct held *x)
{
	const uint8_t *p = (const uint8_t *)(x->slot + 1);

	for (size_t i = 0; i < x->n - sizeof(struct shm_slot); i += 61)
		CHECK_EQ(p[i], x->byte);
}

static size_t random_size(uint64_t *random)
{
	size_t n = sizeof(struct shm_slot) + test_random(random) % 600;

	if (test_random(random) % 50 == 0)
		n += test_random(random) % 400000;
	return n;
}

TEST(slots_never_overlap_and_their_memory_comes_back)
{
	uint64_t random = test_seed();
	struct held held[600] = {{0}};
	struct shm_heap h = {0};
	int fd = new_file();

	CHECK_EQ(shm_heap_create(&h, fd, 3), 0);
	for (unsigned i = 0; i < 60000; i++) {
		struct held *x = &held[test_random(&random) % ARRAY_LEN(held)];

		if (x->slot) {
			check_filled(x);
			shm_heap_free(&h, x->slot);
			x->slot = NULL;
			continue;
		}
		x->n = random_size(&random);
		x->byte = (uint8_t)i;
		x->slot = shm_heap_alloc(&h, x->n);
		CHECK(x->slot && shm_heap_commit(&h, x->slot, x->n));
		fill(x);
		if (i % 5000 == 0)
			shm_heap_check(&h);
	}
	for (size_t i = 0; i < ARRAY_LEN(held); i++)
		if (held[i].slot)
			shm_heap_free(&h, held[i].slot);
	shm_heap_check(&h);
	/* One span of each class may stay. */
	CHECK(h.bytes < (SHM_CLASSES + 2) * SHM_SPAN_BYTES);
	CHECK_EQ(h.bytes, file_bytes(fd));
	shm_heap_fini(&h);
	close(fd);
}

/* ------------------------------------------------------------------ from one to the next */

struct seen {
	unsigned n;
	uint64_t sum;
};

static void see(void *ctx, struct shm_slot *slot)
{
	struct seen *s = ctx;

	s->n++;
	s->sum += atomic_load(&slot->mark);
}

static void check_next_process(bool is_trusted)
{
	struct shm_heap a = {0}, b = {0};
	struct shm_slot *slot[300];
	struct seen seen = {0};
	int fd = new_file();
	uint64_t sum = 0;
	unsigned n = 0;

	CHECK_EQ(shm_heap_create(&a, fd, 2), 0);
	memcpy(shm_heap_root(&a), "root", 4);
	for (unsigned i = 0; i < 300; i++) {
		size_t bytes = i % 10 ? 100 + i : 300000;

		slot[i] = shm_heap_alloc(&a, bytes);
		CHECK(slot[i] && shm_heap_commit(&a, slot[i], bytes));
		if (i % 3 == 0) {
			set_mark(slot[i], MARK + i);
			sum += MARK + i;
			n++;
		} else if (i % 3 == 1) {
			shm_heap_free(&a, slot[i]);
		}
	}
	/* It dies: nothing is given back. */
	CHECK_EQ(shm_heap_open(&b, fd, 5), 0);
	CHECK_EQ(shm_heap_adopt(&b, is_trusted), 0);
	CHECK_EQ(b.run, a.run + 1);
	CHECK(memcmp(shm_heap_root(&b), "root", 4) == 0);
	shm_heap_each(&b, see, &seen);
	CHECK_EQ(seen.n, n);
	CHECK_EQ(seen.sum, sum);
	CHECK_EQ(b.bytes, a.bytes);
	/* What was only held is free, in the same spans; what was marked stays. */
	for (unsigned i = 0; i < 300; i += 3) {
		uint32_t place = shm_heap_place(&a, slot[i]);

		CHECK(shm_heap_is_slot(&b, place));
		CHECK_EQ(atomic_load(&shm_heap_at(&b, place)->mark), MARK + i);
		shm_heap_free(&b, shm_heap_at(&b, place));
		CHECK(!shm_heap_is_slot(&b, place));
	}
	shm_heap_check(&b);
	shm_heap_fini(&a);
	shm_heap_fini(&b);
	close(fd);
}

TEST(the_next_process_finds_what_was_marked_and_nothing_else)
{
	check_next_process(false);
	check_next_process(true);
}

TEST(slots_of_the_process_before_are_used_again)
{
	struct shm_heap a = {0}, b = {0};
	struct shm_slot *slot, *kept;
	int fd = new_file();
	uint64_t before;

	CHECK_EQ(shm_heap_create(&a, fd, 1), 0);
	kept = shm_heap_alloc(&a, 200);
	set_mark(kept, MARK);
	for (unsigned i = 0; i < 2000; i++)
		CHECK(shm_heap_alloc(&a, 200) != NULL);
	before = file_bytes(fd);
	CHECK_EQ(shm_heap_open(&b, fd, 1), 0);
	CHECK_EQ(shm_heap_adopt(&b, false), 0);
	for (unsigned i = 0; i < 2000; i++) {
		slot = shm_heap_alloc(&b, 200);
		CHECK(slot && shm_heap_place(&b, slot) != shm_heap_place(&a, kept));
	}
	CHECK(file_bytes(fd) <= before + SHM_SPAN_BYTES);
	shm_heap_check(&b);
	shm_heap_fini(&a);
	shm_heap_fini(&b);
	close(fd);
}

TEST(what_is_no_heap_is_not_opened)
{
	struct shm_heap h = {0};
	int fd = new_file();

	CHECK_EQ(shm_heap_open(&h, fd, 1), -EINVAL);
	CHECK_EQ(ftruncate(fd, (off_t)SHM_BYTES), 0);
	CHECK_EQ(shm_heap_open(&h, fd, 1), -EINVAL);
	CHECK_EQ(pwrite(fd, "something", 9, 0), 9);
	CHECK_EQ(shm_heap_open(&h, fd, 1), -EINVAL);
	/* What was there is gone in a heap that is made of it. */
	CHECK_EQ(shm_heap_create(&h, fd, 1), 0);
	CHECK_EQ(*(uint8_t *)shm_heap_root(&h), 0);
	shm_heap_fini(&h);
	close(fd);
}

static void drop_some(void *ctx, struct shm_slot *slot)
{
	uint64_t *random = ctx;

	if (test_random(random) % 2)
		set_mark(slot, 0);
}

/* The head, the map and slots are overwritten at random: nothing but what is there is touched. */
TEST(a_heap_of_garbage_is_read_without_harm)
{
	const uint64_t first = (4096 + SHM_N_SPANS * 4) / SHM_SPAN_BYTES + 1;
	uint64_t random = test_seed();

	for (unsigned round = 0; round < 60; round++) {
		struct shm_heap a = {0}, b = {0};
		int fd = new_file();
		struct seen seen = {0};

		CHECK_EQ(shm_heap_create(&a, fd, 2), 0);
		for (unsigned i = 0; i < 200; i++) {
			size_t n = random_size(&random);
			struct shm_slot *slot = shm_heap_alloc(&a, n);

			CHECK(slot && shm_heap_commit(&a, slot, n));
			set_mark(slot, MARK);
		}
		for (unsigned i = 0; i < 1 + round * 3; i++) {
			uint32_t word =
				(uint32_t)(test_random(&random) >> (test_random(&random) % 64));
			/*
			 * The map's first words are those of its spans, behind the head and the
			 * map.
			 */
			uint64_t at = i % 2 ? 4096 + first * 4 + test_random(&random) % 300 * 4
					    : first * SHM_SPAN_BYTES +
						      test_random(&random) % (1 << 22) / 4 * 4;

			CHECK_EQ(pwrite(fd, &word, 4, (off_t)at), 4);
		}
		if (shm_heap_open(&b, fd, 2) == 0 && shm_heap_adopt(&b, false) == 0) {
			shm_heap_each(&b, drop_some, &random);
			shm_heap_each(&b, see, &seen);
			for (unsigned i = 0; i < 300; i++) {
				size_t n = random_size(&random);
				struct shm_slot *slot = shm_heap_alloc(&b, n);

				CHECK(slot && shm_heap_commit(&b, slot, n));
				memset(slot + 1, 1, n - sizeof(*slot));
				if (i % 2)
					shm_heap_free(&b, slot);
			}
			shm_heap_check(&b);
		}
		shm_heap_fini(&a);
		shm_heap_fini(&b);
		close(fd);
	}
}
