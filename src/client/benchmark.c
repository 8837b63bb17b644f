/* SPDX-License-Identifier: MIT */
#include "client/benchmark.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "client/bench.h"
#include "client/system.h"

#define DEFAULT_URL "ws://127.0.0.1:8080"
#define PREPARED_HELP (-1)
#define MAX_SIZE ((uint64_t)256 << 20)
#define MAX_MESSAGES UINT32_MAX /* of all publishers: a number has 32 bits */
#define PID_LIMIT (4 << 20)     /* of Linux on 64 bits: proc(5), pid_max */

/* clang-format off */
#define OPTION(...) OPTION_ROW(struct bench_options, __VA_ARGS__)
static const struct option_row rows[] = {
	OPTION('u', "url", TEXT, url, 0, 0, "URL", NULL,
	       "server; " DEFAULT_URL ". Without a path, fanout uses a\n"
	       "channel of its own"),
	OPTION('m', "messages", COUNT, messages, 1, MAX_MESSAGES, "N", "[-m MESSAGES]",
	       "messages sent by all together; 10000"),
	OPTION('c', "clients", COUNT, clients, 1, 1000000, "N", "[-c CLIENTS]",
	       "connections; 10"),
	OPTION(0, "message-size", SIZE, message_size, BENCH_MIN_SIZE, MAX_SIZE, "N",
	       "[--message-size BYTES]",
	       "bytes of data in each; 1024"),
	OPTION(0, "mode", TEXT, mode, 0, 0, "MODE", "[--mode fanout|echo]",
	       "fanout or echo; fanout"),
	OPTION(0, "publishers", COUNT, publishers, 1, 1000000, "N", NULL,
	       "clients that publish; 8, or one less than there are clients"),
	OPTION(0, "window", COUNT, window, 1, 1000000, "N", NULL,
	       "messages of one publisher on their way; so many that all\n"
	       "together are 64 and 512K at most"),
	OPTION(0, "rate", COUNT, rate, 1, 100000000, "N", NULL,
	       "messages a second of all together; as fast as the window lets"),
	OPTION(0, "server-pid", COUNT, server_pid, 1, PID_LIMIT, "PID", NULL,
	       "process of the server on this host: what it uses is measured"),
	TARGET_OPTIONS(struct bench_options, security),
	OPTION(0, "json", FLAG, is_json, 0, 0, NULL, NULL,
	       "print the result as one JSON object"),
};
#undef OPTION
/* clang-format on */

const struct option_table bench_option_table = {
	.command = "benchmark",
	.about = "fanout: clients in one channel, some of them publish, all count what arrives.\n"
		 "echo:   every client sends to the server's echo_path and awaits its own.\n",
	.ending = "Exit status: 0 everything arrived once and in order; 1 not so, or no server;\n"
		  "2 usage; 78 configuration. See wsbind-benchmark(1).\n",
	.rows = rows,
	.n_rows = ARRAY_LEN(rows),
};

static bool WB_PRINTF(2, 3) bench_complain(FILE *err, const char *format, ...)
{
	va_list args;

	fputs("wsbind benchmark: ", err);
	va_start(args, format);
	vfprintf(err, format, args);
	va_end(args);
	fputc('\n', err);
	return false;
}

/* So many that the queues of the server's clients fill neither by number nor by size. */
static uint64_t bench_default_window(const struct bench_options *o, const struct config *config)
{
	/*
	 * Half of a queue at most: what is measured is the way through, not a policy for slow
	 * clients.
	 */
	uint64_t messages = MIN(BENCH_FLIGHT_MESSAGES, config->message_queue_size / 2);
	uint64_t bytes = MIN(BENCH_FLIGHT_BYTES, config->max_send_buffer / 2);

	messages = MIN(messages, bytes / o->message_size);
	return MAX(messages / o->publishers, 1ULL);
}

bool bench_complete_options(struct bench_options *o, const struct config *config, FILE *err)
{
	/* What cannot be is refused before defaults are filled in: they are never to blame. */
	o->is_echo = strcmp(o->mode, "echo") == 0;
	if (!o->is_echo && strcmp(o->mode, "fanout") != 0)
		return bench_complain(err, "--mode %s: it is fanout or echo", o->mode);
	if (!o->is_echo && o->clients < 2)
		return bench_complain(
			err, "fanout needs two clients: nobody gets what he sends himself");
	if (o->is_echo && o->publishers && o->publishers != o->clients)
		return bench_complain(err, "--publishers: in echo mode every client sends");
	if (o->publishers > o->clients)
		return bench_complain(
			err, "--publishers %" PRIu64 ": there are only %" PRIu64 " clients",
			o->publishers, o->clients);
	if (o->is_echo)
		o->publishers = o->clients;
	else if (!o->publishers)
		o->publishers = MIN(BENCH_PUBLISHERS, o->clients - 1);
	/* Whoever has nothing to publish only receives. */
	if (!o->is_echo)
		o->publishers = MIN(o->publishers, o->messages);
	/* Last, since it depends on how many publish. */
	if (!o->window)
		o->window = bench_default_window(o, config);
	return true;
}

/* A channel of its own, unless the URL names one: so that a run disturbs nobody. */
static bool bench_choose_channel(const struct bench *b, struct ws_url *url)
{
	char name[32] = "bench-";
	uint8_t random[8];

	if (b->options.is_echo || (url->path[1] != '\0' && url->path[1] != '?'))
		return true;
	/* By chance, since two benchmarks at a time would count each other's messages as noise. */
	system_random_bytes(random, sizeof(random));
	hex_encode(name + strlen(name), random, sizeof(random));
	return ws_url_set_channel(url, name) == 0;
}

static int bench_find_target(struct bench *b)
{
	struct ws_url url;
	const char *why;
	int r;

	if (ws_url_parse(b->options.url, &url) < 0 || !bench_choose_channel(b, &url)) {
		(void)bench_complain(stderr, "%s: not a URL like ws://HOST:PORT/CHANNEL",
				     b->options.url);
		return OPTIONS_EXIT_USAGE;
	}
	r = target_init(&b->target, &url, &why);
	if (r < 0)
		(void)bench_complain(stderr, "%s: %s", b->options.url, why);
	/*
	 * A URL that can't be is a matter of usage; a name without an address, or a file, is not.
	 */
	if (r == 0 && target_secure(&b->target, &b->options.security, "benchmark", stderr) < 0)
		return EXIT_FAILURE;
	return r == 0 ? 0 : r == -EINVAL ? OPTIONS_EXIT_USAGE : EXIT_FAILURE;
}

static int bench_check_descriptors(const struct bench *b)
{
	size_t possible = system_raise_descriptors(b->options.clients);

	if (possible >= b->options.clients)
		return 0;
	(void)bench_complain(stderr,
			     "%" PRIu64
			     " clients need more open files than are allowed; possible are %zu "
			     "(ulimit -Hn)",
			     b->options.clients, possible);
	return EXIT_FAILURE;
}

static int bench_prepare_command(struct bench *b, char **argv)
{
	struct config_source source = {0};
	int r = options_parse(&bench_option_table, argv, &b->options, &source, stderr);

	if (r == OPTIONS_E_HELP) {
		options_print_help(&bench_option_table, stdout);
		return PREPARED_HELP;
	}
	if (r != 0)
		return OPTIONS_EXIT_USAGE;
	r = options_load(&bench_option_table, &source, stderr, &b->config);
	if (r != 0)
		return r;
	if (!bench_complete_options(&b->options, b->config, stderr))
		return OPTIONS_EXIT_USAGE;
	/* Found out now: a run that took minutes would end without the figure that it was for. */
	if (b->options.server_pid && bench_process_ns(b->options.server_pid) == 0) {
		(void)bench_complain(stderr, "--server-pid %" PRIu64 ": there is no such process",
				     b->options.server_pid);
		return EXIT_FAILURE;
	}
	r = bench_find_target(b);
	return r ? r : bench_check_descriptors(b);
}

bool bench_is_throttled(const struct bench *b, uint64_t limit)
{
	double wanted = (double)b->options.rate / (double)b->options.publishers;
	double frames = (double)limit, ns = (double)(b->last_ns - b->began_ns);
	double each = ns > 0 ? (double)b->sent * NS_PER_S / ns / (double)b->options.publishers : 0;

	/*
	 * Up to twice the limit, since a run begins with what a second allows already there. With
	 * a rate, only where more was wanted than came of it.
	 */
	return limit > 0 && b->sent > limit && each > 0.8 * frames && each < 2 * frames &&
	       (!b->options.rate || wanted > 1.05 * each);
}

/* The server may have its limit by default, or one that this configuration names. */
static void bench_hint_at_throttle(const struct bench *b)
{
	uint64_t limit = b->config->max_incoming_frames_per_second, usual = 0;

	/* A default is always valid: the tables see to it. */
	(void)!text_parse_count(config_keys[CONFIG_KEY_max_incoming_frames_per_second].dflt,
				&usual);
	if (!bench_is_throttled(b, limit))
		limit = bench_is_throttled(b, usual) ? usual : 0;
	if (limit > 0)
		(void)bench_complain(stderr,
				     "each publisher came to about %" PRIu64
				     " messages a second, as if held "
				     "back: set max_incoming_frames_per_second = 0 at the server",
				     limit);
}

int bench_command(char **argv, const struct bench_dialect *dialect)
{
	static struct bench bench;
	struct bench *b = &bench;
	int status;

	*b = (struct bench){.out = stdout, .err = stderr, .dialect = dialect};
	b->options = (struct bench_options){
		.url = DEFAULT_URL,
		.mode = "fanout",
		.messages = 10000,
		.clients = 10,
		.message_size = 1024,
	};
	/* A run that came to its end is reported whatever it found; one that broke off as well. */
	status = bench_prepare_command(b, argv);
	if (status == 0)
		status = bench_run(b);
	if (status == 0) {
		bench_report(b);
		bench_hint_at_throttle(b);
		status = bench_is_clean(b) && fflush(stdout) == 0 ? 0 : EXIT_FAILURE;
	}
	bench_fini(b);
	config_unref(b->config);
	return status == PREPARED_HELP ? 0 : status;
}

int benchmark_main(int argc, char **argv)
{
	(void)argc;
	return bench_command(argv, &bench_dialect_wsbind);
}
