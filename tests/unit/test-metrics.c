/* SPDX-License-Identifier: MIT */
#include "model/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "containers/buf.h"
#include "test.h"

/* Two shards side by side, as a daemon with two workers has them. */
struct sample {
	struct metrics shard[2];
	const struct metrics *shards[2];
	uint64_t depth[2];
	struct metrics_extra extra;
	struct buf out;
};

static struct sample *sample_new(void)
{
	struct sample *s = aligned_alloc(WB_CACHELINE, sizeof(*s));

	CHECK(s);
	memset(s, 0, sizeof(*s));
	s->shards[0] = &s->shard[0];
	s->shards[1] = &s->shard[1];
	s->extra.version = "1.2.3";
	s->extra.ring_depth = s->depth;
	return s;
}

static void sample_free(struct sample *s)
{
	buf_fini(&s->out);
	free(s);
}

static const char *sample_text(struct sample *s)
{
	buf_fini(&s->out);
	CHECK_EQ(metrics_render(s->shards, 2, &s->extra, &s->out), 0);
	CHECK_EQ(buf_append(&s->out, "", 1, SIZE_MAX), 0);
	return (const char *)s->out.data;
}

/* Is there a line that is exactly @line? */
static bool has_line(const char *text, const char *line)
{
	size_t n = strlen(line);

	for (const char *p = text; p; p = strchr(p, '\n')) {
		p += p != text;
		if (strncmp(p, line, n) == 0 && (p[n] == '\n' || p[n] == '\0'))
			return true;
	}
	return false;
}

static size_t count_text(const char *text, const char *what)
{
	size_t n = 0;

	for (const char *p = strstr(text, what); p; p = strstr(p + 1, what))
		n++;
	return n;
}

TEST(metrics_shards_share_no_cache_line)
{
	struct sample *s = sample_new();

	CHECK_EQ(sizeof(struct metrics) % WB_CACHELINE, 0);
	CHECK_EQ((uintptr_t)&s->shard[1] % WB_CACHELINE, 0);
	sample_free(s);
}

TEST(metrics_counters_and_gauges_add_up_over_shards)
{
	struct sample *s = sample_new();
	const char *text;

	METRIC_INC(&s->shard[0], connections_total);
	METRIC_ADD(&s->shard[1], connections_total, 41);
	METRIC_ADD(&s->shard[0], connections_active, 7);
	METRIC_SUB(&s->shard[1], connections_active, 2);
	CHECK_EQ(METRIC_GET(&s->shard[0], connections_active), 7);
	CHECK_EQ(METRICS_SUM(s->shards, 2, connections_total), 42);
	CHECK_EQ(METRICS_SUM(s->shards, 2, connections_active), 5);
	CHECK_EQ(METRICS_SUM(s->shards, 1, connections_total), 1);
	CHECK_EQ(METRICS_SUM(s->shards, 0, connections_total), 0);
	text = sample_text(s);
	CHECK(has_line(text, "websocket_total_connections 42"));
	CHECK(has_line(text, "websocket_active_connections 5"));
	CHECK(has_line(text, "# TYPE websocket_active_connections gauge"));
	CHECK(has_line(text, "# TYPE websocket_total_connections counter"));
	sample_free(s);
}

TEST(metrics_gauge_that_looks_negative_is_shown_as_0)
{
	struct sample *s = sample_new();

	METRIC_SUB(&s->shard[0], queue_bytes, 1);
	CHECK(has_line(sample_text(s), "websocket_queue_bytes 0"));
	sample_free(s);
}

/* These names are promised to users. */
TEST(metrics_has_every_promised_name)
{
	static const char *const lines[] = {
		"websocket_active_connections 0",
		"websocket_total_connections 0",
		"websocket_messages_received_total 0",
		"websocket_messages_sent_total 0",
		"websocket_binary_messages_total 0",
		"websocket_text_messages_total 0",
		"websocket_connection_errors_total 0",
		"websocket_message_errors_total 0",
		"websocket_message_latency_seconds_count 0",
		"websocket_message_latency_seconds_sum 0.000000000",
		"websocket_pongs_missed_total 0",
		"websocket_handshakes_refused_total{reason=\"per_ip\"} 0",
		"websocket_closes_total{code=\"4001\"} 0",
		"websocket_slow_consumer_actions_total{action=\"skip\"} 0",
		"websocket_channels 0",
		"wsbind_build_info{version=\"1.2.3\"} 1",
	};
	static const char *const buckets[] = {"0.001", "0.005", "0.01", "0.05", "0.1",
					      "0.5",   "1",     "5",    "+Inf", "1e-05"};
	struct sample *s = sample_new();
	const char *text = sample_text(s);
	char line[100];

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		if (!has_line(text, lines[i]))
			fprintf(stderr, "# missing: %s\n", lines[i]);
		CHECK(has_line(text, lines[i]));
	}
	for (size_t i = 0; i < ARRAY_LEN(buckets); i++) {
		snprintf(line, sizeof(line),
			 "websocket_message_latency_seconds_bucket{le=\"%s\"} 0", buckets[i]);
		CHECK(has_line(text, line));
	}
	sample_free(s);
}

TEST(metrics_bound_belongs_to_its_bucket_and_buckets_are_cumulative)
{
	struct sample *s = sample_new();
	const char *text;

	metric_observe(&s->shard[0], 0);
	metric_observe(&s->shard[0], 10000);
	metric_observe(&s->shard[1], 10001);
	metric_observe(&s->shard[1], 1000000);
	metric_observe(&s->shard[1], UINT64_C(5000000000));
	metric_observe(&s->shard[1], UINT64_C(5000000001));
	text = sample_text(s);
	CHECK(has_line(text, "websocket_message_latency_seconds_bucket{le=\"1e-05\"} 2"));
	CHECK(has_line(text, "websocket_message_latency_seconds_bucket{le=\"2.5e-05\"} 3"));
	CHECK(has_line(text, "websocket_message_latency_seconds_bucket{le=\"0.0005\"} 3"));
	CHECK(has_line(text, "websocket_message_latency_seconds_bucket{le=\"0.001\"} 4"));
	CHECK(has_line(text, "websocket_message_latency_seconds_bucket{le=\"1\"} 4"));
	CHECK(has_line(text, "websocket_message_latency_seconds_bucket{le=\"5\"} 5"));
	CHECK(has_line(text, "websocket_message_latency_seconds_bucket{le=\"+Inf\"} 6"));
	CHECK(has_line(text, "websocket_message_latency_seconds_count 6"));
	CHECK(has_line(text, "websocket_message_latency_seconds_sum 10.001020002"));
	CHECK(has_line(text, "# TYPE websocket_message_latency_seconds histogram"));
	sample_free(s);
}

TEST(metrics_close_codes_have_their_series)
{
	static const uint16_t codes[] = {1000, 1001, 1002, 1003, 1006, 1007,
					 1008, 1009, 1011, 1012, 1013, 4001};
	struct sample *s = sample_new();
	const char *text;
	char line[100];

	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		metrics_count_close(&s->shard[i % 2], codes[i]);
	metrics_count_close(&s->shard[0], 0);
	metrics_count_close(&s->shard[0], 3000);
	metrics_count_close(&s->shard[0], 4999);
	text = sample_text(s);
	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		snprintf(line, sizeof(line), "websocket_closes_total{code=\"%u\"} %d", codes[i],
			 codes[i] == 1006 ? 2 : 1);
		CHECK(has_line(text, line));
	}
	CHECK(has_line(text, "websocket_closes_total{code=\"other\"} 2"));
	sample_free(s);
}

TEST(metrics_one_help_and_type_for_each_name)
{
	struct sample *s = sample_new();
	const char *text = sample_text(s);

	CHECK_EQ(count_text(text, "# HELP websocket_closes_total "), 1);
	CHECK_EQ(count_text(text, "# TYPE websocket_closes_total "), 1);
	CHECK_EQ(count_text(text, "# TYPE websocket_compression_input_bytes_total "), 1);
	CHECK_EQ(count_text(text, "\nwebsocket_compression_input_bytes_total{"), 4);
	CHECK_EQ(count_text(text, "# HELP "), count_text(text, "# TYPE "));
	sample_free(s);
}

TEST(metrics_workers_have_their_own_series)
{
	struct sample *s = sample_new();
	const char *text;

	METRIC_ADD(&s->shard[0], connections_active, 3);
	METRIC_ADD(&s->shard[1], connections_active, 4);
	METRIC_ADD(&s->shard[1], loop_turns, 9);
	METRIC_ADD(&s->shard[1], loop_busy_ns, UINT64_C(12000000034));
	METRIC_INC(&s->shard[0], ring_overflows);
	s->depth[1] = 17;
	text = sample_text(s);
	CHECK(has_line(text, "websocket_active_connections 7"));
	CHECK(has_line(text, "websocket_worker_connections{worker=\"0\"} 3"));
	CHECK(has_line(text, "websocket_worker_connections{worker=\"1\"} 4"));
	CHECK(has_line(text, "websocket_worker_loop_turns_total{worker=\"1\"} 9"));
	CHECK(has_line(text,
		       "websocket_worker_loop_busy_seconds_total{worker=\"1\"} 12.000000034"));
	CHECK(has_line(text, "websocket_worker_ring_overflows_total{worker=\"0\"} 1"));
	CHECK(has_line(text, "websocket_worker_ring_depth{worker=\"0\"} 0"));
	CHECK(has_line(text, "websocket_worker_ring_depth{worker=\"1\"} 17"));
	sample_free(s);
}

TEST(metrics_extra_is_shown_and_may_be_missing)
{
	struct sample *s = sample_new();
	const char *text;

	s->extra = (struct metrics_extra){.channels = 5,
					  .log_memory_bytes = 6,
					  .log_lines_dropped = 7,
					  .spool_queue_bytes = 8,
					  .spool_wait_ns = 12345678901,
					  .start_wall_ms = 1700000000042};
	text = sample_text(s);
	CHECK(has_line(text, "websocket_channels 5"));
	CHECK(has_line(text, "websocket_log_memory_bytes 6"));
	CHECK(has_line(text, "websocket_log_lines_dropped_total 7"));
	CHECK(has_line(text, "websocket_spool_queue_bytes 8"));
	CHECK(has_line(text, "websocket_spool_wait_seconds 12.345"));
	CHECK(has_line(text, "process_start_time_seconds 1700000000.042"));
	CHECK(!strstr(text, "build_info"));
	CHECK(!strstr(text, "ring_depth"));
	sample_free(s);
}

static double value_of(const char *text, const char *name)
{
	char at[100];
	const char *p;

	snprintf(at, sizeof(at), "\n%s ", name);
	p = strstr(text, at);
	CHECK(p);
	return strtod(p + strlen(at), NULL);
}

TEST(metrics_process_figures_are_plausible)
{
	struct sample *s = sample_new();
	const char *text;
	double before, rss;
	int open_now = 0;
	FILE *f;

	for (int fd = 0; fd < 1024; fd++)
		open_now += fcntl(fd, F_GETFD) >= 0;
	before = value_of(sample_text(s), "process_open_fds");
	CHECK(before == open_now);
	f = fopen("/dev/null", "r");
	CHECK(f);
	text = sample_text(s);
	CHECK(value_of(text, "process_open_fds") == before + 1);
	fclose(f);
	rss = value_of(text, "process_resident_memory_bytes");
	CHECK(rss > 64 * 1024);
	CHECK(value_of(text, "process_virtual_memory_bytes") >= rss);
	CHECK(value_of(text, "process_max_fds") > before);
	CHECK(value_of(text, "process_cpu_seconds_total") >= 0);
	CHECK(value_of(text, "process_cpu_seconds_total") < 3600);
	sample_free(s);
}

TEST(metrics_text_past_the_limit_is_an_error)
{
	struct sample *s = sample_new();
	static const char fill[65536];

	while (s->out.len + sizeof(fill) <= METRICS_TEXT_MAX)
		CHECK_EQ(buf_append(&s->out, fill, sizeof(fill), METRICS_TEXT_MAX), 0);
	CHECK(metrics_render(s->shards, 2, &s->extra, &s->out) == -EMSGSIZE);
	CHECK(s->out.len <= METRICS_TEXT_MAX);
	sample_free(s);
}

static void *count_for_a_while(void *arg)
{
	struct metrics *m = arg;

	for (int i = 0; i < 20000; i++) {
		METRIC_INC(m, messages_received);
		metric_observe(m, 1000);
	}
	return NULL;
}

/* The reader sees no counter fall and a histogram whose count fits, while owners write. */
TEST(metrics_may_be_read_while_owners_write)
{
	struct sample *s = sample_new();
	pthread_t threads[2];
	uint64_t before = 0, now;

	for (size_t i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, count_for_a_while, &s->shard[i]), 0);
	do {
		now = METRICS_SUM(s->shards, 2, messages_received);
		CHECK(now >= before);
		before = now;
		(void)sample_text(s);
	} while (now < 40000);
	for (size_t i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK(has_line(sample_text(s), "websocket_message_latency_seconds_count 40000"));
	sample_free(s);
}

/* promtool has one complaint: about the name that was given. Skipped where it is not installed. */
TEST(metrics_promtool_is_content)
{
	struct sample *s = sample_new();
	char path[] = "/tmp/wb-metrics-XXXXXX", command[200], line[400];
	int fd, complaints = 0;
	FILE *f;

	if (system("command -v promtool >/dev/null 2>&1") != 0) {
		sample_free(s);
		return;
	}
	(void)sample_text(s);
	fd = mkstemp(path);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, s->out.data, s->out.len - 1), s->out.len - 1);
	close(fd);
	snprintf(command, sizeof(command), "promtool check metrics < %s 2>&1", path);
	f = popen(command, "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "websocket_total_connections ", 28) == 0)
			continue;
		fprintf(stderr, "# promtool: %s", line);
		complaints++;
	}
	(void)pclose(f); /* 3: it has something to say */
	unlink(path);
	CHECK_EQ(complaints, 0);
	sample_free(s);
}
