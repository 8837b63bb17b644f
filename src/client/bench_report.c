/* SPDX-License-Identifier: MIT */
#include "client/bench.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"

/* Words and JSON show the same figures; what only one of them has would be missed by the other. */

static const double percents[] = {50, 90, 99, 99.9};

uint64_t bench_expected(const struct bench *b)
{
	return b->sent * b->receivers;
}

static uint64_t bench_lost(const struct bench *b)
{
	return bench_expected(b) - b->stats.delivered;
}

/* 0 when it cannot be told: there was no memory to compare them. */
static uint64_t bench_orders(const struct bench *b)
{
	uint64_t n;

	if (b->options.is_echo)
		return 1;
	return bench_stats_orders(&b->stats, &n) < 0 ? 0 : n;
}

/* Late messages are clean in no case: a channel promises an order, not only completeness. */
bool bench_is_clean(const struct bench *b)
{
	return !b->has_failed && b->sent == b->options.messages && bench_lost(b) == 0 &&
	       b->stats.duplicated == 0 && b->stats.late == 0 && bench_orders(b) == 1;
}

/* Up to the last delivery: the closing at the end is no part of it. */
static double bench_seconds(const struct bench *b)
{
	return b->last_ns > b->began_ns ? (double)(b->last_ns - b->began_ns) / NS_PER_S : 0;
}

static double bench_per_second(const struct bench *b, double n)
{
	double s = bench_seconds(b);

	return s > 0 ? n / s : 0;
}

/* What the server used; 0 where it was not to be measured, or could not be. */
static double bench_connecting_ns(const struct bench *b)
{
	return b->usage.open_ns > b->usage.before_ns
		       ? (double)(b->usage.open_ns - b->usage.before_ns)
		       : 0;
}

static double bench_running_ns(const struct bench *b)
{
	return b->usage.end_ns > b->usage.open_ns ? (double)(b->usage.end_ns - b->usage.open_ns)
						  : 0;
}

/* Data only: heads of frames and messages are not counted. */
static double bench_megabytes(const struct bench *b)
{
	return (double)b->stats.delivered * (double)b->options.message_size / 1e6;
}

/* -------------------------------------------------------------------- on the way */

void bench_report_clear(struct bench *b)
{
	if (b->has_progress)
		fputs("\r\033[K", b->err);
	b->has_progress = false;
}

void bench_report_progress(struct bench *b)
{
	uint64_t now = clock_now_ns();
	double passed = (double)(now - b->shown_ns) / NS_PER_S;
	uint64_t all = b->options.messages * b->receivers;

	/* Of the time since the last line: an average over the whole run would hide a stall. */
	b->has_progress = true;
	if (b->phase == BENCH_CONNECTING)
		fprintf(b->err, "\rconnecting: %" PRIu32 " of %" PRIu64 "\033[K", b->n_open,
			b->options.clients);
	if (b->phase == BENCH_RUNNING)
		fprintf(b->err,
			"\r%3.0f %%  sent %" PRIu64 "  delivered %" PRIu64 "  %.0f messages/s"
			"  p99 %.3f ms\033[K",
			100.0 * (double)b->stats.delivered / (double)all, b->sent,
			b->stats.delivered,
			passed > 0 ? (double)(b->stats.delivered - b->shown_delivered) / passed : 0,
			(double)hist_percentile(&b->latency, 99) / NS_PER_MS);
	b->shown_ns = now;
	b->shown_delivered = b->stats.delivered;
}

/* ------------------------------------------------------------------------ results */

static void bench_report_words(const struct bench *b)
{
	const struct bench_options *o = &b->options;

	/* Figures that tell whether it went well come first, then those that tell how fast. */
	fprintf(b->out,
		"mode: %s, %" PRIu64 " clients, %" PRIu64 " of them publish, window %" PRIu64
		", %" PRIu64 " bytes\n",
		o->mode, o->clients, o->publishers, o->window, o->message_size);
	fprintf(b->out, "sent: %" PRIu64 " of %" PRIu64 "\n", b->sent, o->messages);
	fprintf(b->out, "delivered: %" PRIu64 " of %" PRIu64 "\n", b->stats.delivered,
		bench_expected(b));
	fprintf(b->out, "lost: %" PRIu64 "\nduplicated: %" PRIu64 "\nout of order: %" PRIu64 "\n",
		bench_lost(b), b->stats.duplicated, b->stats.late);
	if (!o->is_echo)
		fprintf(b->out, "orders: %" PRIu64 "\n", bench_orders(b));
	fprintf(b->out, "total time: %.3f s\n", bench_seconds(b));
	fprintf(b->out, "throughput: %.0f messages/s delivered, %.1f MB/s; %.0f messages/s sent\n",
		bench_per_second(b, (double)b->stats.delivered),
		bench_per_second(b, bench_megabytes(b)), bench_per_second(b, (double)b->sent));
	fprintf(b->out, "latency: mean %.3f ms", hist_mean(&b->latency) / NS_PER_MS);
	for (size_t i = 0; i < ARRAY_LEN(percents); i++)
		fprintf(b->out, ", p%g %.3f ms", percents[i],
			(double)hist_percentile(&b->latency, percents[i]) / NS_PER_MS);
	fprintf(b->out, ", max %.3f ms\n", (double)hist_max(&b->latency) / NS_PER_MS);
	/* wsbind sends nobody his own messages; a server that does works twice for each. */
	if (b->own > 0)
		fprintf(b->out, "own: %" PRIu64 " messages came back to who sent them\n", b->own);
	if (o->server_pid)
		fprintf(b->out,
			"server: %.1f us of processor time for each connection, "
			"%.3f us for each delivery\n",
			bench_connecting_ns(b) / (double)o->clients / NS_PER_US,
			bench_running_ns(b) / (double)MAX(b->stats.delivered + b->own, 1ULL) /
				NS_PER_US);
}

static void bench_report_json_latency(const struct bench *b)
{
	fprintf(b->out, "\"latency_ms\":{\"mean\":%.6f", hist_mean(&b->latency) / NS_PER_MS);
	for (size_t i = 0; i < ARRAY_LEN(percents); i++)
		fprintf(b->out, ",\"p%g\":%.6f", percents[i],
			(double)hist_percentile(&b->latency, percents[i]) / NS_PER_MS);
	fprintf(b->out, ",\"max\":%.6f}", (double)hist_max(&b->latency) / NS_PER_MS);
}

static void bench_report_json(const struct bench *b)
{
	const struct bench_options *o = &b->options;
	char problem[TEXT_JSON_CAP(sizeof(b->problem))];

	/* One object in any case: a script that reads it finds "ok": false, and why, inside. */
	fprintf(b->out,
		"{\"mode\":\"%s\",\"clients\":%" PRIu64 ",\"publishers\":%" PRIu64
		",\"window\":%" PRIu64 ",\"rate\":%" PRIu64 ",\"messages\":%" PRIu64
		",\"message_size\":%" PRIu64 ",",
		o->mode, o->clients, o->publishers, o->window, o->rate, o->messages,
		o->message_size);
	fprintf(b->out,
		"\"sent\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"expected\":%" PRIu64
		",\"lost\":%" PRIu64 ",\"duplicated\":%" PRIu64 ",\"out_of_order\":%" PRIu64
		",\"orders\":%" PRIu64 ",\"own\":%" PRIu64 ",",
		b->sent, b->stats.delivered, bench_expected(b), bench_lost(b), b->stats.duplicated,
		b->stats.late, bench_orders(b), b->own);
	fprintf(b->out,
		"\"seconds\":%.6f,\"messages_per_second\":%.1f,\"mb_per_second\":%.3f"
		",\"sent_per_second\":%.1f,",
		bench_seconds(b), bench_per_second(b, (double)b->stats.delivered),
		bench_per_second(b, bench_megabytes(b)), bench_per_second(b, (double)b->sent));
	bench_report_json_latency(b);
	if (o->server_pid)
		fprintf(b->out, ",\"server_seconds\":{\"connecting\":%.9f,\"running\":%.9f}",
			bench_connecting_ns(b) / NS_PER_S, bench_running_ns(b) / NS_PER_S);
	text_json(problem, sizeof(problem), b->problem, strlen(b->problem));
	fprintf(b->out, ",\"ok\":%s,\"error\":", bench_is_clean(b) ? "true" : "false");
	fprintf(b->out, b->has_failed ? "\"%s\"}\n" : "null}\n", problem);
}

void bench_report(const struct bench *b)
{
	if (b->options.is_json)
		bench_report_json(b);
	else if (b->sent > 0)
		bench_report_words(b);
}
