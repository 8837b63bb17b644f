/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A run of a benchmark: who takes part, what is counted, and how a kind of server is spoken to.
 * benchmark.c reads the command line, bench_run.c runs, bench_report.c tells; each uses those
 * behind it.
 */

#include <stdio.h>

#include "client/bench_message.h"
#include "client/bench_stats.h"
#include "client/endpoint.h"
#include "containers/hist.h"
#include "model/options.h"

#define BENCH_SILENCE_NS (100 * NS_PER_MS) /* of silence before the first message */
#define BENCH_SILENCE_MAX_NS (10 * NS_PER_S)
#define BENCH_ECHO_NS (5 * NS_PER_S)   /* for the first echo */
#define BENCH_STALL_NS (10 * NS_PER_S) /* without a delivery, after which the run is over */
#define BENCH_FLIGHT_MESSAGES 64ULL    /* of all publishers together, by default */
#define BENCH_FLIGHT_BYTES ((uint64_t)512 << 10)
#define BENCH_PUBLISHERS 8ULL /* by default */

/* What the command line says; 0 where that isn't given. */
struct WB_FROZEN bench_options {
	const char *url;
	const char *mode;
	uint64_t messages, clients, message_size;
	struct target_security security;
	uint64_t publishers, window, rate, server_pid;
	bool is_json;
	bool is_echo; /* from mode */
};

extern const struct option_table bench_option_table;

enum bench_phase {
	BENCH_CONNECTING,
	BENCH_AWAITING_SILENCE, /* all are connected; greetings and notices arrive */
	BENCH_RUNNING,
	BENCH_CLOSING,
};

struct bench;
struct bench_member;

/* How a kind of server is spoken to. */
struct WB_FROZEN bench_dialect {
	/* Makes the message in which only the head changes; as bench_template_init(). */
	int (*make)(struct bench_template *t, size_t size, uint64_t seed);
	/* A connection opened; NULL: nothing is to be said then. */
	void (*opened)(struct bench_member *m);
	/* A binary message arrived: bench_arrived() for all data in it. False: it had none. */
	bool (*message)(struct bench_member *m, const uint8_t *p, size_t n);
};

/* BINARY_DATA, to wsbind or to whatever hands on what it gets. */
extern const struct bench_dialect bench_dialect_wsbind;

/* What the server's process has used, from its start. */
struct WB_VALUE bench_usage {
	uint64_t before_ns; /* the first connection */
	uint64_t open_ns;   /* before the first message */
	uint64_t end_ns;    /* at the last delivery */
};

/* One client. The first ones publish; the last, if it doesn't, is the reference of the order. */
struct WB_OWNER(loop) bench_member {
	struct endpoint endpoint;
	struct bench *bench;
	uint32_t index;
	uint32_t sent;  /* messages */
	uint32_t quota; /* that it is to send; 0 for who only receives */
};

struct WB_OWNER(loop) bench {
	struct endpoint_loop loop;
	struct target target;
	struct bench_options options;
	const struct bench_dialect *dialect;
	struct config *config;
	FILE *out, *err;

	enum bench_phase phase;
	struct bench_member *members;
	uint32_t n_open, n_ended;
	bool has_failed; /* said to err */
	char problem[256];

	uint64_t run; /* random name of this run */
	struct bench_template template;
	struct bench_stats stats;
	struct hist latency;
	uint32_t receivers; /* of each message */
	struct bench_usage usage;
	uint64_t sent;
	uint64_t own;      /* that came back to who had sent them; wsbind sends none */
	uint32_t *pending; /* [publisher * window + number % window]: members that wait for it */
	uint32_t next_publisher;

	uint64_t began_ns; /* the phase, then the first message */
	uint64_t last_ns;  /* the last delivery */
	uint64_t heard_ns; /* anything at all */
	struct wheel_timer watch, progress;
	uint64_t shown_ns, shown_delivered;
	bool has_progress;
};

/* Fills in what depends on other options and settings. False after it said what is wrong. */
bool bench_complete_options(struct bench_options *o, const struct config *config, FILE *err);

/**
 * bench_is_throttled() - whether a server that limits frames a second held the publishers back
 * @limit:  of frames a second from one client
 *
 * Return:  true when all were about as fast as that, and nothing else kept them so slow.
 */
bool bench_is_throttled(const struct bench *b, uint64_t limit);

/**
 * bench_command() - benchmark_main() in a dialect
 *
 * Return:  as benchmark_main().
 * Thread:  main, once.
 */
int bench_command(char **argv, const struct bench_dialect *dialect) WB_NODISCARD;

/* --------------------------------------------------------------------- bench_run.c */

/**
 * bench_run() - connect, measure, close
 * @b:      options, target and config filled in
 *
 * Return:  0, the run came to its end (see bench_is_clean()) | 1, said to b->err.
 */
int bench_run(struct bench *b) WB_NODISCARD;

/* What a process has used on all processors so far, in ns; 0 when there is no such process. */
uint64_t bench_process_ns(uint64_t pid);

/* Frees what a run has. */
void bench_fini(struct bench *b);

/**
 * bench_arrived() - book data that a dialect found
 *
 * Return:  whether it is a message of this run.
 */
bool bench_arrived(struct bench_member *m, const uint8_t *data, size_t n);

/* ------------------------------------------------------------------ bench_report.c */

/* Deliveries that there should have been of what was sent. */
uint64_t bench_expected(const struct bench *b);

/* Whether all was sent, and everything arrived once, in order, in the same order for all. */
bool bench_is_clean(const struct bench *b);

/* The progress line: overwrites itself; bench_report_clear() makes room for other text. */
void bench_report_progress(struct bench *b);
void bench_report_clear(struct bench *b);

/* The result, in words or as a JSON object; no words when nothing was sent. */
void bench_report(const struct bench *b);
