/* SPDX-License-Identifier: MIT */
#include "spool/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "containers/buf.h"
#include "test.h"

#define MAX_RESULTS 8192
#define CLIENT "0f0e0d0c-1111-4222-8333-444455556666"

/* The worker's side: keeps what the spool thread reports. */
struct office {
	struct spool *spool;
	char dir[64];
	sem_t reported;
	sem_t has_room[SPOOL_MAX_WORKERS];
	sem_t gate; /* the thread waits here before each report while is_gated */
	sem_t at_gate;
	_Atomic bool is_gated;
	_Atomic bool is_masked;
	_Atomic size_t n_results; /* how many of these are complete */
	struct spool_result results[MAX_RESULTS];
	char names[MAX_RESULTS][128];
	char reasons[MAX_RESULTS][128];
};

static struct office office;

static void wait_for(sem_t *sem)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	while (sem_timedwait(sem, &until) < 0)
		CHECK(errno == EINTR);
}

static void on_done(void *ctx, const struct spool_result *r)
{
	struct office *o = ctx;
	size_t i = o->n_results;

	if (o->is_gated) {
		sem_post(&o->at_gate);
		while (sem_wait(&o->gate) < 0)
			;
	}
	o->results[i] = *r;
	snprintf(o->names[i], sizeof(o->names[i]), "%s", r->name);
	snprintf(o->reasons[i], sizeof(o->reasons[i]), "%s", r->reason);
	o->n_results = i + 1;
	sem_post(&o->reported);
}

static void on_room(void *ctx, unsigned worker)
{
	struct office *o = ctx;

	sem_post(&o->has_room[worker]);
}

static const struct spool_ops ops = {on_done, on_room};

static void open_office(void)
{
	memset(&office, 0, sizeof(office));
	snprintf(office.dir, sizeof(office.dir), "/tmp/wsbind-spool-XXXXXX");
	CHECK(mkdtemp(office.dir));
	sem_init(&office.reported, 0, 0);
	for (size_t i = 0; i < SPOOL_MAX_WORKERS; i++)
		sem_init(&office.has_room[i], 0, 0);
	sem_init(&office.gate, 0, 0);
	sem_init(&office.at_gate, 0, 0);
	clock_set_for_test(7 * NS_PER_MS); /* where the numbers of its files begin */
	CHECK_EQ(spool_new(office.dir, false, &ops, &office, &office.spool), 0);
	clock_set_for_test(0);
}

/* Files in the directory; @remove: and removes them. */
static size_t count_files(bool parts_only, bool remove)
{
	DIR *d = opendir(office.dir);
	const struct dirent *e;
	size_t n = 0;

	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		n += !parts_only || strstr(e->d_name, ".part");
		if (remove)
			unlinkat(dirfd(d), e->d_name, 0);
	}
	closedir(d);
	return n;
}

static void close_office(void)
{
	clock_set_for_test(0);
	office.spool = spool_free(office.spool);
	CHECK_EQ(count_files(true, false), 0);
	count_files(false, true);
	CHECK_EQ(rmdir(office.dir), 0);
	sem_destroy(&office.reported);
	for (size_t i = 0; i < SPOOL_MAX_WORKERS; i++)
		sem_destroy(&office.has_room[i]);
	sem_destroy(&office.gate);
	sem_destroy(&office.at_gate);
}

static struct spool_chunk make_chunk(uint64_t serial, uint32_t sequence, bool is_last,
				     const void *data, size_t n)
{
	struct spool_chunk chunk = {
		.owner = {.worker = serial % 4, .serial = serial},
		.client_id = CLIENT,
		.request_id = {(uint8_t)serial, (uint8_t)sequence},
		.request_id_len = 16,
		.sequence = sequence,
		.is_last = is_last,
		.unpack_limit = 1 << 20,
		.data = n ? malloc(n) : NULL,
		.n = n,
	};

	if (n)
		memcpy(chunk.data, data, n);
	return chunk;
}

static void send_chunk(uint64_t serial, uint32_t sequence, bool is_last, const char *text)
{
	struct spool_chunk chunk = make_chunk(serial, sequence, is_last, text, strlen(text));

	CHECK(spool_put_chunk(office.spool, &chunk));
	CHECK(!chunk.data && !chunk.n);
}

static const struct spool_result *result(size_t i)
{
	while (office.n_results <= i)
		wait_for(&office.reported);
	return &office.results[i];
}

/* The chunks handed over so far are worked off: one more transfer has been. */
static void settle(void)
{
	size_t before = spool_counters(office.spool)->files;

	send_chunk(999999, 0, true, "");
	for (int i = 0; i < 2000 && spool_counters(office.spool)->files == before; i++)
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	CHECK(spool_counters(office.spool)->files > before);
}

static void check_content(const char *name, const void *expected, size_t n)
{
	char path[256];
	struct stat st;
	uint8_t *have = malloc(n + 1);
	int fd;

	snprintf(path, sizeof(path), "%s/%s", office.dir, name);
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_mode & 07777 & ~0640u, 0);
	CHECK_EQ(read(fd, have, n + 1), n);
	CHECK_MEM(have, expected, n ? n : 1);
	close(fd);
	free(have);
}

TEST(spool_transfer_becomes_a_file)
{
	const struct spool_counters *c;
	const struct spool_result *r;
	unsigned long long number = 99;

	open_office();
	c = spool_counters(office.spool);
	send_chunk(7, 0, false, "one ");
	send_chunk(7, 1, false, "");
	send_chunk(7, 2, true, "two");
	r = result(0);
	CHECK_EQ(r->error, 0);
	CHECK_EQ(r->bytes, 7);
	CHECK_EQ(r->owner.worker, 3);
	CHECK_EQ(r->owner.serial, 7);
	CHECK_EQ(r->sequence, 2);
	CHECK_EQ(r->request_id_len, 16);
	CHECK_MEM(r->request_id, "\7\2", 2);
	CHECK_STR(office.reasons[0], "");
	check_content(office.names[0], "one two", 7);
	CHECK_EQ(strlen(office.names[0]), 16 + 1 + 36 + 2);
	CHECK(strstr(office.names[0], "Z-" CLIENT "-"));
	CHECK_EQ(sscanf(office.names[0] + 16 + 1 + 36, "-%llu", &number), 1);
	CHECK_EQ(number, 7);
	CHECK_EQ(c->files, 1);
	CHECK_EQ(c->bytes, 7);
	CHECK_EQ(c->errors, 0);
	CHECK_EQ(c->open, 0);
	CHECK_EQ(c->queued_jobs, 0);
	CHECK_EQ(c->queued_bytes, 0);
	close_office();
}

TEST(spool_transfers_of_many_clients_interleave)
{
	char expected[64], text[16];
	bool has_file[50] = {false};

	open_office();
	for (uint32_t sequence = 0; sequence < 5; sequence++) {
		for (uint64_t serial = 0; serial < 50; serial++) {
			snprintf(text, sizeof(text), "%llu.%u ", (unsigned long long)serial,
				 sequence);
			send_chunk(serial, sequence, sequence == 4, text);
		}
	}
	/* Clients are served in turn, so nobody knows whose file is complete first. */
	for (size_t i = 0; i < 50; i++) {
		const struct spool_result *r = result(i);
		uint64_t serial = r->owner.serial;
		size_t n = 0;

		CHECK_EQ(r->error, 0);
		CHECK(serial < 50 && !has_file[serial]);
		has_file[serial] = true;
		for (unsigned k = 0; k < 5; k++)
			n += (size_t)snprintf(expected + n, sizeof(expected) - n, "%llu.%u ",
					      (unsigned long long)serial, k);
		check_content(office.names[i], expected, n);
	}
	CHECK_EQ(count_files(false, false), 50);
	/* A connection may send one after another. */
	send_chunk(3, 0, true, "again");
	CHECK_EQ(result(50)->error, 0);
	close_office();
}

/* Each row: chunks of one connection as "sequence" characters, upper case ones with is_last
 * ('A' = 0); the results it must have: "+" a file, "-" a failure. */
TEST(spool_breaks_are_reported_once_and_leave_nothing)
{
	static const struct {
		const char *chunks, *results;
	} cases[] = {
		{"A", "+"},     {"abC", "+"},    {"aC", "-"},     {"ac", "-"},     {"acdE", "-"},
		{"B", "-"},     {"bC", "-"},     {"bcA", "-+"},   {"abB", "-"},    {"aa", "-"},
		{"aabC", "-+"}, {"acabC", "-+"}, {"abCbC", "+-"}, {"aAbC", "-+-"}, {"CAC", "-+-"},
	};
	size_t n_results = 0, n_files = 0;

	open_office();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (const char *c = cases[i].chunks; *c; c++)
			send_chunk(i, (uint32_t)((*c | 32) - 'a'), *c < 'a', "x");
		for (const char *e = cases[i].results; *e; e++) {
			const struct spool_result *r = result(n_results++);

			CHECK_EQ(r->owner.serial, i);
			CHECK_EQ(r->error, *e == '+' ? 0 : -EPROTO);
			CHECK_EQ(office.reasons[n_results - 1][0] != 0, *e == '-');
			CHECK_EQ(office.names[n_results - 1][0] != 0, *e == '+');
			n_files += *e == '+';
		}
		spool_abort(office.spool, (struct spool_owner){i % 4, i, 0}, spool_job_new());
	}
	settle();
	CHECK_EQ(office.n_results, n_results + 1);
	CHECK_EQ(count_files(true, false), 0);
	CHECK_EQ(count_files(false, false), n_files + 1);
	/* "aa" had a second beginning, which spool_abort() ended. */
	CHECK_EQ(spool_counters(office.spool)->errors, n_results - n_files + 1);
	close_office();
}

TEST(spool_abort_removes_the_partial_file)
{
	open_office();
	send_chunk(1, 0, false, "half");
	send_chunk(2, 0, false, "stays");
	settle();
	CHECK_EQ(count_files(true, false), 2);
	CHECK_EQ(spool_counters(office.spool)->open, 2);
	spool_abort(office.spool, (struct spool_owner){1, 1, 0}, spool_job_new());
	spool_abort(office.spool, (struct spool_owner){0, 12345, 0},
		    spool_job_new()); /* knows nothing of it */
	settle();
	CHECK_EQ(count_files(true, false), 1);
	CHECK_EQ(spool_counters(office.spool)->errors, 1);
	send_chunk(2, 1, true, "!");
	CHECK_EQ(result(2)->error, 0);
	CHECK_EQ(result(2)->bytes, 6);
	CHECK_EQ(office.n_results, 3);
	close_office();
}

TEST(spool_end_removes_what_is_open_and_finishes_what_is_queued)
{
	open_office();
	send_chunk(1, 0, false, "half");
	send_chunk(2, 0, false, "who");
	send_chunk(2, 1, true, "le");
	office.spool = spool_free(office.spool);
	CHECK(!spool_free(NULL));
	CHECK_EQ(office.n_results, 2);
	CHECK_EQ(office.results[0].error, 0);
	CHECK_EQ(office.results[1].error, -ECANCELED);
	CHECK_EQ(office.results[1].owner.serial, 1);
	CHECK_EQ(count_files(false, false), 1);
	close_office();
}

TEST(spool_unpacks_chunks_within_the_limit)
{
	uint8_t *data = calloc(1, 300000);
	struct zip z = {0};
	uint64_t serial = 0;

	open_office();
	for (int kind = ZIP_GZIP; kind < ZIP_N_KINDS; kind++) {
		struct buf packed = {0};

		CHECK_EQ(zip_pack_kind(&z, (enum zip_kind)kind, 3, data, 300000, &packed), 0);
		for (size_t limit = 299999; limit <= 300000; limit++, serial++) {
			struct spool_chunk chunk =
				make_chunk(serial, 0, true, packed.data, packed.len);

			chunk.kind = (enum zip_kind)kind;
			chunk.unpack_limit = limit;
			CHECK(spool_put_chunk(office.spool, &chunk));
			CHECK_EQ(result(serial)->error, limit == 300000 ? 0 : -EMSGSIZE);
		}
		check_content(office.names[serial - 1], data, 300000);
		buf_fini(&packed);
	}
	for (int kind = ZIP_GZIP; kind <= ZIP_N_KINDS; kind++, serial++) {
		struct spool_chunk chunk = make_chunk(serial, 0, true, "junk", 4);

		chunk.kind = (enum zip_kind)kind;
		CHECK(spool_put_chunk(office.spool, &chunk));
		CHECK_EQ(result(serial)->error, -EBADMSG);
	}
	CHECK_EQ(count_files(false, false), 3);
	free(data);
	zip_fini(&z);
	close_office();
}

/* RLIMIT_FSIZE stands in for a full disk: the write fails in the middle of a file. */
TEST(spool_failed_write_leaves_nothing)
{
	struct rlimit old, small;
	void *data = calloc(1, 300000);
	struct spool_chunk chunk;

	open_office();
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 400000;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (uint32_t i = 0; i < 4; i++) {
		chunk = make_chunk(1, i, i == 3, data, 300000);
		CHECK(spool_put_chunk(office.spool, &chunk));
	}
	CHECK_EQ(result(0)->error, -EFBIG);
	CHECK_EQ(result(0)->sequence, 1);
	CHECK(office.reasons[0][0]);
	settle();
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
	CHECK_EQ(office.n_results, 2);
	CHECK_EQ(count_files(false, false), 1);
	CHECK_EQ(spool_counters(office.spool)->errors, 1);
	CHECK_EQ(spool_counters(office.spool)->open, 0);
	free(data);
	close_office();
}

TEST(spool_names_hold_nothing_but_plain_characters)
{
	struct spool_chunk chunk;

	open_office();
	chunk = make_chunk(1, 0, true, "x", 1);
	memset(chunk.client_id, 'z', sizeof(chunk.client_id));
	memcpy(chunk.client_id, "../e\xff.\n ", 8);
	chunk.client_id[sizeof(chunk.client_id) - 1] = '\0';
	CHECK(spool_put_chunk(office.spool, &chunk));
	CHECK_EQ(result(0)->error, 0);
	CHECK_EQ(office.names[0][0] >= '0' && office.names[0][0] <= '9', 1);
	CHECK(strstr(office.names[0], "Z-___e____zzz"));
	check_content(office.names[0], "x", 1);
	close_office();
}

/* Before a hand-over: what is there is worked off, and nothing waits for the disk any more. */
TEST(spool_closed_takes_nothing_and_removes_nothing)
{
	struct spool_chunk chunk = {.owner = {3, 3, 0}, .sequence = 0};

	open_office();
	send_chunk(1, 0, false, "begun");
	send_chunk(2, 0, true, "whole");
	CHECK_EQ(result(0)->error, 0);
	spool_close(office.spool);
	CHECK(!spool_put_chunk(office.spool, &chunk));
	spool_abort(office.spool, (struct spool_owner){1, 1, 0}, spool_job_new());
	while (!spool_is_idle(office.spool))
		sched_yield();
	CHECK_EQ(count_files(true, false), 1);
	spool_open(office.spool);
	CHECK_EQ(spool_clean(office.spool), 0);
	send_chunk(4, 0, true, "again");
	CHECK_EQ(result(1)->error, 0);
	CHECK_EQ(count_files(true, false), 0);
	CHECK_EQ(count_files(false, false), 2);
	close_office();
}

/* The name that the next file would get is taken: it fails, and the file there is untouched. */
TEST(spool_never_replaces_a_file)
{
	char path[256];
	int fd;

	clock_set_for_test(0);
	open_office();
	for (int i = 0; i < 20; i++) { /* the wall clock may move on: all of the next 20 seconds */
		time_t t = time(NULL) + i;
		char stamp[32];
		struct tm tm;

		strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", gmtime_r(&t, &tm));
		snprintf(path, sizeof(path), "%s/%s-" CLIENT "-7", office.dir, stamp);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
		CHECK(fd >= 0);
		close(fd);
	}
	send_chunk(1, 0, true, "new");
	CHECK_EQ(result(0)->error, -EEXIST);
	CHECK_EQ(count_files(false, false), 20);
	CHECK_EQ(count_files(true, false), 0);
	send_chunk(1, 0, true, "new");
	CHECK_EQ(result(1)->error, 0);
	close_office();
}

static void touch(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", office.dir, name);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	CHECK(fd >= 0);
	close(fd);
}

TEST(spool_start_removes_left_over_parts_unless_they_are_in_use)
{
	struct spool *second = NULL;

	open_office();
	touch(".20240131T120000Z-" CLIENT "-7.part");
	/* The first one is still there, so the partial file may be its. */
	CHECK_EQ(spool_new(office.dir, false, &ops, &office, &second), 0);
	spool_free(second);
	CHECK_EQ(count_files(true, false), 1);

	office.spool = spool_free(office.spool);
	touch("20240131T120000Z-" CLIENT "-7.part"); /* no dot */
	touch(".notes.part");
	touch(".20240131T120000Z-x");
	CHECK_EQ(spool_new(office.dir, false, &ops, &office, &office.spool), 0);
	CHECK_EQ(count_files(true, false), 2);
	CHECK_EQ(count_files(false, true), 3);
	close_office();
}

TEST(spool_new_makes_the_directory_or_says_why_not)
{
	struct spool *s = NULL;
	char path[128];

	open_office();
	snprintf(path, sizeof(path), "%s/new", office.dir);
	CHECK_EQ(spool_new(path, false, &ops, &office, &s), 0);
	s = spool_free(s);
	CHECK_EQ(rmdir(path), 0);
	snprintf(path, sizeof(path), "%s/no/such", office.dir);
	CHECK_EQ(spool_new(path, false, &ops, &office, &s), -ENOENT);
	touch("file");
	snprintf(path, sizeof(path), "%s/file", office.dir);
	CHECK_EQ(spool_new(path, false, &ops, &office, &s), -ENOTDIR);
	CHECK_EQ(spool_new("/proc/self", false, &ops, &office, &s) < 0, geteuid() != 0 || !s);
	spool_free(s);
	close_office();
}

/* Holds the thread inside a report, with nothing else in hand. */
static void shut_gate(void)
{
	office.is_gated = true;
	send_chunk(1000000, 5, true, "");
	wait_for(&office.at_gate);
}

static void open_gate(void)
{
	office.is_gated = false;
	sem_post(&office.gate);
}

TEST(spool_full_queue_refuses_and_tells_when_there_is_room)
{
	static const char big[SPOOL_SMALL_CHUNK + 1];
	struct spool_chunk chunk;

	open_office();
	shut_gate();
	for (uint32_t i = 0; i < SPOOL_MAX_JOBS; i++)
		send_chunk(5 + i % 4 * 100, i / 4, i / 4 == SPOOL_MAX_JOBS / 4 - 1, "z");
	CHECK_EQ(spool_counters(office.spool)->queued_jobs, SPOOL_MAX_JOBS);
	CHECK_EQ(spool_counters(office.spool)->queued_bytes, SPOOL_MAX_JOBS);
	/* One that has a share of it already; somebody new with a little finds room. */
	chunk = make_chunk(5, SPOOL_MAX_JOBS / 4, true, "late", 4);
	CHECK(!spool_put_chunk(office.spool, &chunk));
	CHECK(chunk.data && chunk.n == 4);
	free(chunk.data);
	send_chunk(77, 0, true, "new");
	chunk = make_chunk(63, 0, true, big, SPOOL_SMALL_CHUNK + 1);
	chunk.owner.worker = 63;
	CHECK(!spool_put_chunk(office.spool, &chunk));
	spool_abort(office.spool, (struct spool_owner){0, 8, 0},
		    spool_job_new()); /* never refused */
	open_gate();
	wait_for(&office.has_room[63]);
	CHECK(spool_counters(office.spool)->queued_jobs <= SPOOL_MAX_JOBS / 2);
	CHECK(spool_put_chunk(office.spool, &chunk));
	for (size_t i = 1, all = 0; i <= 6; i++) {
		all += result(i)->bytes;
		CHECK(i < 6 || all == SPOOL_MAX_JOBS + 3 + SPOOL_SMALL_CHUNK + 1);
	}
	close_office();
}

TEST(spool_queue_is_bounded_in_bytes)
{
	size_t half = SPOOL_MAX_BYTES / 2;
	uint8_t *data = calloc(1, SPOOL_MAX_BYTES + 1);
	struct spool_chunk chunk;

	open_office();
	shut_gate();
	chunk = make_chunk(1, 0, true, data, SPOOL_MAX_BYTES + 1); /* alone it is taken */
	CHECK(spool_put_chunk(office.spool, &chunk));
	chunk = make_chunk(2, 0, true, data, SPOOL_SMALL_CHUNK + 1);
	CHECK(!spool_put_chunk(office.spool, &chunk));
	open_gate();
	wait_for(&office.has_room[2]);
	CHECK(spool_put_chunk(office.spool, &chunk));
	CHECK_EQ(result(2)->bytes, SPOOL_SMALL_CHUNK + 1);

	shut_gate();
	chunk = make_chunk(3, 0, true, data, half);
	CHECK(spool_put_chunk(office.spool, &chunk));
	chunk = make_chunk(4, 0, true, data, half + 1);
	CHECK(!spool_put_chunk(office.spool, &chunk));
	chunk.n = half;
	CHECK(spool_put_chunk(office.spool, &chunk));
	open_gate();
	CHECK_EQ(result(5)->bytes, half);
	free(data);
	close_office();
}

TEST(spool_stalls_when_a_job_takes_too_long)
{
	uint64_t t0 = 1000 * NS_PER_S;

	open_office();
	clock_set_for_test(t0);
	CHECK(!spool_is_stalled(office.spool, t0 + 100 * NS_PER_S));
	shut_gate();
	CHECK(!spool_is_stalled(office.spool, t0 - 1));
	CHECK(!spool_is_stalled(office.spool, t0 + SPOOL_STALL_NS));
	CHECK(spool_is_stalled(office.spool, t0 + SPOOL_STALL_NS + 1));
	/* What waits behind it for long was not long in hand: that disk answers. */
	send_chunk(2, 5, true, "");
	clock_set_for_test(t0 + 100 * NS_PER_S);
	sem_post(&office.gate);
	wait_for(&office.at_gate);
	CHECK(!spool_is_stalled(office.spool, t0 + 101 * NS_PER_S));
	open_gate();
	result(0);
	for (int i = 0; i < 2000 && spool_is_stalled(office.spool, UINT64_MAX); i++)
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	CHECK(!spool_is_stalled(office.spool, UINT64_MAX));
	close_office();
}

TEST(spool_silent_transfer_expires)
{
	uint64_t t0 = 1000 * NS_PER_S;

	open_office();
	clock_set_for_test(t0);
	send_chunk(1, 0, false, "x");
	settle();
	clock_set_for_test(t0 + SPOOL_IDLE_NS - NS_PER_S);
	send_chunk(2, 0, false, "y");
	settle();
	CHECK_EQ(spool_counters(office.spool)->open, 2);
	clock_set_for_test(t0 + SPOOL_IDLE_NS);
	CHECK_EQ(result(2)->error, -ETIMEDOUT);
	CHECK_EQ(result(2)->owner.serial, 1);
	CHECK_EQ(spool_counters(office.spool)->open, 1);
	send_chunk(2, 1, true, "y");
	CHECK_EQ(result(3)->bytes, 2);
	close_office();
}

TEST(spool_open_files_are_bounded)
{
	open_office();
	for (uint64_t serial = 0; serial <= SPOOL_MAX_OPEN; serial++)
		send_chunk(serial, 0, false, "x");
	CHECK_EQ(result(0)->error, -EMFILE);
	CHECK_EQ(result(0)->owner.serial, SPOOL_MAX_OPEN);
	CHECK_EQ(spool_counters(office.spool)->open, SPOOL_MAX_OPEN);
	send_chunk(0, 1, true, "x");
	CHECK_EQ(result(1)->error, 0);
	send_chunk(SPOOL_MAX_OPEN, 1, false, "swallowed");
	send_chunk(SPOOL_MAX_OPEN, 0, true, "second try");
	CHECK_EQ(result(2)->error, 0);
	close_office();
}

/* Signals are main's: the spool thread must not be the one that gets them. */
static void on_done_check_mask(void *ctx, const struct spool_result *r)
{
	sigset_t now;

	pthread_sigmask(SIG_SETMASK, NULL, &now);
	office.is_masked = sigismember(&now, SIGTERM) == 1 && sigismember(&now, SIGHUP) == 1;
	on_done(ctx, r);
}

TEST(spool_thread_blocks_signals)
{
	static const struct spool_ops mask_ops = {on_done_check_mask, on_room};
	sigset_t before = {0}, after = {0};

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	open_office();
	office.spool = spool_free(office.spool);
	CHECK_EQ(spool_new(office.dir, false, &mask_ops, &office, &office.spool), 0);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	CHECK_MEM(&before, &after, sizeof(before));
	send_chunk(1, 0, true, "");
	result(0);
	CHECK(office.is_masked);
	close_office();
}

static void *push_some(void *arg)
{
	uint64_t worker = (uint64_t)(uintptr_t)arg;

	for (uint32_t i = 0; i < 3000; i++) {
		struct spool_chunk chunk = make_chunk(worker, i % 100, i % 100 == 99, "data", 4);

		chunk.owner.worker = worker;
		while (!spool_put_chunk(office.spool, &chunk))
			wait_for(&office.has_room[worker]);
	}
	return NULL;
}

TEST(spool_takes_from_many_threads)
{
	pthread_t threads[3];

	open_office();
	for (uintptr_t i = 0; i < ARRAY_LEN(threads); i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, push_some, (void *)i), 0);
	for (size_t i = 0; i < 90; i++) {
		CHECK_EQ(result(i)->error, 0);
		CHECK_EQ(result(i)->bytes, 400);
	}
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(spool_counters(office.spool)->files, 90);
	close_office();
}
