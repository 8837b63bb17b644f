/* SPDX-License-Identifier: MIT */
#include "model/metrics.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "containers/buf.h"

/*
 * A row of the table is a member of struct metrics and, by its offset, an entry here; all that
 * follows walks these entries. What the rows cannot say, since no worker counts it, comes with
 * struct metrics_extra, and what the kernel knows of the process is read from /proc.
 */

enum metric_kind {
	KIND_COUNTER,
	KIND_GAUGE,
	KIND_HISTOGRAM,
	KIND_WORKER_COUNTER,
	KIND_WORKER_SECONDS,
	KIND_WORKER_VIEW,
};

/* One row of metrics_table.h. */
struct metric_row {
	enum metric_kind kind;
	size_t offset; /* in struct metrics */
	const char *field;
	const char *name;
	const char *labels;
	const char *help;
};

#define ROW(kind, field, name, labels, help) \
	{KIND_##kind, offsetof(struct metrics, field), #field, name, labels, help},
#define COUNTER(...) ROW(COUNTER, __VA_ARGS__)
#define GAUGE(...) ROW(GAUGE, __VA_ARGS__)
#define HISTOGRAM(...) ROW(HISTOGRAM, __VA_ARGS__)
#define WORKER_COUNTER(...) ROW(WORKER_COUNTER, __VA_ARGS__)
#define WORKER_SECONDS(...) ROW(WORKER_SECONDS, __VA_ARGS__)
#define WORKER_VIEW(...) ROW(WORKER_VIEW, __VA_ARGS__)

static const struct metric_row rows[] = {
#include "model/metrics_table.h"
};

#define BOUND_NS(bound_ns, text) bound_ns,
#define BOUND_TEXT(bound_ns, text) text,

static const uint64_t bound_ns[METRICS_N_BOUNDS] = {METRICS_BUCKETS(BOUND_NS)};
static const char *const bound_text[METRICS_N_BOUNDS] = {METRICS_BUCKETS(BOUND_TEXT)};

static const char *const type_text[] = {
	[KIND_COUNTER] = "counter",        [KIND_GAUGE] = "gauge",
	[KIND_HISTOGRAM] = "histogram",    [KIND_WORKER_COUNTER] = "counter",
	[KIND_WORKER_SECONDS] = "counter", [KIND_WORKER_VIEW] = "gauge",
};

/* A rendering under way; the first error stays, and nothing is appended after it. */
struct render {
	const struct metrics *const *shards;
	size_t n;
	struct buf *out;
	int error;
};

void metrics_hist_add(struct metrics_hist *h, uint64_t ns)
{
	size_t i = 0;

	/* From below, by steps: nearly all durations lie in the first few of the buckets. */
	while (i < METRICS_N_BOUNDS && ns > bound_ns[i])
		i++;
	metric_add(&h->bucket[i], 1);
	metric_add(&h->sum_ns, ns);
}

void metrics_count_close(struct metrics *m, uint16_t code)
{
	switch (code) {
#define CLOSE_CODE(name, counter, ...)  \
	case WS_CODE_##name:            \
		METRIC_INC(m, counter); \
		break;
#include "model/close_codes_table.h"
	case 0: /* no code was ever set: the same end as 1006 */
		METRIC_INC(m, closed_abnormal);
		break;
	default:
		METRIC_INC(m, closed_other);
	}
}

/* ------------------------------------------------------- from one process to the next */

#define NAME_MAX_BYTES 80

/* What is open or waits now is counted again by whoever takes it over. */
static bool row_is_passed_on(const struct metric_row *row)
{
	return row->kind != KIND_GAUGE && row->kind != KIND_WORKER_VIEW;
}

/*
 * Calls @fn for each counter of a row: one, or the buckets and the sum of a histogram. Buckets
 * are named by their bounds, not by their order: a later version may have others between them.
 */
static void row_each(const struct metrics *m, const struct metric_row *row, metrics_each_fn *fn,
		     void *ctx)
{
	const char *at = (const char *)m + row->offset;
	const struct metrics_hist *h = (const void *)at;
	char name[NAME_MAX_BYTES];

	if (row->kind != KIND_HISTOGRAM) {
		fn(ctx, row->field,
		   atomic_load_explicit((const _Atomic uint64_t *)(const void *)at,
					memory_order_relaxed));
		return;
	}
	for (size_t i = 0; i <= METRICS_N_BOUNDS; i++) {
		snprintf(name, sizeof(name), "%s/%s", row->field,
			 i < METRICS_N_BOUNDS ? bound_text[i] : "+Inf");
		fn(ctx, name, atomic_load_explicit(&h->bucket[i], memory_order_relaxed));
	}
	snprintf(name, sizeof(name), "%s/sum", row->field);
	fn(ctx, name, atomic_load_explicit(&h->sum_ns, memory_order_relaxed));
}

struct each_call {
	metrics_each_fn *fn;
	void *ctx;
};

static void each_unless_zero(void *ctx, const char *name, uint64_t value)
{
	const struct each_call *e = ctx;

	if (value)
		e->fn(e->ctx, name, value);
}

void metrics_each(const struct metrics *m, metrics_each_fn *fn, void *ctx)
{
	struct each_call e = {fn, ctx};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (row_is_passed_on(&rows[i]))
			row_each(m, &rows[i], each_unless_zero, &e);
}

static _Atomic uint64_t *hist_member(struct metrics_hist *h, const char *name)
{
	if (strcmp(name, "sum") == 0)
		return &h->sum_ns;
	if (strcmp(name, "+Inf") == 0)
		return &h->bucket[METRICS_N_BOUNDS];
	for (size_t i = 0; i < METRICS_N_BOUNDS; i++)
		if (strcmp(name, bound_text[i]) == 0)
			return &h->bucket[i];
	return NULL;
}

bool metrics_restore(struct metrics *m, const char *name, uint64_t value)
{
	const char *slash = strchrnul(name, '/');
	size_t n = (size_t)(slash - name);

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct metric_row *row = &rows[i];
		char *member = (char *)m + row->offset;
		_Atomic uint64_t *at = (_Atomic uint64_t *)(void *)member;

		/*
		 * The name may come from another version: of a row that is another kind by now,
		 * too.
		 */
		if (!row_is_passed_on(row) || strlen(row->field) != n ||
		    memcmp(row->field, name, n) != 0 ||
		    (row->kind == KIND_HISTOGRAM) != (*slash == '/'))
			continue;
		if (row->kind == KIND_HISTOGRAM)
			at = hist_member((struct metrics_hist *)(void *)member, slash + 1);
		if (at)
			metric_add(at, value);
		return at != NULL;
	}
	return false;
}

/* ---------------------------------------------------------------------- rendering */

static uint64_t metrics_load(const struct metrics *m, size_t offset)
{
	const _Atomic uint64_t *p = (const void *)((const char *)m + offset);

	return atomic_load_explicit(p, memory_order_relaxed);
}

uint64_t metrics_sum_at(const struct metrics *const shards[], size_t n, size_t offset)
{
	uint64_t sum = 0;

	/* Of a gauge one shard may be far above, another far below 0: together they wrap right. */
	for (size_t i = 0; i < n; i++)
		sum += metrics_load(shards[i], offset);
	return sum;
}

static void WB_PRINTF(2, 3) render_printf(struct render *r, const char *fmt, ...)
{
	char line[768];
	va_list args;
	int n;

	if (r->error)
		return;
	va_start(args, fmt);
	n = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	/* Names, labels and helps are ours, so a line that is too long is a row that is. */
	WB_ASSERT(n >= 0 && (size_t)n < sizeof(line));
	r->error = buf_append(r->out, line, (size_t)n, METRICS_TEXT_MAX);
}

static void render_head(struct render *r, const char *name, const char *type, const char *help)
{
	render_printf(r, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void render_seconds(struct render *r, const char *series, uint64_t ns)
{
	render_printf(r, "%s %" PRIu64 ".%09" PRIu64 "\n", series, ns / NS_PER_S, ns % NS_PER_S);
}

/* A metric of one value that is in no shard: its own family, head and all. */
static void render_single(struct render *r, const char *name, const char *type, const char *help,
			  uint64_t value)
{
	render_head(r, name, type, help);
	render_printf(r, "%s %" PRIu64 "\n", name, value);
}

static void render_sum(struct render *r, const struct metric_row *row)
{
	uint64_t value = metrics_sum_at(r->shards, r->n, row->offset);

	/* Shards are read one after the other, so a gauge may look negative for a moment. */
	if (row->kind == KIND_GAUGE && (int64_t)value < 0)
		value = 0;
	if (row->labels[0])
		render_printf(r, "%s{%s} %" PRIu64 "\n", row->name, row->labels, value);
	else
		render_printf(r, "%s %" PRIu64 "\n", row->name, value);
}

/*
 * Buckets are kept apart and told added up, each with all below it. They are read once and the
 * count is made of them, so that _count equals +Inf while workers go on counting.
 */
static void render_histogram(struct render *r, const struct metric_row *row)
{
	const char *comma = row->labels[0] ? "," : "";
	size_t at = row->offset + offsetof(struct metrics_hist, bucket);
	uint64_t count = 0;
	char series[256];

	for (size_t i = 0; i <= METRICS_N_BOUNDS; i++) {
		count += metrics_sum_at(r->shards, r->n, at + i * sizeof(uint64_t));
		render_printf(r, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", row->name, row->labels,
			      comma, i < METRICS_N_BOUNDS ? bound_text[i] : "+Inf", count);
	}
	snprintf(series, sizeof(series), row->labels[0] ? "%s_sum{%s}" : "%s_sum", row->name,
		 row->labels);
	at = row->offset + offsetof(struct metrics_hist, sum_ns);
	render_seconds(r, series, metrics_sum_at(r->shards, r->n, at));
	snprintf(series, sizeof(series), row->labels[0] ? "%s_count{%s}" : "%s_count", row->name,
		 row->labels);
	render_printf(r, "%s %" PRIu64 "\n", series, count);
}

static void render_workers(struct render *r, const struct metric_row *row)
{
	const char *comma = row->labels[0] ? "," : "";
	char series[256];

	for (size_t i = 0; i < r->n; i++) {
		uint64_t value = metrics_load(r->shards[i], row->offset);

		snprintf(series, sizeof(series), "%s{%s%sworker=\"%zu\"}", row->name, row->labels,
			 comma, i);
		if (row->kind == KIND_WORKER_SECONDS)
			render_seconds(r, series, value);
		else
			render_printf(r, "%s %" PRIu64 "\n", series, value);
	}
}

static void render_row(struct render *r, const struct metric_row *row)
{
	switch (row->kind) {
	case KIND_COUNTER:
	case KIND_GAUGE:
		render_sum(r, row);
		return;
	case KIND_HISTOGRAM:
		render_histogram(r, row);
		return;
	case KIND_WORKER_COUNTER:
	case KIND_WORKER_SECONDS:
	case KIND_WORKER_VIEW:
		render_workers(r, row);
		return;
	}
}

/* Names need not stand side by side in the table: it is in the order of what belongs together. */
static bool row_is_first_of_name(const struct metric_row *row)
{
	for (const struct metric_row *p = rows; p < row; p++)
		if (strcmp(p->name, row->name) == 0)
			return false;
	return true;
}

/* The text format wants the series of one name together: each name with all its rows. */
static void render_table(struct render *r)
{
	const struct metric_row *end = rows + ARRAY_LEN(rows);

	for (const struct metric_row *row = rows; row < end; row++) {
		if (!row_is_first_of_name(row))
			continue;
		render_head(r, row->name, type_text[row->kind], row->help);
		for (const struct metric_row *p = row; p < end; p++)
			if (strcmp(p->name, row->name) == 0)
				render_row(r, p);
	}
}

static void render_extra(struct render *r, const struct metrics_extra *x)
{
	render_single(r, "websocket_channels", "gauge", "Channels that have members.", x->channels);
	render_single(r, "websocket_log_memory_bytes", "gauge",
		      "Bytes of all messages that wait for anyone.", x->log_memory_bytes);
	render_single(r, "websocket_history_bytes", "gauge",
		      "Memory of what channels keep of what was said.", x->history_bytes);
	render_single(r, "websocket_history_messages", "gauge", "Messages that channels keep.",
		      x->history_messages);
	render_single(r, "websocket_history_evicted_messages_total", "counter",
		      "Messages that channels have kept, and keep no more.", x->history_evicted);
	render_single(r, "websocket_log_lines_dropped_total", "counter",
		      "Log lines that the journal did not take in time.", x->log_lines_dropped);
	render_single(r, "websocket_spool_queue_bytes", "gauge",
		      "Bytes of transfers that wait to be written to spool_dir.",
		      x->spool_queue_bytes);
	render_head(r, "websocket_spool_wait_seconds", "gauge",
		    "How long the chunk that is being written to spool_dir has waited.");
	render_printf(r, "websocket_spool_wait_seconds %" PRIu64 ".%03" PRIu64 "\n",
		      x->spool_wait_ns / NS_PER_S, x->spool_wait_ns / NS_PER_MS % 1000);
	render_single(r, "websocket_handover_state_bytes", "gauge",
		      "Bytes of the state that this process took over from the one before.",
		      x->state_bytes);
	render_head(r, "websocket_handover_pause_seconds", "gauge",
		    "How long clients waited while this process took over from the one before.");
	render_printf(r, "websocket_handover_pause_seconds %" PRIu64 ".%06" PRIu64 "\n",
		      x->pause_ns / NS_PER_S, x->pause_ns / NS_PER_US % 1000000);
	/* Left out where shards are no workers: in tests. */
	if (x->ring_depth) {
		render_head(r, "websocket_worker_ring_depth", "gauge",
			    "Posts that wait in the ring of a worker.");
		for (size_t i = 0; i < r->n; i++)
			render_printf(r,
				      "websocket_worker_ring_depth{worker=\"%zu\"} %" PRIu64 "\n",
				      i, x->ring_depth[i]);
	}
	if (x->version) {
		render_head(r, "wsbind_build_info", "gauge",
			    "Always 1; the label has the version.");
		render_printf(r, "wsbind_build_info{version=\"%.64s\"} 1\n", x->version);
	}
	render_head(r, "process_start_time_seconds", "gauge",
		    "Start time of the process since the Unix epoch.");
	render_printf(r, "process_start_time_seconds %" PRIu64 ".%03" PRIu64 "\n",
		      x->start_wall_ms / 1000, x->start_wall_ms % 1000);
}

/* Processor time and memory of proc_pid_stat(5), fields 14, 15, 23 and 24. */
static void render_process_stat(struct render *r)
{
	uint64_t utime, stime, vsize;
	char text[1024] = "";
	const char *p;
	long rss;
	FILE *f = fopen("/proc/self/stat", "re");
	long ticks = sysconf(_SC_CLK_TCK);

	/* Hidden by hidepid= or not mounted at all: nothing is better than a wrong figure. */
	if (!f)
		return;
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	(void)fclose(f); /* only read */
	/* The name in parentheses may hold anything; what follows the last one is numbers. */
	p = strrchr(text, ')');
	if (!p || ticks <= 0 ||
	    sscanf(p + 1,
		   " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
		   " %*d %*d %*d %*d %*d %*d %*u %" SCNu64 " %ld",
		   &utime, &stime, &vsize, &rss) != 4)
		return;
	render_head(r, "process_cpu_seconds_total", "counter",
		    "User and system processor time spent in seconds.");
	render_printf(r, "process_cpu_seconds_total %.2f\n",
		      (double)(utime + stime) / (double)ticks);
	render_single(r, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.",
		      vsize);
	render_single(r, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.",
		      (uint64_t)rss * (uint64_t)sysconf(_SC_PAGESIZE));
}

/* Descriptors that are open; 0: that can't be seen. An own count would miss those of libraries. */
static uint64_t count_descriptors(void)
{
	const struct dirent *e;
	uint64_t count = 0;
	struct stat st;
	DIR *d;

	/* From Linux 6.2 on the folder's size says it; to read it takes a microsecond for each. */
	if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
		return (uint64_t)st.st_size;
	d = opendir("/proc/self/fd");
	if (!d)
		return 0;
	while ((e = readdir(d)))
		count += e->d_name[0] != '.';
	closedir(d);
	return count - 1; /* one of them was the folder itself */
}

static void render_process_descriptors(struct render *r)
{
	uint64_t count = count_descriptors();
	struct rlimit limit;

	if (count)
		render_single(r, "process_open_fds", "gauge", "Number of open file descriptors.",
			      count);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		render_single(r, "process_max_fds", "gauge",
			      "Maximum number of open file descriptors.", limit.rlim_cur);
}

int metrics_render(const struct metrics *const shards[], size_t n,
		   const struct metrics_extra *extra, struct buf *out)
{
	struct render r = {.shards = shards, .n = n, .out = out};

	/* None of them looks at an error: after the first one nothing is appended. */
	render_table(&r);
	render_extra(&r, extra);
	render_process_stat(&r);
	render_process_descriptors(&r);
	return r.error;
}
