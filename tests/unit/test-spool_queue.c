/* SPDX-License-Identifier: MIT */
#include "spool/spool_queue.h"

#include "test.h"

static struct spool_queue queue;

static void put(uint64_t serial, uint32_t sequence, enum zip_kind kind, size_t n)
{
	struct spool_job *job = spool_job_new();

	job->kind = SPOOL_JOB_CHUNK;
	job->chunk.owner.serial = serial;
	job->chunk.sequence = sequence;
	job->chunk.kind = kind;
	job->chunk.unpack_limit = 16 << 20;
	job->chunk.n = n;
	spool_queue_put(&queue, job);
}

/* Takes one; returns its owner, and checks its number in the line. */
static uint64_t take(uint32_t sequence)
{
	bool has_room;
	struct spool_job *job = spool_queue_take(&queue, &has_room);
	uint64_t serial = job->chunk.owner.serial;

	CHECK_EQ(job->chunk.sequence, sequence);
	spool_job_free(job);
	return serial;
}

static void drain(void)
{
	struct spool_job *job;
	bool has_room;

	while ((job = spool_queue_take(&queue, &has_room)))
		spool_job_free(job);
	CHECK(spool_queue_is_empty(&queue));
	CHECK_EQ(queue.n_chunks, 0);
	CHECK_EQ(queue.n_bytes, 0);
}

TEST(spool_queue_keeps_the_order_of_a_client)
{
	spool_queue_init(&queue);
	for (uint32_t i = 0; i < 100; i++)
		put(7, i, ZIP_NONE, 16 << 10);
	CHECK_EQ(queue.n_bytes, 100 * (16 << 10));
	for (uint32_t i = 0; i < 100; i++)
		CHECK_EQ(take(i), 7);
	drain();
}

/* What is before a little of one is a round of the others, not all that they have. */
TEST(spool_queue_serves_clients_in_turn)
{
	unsigned before = 0;

	spool_queue_init(&queue);
	for (uint64_t serial = 1; serial <= 4; serial++)
		for (uint32_t i = 0; i < 250; i++)
			put(serial, i, ZIP_NONE, 16 << 10);
	put(9, 0, ZIP_NONE, 16 << 10);
	for (;; before++) {
		bool has_room;
		struct spool_job *job = spool_queue_take(&queue, &has_room);
		uint64_t serial = job->chunk.owner.serial;

		spool_job_free(job);
		if (serial == 9)
			break;
	}
	CHECK(before <= 4 * 16);
	drain();
}

/* What a packed chunk may become counts, not how few bytes it has. */
TEST(spool_queue_lets_bombs_wait)
{
	unsigned bombs = 0, plain = 0;

	spool_queue_init(&queue);
	for (uint64_t serial = 1; serial <= 50; serial++)
		for (uint32_t i = 0; i < 4; i++)
			put(serial, i, ZIP_ZSTD, 500);
	for (uint32_t i = 0; i < 200; i++)
		put(99, i, ZIP_NONE, 16 << 10);
	while (plain < 200) {
		bool has_room;
		struct spool_job *job = spool_queue_take(&queue, &has_room);

		if (job->chunk.owner.serial == 99)
			plain++;
		else
			bombs++;
		spool_job_free(job);
	}
	CHECK(bombs <= 50);
	drain();
}

TEST(spool_queue_has_a_share_for_each_client)
{
	struct spool_owner one = {0, 1, 0}, other = {0, 2, 0}, third = {0, 3, 0};
	bool has_room = false;
	uint32_t n = 0;

	spool_queue_init(&queue);
	CHECK(spool_queue_has_room(&queue, one, SPOOL_MAX_BYTES + 1)); /* alone it always has */
	for (; spool_queue_has_room(&queue, one, 1000); n++)
		put(1, n, ZIP_NONE, 1000);
	CHECK_EQ(n, SPOOL_CLIENT_JOBS);
	CHECK(spool_queue_has_room(&queue, other, SPOOL_CLIENT_BYTES));
	put(2, 0, ZIP_NONE, SPOOL_CLIENT_BYTES);
	CHECK(!spool_queue_has_room(&queue, other, 1));
	/* All is full: a little of somebody new goes in, a lot doesn't. */
	queue.n_bytes += SPOOL_MAX_BYTES;
	CHECK(spool_queue_has_room(&queue, third, SPOOL_SMALL_CHUNK));
	CHECK(!spool_queue_has_room(&queue, third, SPOOL_SMALL_CHUNK + 1));
	CHECK(!spool_queue_has_room(&queue, one, 1));
	queue.n_bytes += SPOOL_MAX_BYTES;
	CHECK(!spool_queue_has_room(&queue, third, 1));
	queue.n_bytes -= 2 * SPOOL_MAX_BYTES;
	/* Who was refused hears of it once half of its share is free. */
	for (n = 0; !has_room; n++) {
		struct spool_job *job = spool_queue_take(&queue, &has_room);

		CHECK(job && (!has_room || job->chunk.owner.serial == 1));
		n -= job->chunk.owner.serial != 1;
		spool_job_free(job);
	}
	CHECK(n >= SPOOL_CLIENT_JOBS / 2 && n <= SPOOL_CLIENT_JOBS / 2 + 1);
	drain();
}
