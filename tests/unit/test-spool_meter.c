/* SPDX-License-Identifier: MIT */
#include "spool/spool_meter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "spool/spool_file.h"
#include "spool/spool_transfer.h"
#include "test.h"

/* Transfers without a thread: each chunk is worked off within the call. */
static struct desk {
	char dir[64];
	struct spool_transfers ts;
	struct spool_counters counters;
	_Atomic bool is_closed;
	struct spool_result last;
	unsigned n_results;
} desk;

static void on_done(void *ctx, const struct spool_result *r)
{
	struct desk *d = ctx;

	d->last = *r;
	d->n_results++;
}

static void on_room(void *ctx, unsigned worker)
{
	(void)ctx;
	(void)worker;
}

static const struct spool_ops ops = {on_done, on_room};

static void open_desk(void)
{
	memset(&desk, 0, sizeof(desk));
	snprintf(desk.dir, sizeof(desk.dir), "/tmp/wsbind-desk-XXXXXX");
	CHECK(mkdtemp(desk.dir));
	desk.ts.ops = &ops;
	desk.ts.ctx = &desk;
	desk.ts.counters = &desk.counters;
	desk.ts.is_closed = &desk.is_closed;
	desk.ts.dir_fd = desk.ts.meter.dir_fd = open(desk.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(desk.ts.dir_fd >= 0);
	spool_transfers_init(&desk.ts);
	clock_set_for_test(1000 * NS_PER_S);
}

static uint64_t bytes_there(void)
{
	uint64_t sum = 99;

	CHECK_EQ(spool_file_sum_bytes(desk.ts.dir_fd, &sum), 0);
	return sum;
}

static void close_desk(void)
{
	char command[128];

	spool_transfers_expire(&desk.ts, UINT64_MAX, -ECANCELED, "");
	spool_transfers_fini(&desk.ts);
	snprintf(command, sizeof(command), "rm -rf %s", desk.dir);
	CHECK_EQ(system(command), 0);
	clock_set_for_test(0);
}

/* One chunk of @n bytes; returns what became of it, if it ended its transfer. */
static enum spool_refusal send_chunk(uint64_t serial, uint64_t address, uint32_t sequence,
				     bool is_last, size_t n)
{
	static uint8_t data[1 << 20];
	const struct spool_chunk chunk = {
		.owner = {1, serial, address},
		.client_id = "c",
		.sequence = sequence,
		.is_last = is_last,
		.data = data,
		.n = n,
	};

	desk.last = (struct spool_result){0};
	spool_transfers_take_chunk(&desk.ts, &chunk);
	CHECK(!desk.last.refusal || desk.last.error < 0);
	return desk.last.refusal;
}

TEST(spool_file_has_a_size)
{
	open_desk();
	desk.ts.meter.limits.max_file_bytes = 1000;
	CHECK_EQ(send_chunk(1, 0, 0, false, 600), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(1, 0, 1, true, 400), SPOOL_NOT_REFUSED);
	CHECK_EQ(desk.counters.files, 1);
	CHECK_EQ(send_chunk(1, 0, 0, false, 600), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(1, 0, 1, false, 401), SPOOL_R_FILE_SIZE);
	CHECK(!desk.last.is_transient);
	CHECK(strstr(desk.last.reason, "spool_max_file_size"));
	/* Said once, and nothing of it is left. */
	CHECK_EQ(send_chunk(1, 0, 2, true, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(desk.counters.files, 1);
	CHECK_EQ(desk.counters.errors, 1);
	CHECK_EQ(bytes_there(), 1000);
	close_desk();
}

/* What its client says is enough to refuse it before anything is written. */
TEST(spool_file_that_is_announced_too_large_does_not_begin)
{
	struct spool_chunk chunk = {
		.owner = {1, 1, 0}, .client_id = "c", .announced = 1001, .is_last = true};

	open_desk();
	desk.ts.meter.limits.max_file_bytes = 1000;
	spool_transfers_take_chunk(&desk.ts, &chunk);
	CHECK_EQ(desk.last.refusal, SPOOL_R_FILE_SIZE);
	desk.ts.meter.limits.max_file_bytes = 0;
	desk.ts.meter.limits.max_bytes = 1000;
	spool_transfers_take_chunk(&desk.ts, &chunk);
	CHECK_EQ(desk.last.refusal, SPOOL_R_SIZE);
	CHECK_EQ(desk.counters.files, 0);
	close_desk();
}

TEST(spool_directory_has_a_size)
{
	char path[128];
	int fd;

	open_desk();
	snprintf(path, sizeof(path), "%s/already-there", desk.dir);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	CHECK_EQ(write(fd, path, 100), 100);
	close(fd);
	desk.ts.meter.limits.max_bytes = 1000;
	CHECK_EQ(send_chunk(1, 0, 0, true, 500), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(2, 0, 0, false, 300), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(2, 0, 1, false, 101), SPOOL_R_SIZE);
	CHECK(desk.last.is_transient && strstr(desk.last.reason, "spool_max_size"));
	CHECK_EQ(bytes_there(), 600);
	/* What was taken back is room for another one. */
	CHECK_EQ(send_chunk(3, 0, 0, true, 400), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(4, 0, 0, true, 1), SPOOL_R_SIZE);
	/* Somebody takes a file away: that is seen, though not at once. */
	CHECK_EQ(unlink(path), 0);
	CHECK_EQ(send_chunk(5, 0, 0, true, 1), SPOOL_R_SIZE);
	clock_set_for_test(1003 * NS_PER_S);
	CHECK_EQ(send_chunk(6, 0, 0, true, 100), SPOOL_NOT_REFUSED);
	/* Turned off and on again: what came in between counts, too. */
	desk.ts.meter.limits.max_bytes = 0;
	CHECK_EQ(send_chunk(7, 0, 0, true, 5000), SPOOL_NOT_REFUSED);
	desk.ts.meter.limits.max_bytes = 6000;
	CHECK_EQ(send_chunk(8, 0, 0, true, 1), SPOOL_R_SIZE);
	close_desk();
}

TEST(spool_leaves_some_of_the_disk_free)
{
	open_desk();
	desk.ts.meter.limits.min_free = 100;
	CHECK_EQ(send_chunk(1, 0, 0, true, 10), SPOOL_R_FREE);
	CHECK(desk.last.is_transient && strstr(desk.last.reason, "spool_min_free"));
	CHECK_EQ(bytes_there(), 0);
	desk.ts.meter.limits.min_free = 0;
	CHECK_EQ(send_chunk(1, 0, 0, false, 10), SPOOL_NOT_REFUSED);
	/* It is looked at again within what is written of a file. */
	desk.ts.meter.limits.min_free = 100;
	CHECK_EQ(send_chunk(1, 0, 1, false, 1 << 20), SPOOL_R_FREE);
	CHECK_EQ(bytes_there(), 0);
	close_desk();
}

TEST(spool_files_in_a_second_are_bounded)
{
	open_desk();
	desk.ts.meter.limits.client_files = 3;
	desk.ts.meter.limits.address_files = 5;
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(send_chunk(1, 77, 0, true, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(1, 77, 0, true, 1), SPOOL_R_RATE);
	CHECK(desk.last.is_transient);
	CHECK_EQ(send_chunk(2, 77, 0, true, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(3, 77, 0, true, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(4, 77, 0, true, 1), SPOOL_R_RATE);
	CHECK_EQ(send_chunk(4, 78, 0, true, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(5, 0, 0, true, 1), SPOOL_NOT_REFUSED); /* a unix socket's */
	clock_set_for_test(1001 * NS_PER_S);
	CHECK_EQ(send_chunk(1, 77, 0, true, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(desk.counters.files, 8);
	close_desk();
}

/* Whoever leaves files lying keeps nobody out, neither of its address nor of others. */
TEST(spool_place_of_a_silent_transfer_goes_to_a_new_one)
{
	open_desk();
	desk.ts.meter.limits.address_open = 2;
	CHECK_EQ(send_chunk(1, 77, 0, false, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(2, 77, 0, false, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(3, 77, 0, false, 1), SPOOL_R_OPEN);
	CHECK_EQ(send_chunk(4, 78, 0, false, 1), SPOOL_NOT_REFUSED);
	clock_set_for_test(1000 * NS_PER_S + SPOOL_YIELD_NS);
	CHECK_EQ(send_chunk(1, 77, 1, false, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(5, 77, 0, false, 1), SPOOL_R_OPEN);
	CHECK_EQ(desk.last.owner.serial, 2);
	CHECK_EQ(desk.counters.open, 3);
	for (uint64_t i = 0; desk.counters.open < SPOOL_MAX_OPEN; i++)
		CHECK_EQ(send_chunk(100 + i, 100 + i, 0, false, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(send_chunk(6, 99, 0, false, 1), SPOOL_R_OPEN);
	CHECK_EQ(desk.last.owner.serial, 4); /* the one that stood still longest of all */
	CHECK_EQ(send_chunk(7, 99, 0, false, 1), SPOOL_R_OPEN);
	CHECK_EQ(desk.last.owner.serial, 7);
	CHECK_EQ(desk.counters.open, SPOOL_MAX_OPEN);
	CHECK_EQ(send_chunk(6, 99, 1, true, 1), SPOOL_NOT_REFUSED);
	CHECK_EQ(desk.counters.files, 1);
	close_desk();
}
