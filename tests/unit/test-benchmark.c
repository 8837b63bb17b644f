/* SPDX-License-Identifier: MIT */
#include "client/benchmark.h"

#include <stdio.h>

#include "client/bench.h"
#include "containers/mem.h"
#include "test.h"
#include "wire/msg.h"

/* ----------------------------------------------------------------------------- accounts */

static enum bench_seen take(struct bench_stats *s, uint32_t member, uint32_t publisher,
			    uint32_t number)
{
	uint32_t passed;
	enum bench_seen seen = bench_stats_take(s, member, publisher, number, &passed);

	CHECK(passed <= number);
	return seen;
}

static uint64_t orders_of(const struct bench_stats *s)
{
	uint64_t n = 0;

	CHECK_EQ(bench_stats_orders(s, &n), 0);
	return n;
}

TEST(bench_stats_count_what_is_new_late_twice_and_missing)
{
	struct bench_stats s;
	uint32_t passed;

	CHECK_EQ(bench_stats_init(&s, 3, 2, 20), 0);
	CHECK_EQ(take(&s, 2, 0, 0), BENCH_NEW);
	CHECK_EQ(take(&s, 2, 0, 0), BENCH_DUPLICATE);
	CHECK_EQ(take(&s, 2, 1, 0), BENCH_NEW); /* another publisher */
	CHECK_EQ(take(&s, 1, 0, 0), BENCH_NEW); /* another member */
	CHECK_EQ(bench_stats_take(&s, 2, 0, 9, &passed), BENCH_NEW);
	CHECK_EQ(passed, 1);
	CHECK_EQ(s.missing, 8);
	CHECK_EQ(take(&s, 2, 0, 8), BENCH_LATE);
	CHECK_EQ(take(&s, 2, 0, 1), BENCH_LATE);
	CHECK_EQ(take(&s, 2, 0, 8), BENCH_DUPLICATE);
	CHECK_EQ(take(&s, 2, 0, 9), BENCH_DUPLICATE);
	CHECK_EQ(bench_stats_take(&s, 2, 0, 10, &passed), BENCH_NEW);
	CHECK_EQ(passed, 10);
	CHECK_EQ(s.missing, 6);
	CHECK_EQ(s.late, 2);
	CHECK_EQ(s.duplicated, 3);
	CHECK_EQ(s.delivered, 7);
	CHECK_EQ(take(&s, 2, 0, 19), BENCH_NEW); /* the last there is */
	CHECK_EQ(s.missing, 14);
	bench_stats_fini(&s);
	bench_stats_fini(&s);
}

#define R_MEMBERS 5u
#define R_PUBLISHERS 3u
#define R_NUMBERS 70u

/* Any sequence of deliveries against a table of what was seen. */
TEST(bench_stats_agree_with_a_table)
{
	uint64_t random = test_seed();

	for (int round = 0; round < 50; round++) {
		bool seen[R_MEMBERS][R_PUBLISHERS][R_NUMBERS] = {0};
		uint32_t next[R_MEMBERS][R_PUBLISHERS] = {0};
		uint64_t unique = 0, late = 0, twice = 0, below = 0;
		struct bench_stats s;

		CHECK_EQ(bench_stats_init(&s, R_MEMBERS, R_PUBLISHERS, R_NUMBERS), 0);
		for (int i = 0; i < 600; i++) {
			uint32_t m = test_random(&random) % R_MEMBERS;
			uint32_t p = test_random(&random) % R_PUBLISHERS;
			uint32_t n = next[m][p] + test_random(&random) % 4 * (i % 3 == 0);

			if (i % 5 == 0)
				n = test_random(&random) % R_NUMBERS;
			n = MIN(n, R_NUMBERS - 1);
			CHECK_EQ(take(&s, m, p, n), seen[m][p][n]    ? BENCH_DUPLICATE
						    : n < next[m][p] ? BENCH_LATE
								     : BENCH_NEW);
			twice += seen[m][p][n];
			late += !seen[m][p][n] && n < next[m][p];
			unique += !seen[m][p][n];
			seen[m][p][n] = true;
			next[m][p] = MAX(next[m][p], n + 1);
		}
		for (uint32_t m = 0; m < R_MEMBERS; m++)
			for (uint32_t p = 0; p < R_PUBLISHERS; p++)
				below += next[m][p];
		CHECK_EQ(s.delivered, unique);
		CHECK_EQ(s.late, late);
		CHECK_EQ(s.duplicated, twice);
		CHECK_EQ(s.missing, below - unique);
		bench_stats_fini(&s);
	}
}

struct delivery {
	uint32_t publisher, number;
};

/* Gives a member what it would get of an order: all but its own. */
static void deliver(struct bench_stats *s, uint32_t member, const struct delivery *d, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (d[i].publisher != member)
			(void)take(s, member, d[i].publisher, d[i].number);
}

static const struct delivery one[] = {{0, 0}, {1, 0}, {0, 1}, {2, 0}, {1, 1}, {2, 1}};
static const struct delivery two[] = {{0, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}, {2, 1}};
static const struct delivery three[] = {{1, 0}, {0, 0}, {0, 1}, {2, 0}, {1, 1}, {2, 1}};

/* With and without a member that only receives: publishers lack their own messages. */
TEST(bench_stats_see_one_order_where_there_is_one)
{
	for (uint32_t members = 3; members <= 6; members++) {
		struct bench_stats s;

		CHECK_EQ(bench_stats_init(&s, members, 3, 2), 0);
		for (uint32_t m = 0; m < members; m++)
			deliver(&s, m, one, ARRAY_LEN(one));
		CHECK_EQ(orders_of(&s), 1);
		bench_stats_fini(&s);
	}
}

TEST(bench_stats_tell_different_orders_apart)
{
	static const struct {
		const struct delivery *of[6];
		uint64_t orders;
	} table[] = {
		{{one, one, one, one, two, one}, 2},   {{one, one, one, two, two, one}, 2},
		{{one, one, one, two, three, one}, 3}, {{one, two, one, one, one, one}, 2},
		{{two, one, one, one, one, one}, 1}, /* 0 doesn't get {0, 1}, all that moved */
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct bench_stats s;

		CHECK_EQ(bench_stats_init(&s, 6, 3, 2), 0);
		for (uint32_t m = 0; m < 6; m++)
			deliver(&s, m, table[i].of[m], ARRAY_LEN(one));
		CHECK_EQ(orders_of(&s), table[i].orders);
		bench_stats_fini(&s);
	}
}

/* Then all others differ from it, in as many ways as there are things to leave out. */
TEST(bench_stats_notice_when_the_reference_is_the_odd_one)
{
	struct bench_stats s;

	CHECK_EQ(bench_stats_init(&s, 5, 1, 3), 0);
	for (uint32_t m = 1; m < 5; m++)
		for (uint32_t i = 0; i < 3; i++)
			(void)take(&s, m, 0, m == 4 ? 2 - i : i);
	CHECK_EQ(orders_of(&s), 2);
	bench_stats_fini(&s);
}

TEST(bench_stats_compare_orders_where_everyone_publishes)
{
	struct bench_stats s;

	CHECK_EQ(bench_stats_init(&s, 3, 3, 2), 0);
	deliver(&s, 0, one, ARRAY_LEN(one));
	deliver(&s, 1, three, ARRAY_LEN(three)); /* 0 and 1 turned around: neither can see it */
	deliver(&s, 2, one, ARRAY_LEN(one));
	CHECK_EQ(orders_of(&s), 1);
	bench_stats_fini(&s);

	CHECK_EQ(bench_stats_init(&s, 3, 3, 2), 0);
	for (uint32_t m = 0; m < 3; m++)
		for (uint32_t i = 0; i < 4; i++)
			if (m != i % 2)
				(void)take(&s, m, i % 2, i / 2);
	CHECK_EQ(orders_of(&s), 1);
	bench_stats_fini(&s);
}

TEST(bench_quotas_add_up)
{
	for (uint32_t n = 1; n < 20; n++) {
		for (uint64_t total = 0; total < 100; total++) {
			uint64_t sum = 0;

			for (uint32_t i = 0; i < n; i++) {
				sum += bench_quota(total, n, i);
				CHECK(bench_quota(total, n, i) <= bench_quota(total, n, 0));
				CHECK(bench_quota(total, n, i) + 1 >= bench_quota(total, n, 0));
			}
			CHECK_EQ(sum, total);
		}
	}
}

/* ----------------------------------------------------------------------------- messages */

TEST(bench_template_is_a_message_whose_head_can_be_set)
{
	static const size_t sizes[] = {BENCH_MIN_SIZE, 100, 1024, 20000, 3000000};
	const struct bench_head head = {.run = 1, .sent_ns = 2, .publisher = 3, .number = 4};

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct bench_template t;
		struct arena a;
		Websocket__WebSocketMessage *m;
		const uint8_t *data;
		size_t n;

		arena_init(&a, 4096, 65536);
		CHECK_EQ(bench_template_init(&t, sizes[i], i), 0);
		bench_template_set(&t, &head);
		CHECK_EQ(msg_decode(&a, t.message.data, t.message.len, &m), MSG_OK);
		CHECK_EQ(m->type, WEBSOCKET__MESSAGE_TYPE__BINARY_DATA);
		CHECK_EQ(m->binary->data.len, sizes[i]);
		CHECK_STR(m->binary->checksum, "");
		CHECK_MEM(m->binary->data.data, &head, sizeof(head));
		CHECK(bench_scan(t.message.data, t.message.len, &data, &n));
		CHECK(data == m->binary->data.data);
		CHECK_EQ(n, sizes[i]);
		buf_fini(&t.message);
		arena_fini(&a);
	}
}

/* What the server appends, and what else may stand there, doesn't hide the data. */
TEST(bench_scan_finds_data_among_other_fields)
{
	uint8_t request_id[16] = {0}, packed[256 + MSG_SUFFIX_MAX];
	struct msg_builder b;
	const uint8_t *data;
	size_t n, data_n;

	msg_init_binary(&b, "the data", 8, 7, true, WEBSOCKET__COMPRESSION_TYPE__NONE);
	msg_set_request_id(&b, request_id, sizeof(request_id));
	b.m.has_sequence_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_SEQUENCE_SEQUENCE;
	b.m.sequence = UINT64_MAX;
	n = msg_pack(&b, packed);
	n += msg_suffix(packed + n, &(struct msg_said){.channel = "room"});
	CHECK(bench_scan(packed, n, &data, &data_n));
	CHECK_EQ(data_n, 8);
	CHECK_MEM(data, "the data", 8);

	msg_init_chat(&b, "id", "u", "c", 1);
	CHECK(!bench_scan(packed, msg_pack(&b, packed), &data, &data_n));
	msg_init_heartbeat(&b);
	CHECK(!bench_scan(packed, msg_pack(&b, packed), &data, &data_n));
	CHECK(!bench_scan(packed, 0, &data, &data_n));
}

/* Any bytes, each in memory of its own size, so that a sanitizer sees a step past the end. */
TEST(bench_scan_stays_within_its_bytes)
{
	uint64_t random = test_seed();
	struct bench_template t;

	CHECK_EQ(bench_template_init(&t, 64, 1), 0);
	for (int round = 0; round < 20000; round++) {
		size_t n = test_random(&random) % (t.message.len + 1), found_n = 0;
		uint8_t *copy = malloc(n ? n : 1);
		const uint8_t *found = NULL;

		if (n > 0)
			memcpy(copy, t.message.data, n);
		for (uint64_t i = test_random(&random) % 4; n > 0 && i > 0; i--)
			copy[test_random(&random) % MIN(n, (size_t)12)] =
				(uint8_t)test_random(&random);
		if (bench_scan(copy, n, &found, &found_n))
			CHECK(found >= copy && found_n <= n && found + found_n <= copy + n);
		free(copy);
	}
	buf_fini(&t.message);
}

/* ------------------------------------------------------------------------------ options */

static bool complete(struct bench_options *o)
{
	struct config_errors errors = {0};
	struct config *c = NULL;
	FILE *err = fopen("/dev/null", "w");
	bool is_right;

	CHECK_EQ(config_parse_text("test", "", 0, &c, &errors), 0);
	is_right = bench_complete_options(o, c, err);
	fclose(err);
	config_unref(c);
	return is_right;
}

static struct bench_options options(const char *mode, uint64_t clients, uint64_t publishers,
				    uint64_t size)
{
	return (struct bench_options){
		.mode = mode,
		.messages = 10000,
		.clients = clients,
		.publishers = publishers,
		.message_size = size,
	};
}

TEST(bench_options_have_sensible_defaults)
{
	static const struct {
		const char *mode;
		uint64_t clients, size, publishers, window;
	} table[] = {
		{"fanout", 10, 1024, 8, 8},    {"fanout", 2, 1024, 1, 64},
		{"fanout", 1000, 1024, 8, 8},  {"fanout", 10, 65536, 8, 1},
		{"fanout", 2, 16 << 20, 1, 1}, {"echo", 1, 1024, 1, 64},
		{"echo", 1000, 1024, 1000, 1},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct bench_options o = options(table[i].mode, table[i].clients, 0, table[i].size);

		CHECK(complete(&o));
		CHECK_EQ(o.publishers, table[i].publishers);
		CHECK_EQ(o.window, table[i].window);
		CHECK_EQ(o.is_echo, strcmp(o.mode, "echo") == 0);
	}
}

TEST(bench_options_that_cannot_be_are_refused)
{
	struct bench_options wrong[] = {
		options("scatter", 10, 0, 1024),
		options("fanout", 1, 0, 1024),
		options("fanout", 10, 11, 1024),
		options("echo", 10, 5, 1024),
	};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		CHECK(!complete(&wrong[i]));
}

TEST(bench_options_have_no_publisher_without_a_message)
{
	struct bench_options o = options("fanout", 10, 0, 1024);

	o.messages = 3;
	CHECK(complete(&o));
	CHECK_EQ(o.publishers, 3);
}

/* ------------------------------------------------------------------------------- result */

/* Three members, one publishes; everything arrives but @lost of the last member. */
static struct bench *bench_with(uint32_t messages, uint32_t lost)
{
	struct bench *b = calloc(1, sizeof(*b));

	b->options = options("fanout", 3, 1, 1000);
	b->options.messages = messages;
	b->options.window = 1;
	b->receivers = 2;
	b->sent = messages;
	b->began_ns = 5 * NS_PER_S;
	b->last_ns = 7 * NS_PER_S;
	CHECK_EQ(bench_stats_init(&b->stats, 3, 1, messages), 0);
	for (uint32_t m = 1; m < 3; m++) {
		for (uint32_t i = 0; i < messages - (m == 2 ? lost : 0); i++) {
			CHECK_EQ(take(&b->stats, m, 0, i), BENCH_NEW);
			hist_add(&b->latency, (i + 1) * NS_PER_MS);
		}
	}
	return b;
}

static char *report_of(struct bench *b, bool is_json)
{
	static char text[8192];

	b->out = fmemopen(text, sizeof(text), "w");
	b->options.is_json = is_json;
	bench_report(b);
	fclose(b->out);
	return text;
}

static void bench_drop(struct bench *b)
{
	bench_stats_fini(&b->stats);
	free(b);
}

TEST(bench_report_says_all_of_it_in_words)
{
	struct bench *b = bench_with(100, 0);
	char *text = report_of(b, false);

	CHECK(bench_is_clean(b));
	CHECK(strstr(text, "sent: 100 of 100\n"));
	CHECK(strstr(text, "delivered: 200 of 200\n"));
	CHECK(strstr(text, "lost: 0\nduplicated: 0\nout of order: 0\norders: 1\n"));
	CHECK(strstr(text, "total time: 2.000 s\n"));
	CHECK(strstr(text, "100 messages/s delivered, 0.1 MB/s; 50 messages/s sent"));
	CHECK(strstr(text, "mean 50.500 ms, p50 5"));
	CHECK(strstr(text, "p99.9 100.000 ms, max 100.000 ms"));
	bench_drop(b);
}

TEST(bench_report_has_the_same_in_json)
{
	struct bench *b = bench_with(100, 3);
	char *text;

	b->has_failed = true;
	strcpy(b->problem, "a \"quoted\"\nproblem");
	text = report_of(b, true);
	CHECK(!bench_is_clean(b));
	CHECK(strstr(text, "\"sent\":100,\"delivered\":197,\"expected\":200,\"lost\":3,"
			   "\"duplicated\":0,\"out_of_order\":0,\"orders\":2,"));
	CHECK(strstr(text, "\"seconds\":2.000000,\"messages_per_second\":98.5,"));
	CHECK(strstr(text, "\"ok\":false,\"error\":\"a \\\"quoted\\\"\\nproblem\"}\n"));
	bench_drop(b);
	b = bench_with(1, 0);
	CHECK(strstr(report_of(b, true), "\"ok\":true,\"error\":null}\n"));
	bench_drop(b);
}

TEST(bench_is_clean_only_without_any_fault)
{
	struct bench *b = bench_with(10, 0);

	CHECK(bench_is_clean(b));
	b->has_failed = true;
	CHECK(!bench_is_clean(b));
	b->has_failed = false;
	b->options.messages = 11;
	CHECK(!bench_is_clean(b));
	bench_drop(b);

	b = bench_with(10, 1);
	CHECK(!bench_is_clean(b));
	bench_drop(b);

	b = bench_with(10, 0);
	CHECK_EQ(take(&b->stats, 1, 0, 9), BENCH_DUPLICATE);
	CHECK(!bench_is_clean(b));
	bench_drop(b);

	b = bench_with(10, 2);
	CHECK_EQ(take(&b->stats, 2, 0, 9), BENCH_NEW);
	CHECK_EQ(take(&b->stats, 2, 0, 8), BENCH_LATE);
	CHECK(!bench_is_clean(b));
	bench_drop(b);
}

TEST(bench_sees_a_limit_that_held_the_publishers_back)
{
	static const struct {
		uint64_t sent, seconds, publishers, rate, limit;
		bool is_throttled;
	} table[] = {
		{20000, 10, 2, 0, 1000, true},    {20000, 10, 2, 0, 1250, false},
		{20000, 10, 2, 0, 500, false},    {20000, 10, 2, 0, 501, true},
		{20000, 10, 2, 0, 0, false},      {20000, 10, 2, 2000, 1000, false},
		{20000, 10, 2, 3000, 1000, true}, {900, 1, 1, 0, 1000, false},
		{20000, 0, 2, 0, 1000, false},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct bench *b = calloc(1, sizeof(*b));

		CHECK(b);
		b->sent = table[i].sent;
		b->began_ns = 5;
		b->last_ns = 5 + table[i].seconds * NS_PER_S;
		b->options.publishers = table[i].publishers;
		b->options.rate = table[i].rate;
		CHECK_EQ(bench_is_throttled(b, table[i].limit), table[i].is_throttled);
		free(b);
	}
}

TEST(bench_exits_as_its_page_says)
{
	static const struct {
		const char *argument;
		int status;
	} table[] = {
		{"--mode=none", OPTIONS_EXIT_USAGE},
		{"-c1", OPTIONS_EXIT_USAGE},
		{"--message-size=23", OPTIONS_EXIT_USAGE},
		{"--url=ftp://h", OPTIONS_EXIT_USAGE},
		{"--config=/no/such/file", OPTIONS_EXIT_CONFIG},
		{"--token-file=/no/such/file", EXIT_FAILURE},
		{"--url=ws://127.0.0.1:1/", EXIT_FAILURE}, /* nobody listens there */
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		char argument[64];
		char *argv[] = {(char[]){"benchmark"}, argument, NULL};

		strcpy(argument, table[i].argument);
		CHECK_EQ(benchmark_main(2, argv), table[i].status);
	}
}
