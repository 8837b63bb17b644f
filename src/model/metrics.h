/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Counters, and their text for Prometheus.
 *
 * Each worker has a shard of its own and is the only one to write it, with a
 * relaxed load and a relaxed store: no locked instruction, no cache line shared
 * with another worker. Whoever renders reads all shards and adds them up; what
 * it reads is at most a moment old, and no counter is ever seen to fall.
 *
 * The rows are in metrics_table.h. A new counter is one new row.
 *
 * Text format: Prometheus exposition format 0.0.4.
 */

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include "model/close_codes.h"

struct buf;

/* Upper bounds of a histogram's buckets, but for the last, +Inf: nanoseconds, seconds as text. */
#define METRICS_BUCKETS(X)   \
	X(10000, "1e-05")    \
	X(25000, "2.5e-05")  \
	X(50000, "5e-05")    \
	X(100000, "0.0001")  \
	X(250000, "0.00025") \
	X(500000, "0.0005")  \
	X(1000000, "0.001")  \
	X(2000000, "0.002")  \
	X(5000000, "0.005")  \
	X(10000000, "0.01")  \
	X(20000000, "0.02")  \
	X(50000000, "0.05")  \
	X(100000000, "0.1")  \
	X(500000000, "0.5")  \
	X(1000000000, "1")   \
	X(5000000000, "5")

#define METRICS_COUNT_ONE(bound_ns, text) +1
#define METRICS_N_BOUNDS (0 METRICS_BUCKETS(METRICS_COUNT_ONE))

/* Durations; each counts in exactly one bucket, which are added up when rendered. */
struct WB_SHARED metrics_hist {
	_Atomic uint64_t bucket[METRICS_N_BOUNDS + 1];
	_Atomic uint64_t sum_ns;
};

/*
 * One worker's counters. All-zero is valid. Only its worker writes, any thread
 * reads. Aligned, so that shards that lie side by side share no cache line: what
 * allocates one has to use aligned_alloc() or a member of a struct.
 */
struct WB_SHARED metrics {
#define COUNTER(field, name, labels, help) _Atomic uint64_t field;
#define GAUGE(field, name, labels, help) _Atomic uint64_t field;
#define WORKER_COUNTER(field, name, labels, help) _Atomic uint64_t field;
#define WORKER_SECONDS(field, name, labels, help) _Atomic uint64_t field;
#define HISTOGRAM(field, name, labels, help) struct metrics_hist field;
#include "model/metrics_table.h"
} __attribute__((aligned(WB_CACHELINE)));

/* What no shard holds; the caller of metrics_render() fills it. */
struct WB_VALUE metrics_extra {
	uint64_t channels;         /* channels that have members */
	uint64_t log_memory_bytes; /* frames waiting for anyone */
	uint64_t history_bytes;    /* of what channels keep, and how many messages that is */
	uint64_t history_messages;
	uint64_t history_evicted; /* that are kept no more */
	uint64_t log_lines_dropped;
	uint64_t spool_queue_bytes; /* of chunks that wait for the disk */
	uint64_t spool_wait_ns;     /* of the chunk in hand, so far */
	uint64_t state_bytes;       /* taken over by this process */
	uint64_t pause_ns;          /* for which clients waited then */
	uint64_t start_wall_ms;     /* when the process started; fixed, so that it tells restarts */
	const char *version;        /* borrowed, without quotes; NULL: no build info */
	const uint64_t *ring_depth; /* borrowed; posts waiting, one for each shard; NULL: none */
};

/*
 * Owner only; one load and one store. @m is a struct metrics *, @field a row's.
 * METRIC_SUB is for gauges. A worker may take off what another one added: the
 * sum over the shards is right, though a single shard then may be negative.
 */
#define METRIC_INC(m, field) metric_add(&(m)->field, 1)
#define METRIC_ADD(m, field, n) metric_add(&(m)->field, (n))
#define METRIC_SUB(m, field, n) metric_add(&(m)->field, 0 - (uint64_t)(n))

/* One shard's value. Any thread. */
#define METRIC_GET(m, field) atomic_load_explicit(&(m)->field, memory_order_relaxed)

/* The sum of one row over @n shards (array of pointers). Any thread. */
#define METRICS_SUM(shards, n, field) metrics_sum_at((shards), (n), offsetof(struct metrics, field))

/**
 * metric_add() - add to one counter; behind METRIC_INC, METRIC_ADD and METRIC_SUB
 *
 * Thread:  the shard's owner.
 * Cost:    O(1), no locked instruction.
 */
static inline void metric_add(_Atomic uint64_t *counter, uint64_t n)
{
	uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, now + n, memory_order_relaxed);
}

/* The counter at @offset of the struct, which a table of another module names. */
static inline _Atomic uint64_t *metrics_counter(struct metrics *m, size_t offset)
{
	return (_Atomic uint64_t *)(void *)((char *)m + offset);
}

/**
 * metrics_hist_add() - count one duration in a histogram
 * @ns: [ns]; a bound belongs to the bucket below it
 *
 * Thread:  the shard's owner.
 * Cost:    O(buckets), no allocation.
 */
void metrics_hist_add(struct metrics_hist *h, uint64_t ns);

/* One message's latency [ns]. Thread: the shard's owner. */
static inline void metric_observe(struct metrics *m, uint64_t ns)
{
	metrics_hist_add(&m->latency, ns);
}

/**
 * metrics_count_close() - count the end of a connection under its close code
 * @code:   the code the connection ended with; 1006 or 0: it ended without a Close frame
 *
 * Thread:  the shard's owner.
 * Source:  RFC 6455 section 7.4.1.
 */
void metrics_count_close(struct metrics *m, uint16_t code);

/* Behind METRICS_SUM: @offset of a _Atomic uint64_t member. Any thread. */
uint64_t metrics_sum_at(const struct metrics *const shards[], size_t n, size_t offset);

/* One counter of a shard, by a name that stays the same in later versions. */
typedef void metrics_each_fn(void *ctx, const char *name, uint64_t value);

/*
 * Calls @fn for each counter of a shard that is not 0. Gauges are left out: what they measure
 * is measured anew. Thread: the shard's owner.
 */
void metrics_each(const struct metrics *m, metrics_each_fn *fn, void *ctx);

/*
 * Adds to a counter named by metrics_each(), of this process or one before it. Return: false:
 * there is none of that name (any more). Thread: the shard's owner.
 */
bool metrics_restore(struct metrics *m, const char *name, uint64_t value);

/**
 * metrics_render() - append all metrics as Prometheus text
 * @shards: one for each worker; its index is the label worker="…"
 * @extra:  what no shard holds
 *
 * @out never grows past METRICS_TEXT_MAX bytes. The process_* figures that /proc does
 * not give (hidden, or another system) are left out; everything else is always
 * there, at 0 when nothing happened.
 *
 * Return:  0 | -ENOMEM | -EMSGSIZE: @out would be longer than METRICS_TEXT_MAX.
 *          After an error @out holds a part that should be thrown away.
 * Thread:  any.
 */
#define METRICS_TEXT_MAX (4u << 20)
WB_ANY_THREAD int metrics_render(const struct metrics *const shards[], size_t n,
				 const struct metrics_extra *extra, struct buf *out) WB_NODISCARD;
